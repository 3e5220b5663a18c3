"""Source pictures from elsewhere, fetched so that a page can show them beside their results.

Hides where they are kept. What always holds: only what the manifest and its tables name is fetched,
by the rules of every download (https, no redirect to a host that is not named there, size-capped,
recognised by content, whole), never with the token; what was fetched once is not fetched again,
also when its URL was signed anew; what cannot be had is said, and linked instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TextIO

from yarl import URL

from batch_runner.batch import Batch
from batch_runner.download import DownloadError, Downloads
from batch_runner.records import unsigned_url
from batch_runner.report.counting import counted
from batch_runner.report.facts import Gathering
from batch_runner.storage import FolderStorage, NotSavedError

FETCHED_FOLDER = "fetched"

_AT_ONCE = 8
_SIZE_LIMIT_BYTES = 64 * 2**20
_TOLD = 5
_HOST = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*", re.IGNORECASE)


async def fetch_sources(
    batch: Batch, folder: Path, say: Callable[[str], None], stream: TextIO
) -> dict[str, Path]:
    """Fetch what is not there yet; returns where each source is, by its URL without signature.

    Raises ManifestError and StorageError; what one source has is said.
    """
    wanted = _wanted(batch)
    kept = folder / FETCHED_FOLDER
    kept.mkdir(parents=True, exist_ok=True)
    found = {path.stem: path for path in kept.iterdir() if not path.name.startswith(".")}
    missing = {url: address for url, address in wanted.items() if _stem(address) not in found}
    troubles: list[str] = []
    turns = counted(
        missing.values(), total=len(missing), what="sources", stream=stream, unit="pictures"
    )
    async with Downloads(
        FolderStorage(kept),
        hosts=_hosts(missing),
        allow_loopback=batch.service.is_local,
        size_limit_bytes=_SIZE_LIMIT_BYTES,
    ) as downloads:
        workers = (_fetch_some(downloads, turns, kept, found, troubles) for _ in range(_AT_ONCE))
        await asyncio.gather(*workers)
    for trouble in troubles[:_TOLD]:
        say(f"not fetched: {trouble}")
    if len(troubles) > _TOLD:
        say(f"not fetched: {len(troubles) - _TOLD:,} more")
    return {
        url: found[_stem(address)] for url, address in wanted.items() if _stem(address) in found
    }


async def _fetch_some(
    downloads: Downloads,
    turns: Iterator[str],
    kept: Path,
    found: dict[str, Path],
    troubles: list[str],
) -> None:
    for address in turns:
        stem = _stem(address)
        try:
            saved = await downloads.fetch(address, stem)
        except (DownloadError, NotSavedError) as error:
            troubles.append(str(error))
        else:
            found[stem] = kept / saved.path


def _wanted(batch: Batch) -> dict[str, str]:
    """Return the sources that are elsewhere: as they are shown, and as they can be fetched."""
    return {
        shown: address
        for facts in Gathering(batch)
        for shown, address in zip(facts.sources, facts.fetchable, strict=True)
        if shown not in facts.local and address.startswith(("https://", "http://"))
    }


def _hosts(addresses: Mapping[str, str]) -> set[str]:
    """Return the hosts that are named, as plain names: a pattern would trust others too."""
    hosts = set()
    for address in addresses.values():
        with contextlib.suppress(ValueError):
            hosts.add(URL(address).raw_host or "")
    return {host for host in hosts if _HOST.fullmatch(host)}


def _stem(address: str) -> str:
    return hashlib.sha256(unsigned_url(address).encode()).hexdigest()[:32]
