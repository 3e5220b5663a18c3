"""The report of a large batch: how long it takes to make, and what Chromium needs to open it.

    python tests/benchmarks/page.py [JOBS]

Ledger and pictures are fabricated (10 KB a picture, one source for two jobs); the report is made by
the command, from nothing and once more; Chromium opens it in an empty profile, and its processes'
own memory (PSS) is counted once the first page of pictures is drawn.
"""

from __future__ import annotations

import io
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from command import COMMAND
from fabricated import NOBODY, Content, fabricate
from measure import report
from PIL import Image
from playwright.sync_api import sync_playwright

from batch_runner.records import Job

JOBS = 20_000
PICTURE_BYTES = 10_000
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


def write_batch(folder: Path, jobs: int, edge: int) -> Path:
    """Write table, sources and manifest of two prompts for half as many products."""
    (folder / "photos").mkdir()
    rows = ["sku,title,photo"]
    for number in range(jobs // 2):
        name = f"photos/{number}.jpg"
        (folder / name).write_bytes(draw(f"source {number}", edge))
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


def draw(seed: str, edge: int) -> bytes:
    """Return a JPEG of about ten kilobytes, different for each seed."""
    dice = random.Random(seed)
    coarse = Image.effect_noise((edge // 16, edge // 16), 60)
    color = tuple(dice.randrange(256) for _ in range(3))
    image = Image.merge("RGB", [coarse.point(lambda v, c=c: (v + c) // 2) for c in color])
    image = image.resize((edge, edge), Image.Resampling.BILINEAR)
    for quality in (80, 60, 40):
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        if file.tell() <= PICTURE_BYTES:
            break
    data = file.getvalue()
    # What follows the end of a JPEG is no part of it: all weigh the same, and each is another.
    return data + dice.randbytes(max(0, PICTURE_BYTES - len(data)))


def outcome(job: Job) -> str:
    """Let three in a hundred fail, and one be unknown."""
    dice = random.Random(job.key).random()
    return "failed" if dice < 0.03 else "unknown" if dice < 0.04 else "done"


def make(path: Path) -> tuple[float, float]:
    """Make the report; returns seconds and the largest process' memory in MB."""
    began = time.perf_counter()
    subprocess.run([*COMMAND, "report", str(path), "--api-base", NOBODY], check=True)
    peak_kb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return time.perf_counter() - began, peak_kb / 1024


def open_page(index: Path) -> dict[str, float]:
    """Open the index; returns seconds to the first cards and to all their pictures, and MB."""
    chromium = shutil.which("chromium")
    with sync_playwright() as driver, tempfile.TemporaryDirectory() as profile:
        context = driver.chromium.launch_persistent_context(
            profile,
            executable_path=chromium,
            args=list(FLAGS),
            viewport={"width": 1280, "height": 900},
        )
        page = context.pages[0]
        began = time.perf_counter()
        page.goto(index.as_uri(), wait_until="commit")
        page.wait_for_selector("#cards[aria-busy=false] .card")
        cards_s = time.perf_counter() - began
        page.wait_for_load_state("networkidle")
        figures = {"cards_s": cards_s, "page_mb": memory_mb(profile)}
        began = time.perf_counter()
        page.locator("#search").fill("number 77")
        page.wait_for_function(
            "() => document.getElementById('count').textContent.includes(' of ')"
        )
        page.wait_for_selector("#cards[aria-busy=false]")
        figures["search_s"] = time.perf_counter() - began
        page.locator("#search").fill("")
        page.locator("#sort").select_option("slowest")
        page.wait_for_timeout(1500)
        figures["sorted_mb"] = memory_mb(profile)
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


def main() -> None:
    """Measure pictures that show themselves, and pictures that need a thumbnail."""
    jobs = int(sys.argv[1]) if len(sys.argv) > 1 else JOBS
    results: dict[str, Any] = {}
    for name, edge in (("512 pixels", 512), ("1,024 pixels", 1024)):
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            path = write_batch(folder, jobs, edge)
            fabricate(path, outcome, lambda job, number, edge=edge: content(job, number, edge))
            first_s, peak_mb = make(path)
            again_s, _ = make(path)
            figures = open_page(folder / "out" / "report" / "index.html")
        results[name] = {"first_s": first_s, "again_s": again_s, "peak_mb": peak_mb, **figures}
        print(name, {key: round(value, 2) for key, value in results[name].items()})


def content(job: Job, number: int, edge: int) -> Content:
    """Return the picture that a job made."""
    return draw(f"{job.key} {number}", edge), ".jpg", "image/jpeg"


if __name__ == "__main__":
    main()
