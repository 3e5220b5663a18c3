"""What people settle: unknown jobs, requests to cancel, files to put back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from bench import Bench, OpenSandbox

from batch_runner.clock import Clock
from batch_runner.errors import AccessRefusedError, ExitCode, ServiceUnavailableError, UsageError
from batch_runner.files.folder_storage import FolderStorage
from batch_runner.files.verification import Difference, verify
from batch_runner.ledger.job import Phase
from batch_runner.ledger.reading import ledger_path, read_ledger
from batch_runner.records import Resolved
from batch_runner.run.mend import mend
from batch_runner.run.resolve import (
    attach,
    cancel,
    choose,
    known_requests,
    record_decision,
    unknown_jobs,
)
from batch_runner.run.setting import open_ledger

TWO = """\
prompts: {white: white background, sepia: sepia}
images: {mug: https://cdn.example.com/mug.png}
"""


def resolved(bench: Bench) -> list[str]:
    records = read_ledger(ledger_path(bench.output))
    return [record.how for record in records if isinstance(record, Resolved)]


async def test_unknown_jobs_are_listed_with_prompt_pictures_and_time_of_sending(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    async with open_sandbox(faults="lost-answer") as sandbox:
        await bench.run(TWO, sandbox)
        batch = bench.batch(TWO, sandbox.url)
        first, second = unknown_jobs(batch.output_dir, batch.replay())
    assert (first.job, second.job) == ("mug/white", "mug/sepia")
    assert first.input["prompt"] == "white background"
    assert first.input["image_urls"] == ["https://cdn.example.com/mug.png"]
    assert str(first.reserved_usd) == "0.05"
    assert first.why.startswith("answer lost")
    assert datetime.now(UTC) - first.sent_at < timedelta(minutes=1)


async def test_an_attached_request_is_collected_and_not_bought_again(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    async with open_sandbox(faults="lost-answer") as sandbox:
        await bench.run(TWO, sandbox)
    async with open_sandbox() as sandbox:
        batch = bench.batch(TWO, sandbox.url)
        jobs = unknown_jobs(batch.output_dir, batch.replay())
        ids = {one.input["prompt"]: one.request_id for one in sandbox.accepted()}
        async with open_ledger(batch) as ledger:
            known = known_requests(batch.ledgers.records())
            for job in jobs:
                request_id = ids[job.input["prompt"]]
                await attach(batch.service, ledger, job, request_id, Clock(), known=known)
                assert ledger.state.jobs[job.fingerprint].phase is Phase.IN_FLIGHT
        summary = await bench.run(TWO, sandbox)
        assert (summary.exit_code, summary.done) == (ExitCode.DONE, 2)
        assert len(sandbox.accepted()) == 2
    assert resolved(bench) == ["attached", "attached"]


async def test_a_request_is_attached_only_if_it_can_be_the_jobs(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    async with open_sandbox(faults="lost-answer=50%", seed=3) as sandbox:
        one_each = TWO.replace("mug.png", "a.png") + "matrix: {seed: [1, 2, 3]}\n"
        await bench.run(one_each, sandbox)
    async with open_sandbox() as sandbox:
        batch = bench.batch(one_each, sandbox.url)
        job, *_ = unknown_jobs(batch.output_dir, batch.replay())
        async with open_ledger(batch) as ledger:
            known = known_requests(batch.ledgers.records())

            async def refusal(request_id: str, candidate: Any = job) -> str:
                with pytest.raises(UsageError) as caught:
                    await attach(batch.service, ledger, candidate, request_id, Clock(), known=known)
                return str(caught.value)

            assert "is not a request_id" in await refusal("a/b")
            assert "does not know the request" in await refusal("never-heard-of")
            taken = next(one for one in ledger.state.jobs.each() if one.phase is Phase.DONE)
            assert "belongs to the job" in await refusal(taken.request_id or "")
            lost = {one.request_id for one in sandbox.accepted()}
            lost -= {one.request_id for one in ledger.state.jobs.each() if one.request_id}
            from msgspec.structs import replace

            later = replace(job, sent_at=datetime.now(UTC) + timedelta(hours=1))
            assert "before the job was sent" in await refusal(min(lost), later)
    assert resolved(bench) == []


async def test_a_service_that_does_not_answer_does_not_say_that_it_knows_no_such_request(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    async with open_sandbox(faults="lost-answer") as sandbox:
        await bench.run(TWO, sandbox)
        request_id = sandbox.accepted()[0].request_id
    async with open_sandbox(faults="error-500-get") as sandbox:
        batch = bench.batch(TWO, sandbox.url)
        job, *_ = unknown_jobs(batch.output_dir, batch.replay())
        async with open_ledger(batch) as ledger:
            with pytest.raises(ServiceUnavailableError, match=f"did not say .* {request_id}: "):
                await attach(batch.service, ledger, job, request_id, Clock(), known={})
    assert resolved(bench) == []


async def test_attaching_another_accounts_request_ends_with_77(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    async with open_sandbox(faults="lost-answer") as sandbox:
        await bench.run(TWO, sandbox)
    async with open_sandbox(faults="other-account") as sandbox:
        batch = bench.batch(TWO, sandbox.url)
        job, *_ = unknown_jobs(batch.output_dir, batch.replay())
        async with open_ledger(batch) as ledger:
            with pytest.raises(AccessRefusedError):
                request_id = sandbox.accepted()[0].request_id
                await attach(batch.service, ledger, job, request_id, Clock(), known={})


async def test_resubmitted_jobs_are_bought_anew_and_abandoned_ones_never(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    async with open_sandbox(faults="lost-answer") as sandbox:
        await bench.run(TWO, sandbox)
    async with open_sandbox() as sandbox:
        batch = bench.batch(TWO, sandbox.url)
        jobs = unknown_jobs(batch.output_dir, batch.replay())
        async with open_ledger(batch) as ledger:
            record_decision(ledger, choose(jobs, ["mug/wh*"]), "resubmit", Clock())
            record_decision(ledger, choose(jobs, ["mug/sepia"]), "abandoned", Clock())
        (left,) = unknown_jobs(batch.output_dir, batch.replay())
        assert (left.job, left.abandoned) == ("mug/sepia", True)
        summary = await bench.run(TWO, sandbox)
        assert (summary.done, summary.cancelled, summary.failed) == (1, 1, 0)
        assert len(sandbox.accepted()) == 3
        state = bench.batch(TWO, sandbox.url).replay()
        # Two lost ones may have been paid for, and one was bought since.
        assert str(state.spent_usd + state.reserved_usd) == "0.15"


async def test_retry_unknown_leaves_a_persons_word_in_the_ledger(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    async with open_sandbox(faults="lost-answer") as sandbox:
        await bench.run(TWO, sandbox)
    async with open_sandbox() as sandbox:
        await bench.run(TWO, sandbox, retry=("unknown",))
    assert resolved(bench) == ["resubmit", "resubmit"]


async def test_an_abandoned_job_that_is_bought_after_all_leaves_a_persons_word_too(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    async with open_sandbox(faults="lost-answer") as sandbox:
        await bench.run(TWO, sandbox)
    async with open_sandbox() as sandbox:
        batch = bench.batch(TWO, sandbox.url)
        async with open_ledger(batch) as ledger:
            record_decision(
                ledger, unknown_jobs(batch.output_dir, batch.replay()), "abandoned", Clock()
            )
        summary = await bench.run(TWO, sandbox, retry=("unknown",))
        assert summary.done == 2
    assert resolved(bench) == ["abandoned", "abandoned", "resubmit", "resubmit"]
    # Both the lost ones and the ones that were bought since may have been paid for.
    assert str(bench.batch(TWO, "http://127.0.0.1:1").replay().spent_usd) == "0.20"


def test_choosing_a_job_that_is_not_unknown_is_an_error() -> None:
    with pytest.raises(UsageError, match="no unknown job is called 'mug'"):
        choose([], ["mug"])


async def test_cancelling_frees_what_is_queued_and_says_what_has_begun(
    bench: Bench, open_sandbox: OpenSandbox, clock: Clock
) -> None:
    images = "\n".join(f"  p{n}: https://cdn.example.com/p{n}.png" for n in range(4))
    text = f"price_usd: 0.05\nprompts: {{white: white}}\nimages:\n{images}\n"
    async with open_sandbox(capacity=1, run_s=(60.0, 60.0), faults="error-500-get") as sandbox:
        # Left in flight: one is running, three wait behind it.
        await bench.run(text, sandbox, clock=clock)
    async with open_sandbox(capacity=1, run_s=(60.0, 60.0)) as sandbox:
        batch = bench.batch(text, sandbox.url)
        async with open_ledger(batch) as ledger:
            outcomes = await cancel(batch.service, ledger, [], Clock())
        assert sorted(one.cancelled for one in outcomes) == [False, True, True, True]
        (begun,) = (one for one in outcomes if not one.cancelled)
        assert "has begun already" in begun.message
        async with open_ledger(batch) as ledger:
            assert await cancel(batch.service, ledger, ["nothing*"], Clock()) == []
        state = batch.replay()
        assert str(state.spent_usd + state.reserved_usd) == "0.05"


async def test_cancelling_with_a_refused_token_ends_with_77(
    bench: Bench, open_sandbox: OpenSandbox, clock: Clock
) -> None:
    async with open_sandbox(faults="error-500-get") as sandbox:
        await bench.run(TWO, sandbox, clock=clock)
    async with open_sandbox(token="another") as sandbox:
        batch = bench.batch(TWO, sandbox.url)
        async with open_ledger(batch) as ledger:
            with pytest.raises(AccessRefusedError):
                await cancel(batch.service, ledger, [], Clock())


def differences(output: Path) -> list[Difference]:
    return [
        one
        for one in verify(FolderStorage(output), read_ledger(ledger_path(output)))
        if one is not None
    ]


async def test_files_are_verified_by_their_content_and_put_back_without_paying(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    async with open_sandbox() as sandbox:
        await bench.run(TWO, sandbox)
        assert differences(bench.output) == []
        white, sepia = bench.output / "mug/white.jpg", bench.output / "mug/sepia.jpg"
        whole = white.read_bytes()
        white.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        sepia.unlink()
        found = differences(bench.output)
        assert [(one.finding.name, one.path) for one in found] == [
            ("MISSING", "mug/sepia.jpg"),
            ("DIFFERS", "mug/white.jpg"),
        ]
        await mend(bench.batch(TWO, sandbox.url), found)
        assert differences(bench.output) == []
        assert white.read_bytes() == whole
        assert len(sandbox.accepted()) == 2


async def test_a_file_with_a_second_name_is_put_back_from_it(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    async with open_sandbox() as sandbox:
        await bench.run(TWO, sandbox)
        await bench.run(TWO.replace("mug:", "cup:"), sandbox)
        (bench.output / "mug/white.jpg").unlink()
        gets = len(sandbox.calls)
        await mend(bench.batch(TWO, sandbox.url), differences(bench.output))
        assert differences(bench.output) == []
        assert len(sandbox.calls) == gets


async def test_putting_back_with_a_refused_token_ends_with_77(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    async with open_sandbox() as sandbox:
        await bench.run(TWO, sandbox)
    (bench.output / "mug/white.jpg").unlink()
    async with open_sandbox(token="another") as sandbox:
        with pytest.raises(AccessRefusedError):
            await mend(bench.batch(TWO, sandbox.url), differences(bench.output))
