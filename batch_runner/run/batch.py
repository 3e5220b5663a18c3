"""A batch: a manifest, the options of a run, and everything that is open or can be opened for them.

Hides where things are: the ledgers, the pictures, the service, the schemas. What always holds: to
make a batch, and to read from it, changes nothing on the disk or at the service.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import msgspec

from batch_runner.errors import ManifestError
from batch_runner.files.bucket import Buckets, BucketUrl
from batch_runner.files.bucket_storage import BucketStorage
from batch_runner.files.folder_storage import FolderStorage
from batch_runner.files.storage import Storage
from batch_runner.jobs.expand import expand
from batch_runner.jobs.picture import by_content
from batch_runner.jobs.product import Tally
from batch_runner.jobs.redo import redone
from batch_runner.jobs.selection import Selection
from batch_runner.ledger.job import JobState
from batch_runner.ledger.reading import ledger_path, read_ledgers
from batch_runner.ledger.state import State
from batch_runner.ledger.verdict import Redo, Verdicts
from batch_runner.ledger.verdict_book import Book
from batch_runner.manifest.form import Manifest, TableImages, Window
from batch_runner.manifest.loading import load_manifest
from batch_runner.models.catalog import offline_models
from batch_runner.pacing.window import night_of
from batch_runner.records import Job, LocalFile, SavedFile
from batch_runner.run.prices import Prices
from batch_runner.service.call import Service
from batch_runner.service.network import API_BASE, NO_PROXIES, Proxies
from batch_runner.shards.ledgers import LOCAL_SERVICE, Ledgers
from batch_runner.shards.shard import Shard
from batch_runner.table import Row
from batch_runner.text.path import superseded_path
from batch_runner.text.quantity import counted

SPOOL_FOLDER = ".spool"


class RunOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a run adds to its manifest.

    - `api_base`: the service's origin; `proxies`: how to reach it.
    - `limit`: the most jobs that this run submits; `only`: globs over keys.
    - `retry`: what to submit again: "failed", "unknown" or "all".
    - `max_cost_usd`: replaces the manifest's budgets.
    - `wait`: wait for the window to open; `ignore_window`: submit at any hour.
    - `output_dir`: replaces the manifest's folder; `shard`: the part of the batch to run.
    - `bucket_settings`: environment variables, as the tools of object stores read them.
    - `rehearsal`: touch no bucket: upload no pictures, and save files in the folder.
    - `accept`: the words of the concerns (see `run.concerns`) that a person accepts;
      `confirm_cost`: a first run without a budget is such a concern.
    """

    api_base: str = API_BASE
    token: str | None = None
    limit: int | None = None
    only: tuple[str, ...] | None = None
    retry: tuple[str, ...] = ()
    max_cost_usd: Decimal | None = None
    wait: bool = False
    ignore_window: bool = False
    output_dir: Path | None = None
    shard: Shard | None = None
    bucket_settings: Mapping[str, str] = {}
    proxies: Proxies = NO_PROXIES
    rehearsal: bool = False
    accept: tuple[str, ...] = ()
    confirm_cost: bool = False

    def __repr__(self) -> str:
        return f"RunOptions({self.api_base!r}, token {'set' if self.token else 'missing'})"


class Batch:
    """A manifest with its options, ledgers, storage, service, models and prices.

    `limits` are the manifest's, with the budget that holds for this run. `models` starts with what
    is known on this machine; `learn_models` replaces entries by the service's, and keeps in
    `unanswered` why it could not. `notes` collects notices for a person.
    """

    def __init__(
        self, manifest: Manifest, options: RunOptions, *, later: tuple[Path, ...] = ()
    ) -> None:
        self._later = (*later, manifest.path.resolve())
        self.manifest = self._with_earlier(manifest, options)
        self.options = options
        self.output_dir = options.output_dir or manifest.output.dir
        self.buckets = Buckets(options.bucket_settings)
        self.service = Service(options.api_base, options.token, options.proxies)
        self.notes: list[str] = []
        self.limits = manifest.limits
        if options.max_cost_usd is not None:
            # --max-cost replaces both budgets of the manifest.
            self.limits = msgspec.structs.replace(
                manifest.limits, cost_usd=options.max_cost_usd, nightly_usd=None
            )
        self.ledgers = Ledgers(
            options.output_dir or manifest.output.ledger_dir,
            options.shard,
            service=LOCAL_SERVICE if self.service.is_local else self.service.origin,
        )
        self.models = offline_models(manifest, self.ledgers.folder)
        self.unanswered: dict[str, str] = {}
        self.storage = self._storage()
        if options.rehearsal and (manifest.uploads or manifest.output.bucket):
            self.notes.append("a rehearsal touches no bucket: results go to a folder")
        self.prices = Prices(
            self.models,
            lambda: read_ledgers(self.ledgers.all_paths()),
            is_own=self.has,
            night_of=partial(night_of, window=manifest.window) if self.limits.nightly_usd else None,
        )

    def _with_earlier(self, manifest: Manifest, options: RunOptions) -> Manifest:
        """Return the manifest; if its table is another batch, its rows are read from there."""
        source = manifest.images
        if not isinstance(source, TableImages) or not source.is_batch:
            return manifest
        if source.path.resolve() in self._later:
            what = f"{manifest.path.name} takes pictures from {source.path.name}, which takes"
            what += " pictures from it in turn" if len(self._later) > 1 else " them from itself"
            problem = manifest.document.problem(("images", "from"), what, "begin with a table")
            raise ManifestError([problem])

        def rows(notes: list[str]) -> Iterator[Row]:
            return self._earlier(source.path, options).rows(notes)

        form = msgspec.structs.replace(source.form, rows=rows)
        return msgspec.structs.replace(manifest, images=msgspec.structs.replace(source, form=form))

    def _earlier(self, path: Path, options: RunOptions) -> Batch:
        """Return the batch of another manifest, as commands that only read open it."""
        manifest = load_manifest(path)
        folder = manifest.output.dir
        options = msgspec.structs.replace(
            options,
            only=None,
            shard=None,
            output_dir=folder.with_name(f"{folder.name}-sandbox") if options.rehearsal else None,
        )
        return Batch(manifest, options, later=self._later)

    def _storage(self) -> Storage:
        bucket = self.manifest.output.bucket
        if bucket is None or self.options.output_dir is not None or self.options.rehearsal:
            return FolderStorage(self.output_dir)
        return BucketStorage(self.buckets, bucket, self.ledgers.own_folder / SPOOL_FOLDER)

    @property
    def name(self) -> str:
        """Return the name of the batch, with the shard if this is one."""
        shard = self.options.shard
        return self.manifest.name if shard is None else f"{self.manifest.name} {shard}"

    @property
    def window(self) -> Window | None:
        """Return the window that this run keeps to; None if it may submit at any hour."""
        return None if self.options.ignore_window else self.manifest.window

    @property
    def bucket(self) -> str | None:
        """Return the URL of the bucket that files are saved in; None if it is a folder."""
        return str(self.storage) if isinstance(self.storage, BucketStorage) else None

    @property
    def uploads(self) -> BucketUrl | None:
        """Return where this run uploads pictures of this machine to, or None."""
        return None if self.options.rehearsal else self.manifest.uploads

    def has(self, fingerprint: str) -> bool:
        """Tell whether a job belongs in the ledger that this batch may write to."""
        shard = self.options.shard
        return shard is None or shard.holds(fingerprint)

    def jobs(
        self,
        tally: Tally | None = None,
        state: State | None = None,
        selection: Selection | None = None,
        redos: Mapping[str, Redo] | None = None,
    ) -> Iterator[Job]:
        """Yield the jobs of this run; raises ManifestError.

        A job that the ledgers know by an alias gets that fingerprint, so that it is not bought
        again. `state` is what this batch's ledger says; without it the ledgers are read if needed.
        `tally` counts what becomes of a table's rows, `selection` which jobs are chosen. `redos`
        are those of a plan that is carried out; without them, those of now.
        """
        # A shard's own ledger does not show what another shard bought under an alias.
        before = state if self.options.shard is None else None
        if selection is None:
            selection = Selection(self.options.only)
        redos = self.redos() if redos is None else redos
        # Jobs that are left out are expanded too: keys and paths are unique in the whole batch.
        for job in expand(
            self.manifest,
            self.models,
            local_pictures=self.service.is_local,
            uploads=self.uploads,
            tally=tally,
        ):
            if job.key in selection:
                if job.aliases:
                    before = before or self.ledgers.replay_whole()
                    job = _as_known(job, before)  # noqa: PLW2901 - the same job
                if redos:
                    # In place of it:
                    job = redone(job, redos, self.models, self._rejected)  # noqa: PLW2901
                if self.has(job.fingerprint):
                    yield job

    def redos(self) -> dict[str, Redo]:
        """Return what is done again now, by the fingerprint of the job that is replaced."""
        redos = Book(self.ledgers.folder).verdicts().redos
        if any(redo.is_off for redo in redos.values()):
            state = self.ledgers.replay_whole()
            for replaced, redo in list(redos.items()):
                again = state.job(redo.fingerprint)
                if redo.is_off and (again is None or not again.is_paid_for):
                    del redos[replaced]
        return redos

    def _rejected(self, redo: Redo) -> LocalFile | None:
        """Return the picture that a redo starts from, wherever it is now; None if it is unknown."""
        known = self._known.job(redo.replaces)
        if known is None:
            return None
        for number, file in enumerate(known.files, start=1):
            if file.sha256 == redo.sha256:
                paths = (file.path, superseded_path(file.path, file.sha256))
                places = [f"{self.storage}/{path}" for path in paths]
                place = next((one for one in places if Path(one).is_file()), places[0])
                return _saved_picture(known, number, place)
        return None

    @cached_property
    def _known(self) -> State:
        """What the ledgers said when a redo first needed its picture."""
        return self.ledgers.replay_whole()

    def rows(self, notes: list[str]) -> Iterator[Row]:
        """Yield the saved pictures, in the order of their jobs, as the table of another manifest.

        A picture is what its content is, so a step buys again only what has changed in the step
        before. What is missing goes to the notes.
        """
        state, verdicts = self.replay(), Book(self.ledgers.folder).verdicts()
        number = missing = total = 0
        for job in self.jobs(state=state):
            total += 1
            known = state.job(job.fingerprint)
            if known is None or not known.files:
                missing += 1
                continue
            for position, file in enumerate(known.files, start=1):
                number += 1
                path = f"{self.storage}/{file.path}"
                cells = {**_cells(job, file, position, verdicts), "file": path}
                yield Row(number, cells, number, picture=_saved_picture(known, position, path))
        if missing:
            name = self.manifest.path.name
            todo = "" if number else f"; run it first: batch-runner run {name}"
            what = f"{counted(missing, 'job')} of {total:,} have no saved picture yet"
            notes.append(f"{name}: {what}{todo}")

    def replay(self) -> State:
        """Read what earlier runs did; changes nothing. Raises LedgerDamagedError, UsageError."""
        return self.ledgers.replay()

    def parts(self) -> list[Batch]:
        """Return a batch for each ledger, through which it can be written: itself, or shards."""
        folders = self.ledgers.folders()
        if folders == [self.ledgers.own_folder]:
            return [self]
        return [
            Batch(
                self.manifest,
                msgspec.structs.replace(self.options, shard=Shard(index, len(folders))),
            )
            for index, folder in enumerate(folders)
            if ledger_path(folder).exists()
        ]


def _as_known(job: Job, state: State) -> Job:
    """Return the job with the fingerprint by which the ledgers know it."""
    for number in (job.fingerprint, *job.aliases):
        if state.job(number) is not None:
            return msgspec.structs.replace(job, fingerprint=number)
    return job


def _saved_picture(known: JobState, number: int, path: str) -> LocalFile:
    """Return a job's nth picture, which is at a path, as a picture for another job."""
    file = known.files[number - 1]
    identity = by_content(file.sha256)
    return LocalFile(identity, path, file.size_bytes, request_id=known.request_id, number=number)


def _cells(job: Job, file: SavedFile, position: int, verdicts: Verdicts) -> dict[str, Any]:
    word = verdicts.word_on(file.sha256)
    key = job.key.replace("/", "-")
    return {
        **job.cells,
        "picture_id": key if position == 1 else f"{key}-{position}",
        "key": job.key,
        "image": job.image_id or "",
        "prompt": job.prompt_id or "",
        "number": position,
        "verdict": "" if word is None else str(word),
        "sha256": file.sha256,
        "media_type": file.media_type,
        "size_bytes": file.size_bytes,
        **{
            f"check_{name}": str(checked.result)
            for name, checked in verdicts.checks.get(file.sha256, {}).items()
        },
    }
