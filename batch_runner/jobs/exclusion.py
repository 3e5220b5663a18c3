"""Which jobs `exclude` leaves out, and what of it leaves out nothing.

What always holds: a rule names prompts, images, the matrix or columns of the table; its texts may
be globs. A rule that no job matches is a problem once all jobs were seen: what somebody meant to
leave out would be bought.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from batch_runner.errors import did_you_mean
from batch_runner.manifest.problems import Problems
from batch_runner.manifest.validation import show
from batch_runner.text.path import value_matches


class Exclusions:
    """The rules of `exclude`; what is wrong with them goes to `problems`."""

    def __init__(self, rules: Sequence[Mapping[str, Any]], problems: Problems) -> None:
        self._rules = rules
        self._problems = problems
        self._unused = dict(enumerate(rules))

    def leave_out(self, facts: Mapping[str, Any], cells: Mapping[str, Any]) -> bool:
        """Tell whether a job is left out.

        `facts` are its prompt, image, model and matrix, `cells` its row.
        """
        is_left_out = False
        for position, rule in enumerate(self._rules):
            if all(
                value_matches(value, facts[name] if name in facts else cells.get(name, ""))
                for name, value in rule.items()
            ):
                self._unused.pop(position, None)
                is_left_out = True
        return is_left_out

    def check_names(self, known: Collection[str]) -> None:
        """Find names that are neither of the batch nor columns of its table."""
        for position, rule in enumerate(self._rules):
            for name in rule:
                if name not in known:
                    self._unused.pop(position, None)
                    what = f"exclude names the unknown '{name}'"
                    self._problems.add(("exclude", position, name), what, did_you_mean(name, known))

    def check_all_were_used(self) -> None:
        """Find the rules that no job matched, once all were seen."""
        for position, rule in self._unused.items():
            what = ", ".join(f"{name}: {show(value)}" for name, value in rule.items())
            hint = "correct it, or remove it; globs such as A-* work"
            self._problems.add(("exclude", position), f"exclude: no job has {what}", hint)
