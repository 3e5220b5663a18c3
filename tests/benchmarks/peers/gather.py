"""A semaphore and gather: the first thing a programmer writes, with the usual wait between polls.

Usage: gather.py ORIGIN FOLDER TABLE
"""

from __future__ import annotations

import asyncio
import csv
import sys
from pathlib import Path

import aiohttp

MODEL = "google/nano-banana-2/edit"


async def edit(session: aiohttp.ClientSession, origin: str, row: dict[str, str]) -> bytes:
    """Edit one picture and return it."""
    body = {
        "prompt": f"Put the {row['title']} on a pure white background.",
        "image_urls": [row["url"]],
    }
    async with session.post(f"{origin}/v1/models/{MODEL}", json=body) as answer:
        request_id = (await answer.json())["request_id"]
    while True:
        async with session.get(f"{origin}/v1/requests/{request_id}/result") as answer:
            result = await answer.json()
        if result["status"] == "succeeded":
            break
        await asyncio.sleep(1)
    async with session.get(result["output"]["images"][0]) as answer:
        return await answer.read()


async def main() -> None:
    """Edit every row of the table, 64 at once."""
    origin, folder, table = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    folder.mkdir(parents=True)  # noqa: ASYNC240 - before anything runs
    at_once = asyncio.Semaphore(64)
    async with aiohttp.ClientSession(headers={"Authorization": "Bearer token"}) as session:

        async def work(row: dict[str, str]) -> None:
            async with at_once:
                picture = await edit(session, origin, row)
                (folder / f"{row['sku']}.jpg").write_bytes(picture)

        with table.open(encoding="utf-8") as file:  # noqa: ASYNC230 - before anything runs
            await asyncio.gather(*(work(row) for row in csv.DictReader(file)))


if __name__ == "__main__":
    asyncio.run(main())
