"""A large export, as a shop with 100,000 products has it: quoted lines in every row."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

from command import run

ROWS = 100_000
BYTES_PER_ROW = 200
"""The hashes of its key, path and fingerprint; none of the row itself, which has 300 bytes."""

MANIFEST = """\
version: 1
model: google/nano-banana-2/edit
prompts: {white: 'Put the {{ Title }} on white.'}
images:
  from: %s
  id: "{{ Handle }}"
  urls: '{{ row["Image Src"] }}'
  where: "{{ Status == 'active' }}"
output: {dir: out}
"""


def write_export(folder: Path, rows: int, *, active_every: int, broken: int | None = None) -> Path:
    """Write an export in which every row has four lines; `broken` is a product without title."""
    with (folder / f"{rows}.csv").open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.writer(file)
        writer.writerow(["Handle", "Title", "Body (HTML)", "Status", "Image Src"])
        for n in range(rows):
            writer.writerow(
                [
                    f"product-{n}",
                    "" if n == broken else f'Product {n}, "large"',
                    f"<p>Made by hand,\nas product {n}.</p>\n<ul>\n<li>For {'x' * 150}</li></ul>",
                    "draft" if n % active_every else "active",
                    f"https://cdn.example.com/s/files/p{n}.jpg?v={n}",
                ]
            )
    path = folder / f"{rows}.yaml"
    path.write_text(MANIFEST % f"{rows}.csv", encoding="utf-8")
    return path


def plan_and_weigh(manifest: Path) -> tuple[int, int]:
    """Return how many jobs were planned, and the most memory that took, in bytes."""
    code = (
        "import json, resource, sys\n"
        "from batch_runner.commands.cli import main\n"
        "code = main(['plan', sys.argv[1]])\n"
        "used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print(json.dumps([code, used * (1 if sys.platform == 'darwin' else 1024)]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(manifest)],
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    lines = done.stdout.splitlines()
    exit_code, used_bytes = json.loads(lines[-1])
    assert exit_code == 0, done.stderr
    return int(lines[0].split(": ")[1].split(" job")[0].replace(",", "")), used_bytes


def test_100_000_rows_with_quoted_lines_are_planned_in_memory_that_hardly_grows(
    tmp_path: Path,
) -> None:
    few_jobs, few_bytes = plan_and_weigh(write_export(tmp_path, 20_000, active_every=1))
    jobs, used_bytes = plan_and_weigh(write_export(tmp_path, ROWS, active_every=1))
    assert (few_jobs, jobs) == (20_000, ROWS)
    assert (used_bytes - few_bytes) / (ROWS - 20_000) < BYTES_PER_ROW


def test_a_problem_far_down_a_large_export_is_told_by_its_row_and_line(tmp_path: Path) -> None:
    manifest = write_export(tmp_path, ROWS, active_every=1000, broken=75_000)
    planned = run("plan", str(manifest))
    assert planned.returncode == 65
    # Row 1 is the header; each row before it has four lines.
    assert planned.stderr.splitlines()[0] == (
        f"{tmp_path}/{ROWS}.csv:300002: row 75002: the column 'Title' is empty"
    )
