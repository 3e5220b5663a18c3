"""A batch: a manifest with everything that is known about running it, and its plan.

Hides where what is known comes from: the service, the ledger, what ships. What always holds: a
plan changes nothing on the disk or at the service.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, time
from decimal import Decimal
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from batch_runner.catalog import (
    KEPT_FOLDER,
    keep_published,
    model_of,
    offline_models,
    shipped_models,
)
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
from batch_runner.path import superseded_stem
from batch_runner.plan import Action, Planned, Survey, orphan_job, plan
from batch_runner.product import Tally
from batch_runner.records import (
    LEDGER_VERSION,
    Job,
    LedgerHeader,
    Record,
)
from batch_runner.service import API_BASE, NO_SUCH_MODEL, Meaning, Service
from batch_runner.storage import FolderStorage, Storage
from batch_runner.version import PROGRAM

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
        self.models = offline_models(manifest, self.ledger_dir)
        self.service = Service(options.api_base, options.token)
        self.notes: list[str] = []
        self._troubles: dict[str, str] = {}

    @property
    def budget_usd(self) -> Decimal | None:
        """Return the budget that holds for this run, or None."""
        override = self.options.max_cost_usd
        return override if override is not None else self.manifest.limits.cost_usd

    def jobs(self, tally: Tally | None = None) -> Iterator[Job]:
        """Yield the jobs that this run is about; raises ManifestError.

        `tally`, where given, counts what becomes of a table's rows.
        """
        local = self.service.is_local
        jobs = expand(self.manifest, self.models, local_pictures=local, tally=tally)
        only = self.options.only
        return jobs if only is None else (job for job in jobs if fnmatchcase(job.key, only))

    def planned(self, state: State, tally: Tally | None = None) -> Iterator[Planned]:
        """Yield the plan of every job; raises ManifestError."""
        return plan(
            self.jobs(tally),
            state,
            self.storage.is_in_place,
            retry=self.options.retry,
            earlier=partial(read_intent, ledger_path(self.ledger_dir)),
        )

    def estimate_usd(self, job: Job) -> Decimal | None:
        """Return what a job is expected to cost, or None where no price is known."""
        return self.models[job.model].estimate_usd(job.input)

    def survey(self, state: State) -> Survey:
        """Plan every job and add it up; raises ManifestError, or UsageError where none is left."""
        survey = Survey()
        for planned in self.planned(state, survey.tally):
            survey.add(planned, self.estimate_usd(planned.job))
        if survey.jobs == 0:
            only = self.options.only
            if only is not None:
                raise UsageError(f"no job's key matches '{only}'", hint="see the keys with plan")
            document = self.manifest.document
            raise ManifestError(
                [document.problem((), "has no jobs", "look at images.where and exclude")]
            )
        if self.budget_usd is not None and survey.cost_usd is None:
            self._refuse_unpriced(survey.unpriced)
        return survey

    def _refuse_unpriced(self, unpriced: Mapping[str, int]) -> NoReturn:
        """Say why a budget cannot be kept: what a job will cost is not known."""
        model_id = next(iter(unpriced))
        model, trouble = self.models[model_id], self._troubles.get(model_id)
        if trouble is not None:
            raise ServiceUnavailableError(
                f"there is a budget, and the price could not be asked for ({trouble})",
                hint="run it again when the service is back, or write price_usd: into the manifest",
            )
        reason = "is not known"
        if model.price_usd is not None and model.price_is_floor:
            reason = f"is known only as a floor: from {model.price_usd} USD an {model.price_unit}"
        elif model.price_usd is not None:
            reason = f"is {model.price_usd} USD a {model.price_unit}, and how many is not known"
        where = "into the manifest"
        if len(self.models) > 1:
            where = f"under models: {model_id}: in the manifest"
        raise UsageError(
            f"there is a budget, but the price of {model_id} {reason}",
            hint=f"write price_usd: (USD per output) {where}, or remove the budget",
        )

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

    async def learn_models(self, *, keep: bool) -> None:
        """Ask the service for the models' schemas and prices; without an answer, go on with less.

        Raises AccessRefusedError where the token is refused, and ManifestError where the service
        has no such model.
        """
        problems = []
        for model_id, location in self.manifest.model_locations.items():
            verdict, entry = await self.service.model(model_id)
            if verdict.meaning is Meaning.TOKEN_REFUSED:
                raise AccessRefusedError(
                    f"the service refused the token: {verdict.message}",
                    hint="set RUNCOMFY_API_TOKEN to a valid token",
                )
            if verdict.code == NO_SUCH_MODEL:
                what = f"the service has no model '{model_id}'"
                hint = did_you_mean(model_id, shipped_models())
                problems.append(self.manifest.document.problem(location, what, hint))
            elif entry is None:
                self._troubles[model_id] = f"{verdict.reason}: {verdict.message}"
                self.notes.append(
                    f"the service told nothing about {model_id}"
                    f" ({verdict.reason}: {verdict.message}); going on with what is known here"
                )
            else:
                self._believe(model_id, entry, keep=keep)
        if problems:
            raise ManifestError(problems)

    def _believe(self, model_id: str, entry: dict[str, Any], *, keep: bool) -> None:
        try:
            self.models[model_id] = model_of(self.manifest, model_id, entry)
        except ManifestError as error:
            # The service's word about its model is no use: what is known here is better.
            self.notes.append(f"{error.problems[0].what}; going on without it")
            return
        if keep:
            keep_published(self.ledger_dir / KEPT_FOLDER, model_id, entry)
