"""Which jobs `exclude` leaves out, and what of it leaves out nothing.

What always holds: a rule names prompts, images, the matrix or columns of the table; its texts may
be globs. A rule that no job matches is a problem once all jobs were seen: what somebody meant to
leave out would be bought.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from batch_runner.errors import closest, did_you_mean
from batch_runner.jobs.images import ImageSet
from batch_runner.manifest.document import Location
from batch_runner.manifest.form import Manifest, TableImages
from batch_runner.manifest.problems import Problems
from batch_runner.manifest.validation import show
from batch_runner.text.path import value_matches, value_text

_VALUES_KEPT = 2000
"""Suggestions for a mistyped value come from this many of each kind."""


class Exclusions:
    """The rules of `exclude`; what is wrong with them goes to `problems`."""

    def __init__(self, manifest: Manifest, problems: Problems) -> None:
        self._rules = manifest.exclude
        self._problems = problems
        source = manifest.images
        # A rule may match products that a sample leaves out.
        is_part = isinstance(source, TableImages) and source.sample is not None
        self._can_be_unused = is_part
        self._unused = set(range(len(self._rules)))
        self._seen: dict[str, set[str]] = {}

    def leave_out(self, images: ImageSet, facts: Mapping[str, Any]) -> bool:
        """Tell whether a job is left out; `facts` are its prompt, image, model and matrix."""
        for name, value in facts.items():
            seen = self._seen.setdefault(name, set())
            if len(seen) < _VALUES_KEPT:
                seen.add(value_text(value))
        cells = {} if images.row is None else images.row.cells
        is_left_out = False
        for position, rule in enumerate(self._rules):
            if all(
                value_matches(value, facts[name] if name in facts else cells.get(name, ""))
                for name, value in rule.items()
            ):
                self._unused.discard(position)
                is_left_out = True
        return is_left_out

    def check_columns(self, columns: Collection[str], facts: Collection[str]) -> None:
        """Find names that are neither of the batch nor columns of its table."""
        for position, rule in enumerate(self._rules):
            for name in rule:
                if name not in facts and name not in columns:
                    self._unused.discard(position)
                    location: Location = ("exclude", position, name)
                    what = f"exclude names the unknown '{name}'"
                    self._problems.add(location, what, did_you_mean(name, {*facts, *columns}))

    def check_all_were_used(self) -> None:
        """Find the rules that no job matched, once all were seen."""
        if self._can_be_unused:
            return
        for position in sorted(self._unused):
            rule = self._rules[position]
            what = ", ".join(f"{name}: {show(value)}" for name, value in rule.items())
            hint = "correct it, or remove it"
            for name, value in rule.items():
                seen = self._seen.get(name, set())
                if seen and not any(value_matches(value, one) for one in seen):
                    near = closest(value_text(value), seen)
                    known = ", ".join(sorted(seen)[:3])
                    hint = f"{name} is {known}, …; globs such as A-* work"
                    hint = hint if near is None else f"did you mean '{near}'?"
            self._problems.add(("exclude", position), f"exclude: no job has {what}", hint)
