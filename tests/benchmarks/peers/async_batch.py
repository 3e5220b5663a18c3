"""async-batch-llm with its JSONL store, synced, as its guide for paid work shows it.

Usage: async_batch.py ORIGIN FOLDER TABLE
"""

from __future__ import annotations

import asyncio
import csv
import sys
from pathlib import Path
from typing import Any

import aiohttp
from async_batch_llm import (  # type: ignore[import-not-found, unused-ignore]
    ArtifactIdentity,
    CallableStrategy,
    CallOutcome,
    JsonlArtifactStore,
    ProcessorConfig,
    ResumePolicy,
    process_prompts,
)
from gather import edit


async def main() -> None:
    """Edit every row of the table, 64 at once."""
    origin, folder, table = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    folder.mkdir(parents=True)  # noqa: ASYNC240 - before anything runs
    with table.open(encoding="utf-8") as file:  # noqa: ASYNC230 - likewise
        rows = {row["sku"]: row for row in csv.DictReader(file)}
    identity = ArtifactIdentity(provider="runcomfy", model="google/nano-banana-2/edit")
    connector = aiohttp.TCPConnector(limit=0)
    headers = {"Authorization": "Bearer token"}
    async with aiohttp.ClientSession(headers=headers, connector=connector) as session:

        async def invoke(prompt: str, **_: Any) -> Any:
            picture = await edit(session, origin, rows[prompt])
            (folder / f"{prompt}.jpg").write_bytes(picture)
            return CallOutcome(output=f"{prompt}.jpg")

        batch = await process_prompts(
            CallableStrategy(invoke, identity=identity),
            list(rows),
            config=ProcessorConfig(concurrency=64, attempt_timeout=60),
            artifact_store=JsonlArtifactStore(
                folder / "artifacts.jsonl", identity=identity, fsync=True
            ),
            resume=ResumePolicy.REUSE_SUCCESSES,
        )
    if batch.termination.kind != "completed":
        raise SystemExit(f"it stopped: {batch.termination}")


if __name__ == "__main__":
    asyncio.run(main())
