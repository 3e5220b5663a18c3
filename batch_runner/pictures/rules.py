"""What is required of a picture: from profiles, and from the manifest.

Hides the profiles' file. What always holds: a requirement is plain JSON, as it is recorded; of two
requirements for one thing the manifest's own counts; no check is required that nobody asked for,
except the four that every batch needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from batch_runner.manifest.form import Checks
from batch_runner.manifest.template import Template

_PATH = Path(__file__).parents[1] / "schema" / "profiles.json"

VERSIONS = {
    "blank": 1,
    "edited": 1,
    "size": 1,
    "aspect": 1,
    "format": 1,
    "white": 1,
    "fill": 1,
    "cut_off": 1,
    "provenance": 1,
}
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


def rules_for(checks: Iterable[Checks], is_true: Callable[[Template], bool]) -> Rules:
    """Return what is required of one picture; `is_true` renders a condition for it."""
    rules: Rules = dict(USUAL)
    for one in checks:
        if one.where is not None and not is_true(one.where):
            continue
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
