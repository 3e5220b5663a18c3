"""The requests that the sandbox has accepted, and the state of each.

Hides the file `requests.jsonl` and the arithmetic of a request's life. The file is append-only: one
`write` for each accepted or cancelled request, before it is answered. States are not stored. They
follow from the time: a request starts when the one before it has started and one of `capacity`
slots is free, and runs as long as was drawn for it.

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
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from batch_runner.sandbox.faults import parse_faults

State = Literal["in_queue", "in_progress", "succeeded", "failed", "cancelled"]


@dataclass(frozen=True, kw_only=True)
class SandboxOptions:
    """The settings of one sandbox. Times are seconds, money is US dollars."""

    capacity: int = 8
    """Requests in progress at once; the others wait in a queue, with positions."""
    run_s: tuple[float, float] = (0.3, 1.2)
    """Least and most time of work, drawn per request from the seed."""
    submits_per_s: int | None = None
    """More POSTs than this are answered with 429; None is no limit."""
    balance_usd: Decimal = Decimal(10_000)
    """Play money, enough to rehearse 200,000 pictures. It may start negative, as an account can."""
    token: str | None = None
    """The only valid token; None accepts any, but there must be one."""
    schemas: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Input schemas of further models to serve, by model_id."""
    faults: str = ""
    """For example "lost-answer=5%,error-500=2%"; the names are in `faults.FAULTS`."""
    seed: int = 0
    pictures: bool = True
    """False serves small swatches instead of pictures, to rehearse thousands of jobs."""

    def __post_init__(self) -> None:
        parse_faults(self.faults)


class RequestError(msgspec.Struct, frozen=True):
    """The `error` object of a request that fails."""

    code: str
    message: str


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


class Life(NamedTuple):
    """The state of a request at one moment; times are epoch seconds."""

    state: State
    queue_position: int | None = None
    finished_at: float | None = None


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
        self._slots_free_at_s = [0.0] * options.capacity  # a heap
        self._spent_usd = Decimal(0)
        folder.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            # The system releases the folder however the process ends.
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._replay()
        except BaseException as error:
            self.close()
            if isinstance(error, BlockingIOError):
                raise BlockingIOError(f"another sandbox is using {folder}") from error
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
            cost_usd=cost_usd if error is None else Decimal(0),
            run_s=round(draw.uniform(*self._options.run_s), 6),
            error=error,
            stuck=stuck,
        )
        self._append(request)
        return request

    def cancel(self, request: Request) -> bool:
        """Cancel a request; False if it is no longer queued. Its slot stays empty."""
        is_queued = self.observe(request).state == "in_queue"
        if is_queued:
            self._append(_Cancelled(self._now(), request.request_id))
        return is_queued

    @property
    def last_request_id(self) -> str | None:
        """The request_id of the last accepted request, if any."""
        return next(reversed(self._requests), None)

    @property
    def balance_usd(self) -> Decimal:
        """What is left. Failed and cancelled requests cost nothing."""
        return self._options.balance_usd - self._spent_usd

    def find(self, request_id: str) -> Request | None:
        """Find a request by its request_id."""
        return self._requests.get(request_id)

    def observe(self, request: Request) -> Life:
        """Return the state of a request."""
        now = self._now()
        if request.cancelled_at_s is not None:
            return Life("cancelled", finished_at=request.cancelled_at_s)
        if request.starts_at_s > now:
            return Life("in_queue", request.number - bisect.bisect_right(self._starts_s, now) + 1)
        if request.ends_at_s > now:
            return Life("in_progress")
        ended: State = "succeeded" if request.error is None else "failed"
        return Life(ended, finished_at=request.ends_at_s)

    def list_accepted(self) -> list[Request]:
        """List every accepted request, oldest first."""
        return list(self._requests.values())

    def _append(self, record: Request | _Cancelled) -> None:
        line = msgspec.json.encode(record) + b"\n"
        if os.write(self._descriptor, line) != len(line):
            raise OSError(f"{self._path}: the request was only partly written; is the disk full?")
        self._apply(record)

    def _apply(self, record: Request | _Cancelled) -> None:
        """Apply a record, in the same way live and replayed."""
        if isinstance(record, _Cancelled):
            request = self._requests[record.request_id]
            request.cancelled_at_s = record.at_s
            self._spent_usd -= request.cost_usd
            return
        start = max(record.accepted_at_s, self._slots_free_at_s[0], *self._starts_s[-1:])
        record.starts_at_s, record.ends_at_s = start, start + record.run_s
        if record.stuck:
            record.ends_at_s = math.inf  # and it takes no slot from the others
        else:
            heapq.heapreplace(self._slots_free_at_s, record.ends_at_s)
        kind = hashlib.sha256(msgspec.json.encode([record.model_id, record.input])).digest()
        record.number, record.earlier = len(self._requests), self._inputs[kind]
        self._inputs[kind] += 1
        self._starts_s.append(start)
        self._requests[record.request_id] = record
        self._spent_usd += record.cost_usd

    def _replay(self) -> None:
        content = self._path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.ftruncate(self._descriptor, whole)
        decode = msgspec.json.Decoder(Request | _Cancelled).decode
        for number, line in enumerate(content[:whole].splitlines(), start=1):
            if line.startswith(b'{"record":"opened"'):
                continue  # earlier releases wrote it
            try:
                self._apply(decode(line))
            except (msgspec.DecodeError, ValueError, KeyError) as error:
                raise ValueError(f"{self._path}:{number}: damaged: {error}") from error
