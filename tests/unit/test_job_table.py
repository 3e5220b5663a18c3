"""Finished jobs as rows: whoever looks sees what was put in."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from batch_runner.ledger.job import JobState, Phase
from batch_runner.ledger.job_table import Jobs
from batch_runner.records import SavedFile

_TEXT = st.text(max_size=8)
_HEX = st.binary(max_size=4).map(bytes.hex)
# What looks nearly like hexadecimal must come back as it was: blanks, capitals, half a byte.
_NAME = st.one_of(_TEXT, _HEX, st.sampled_from(["AB", "a b", "ab ", "abc", " ", ""]))
_FILE = st.builds(
    SavedFile,
    path=st.one_of(_TEXT, st.sampled_from(["a/b.png", "a/b-2.png", "a/b"])),
    size_bytes=st.integers(0, 2**40),
    sha256=_NAME,
    media_type=st.sampled_from(["image/png", "video/mp4"]),
)
_FILES = st.lists(_FILE, max_size=3).map(tuple)
_JOB = st.builds(
    JobState,
    key=st.one_of(_NAME, st.sampled_from("kl")),
    fingerprint=st.one_of(_NAME, st.sampled_from("fg")),
    phase=st.sampled_from([Phase.DONE, Phase.IN_FLIGHT, Phase.FAILED]),
    path=st.one_of(_TEXT, st.just("a/b")),
    model=st.sampled_from(["one/model", "another/model"]),
    request_id=st.none() | _NAME,
    reserved_usd=st.none() | st.just(Decimal("0.05")),
    spent_usd=st.decimals(0, 100, places=3),
    reason=st.none() | st.just("why"),
    message=st.none(),
    again=st.booleans(),
    intent_offset_bytes=st.integers(0, 2**40),
    files=_FILES,
    copies=st.lists(_FILES, max_size=2).map(tuple),
)


class PlainJobs:
    """The same, as dictionaries."""

    def __init__(self) -> None:
        self.jobs: dict[str, JobState] = {}
        self.names: dict[str, str] = {}

    def put(self, job: JobState) -> None:
        self.jobs[job.fingerprint] = job
        self.names[job.key] = job.fingerprint


def put(jobs: Jobs, job: JobState) -> None:
    """Put a job in as the ledger does: open, asked for under its key, then perhaps finished."""
    jobs.take(job.fingerprint)
    jobs.open[job.fingerprint] = job
    jobs.names[job.key] = job.fingerprint
    jobs.put_away(job)


@given(steps=st.lists(st.tuples(_JOB, st.booleans()), max_size=30))
def test_packed_jobs_look_like_the_plain_ones_whatever_is_put_in_and_taken_out(
    steps: list[tuple[JobState, bool]],
) -> None:
    jobs, plain = Jobs(), PlainJobs()
    for job, is_reopened in steps:
        put(jobs, job)
        plain.put(job)
        if is_reopened:
            taken = jobs.take(job.fingerprint)
            assert taken == job
            assert taken is jobs.open[job.fingerprint]
    assert len(jobs) == len(plain.jobs)
    assert {one.fingerprint: one for one in jobs.each()} == plain.jobs
    assert {key: jobs.last_fingerprint(key) for key in plain.names} == plain.names
    for one in jobs.each():
        assert (jobs.last_fingerprint(one.key) == one.fingerprint) is (
            plain.names[one.key] == one.fingerprint
        )
    assert jobs.finished + len(jobs.open) == len(jobs)
    finished = [one for one in jobs.each() if one.fingerprint not in jobs.open]
    assert list(jobs.finished_files()) == [list(one.files) for one in finished]


def test_what_is_finished_is_packed_and_what_is_open_is_not() -> None:
    jobs = Jobs()
    for number in range(20_001):
        put(jobs, JobState(f"key {number}", f"{number:064x}", phase=Phase.DONE, path=f"p/{number}"))
    open_job = JobState("open", "f", phase=Phase.IN_FLIGHT, request_id="r")
    put(jobs, open_job)
    assert list(jobs.open.values()) == [open_job]
    assert jobs.names == {"open": "f"}, "the packed ones say themselves what their key stands for"
    assert jobs.get(f"{7:064x}") == JobState("key 7", f"{7:064x}", phase=Phase.DONE, path="p/7")
    assert jobs.get("never seen") is None
    assert "never seen" not in jobs
    assert jobs.last_fingerprint("never seen") is None


def test_a_change_is_kept_only_of_what_was_taken() -> None:
    jobs = Jobs()
    put(jobs, JobState("k", "f", phase=Phase.DONE))
    jobs["f"].path = "changed in a copy"
    assert jobs["f"].path == ""
    taken = jobs.take("f")
    assert taken is not None
    taken.path = "changed"
    jobs.put_away(taken)
    assert jobs["f"].path == "changed"
    assert (len(jobs), jobs.finished) == (1, 1)
