"""The problems of a manifest and its table: each reported once, at its place.

Hides which problems were reported before, and how many are enough. What always holds: a problem of
the manifest points at its line, a problem of a row at that row; a problem that many jobs share is
reported once; no more problems are kept than are shown.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from batch_runner.errors import PROBLEM_LIMIT, ManifestError, Problem, did_you_mean
from batch_runner.manifest.document import Document, Location
from batch_runner.manifest.template import Template, TemplateError, column_expression
from batch_runner.table import Row, TableError, has_fixed_columns

_ROWS_NAMED = 5


class _Found:
    """One problem, and the rows that share it."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._count = 0
        self._last = 0
        self._names: list[str] = []

    def add(self, row: Row) -> None:
        """Count a row, unless the last job already counted it."""
        if row.number != self._last:
            self._last = row.number
            self._count += 1
            if self._count <= _ROWS_NAMED:
                self._names.append(row.file or str(row.number))

    def problem(self) -> Problem:
        """Return the problem, located at the first of its rows."""
        file, line, what, hint = self._problem
        more = self._count - len(self._names)
        names = ", ".join(self._names) + f" and {more:,} more" * (more > 0)
        if line is not None and names:
            what = f"row{'s' * (self._count > 1)} {names}: {what}"
        elif self._count > 1:
            what = f"{what} ({self._count:,} files: {names})"
        return Problem(file, line, what, hint)


class Problems:
    """Collects the problems of one manifest; `table` is where its rows come from, if it has one."""

    def __init__(self, document: Document, table: Path | None = None) -> None:
        self._document = document
        self._table = table
        self._found = {
            (problem.line, problem.what): _Found(problem) for problem in document.problems
        }

    def __len__(self) -> int:
        return len(self._found)

    @property
    def are_enough(self) -> bool:
        """Tell whether as many problems were found as are shown."""
        return len(self) >= PROBLEM_LIMIT

    def raise_found(self) -> None:
        """Raise all problems as one ManifestError, if there are any."""
        if self._found:
            manifest = self._document.shown_as
            found = (one.problem() for one in self._found.values())
            raise ManifestError(
                sorted(found, key=lambda one: (one.file != manifest, one.line or 0))
            )

    def _add(self, key: Any, problem: Problem) -> _Found | None:
        if key not in self._found and not self.are_enough:
            self._found[key] = _Found(problem)
        return self._found.get(key)

    def add(self, location: Location, what: str, hint: str | None = None) -> None:
        """Add a problem of the manifest, once, however many jobs share it."""
        self._add((location, what), self._document.problem(location, what, hint))

    def add_row(self, row: Row, what: str, hint: str | None) -> None:
        """Add a problem of a row; rows that share it become one problem that counts them."""
        file, line = str(self._table), None if row.file else row.line
        problem = Problem(f"{file}/{row.file}" if row.file else file, line, what, hint)
        found = self._add((what, hint), problem)
        if found is not None:
            found.add(row)

    def add_table_wide(self, what: str, hint: str) -> None:
        """Add a problem between rows, once, however many jobs share it."""
        self._add(what, Problem(str(self._table), None, what, hint))

    def add_table(self, problem: TableError) -> None:
        """Add the reason why the table, or one row of it, cannot be read."""
        if problem.line is None:
            self.add(("images", "from"), problem.message, problem.hint)
            return
        row = "" if problem.row is None else f"row {problem.row}: "
        what = f"{row}{problem.message}"
        self._add(what, Problem(str(self._table), problem.line, what, problem.hint))

    def render(
        self,
        template: Template,
        location: Location,
        variables: Mapping[str, Any],
        row: Row | None,
    ) -> str | None:
        """Return a template's text; None if it cannot be rendered, which adds a problem."""
        try:
            return template.render(variables)
        except TemplateError as problem:
            name, message = problem.variable, problem.message
        if name is None:
            self.add(location, f"the template {message}")
        elif row is not None and name in row.cells:
            place = f"{self._document.shown_as}:{self._document.line(location)}"
            column = column_expression(name)
            hint = f'fill it in, or write {{{{ {column} | default("…") }}}} at {place}'
            self.add_row(row, f"the column '{name}' is empty", hint)
        elif row is not None and self._table is not None and not has_fixed_columns(self._table):
            self.add_row(row, f"there is no '{name}'", did_you_mean(name, row.cells))
        else:
            self._add_undefined(location, name, row, variables)
        return None

    def check_columns(
        self,
        row: Row,
        columns: Collection[str],
        variables: Collection[str],
        template: Template | None,
        location: Location,
    ) -> None:
        """Report the columns of a template that the table does not have.

        Rendering reports them too, unless a default() hides the misspelling.
        """
        for name in sorted(template.columns) if template is not None else ():
            if name not in columns and name not in variables:
                self._add_undefined(location, name, row, {*columns, *variables})

    def _add_undefined(
        self, location: Location, name: str, row: Row | None, known: Iterable[str]
    ) -> None:
        what = f"the variable '{name}' is undefined"
        if row is not None and location[0] == "images":
            what, known = f"the table has no column '{name}'", row.cells
        self.add(location, what, did_you_mean(name, set(known) - {"row"}))
