"""Lines for people break between words, at the width of the terminal."""

from __future__ import annotations

import os
from typing import Any

import pytest

from batch_runner.report.terminal import wrapped

LINE = "the run stops when it runs out of balance, which is well before the last of its jobs"


class Terminal:
    def fileno(self) -> int:
        return 1


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(os, "get_terminal_size", lambda _: os.terminal_size((60, 24)))
    return Terminal()


def test_a_line_breaks_between_words(terminal: Any) -> None:
    shown = wrapped(f"short\n  {LINE}", terminal).split("\n")
    assert shown[0] == "short"
    assert all(len(line) <= 60 for line in shown)
    assert [line[:5] for line in shown[1:]] == ["  the", "    b"]
    assert " ".join(" ".join(shown[1:]).split()) == LINE


@pytest.mark.parametrize("line", [f"next: batch-runner run {'x' * 70}.yaml", "y" * 70])
def test_commands_and_long_words_stay_whole(terminal: Any, line: str) -> None:
    assert wrapped(line, terminal) == line


def test_what_no_terminal_shows_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_terminal(_: int) -> os.terminal_size:
        raise OSError

    monkeypatch.setattr(os, "get_terminal_size", no_terminal)
    assert wrapped(LINE * 2, Terminal()) == LINE * 2  # type: ignore[arg-type]  # a number is enough
