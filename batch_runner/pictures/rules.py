"""What is required of a picture: from profiles, and from the manifest.

Hides the profiles' file. What always holds: a requirement is plain JSON, as it is recorded; of two
requirements for one thing the manifest's own counts; no check is required that nobody asked for,
except the four that every batch needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from batch_runner.errors import ManifestError
from batch_runner.manifest.form import Checks, Manifest
from batch_runner.manifest.template import Template, TemplateError, is_true
from batch_runner.records import Job

_PATH = Path(__file__).parents[1] / "schema" / "profiles.json"

_NAMES = ("blank", "edited", "size", "aspect", "format", "white", "fill", "cut_off")
VERSIONS = dict.fromkeys(_NAMES, 1) | {"provenance": 2}
"""The checks in their order, each with its version: it is raised if the same picture and the same
requirement would get another result."""

USUAL: Mapping[str, Any] = {"blank": True, "edited": 8, "aspect": "as requested", "format": {}}
_MEANT_BY_TRUE = {**USUAL, "white": 0.8, "fill": 0.85, "provenance": "any", "size": {}}

Rules = dict[str, Any]
"""What is required, by the name of the check."""


class Rule(msgspec.Struct, frozen=True):
    """A rule of a profile. `level` is "official", or "advice" which may be left out."""

    check: str
    required: Any
    level: str
    why: str = ""


class Profile(msgspec.Struct, frozen=True):
    """The rules of a marketplace: where they are from, and when they were read."""

    title: str
    source: str
    read: str
    rules: tuple[Rule, ...]


@cache
def profiles() -> dict[str, Profile]:
    """Return the profiles by name."""
    return msgspec.json.decode(_PATH.read_bytes(), type=dict[str, Profile])


def profile_rules(name: str, *, advice: bool = True) -> Rules:
    """Return what a profile requires, with its advice or without."""
    rules: Rules = {}
    for rule in profiles()[name].rules:
        if advice or rule.level == "official":
            rules[rule.check] = _joined(rules.get(rule.check), rule.required)
    return rules


class Texts:
    """Renders a manifest's templates for one file of a job; raises ManifestError if one fails."""

    def __init__(
        self, manifest: Manifest, job: Job, cells: Mapping[str, Any], number: int, *place: str
    ) -> None:
        self._manifest = manifest
        self._key = job.key
        self._place = place
        self._variables = {
            "name": manifest.name,
            **cells,
            **job.point,
            "row": cells,
            "image": job.image_id,
            "prompt": job.prompt_id,
            "repeat": job.repeat,
            "number": number,
        }

    def render(self, key: str, template: Template) -> str:
        """Return the text of the template under a key."""
        try:
            return template.render(self._variables)
        except TemplateError as error:
            what = f"'{key}' {error.message}, for job '{self._key}'"
            hint = "use a column of the table, or image, prompt, repeat, number"
            raise self.error(key, what, hint) from error

    def holds(self, where: Template | None) -> bool:
        """Tell whether a condition holds; no condition always does."""
        return where is None or is_true(self.render("where", where))

    def error(self, key: str, what: str, hint: str) -> ManifestError:
        """Return the error of a key."""
        problem = self._manifest.document.problem((*self._place, key), what, hint)
        return ManifestError([problem])


def checks_for(
    manifest: Manifest, job: Job, cells: Mapping[str, Any], number: int = 1
) -> list[Checks]:
    """Return the parts of `checks` that are meant for a file; raises ManifestError."""
    texts = Texts(manifest, job, cells, number, "checks")
    return [part for part in manifest.checks if texts.holds(part.where)]


def rules_for(checks: Iterable[Checks]) -> Rules:
    """Return what is required of a picture that these parts are meant for."""
    rules: Rules = dict(USUAL)
    for one in checks:
        for name in one.profiles:
            for check, required in profile_rules(name, advice=one.advice).items():
                rules[check] = _joined(rules.get(check), required)
        for check, required in one.required.items():
            if required is False:
                rules.pop(check, None)
            else:
                meant = _MEANT_BY_TRUE.get(check, True) if required is True else required
                rules[check] = _joined(rules.get(check), meant)
    return {check: rules[check] for check in VERSIONS if check in rules}


def _joined(before: Any, required: Any) -> Any:
    """Add a requirement: its keys to those before, or in their place if it has none."""
    if isinstance(before, dict) and isinstance(required, dict):
        return before | required
    return required
