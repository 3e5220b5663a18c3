"""The bare loop: submit, result, download, write with rename, and nothing else.

What a good programmer writes in ten minutes, with no promise at all: no ledger, no check of what
comes, no sync, no limits but the number of jobs under way.

Usage: bare.py ORIGIN FOLDER JOBS AT_ONCE
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import aiohttp

MODEL = "google/nano-banana-2/edit"


async def edit(session: aiohttp.ClientSession, origin: str, folder: Path, number: int) -> None:
    """Edit one picture."""
    body = {"prompt": "white background", "image_urls": [f"https://cdn.example.com/{number}.jpg"]}
    async with session.post(f"{origin}/v1/models/{MODEL}", json=body) as answer:
        request_id = (await answer.json())["request_id"]
    while True:
        async with session.get(f"{origin}/v1/requests/{request_id}/result") as answer:
            result = await answer.json()
        if result["status"] == "succeeded":
            break
        await asyncio.sleep(1)
    async with session.get(result["output"]["images"][0]) as answer:
        content = await answer.read()
    unfinished = folder / f"{number}.part"
    unfinished.write_bytes(content)
    unfinished.rename(folder / f"{number}.jpg")


async def main() -> None:
    """Edit so many pictures, so many at once."""
    origin, folder, jobs, at_once = sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:5])
    folder.mkdir(parents=True)  # noqa: ASYNC240 - before anything runs
    numbers = iter(range(jobs))
    headers = {"Authorization": "Bearer token"}
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(headers=headers, connector=connector) as session:

        async def work() -> None:
            for number in numbers:
                await edit(session, origin, folder, number)

        await asyncio.gather(*(work() for _ in range(at_once)))


if __name__ == "__main__":
    asyncio.run(main())
