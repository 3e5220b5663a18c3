"""The requests that the sandbox has accepted, and the state of each.

Hides the file `requests.jsonl` and the arithmetic of a request's life. The file is append-only: one
`write` for each accepted or cancelled request, before it is answered. States are not stored. They
follow from the times, the durations drawn at acceptance, and the capacity at the time.

Always holds: everything that was answered is in the file, and a server that was killed resumes as
if it had never stopped. A torn last line was never answered and is cut off. One process at a time
owns a folder. Not promised: surviving a power failure (nothing is fsynced).
"""

from __future__ import annotations

import fcntl
import hashlib
import heapq
import math
import os
import random
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import msgspec

from batch_runner.sandbox.options import SandboxOptions
from batch_runner.sandbox.queueing import SimulatedQueue, Ticket

State = Literal["in_queue", "in_progress", "succeeded", "failed", "cancelled"]

_VERSION = 1


class RequestError(msgspec.Struct, frozen=True):
    """The `error` object of a request that fails."""

    code: str
    message: str


class _Opened(msgspec.Struct, frozen=True, tag_field="record", tag="opened"):
    version: int
    at_s: float
    capacity: int


class _Accepted(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    tag_field="record",
    tag="accepted",
):
    at_s: float
    request_id: str
    model_id: str
    input: dict[str, Any]
    cost_usd: Decimal
    queue_s: float
    run_s: float
    stuck: bool = False
    error: RequestError | None = None


class _Cancelled(msgspec.Struct, frozen=True, tag_field="record", tag="cancelled"):
    at_s: float
    request_id: str


_Record = _Opened | _Accepted | _Cancelled


@dataclass(frozen=True, kw_only=True)
class Life:
    """The state of a request at one moment; times are epoch seconds."""

    state: State
    queue_position: int | None
    finished_at: float | None


@dataclass(eq=False, kw_only=True)
class Request:
    """A POST that was accepted. `ticket` is its place in the queue.

    `earlier` is how often the same input was accepted before: each time gives other pictures.
    """

    request_id: str
    model_id: str
    input: dict[str, Any]
    cost_usd: Decimal
    error: RequestError | None
    accepted_at_s: float
    ticket: Ticket = field(repr=False)
    cancelled_at_s: float | None = None
    earlier: int = 0


class RequestBook:
    """All requests of one folder. Not thread-safe: one event loop owns it.

    Raises BlockingIOError if another process owns the folder, and ValueError (with FILE:LINE) if
    the file is damaged anywhere but at its end.
    """

    def __init__(self, folder: Path, options: SandboxOptions, now: Callable[[], float]) -> None:
        self._options = options
        self._now = now
        self._path = folder / "requests.jsonl"
        self._requests: dict[str, Request] = {}
        self._inputs: Counter[bytes] = Counter()
        self._to_refund: dict[int, Request] = {}  # by ticket: not started, and going to fail
        self._queue = SimulatedQueue(options.capacity)
        self._spent_usd = Decimal(0)
        self._refunds: list[tuple[float, int, Decimal]] = []  # a heap by time
        folder.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            _lock(self._descriptor, folder)
            self._replay()
            opened = _Opened(_VERSION, now(), options.capacity)
            self._append(opened)
            self._apply(opened)
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"RequestBook({str(self._path)!r}, {len(self._requests)} requests)"

    def close(self) -> None:
        """Release the folder."""
        os.close(self._descriptor)

    def accept(
        self,
        model_id: str,
        model_input: dict[str, Any],
        cost_usd: Decimal,
        *,
        error: RequestError | None = None,
        stuck: bool = False,
    ) -> Request:
        """Record a request and put it into the queue. Raises OSError if it cannot be written."""
        # Durations depend on the line number, not on the id, so that with the same seed every
        # rehearsal in a fresh folder takes the same times.
        draw = random.Random(f"{self._options.seed}/{len(self._requests)}")
        record = _Accepted(
            at_s=self._now(),
            request_id=str(uuid.uuid4()),
            model_id=model_id,
            input=model_input,
            cost_usd=cost_usd,
            queue_s=round(draw.uniform(*self._options.queue_s), 6),
            run_s=round(draw.uniform(*self._options.run_s), 6),
            error=error,
            stuck=stuck,
        )
        self._append(record)
        self._apply(record)
        return self._requests[record.request_id]

    def cancel(self, request: Request) -> bool:
        """Cancel and refund a request; False if it is no longer queued."""
        now = self._now()
        self._advance(now)
        if self._queue.find_position(request.ticket) is None:
            return False
        record = _Cancelled(now, request.request_id)
        self._append(record)
        self._apply(record)
        return True

    @property
    def last_request_id(self) -> str | None:
        """The request_id of the last accepted request, if any."""
        return next(reversed(self._requests), None)

    def find(self, request_id: str) -> Request | None:
        """Find a request by its request_id."""
        return self._requests.get(request_id)

    def observe(self, request: Request) -> Life:
        """Return the state of a request."""
        now = self._now()
        self._advance(now)
        ends_at = request.ticket.ends_at
        finished_at = request.cancelled_at_s
        state: State
        if finished_at is not None:
            state = "cancelled"
        elif request.ticket.started_at is None or request.ticket.started_at > now:
            state = "in_queue"
        elif ends_at > now:
            state = "in_progress"
        else:
            finished_at = ends_at
            state = "succeeded" if request.error is None else "failed"
        return Life(
            state=state,
            queue_position=self._queue.find_position(request.ticket),
            finished_at=finished_at,
        )

    def compute_balance(self) -> Decimal:
        """Compute what is left. Failed and cancelled requests cost nothing."""
        now = self._now()
        self._advance(now)
        while self._refunds and self._refunds[0][0] <= now:
            self._spent_usd -= heapq.heappop(self._refunds)[2]
        return self._options.balance_usd - self._spent_usd

    def list_accepted(self) -> list[Request]:
        """List every accepted request, oldest first."""
        return list(self._requests.values())

    def _advance(self, now: float) -> None:
        for ticket in self._queue.advance(now):
            request = self._to_refund.pop(ticket.number, None)
            if request is not None and math.isfinite(ticket.ends_at):
                refund = (ticket.ends_at, ticket.number, request.cost_usd)
                heapq.heappush(self._refunds, refund)

    def _apply(self, record: _Record) -> None:
        """Advance to a record's time and apply it, in the same way live and replayed."""
        self._advance(record.at_s)
        match record:
            case _Opened(version=version) if version != _VERSION:
                raise ValueError(f"this program does not know version {version}")
            case _Opened():
                self._queue.capacity = record.capacity
            case _Accepted():
                self._apply_accepted(record)
            case _Cancelled():
                request = self._requests[record.request_id]
                self._queue.leave(request.ticket)
                self._to_refund.pop(request.ticket.number, None)
                request.cancelled_at_s = record.at_s
                self._spent_usd -= request.cost_usd

    def _apply_accepted(self, record: _Accepted) -> None:
        run_s = math.inf if record.stuck else record.run_s
        kind = hashlib.sha256(msgspec.json.encode([record.model_id, record.input])).digest()
        request = Request(
            request_id=record.request_id,
            model_id=record.model_id,
            input=record.input,
            cost_usd=record.cost_usd,
            error=record.error,
            accepted_at_s=record.at_s,
            ticket=self._queue.join(record.at_s + record.queue_s, run_s),
            earlier=self._inputs[kind],
        )
        self._inputs[kind] += 1
        self._requests[request.request_id] = request
        self._spent_usd += request.cost_usd
        if request.error is not None:
            self._to_refund[request.ticket.number] = request

    def _append(self, record: _Record) -> None:
        line = msgspec.json.encode(record) + b"\n"
        if os.write(self._descriptor, line) != len(line):
            raise OSError(f"{self._path}: the request was only partly written; is the disk full?")

    def _replay(self) -> None:
        content = self._path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.ftruncate(self._descriptor, whole)
        decoder = msgspec.json.Decoder(_Record)
        for number, line in enumerate(content[:whole].splitlines(), start=1):
            try:
                record = decoder.decode(line)
                self._apply(record)
            except (msgspec.DecodeError, ValueError, KeyError) as error:
                raise ValueError(f"{self._path}:{number}: damaged: {error}") from error


def _lock(descriptor: int, folder: Path) -> None:
    """Take the folder for this process; the system releases it however the process ends."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise BlockingIOError(f"another sandbox is using {folder}") from error
