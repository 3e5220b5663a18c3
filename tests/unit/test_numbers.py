"""How many pictures people accept: counts, rates, and what an accepted one costs."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from batch_runner.ledger.job import Standing
from batch_runner.ledger.verdict import Reviewed, Word
from batch_runner.records import Job, SavedFile
from batch_runner.report.details import JobDetails
from batch_runner.report.numbers import interval, numbers, numbers_text

AT = datetime(2026, 3, 2, tzinfo=UTC)


def details(
    key: str, *words: Word | None, prompt: str = "white", repeat: int = 1, redo: int = 0
) -> JobDetails:
    job = Job(
        key=key,
        fingerprint=key,
        model="m",
        input={},
        path=key,
        image_id=key.partition("/")[0],
        prompt_id=prompt,
        repeat=repeat,
        redo=redo,
    )
    reviewed = [
        None
        if word is None
        else Reviewed(at=AT, job=key, fingerprint=key, sha256="0", word=word, reason="cut off")
        for word in words
    ]
    file = SavedFile(path=key, size_bytes=1, sha256="0", media_type="image/png")
    return JobDetails(
        job=job,
        standing=Standing.DONE,
        prompt="",
        sources=(),
        fetchable=(),
        local={},
        inputs={},
        cells={},
        files=(file,) * len(words),
        reviewed=tuple(reviewed),
    )


def test_pictures_are_counted_by_verdict_prompt_and_reason() -> None:
    jobs = [
        details("mug/white", Word.ACCEPTED),
        details("lamp/white", Word.REJECTED),
        details("chair/white", None),
        details("mug/beach", Word.ACCEPTED, Word.REDO, prompt="beach"),
        details("lamp/beach", Word.ACCEPTED, prompt="beach", redo=2),
        details("pot/beach", prompt="beach"),
    ]
    found = numbers(jobs, Decimal("0.60"))
    assert (found.accepted, found.rejected, found.waiting) == (3, 4, 1)
    assert found.usd_per_accepted == Decimal("0.2")
    assert found.reasons == {"cut off": 2}
    white, beach = found.parts["white", "m"], found.parts["beach", "m"]
    assert (white.accepted, white.rejected, white.waiting) == (1, 1, 1)
    assert (beach.accepted, beach.rejected, beach.waiting) == (2, 3, 0)
    text = numbers_text(found)
    assert "accepted          3   43% of what was judged (90 % interval: " in text
    assert "0.2000 USD per accepted picture" in text
    assert "    beach · m: 40% of what was judged" in text


def test_one_accepted_repeat_settles_the_others() -> None:
    jobs = [details(f"mug/white/{n}", None, repeat=n) for n in (1, 3)]
    jobs.insert(1, details("mug/white/2", Word.ACCEPTED, repeat=2))
    assert numbers(jobs, Decimal(1)).waiting == 0
    jobs[1] = details("mug/white/2", Word.REJECTED, repeat=2)
    assert numbers(jobs, Decimal(1)).waiting == 2


def test_nothing_is_claimed_before_anything_was_judged() -> None:
    found = numbers([details("mug/white", None)], Decimal(1))
    assert found.usd_per_accepted is None
    assert numbers_text(found) == ""
    assert interval(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("accepted", "rejected", "low", "high"),
    # From the textbook's formula, which is written differently.
    [(8, 2, 0.5408, 0.9315), (0, 10, 0.0, 0.2130), (60, 40, 0.5179, 0.6769), (1, 0, 0.2699, 1.0)],
)
def test_the_interval_is_wilsons(accepted: int, rejected: int, low: float, high: float) -> None:
    assert interval(accepted, rejected) == pytest.approx((low, high), abs=5e-4)
