from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_runner.ledger.job import JobState, Phase, Standings
from batch_runner.ledger.state import State
from batch_runner.records import Job, Saved, SavedFile, Submitting
from batch_runner.run.plan import (
    Action,
    Planned,
    changed_addresses,
    decide,
    numbered,
    plan,
    reusable,
    wanted_paths,
)
from batch_runner.run.survey import Survey
from batch_runner.text.path import superseded_path

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)


class Disk:
    """A folder as planning sees it: a path holds a file by name, and perhaps damaged."""

    def __init__(self, **files: str) -> None:
        self.files = {path.replace("_", "."): sha256 for path, sha256 in files.items()}
        self.asked: list[tuple[str, bool]] = []

    def __call__(self, path: str, saved: SavedFile, *, thorough: bool) -> bool:
        self.asked.append((path, thorough))
        there = self.files.get(path)
        return there is not None and (not thorough or there == saved.sha256)


EMPTY = Disk()


def job(key: str = "a", fingerprint: str = "f", path: str | None = None) -> Job:
    return Job(key=key, fingerprint=fingerprint, model="m", input={}, path=path or key)


def file(path: str = "a.png", sha256: str = "sha-of-f") -> SavedFile:
    return SavedFile(path=path, size_bytes=1, sha256=sha256, media_type="image/png")


def state_with(*jobs: JobState) -> State:
    state = State()
    for known in jobs:
        state.jobs.open[known.fingerprint] = known
        state.jobs.names[known.key] = known.fingerprint
    return state


def known(phase: Phase, **fields: Any) -> JobState:
    return JobState("a", "f", phase=phase, request_id="r", **fields)


FAILED: dict[str, Any] = {"reason": "content refused"}
DONE: dict[str, Any] = {"files": (file(),)}
IN_PLACE = Disk(a_png="sha-of-f")
REPLACED = Disk(a_png="sha-of-another")
S, C, D, K, H = Action.SUBMIT, Action.COLLECT, Action.DOWNLOAD, Action.SKIP, Action.HOLD
UNKNOWN_AGAIN = "retry of an unknown one"
FAILED_AGAIN = "retry of a failed one"

# phase, fields, retry, disk -> action, reason
TABLE: list[tuple[Phase, dict[str, Any], tuple[str, ...], Disk, Action, str]] = [
    (Phase.SUBMITTING, {}, (), EMPTY, H, "unknown"),
    (Phase.SUBMITTING, {}, ("failed",), EMPTY, H, "unknown"),
    (Phase.SUBMITTING, {}, ("unknown",), EMPTY, S, UNKNOWN_AGAIN),
    (Phase.SUBMITTING, {}, ("all",), EMPTY, S, UNKNOWN_AGAIN),
    (Phase.UNKNOWN, {}, (), EMPTY, H, "unknown"),
    (Phase.UNKNOWN, {}, ("failed",), EMPTY, H, "unknown"),
    (Phase.UNKNOWN, {}, ("unknown",), EMPTY, S, UNKNOWN_AGAIN),
    (Phase.UNKNOWN, {}, ("failed", "unknown"), EMPTY, S, UNKNOWN_AGAIN),
    (Phase.UNKNOWN, {}, ("all",), EMPTY, S, UNKNOWN_AGAIN),
    *((Phase.IN_FLIGHT, {}, r, EMPTY, C, "a request is waiting") for r in [(), ("all",)]),
    *((Phase.SUCCEEDED, {}, r, EMPTY, D, "file missing") for r in [(), ("all",)]),
    (Phase.RELEASED, {}, (), EMPTY, S, "resolved"),
    *(
        (Phase.CANCELLED, {"reason": "abandoned"}, r, EMPTY, H, "abandoned")
        for r in [(), ("failed",)]
    ),
    (Phase.CANCELLED, {"reason": "abandoned"}, ("unknown",), EMPTY, S, "retry of an abandoned one"),
    (Phase.REFUSED, {"again": True}, (), EMPTY, S, "refused earlier"),
    (Phase.REFUSED, {"again": False, "reason": "input refused"}, (), EMPTY, H, "input refused"),
    (Phase.REFUSED, {"again": False}, ("unknown",), EMPTY, H, "refused"),
    (Phase.REFUSED, {"again": False}, ("failed",), EMPTY, S, FAILED_AGAIN),
    (Phase.REFUSED, {"again": False}, ("all",), EMPTY, S, FAILED_AGAIN),
    (Phase.FAILED, FAILED, (), EMPTY, H, "content refused"),
    (Phase.FAILED, {}, (), EMPTY, H, "failed"),
    (Phase.FAILED, FAILED, ("unknown",), EMPTY, H, "content refused"),
    (Phase.FAILED, FAILED, ("failed",), EMPTY, S, FAILED_AGAIN),
    (Phase.FAILED, FAILED, ("all",), EMPTY, S, FAILED_AGAIN),
    (Phase.CANCELLED, {"reason": "cancelled"}, (), EMPTY, H, "cancelled"),
    (Phase.CANCELLED, {}, ("failed",), EMPTY, S, FAILED_AGAIN),
    (Phase.CANCELLED, {}, ("all",), EMPTY, S, FAILED_AGAIN),
    *((Phase.DONE, DONE, r, IN_PLACE, K, "done") for r in [(), ("failed",), ("all",)]),
    *((Phase.DONE, DONE, r, EMPTY, D, "file missing or damaged") for r in [(), ("all",)]),
]


@pytest.mark.parametrize(("phase", "fields", "retry", "disk", "action", "reason"), TABLE)
def test_every_phase_has_its_action_and_its_reason(
    phase: Phase,
    fields: dict[str, Any],
    retry: tuple[str, ...],
    disk: Disk,
    action: Action,
    reason: str,
) -> None:
    state = state_with(known(phase, **fields))
    planned = decide(job(), state, disk, retry=retry)
    assert (planned.action, planned.reason, planned.state) == (action, reason, state.job("f"))


def test_the_table_above_has_a_row_for_every_phase() -> None:
    assert {row[0] for row in TABLE} == set(Phase)


def test_a_job_that_was_never_seen_is_new_and_an_edited_one_is_changed() -> None:
    assert decide(job(), State(), EMPTY) == Planned(job(), Action.SUBMIT, "new")
    state = state_with(known(Phase.DONE, **DONE))
    edited = job(fingerprint="edited")
    assert decide(edited, state, IN_PLACE) == Planned(edited, Action.SUBMIT, "changed")


# Files


def test_the_size_is_enough_for_a_file_under_its_own_name() -> None:
    disk = Disk(a_png="sha-of-f")
    decide(job(), state_with(known(Phase.DONE, **DONE)), disk)
    assert disk.asked == [("a.png", False)]


def test_a_renamed_job_reuses_the_files_that_were_bought_under_its_old_name() -> None:
    state = state_with(known(Phase.DONE, **DONE))
    planned = decide(job("b"), state, IN_PLACE)
    assert (planned.action, planned.reason) == (Action.REUSE, "same as a")


def test_a_renamed_job_whose_files_already_stand_under_the_new_name_is_done() -> None:
    state = state_with(known(Phase.DONE, **DONE))
    planned = decide(job("b"), state, Disk(b_png="sha-of-f"))
    assert (planned.action, planned.reason) == (Action.SKIP, "done")


def test_another_file_under_the_new_name_is_told_by_its_hash() -> None:
    state = state_with(known(Phase.DONE, **DONE))
    planned = decide(job("b"), state, Disk(a_png="sha-of-f", b_png="sha-of-another"))
    assert planned.action is Action.REUSE


def test_nor_is_another_file_taken_for_ours_where_only_the_path_has_changed() -> None:
    state = state_with(known(Phase.DONE, **DONE))
    disk = Disk(a_png="sha-of-f", moved_png="sha-of-another")
    assert decide(job("a", path="moved"), state, disk).action is Action.REUSE


def reverted() -> State:
    """Return the state after: bought f, edited the prompt, bought g, which took f's name."""
    state = State()
    for fingerprint in ("f", "g"):
        about: dict[str, Any] = {"at": NOW, "job": "a", "fingerprint": fingerprint}
        state.apply(Submitting(**about, model="m", input={}, path="a", attempt=1))
        state.apply(Saved(**about, files=[file(sha256=f"sha-of-{fingerprint}")]))
    return state


def test_a_reverted_prompt_gets_its_files_back_from_where_they_were_set_aside() -> None:
    disk = Disk(a_png="sha-of-g")
    disk.files[superseded_path("a.png", "sha-of-f")] = "sha-of-f"
    assert decide(job(fingerprint="f"), reverted(), disk).action is Action.REUSE
    assert decide(job(fingerprint="g"), reverted(), disk).action is Action.SKIP


def test_a_reverted_prompt_whose_files_are_gone_is_downloaded_and_not_bought() -> None:
    planned = decide(job(fingerprint="f"), reverted(), Disk(a_png="sha-of-g"), retry=("all",))
    assert (planned.action, planned.reason) == (Action.DOWNLOAD, "file missing or damaged")


def test_one_of_several_files_missing_means_a_download_of_all() -> None:
    several = known(Phase.DONE, files=(file("a.png", "1"), file("a-2.png", "2")))
    disk = Disk()
    disk.files = {"a.png": "1", "a-2.png": "2"}
    assert decide(job(), state_with(several), disk).action is Action.SKIP
    assert decide(job("b"), state_with(several), disk).action is Action.REUSE
    del disk.files["a-2.png"]
    assert decide(job(), state_with(several), disk).action is Action.DOWNLOAD


def test_files_are_reused_from_where_they_stand_now() -> None:
    aside = superseded_path("a-2.png", "2")
    disk = Disk(a_png="1")
    disk.files |= {"a-2.png": "another", aside: "2"}
    found = reusable(known(Phase.DONE, files=(file("a.png", "1"), file("a-2.png", "2"))), disk)
    assert found == [file("a.png", "1"), file(aside, "2")]
    assert reusable(known(Phase.DONE, files=(file("a.png", "other"),)), disk) is None
    copied = known(Phase.DONE, files=(file("b.png", "gone"),), copies=((file("a.png", "1"),),))
    assert reusable(copied, disk) == [file("a.png", "1")]
    assert all(thorough for _, thorough in disk.asked), "only the hash tells"


def test_wanted_paths_take_the_number_from_the_job_and_the_extension_from_the_file() -> None:
    files = [file("x/a.png"), file("x/a-2.webp")]
    assert wanted_paths(job(path="y/b.v2"), files) == ["y/b.v2.png", "y/b.v2-2.webp"]
    assert numbered("a", 3) == "a-3"


# The whole plan


def test_a_twin_is_bought_once_and_reused() -> None:
    jobs = [job("a"), job("b"), job("c", "other")]
    planned = list(plan(jobs, State(), EMPTY))
    assert [(one.job.key, one.action, one.reason) for one in planned] == [
        ("a", Action.SUBMIT, "new"),
        ("b", Action.REUSE, "same as another job"),
        ("c", Action.SUBMIT, "new"),
    ]


def test_a_twin_of_a_finished_job_is_looked_at_on_its_own() -> None:
    state = state_with(known(Phase.DONE, **DONE))
    planned = plan([job("a"), job("b")], state, IN_PLACE)
    assert [one.action for one in planned] == [Action.SKIP, Action.REUSE]
    both = Disk(a_png="sha-of-f", b_png="sha-of-f")
    planned = plan([job("a"), job("b")], state, both)
    assert [one.action for one in planned] == [Action.SKIP, Action.SKIP]


@pytest.mark.parametrize("phase", sorted(set(Phase) - {Phase.DONE}))
def test_a_twin_never_leads_to_a_second_submit(phase: Phase) -> None:
    state = state_with(known(phase, again=True))
    twins = list(plan([job("a"), job("b")], state, EMPTY, retry=("all",)))
    assert twins[1].action is Action.REUSE


PHASES = st.sampled_from(Phase)
RETRIES = st.sets(st.sampled_from(("failed", "unknown", "all")))
DISKS = st.sampled_from([EMPTY, IN_PLACE, REPLACED])
BOUGHT = (Phase.IN_FLIGHT, Phase.SUCCEEDED, Phase.DONE)


@given(PHASES, RETRIES, DISKS, st.booleans(), st.sampled_from(["a", "b"]))
def test_what_may_have_been_bought_is_never_submitted_without_a_persons_word(
    phase: Phase, retry: set[str], disk: Disk, again: bool, key: str
) -> None:
    files = (file(),) if phase is Phase.DONE else ()
    state = state_with(known(phase, again=again, files=files))
    planned = list(plan([job(key), job("twin")], state, disk, retry=retry))
    submits = [one for one in planned if one.action is Action.SUBMIT]
    assert len(submits) <= 1
    if phase in BOUGHT:
        assert not submits, "there is nothing that makes buying it again right"
    if submits and phase in (Phase.UNKNOWN, Phase.SUBMITTING):
        assert retry & {"unknown", "all"}
    if submits and phase in (Phase.FAILED, Phase.CANCELLED):
        assert retry & {"failed", "all"}
    if submits and phase is Phase.REFUSED and not again:
        assert retry & {"failed", "all"}


# The survey


def planned(action: Action, reason: str, name: str = "a", state: JobState | None = None) -> Planned:
    return Planned(job(name, f"fingerprint of {name}"), action, reason, state)


def test_a_survey_adds_up_jobs_reasons_examples_and_money() -> None:
    survey = Survey()
    for number in range(5):
        survey.add(planned(Action.SUBMIT, "new", f"new {number}"), Decimal("0.08"))
    survey.add(planned(Action.REUSE, "same as x", "r1"), Decimal("0.08"))
    survey.add(planned(Action.REUSE, "same as another job", "r2"), Decimal("0.08"))
    survey.add(planned(Action.SKIP, "done", "s"), Decimal("0.08"))
    survey.add(planned(Action.COLLECT, "a request is waiting", "c"), Decimal("0.08"))
    survey.add(planned(Action.DOWNLOAD, "file missing", "d"), Decimal("0.08"))
    assert survey.standings.jobs == 10
    assert sum(survey.counts.values()) == sum(survey.reasons.values()) == survey.standings.jobs
    assert survey.reasons[Action.SUBMIT, "new"] == 5
    assert survey.reasons[Action.REUSE, "bought under another name"] == 2
    assert survey.examples[Action.SUBMIT, "new"] == ["new 0", "new 1", "new 2"]
    assert survey.cost_usd == Decimal("0.40")
    assert set(survey.waiting) == {"fingerprint of c", "fingerprint of d"}
    assert survey.standings == Standings(jobs=10, pending=10)


def test_one_submit_without_a_price_makes_the_cost_unknown_for_good() -> None:
    survey = Survey()
    survey.add(planned(Action.SKIP, "done"), None)
    assert survey.cost_usd == 0
    for estimate_usd in (Decimal(1), None, Decimal(1)):
        survey.add(planned(Action.SUBMIT, "new"), estimate_usd)
    assert survey.cost_usd is None


def test_held_jobs_are_unknown_or_failed_by_their_phase_whatever_the_service_called_it() -> None:
    survey = Survey()
    for phase in (Phase.UNKNOWN, Phase.SUBMITTING):
        survey.add(planned(Action.HOLD, "unknown", state=known(phase)), None)
    for phase in (Phase.FAILED, Phase.REFUSED, Phase.CANCELLED):
        survey.add(planned(Action.HOLD, "unknown", state=known(phase, reason="unknown")), None)
    assert survey.standings == Standings(jobs=5, unknown=2, failed=2, cancelled=1)


@pytest.mark.parametrize(
    ("before", "now", "pairs"),
    [
        (
            {"image_urls": ["https://a.example/x1"]},
            {"image_urls": ["https://a.example/y2"]},
            [("https://a.example/x1", "https://a.example/y2")],
        ),
        ({"mask": "https://a.example/x"}, {"mask": "https://a.example/x?token=s"}, []),
        (
            {"image_urls": ["https://a.example/x"]},
            {"image_urls": ["https://a.example/x"] * 2},
            None,
        ),
        ({"image_urls": ["https://a.example/x"]}, {"image_urls": ["x"]}, None),
        ({"u": "https://a.example/x", "seed": 1}, {"u": "https://a.example/y", "seed": 2}, None),
        ({"u": "https://a.example/x"}, {"u": "https://a.example/y", "seed": 2}, None),
    ],
)
def test_whether_two_inputs_differ_in_addresses_alone(
    before: dict[str, Any], now: dict[str, Any], pairs: list[tuple[str, str]] | None
) -> None:
    at = datetime(2026, 3, 1, tzinfo=UTC)
    about: dict[str, Any] = {"at": at, "job": "a", "fingerprint": "f", "path": "a", "attempt": 1}
    intent = Submitting(**about, model="m", input={"prompt": "p", **before})
    changed = msgspec.structs.replace(job(), model="m", input={"prompt": "p", **now})
    assert changed_addresses(intent, changed) == pairs
    other = msgspec.structs.replace(changed, model="n")
    assert changed_addresses(intent, other) is None
