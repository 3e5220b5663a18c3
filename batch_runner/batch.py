"""A batch: a manifest with everything that is known about running it, and its plan.

Hides where what is known comes from: the service, the ledger, what ships. What always holds: a
plan changes nothing on the disk or at the service.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, time
from decimal import Decimal
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

import msgspec

from batch_runner.errors import (
    AccessRefusedError,
    ManifestError,
    ServiceUnavailableError,
    UsageError,
    did_you_mean,
)
from batch_runner.expand import expand
from batch_runner.ledger import (
    Phase,
    State,
    ledger_path,
    read_intent,
    read_ledger,
    replay,
)
from batch_runner.manifest import Manifest
from batch_runner.model import (
    Model,
    keep_published,
    kept_entry,
    read_published,
    shipped_models,
    shipped_schema,
)
from batch_runner.path import superseded_stem
from batch_runner.plan import Action, Planned, Survey, orphan_job, plan
from batch_runner.records import (
    LEDGER_VERSION,
    Job,
    LedgerHeader,
    Record,
)
from batch_runner.service import API_BASE, NO_SUCH_MODEL, Meaning, Service
from batch_runner.storage import FolderStorage, Storage
from batch_runner.version import PROGRAM

MODELS_FOLDER = "models"
LOCAL_SERVICE = "local"


class RunOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What one execution sets beside the manifest.

    `api_base` is the service's origin; `limit` bounds the submits of this run, `only` is a glob
    over keys, `retry` holds "failed", "unknown" or "all", `max_cost_usd` replaces the budget,
    `until` ends submits at that time of day (in the window's zone, else the machine's), `wait`
    waits for the window to open, and `output_dir` replaces the manifest's folder.
    """

    api_base: str = API_BASE
    token: str | None = None
    limit: int | None = None
    only: str | None = None
    retry: tuple[str, ...] = ()
    max_cost_usd: Decimal | None = None
    until: time | None = None
    wait: bool = False
    output_dir: Path | None = None


class Batch:
    """A manifest with everything that is known about running it."""

    def __init__(self, manifest: Manifest, options: RunOptions) -> None:
        self.manifest = manifest
        self.options = options
        self.output_dir = options.output_dir or manifest.output.dir
        self.storage: Storage = FolderStorage(self.output_dir)
        self.model = offline_model(manifest, self.output_dir)
        self.service = Service(options.api_base, options.token)
        self.notes: list[str] = []
        self._trouble: str | None = None

    @property
    def budget_usd(self) -> Decimal | None:
        """Return the budget that holds for this run, or None."""
        override = self.options.max_cost_usd
        return override if override is not None else self.manifest.limits.cost_usd

    def jobs(self) -> Iterator[Job]:
        """Yield the jobs that this run is about; raises ManifestError."""
        jobs = expand(self.manifest, self.model, local_pictures=self.service.is_local)
        only = self.options.only
        return jobs if only is None else (job for job in jobs if fnmatchcase(job.key, only))

    def planned(self, state: State) -> Iterator[Planned]:
        """Yield the plan of every job; raises ManifestError."""
        return plan(
            self.jobs(),
            state,
            self.storage.is_in_place,
            retry=self.options.retry,
            earlier=partial(read_intent, ledger_path(self.ledger_dir)),
        )

    def estimate_usd(self, job: Job) -> Decimal | None:
        """Return what a job is expected to cost, or None where no price is known."""
        return self.model.estimate_usd(job.outputs)

    def survey(self, state: State) -> Survey:
        """Plan every job and add it up; raises ManifestError, or UsageError where none is left."""
        survey = Survey()
        for planned in self.planned(state):
            survey.add(planned, self.estimate_usd(planned.job))
        if survey.jobs == 0:
            only = self.options.only
            if only is not None:
                raise UsageError(f"no job's key matches '{only}'", hint="see the keys with plan")
            document = self.manifest.document
            raise ManifestError(
                [document.problem((), "has no jobs", "look at images.where and exclude")]
            )
        if self.budget_usd is not None and survey.cost_usd is None and self._trouble is not None:
            raise ServiceUnavailableError(
                f"there is a budget, and the price could not be asked for ({self._trouble})",
                hint="run it again when the service is back, or write price_usd: into the manifest",
            )
        if self.budget_usd is not None and survey.cost_usd is None:
            raise UsageError(
                f"there is a budget, but the price of {self.model.model_id} is not known",
                hint="write price_usd: (USD per output) into the manifest, or remove the budget",
            )
        return survey

    def orphans(self, state: State, survey: Survey) -> list[Planned]:
        """Plan to collect what was bought for jobs that are no longer in the manifest.

        With --only, the jobs that it leaves out are not orphans: they are left alone.
        """
        if self.options.only is not None:
            return []
        return [
            Planned(
                orphan_job(known, superseded_stem(known.path, known.fingerprint)),
                Action.COLLECT if known.phase is Phase.IN_FLIGHT else Action.DOWNLOAD,
                "no longer in the manifest",
                known,
            )
            for known in state.jobs.values()
            if known.phase in (Phase.IN_FLIGHT, Phase.SUCCEEDED)
            and known.fingerprint not in survey.waiting
        ]

    @property
    def ledger_dir(self) -> Path:
        """Return the folder that holds the ledger and its lock."""
        return self.output_dir

    def ledger_paths(self) -> list[Path]:
        """Return where the ledgers of this batch are, or will be."""
        return [ledger_path(self.ledger_dir)]

    def records(self) -> Iterator[Record]:
        """Yield all that the ledger holds, in order; nothing where nothing was run."""
        path = ledger_path(self.ledger_dir)
        return read_ledger(path) if path.exists() else iter(())

    def replay(self) -> State:
        """Read what earlier runs did; changes nothing. Raises LedgerDamagedError."""
        state = replay(ledger_path(self.ledger_dir)).state
        self.check_service(state)
        return state

    def check_service(self, state: State) -> None:
        """Refuse a ledger whose requests live at another service: raises UsageError."""
        here = self._service_name
        if state.header is not None and state.header.service != here:
            raise UsageError(
                f"{ledger_path(self.ledger_dir)} belongs to another service"
                f" ({state.header.service}, not {here})",
                hint="these pictures are a rehearsal's: move the folder, or set another output.dir"
                if state.header.service == LOCAL_SERVICE
                else "set another output.dir: what was bought there cannot be collected here",
            )

    def header(self, now: datetime) -> LedgerHeader:
        """Return the first line of this batch's ledger."""
        return LedgerHeader(
            version=LEDGER_VERSION, at=now, program=PROGRAM, service=self._service_name
        )

    @property
    def _service_name(self) -> str:
        return LOCAL_SERVICE if self.service.is_local else self.service.origin

    async def learn_model(self, *, keep: bool) -> None:
        """Ask the service for the model's schema and price; without an answer, go on with less.

        Raises AccessRefusedError where the token is refused, and ManifestError where the service
        has no such model.
        """
        verdict, entry = await self.service.model(self.manifest.model)
        if verdict.meaning is Meaning.TOKEN_REFUSED:
            raise AccessRefusedError(
                f"the service refused the token: {verdict.message}",
                hint="set RUNCOMFY_API_TOKEN to a valid token",
            )
        if verdict.code == NO_SUCH_MODEL:
            what = f"the service has no model '{self.manifest.model}'"
            hint = did_you_mean(self.manifest.model, shipped_models())
            raise ManifestError([self.manifest.document.problem(("model",), what, hint)])
        if entry is None:
            self._trouble = f"{verdict.reason}: {verdict.message}"
            self.notes.append(
                f"the service told nothing about {self.manifest.model}"
                f" ({verdict.reason}: {verdict.message}); going on with what is known here"
            )
            return
        try:
            self.model = model_of(self.manifest, entry)
        except ManifestError as error:
            # The service's word about its model is no use: what is known here is better.
            self.notes.append(f"{error.problems[0].what}; going on without it")
            return
        if keep:
            keep_published(self.output_dir / MODELS_FOLDER, self.manifest.model, entry)


def offline_model(manifest: Manifest, output_dir: Path) -> Model:
    """Return what is known of the manifest's model without asking anyone."""
    kept = kept_entry(output_dir / MODELS_FOLDER, manifest.model)
    try:
        return model_of(manifest, kept)
    except ManifestError:
        if kept is None:
            raise
        return model_of(manifest, None)


def model_of(manifest: Manifest, entry: dict[str, object] | None) -> Model:
    """Put together what is known of a model: the service's word first, then what ships, then ours.

    Raises ManifestError where a schema cannot be used.
    """
    published, price_usd, unit = read_published(entry or {})
    candidates = (
        (published, "service"),
        (shipped_schema(manifest.model), "shipped"),
        (manifest.input_schema, "manifest"),
    )
    schema, source = next(((s, name) for s, name in candidates if s is not None), (None, None))
    if manifest.price_usd is not None:
        price_usd, unit = manifest.price_usd, "output"
    try:
        return Model(
            manifest.model,
            schema=schema,
            schema_source=source,
            price_usd=price_usd,
            price_unit=unit,
            prompt_as=manifest.prompt_as,
            images_as=manifest.images_as,
        )
    except ValueError as error:
        what = f"the input schema of {manifest.model} ({source}) is not usable: {error}"
        raise ManifestError([manifest.document.problem(("schema",), what)]) from error
