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
from collections.abc import Callable, Hashable, Iterator, Mapping
from datetime import datetime
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import Any, assert_never

import msgspec

from batch_runner.errors import StorageError
from batch_runner.files.disk import replacing
from batch_runner.ledger.job import ABANDONED, Standing
from batch_runner.ledger.verdict import Result
from batch_runner.report.details import JobDetails
from batch_runner.report.moment import Moment
from batch_runner.report.pictures import Picture, Pictures
from batch_runner.report.status import BY_URGENCY

FOLDER = "report"
INDEX = "index.html"
CARDS_ON_A_PAGE = 200

_DATA_FOLDER = "data"
ASSETS = (
    *("base.js", "head.js", "gallery.js", "large.js", "review.js"),
    *("report.css", "icon.svg"),
)
_OLD_S = 3600.0
_INDEXED = (
    *("key", "state", "prompt", "image", "reason", "text", "more"),
    *("cost", "took", "saved", "outputs", "model", "word", "failing", "group", "redone"),
)


class Advice(msgspec.Struct, frozen=True):
    """The commands for next steps; each ends with the manifest."""

    run: str
    resolve: str
    export: str

    def of(self, details: JobDetails) -> Command | None:
        """Return the command that helps with a job."""
        key = details.job.key
        match details.standing:
            case Standing.UNKNOWN:
                return Command("was it bought? decide", f"{self.resolve} {shlex.quote(key)}")
            case Standing.CANCELLED if details.reason == ABANDONED:
                return Command("bring it back", f"{self.resolve} {shlex.quote(key)} --resubmit")
            case Standing.FAILED | Standing.CANCELLED:
                only = shlex.join([f"--only={glob.escape(key)}"])
                return Command("buy it again", f"{self.run} --retry failed {only}")
            case Standing.DONE | Standing.IN_FLIGHT | Standing.PENDING:
                return None
        assert_never(details.standing)


class Command(msgspec.Struct, frozen=True):
    """A command line, and what it does."""

    words: str
    line: str


class Said(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a person said about a file."""

    word: str
    reason: str | None = None
    note: str | None = None
    by: str | None = None


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """A check that a file did not pass."""

    check: str
    result: str
    measured: Any = None
    required: Any = None


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """What the page shows about the batch as a whole; `moment` changes during a run.

    `beyond` is how many earlier jobs have left the manifest. `revision` is None on a page that is
    not served: nothing there changes.
    """

    moment: Moment
    manifest: str
    made_at: datetime
    program: str
    is_sandbox: bool
    only: str | None
    advice: Advice
    reasons: tuple[str, ...] = ()
    beyond: int = 0
    revision: int | None = None


class Card(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A job in the form that the page's script reads."""

    key: str
    fingerprint: str
    state: Standing
    text: str
    model: str
    image: str | None = None
    prompt: str | None = None
    point: dict[str, str] = {}
    inputs: dict[str, Any] = {}
    cells: dict[str, Any] = {}
    reason: str | None = None
    message: str | None = None
    request_id: str | None = None
    attempts: int = 0
    took_s: float | None = None
    cost_usd: str | None = None
    submitted_at: datetime | None = None
    saved_at: datetime | None = None
    sources: list[Picture] = []
    outputs: list[Picture] = []
    previous: list[Picture] = []
    said: list[Said | None] = []
    checks: list[Finding] = []
    redone: int = 0
    command: Command | None = None


_FILTERED_VALUES = 40
_FILTERED_CHARACTERS = 60
"""A column with more values, or longer ones, can be searched but has no filter."""


class _Numbering:
    """Numbers values in the order in which they first come."""

    def __init__(self) -> None:
        self.numbers: dict[Hashable, int] = {}

    def of(self, value: Hashable) -> int:
        return self.numbers.setdefault(value, len(self.numbers))


class _Index:
    """What filters and sorting need to know of every job, in columns."""

    def __init__(self) -> None:
        self._prompts, self._images, self._reasons = _Numbering(), _Numbering(), _Numbering()
        self._texts, self._models, self._groups = _Numbering(), _Numbering(), _Numbering()
        self._axes: dict[str, _Numbering] = {}
        self._matrix: set[str] = set()
        self._too_varied: set[str] = set()
        self._columns: dict[str, list[Any]] = {name: [] for name in _INDEXED}
        self._points: dict[str, list[int]] = {}
        self.chunks: list[str] = []
        self.jobs = 0

    def add(self, card: Card) -> None:
        columns = self._columns
        columns["key"].append(card.key)
        columns["state"].append(BY_URGENCY.index(card.state))
        columns["prompt"].append(self._prompts.of(card.prompt or ""))
        columns["image"].append(self._images.of(card.image or ""))
        columns["reason"].append(self._reasons.of(card.reason or ""))
        columns["text"].append(self._texts.of(card.text))
        columns["more"].append(self._texts.of(_searchable(card)))
        columns["cost"].append(None if card.cost_usd is None else float(card.cost_usd))
        columns["took"].append(card.took_s)
        columns["saved"].append(None if card.saved_at is None else round(card.saved_at.timestamp()))
        columns["outputs"].append(len(card.outputs))
        columns["model"].append(self._models.of(card.model))
        columns["redone"].append(card.redone)
        columns["word"].append(_words(card))
        columns["failing"].append(len([one for one in card.checks if one.result == Result.FAIL]))
        group = (card.model, card.image, card.prompt, *card.point.values())
        columns["group"].append(self._groups.of(group))
        self._matrix.update(card.point)
        self._add_values({**self._values_of_row(card), **card.point})
        self.jobs += 1

    def _values_of_row(self, card: Card) -> dict[str, str]:
        """Return the cells of columns with few, short values: they get a filter."""
        values = {}
        for name, value in card.cells.items():
            if name not in self._too_varied:
                values[name] = str(value)
                if len(values[name]) > _FILTERED_CHARACTERS:
                    self._give_up(name)
                    del values[name]
        return values

    def _add_values(self, values: Mapping[str, str]) -> None:
        # 0 means no value: not every job has all columns.
        for name in values:
            if name not in self._axes:
                self._axes[name], self._points[name] = _Numbering(), [0] * self.jobs
                self._axes[name].of("")
        for name, numbering in list(self._axes.items()):
            self._points[name].append(numbering.of(values.get(name, "")))
            if len(numbering.numbers) > _FILTERED_VALUES:
                self._give_up(name)

    def _give_up(self, name: str) -> None:
        if name not in self._matrix:
            self._too_varied.add(name)
            self._axes.pop(name, None)
            self._points.pop(name, None)

    def _filters(self) -> dict[str, list[Hashable]]:
        """Return the values of the matrix, and of columns whose values several products share."""
        images = len(self._images.numbers)
        return {
            name: list(one.numbers)
            for name, one in self._axes.items()
            if name in self._matrix or 1 < len(set(self._points[name])) < images
        }

    def encoded(self, head: Head | None = None) -> bytes:
        filters = self._filters()
        return msgspec.json.encode(
            {
                "head": head,
                "jobs": self.jobs,
                "page": CARDS_ON_A_PAGE,
                "chunks": self.chunks,
                "states": BY_URGENCY,
                "prompts": list(self._prompts.numbers),
                "images": list(self._images.numbers),
                "reasons": list(self._reasons.numbers),
                "texts": list(self._texts.numbers),
                "models": list(self._models.numbers),
                "axes": filters,
                "points": {name: self._points[name] for name in filters},
                **self._columns,
            }
        )


def _words(card: Card) -> list[str]:
    """Return what was said about each file; "" if one waits for a verdict, "-" if none is there."""
    words = []
    for said, output in zip(card.said, card.outputs, strict=True):
        if output.sha256 is None:
            words.append("-")
        else:
            words.append("" if said is None else ": ".join(filter(None, (said.word, said.reason))))
    return words


def _searchable(card: Card) -> str:
    """Return the text that a search covers, besides key and prompt."""
    words = [card.request_id or "", card.reason or "", card.message or ""]
    words += [str(value) for value in (*card.cells.values(), *card.inputs.values())]
    return "\n".join(word for word in words if word)


def write_page(folder: Path, cards: Iterator[Card], head: Callable[[], Head]) -> Path:
    """Write the page; returns its index. `head` is called after the last card.

    Raises StorageError and any error of the cards; the old page then stays.
    """
    began_s = time.time()
    data = folder / _DATA_FOLDER
    try:
        data.mkdir(parents=True, exist_ok=True)
        for name in ASSETS:
            with replacing(folder / name) as file:
                file.write((files(__package__) / "assets" / name).read_bytes())
    except OSError as error:
        raise StorageError(
            f"cannot write {folder}: {error.strerror or error}",
            hint="check the disk and the folder's permissions",
        ) from error
    index = _Index()
    while chunk := list(islice(cards, CARDS_ON_A_PAGE)):
        for card in chunk:
            index.add(card)
        content = b"batchReport.jobs(%d,%s);\n" % (len(index.chunks), msgspec.json.encode(chunk))
        index.chunks.append(_write_data(data, f"jobs-{len(index.chunks) + 1}", content))
    content = b"batchReport.index(%s);\n" % index.encoded(head())
    index_script = _write_data(data, "index", content)
    page = (files(__package__) / "assets" / INDEX).read_bytes()
    with replacing(folder / INDEX) as file:
        file.write(page.replace(b"INDEX_SCRIPT", f"{_DATA_FOLDER}/{index_script}".encode()))
    _remove_old(data, {index_script, *index.chunks}, before_s=began_s - _OLD_S)
    return folder / INDEX


def card_of(details: JobDetails, pictures: Pictures, advice: Advice) -> Card:
    """Return a job in the form that the page's script reads."""
    job = details.job
    sources, outputs = pictures.of(details)
    previous = pictures.outputs(details.previous)
    return Card(
        key=job.key,
        fingerprint=job.fingerprint,
        state=details.standing,
        text=details.prompt,
        model=job.model,
        image=job.image_id,
        prompt=job.prompt_id,
        point={name: str(value) for name, value in job.point.items()},
        inputs={name: value for name, value in details.inputs.items() if name not in job.point},
        cells={name: value for name, value in details.cells.items() if value not in ("", None)},
        reason=details.reason,
        message=details.message,
        request_id=details.request_id,
        attempts=details.attempts,
        took_s=details.took_s,
        cost_usd=None if details.cost_usd is None else f"{details.cost_usd.normalize():f}",
        submitted_at=details.submitted_at,
        saved_at=details.saved_at,
        sources=sources,
        outputs=outputs or previous,
        previous=previous if outputs else [],
        redone=details.redone,
        said=[
            None if one is None else Said(one.word, one.reason, one.note, one.by)
            for one in details.reviewed
        ],
        checks=[
            Finding(one.check, one.result, one.measured, one.required) for one in details.checked
        ],
        command=advice.of(details),
    )


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
