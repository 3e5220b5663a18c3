"""`--only`: keys, globs, files of keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from batch_runner.errors import InputMissingError, UsageError
from batch_runner.jobs.selection import Selection, read_selection

KEYS = ["mug/white", "mug/room", "lamp/white", "cup[1]/white"]


@pytest.mark.parametrize(
    ("patterns", "chosen", "unmatched"),
    [
        (["mug/white", "lamp/*"], ["mug/white", "lamp/white"], []),
        (["mug/*", "*/white", "mug/room"], KEYS, []),
        (["cup[1]/white"], ["cup[1]/white"], []),
        (["mug/room", "vase/*", "mug"], ["mug/room"], ["vase/*", "mug"]),
    ],
)
def test_several_patterns_add_up(
    patterns: list[str], chosen: list[str], unmatched: list[str]
) -> None:
    selection = Selection(patterns)
    assert [key for key in KEYS if key in selection] == chosen
    assert selection.unmatched == unmatched


def test_a_file_holds_a_key_or_glob_a_line(tmp_path: Path) -> None:
    path = tmp_path / "keys.txt"
    path.write_bytes(b"\xef\xbb\xbfmug/white\r\n\r\n lamp/* \r\n")
    assert read_selection([f"@{path}", "cup/*"]) == ("mug/white", "lamp/*", "cup/*")
    assert read_selection([]) is None
    with pytest.raises(InputMissingError):
        read_selection([f"@{tmp_path / 'missing.txt'}"])
    path.write_text("\n", encoding="utf-8")
    with pytest.raises(UsageError, match="is empty"):
        read_selection([f"@{path}"])
