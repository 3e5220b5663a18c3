"""The table to import: rows, columns, formats, and what a spreadsheet must not run."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable
from typing import Any

import pytest
from bench import Bench, OpenSandbox

from batch_runner.commands.cli import main
from batch_runner.errors import ExitCode
from batch_runner.ledger.reading import ledger_path
from batch_runner.manifest.loading import load_manifest
from batch_runner.report.export import Columns, write_table
from batch_runner.report.live import Live
from batch_runner.run.batch import Batch, RunOptions

TABLE = """\
sku,title,state,note,price,front
A-1,"=HYPERLINK(""http://evil.example"",""mug"")",new,+1+cmd|' /C calc'!A0,-5.50,https://cdn.example.com/1.png?X-Amz-Signature=abc&X-Amz-Date=1
B-2,كوب 🏺 <script>alert(1)</script>,old,"two
lines",12,https://cdn.example.com/2.png
"""
TEXT = """\
prompts: {white: "white {{ sku }}", sepia: "sepia {{ sku }}"}
images: {from: table.csv, id: "{{ sku }}", urls: ["{{ front }}"]}
"""

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def command(bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> Callable[..., str]:
    """Run `export` on the bench's manifest; gives what was printed."""
    for name in list(os.environ):
        if name.startswith("RUNCOMFY"):
            monkeypatch.delenv(name)

    def export(*words: str) -> str:
        path = str(bench.folder / "batch.yaml")
        assert main(["export", path, "--api-base", "http://127.0.0.1:1", *words]) == ExitCode.DONE
        return capsys.readouterr().out

    return export


async def _run(bench: Bench, open_sandbox: OpenSandbox, text: str = TEXT, **faults: Any) -> None:
    (bench.folder / "table.csv").write_text(TABLE, encoding="utf-8")
    async with open_sandbox(**faults) as sandbox:
        await bench.run(text, sandbox)


def _table(bench: Bench, kind: str = "csv", **options: Any) -> bytes:
    manifest = load_manifest(bench.folder / "batch.yaml")
    batch = Batch(manifest, RunOptions(api_base="http://127.0.0.1:1", token="any"))
    file, columns = io.BytesIO(), Columns(batch)
    live = Live(batch)
    live.read()
    write_table(file, kind, columns, live.details(), **options)
    return file.getvalue()


def _rows(data: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline="")))


async def test_a_row_a_job_and_output_with_the_tables_own_columns(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    await _run(bench, open_sandbox, TEXT + "inputs: {num_images: 2, output_format: jpeg}\n")
    rows = _rows(_table(bench))
    assert [(row["job"], row["output"], row["file"]) for row in rows] == [
        (f"{sku}/{prompt}", str(number), f"{sku}/{prompt}{'' if number == 1 else '-2'}.jpg")
        for sku in ("A-1", "B-2")
        for prompt in ("white", "sepia")
        for number in (1, 2)
    ]
    first, second = rows[:2]
    assert (first["sku"], first["price"], first["prompt"]) == ("A-1", "-5.50", "white")
    assert (first["state"], first["row.state"]) == ("done", "new")
    assert first["prompt_text"] == "white A-1"
    assert first["input.num_images"] == "2"
    assert (first["cost_usd"], second["cost_usd"]) == ("0.1", "")
    assert len(first["sha256"]) == 64
    assert first["attempts"] == "1"
    assert first["submitted_at"] < first["saved_at"]
    assert float(first["took_s"]) >= 0


async def test_a_spreadsheet_runs_nothing_numbers_stay_numbers_and_signatures_stay_out(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    await _run(bench, open_sandbox)
    data = _table(bench)
    first, *_, last = _rows(data)
    assert first["title"] == '\'=HYPERLINK("http://evil.example","mug")'
    assert first["note"].startswith("'+1+cmd")
    assert first["price"] == "-5.50"
    assert first["front"] == "https://cdn.example.com/1.png" == first["sources"]
    assert b"Signature" not in data
    assert last["title"] == "كوب 🏺 <script>alert(1)</script>"
    assert last["note"] == "two\nlines"
    plain = json.loads(_table(bench, "jsonl").splitlines()[0])
    assert plain["title"].startswith("=HYPERLINK")
    assert plain["cost_usd"] == "0.05"


async def test_the_table_is_the_same_each_time_and_the_ledger_is_not_touched(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    await _run(bench, open_sandbox)
    before = ledger_path(bench.output).read_bytes()
    assert _table(bench) == _table(bench)
    assert ledger_path(bench.output).read_bytes() == before


async def test_jobs_without_outputs_have_a_row_that_says_how_they_stand(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    await _run(bench, open_sandbox, faults="failed=100%")
    rows = _rows(_table(bench))
    assert {(row["state"], row["file"], row["output"]) for row in rows} == {("failed", "", "")}
    assert rows[0]["reason"]
    assert rows[0]["message"]
    assert rows[0]["request_id"]
    bench.write(TEXT.replace("white {{", "whiter {{"))
    changed = _rows(_table(bench))[0]
    assert (changed["state"], changed["attempts"], changed["request_id"]) == ("pending", "0", "")


async def test_jobs_that_are_one_purchase_have_their_own_files_and_its_cost_once(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    twice = "prompts: {one: same, two: same}\nimages: {mug: https://cdn.example.com/mug.png}\n"
    await _run(bench, open_sandbox, twice)
    rows = _rows(_table(bench))
    assert [(row["file"], row["cost_usd"]) for row in rows] == [
        ("mug/one.jpg", "0.05"),
        ("mug/two.jpg", ""),
    ]


async def test_a_file_is_replaced_as_a_whole(
    bench: Bench, open_sandbox: OpenSandbox, command: Callable[..., str]
) -> None:
    await _run(bench, open_sandbox)
    target = bench.folder / "table-out.csv"
    target.write_text("old", encoding="utf-8")
    assert command("--output", str(target)) == ""
    assert target.read_bytes().startswith(b"job,sku,")
    assert len(_rows(target.read_bytes())) == 4
    assert [path.name for path in bench.folder.glob(".*part")] == []


def test_what_cannot_be_is_said(bench: Bench, capsys: Captured) -> None:
    path = bench.write("prompts: {p: white}\nimages: {mug: https://cdn.example.com/mug.png}\n")
    words = ["export", str(path), "--sandbox"]
    assert main([*words, "--output", str(bench.folder / "no" / "x.csv")]) == ExitCode.STORAGE
    assert "cannot write" in capsys.readouterr().err
    assert main(words) == ExitCode.DONE
    assert "mug/p,mug,p,white," in capsys.readouterr().out
