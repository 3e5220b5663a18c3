"""Draws the README's picture of a report: runs the quickstart, makes its report, photographs it.

    python samples/screenshot.py [CHROMIUM]

Needs the extras `dev` and a Chromium, Debian's by default. Everything happens in a folder that goes
again; only samples/report.png is written.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

SAMPLES = Path(__file__).parent
TARGET = SAMPLES / "report.png"
WIDTH, HEIGHT = 1280, 1000
SCALE = 1.25
COLORS = 224
LIMIT_BYTES = 250_000


def main() -> None:
    """Run, report, photograph."""
    chromium = sys.argv[1] if len(sys.argv) > 1 else shutil.which("chromium")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        shutil.copytree(SAMPLES.parent / "jobs", folder / "jobs")
        shutil.copytree(SAMPLES, folder / "samples")
        command = [sys.executable, "-m", "batch_runner"]
        manifest = str(folder / "jobs" / "quickstart.yaml")
        subprocess.run([*command, "run", manifest, "--sandbox", "--quiet"], check=True)
        made = subprocess.run(
            [*command, "report", manifest, "--sandbox"], check=True, capture_output=True, text=True
        )
        picture = photograph(Path(made.stdout.strip()), chromium)
    # A palette keeps flat grounds flat; dithering keeps the photographs from banding.
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    palette = image.quantize(COLORS)
    image.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG).save(TARGET, optimize=True)
    size_bytes = TARGET.stat().st_size
    print(f"{TARGET}: {size_bytes:,} bytes")
    if size_bytes > LIMIT_BYTES:
        raise SystemExit(f"more than {LIMIT_BYTES:,} bytes: take fewer colours")


def photograph(index: Path, chromium: str | None) -> bytes:
    """Return a PNG of the page as it opens, with every picture in view loaded."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(
            viewport={"width": WIDTH, "height": HEIGHT},
            device_scale_factor=SCALE,
            color_scheme="light",
        )
        page.goto(index.as_uri())
        page.wait_for_selector("#cards[aria-busy=false] .card")
        page.wait_for_load_state("networkidle")
        picture = page.screenshot()
        browser.close()
    return picture


if __name__ == "__main__":
    main()
