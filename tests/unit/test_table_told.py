"""What `plan` tells of a table: how many rows, and what became of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from batch_runner.commands.cli import main

Write = Callable[..., Path]

ROWS = "".join(f"p{n},{n % 2},https://cdn.example.com/{n}.jpg\n" for n in range(1, 9))
IMAGES = "images:\n  from: t.csv\n  id: '{{ sku }}'\n  urls: '{{ image }}'\n"


@pytest.mark.parametrize(
    ("images", "rows", "told"),
    [
        ("", ROWS, "table: 8 rows"),
        ("", ROWS[:40].splitlines()[0] + "\n", "table: 1 row"),
        ("  where: \"{{ odd == '1' }}\"\n", ROWS, "table: 8 rows, 4 left out by where"),
        (
            "  group: '{{ sku }}'\n",
            ROWS + ",,\n" + ",0,\n",
            "table: 9 rows, of 8 products, 1 empty",
        ),
        ("  sample: 3\n", ROWS, "table: 8 rows, 3 of 8 taken as the sample"),
        (
            "  where: \"{{ odd == '1' }}\"\n  sample: 3\n",
            ROWS,
            "table: 8 rows, 4 left out by where, 3 of 4 taken as the sample",
        ),
        ("", ROWS + ",,\n\n" * 3, "table: 8 rows, 6 empty"),
    ],
)
def test_plan_tells_what_became_of_the_rows(
    write_manifest: Write,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    images: str,
    rows: str,
    told: str,
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # where no token is saved
    (tmp_path / "t.csv").write_text("sku,odd,image\n" + rows, encoding="utf-8")
    manifest = write_manifest("prompts: {white: On white.}\n" + IMAGES + images)
    assert main(["plan", str(manifest)]) == 0
    assert capsys.readouterr().out.splitlines()[1] == told
