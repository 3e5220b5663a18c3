"""Delivering a batch's pictures to one channel.

Hides the list of what was delivered before. What always holds: originals are only read; a file is
checked against the channel's profile before it gets its name; the same picture and recipe give the
same bytes, so a delivery that was killed is simply run again; a file that is in the way is moved to
`superseded/` in the channel's folder. Nothing is bought.

The list of deliveries saves work and nothing else: without it each file is made again, and found to
be there already.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from urllib.parse import quote

import msgspec
import PIL

from batch_runner import __version__
from batch_runner.files.disk import replacing
from batch_runner.files.storage import NotSavedError, Storage, Whole
from batch_runner.manifest.form import Channel, Manifest, Recipe
from batch_runner.manifest.template import Template
from batch_runner.pictures.judge import refused_by
from batch_runner.pictures.kept import NotAsSavedError, read_original
from batch_runner.pictures.picture import SUFFIXES, CannotDeliverError, make
from batch_runner.pictures.rules import Texts
from batch_runner.pictures.table import Listed, Product
from batch_runner.records import SavedFile, digest
from batch_runner.report.details import JobDetails
from batch_runner.text.path import UnsafePathError, collision_key, safe_stem

_GROUP = 16


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """A picture for the channel: its job, its file, its path there without extension.

    `handle`, `title` and `alt` are for the shop's table.
    """

    details: JobDetails
    file: SavedFile
    stem: str
    handle: str
    title: str
    alt: str
    replaced: tuple[str, ...]


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """A picture for a worker: where it is (or its content), its hash, and how to make it."""

    original: str | bytes | None
    sha256: str
    recipe: Recipe
    stem: str
    profile: str | None


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker made: a file for the channel, or why there is none."""

    file: Whole | None = None
    notes: tuple[str, ...] = ()
    what: str = ""
    hint: str = ""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the list: what was made of which picture, by which recipe."""

    source: str
    recipe: str
    saved: SavedFile


class Outcome(msgspec.Struct, kw_only=True):
    """What a delivery came to.

    `failed` names the job and the file that could not be delivered, and why; `notes` counts what
    people should know; `left` are files of earlier deliveries that no picture wants any more.
    """

    made: int = 0
    unchanged: int = 0
    failed: list[tuple[str, str, Finished]] = []
    notes: dict[str, int] = {}
    left: list[str] = []
    products: dict[str, Product] = {}


def wanted_by(
    channel: Channel,
    manifest: Manifest,
    details: Iterable[JobDetails],
    is_chosen: Callable[[SavedFile], bool],
) -> Iterator[Wanted]:
    """Yield the pictures that a channel takes.

    Raises ManifestError if a template fails, or if two pictures would get the same name.
    """
    names: dict[str, str] = {}
    for one in details:
        for number, file in enumerate(one.files, start=1):
            if not file.media_type.startswith("image/") or not is_chosen(file):
                continue
            texts = Texts(manifest, one.job, one.cells, number, "deliver", channel.name)
            if not texts.holds(channel.where):
                continue
            stem = _stem(texts, channel.path, file, number)
            which = f"'{one.job.key}'" if number == 1 else f"file {number} of '{one.job.key}'"
            other = names.setdefault(collision_key(stem), which)
            if other != which:
                what = f"{other} and {which} would both be {stem}"
                raise texts.error(
                    "path", what, "add what differs: {{ prompt }}, {{ image }} or {{ repeat }}"
                )
            table = channel.table
            yield Wanted(
                details=one,
                file=file,
                stem=stem,
                handle=texts.render("handle", table.handle) if table else "",
                title=texts.render("title", table.title) if table else "",
                alt=texts.render("alt", table.alt) if table else "",
                replaced=tuple(texts.render("replaces", table.replaces).split()) if table else (),
            )


def _stem(texts: Texts, template: Template | None, file: SavedFile, number: int) -> str:
    """Return a file's path in the channel, without extension: its own if none is set."""
    if template is None:
        return file.path.rpartition(".")[0] or file.path
    text = texts.render("path", template)
    if number > 1 and "number" not in template.variables:
        text = f"{text}-{number}"
    try:
        return safe_stem(text)
    except UnsafePathError as error:
        raise texts.error("path", f"'{text}' {error}", "write it like {{ sku }}") from error


class Delivery:
    """One delivery to one channel.

    `find` returns where an original is, or its content if it is in a bucket, or None if it is gone.
    `make_all` makes files in worker processes, and returns them in the order of their orders.
    """

    def __init__(
        self,
        channel: Channel,
        target: Storage,
        list_path: Path,
        *,
        find: Callable[[SavedFile], str | bytes | None],
        make_all: Callable[[list[Order]], list[Finished]],
    ) -> None:
        self._channel = channel
        self._target = target
        self._list_path = list_path
        self._find = find
        self._make_all = make_all
        self._before = _read_list(list_path)
        self._now: dict[str, Entry] = {}
        versions = [__version__, PIL.__version__]
        self._recipe = digest([msgspec.to_builtins(channel.recipe), channel.profile, versions])

    def run(self, wanted: Iterable[Wanted]) -> Outcome:
        """Deliver the pictures, in their order; raises StorageError, AccessRefusedError."""
        outcome = Outcome()
        remaining = iter(wanted)
        with self._list_path.open("ab") as listed:
            while group := list(itertools.islice(remaining, _GROUP)):
                for entry in self._deliver(group, outcome):
                    listed.write(msgspec.json.encode(entry) + b"\n")
                listed.flush()
        outcome.left = sorted(set(self._before) - set(self._now))
        with replacing(self._list_path) as file:
            file.writelines(msgspec.json.encode(one) + b"\n" for one in self._now.values())
        return outcome

    def _deliver(self, group: list[Wanted], outcome: Outcome) -> Iterator[Entry]:
        """Deliver some pictures together; yield an entry for each that is new in the list."""
        entries = {one.stem: self._unchanged(one) for one in group}
        todo = [one for one in group if entries[one.stem] is None]
        made = self._make_all(
            [
                Order(
                    original=self._find(one.file),
                    sha256=one.file.sha256,
                    recipe=self._channel.recipe,
                    stem=one.stem,
                    profile=self._channel.profile,
                )
                for one in todo
            ]
        )
        # What a delivery that was killed has saved already is replaced by the same bytes.
        saved = iter(self._target.save_whole([one.file for one in made if one.file]))
        for one, finished in zip(todo, made, strict=True):
            result = next(saved) if finished.file else finished
            if isinstance(result, NotSavedError):
                hint = result.hint or "run the same command again"
                result = Finished(what=str(result), hint=hint)
            if isinstance(result, Exception):
                raise result
            if isinstance(result, Finished):
                outcome.failed.append((one.details.job.key, one.file.path, result))
                continue
            outcome.made += 1
            for note in finished.notes:
                outcome.notes[note] = outcome.notes.get(note, 0) + 1
            new = Entry(source=one.file.sha256, recipe=self._recipe, saved=result)
            entries[one.stem] = new
            yield new
        outcome.unchanged += len(group) - len(todo)
        for one in group:
            if (entry := entries[one.stem]) is not None:
                self._now[entry.saved.path] = entry
                self._list_for_shop(one, entry.saved, outcome)

    def _unchanged(self, one: Wanted) -> Entry | None:
        """Return what was delivered of this picture by this recipe, if it is still there."""
        for suffix in SUFFIXES.values():
            entry = self._before.get(one.stem + suffix)
            if (
                entry is not None
                and (entry.source, entry.recipe) == (one.file.sha256, self._recipe)
                and self._target.is_in_place(entry.saved.path, entry.saved, thorough=False)
            ):
                return entry
        return None

    def _list_for_shop(self, one: Wanted, saved: SavedFile, outcome: Outcome) -> None:
        table = self._channel.table
        if table is None:
            return
        product = outcome.products.setdefault(one.handle, Product(title=one.title))
        product.pictures.append(
            Listed(
                url=f"{table.base_url.rstrip('/')}/{quote(saved.path)}",
                alt=one.alt,
                file=saved.path,
                sha256=saved.sha256,
            )
        )
        before = one.replaced or [url for url in one.details.sources if url.startswith("http")]
        new = [url for url in dict.fromkeys(before) if url not in product.replaced]
        product.replaced.extend(new)


def make_file(order: Order) -> Finished:
    """Make one file, in a worker process; never raises."""
    try:
        made = make(read_original(order.original, order.sha256), order.recipe)
    except NotAsSavedError as error:
        hint = "restore it, for free: batch-runner check MANIFEST --fix"
        return Finished(what=str(error), hint=hint)
    except CannotDeliverError as error:
        return Finished(what=str(error), hint=error.hint)
    path = order.stem + SUFFIXES[made.form]
    failing = refused_by(order.profile, made.content, path) if order.profile is not None else []
    if failing:
        what = f"{order.profile} would refuse it: {'; '.join(failing)}"
        return Finished(what=what, hint="reject the picture, or change the channel")
    return Finished(
        file=Whole(path=path, media_type=f"image/{made.form}", body=made.content),
        notes=made.notes,
    )


def _read_list(path: Path) -> dict[str, Entry]:
    """Return what was delivered, by path; lines that a kill cut off are left out."""
    entries = {}
    with contextlib.suppress(FileNotFoundError):
        for line in path.read_bytes().splitlines():
            with contextlib.suppress(msgspec.MsgspecError):
                entry = msgspec.json.decode(line, type=Entry)
                entries[entry.saved.path] = entry
    return entries
