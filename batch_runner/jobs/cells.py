"""Cells that should not go into a prompt as they are: errors of a spreadsheet, and HTML.

What always holds: an error value is a problem of its row; HTML is reported once for the whole
table, because a prompt with it may be meant.
"""

from __future__ import annotations

import re
from typing import Any

from batch_runner.jobs.product import Tally
from batch_runner.manifest.problems import Problems
from batch_runner.manifest.template import column_expression
from batch_runner.manifest.validation import show
from batch_runner.table import Row
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
        self._found_markup = False

    def are_usable(self, prompt_id: Any, columns: list[str], text: str, row: Row) -> bool:
        """Tell whether no cell of `columns` that went into a prompt's text is an error."""
        for name in columns:
            value = row.cells.get(name)
            if not isinstance(value, str) or value not in text:
                continue
            if _ERROR_VALUE.fullmatch(value):
                what = f"column '{name}': {show(value)} would go into the prompt '{prompt_id}'"
                hint = "fill it in, or leave such rows out with images.where"
                self._problems.add_row(row, what, hint)
                return False
            if has_markup(value) and not self._found_markup:
                self._found_markup = True
                self._tally.notes.append(
                    f"codes or tags of HTML in prompts, first in row {row.number}: column '{name}'"
                    f" is {show(value)}\nhint: for the text alone, write"
                    f" {{{{ {column_expression(name)} | plain }}}} in the prompt"
                )
        return True
