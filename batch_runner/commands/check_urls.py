"""`plan --check-urls`: tries the address of every picture in, and lists bad ones by row."""

from __future__ import annotations

import asyncio
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from batch_runner.clock import Clock
from batch_runner.commands.console import say
from batch_runner.commands.output import print_lines
from batch_runner.commands.probe import AT_ONCE, HINTS, Probe, Verdict, open_prober
from batch_runner.files.bucket import is_bucket_url
from batch_runner.jobs.images import table_of
from batch_runner.ledger.state import State
from batch_runner.models.model import Model
from batch_runner.records import redact_url
from batch_runner.report.progress import tracked
from batch_runner.run.batch import Batch
from batch_runner.run.plan import Action, Planned
from batch_runner.run.planning import plan_jobs
from batch_runner.table.distinct import Distinct

_LISTED = 20
_KEPT = 1000
"""At most this many bad addresses are kept and sorted; more are only counted."""

_ADDRESS = re.compile(r"(?:https?|s3|gs|az)://")


class Source(msgspec.Struct, frozen=True):
    """An address to send, with the first job that sends it and that job's row."""

    url: str
    job: str
    row: int | None = None


async def check_urls(batch: Batch, state: State, *, as_json: bool) -> int:
    """Try the address of every picture that would be sent; return how many are bad."""
    sources = tracked(
        _sources(plan_jobs(batch, state), batch.models),
        total=None,
        what="urls",
        unit="urls",
        stream=sys.stderr,
    )
    counts: Counter[Verdict] = Counter()
    bad: list[tuple[Source, Probe]] = []
    prober = open_prober(
        Clock(), allow_loopback=batch.service.is_local, proxies=batch.options.proxies
    )
    async with prober as opened, asyncio.TaskGroup() as group:

        async def work() -> None:
            for source in sources:
                if not is_bucket_url(source.url):
                    probe = await opened.ask(source.url)
                elif batch.options.rehearsal:
                    continue  # A rehearsal touches no bucket.
                else:
                    probe = await opened.ask_bucket(source.url, batch.buckets)
                counts[probe.verdict] += 1
                if probe.verdict is not Verdict.OK and len(bad) < _KEPT:
                    bad.append((source, probe))
                if as_json:
                    where = {"url": redact_url(source.url), "job": source.job, "row": source.row}
                    print_lines([{**msgspec.structs.asdict(probe), **where}])

        for _ in range(AT_ONCE):
            group.create_task(work())
    _show(batch, counts, bad, as_json=as_json)
    return counts.total() - counts[Verdict.OK]


def _sources(planned: Iterable[Planned], models: Mapping[str, Model]) -> Iterator[Source]:
    """Yield each address that would be sent, once, with the first job that sends it.

    Pictures to upload are left out: they are on this machine and were checked there.
    """
    seen = Distinct()
    for one in planned:
        if one.action is not Action.SUBMIT:
            continue
        job = one.job
        uploads = {file.url for file in job.files}
        for name in models[job.model].image_properties:
            value = job.input.get(name, ())
            for url in [value] if isinstance(value, str) else value:
                # If a new address looks seen by mistake, it is just not tried.
                if _ADDRESS.match(url) and url not in uploads and seen.add(url):
                    yield Source(url, job.key, job.row)


def _show(
    batch: Batch, counts: Counter[Verdict], bad: list[tuple[Source, Probe]], *, as_json: bool
) -> None:
    """List the bad addresses by row, with a hint for each kind."""
    table, manifest = table_of(batch.manifest), batch.manifest.document.shown_as
    shown = sorted(bad, key=lambda kept: (kept[0].row or 0, kept[0].job))[:_LISTED]
    for source, probe in shown:
        place = f"{manifest}: job {source.job}"
        if source.row is not None and table is not None:
            place = f"{table}: row {source.row}"
        detail = f" ({probe.detail})" if probe.detail else ""
        say(f"{place}: {redact_url(source.url)}: {probe.verdict}{detail}")
    more = counts.total() - counts[Verdict.OK] - len(shown)
    if more:
        say(f"(and {more:,} more; --json lists all)")
    for verdict, hint in HINTS.items():
        if counts[verdict]:
            say(f"hint: {verdict}: {hint}")
    if not as_json:
        parts = [f"{count:,} {verdict}" for verdict, count in counts.most_common()]
        print(f"urls: {', '.join([f'{counts.total():,} checked', *parts])}")
