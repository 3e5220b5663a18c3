"""A comment never cuts a text off unnoticed, and ordinary comments are left alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from batch_runner.errors import ManifestError
from batch_runner.manifest.document import read_document


def problems(tmp_path: Path, text: str) -> list[tuple[int | None, str]]:
    path = tmp_path / "batch.yaml"
    path.write_text(text, encoding="utf-8")
    try:
        found = read_document(path).problems
    except ManifestError as error:
        found = error.problems
    return [(problem.line, problem.what) for problem in found]


@pytest.mark.parametrize(
    ("text", "line", "comment"),
    [
        ("prompts:\n  a: A wall of #E8E4D9, softly lit\n", 2, "#E8E4D9, softly lit"),
        ("prompts:\n  a: Print Lot # 5 on the label\n", 2, "# 5 on the label"),
        ("prompts:\n  a:\n    prompt: On white # the usual\n", 3, "# the usual"),
        ("prompts:\n  a: Put it\n    on a wall of\n    #E8E4D9\nname: x\n", 4, "#E8E4D9"),
        ("prompts:\n  a: A wall of\n  #E8E4D9, softly lit\n  b: x\n", 3, "#E8E4D9, softly lit"),
        ("prompts:\n  a: Put it\n    on #3 of\n    the list\n", 3, "#3 of"),
        ("prompts: {a: On white #5, b: On black}\nname: x\n", 1, "#5, b: On black}"),
        ("prompts: {a: On white # 5 in all}\nname: x\n", 1, "# 5 in all}"),
        ("prompts: {a: {prompt: A wall, #eee or\n  , model: a/b}}\n", 1, "#eee or"),
        ("matrix:\n  style:\n  - mood of #1\n  - plain\n", 3, "#1"),
        ("matrix: {style: [blue #7\n  , red]}\n", 1, "#7"),
        ("inputs:\n  style: soft light # and no shadow\n", 2, "# and no shadow"),
        ("output:\n  dir: batch #2\n", 2, "#2"),
        ("prompts:\n  take #1: On white\n", 2, "#1: On white"),
    ],
)
def test_a_comment_that_cuts_a_text_is_a_problem(
    tmp_path: Path, text: str, line: int, comment: str
) -> None:
    found = problems(tmp_path, text)
    assert found == [(line, f"YAML takes '{comment}' for a comment")]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("inputs:\n  background: #FFFFFF\n", "YAML takes '#FFFFFF' for a comment"),
        ("inputs: {colors: [red, #000000\n  blue]}\n", "YAML takes '#000000' for a comment"),
        ("inputs: {colors: [red,\n  #000\n  ]}\n", "YAML takes '#000' for a comment"),
    ],
)
def test_a_colour_without_quotes_is_a_problem(tmp_path: Path, text: str, what: str) -> None:
    assert [found for _, found in problems(tmp_path, text)] == [what]


@pytest.mark.parametrize(
    "text",
    [
        "version: 1 # one\nmodel: a/b # cheaper\nlimits: {submits: 5/s} #all\nseed: 5 #lucky\n",
        "output:\n  dir: out # on the NAS\n  path: p/{{ image }}/{{ prompt }} # a folder each\n",
        "prompts: # all of them\n  #room: In a room\n  a: On white\n  # b: On black\n\n# end\n",
        "prompts:\n  a: 'On #fff' # quoted\n  b: On white#5\n  c: >- # x\n    On #fff\n  #d: x\n",
        "prompts:\n  a: On white\n  #bad: On red\n  b: |\n    On\n#add more\n  # c: x\n",
        "images: #front views\n  mug: https://x.example/mug.jpg#front # the big one\n",
        "inputs:\n  resolution: 2K # dearer\nmatrix:\n  r: [a, # one\n    b, #two\n    '#fff']\n",
    ],
)
def test_ordinary_comments_are_left_alone(tmp_path: Path, text: str) -> None:
    assert problems(tmp_path, text) == []
