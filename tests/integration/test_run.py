"""A batch against a real server on loopback: what is bought, what is kept, how it ends."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, NoReturn

import pytest
from bench import Bench, OpenSandbox

from batch_runner.clock import Clock
from batch_runner.errors import (
    AccessRefusedError,
    ExitCode,
    LedgerLockedError,
    ManifestError,
    StorageError,
    UsageError,
)
from batch_runner.files.verification import verify
from batch_runner.ledger.file import Ledger
from batch_runner.ledger.reading import ledger_path, read_ledger
from batch_runner.manifest.loading import load_manifest
from batch_runner.records import Record, Refused, RunStarted, Saved, Submitted, Submitting
from batch_runner.report.status import status
from batch_runner.report.text import plan_text
from batch_runner.run import execution
from batch_runner.run.batch import Batch, RunOptions
from batch_runner.run.budget import unpriced_error
from batch_runner.run.execution import run_batch
from batch_runner.run.mend import mend
from batch_runner.run.planning import plan_jobs, survey_jobs
from batch_runner.run.stop import Ending, Stop
from batch_runner.run.summary import Summary
from batch_runner.run.survey import Survey
from batch_runner.sandbox import Sandbox
from batch_runner.service.answer import Verdict
from batch_runner.service.call import Service

TWO = """\
prompts: {white: white background, sepia: sepia}
images: {mug: https://cdn.example.com/mug.png}
"""
FOUR = """\
prompts: {white: white background, sepia: sepia}
images: {mug: https://cdn.example.com/mug.png, lamp: https://cdn.example.com/lamp.png}
"""


@pytest.fixture(params=[Survey.KEPT, 0], ids=["plan kept", "plan streamed"], autouse=True)
def _either_plan(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let it hold for a few jobs, whose plan is kept, and for many, which are planned anew."""
    monkeypatch.setattr(Survey, "KEPT", request.param)


def posts(sandbox: Sandbox) -> int:
    return sum(call.method == "POST" for call in sandbox.calls)


def counts(summary: Summary) -> tuple[int, int, int, int, int]:
    return (
        summary.done,
        summary.failed,
        summary.unknown,
        summary.in_flight,
        summary.pending,
    )


async def test_every_job_is_bought_once_and_saved_whole_and_a_second_run_buys_nothing(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    images = "\n".join(f"  p{n}: https://cdn.example.com/p{n}.png" for n in range(10))
    text = f"prompts: {{white: white background, sepia: sepia}}\nimages:\n{images}\n"
    text += "matrix: {seed: [1, 2]}\n"
    async with open_sandbox() as sandbox:
        first = await bench.run(text, sandbox)
        assert (first.exit_code, counts(first)) == (ExitCode.DONE, (40, 0, 0, 0, 0))
        inputs = Counter(str(request.input) for request in sandbox.accepted())
        assert len(inputs) == 40
        assert set(inputs.values()) == {1}
        assert first.cost_usd == Decimal("2.00")
        before = posts(sandbox)
        second = await bench.run(text, sandbox)
        assert (second.exit_code, counts(second)) == (ExitCode.DONE, (40, 0, 0, 0, 0))
        assert posts(sandbox) == before
        assert second.cost_usd == 0
    assert len(bench.files) == 40
    for record in read_ledger(ledger_path(bench.output)):
        if isinstance(record, Saved):
            for file in record.files:
                body = (bench.output / file.path).read_bytes()
                assert hashlib.sha256(body).hexdigest() == file.sha256
                assert len(body) == file.size_bytes
    assert not list(bench.output.rglob("*.part"))


async def test_the_intent_is_on_record_before_each_post_and_the_request_id_right_after(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    async with open_sandbox() as sandbox:
        await bench.run(TWO, sandbox)
    kinds = [type(r).__name__ for r in bench.records if getattr(r, "job", "") == "mug/white"]
    assert kinds == ["Submitting", "Submitted", "Succeeded", "Saved"]


async def test_a_lost_answer_is_unknown_and_never_sent_again_without_a_persons_word(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    async with open_sandbox(faults="lost-answer") as sandbox:
        lost = await bench.run(TWO, sandbox)
        assert (lost.exit_code, counts(lost)) == (ExitCode.SOME_FAILED, (0, 0, 2, 0, 0))
    async with open_sandbox() as sandbox:
        again = await bench.run(TWO, sandbox)
        assert (again.exit_code, counts(again)) == (ExitCode.SOME_FAILED, (0, 0, 2, 0, 0))
        assert len(sandbox.accepted()) == 2
        word = await bench.run(TWO, sandbox, retry=("unknown",))
        assert (word.exit_code, counts(word)) == (ExitCode.DONE, (2, 0, 0, 0, 0))
        assert len(sandbox.accepted()) == 4


async def test_a_refused_picture_fails_for_good_and_is_bought_again_only_on_request(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    text = TWO.replace("sepia: sepia", "bad: something forbidden")
    async with open_sandbox() as sandbox:
        first = await bench.run(text, sandbox)
        assert (first.exit_code, counts(first)) == (ExitCode.SOME_FAILED, (1, 1, 0, 0, 0))
        await bench.run(text, sandbox)
        assert len(sandbox.accepted()) == 2
        await bench.run(text, sandbox, retry=("failed",))
        assert len(sandbox.accepted()) == 3
    found = status(bench.batch(text, "http://127.0.0.1"))
    assert (found.done, found.failed, found.reasons) == (1, 1, {"content refused": 1})


@pytest.mark.parametrize("fault", ["error-500", "no-request-id", "bad-request-id", "html-answer"])
async def test_an_unusable_answer_to_a_post_is_unknown(
    bench: Bench, open_sandbox: OpenSandbox, fault: str
) -> None:
    async with open_sandbox(faults=fault) as sandbox:
        summary = await bench.run(TWO, sandbox)
        assert (summary.exit_code, summary.unknown) == (ExitCode.SOME_FAILED, 2)
        assert posts(sandbox) == 2


async def test_rate_limiting_costs_no_job_and_buys_nothing_twice(
    bench: Bench, open_sandbox: OpenSandbox, clock: Clock
) -> None:
    async with open_sandbox(faults="rate-limit=50%") as sandbox:
        summary = await bench.run(FOUR + "repeat: 4\n", sandbox, clock=clock)
        assert (summary.exit_code, summary.done) == (ExitCode.DONE, 16)
        assert len(sandbox.accepted()) == 16
    refusals = [r for r in bench.records if isinstance(r, Refused)]
    assert refusals
    assert all(r.again and r.status == 429 for r in refusals)


@pytest.mark.parametrize(
    "fault", ["html-file", "truncated-file", "missing-file", "evil-url", "redirect-away"]
)
async def test_what_could_not_be_downloaded_stays_in_flight_and_comes_later_for_free(
    bench: Bench, open_sandbox: OpenSandbox, clock: Clock, fault: str
) -> None:
    async with open_sandbox(faults=fault) as sandbox:
        first = await bench.run(TWO, sandbox, clock=clock)
        assert (first.exit_code, counts(first)) == (ExitCode.STOPPED_EARLY, (0, 0, 0, 2, 0))
        assert bench.files == []
    assert bench.notices
    async with open_sandbox() as sandbox:
        second = await bench.run(TWO, sandbox)
        assert (second.exit_code, second.done) == (ExitCode.DONE, 2)
        assert posts(sandbox) == 0
    assert len(bench.files) == 2
    assert not list(bench.output.rglob("*.part"))


async def test_a_request_that_cannot_be_read_is_left_for_the_next_run(
    bench: Bench, open_sandbox: OpenSandbox, clock: Clock
) -> None:
    async with open_sandbox(faults="error-500-get") as sandbox:
        first = await bench.run(TWO, sandbox, clock=clock)
        assert first.exit_code in (ExitCode.STOPPED_EARLY, ExitCode.UNAVAILABLE)
        assert first.in_flight == 2
    async with open_sandbox() as sandbox:
        second = await bench.run(TWO, sandbox)
        assert second.done == 2
        assert posts(sandbox) == 0


async def test_a_request_the_service_no_longer_knows_is_called_expired(
    bench: Bench, open_sandbox: OpenSandbox, clock: Clock
) -> None:
    async with open_sandbox(faults="result-404") as sandbox:
        summary = await bench.run(TWO, sandbox, clock=clock)
        assert (summary.exit_code, summary.failed) == (ExitCode.SOME_FAILED, 2)
    found = status(bench.batch(TWO, "http://127.0.0.1"))
    assert found.reasons == {"expired": 2}


async def test_a_refused_token_ends_the_run_and_loses_nothing(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    async with open_sandbox(token="the-right-one") as sandbox:
        with pytest.raises(AccessRefusedError) as caught:
            await bench.run(TWO, sandbox, token="a-wrong-one")
        assert caught.value.exit_code is ExitCode.REFUSED
        assert "a-wrong-one" not in str(caught.value)
        summary = await bench.run(TWO, sandbox, token="the-right-one")
        assert summary.done == 2
    assert "the-right-one" not in ledger_path(bench.output).read_text()


async def test_an_empty_account_stops_submits_but_what_was_bought_is_collected(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    async with open_sandbox(balance_usd=Decimal("0.10")) as sandbox:
        summary = await bench.run(FOUR, sandbox)
        assert summary.exit_code is ExitCode.REFUSED
        assert (summary.done, summary.pending) == (2, 2)
        assert summary.error is not None
        assert "no balance" in summary.error.message


async def test_the_budget_is_never_passed_and_survives_restarts(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    images = "\n".join(f"  p{n}: https://cdn.example.com/p{n}.png" for n in range(12))
    text = f"prompts: {{white: white}}\nimages:\n{images}\n"
    limits = "limits: {submits: 1000/s, polls: 1000/s, cost_usd: 0.20}\n"
    async with open_sandbox() as sandbox:
        first = await bench.run(text + limits, sandbox)
        assert (first.exit_code, first.done, first.pending) == (ExitCode.STOPPED_EARLY, 4, 8)
        second = await bench.run(text + limits, sandbox)
        assert (second.exit_code, second.submitted) == (ExitCode.STOPPED_EARLY, 0)
        assert len(sandbox.accepted()) == 4
        third = await bench.run(text + limits, sandbox, max_cost_usd=Decimal("0.60"))
        assert (third.exit_code, third.done) == (ExitCode.DONE, 12)
        assert len(sandbox.accepted()) == 12


async def test_unknown_jobs_count_against_the_budget(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    limits = "limits: {submits: 1000/s, in_flight: 1, cost_usd: 0.10}\n"
    async with open_sandbox(faults="lost-answer") as sandbox:
        summary = await bench.run(FOUR + limits, sandbox)
        assert (summary.unknown, summary.pending) == (2, 2)
        assert summary.stop is not None
        assert summary.stop.reason == "budget"


async def test_a_budget_without_a_price_is_an_error_and_not_free(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    batch = bench.batch(TWO + "limits: {cost_usd: 5}\n", "http://127.0.0.1:9")
    unpriced = survey_jobs(batch, batch.replay()).unpriced
    assert unpriced is not None
    error = unpriced_error(batch, unpriced)
    assert (error.exit_code, "price_usd:" in str(error.hint)) == (ExitCode.USAGE, True)


async def test_too_many_failures_stop_the_run(bench: Bench, open_sandbox: OpenSandbox) -> None:
    images = "\n".join(f"  p{n}: https://cdn.example.com/p{n}.png" for n in range(20))
    text = f"prompts: {{bad: forbidden}}\nimages:\n{images}\n"
    text += "limits: {submits: 1000/s, polls: 1000/s, in_flight: 1, failures: 3}\n"
    async with open_sandbox() as sandbox:
        summary = await bench.run(text, sandbox)
        assert summary.exit_code is ExitCode.STOPPED_EARLY
        assert summary.stop is not None
        assert summary.stop.reason == "failures"
        assert 3 <= len(sandbox.accepted()) <= 12


async def test_outside_its_window_a_run_collects_but_submits_nothing(
    bench: Bench, open_sandbox: OpenSandbox, clock: Any
) -> None:
    text = TWO + 'window: {hours: "22:00-06:00", timezone: Europe/Madrid}\n'
    async with open_sandbox() as sandbox:
        clock.start = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
        closed = await bench.run(text, sandbox, clock=clock)
        assert (closed.exit_code, posts(sandbox)) == (ExitCode.STOPPED_EARLY, 0)
        assert closed.stop is not None
        assert "closed until 2026-03-02 22:00 Europe/Madrid" in closed.stop.message
        clock.start = datetime(2026, 3, 2, 23, 0, tzinfo=UTC)
        opened = await bench.run(text, sandbox, clock=clock)
        assert opened.done == 2


async def test_a_run_that_ignores_its_window_submits_at_any_hour(
    bench: Bench, open_sandbox: OpenSandbox, clock: Any
) -> None:
    text = TWO + 'window: {hours: "22:00-06:00", timezone: Europe/Madrid}\n'
    clock.start = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
    async with open_sandbox() as sandbox:
        summary = await bench.run(text, sandbox, clock=clock, ignore_window=True, wait=True)
    assert summary.exit_code == ExitCode.DONE
    assert bench.notices == []


async def test_limit_and_only_choose_what_is_submitted(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    async with open_sandbox() as sandbox:
        limited = await bench.run(FOUR, sandbox, limit=1)
        assert (limited.exit_code, limited.done) == (ExitCode.STOPPED_EARLY, 1)
        chosen = await bench.run(FOUR, sandbox, only=("lamp/*",))
        assert (chosen.exit_code, chosen.jobs, chosen.done) == (ExitCode.DONE, 2, 2)
        with pytest.raises(UsageError, match="no job's key matches"):
            await bench.run(FOUR, sandbox, only=("nothing*",))


async def test_a_renamed_image_reuses_what_was_bought(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    async with open_sandbox() as sandbox:
        await bench.run(TWO, sandbox)
        renamed = await bench.run(TWO.replace("mug:", "cup:"), sandbox)
        assert (renamed.exit_code, renamed.done) == (ExitCode.DONE, 2)
        assert len(sandbox.accepted()) == 2
    assert bench.files == ["cup/sepia.jpg", "cup/white.jpg", "mug/sepia.jpg", "mug/white.jpg"]


async def test_two_jobs_that_are_the_same_are_bought_once(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    text = FOUR.replace("lamp.png", "mug.png")
    async with open_sandbox() as sandbox:
        summary = await bench.run(text, sandbox)
        assert (summary.exit_code, summary.done) == (ExitCode.DONE, 4)
        assert len(sandbox.accepted()) == 2
        again = await bench.run(text, sandbox)
        assert (again.exit_code, again.done) == (ExitCode.DONE, 4)
        assert len(sandbox.accepted()) == 2


async def test_the_twin_of_a_failed_job_fails_with_it(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    text = FOUR.replace("lamp.png", "mug.png").replace("sepia: sepia", "bad: forbidden")
    async with open_sandbox() as sandbox:
        summary = await bench.run(text, sandbox)
    assert (summary.exit_code, counts(summary)) == (ExitCode.SOME_FAILED, (2, 2, 0, 0, 0))


async def test_the_twin_of_an_unknown_job_is_unknown_with_it(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    async with open_sandbox(faults="lost-answer") as sandbox:
        summary = await bench.run(FOUR.replace("lamp.png", "mug.png"), sandbox)
    assert (summary.exit_code, counts(summary)) == (ExitCode.SOME_FAILED, (0, 0, 4, 0, 0))


async def test_an_edited_prompt_buys_that_job_only_and_keeps_the_old_picture(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    edited = TWO.replace("white background", "a blue background")
    async with open_sandbox() as sandbox:
        await bench.run(TWO, sandbox)
        old = (bench.output / "mug/white.jpg").read_bytes()
        await bench.run(edited, sandbox)
        assert len(sandbox.accepted()) == 3
        kept = [name for name in bench.files if name.startswith("superseded/")]
        assert [(bench.output / name).read_bytes() for name in kept] == [old]
        reverted = await bench.run(TWO, sandbox)
        assert (reverted.exit_code, reverted.done) == (ExitCode.DONE, 2)
        assert len(sandbox.accepted()) == 3
    assert (bench.output / "mug/white.jpg").read_bytes() == old


async def test_a_file_that_is_missing_or_damaged_is_fetched_again_for_free(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    async with open_sandbox() as sandbox:
        await bench.run(TWO, sandbox)
        whole = (bench.output / "mug/white.jpg").read_bytes()
        (bench.output / "mug/white.jpg").unlink()
        (bench.output / "mug/sepia.jpg").write_bytes(b"short")
        again = await bench.run(TWO, sandbox)
        assert (again.exit_code, again.done) == (ExitCode.DONE, 2)
        assert again.cost_usd == 0
        assert len(sandbox.accepted()) == 2
    assert (bench.output / "mug/white.jpg").read_bytes() == whole


async def test_requests_of_jobs_that_left_the_manifest_are_still_collected(
    bench: Bench, open_sandbox: OpenSandbox, clock: Clock
) -> None:
    async with open_sandbox(faults="html-file") as sandbox:
        await bench.run(TWO, sandbox, clock=clock)
    async with open_sandbox() as sandbox:
        other = TWO.replace("mug", "cup").replace("white background", "blue background")
        summary = await bench.run(other, sandbox)
        assert (summary.exit_code, summary.done, summary.orphans) == (ExitCode.DONE, 2, 2)
        assert posts(sandbox) == 2
    assert len([name for name in bench.files if name.startswith("superseded/mug/")]) == 2


async def test_several_outputs_of_one_job_are_numbered(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    text = TWO + "inputs: {num_images: 3, resolution: 0.5K, output_format: jpeg}\n"
    async with open_sandbox() as sandbox:
        summary = await bench.run(text, sandbox)
    assert summary.cost_usd == Decimal("0.30")
    assert [name for name in bench.files if "white" in name] == [
        "mug/white-2.jpg",
        "mug/white-3.jpg",
        "mug/white.jpg",
    ]


async def test_two_runs_on_one_folder_are_refused(bench: Bench, open_sandbox: OpenSandbox) -> None:
    async with open_sandbox() as sandbox:
        batch = bench.batch(TWO, sandbox.url)
        ledger = Ledger.open(batch.output_dir, batch.ledgers.header(datetime.now(UTC)))
        try:
            with pytest.raises(LedgerLockedError, match="another run") as caught:
                await bench.run(TWO, sandbox)
            assert caught.value.exit_code is ExitCode.STOPPED_EARLY
        finally:
            ledger.close()


async def test_a_ledger_of_another_service_is_refused(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    async with open_sandbox() as sandbox:
        await bench.run(TWO, sandbox)
    batch = bench.batch(TWO, "https://model-api.runcomfy.net")
    with pytest.raises(UsageError, match="another service"):
        batch.replay()


async def test_nothing_is_sent_when_one_job_is_not_valid(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    async with open_sandbox() as sandbox:
        with pytest.raises(ManifestError):
            await bench.run(TWO.replace("sepia: sepia", "sepia: '{{ nothing }}'"), sandbox)
        assert posts(sandbox) == 0


async def test_draining_collects_what_is_paid_for_and_submits_nothing_more(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    async with open_sandbox(run_s=(0.05, 0.1)) as sandbox:
        batch = bench.batch(FOUR + "limits: {submits: 1000/s, in_flight: 1}\n", sandbox.url)
        records: list[Record] = []

        def listen(record: Record) -> None:
            records.append(record)
            if isinstance(record, Submitted):
                ending.end(Stop("interrupted", "interrupted by Ctrl-C"))

        ending = Ending()
        summary = await run_batch(batch, listener=listen, ending=ending)
        assert (summary.exit_code, counts(summary)) == (ExitCode.INTERRUPTED, (1, 0, 0, 0, 3))
        assert len(sandbox.accepted()) == 1


async def test_a_stop_before_the_first_submit_is_obeyed(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    async with open_sandbox() as sandbox:
        ending = Ending()
        ending.end(Stop("interrupted", "interrupted by Ctrl-C"))
        ending.end(Stop("interrupted", "interrupted by Ctrl-C", at_once=True))
        summary = await run_batch(bench.batch(TWO, sandbox.url), ending=ending)
        assert (summary.exit_code, posts(sandbox)) == (ExitCode.INTERRUPTED, 0)


async def test_leaving_loses_no_request_and_the_next_run_collects_it(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    async with open_sandbox(run_s=(0.2, 0.3)) as sandbox:
        batch = bench.batch(TWO, sandbox.url)

        def listen(record: Record) -> None:
            if isinstance(record, Submitted):
                ending.end(Stop("interrupted", "interrupted by Ctrl-C", at_once=True))

        ending = Ending()
        summary = await run_batch(batch, listener=listen, ending=ending)
        assert summary.exit_code is ExitCode.INTERRUPTED
        assert summary.unknown == 0
        accepted = len(sandbox.accepted())
        assert accepted >= 1
        second = await bench.run(TWO, sandbox)
        assert second.done == 2
        assert len(sandbox.accepted()) == 2


async def test_a_service_that_stays_away_ends_the_run_with_69(bench: Bench, clock: Clock) -> None:
    text = TWO + "retry: {give_up: 60s}\n"
    summary = await bench.run(text, "http://127.0.0.1:9", clock=clock)
    assert summary.exit_code is ExitCode.UNAVAILABLE
    assert (summary.pending, summary.unknown) == (2, 0)
    assert any("did not describe" in notice for notice in bench.notices)


async def test_a_full_disk_stops_submits_at_once(
    bench: Bench, open_sandbox: OpenSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = Ledger.append

    def fail_at_the_second_submit(self: Ledger, record: Record) -> None:
        if isinstance(record, Submitting) and record.job == "mug/sepia":
            self._failure = StorageError("ledger.jsonl: No space left on device")
        append(self, record)

    monkeypatch.setattr(Ledger, "append", fail_at_the_second_submit)
    async with open_sandbox() as sandbox:
        text = FOUR + "limits: {submits: 1000/s, in_flight: 1}\n"
        summary = await bench.run(text, sandbox)
        assert summary.exit_code is ExitCode.STORAGE
        assert len(sandbox.accepted()) == 1
        monkeypatch.undo()
        healed = await bench.run(text, sandbox)
        assert (healed.exit_code, healed.done) == (ExitCode.DONE, 4)
        assert len(sandbox.accepted()) == 4


async def test_local_pictures_go_to_a_service_on_this_machine_only(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    picture = Path(__file__).parents[2] / "samples" / "photos" / "mug.jpg"
    (bench.folder / "mug.jpg").write_bytes(picture.read_bytes())
    text = "prompts: {white: white background}\nimages: {mug: mug.jpg}\n"
    async with open_sandbox() as sandbox:
        summary = await bench.run(text, sandbox)
        assert summary.done == 1
        (bench.folder / "moved").mkdir()
        (bench.folder / "mug.jpg").rename(bench.folder / "moved" / "mug.jpg")
        moved = await bench.run(text.replace("mug.jpg", "moved/mug.jpg"), sandbox)
        assert (moved.done, len(sandbox.accepted())) == (1, 1)
    batch = bench.batch(text, "https://model-api.runcomfy.net", output_dir=bench.folder / "other")
    with pytest.raises(ManifestError, match="not an https URL"):
        list(batch.jobs())


async def test_the_plan_says_what_has_changed_and_what_has_left_the_manifest(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    picture = Path(__file__).parents[2] / "samples" / "photos" / "mug.jpg"
    (bench.folder / "own.jpg").write_bytes(picture.read_bytes())
    text = FOUR.replace("https://cdn.example.com/lamp.png", "own.jpg")
    async with open_sandbox() as sandbox:
        await bench.run(text, sandbox)
        (bench.folder / "own.jpg").write_bytes(picture.read_bytes() + b"\0")
        edited = text.replace("sepia: sepia", "sepia: {prompt: sepia, inputs: {seed: 5}}")
        edited = edited.replace("white background", "a red background")
        batch = bench.batch(edited, sandbox.url)
        state = batch.replay()
        reasons = {one.job.key: one.reason for one in plan_jobs(batch, state)}
        assert reasons == {
            "mug/white": "changed (prompt)",
            "mug/sepia": "changed (seed)",
            "lamp/white": "changed (prompt)",
            "lamp/sepia": "changed (seed)",
        }
        only_picture = bench.batch(text, sandbox.url)
        found = {one.job.key: one.reason for one in plan_jobs(only_picture, state)}
        assert found["lamp/white"] == "changed (picture)"
        assert found["mug/white"] == "done"
        shown = plan_text(batch, survey_jobs(batch, state), state, None, datetime.now(tz=UTC))
        assert (
            "keep            4  bought before, replaced by a redo or not in the manifest now"
            in shown
        )


async def test_a_cancelled_request_is_counted_as_such_in_this_run_and_the_next(
    bench: Bench, open_sandbox: OpenSandbox, clock: Clock
) -> None:
    async with open_sandbox(capacity=1, run_s=(60.0, 60.0), faults="error-500-get") as sandbox:
        await bench.run(TWO, sandbox, clock=clock)
    async with open_sandbox(capacity=1, run_s=(60.0, 60.0)) as sandbox:
        batch = bench.batch(TWO, sandbox.url)
        async with batch.service:
            (queued,) = [
                one
                for one in batch.replay().jobs.each()
                if (await batch.service.cancel(str(one.request_id)))[1] == "cancelled"
            ]
    async with open_sandbox() as sandbox:
        codes = []
        for _ in range(2):
            summary = await bench.run(TWO, sandbox, only=(queued.key,))
            assert (summary.cancelled, summary.failed) == (1, 0)
            codes.append(summary.exit_code)
    # News the first time; settled afterwards.
    assert codes == [ExitCode.SOME_FAILED, ExitCode.DONE]


async def test_an_answer_with_thousands_of_outputs_is_bounded_and_said(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    async with open_sandbox(faults="many-outputs") as sandbox:
        summary = await bench.run(TWO, sandbox, only=("mug/white",))
    assert summary.done == 1
    assert len(bench.files) == 64
    assert "mug/white: the answer names 10,000 outputs; the first 64 are saved" in bench.notices


async def test_a_torn_ledger_is_repaired_and_said(bench: Bench, open_sandbox: OpenSandbox) -> None:
    async with open_sandbox() as sandbox:
        await bench.run(TWO, sandbox)
        with ledger_path(bench.output).open("ab") as file:
            file.write(b'{"record":"subm')
        again = await bench.run(TWO, sandbox)
        assert again.done == 2
    assert any("cut a torn last line of 15 bytes" in notice for notice in bench.notices)


async def test_an_input_that_the_service_refuses_fails_for_good(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    text = TWO.replace("google/nano-banana-2/edit", "x") + "price_usd: 0.05\n"
    async with open_sandbox() as sandbox:
        batch = bench.batch(text, sandbox.url)
        batch.manifest.inputs["seed"] = "not a number"
        batch.manifest.document.lines[("inputs",)] = 1
        batch.models["google/nano-banana-2/edit"]._validator = None
        summary = await _run_without_learning(batch)
        assert (summary.exit_code, summary.failed) == (ExitCode.SOME_FAILED, 2)
        again = await _run_without_learning(batch)
        assert (again.failed, posts(sandbox)) == (2, 2)
    found = status(batch)
    assert found.reasons == {"input refused": 2}


async def _run_without_learning(batch: Batch) -> Summary:
    async def learn_nothing(_: Batch, *, keep: bool) -> None:
        return None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(execution, "learn_models", learn_nothing)
        return await run_batch(batch)


async def test_a_manifest_whose_table_leaves_no_jobs_is_an_error(bench: Bench) -> None:
    (bench.folder / "t.csv").write_text("sku,url\na,https://x.example/a.png\n", encoding="utf-8")
    text = "prompts: {white: white}\n"
    text += 'images: {from: t.csv, id: "{{ sku }}", urls: "{{ url }}", where: "{{ sku == 1 }}"}\n'
    batch = bench.batch(text, "http://127.0.0.1")
    with pytest.raises(ManifestError, match="'where' leaves out 1 of 1 product"):
        survey_jobs(batch, batch.replay())


async def test_a_schema_in_the_manifest_that_is_none_is_an_error(bench: Bench) -> None:
    text = TWO + "schema: {type: nonsense}\n"
    path = bench.write(text)
    changed = path.read_text(encoding="utf-8").replace("google/nano-banana-2/edit", "some/model")
    path.write_text(changed, encoding="utf-8")
    with pytest.raises(ManifestError, match="is not usable"):
        Batch(load_manifest(path), RunOptions())


async def test_status_tells_a_run_that_is_alive_from_one_that_was_killed(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    async with open_sandbox() as sandbox:
        batch = bench.batch(TWO, sandbox.url)
        header = batch.ledgers.header(datetime.now(UTC))
        job = next(batch.jobs())
        ledger = Ledger.open(batch.output_dir, header)
        ledger.append(
            RunStarted(
                at=datetime.now(UTC),
                run="r",
                pid=1,
                host="h",
                program="p",
                manifest_sha256="0",
                jobs=2,
                plan={},
            )
        )
        ledger.append(
            Submitting(
                at=datetime.now(UTC),
                job=job.key,
                fingerprint=job.fingerprint,
                model=job.model,
                input=job.input,
                path=job.path,
                attempt=1,
            )
        )
        alive = status(batch)
        assert (alive.stopped, alive.in_flight, alive.unknown) == ("running", 1, 0)
        ledger.close()
        killed = status(batch)
        assert (killed.stopped, killed.in_flight, killed.unknown) == ("killed", 0, 1)


async def test_wait_waits_for_the_window_to_open_and_then_submits(
    bench: Bench, open_sandbox: OpenSandbox, clock: Any
) -> None:
    text = TWO + 'window: {hours: "22:00-06:00", timezone: Europe/Madrid}\n'
    clock.start = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
    async with open_sandbox() as sandbox:
        summary = await bench.run(text, sandbox, clock=clock, wait=True)
        assert summary.done == 2
    assert clock.now() >= datetime(2026, 3, 2, 21, 0, tzinfo=UTC)
    assert bench.notices == ["waiting until 2026-03-02 22:00 Europe/Madrid, when the window opens"]


async def test_a_window_that_closes_ends_submits_and_the_next_night_goes_on(
    bench: Bench, open_sandbox: OpenSandbox, clock: Any
) -> None:
    images = "\n".join(f"  p{n}: https://cdn.example.com/p{n}.png" for n in range(10))
    text = f"prompts: {{white: white}}\nimages:\n{images}\n"
    text += 'window: {hours: "22:00-06:00", timezone: Europe/Madrid}\n'
    text += "limits: {submits: 4/h, polls: 1000/s, in_flight: 1}\n"
    async with open_sandbox() as sandbox:
        clock.start = datetime(2026, 3, 3, 3, 50, tzinfo=UTC)  # an hour and ten before it closes
        first = await bench.run(text, sandbox, clock=clock)
        assert (first.exit_code, first.stop and first.stop.reason) == (75, "window")
        assert 1 <= first.done < 10
        clock.start = datetime(2026, 3, 3, 21, 30, tzinfo=UTC)
        clock.elapsed_s = 0.0
        second = await bench.run(text, sandbox, clock=clock)
        assert (second.exit_code, second.done) == (ExitCode.DONE, 10)
        assert len(sandbox.accepted()) == 10


async def test_a_rate_an_hour_is_kept_across_restarts(
    bench: Bench, open_sandbox: OpenSandbox, clock: Any
) -> None:
    text = FOUR + "limits: {submits: 2/h, polls: 1000/s}\n"
    async with open_sandbox() as sandbox:
        for _ in range(4):
            await bench.run(text, sandbox, clock=clock, limit=1)
    sent = [r.at for r in bench.records if isinstance(r, Submitting)]
    assert len(sent) == 4
    for earlier, later in zip(sent, sent[2:], strict=False):
        assert (later - earlier).total_seconds() >= 3600


@pytest.mark.parametrize("mends", [False, True], ids=["run", "check --fix"])
@pytest.mark.parametrize("gone", ["ab", "abc", "bc", "c", "abcd"])
async def test_equal_jobs_whose_files_are_gone_download_their_one_request_once(
    bench: Bench, open_sandbox: OpenSandbox, gone: str, mends: bool
) -> None:
    images = [f"{name}: https://cdn.example.com/{name == 'd'}.png" for name in "abcd"]
    text = f"prompts: {{white: white background}}\nimages: {{{', '.join(images)}}}\n"
    async with open_sandbox() as sandbox:
        assert (await bench.run(text, sandbox)).submitted == 2
        files = bench.files
        sandbox.calls.clear()
        for path in files:
            if path[0] in gone:
                (bench.output / path).unlink()
        batch = bench.batch(text, sandbox.url)
        if mends:
            found = verify(batch.storage, batch.ledgers.records())
            await mend(batch, [one for one in found if one is not None])
        else:
            summary = await run_batch(batch)
            assert (summary.exit_code, summary.done) == (ExitCode.DONE, 4)
        asked = [call.path for call in sandbox.calls if call.path.startswith("/outputs")]
    assert bench.files == files
    assert len(asked) == len(set(asked)) == ("abc" in gone) + ("d" in gone)


@pytest.mark.parametrize("is_killed", [False, True], ids=["answered", "killed"])
@pytest.mark.parametrize("stalls_s", [(3000, 0, 0, 0), (0, 3500, 100, 0)], ids=str)
async def test_a_rate_holds_across_restarts_however_long_an_intent_waited_for_the_disk(
    bench: Bench,
    open_sandbox: OpenSandbox,
    clock: Any,
    monkeypatch: pytest.MonkeyPatch,
    stalls_s: tuple[int, ...],
    is_killed: bool,
) -> None:
    text = FOUR + "limits: {submits: 2/h, polls: 1000/s}\n"
    stalls, left = iter(stalls_s), []
    durable, submit = Ledger.durable, Service.submit

    async def stall(ledger: Ledger) -> None:
        await clock.sleep(next(stalls))
        await durable(ledger)

    async def leave(service: Service, model: str, input_: dict[str, Any]) -> Verdict:
        left.append(clock.now())
        return await submit(service, model, input_)

    monkeypatch.setattr(Ledger, "durable", stall)
    monkeypatch.setattr(Service, "submit", leave)
    async with open_sandbox() as sandbox:
        for _ in stalls_s:
            await bench.run(text, sandbox, clock=clock, limit=1)
            if is_killed:
                # Right after the call had left: nothing follows its intent.
                lines = ledger_path(bench.output).read_bytes().splitlines(keepends=True)
                while b'"submitting"' not in lines[-1]:
                    lines.pop()
                ledger_path(bench.output).write_bytes(b"".join(lines))
    assert len(left) == 4
    for earlier, later in zip(left, left[2:], strict=False):
        assert (later - earlier).total_seconds() >= 3600


async def test_a_balance_that_will_not_do_is_said_before_the_first_submit(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    async with open_sandbox(balance_usd=Decimal("0.10")) as sandbox:
        await bench.run(FOUR, sandbox)
    assert "the balance of 0.10 USD is less than the estimated" in bench.notices[0]


async def test_an_outage_is_said_with_growing_waits(bench: Bench, clock: Clock) -> None:
    await bench.run(TWO + "retry: {give_up: 60s}\n", "http://127.0.0.1:9", clock=clock)
    said = [notice for notice in bench.notices if "trying again in" in notice]
    assert len(said) >= 3


class Waits:
    """A call of the service that takes as long as it takes: it begins, and never ends."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        self.began = asyncio.Event()
        monkeypatch.setattr(Service, name, self._wait)

    async def _wait(self, *_: object) -> NoReturn:
        self.began.set()
        await asyncio.Event().wait()
        raise AssertionError


@pytest.mark.parametrize("budget", ["", "limits: {cost_usd: 5}\n"], ids=["free", "budget"])
@pytest.mark.parametrize("call", ["model", "balance_usd"])
@pytest.mark.parametrize("at_once", [False, True], ids=["drain", "leave"])
@pytest.mark.parametrize(
    ("reason", "code"),
    [("interrupted", ExitCode.INTERRUPTED), ("terminated", ExitCode.STOPPED_EARLY)],
)
async def test_a_stop_while_the_run_is_prepared_ends_it_as_any_other(
    bench: Bench,
    open_sandbox: OpenSandbox,
    monkeypatch: pytest.MonkeyPatch,
    budget: str,
    call: str,
    at_once: bool,
    reason: str,
    code: ExitCode,
) -> None:
    waits = Waits(monkeypatch, call)
    stop = Stop(reason, "asked to stop", at_once=at_once)
    async with open_sandbox() as sandbox, asyncio.timeout(10):
        ending, batch = Ending(), bench.batch(FOUR + budget, sandbox.url)
        executing = asyncio.create_task(
            run_batch(batch, notice=bench.notices.append, ending=ending)
        )
        await waits.began.wait()
        ending.end(stop)
        summary = await executing
        assert posts(sandbox) == 0
    assert (summary.exit_code, summary.stop, summary.pending) == (code, stop, 4)


@pytest.mark.parametrize(("at_once", "done"), [(False, 4), (True, 0)])
async def test_a_stop_while_the_run_is_prepared_collects_what_is_paid_for_unless_it_leaves(
    bench: Bench,
    open_sandbox: OpenSandbox,
    monkeypatch: pytest.MonkeyPatch,
    at_once: bool,
    done: int,
) -> None:
    async with open_sandbox() as sandbox:
        ending = Ending()

        def leave(record: Record) -> None:
            submitted.append(record)
            if sum(isinstance(one, Submitted) for one in submitted) == 4:
                ending.end(Stop("interrupted", "", at_once=True))

        submitted: list[Record] = []
        with monkeypatch.context() as patched:
            Waits(patched, "result")
            first = await run_batch(bench.batch(FOUR, sandbox.url), listener=leave, ending=ending)
        assert (first.in_flight, first.done) == (4, 0)
        waits = Waits(monkeypatch, "model")
        batch, ending = bench.batch(FOUR + "limits: {cost_usd: 5}\n", sandbox.url), Ending()
        executing = asyncio.create_task(run_batch(batch, ending=ending))
        await waits.began.wait()
        ending.end(Stop("interrupted", "", at_once=at_once))
        summary = await executing
        assert (summary.done, summary.in_flight) == (done, 4 - done)
        assert summary.exit_code == ExitCode.INTERRUPTED
