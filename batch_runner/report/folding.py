"""Lines as wide as the terminal. Imports nothing heavy: every command prints something."""

from __future__ import annotations

import os
import textwrap
from typing import TextIO

_NARROWEST = 40


def fitted(text: str, stream: TextIO) -> str:
    """Return text whose lines a terminal need not break in the middle of a word.

    Commands stay on one line: that is how they are copied whole.
    """
    try:
        width = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        return text
    return "\n".join(_folded(line, width) for line in text.split("\n"))


def _folded(line: str, width: int) -> str:
    if len(line) <= width or width < _NARROWEST or "batch-runner " in line:
        return line
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    return textwrap.fill(
        line,
        width,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
        replace_whitespace=False,
        drop_whitespace=True,
    )
