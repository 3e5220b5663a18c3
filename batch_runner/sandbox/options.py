"""The settings of a sandbox: how fast, how expensive and how unreliable it is.

Always holds: the faults and times are valid once options exist, or building them is a ValueError.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from batch_runner.sandbox.faults import parse_faults


@dataclass(frozen=True, kw_only=True)
class SandboxOptions:
    """The settings of one sandbox. Times are seconds, money is US dollars."""

    capacity: int = 8
    """Requests in progress at once; the others wait in a queue, with positions."""
    queue_s: tuple[float, float] = (0.0, 0.2)
    """Least and most extra time before a request may start."""
    run_s: tuple[float, float] = (0.3, 1.2)
    """Least and most time of work, drawn per request from the seed."""
    submits_per_s: int | None = None
    """More POSTs than this are answered with 429; None is no limit."""
    balance_usd: Decimal = Decimal(10_000)
    """Play money, enough to rehearse 200,000 pictures. It may start negative, as an account can."""
    price_usd: Decimal | None = None
    """Price of one output, for every model."""
    token: str | None = None
    """The only valid token; None accepts any, but there must be one."""
    schemas: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Input schemas of further models to serve, by model_id."""
    faults: str = ""
    """For example "lost-answer=5%,error-500=2%"; the names are in `faults.FAULTS`."""
    slow_answer_s: float = 2.0
    """The delay of the fault slow-answer."""
    seed: int = 0
    pictures: bool = True
    """False serves small swatches instead of pictures, to rehearse thousands of jobs."""

    def __post_init__(self) -> None:
        for name in ("queue_s", "run_s"):
            least, most = getattr(self, name)
            if not 0 <= least <= most:
                raise ValueError(f"{name} must be a least and a most, not {least} and {most}")
        parse_faults(self.faults)
