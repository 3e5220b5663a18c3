"""The report of a large batch: how long it takes to make, and what Chromium needs to open it.

    python tests/benchmarks/page.py [JOBS]

Ledger and pictures are fabricated, one source for two jobs; the report is made by the command, from
nothing and once more. Chromium opens it in an empty profile; the memory of all its processes (PSS)
is counted before, and once the first page of cards is drawn.
"""

from __future__ import annotations

import io
import random
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from browser import CHROMIUM, FLAGS
from fabricated import NOBODY, Content, fabricate
from measure import Measured, measure, report
from PIL import Image
from playwright.sync_api import sync_playwright

from batch_runner.records import Job

JOBS = 20_000
PICTURE_BYTES = 10_000


def write_batch(folder: Path, jobs: int, edge: int, weight: int) -> Path:
    """Write table, sources and manifest of two prompts for half as many products."""
    (folder / "photos").mkdir()
    rows = ["sku,title,photo"]
    for number in range(jobs // 2):
        name = f"photos/{number}.jpg"
        (folder / name).write_bytes(draw(f"source {number}", edge, weight))
        rows.append(f"sku-{number},Product number {number},{name}")
    (folder / "table.csv").write_text("\n".join(rows), encoding="utf-8")
    path = folder / "batch.yaml"
    path.write_text(
        "version: 1\nmodel: google/nano-banana-2/edit\ninputs: {output_format: jpeg}\n"
        'prompts: {white: "Put the {{ title }} on white.", beach: "{{ title }} on a beach."}\n'
        'images: {from: table.csv, id: "{{ sku }}", urls: ["{{ photo }}"]}\n'
        "output: {dir: out}\n",
        encoding="utf-8",
    )
    return path


def draw(seed: str, edge: int, weight: int) -> bytes:
    """Return a JPEG of so many bytes, different for each seed."""
    dice = random.Random(seed)
    coarse = Image.effect_noise((edge // 16, edge // 16), 60)
    color = tuple(dice.randrange(256) for _ in range(3))
    image = Image.merge("RGB", [coarse.point(lambda v, c=c: (v + c) // 2) for c in color])
    image = image.resize((edge, edge), Image.Resampling.BILINEAR)
    for quality in (80, 60, 40):
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        if file.tell() <= weight:
            break
    data = file.getvalue()
    # What follows the end of a JPEG is no part of it: all weigh the same, and each is another.
    return data + dice.randbytes(max(0, weight - len(data)))


def outcome(job: Job) -> str:
    """Let three in a hundred fail, and one be unknown."""
    dice = random.Random(job.key).random()
    return "failed" if dice < 0.03 else "unknown" if dice < 0.04 else "done"


def make(path: Path) -> Measured:
    """Make the report with all cores."""
    words = [sys.executable, "-m", "batch_runner", "report", str(path), "--api-base", NOBODY]
    measured = measure(words, core=None)
    if measured.exit_code != 0:
        raise SystemExit(f"the report could not be made: exit code {measured.exit_code}")
    return measured


def open_page(index: Path) -> dict[str, float]:
    """Open the index; returns seconds to the first cards and for a search, and MB.

    MB are those that the page adds to an empty window.
    """
    with sync_playwright() as driver, tempfile.TemporaryDirectory() as profile:
        context = driver.chromium.launch_persistent_context(
            profile,
            executable_path=CHROMIUM,
            args=list(FLAGS),
            viewport={"width": 1280, "height": 900},
        )
        page = context.pages[0]
        page.goto("about:blank")
        empty_mb = memory_mb(profile)
        began = time.perf_counter()
        page.goto(index.resolve().as_uri(), wait_until="commit")
        page.wait_for_selector("#cards[aria-busy=false] .card")
        cards_s = time.perf_counter() - began
        page.wait_for_load_state("networkidle")
        figures = {"opens in s": cards_s, "page MB": memory_mb(profile) - empty_mb}
        began = time.perf_counter()
        page.locator("#search").fill("number 77")
        page.wait_for_function(
            "() => document.getElementById('count').textContent.includes(' of ')"
        )
        page.wait_for_selector("#cards[aria-busy=false]")
        figures["search in s"] = time.perf_counter() - began
        context.close()
    return figures


def memory_mb(profile: str) -> float:
    """Add up the memory of all processes of the browser with that profile, shared parts once."""
    total_kb = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if profile.encode() not in (process / "cmdline").read_bytes():
                continue
            lines = (process / "smaps_rollup").read_text(encoding="ascii").splitlines()
        except OSError:
            continue
        total_kb += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total_kb / 1024


def main(folder: Path, jobs: int = JOBS) -> None:
    """Measure pictures that show themselves, and pictures that need a thumbnail."""
    rows = []
    for edge, weight in ((512, PICTURE_BYTES), (1024, 3 * PICTURE_BYTES)):
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            path = write_batch(Path(temporary), jobs, edge, weight)
            fabricate(path, outcome, partial(content, edge=edge, weight=weight))
            first, again = make(path), make(path)
            figures = open_page(Path(temporary) / "out" / "report" / "index.html")
        rows.append(
            {
                "pictures": f"{edge} px, {weight // 1000} KB",
                "made in s": f"{first.wall_s:.1f}",
                "CPU s": f"{first.cpu_s:.1f}",
                "again in s": f"{again.wall_s:.1f}",
                "peak MB": f"{first.peak_mb:.0f}",
                **{name: f"{value:.2f}" for name, value in figures.items()},
            }
        )
    report(f"page-{jobs}", rows, folder)


def content(job: Job, number: int, *, edge: int, weight: int) -> Content:
    """Return the picture that a job made."""
    return draw(f"{job.key} {number}", edge, weight), ".jpg", "image/jpeg"


if __name__ == "__main__":
    out = Path("out/benchmarks")
    out.mkdir(parents=True, exist_ok=True)
    main(out, int(sys.argv[1]) if len(sys.argv) > 1 else JOBS)
