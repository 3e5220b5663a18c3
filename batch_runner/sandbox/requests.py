"""The requests that the sandbox has accepted, and the state of each.

Hides the file `requests.jsonl` and the arithmetic of a request's life. The file is append-only: one
`write` for each accepted or cancelled request, before it is answered. States are not stored. They
follow from the time, and from the start and end that a request was given when it was accepted: it
starts when it is ready, the one before it has started and one of `capacity` slots is free.

Always holds: everything that was answered is in the file, and a server that was killed resumes as
if it had never stopped. A torn last line was never answered and is cut off. One process at a time
owns a folder. Not promised: surviving a power failure (nothing is fsynced).
"""

from __future__ import annotations

import bisect
import fcntl
import hashlib
import heapq
import math
import os
import random
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import msgspec

from batch_runner.sandbox.options import SandboxOptions

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


class Request(msgspec.Struct, kw_only=True, omit_defaults=True, tag_field="record", tag="accepted"):
    """A POST that was accepted; times are epoch seconds.

    What follows after `error` is not in the file. `number` counts from 0; `earlier` is how often
    the same input was accepted before: each time gives other pictures.
    """

    accepted_at_s: float = msgspec.field(name="at_s")
    request_id: str
    model_id: str
    input: dict[str, Any]
    cost_usd: Decimal
    queue_s: float
    run_s: float
    stuck: bool = False
    error: RequestError | None = None
    number: int = 0
    starts_at_s: float = 0.0
    ends_at_s: float = 0.0
    earlier: int = 0
    cancelled_at_s: float | None = None


class _Cancelled(msgspec.Struct, frozen=True, tag_field="record", tag="cancelled"):
    at_s: float
    request_id: str


_Record = _Opened | Request | _Cancelled


@dataclass(frozen=True, kw_only=True)
class Life:
    """The state of a request at one moment; times are epoch seconds."""

    state: State
    queue_position: int | None
    finished_at: float | None


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
        self._starts_s: list[float] = []  # of all requests, rising
        self._slots_free_at_s: list[float] = []  # a heap with one number for each slot
        self._spent_usd = Decimal(0)
        self._refunds: list[tuple[float, int, Request]] = []  # a heap by time
        folder.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            # The system releases the folder however the process ends.
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._replay()
            opened = _Opened(_VERSION, now(), options.capacity)
            self._append(opened)
            self._apply(opened)
        except BlockingIOError as error:
            self.close()
            raise BlockingIOError(f"another sandbox is using {folder}") from error
        except BaseException:
            self.close()
            raise

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
        request = Request(
            accepted_at_s=self._now(),
            request_id=str(uuid.uuid4()),
            model_id=model_id,
            input=model_input,
            cost_usd=cost_usd,
            queue_s=round(draw.uniform(*self._options.queue_s), 6),
            run_s=round(draw.uniform(*self._options.run_s), 6),
            error=error,
            stuck=stuck,
        )
        self._append(request)
        self._apply(request)
        return request

    def cancel(self, request: Request) -> bool:
        """Cancel and refund a request; False if it is no longer queued. Its slot stays empty."""
        if self.observe(request).state != "in_queue":
            return False
        record = _Cancelled(self._now(), request.request_id)
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
        state: State
        position, finished_at = None, request.cancelled_at_s
        if finished_at is not None:
            state = "cancelled"
        elif request.starts_at_s > now:
            state = "in_queue"
            position = request.number - bisect.bisect_right(self._starts_s, now) + 1
        elif request.ends_at_s > now:
            state = "in_progress"
        else:
            state = "succeeded" if request.error is None else "failed"
            finished_at = request.ends_at_s
        return Life(state=state, queue_position=position, finished_at=finished_at)

    def compute_balance(self) -> Decimal:
        """Compute what is left. Failed and cancelled requests cost nothing."""
        now = self._now()
        while self._refunds and self._refunds[0][0] <= now:
            request = heapq.heappop(self._refunds)[2]
            if request.cancelled_at_s is None:
                self._spent_usd -= request.cost_usd
        return self._options.balance_usd - self._spent_usd

    def list_accepted(self) -> list[Request]:
        """List every accepted request, oldest first."""
        return list(self._requests.values())

    def _apply(self, record: _Record) -> None:
        """Apply a record, in the same way live and replayed."""
        match record:
            case _Opened(version=version) if version != _VERSION:
                raise ValueError(f"this program does not know version {version}")
            case _Opened():
                # With fewer slots than before, those that are free last remain.
                latest = heapq.nlargest(record.capacity, self._slots_free_at_s)
                self._slots_free_at_s = latest + [record.at_s] * (record.capacity - len(latest))
                heapq.heapify(self._slots_free_at_s)
            case Request():
                self._apply_accepted(record)
            case _Cancelled():
                request = self._requests[record.request_id]
                request.cancelled_at_s = record.at_s
                self._spent_usd -= request.cost_usd

    def _apply_accepted(self, request: Request) -> None:
        start = max(request.accepted_at_s + request.queue_s, self._slots_free_at_s[0])
        request.starts_at_s = max(start, self._starts_s[-1]) if self._starts_s else start
        request.ends_at_s = request.starts_at_s + request.run_s
        if request.stuck:
            request.ends_at_s = math.inf  # and it takes no slot from the others
        else:
            heapq.heapreplace(self._slots_free_at_s, request.ends_at_s)
        kind = hashlib.sha256(msgspec.json.encode([request.model_id, request.input])).digest()
        request.number, request.earlier = len(self._requests), self._inputs[kind]
        self._inputs[kind] += 1
        self._starts_s.append(request.starts_at_s)
        self._requests[request.request_id] = request
        self._spent_usd += request.cost_usd
        if request.error is not None:
            heapq.heappush(self._refunds, (request.ends_at_s, request.number, request))

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
