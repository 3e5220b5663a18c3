"""`plan --check-urls`: tries the address of every picture in, and lists bad ones by row."""

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
"""At most this many bad addresses are kept and sorted; more are only counted."""


async def check_urls(batch: Batch, state: State, *, as_json: bool) -> int:
    """Try the address of every picture that would be sent; return how many are bad."""
    clock = Clock()
    cache = own_folder("XDG_CACHE_HOME", ".cache")
    fine = FineAnswers(cache and cache / "batch-runner" / "fine-urls", clock.now())
    results = _Results(batch, fine, as_json=as_json)
    total = sum(1 for _ in _sources(batch, state))
    if total == 0:
        say("no address to check: nothing would be sent, or no picture has an address")
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

            await probe_all(results.without_remembered(sources), ask, results.add)
    finally:
        fine.save()
    results.show()
    return results.bad


def _sources(batch: Batch, state: State) -> Iterator[Source]:
    for source in list_sources(plan_jobs(batch, state), batch.models):
        # A rehearsal touches no bucket.
        if not (batch.options.rehearsal and is_bucket_url(source.url)):
            yield source


class _Results:
    """The results: as JSON lines they are printed at once, for people at the end."""

    def __init__(self, batch: Batch, fine: FineAnswers, *, as_json: bool) -> None:
        self._batch = batch
        self._fine = fine
        self._as_json = as_json
        self._counts: Counter[Verdict] = Counter()
        self._remembered = 0
        self._redirected = 0
        self._kept: list[tuple[Source, Probe]] = []

    @property
    def bad(self) -> int:
        return self._counts.total() - self._counts[Verdict.OK]

    def without_remembered(self, sources: Iterable[Source]) -> Iterator[Source]:
        """Yield the sources that were not good within the last day."""
        for source in sources:
            if source.url in self._fine:
                self._remembered += 1
                self._print(source, Probe(url=source.url, verdict=Verdict.OK), remembered=True)
            else:
                yield source

    def add(self, source: Source, probe: Probe) -> None:
        """Count and keep one result."""
        self._counts[probe.verdict] += 1
        self._redirected += probe.redirected_to is not None
        self._print(source, probe, remembered=False)
        if probe.verdict is Verdict.OK:
            self._fine.add(source.url)
        elif len(self._kept) < _KEPT:
            self._kept.append((source, probe))

    def show(self) -> None:
        """List the bad addresses by row, with a hint for each kind."""
        shown = sorted(self._kept, key=lambda kept: (kept[0].row or 0, kept[0].job))[:_LISTED]
        for source, probe in shown:
            detail = f" ({probe.detail})" if probe.detail else ""
            say(f"{self._place(source)}: {redact_url(source.url)}: {probe.verdict}{detail}")
        if self.bad > len(shown):
            say(f"(and {self.bad - len(shown):,} more; --json lists all)")
        for verdict, hint in HINTS.items():
            if self._counts[verdict]:
                say(f"hint: {verdict}: {hint}")
        if self._as_json:
            return
        parts = [f"{self._counts.total():,} checked"]
        parts += [f"{self._remembered:,} good since yesterday"] if self._remembered else []
        parts += [f"{count:,} {verdict}" for verdict, count in self._counts.most_common()]
        parts += [f"{self._redirected:,} redirected"] if self._redirected else []
        print(f"urls: {', '.join(parts)}")

    def _place(self, source: Source) -> str:
        table = table_of(self._batch.manifest)
        if source.row is None or table is None:
            return f"{self._batch.manifest.document.shown_as}: job {source.job}"
        return f"{table}: row {source.row}"

    def _print(self, source: Source, probe: Probe, *, remembered: bool) -> None:
        if self._as_json:
            where = {"url": redact_url(source.url), "job": source.job, "row": source.row}
            line = {**msgspec.structs.asdict(probe), **where, "remembered": remembered}
            print_lines([line])
