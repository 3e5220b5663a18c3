"""Batches that run against a fast sandbox, and what they said on the way."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from batch_runner.ledger.reading import ledger_path, read_ledger
from batch_runner.ledger.verdict import Reviewed, Word
from batch_runner.ledger.verdict_book import Book
from batch_runner.manifest.loading import load_manifest
from batch_runner.records import Record, Saved, utc_now
from batch_runner.run.batch import Batch, RunOptions
from batch_runner.run.execution import run_batch
from batch_runner.run.summary import Summary
from batch_runner.sandbox import Sandbox, SandboxOptions

# At once: clocks of tests run ahead of the sandbox with every question about a request.
FAST = SandboxOptions(capacity=64, run_s=(0.0, 0.0))

OpenSandbox = Callable[..., AbstractAsyncContextManager[Sandbox]]


class Bench:
    """Runs manifests against one sandbox folder, and remembers what was said."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.records: list[Record] = []
        self.notices: list[str] = []

    @property
    def output(self) -> Path:
        return self.folder / "out"

    @property
    def files(self) -> list[str]:
        """The pictures in place, relative to the output folder."""
        return sorted(
            str(path.relative_to(self.output))
            for path in self.output.rglob("*.*")
            if path.is_file() and path.suffix in (".png", ".jpg", ".webp", ".mp4")
        )

    def write(self, text: str) -> Path:
        path = self.folder / "batch.yaml"
        head = "version: 1\nmodel: google/nano-banana-2/edit\n"
        tail = "output: {dir: out}\n" if "output:" not in text else ""
        if "limits:" not in text:
            tail += "limits: {submits: 1000/s, polls: 1000/s}\n"
        if "\ninputs:" not in text:
            tail += "inputs: {resolution: 0.5K, output_format: jpeg}\n"
        path.write_text(head + text + tail, encoding="utf-8")
        return path

    def batch(self, text: str, sandbox_url: str, **options: Any) -> Batch:
        manifest = load_manifest(self.write(text))
        options.setdefault("token", "secret-token-of-the-tests")
        return Batch(manifest, RunOptions(api_base=sandbox_url, **options))

    async def run(self, text: str, sandbox: Sandbox | str, **options: Any) -> Summary:
        url = sandbox if isinstance(sandbox, str) else sandbox.url
        clock = options.pop("clock", None)
        batch = self.batch(text, url, **options)
        return await run_batch(
            batch, listener=self.records.append, notice=self.notices.append, clock=clock
        )


def judge_saved(folder: Path, word: Word, *keys: str) -> None:
    """Record a word about the first picture that each of these jobs has saved."""
    said = {}
    for record in read_ledger(ledger_path(folder)):
        if isinstance(record, Saved) and record.job in keys and record.job not in said:
            said[record.job] = Reviewed(
                at=utc_now(),
                job=record.job,
                fingerprint=record.fingerprint,
                sha256=record.files[0].sha256,
                word=word,
            )
    assert {*keys} == said.keys()
    Book(folder).append(list(said.values()))
