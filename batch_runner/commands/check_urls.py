"""`plan --check-urls`: tries the address of every picture in, and lists bad ones by row.

Hides HTTP, and what the answers of the world's servers mean. What always holds: one request an
address, for its first bytes only, without the token; a host gets few at a time; no answer is an
error of this program. Not promised: that the service can reach the address as well.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from ipaddress import ip_address

import aiohttp
import msgspec
from yarl import URL

from batch_runner import __version__
from batch_runner.commands.console import say, say_first
from batch_runner.commands.output import print_lines
from batch_runner.errors import AccessRefusedError, BatchRunnerError
from batch_runner.files.bucket import Buckets, is_bucket_url, parse_bucket_url
from batch_runner.files.local_picture import SIZE_LIMIT_BYTES
from batch_runner.files.media import HEAD_BYTES, recognise
from batch_runner.jobs.images import table_of
from batch_runner.ledger.state import State
from batch_runner.models.model import Model
from batch_runner.records import redact_url
from batch_runner.report.progress import tracked
from batch_runner.run.batch import Batch
from batch_runner.run.plan import Action, Planned
from batch_runner.run.planning import plan_jobs
from batch_runner.service.network import is_loopback_host
from batch_runner.service.web import Client, describe
from batch_runner.table.distinct import Distinct

_AT_ONCE = 16
_PER_HOST = 4
_ADDRESS = re.compile(r"(?:https?|s3|gs|az)://")
_PRIVATE_ENDINGS = (".local", ".internal", ".lan", ".home", ".localhost")
_HEADERS = {
    "Accept": "image/*,*/*;q=0.5",
    "Accept-Encoding": "identity",
    "Range": f"bytes=0-{HEAD_BYTES - 1}",
    # Hosts of pictures refuse clients that look like a library.
    "User-Agent": f"Mozilla/5.0 (compatible; batch-runner/{__version__})",
}


class Verdict(StrEnum):
    """The result for an address; with all but OK, the service cannot get the picture."""

    OK = "ok"
    UNREACHABLE = "unreachable"
    NEEDS_LOGIN = "needs login"
    NO_PICTURE = "not a picture"
    TOO_LARGE = "too large"


_HINTS = {
    Verdict.UNREACHABLE: "correct the address, or leave such rows out with images.where",
    Verdict.NEEDS_LOGIN: "the service cannot log in: use public or pre-signed URLs",
    Verdict.NO_PICTURE: "use the address of the picture itself, not of a page that shows it",
    Verdict.TOO_LARGE: "the service takes at most 50 MB: use a smaller version",
}


class Probe(msgspec.Struct, frozen=True):
    """The result for one address, with the first job that sends it and that job's row."""

    url: str
    job: str
    row: int | None
    verdict: Verdict
    detail: str


async def check_urls(batch: Batch, state: State, *, as_json: bool) -> int:
    """Try the address of every picture that would be sent; return how many are bad."""
    addresses = _addresses(plan_jobs(batch, state), batch.models)
    shown = tracked(addresses, "urls", unit="urls")
    counts: Counter[Verdict] = Counter()
    bad: list[Probe] = []
    client = Client(
        batch.options.proxies,
        connector={"limit": _AT_ONCE, "limit_per_host": _PER_HOST},
        timeout={"total": 30, "sock_connect": 10},
        auto_decompress=False,
        headers=_HEADERS,
    )

    async def work() -> None:
        for url, job, row in shown:
            if not is_bucket_url(url):
                verdict, detail = await ask(client, url, allow_loopback=batch.service.is_local)
            elif batch.options.rehearsal:
                continue  # A rehearsal touches no bucket.
            else:
                verdict, detail = await _ask_bucket(url, batch.buckets)
            probe = Probe(redact_url(url), job, row, verdict, detail)
            counts[verdict] += 1
            if verdict is not Verdict.OK:
                bad.append(probe)
            if as_json:
                print_lines([probe])

    try:
        await asyncio.gather(*(work() for _ in range(_AT_ONCE)))
    finally:
        await client.close()
    _show(batch, counts, bad)
    if not as_json:
        parts = [f"{count:,} {verdict}" for verdict, count in counts.most_common()]
        print(f"urls: {', '.join([f'{counts.total():,} checked', *parts])}")
    return len(bad)


def _addresses(
    planned: Iterable[Planned], models: Mapping[str, Model]
) -> Iterator[tuple[str, str, int | None]]:
    """Yield each address that would be sent, once, with the first job that sends it and its row.

    Pictures to upload are left out: they are on this machine and were checked there.
    """
    seen = Distinct()
    for job in (one.job for one in planned if one.action is Action.SUBMIT):
        uploads = {file.url for file in job.files}
        for name in models[job.model].image_properties:
            value = job.input.get(name, ())
            for url in [value] if isinstance(value, str) else value:
                # If a new address looks seen by mistake, it is just not tried.
                if _ADDRESS.match(url) and url not in uploads and seen.add(url):
                    yield url, job.key, job.row


async def ask(client: Client, url: str, *, allow_loopback: bool) -> tuple[Verdict, str]:
    """Try one address; raises nothing, whatever the address or its server does.

    `allow_loopback` is for a service on this machine, which reaches addresses of this machine.
    """

    def public(target: URL) -> URL:
        if _is_private(target) and not (allow_loopback and is_loopback_host(target.host or "")):
            raise ValueError(f"{redact_url(str(target))[:100]} is not public")
        return target

    try:
        follow = client.follow("GET", public(URL(url)), lambda at, to: public(at.join(URL(to))))
        response, _ = await follow
        async with response:
            return await _judge(response)
    except TimeoutError:
        return Verdict.UNREACHABLE, "no answer in time"
    except (aiohttp.ClientError, OSError, ValueError, IndexError) as error:
        # Parsers of odd addresses raise ValueError or IndexError.
        return Verdict.UNREACHABLE, describe(error)[:200]


def _is_private(url: URL) -> bool:
    host = (url.host or "").lower().rstrip(".")
    try:
        return not ip_address(host).is_global
    except ValueError:
        return "." not in host or host.endswith(_PRIVATE_ENDINGS)


async def _judge(response: aiohttp.ClientResponse) -> tuple[Verdict, str]:
    """Return the verdict about an answer, and its reason."""
    if response.status not in (200, 206):
        needs_login = response.status in (401, 403, 407)
        verdict = Verdict.NEEDS_LOGIN if needs_login else Verdict.UNREACHABLE
        return verdict, f"HTTP {response.status}"
    try:
        head = await response.content.readexactly(HEAD_BYTES)
    except asyncio.IncompleteReadError as error:
        head = error.partial
    if not response.content.at_eof():
        # Without this, a server that ignores ranges would send the whole file.
        response.close()
    found = recognise(head)
    if found is not None and found[0].startswith("image/"):
        total = response.headers.get("Content-Range", "").rpartition("/")[2]
        size = total if response.status == 206 else response.headers.get("Content-Length", "")
        return _of_size(int(size) if size.isascii() and size.isdigit() else 0)
    return Verdict.NO_PICTURE, found[0] if found else response.content_type


async def _ask_bucket(url: str, buckets: Buckets) -> tuple[Verdict, str]:
    """Try an object in a bucket; raises nothing either."""
    try:
        facts = await asyncio.to_thread(buckets.facts, parse_bucket_url(url))
    except AccessRefusedError as error:
        return Verdict.NEEDS_LOGIN, error.message
    except BatchRunnerError as error:
        return Verdict.UNREACHABLE, error.message
    return _of_size(facts.size_bytes) if facts else (Verdict.UNREACHABLE, "not there")


def _of_size(size_bytes: int) -> tuple[Verdict, str]:
    if size_bytes > SIZE_LIMIT_BYTES:
        return Verdict.TOO_LARGE, f"{size_bytes / 1000**2:.0f} MB"
    return Verdict.OK, ""


def _show(batch: Batch, counts: Counter[Verdict], bad: list[Probe]) -> None:
    """List the bad addresses by row, with a hint for each kind."""
    table, manifest = table_of(batch.manifest), batch.manifest.document.shown_as
    texts = []
    for probe in sorted(bad, key=lambda one: (one.row or 0, one.job)):
        is_row = probe.row is not None and table is not None
        place = f"{table}: row {probe.row}" if is_row else f"{manifest}: job {probe.job}"
        texts.append(f"{place}: {probe.url}: {probe.verdict} ({probe.detail})")
    say_first(texts, "; --json lists all")
    for verdict, hint in _HINTS.items():
        if counts[verdict]:
            say(f"hint: {verdict}: {hint}")
