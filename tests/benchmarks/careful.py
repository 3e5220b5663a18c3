"""The careful loop: what someone writes by hand who wants the same promises.

An intent is on the disk before each POST, an answer is recorded after it; each file is streamed,
hashed, synced and renamed, its folder synced, and a line says so. Not in it: limits, retries, plan,
resuming, checks of what comes.

Usage: careful.py ORIGIN FOLDER JOBS AT_ONCE [nested]
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import aiofiles
import aiohttp

MODEL = "google/nano-banana-2/edit"
CHUNK_BYTES = 64 * 1024


class Ledger:
    """A file of JSON lines; each line is one write."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def append(self, record: str, number: int, **fields: Any) -> None:
        """Write a line."""
        line = {"record": record, "job": number, **fields}
        os.write(self._file, json.dumps(line).encode() + b"\n")

    async def durable(self) -> None:
        """Return once all lines are on the disk."""
        await asyncio.to_thread(os.fdatasync, self._file)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


async def edit(
    session: aiohttp.ClientSession, ledger: Ledger, origin: str, target: Path, number: int
) -> None:
    """Edit one picture."""
    body = {"prompt": "white background", "image_urls": [f"https://cdn.example.com/{number}.jpg"]}
    ledger.append("submitting", number, model=MODEL, input=body)
    await ledger.durable()
    async with session.post(f"{origin}/v1/models/{MODEL}", json=body) as answer:
        request_id = (await answer.json())["request_id"]
    ledger.append("submitted", number, request_id=request_id)
    while True:
        async with session.get(f"{origin}/v1/requests/{request_id}/result") as answer:
            result = await answer.json()
        if result["status"] == "succeeded":
            break
        await asyncio.sleep(1)
    ledger.append("succeeded", number, outputs=result["output"]["images"])
    target.parent.mkdir(parents=True, exist_ok=True)
    part, digest = target.with_suffix(".part"), hashlib.sha256()
    async with (
        session.get(result["output"]["images"][0]) as answer,
        aiofiles.open(part, "wb") as file,
    ):
        answer.raise_for_status()
        async for chunk in answer.content.iter_chunked(CHUNK_BYTES):
            digest.update(chunk)
            await file.write(chunk)
        await file.flush()
        await asyncio.to_thread(os.fsync, file.fileno())
    part.rename(target)
    await asyncio.to_thread(sync_folder, target.parent)
    ledger.append("saved", number, path=str(target), sha256=digest.hexdigest())


async def main() -> None:
    """Edit so many pictures, so many at once."""
    origin, folder, jobs, at_once = sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:5])
    folder.mkdir(parents=True)  # noqa: ASYNC240 - before anything runs
    ledger, numbers = Ledger(folder / "ledger.jsonl"), iter(range(jobs))
    is_nested = "nested" in sys.argv[5:]
    headers = {"Authorization": "Bearer token"}
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(headers=headers, connector=connector) as session:

        async def work() -> None:
            for number in numbers:
                name = f"{number}/white.jpg" if is_nested else f"{number}.jpg"
                await edit(session, ledger, origin, folder / name, number)

        await asyncio.gather(*(work() for _ in range(at_once)))
        await ledger.durable()


if __name__ == "__main__":
    asyncio.run(main())
