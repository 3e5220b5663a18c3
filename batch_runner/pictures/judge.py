"""From what was measured to a result: pass, fail or unmeasurable.

Pure. What always holds: what can't be seen is unmeasurable, never a pass; the measured and required
values are plain JSON, enough to understand the result by.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Any

import msgspec

from batch_runner.ledger.verdict import Result
from batch_runner.pictures.measure import Measured, measure
from batch_runner.pictures.rules import Rules, profile_rules

_EXTENSIONS = {
    "image/jpeg": (".jpg", ".jpeg"),
    "image/mpo": (".jpg", ".jpeg"),
    "image/tiff": (".tif", ".tiff"),
}
_SAME_KIND = {"image/mpo": "jpeg"}
_LEAST_SPREAD = 8
_LEAST_WHITE_SIDE = 0.05
_RATIO_TOLERANCE = 0.02
RATIO = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*[:x/]\s*([0-9]+(?:\.[0-9]+)?)")
_SEEN_IN = ("image/jpeg", "image/png", "image/webp")


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one check; `why` is for people, and empty for a pass."""

    check: str
    result: Result
    measured: Any = None
    required: Any = None
    why: str = ""


class Around(msgspec.Struct, frozen=True, kw_only=True):
    """What a picture is judged with: its name, and what its job asked for.

    `ratio` is the requested one, as "4:5". `unlike_sources` is how much it differs from the nearest
    picture in, None if none could be seen; `twin` is the job of another product with the same
    picture.
    """

    path: str
    ratio: str | None = None
    unlike_sources: int | None = None
    twin: str | None = None


def judge(measured: Measured, rules: Rules, around: Around) -> list[Judged]:
    """Judge a picture by each rule."""
    found = []
    for check, required in rules.items():
        if check == "aspect" and required == "as requested":
            if around.ratio is None:
                continue  # nothing was asked for
            required = around.ratio  # noqa: PLW2901 - what was meant
        if measured.why_not and check != "format":
            result, seen, why = Result.UNMEASURABLE, None, measured.why_not
        else:
            result, seen, why = _JUDGES[check](measured, required, around)
        if result is Result.PASS:
            why = ""
        one = Judged(check=check, result=result, measured=seen, required=required, why=why)
        found.append(one)
    return found


def refused_by(profile: str, content: bytes, path: str) -> list[str]:
    """Return why a marketplace would refuse a file: the official rules that it fails."""
    rules = profile_rules(profile, advice=False)
    found = judge(measure(content), rules, Around(path=path))
    return [f"{one.check}: {one.why}" for one in found if one.result is Result.FAIL]


_Found = tuple[Result, Any, str]


def _if(is_good: bool, measured: Any, why: str) -> _Found:
    return (Result.PASS if is_good else Result.FAIL), measured, why


def _unseen(why: str, measured: Any = None) -> _Found:
    return Result.UNMEASURABLE, measured, why


def _blank(one: Measured, _: Any, __: Around) -> _Found:
    why = "is black, white or one colour all over"
    return _if(one.spread >= _LEAST_SPREAD, one.spread, why)


def _edited(one: Measured, required: Any, around: Around) -> _Found:
    if one.spread < _LEAST_SPREAD:
        return _unseen("there is nothing to compare in a blank picture")
    if around.twin is not None:
        return Result.FAIL, {"same_as": around.twin}, f"is the picture of '{around.twin}'"
    if around.unlike_sources is None:
        return _unseen("the picture that was sent is not on this machine")
    why = "looks like the picture that was sent"
    return _if(around.unlike_sources >= required, around.unlike_sources, why)


def size_problems(width: int, height: int, required: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with a size."""
    longest, shortest = max(width, height), min(width, height)
    megapixels = width * height / 1e6
    limits = (
        (longest < required.get("longest", 0), "the longer side must have {longest}"),
        (shortest < required.get("shortest", 0), "the shorter side must have {shortest}"),
        (longest > required.get("longest_max", longest), "a side may have {longest_max}"),
        (
            megapixels > required.get("megapixels_max", megapixels),
            "it may have {megapixels_max} megapixels",
        ),
    )
    return [text.format(**required) for is_wrong, text in limits if is_wrong]


def _size(one: Measured, required: Any, _: Around) -> _Found:
    problems = size_problems(one.width, one.height, required)
    why = f"is {one.width} x {one.height}, but {' and '.join(problems)}"
    return _if(not problems, [one.width, one.height], why)


def _aspect(one: Measured, required: Any, _: Around) -> _Found:
    found = RATIO.fullmatch(str(required))
    if found is None or not float(found[2]):
        return _unseen(f"'{required}' is no ratio")
    wanted = float(found[1]) / float(found[2])
    away = abs(one.width / one.height / wanted - 1)
    why = f"is {one.width} x {one.height}, not {required}"
    # Rounding to whole pixels is no fault.
    rounding = 1.5 / min(one.width, one.height)
    return _if(away <= max(_RATIO_TOLERANCE, rounding), [one.width, one.height], why)


def _format(one: Measured, required: Any, around: Around) -> _Found:
    if one.why_not == "cannot be decoded":
        return Result.FAIL, one.why_not, one.why_not
    if one.why_not:
        return _unseen(one.why_not)
    kind = _SAME_KIND.get(one.media, one.media.removeprefix("image/"))
    extension = PurePosixPath(around.path).suffix.lower()
    usual = _EXTENSIONS.get(one.media, (f".{kind}",))
    types, limit, colour = (required.get(key) for key in ("types", "max_bytes", "colour"))
    allowed_colours = ("srgb",) if colour == "embedded" else ("srgb", "none")
    problems = [
        text
        for is_wrong, text in (
            (extension not in usual, f"is {kind}, but is named {extension or 'without a type'}"),
            (types and kind not in types, f"is {kind}, not {' or '.join(types or ())}"),
            (one.orientation not in (0, 1), "is stored turned (EXIF orientation)"),
            (limit and one.size_bytes > limit, f"has {one.size_bytes:,} bytes, not {limit or 0:,}"),
            (one.colour == "damaged", "has a damaged colour profile"),
            (
                colour and (one.colour not in allowed_colours or one.mode == "CMYK"),
                f"has the colours {one.colour}{' in CMYK' * (one.mode == 'CMYK')}, not sRGB",
            ),
        )
        if is_wrong
    ]
    measured = {
        "type": kind,
        "extension": extension,
        "colour": one.colour,
        "orientation": one.orientation,
        "bytes": one.size_bytes,
    }
    return _if(not problems, measured, "; ".join(problems))


def _white(one: Measured, required: Any, _: Around) -> _Found:
    if one.white is None or one.white_side is None:
        return _unseen("is transparent, so the background is not its own")
    seen = {"border": one.white, "side": one.white_side}
    if one.white < required:
        return Result.FAIL, seen, f"{one.white:.1%} of the border is exactly white"
    why = "one side has a line or an edge that is not white"
    return _if(one.white_side >= _LEAST_WHITE_SIDE, seen, why)


def _fill(one: Measured, required: Any, _: Around) -> _Found:
    if one.ground is None:
        return _unseen("has no flat background to tell the product from")
    seen = [one.ground.fill_least, one.ground.fill_most]
    if one.ground.fill_least >= required:
        return Result.PASS, seen, ""
    if one.ground.fill_most < required:
        return Result.FAIL, seen, f"the product fills at most {one.ground.fill_most:.0%}"
    return _unseen("a shadow or faint edges hide how large the product is", seen)


def _cut_off(one: Measured, _: Any, __: Around) -> _Found:
    if one.ground is None:
        return _unseen("has no flat background to tell the product from")
    if one.ground.edges == "unclear":
        return _unseen("something soft or faint touches an edge", one.ground.edges)
    return _if(one.ground.edges == "clear", one.ground.edges, "is cut off at an edge")


def _provenance(one: Measured, required: Any, _: Around) -> _Found:
    seen = {"c2pa": one.c2pa, "source_type": one.source_type}
    if one.c2pa == "broken":
        return Result.FAIL, seen, "its C2PA manifest is damaged"
    if required == "source-type":
        return _if(one.source_type is not None, seen, "names no digital source type")
    if one.c2pa == "none" and one.media not in _SEEN_IN and one.source_type is None:
        return _unseen(f"C2PA is not looked for in {one.media.removeprefix('image/')}", seen)
    if required == "c2pa":
        return _if(one.c2pa == "present", seen, "has no C2PA manifest")
    is_marked = one.c2pa == "present" or one.source_type is not None
    return _if(is_marked, seen, "has neither C2PA nor a digital source type")


_JUDGES: Mapping[str, Callable[[Measured, Any, Around], _Found]] = {
    "blank": _blank,
    "edited": _edited,
    "size": _size,
    "aspect": _aspect,
    "format": _format,
    "white": _white,
    "fill": _fill,
    "cut_off": _cut_off,
    "provenance": _provenance,
}
