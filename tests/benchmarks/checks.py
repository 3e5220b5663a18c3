"""How good the checks of pictures are, and how long they take."""

from __future__ import annotations

import time
from pathlib import Path

import defects
from measure import report

from batch_runner.commands.originals import Workers
from batch_runner.pictures.kept import Order, look, unmeasured
from batch_runner.pictures.rules import VERSIONS

PICTURES = 1000
SIDE_PX = 1024


def main(folder: Path, *, quick: bool = False) -> None:
    """Judge the pictures with planted defects and the sound ones; then measure many of 1K."""
    drawn = [*defects.sound(), *defects.defects()]
    found = defects.scores(drawn)
    rows = [
        {
            "check": f"`{check}`",
            "defects found": f"{found[check].found} of {found[check].planted}",
            "false alarms": f"{found[check].alarms} of {found[check].sound}",
            "unmeasurable": f"{found[check].unmeasurable}",
        }
        for check in VERSIONS
    ]
    report("checks", rows, folder)
    _measure_speed(folder, PICTURES // 10 if quick else PICTURES)


def _measure_speed(folder: Path, pictures: int) -> None:
    """Time as many looks, at a few different pictures, in worker processes."""
    place = folder / "checks"
    place.mkdir(exist_ok=True)
    paths = []
    for number in range(20):
        size = {"size": (SIDE_PX, SIDE_PX)}
        picture = defects.draw_result(f"speed {number}", **size)
        form = "png" if number % 2 else "jpeg"
        path = place / f"{number}.{form}"
        path.write_bytes(defects.encode(picture, form))
        paths.append(str(path))
    orders = [Order(of=str(at), original=paths[at % len(paths)]) for at in range(pictures)]
    began = time.monotonic()
    with Workers(look, lambda order: unmeasured(order, "broken")) as workers:
        for _ in workers.answers(orders):
            pass
    took_s = time.monotonic() - began
    rows = [
        {
            "pictures of 1K": f"{pictures:,}",
            "s": f"{took_s:.1f}",
            "10,000 would take": f"{took_s * 10_000 / pictures / 60:.1f} min",
        }
    ]
    report("checks-speed", rows, folder)
