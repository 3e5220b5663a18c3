"""`plan --check-urls`: every source address is asked, and what is wrong is told by row."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator

import msgspec

from batch_runner.clock import Clock
from batch_runner.commands.console import say
from batch_runner.commands.environment import own_folder
from batch_runner.commands.output import print_lines
from batch_runner.commands.probe import (
    HINTS,
    FineAnswers,
    Probe,
    Prober,
    Source,
    Verdict,
    list_sources,
    probe_all,
)
from batch_runner.files.bucket import is_bucket_url
from batch_runner.jobs.images import table_of
from batch_runner.ledger.state import State
from batch_runner.records import redact_url
from batch_runner.report.progress import tracked
from batch_runner.run.batch import Batch
from batch_runner.run.planning import plan_jobs

_LISTED = 20
_KEPT = 1000
"""As many of what is wrong are kept to be sorted; beyond them only the counts go on."""


class AskedLine(msgspec.Struct, frozen=True, kw_only=True):
    """One address for machines: a line of it has `url`, a line about a job has none."""

    url: str
    verdict: str
    detail: str = ""
    job: str
    row: int | None = None
    status: int | None = None
    media_type: str | None = None
    size_bytes: int | None = None
    redirected_to: str | None = None
    remembered: bool = False


async def check_urls(batch: Batch, state: State, *, as_json: bool) -> int:
    """Ask the address of every picture that would be sent; return how many are no use."""
    clock = Clock()
    cache = own_folder("XDG_CACHE_HOME", ".cache")
    fine = FineAnswers(cache and cache / "batch-runner" / "fine-urls", clock.now())
    findings = _Findings(batch, fine, as_json=as_json)
    total = sum(1 for _ in _sources(batch, state))
    if total == 0:
        say("no address is left to be asked: nothing would be sent, or nothing from the web")
        return 0
    sources = tracked(
        _sources(batch, state), total=total, what="urls", unit="urls", stream=sys.stderr
    )
    try:
        async with Prober(
            allow_loopback=batch.service.is_local, clock=clock, proxies=batch.options.proxies
        ) as prober:

            async def ask(url: str) -> Probe:
                if is_bucket_url(url):
                    return await prober.ask_bucket(url, batch.buckets)
                return await prober.ask(url)

            await probe_all(findings.not_remembered(sources), ask, findings.take)
    finally:
        fine.save()
    findings.tell()
    return findings.wrong


class _Findings:
    """What the addresses answered: printed as it comes, or at the end."""

    def __init__(self, batch: Batch, fine: FineAnswers, *, as_json: bool) -> None:
        self._batch = batch
        self._fine = fine
        self._as_json = as_json
        self._counts: Counter[Verdict] = Counter()
        self._remembered = 0
        self._redirected = 0
        self._kept: list[tuple[Source, Probe]] = []

    @property
    def wrong(self) -> int:
        return self._counts.total() - self._counts[Verdict.OK]

    def not_remembered(self, sources: Iterable[Source]) -> Iterator[Source]:
        """Yield the sources that have to be asked."""
        for source in sources:
            if source.url not in self._fine:
                yield source
                continue
            self._remembered += 1
            self._print(source, Probe(url=source.url, verdict=Verdict.OK), remembered=True)

    def take(self, source: Source, probe: Probe) -> None:
        """Take in one answer."""
        self._counts[probe.verdict] += 1
        self._redirected += probe.redirected_to is not None
        self._print(source, probe)
        if probe.verdict is Verdict.OK:
            self._fine.add(source.url)
        elif len(self._kept) < _KEPT:
            self._kept.append((source, probe))

    def tell(self) -> None:
        """Say what is wrong, by row, and what to do about each kind of it."""
        shown = sorted(self._kept, key=lambda kept: (kept[0].row or 0, kept[0].job))[:_LISTED]
        for source, probe in shown:
            detail = f" ({probe.detail})" if probe.detail else ""
            say(f"{self._place(source)}: {redact_url(source.url)}: {probe.verdict}{detail}")
        if self.wrong > len(shown):
            say(f"(and {self.wrong - len(shown):,} more; --json lists them all)")
        for verdict, hint in HINTS.items():
            if self._counts[verdict]:
                say(f"hint: {verdict}: {hint}")
        if not self._as_json:
            print(self._summary())

    def _summary(self) -> str:
        parts = [f"{self._counts.total():,} asked"]
        if self._remembered:
            parts.append(f"{self._remembered:,} known to be fine since yesterday")
        parts += [f"{count:,} {verdict}" for verdict, count in self._counts.most_common()]
        if self._redirected:
            parts.append(f"{self._redirected:,} redirected elsewhere")
        return f"urls: {', '.join(parts)}"

    def _place(self, source: Source) -> str:
        table = table_of(self._batch.manifest)
        if source.row is None or table is None:
            return f"{self._batch.manifest.document.shown_as}: job {source.job}"
        return f"{table}: row {source.row}"

    def _print(self, source: Source, probe: Probe, *, remembered: bool = False) -> None:
        if not self._as_json:
            return
        line = AskedLine(
            url=redact_url(source.url),
            verdict=str(probe.verdict),
            detail=probe.detail,
            job=source.job,
            row=source.row,
            status=probe.status,
            media_type=probe.media_type,
            size_bytes=probe.size_bytes,
            redirected_to=probe.redirected_to,
            remembered=remembered,
        )
        print_lines([line])


def _sources(batch: Batch, state: State) -> Iterator[Source]:
    for source in list_sources(plan_jobs(batch, state), batch.models):
        # A rehearsal touches no bucket.
        if not (batch.options.rehearsal and is_bucket_url(source.url)):
            yield source
