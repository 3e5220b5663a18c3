"""A finished batch of an earlier release that read its cells without their formats."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import openpyxl
from bench import Bench, OpenSandbox

from batch_runner.records import (
    LedgerHeader,
    Record,
    Saved,
    SavedFile,
    Submitted,
    Submitting,
    Succeeded,
    encode,
)

URL = "https://cdn.example.com/1.png"
BATCH = """\
prompts: {white: "{{ title }} for {{ price }} on white"}
images: {from: products.xlsx, id: "{{ sku }}", urls: ["{{ url }}"]}
"""

# Of the model, `mug for 19.9 on white`, the picture and the inputs that `Bench` writes.
FINGERPRINT = "7aa9afa5ce3d86291c709f5a416095096a2786142376ab90c02f4acae1e8b03a"


def _ledger(bench: Bench) -> None:
    at = datetime(2026, 3, 1, tzinfo=UTC)
    job: Any = {"at": at, "job": "7/white", "fingerprint": FINGERPRINT}
    file = SavedFile(
        path="7/white.jpg",
        size_bytes=3,
        sha256=hashlib.sha256(b"abc").hexdigest(),
        media_type="image/jpeg",
    )
    records: list[Record] = [
        LedgerHeader(version=1, at=at, program="batch_runner 0.1.0", service="local"),
        Submitting(**job, model="google/nano-banana-2/edit", input={}, path="7/white", attempt=1),
        Submitted(**job, request_id="r"),
        Succeeded(**job, request_id="r", outputs=[], cost_usd=Decimal("0.05")),
        Saved(**job, files=[file]),
    ]
    (bench.output / "7").mkdir(parents=True)
    (bench.output / "7" / "white.jpg").write_bytes(b"abc")
    (bench.output / "ledger.jsonl").write_bytes(b"".join(map(encode, records)))


async def test_a_finished_batch_is_not_bought_again_because_cells_are_read_as_shown(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    book = openpyxl.Workbook()
    book.active.append(["sku", "title", "price", "url"])  # type: ignore[union-attr]
    book.active.append([7, "mug", 19.9, URL])  # type: ignore[union-attr]
    book.active["A2"].number_format = '"SKU-"0'  # type: ignore[index]
    book.active["C2"].number_format = "0.00"  # type: ignore[index]
    book.save(bench.folder / "products.xlsx")
    _ledger(bench)
    async with open_sandbox() as sandbox:
        summary = await bench.run(BATCH, sandbox)
    assert summary.submitted == 0
    assert "SKU-7/white.jpg" in bench.files
