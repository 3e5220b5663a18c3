"""Cells that should not go into a prompt as they are: errors of a spreadsheet, and HTML.

What always holds: an error value is a problem of its row; HTML is reported once for the whole
table, because a prompt with it may be meant.
"""

from __future__ import annotations

import re

from batch_runner.jobs.images import ImageSet
from batch_runner.jobs.product import Tally
from batch_runner.manifest.problems import Problems
from batch_runner.manifest.template import column_expression
from batch_runner.manifest.validation import show
from batch_runner.text.shown import has_markup

_ERROR_VALUE = re.compile(
    r"#(?:N/A|N/D|NV|GETTING_DATA|[A-Z\u00c0-\u00dd/0-9]{2,12}[!?])"
    r"|nan|NaN|NaT|<NA>|null|NULL|None|undefined|\[object Object\]"
)
"""What spreadsheets and scripts write if they have no value."""


class PromptCells:
    """Checks the cells that prompts take in."""

    def __init__(self, problems: Problems, tally: Tally) -> None:
        self._problems = problems
        self._tally = tally
        self._markup: dict[str, tuple[int, str]] = {}
        self._markup_rows = 0
        self._last_markup_row = 0

    def are_usable(self, prompt_id: str, columns: list[str], text: str, images: ImageSet) -> bool:
        """Tell whether no cell in a prompt's text is an error; remember those that hold HTML.

        `columns` are those that the prompt names.
        """
        if images.row is None:
            return True
        for name in columns:
            value = images.cells.get(name)
            if not isinstance(value, str):
                continue
            if _ERROR_VALUE.fullmatch(value):
                if value in text:
                    what = f"column '{name}': {show(value)} would go into the prompt '{prompt_id}'"
                    hint = "fill it in, or leave such rows out with images.where"
                    self._problems.add_row(images.row, what, hint)
                    return False
            elif has_markup(value) and value in text:
                self._markup.setdefault(name, (images.row.number, value))
                if images.row.number != self._last_markup_row:
                    self._markup_rows += 1
                    self._last_markup_row = images.row.number
        return True

    def note_markup(self) -> None:
        """Add a note about the cells with HTML, if there were any."""
        if not self._markup:
            return
        name, (row, value) = min(self._markup.items(), key=lambda item: item[1][0])
        rows = "1 row puts" if self._markup_rows == 1 else f"{self._markup_rows:,} rows put"
        self._tally.notes.append(
            f"{rows} codes or tags of HTML into prompts, first row {row}: column '{name}' is"
            f" {show(value)}\nhint: for the text alone, write"
            f" {{{{ {column_expression(name)} | plain }}}} in the prompt"
        )
