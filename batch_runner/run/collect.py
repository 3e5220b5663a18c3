"""From a request to its result: polled until it has ended, and its end recorded.

Hides when to poll and what each kind of answer means. What always holds: a request that is paid for
is given up only if the service says that it has ended, does not know it, or keeps giving the same
odd answer about it; otherwise the next run polls again.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime
from typing import Any

import msgspec

from batch_runner.ledger.job import JobState, Phase
from batch_runner.manifest.form import Retry
from batch_runner.pacing.polling import PollSchedule
from batch_runner.records import Cancelled, Failed, Job, Succeeded, redact_url, urls_in
from batch_runner.run.control import Control
from batch_runner.run.plan import Action
from batch_runner.service.answer import (
    NO_OUTPUT,
    SERVICE_ERROR,
    UNKNOWN_STATE,
    Meaning,
    Result,
    Verdict,
)
from batch_runner.text.quantity import duration_text

OUTPUTS_LIMIT = 64

_UNDER_WAY = (Meaning.WAITING, Meaning.RUNNING)
_ODD_ENDS = (NO_OUTPUT, UNKNOWN_STATE, SERVICE_ERROR)
_LEAST_ODD = 2
_ODD_PATIENCE = 5
"""An end without an output is final; an unknown state may be a new name for work under way."""


class OddAnswers:
    """The odd answers in a row about one request."""

    def __init__(self, retry: Retry) -> None:
        self._least = max(_LEAST_ODD, retry.attempts)
        self._patience_s = _ODD_PATIENCE * retry.max_wait_s
        self._last: tuple[object, ...] | None = None
        self._count = 0
        self._since = 0.0

    def is_final(self, verdict: Verdict, now: float) -> bool:
        """Count an odd answer; return True once it has come often enough to be believed."""
        state = verdict.message if verdict.reason == UNKNOWN_STATE else ""
        answer = (verdict.reason, verdict.code, state)
        if answer != self._last:
            self._last, self._count, self._since = answer, 0, now
        self._count += 1
        if self._count < self._least:
            return False
        return verdict.reason == NO_OUTPUT or now - self._since >= self._patience_s


class Results:
    """Collects results from the service."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._service = control.setting.batch.service
        self._pacer = control.pacer
        self._clock = control.setting.clock
        self._retry = control.setting.batch.manifest.retry
        # A film takes a hundred times as long as a picture: each model has its own usual duration.
        self.schedules: defaultdict[str, PollSchedule] = defaultdict(PollSchedule)
        self._moved_at = self._clock.monotonic()

    async def collect(
        self, job: Job, request_id: str, *, reattach: Action | None = None
    ) -> Result | None:
        """Poll until the request has ended; returns what it made, if it made something."""
        schedule, joined_at = self.schedules[job.model], self._clock.monotonic()
        wait_s = 0.0 if reattach is not None else schedule.wait_s(0.0)
        odd, sent = OddAnswers(self._retry), urls_in(job.input)
        seen, seen_at = None, joined_at
        polls, troubles, gone, asked_s = 0, 0, 0, 0.0
        while await self._turn_to_poll(wait_s):
            before_s, asked_s = asked_s, self._clock.monotonic() - joined_at
            verdict = await self._service.result(request_id, sent)
            polls += 1
            if polls == 1 and reattach is Action.COLLECT:
                self._control.count_reattached()
            wait_s = schedule.wait_s(self._clock.monotonic() - joined_at)
            gone = gone + 1 if verdict.meaning is Meaning.GONE else 0
            if verdict.meaning in _UNDER_WAY:
                self._pacer.reached()
                troubles = 0
                odd = OddAnswers(self._retry)  # only answers in a row count
                news = verdict.meaning, verdict.result and verdict.result.queue_position
                if news != seen:
                    seen, seen_at = news, self._clock.monotonic()
                    self._moved_at = seen_at
                elif self._is_stuck(job, verdict, seen_at):
                    break
                continue
            if verdict.meaning is Meaning.ODD:
                # The service answers, so this is no outage, and other jobs need not wait.
                self._pacer.reached()
                if odd.is_final(verdict, self._clock.monotonic()):
                    verdict = msgspec.structs.replace(verdict, meaning=Meaning.FAILED)
            if verdict.meaning is not Meaning.ODD:
                # Only if the service says it again and again, with nothing between, is it true.
                ended, result = self._record_end(job, request_id, verdict, gone or troubles + 1)
                if ended:
                    self._moved_at = self._clock.monotonic()
                    if result is not None and reattach is None:
                        schedule.learn(_duration_s(result, before_s, asked_s), polls)
                    return result
            troubles += 1
            wait_s = max(wait_s, self._pacer.backoff_s(troubles))
        self._control.leave_for_next_run(job)
        return None

    async def _turn_to_poll(self, wait_s: float) -> bool:
        """Wait so long, and then for a turn to poll; False if it is time to leave."""
        if wait_s > 0:
            await self._clock.wait(self._control.leaving, wait_s)
        await self._pacer.turn_to_poll(self._control.leaving)
        return not self._control.leaving.is_set()

    def _is_stuck(self, job: Job, verdict: Verdict, since: float) -> bool:
        """Report a request that shows no sign of life, and return True."""
        is_waiting = verdict.meaning is Meaning.WAITING
        # A waiting request needs no news of its own as long as the queue before it moves.
        silent_s = self._clock.monotonic() - (max(since, self._moved_at) if is_waiting else since)
        if silent_s <= self._retry.stuck_s:
            return False
        what = "in the queue" if is_waiting else "while running"
        self._control.notice(
            f"{job.key}: no progress {what} for {duration_text(silent_s)}; leaving it for the next"
            " run (it still counts against limits.in_flight)"
        )
        return True

    def _record_end(
        self, job: Job, request_id: str, verdict: Verdict, tries: int
    ) -> tuple[bool, Result | None]:
        """Record what an answer means: (whether this run is finished with it, what it made)."""
        about = {**self._control.about(job), "request_id": request_id}
        result = verdict.result or Result()
        given_up = tries >= self._retry.attempts
        if len(result.outputs) > OUTPUTS_LIMIT:
            self._control.notice(
                f"{job.key}: the answer names {len(result.outputs):,} outputs;"
                f" the first {OUTPUTS_LIMIT} are saved"
            )
        match verdict.meaning:
            case Meaning.SUCCEEDED:
                self._control.record(_succeeded(about, result))
            case Meaning.FAILED:
                self._control.fail(
                    job,
                    Failed(
                        **about,
                        reason=verdict.reason,
                        message=verdict.message,
                        cost_usd=result.cost_usd,
                    ),
                )
                return True, None
            case Meaning.CANCELLED:
                self._control.record(Cancelled(**about, cost_usd=result.cost_usd))
                self._control.count(job, "cancelled")
            case Meaning.GONE if given_up:
                message = "the service no longer knows the request; results are kept about 7 days"
                self._control.fail(job, Failed(**about, reason="expired", message=message))
            case Meaning.GONE:
                return False, None
            case _:
                self._control.after_trouble(verdict)
                if not given_up or verdict.meaning is Meaning.THROTTLED:
                    return False, None
                # It is paid for, so it stays in flight, and the next run polls again.
                self._control.notice(
                    f"{job.key}: {verdict.reason}: {verdict.message}; left for the next run"
                )
                self._control.leave_for_next_run(job)
                return True, None
        self._pacer.reached()
        return True, verdict.result if verdict.meaning is Meaning.SUCCEEDED else None

    async def came_after_all(self, job: Job, known: JobState) -> Result | None:
        """Poll once more, for free, for a job that odd answers ended."""
        request_id, is_odd = known.request_id, known.reason in _ODD_ENDS
        if known.phase is not Phase.FAILED or not is_odd or request_id is None:
            return None
        result = await self.fresh(job, request_id)
        if result is not None:
            about = {**self._control.about(job), "request_id": request_id}
            self._control.record(_succeeded(about, result))
        return result

    async def fresh(self, job: Job, request_id: str) -> Result | None:
        """Poll for the outputs again: their URLs may have expired."""
        await self._pacer.turn_to_poll(self._control.leaving)
        verdict = await self._service.result(request_id, urls_in(job.input))
        return verdict.result if verdict.meaning is Meaning.SUCCEEDED else None


def _succeeded(about: dict[str, Any], result: Result) -> Succeeded:
    return Succeeded(
        **about,
        outputs=[redact_url(url) for url in result.outputs[:OUTPUTS_LIMIT]],
        cost_usd=result.cost_usd,
        created_at=result.created_at,
        finished_at=result.finished_at,
    )


def _duration_s(result: Result, least_s: float, most_s: float) -> float:
    """Return how long a request took; it ended between two polls.

    The service's own times count, if it gives them: a schedule that learned from the times of its
    own polls would poll later and later.
    """
    try:
        created = datetime.fromisoformat(result.created_at or "")
        finished = datetime.fromisoformat(result.finished_at or "")
        took_s = (finished - created).total_seconds()
    except (ValueError, TypeError):
        took_s = (least_s + most_s) / 2
    return min(max(took_s, least_s), most_s)
