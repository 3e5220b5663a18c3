"""The page: an index and its data, in a folder that opens from the disk, or that `view` serves.

Hides how data reaches a page that may not fetch. What always holds: the page loads
nothing from outside the output folder, and its Content-Security-Policy allows only its own files;
texts of a manifest, a table or the service are data, shown as text; the index is replaced last and
as a whole, so that an open page stays usable, also if a new report is interrupted; memory grows by
some hundred bytes for each job, which filters and sorting need.

Data is in scripts that call one function, because a page from the disk may load scripts and nothing
else. Their names contain a hash of their content.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import shlex
import time
from collections.abc import Hashable, Iterable
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import Any, assert_never

import msgspec

from batch_runner.files.disk import replacing, storage_error
from batch_runner.ledger.job import ABANDONED, Standing
from batch_runner.ledger.verdict import Result
from batch_runner.records import utc_now
from batch_runner.report.details import JobDetails
from batch_runner.report.live import Live, Moment
from batch_runner.report.pictures import Pictures
from batch_runner.report.status import BY_URGENCY
from batch_runner.report.text import About, Advice

INDEX = "index.html"
CARDS_ON_A_PAGE = 200

_DATA_FOLDER = "data"
ASSETS = (
    *("base.js", "head.js", "gallery.js", "large.js", "review.js"),
    *("report.css", "icon.svg"),
)
_OLD_S = 3600.0
_COLUMNS = (
    *("key", "state", "prompt", "image", "reason", "text", "more"),
    *("cost", "took", "saved", "outputs", "model", "word", "failing", "group", "redone"),
)
_FILTERED_VALUES = 40
_FILTERED_CHARACTERS = 60
"""A column with more values, or longer ones, can be searched but has no filter."""

Card = dict[str, Any]
"""A job in the form that the page's script reads; what would be empty is left out."""


class _Index:
    """What filters and sorting need to know of every job."""

    def __init__(self) -> None:
        names = ("prompts", "images", "reasons", "texts", "models", "groups")
        self._numbers: dict[str, dict[Hashable, int]] = {name: {} for name in names}
        self._columns: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
        self._jobs = 0
        self._matrix: set[str] = set()
        self._too_varied: set[str] = set()
        self._axes: dict[str, tuple[dict[str, int], list[int]]] = {}
        self.chunks: list[str] = []

    def add(self, card: Card) -> None:
        number, point = self._number, card.get("point", {})
        self._add_values(card.get("cells", {}), point)
        row = {
            "key": card["key"],
            "state": BY_URGENCY.index(card["state"]),
            "prompt": number("prompts", card.get("prompt", "")),
            "image": number("images", card.get("image", "")),
            "reason": number("reasons", card.get("reason", "")),
            "text": number("texts", card["text"]),
            "more": number("texts", _searchable(card)),
            "cost": float(card["cost_usd"]) if "cost_usd" in card else None,
            "took": card.get("took_s"),
            "saved": round(card["saved_at"].timestamp()) if "saved_at" in card else None,
            "outputs": len(card.get("outputs", ())),
            "model": number("models", card["model"]),
            "redone": card["redone"],
            "word": _words(card),
            "failing": [one["result"] for one in card.get("checks", ())].count(Result.FAIL),
            "group": number(
                "groups",
                (card["model"], card.get("image"), card.get("prompt"), *point.values()),
            ),
        }
        for name, value in row.items():
            self._columns[name].append(value)
        self._jobs += 1

    def _number(self, name: str, value: Hashable) -> int:
        """Return the number of a value, in the order in which they first come."""
        return self._numbers[name].setdefault(value, len(self._numbers[name]))

    def _add_values(self, cells: dict[str, Any], point: dict[str, str]) -> None:
        """Add the values of the matrix, and cells of columns with few, short values."""
        self._matrix |= point.keys()
        for name, value in {**cells, **point}.items():
            if name in self._too_varied:
                continue
            numbers, column = self._axes.setdefault(name, ({"": 0}, []))
            # 0 means no value: not every job has all columns.
            column += [0] * (self._jobs - len(column))
            column.append(numbers.setdefault(str(value), len(numbers)))
            is_varied = len(numbers) > _FILTERED_VALUES or len(str(value)) > _FILTERED_CHARACTERS
            if is_varied and name not in self._matrix:
                self._too_varied.add(name)
                del self._axes[name]

    def encoded(self, **more: Any) -> bytes:
        images = len(self._numbers["images"])
        axes, points = {}, {}
        for name, (numbers, column) in self._axes.items():
            column.extend([0] * (self._jobs - len(column)))
            # Of the table, columns whose values several products share.
            if name in self._matrix or 1 < len(set(column)) < images:
                axes[name], points[name] = list(numbers), column
        return msgspec.json.encode(
            {
                **more,
                "jobs": self._jobs,
                "page": CARDS_ON_A_PAGE,
                "chunks": self.chunks,
                "states": BY_URGENCY,
                **{name: list(numbers) for name, numbers in self._numbers.items()},
                "axes": axes,
                "points": points,
                **self._columns,
            }
        )


def _words(card: Card) -> list[str]:
    """Return what was said about each file; "" if one waits for a verdict, "-" if none is there."""
    words = []
    for said, output in zip(card.get("said", ()), card.get("outputs", ()), strict=True):
        if output.sha256 is None:
            words.append("-")
        else:
            parts = () if said is None else (said["word"], said.get("reason"))
            words.append(": ".join(filter(None, parts)))
    return words


def _searchable(card: Card) -> str:
    """Return the text that a search covers, besides key and prompt."""
    words = [card.get(name, "") for name in ("request_id", "reason", "message")]
    words += [*card.get("cells", {}).values(), *card.get("inputs", {}).values()]
    return "\n".join(str(word) for word in words if word != "")


def write_page(
    folder: Path,
    live: Live,
    jobs: Iterable[JobDetails],
    *,
    moment: Moment,
    pictures: Pictures,
    about: About,
    revision: int | None = None,
) -> Path:
    """Write the page; returns its index. The `jobs` are the details of the live batch.

    `revision` is None on a page that is not served: nothing there changes.
    Raises StorageError and any error of the jobs; the old page then stays.
    """
    began_s = time.time()
    data = folder / _DATA_FOLDER
    try:
        data.mkdir(parents=True, exist_ok=True)
        for name in ASSETS:
            with replacing(folder / name) as file:
                file.write((files(__package__) / "assets" / name).read_bytes())
    except OSError as error:
        raise storage_error(folder, error, what=f"cannot write {folder}") from error
    index = _Index()
    cards = (card_of(one, pictures, about.advice) for one in jobs)
    while chunk := list(islice(cards, CARDS_ON_A_PAGE)):
        for card in chunk:
            index.add(card)
        content = b"batchReport.jobs(%d,%s);\n" % (len(index.chunks), msgspec.json.encode(chunk))
        index.chunks.append(_write_data(data, f"jobs-{len(index.chunks) + 1}", content))
    head = {
        **msgspec.structs.asdict(about),
        "moment": moment,
        "made_at": utc_now(),
        "beyond": live.beyond,  # how many earlier jobs have left the manifest
        "revision": revision,
    }
    content = b"batchReport.index(%s);\n" % index.encoded(head=head)
    index_script = _write_data(data, "index", content)
    page = (files(__package__) / "assets" / INDEX).read_bytes()
    with replacing(folder / INDEX) as file:
        file.write(page.replace(b"INDEX_SCRIPT", f"{_DATA_FOLDER}/{index_script}".encode()))
    _remove_old(data, {index_script, *index.chunks}, before_s=began_s - _OLD_S)
    return folder / INDEX


def card_of(details: JobDetails, pictures: Pictures, advice: Advice) -> Card:
    """Return a job in the form that the page's script reads."""
    job, cost_usd = details.job, details.cost_usd
    sources, outputs = pictures.of(details)
    previous = pictures.outputs(details.previous)
    card = {
        "key": job.key,
        "fingerprint": job.fingerprint,
        "state": details.standing,
        "text": details.prompt,
        "model": job.model,
        "image": job.image_id,
        "prompt": job.prompt_id,
        "point": {name: str(value) for name, value in job.point.items()},
        "inputs": {name: value for name, value in details.inputs.items() if name not in job.point},
        "cells": {name: value for name, value in details.cells.items() if value not in ("", None)},
        "reason": details.reason,
        "message": details.message,
        "request_id": details.request_id,
        "attempts": details.attempts,
        "took_s": details.took_s,
        "cost_usd": None if cost_usd is None else f"{cost_usd.normalize():f}",
        "submitted_at": details.submitted_at,
        "saved_at": details.saved_at,
        "sources": sources,
        "outputs": outputs or previous,
        "previous": previous if outputs else [],
        "redone": details.redone,
        "said": [
            None if one is None else _picked(one, "word", "reason", "note", "by")
            for one in details.reviewed
        ],
        "checks": [
            _picked(one, "check", "result", "measured", "required") for one in details.checked
        ],
        "command": _command_for(details, advice),
    }
    return {name: value for name, value in card.items() if value not in (None, [], {})}


def _command_for(details: JobDetails, advice: Advice) -> dict[str, str] | None:
    """Return the command line that helps with a job, and what it does."""
    key = details.job.key
    match details.standing:
        case Standing.UNKNOWN:
            what, line = "was it bought? decide", f"{advice.resolve} {shlex.quote(key)}"
        case Standing.CANCELLED if details.reason == ABANDONED:
            what, line = "bring it back", f"{advice.resolve} {shlex.quote(key)} --resubmit"
        case Standing.FAILED | Standing.CANCELLED:
            only = shlex.join([f"--only={glob.escape(key)}"])
            what, line = "buy it again", f"{advice.run} --retry failed {only}"
        case Standing.DONE | Standing.IN_FLIGHT | Standing.PENDING:
            return None
        case _:
            assert_never(details.standing)
    return {"words": what, "line": line}


def _picked(one: object, *names: str) -> dict[str, Any]:
    return {name: value for name in names if (value := getattr(one, name)) is not None}


def _write_data(folder: Path, name: str, content: bytes) -> str:
    """Write a script under a name with its hash; returns the name."""
    name = f"{name}-{hashlib.sha256(content).hexdigest()[:12]}.js"
    with replacing(folder / name) as file:
        file.write(content)
    return name


def _remove_old(folder: Path, written: set[str], *, before_s: float) -> None:
    """Remove the data of old reports, but not data that another report may be writing now."""
    with contextlib.suppress(OSError):
        for path in folder.glob("*-*.js"):
            if path.name not in written and path.stat().st_mtime < before_s:
                path.unlink()
