"""What a run stops before: purchases that would be mistakes, until a person accepts them."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest
from bench import Bench, OpenSandbox
from conftest import FakeClock

from batch_runner.clock import Clock
from batch_runner.errors import ExitCode, UsageError
from batch_runner.ledger.reading import ledger_path
from batch_runner.records import Record, Submitted
from batch_runner.run.concerns import Concern
from batch_runner.run.execution import run_batch
from batch_runner.run.resolve import record_decision, unknown_jobs
from batch_runner.run.setting import open_ledger
from batch_runner.run.stop import Ending, Stop
from batch_runner.sandbox import Sandbox
from batch_runner.shards.shard import Shard

HOST = "https://cdn.example.com"


def manifest(*addresses: str, prompt: str = "white") -> str:
    images = "\n".join(f"  p{n}: {address}" for n, address in enumerate(addresses))
    return f"prompts: {{white: {prompt}}}\nimages:\n{images}\n"


async def stopped(bench: Bench, text: str, sandbox: Sandbox, **options: object) -> str:
    """Return what a run says that stops before it buys anything."""
    before = len(sandbox.accepted())
    with pytest.raises(UsageError) as caught:
        await bench.run(text, sandbox, **options)
    assert (caught.value.exit_code, len(sandbox.accepted())) == (ExitCode.USAGE, before)
    return f"{caught.value.message}\n{caught.value.hint}"


@pytest.mark.parametrize(
    ("before", "now"),
    [
        # A signature in the path, one in a query that nobody knows, and one that is a secret.
        (f"{HOST}/v3/17000/aB/cD/mug", f"{HOST}/v3/17864/eF/gH/mug"),
        (f"{HOST}/mug.png?hs=1&te=2", f"{HOST}/mug.png?hs=3&te=4"),
        (f"{HOST}/mug.png?token=secret-one", f"{HOST}/mug.png?token=secret-two"),
        (f"{HOST}/mug.png", "https://edge-7.example.net/mug.png"),
    ],
)
async def test_one_finished_job_is_not_bought_again_for_another_address_without_a_word(
    bench: Bench, open_sandbox: OpenSandbox, before: str, now: str
) -> None:
    async with open_sandbox(pictures=False) as sandbox:
        await bench.run(manifest(before), sandbox)
        said = await stopped(bench, manifest(now), sandbox)
        assert "secret-" not in said
        assert now.partition("?")[0] in said
        assert "--accept new-pictures" in said
        # A rehearsal of the stop changes nothing: the former addresses are done still.
        assert (await bench.run(manifest(before), sandbox)).exit_code is ExitCode.DONE
        again = await bench.run(manifest(now), sandbox, accept=("new-pictures",))
        assert (again.submitted, len(sandbox.accepted())) == (1, 2)
        assert (await bench.run(manifest(now), sandbox)).exit_code is ExitCode.DONE


async def test_the_same_pictures_are_taken_over_for_nothing(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    async with open_sandbox(pictures=False) as sandbox:
        await bench.run(manifest(f"{HOST}/1/mug", f"{HOST}/1/cup"), sandbox)
        for number in (2, 3):
            text = manifest(f"{HOST}/{number}/mug", f"{HOST}/{number}/cup")
            assert "2 jobs that you have paid for" in await stopped(bench, text, sandbox)
            summary = await bench.run(text, sandbox, accept=("same-pictures",))
            assert (summary.exit_code, summary.done, summary.submitted) == (ExitCode.DONE, 2, 0)
            assert (await bench.run(text, sandbox)).exit_code is ExitCode.DONE
        assert len(sandbox.accepted()) == 2
    assert bench.files == ["p0/white.png", "p1/white.png"]


async def test_unknown_jobs_with_new_addresses_are_settled_before_anything_is_accepted(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    before, now = (manifest(f"{HOST}/{n}/mug", f"{HOST}/{n}/cup") for n in (1, 2))
    async with open_sandbox(pictures=False) as sandbox:
        await bench.run(before, sandbox, limit=1)
    async with open_sandbox(pictures=False, faults="lost-answer") as sandbox:
        assert (await bench.run(before, sandbox)).unknown == 1
    async with open_sandbox(pictures=False) as sandbox:
        await stopped(bench, now, sandbox)
        held = await bench.run(now, sandbox, accept=("same-pictures",))
        assert (held.exit_code, held.done, held.pending, held.submitted) == (75, 1, 1, 0)
        batch = bench.batch(now, sandbox.url)
        async with open_ledger(batch) as ledger:
            record_decision(
                ledger, unknown_jobs(batch.output_dir, batch.replay()), "abandoned", Clock()
            )
        summary = await bench.run(now, sandbox, accept=("same-pictures",))
        assert (summary.done, summary.submitted) == (2, 1)


async def test_jobs_with_new_addresses_that_are_not_saved_yet_are_collected_first(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    before, now = (manifest(f"{HOST}/{n}/mug") for n in (1, 2))
    async with open_sandbox(pictures=False, faults="error-500-get") as sandbox:
        assert (await bench.run(before, sandbox, clock=FakeClock())).in_flight == 1
    async with open_sandbox(pictures=False) as sandbox:
        said = await bench.run(now, sandbox, accept=("same-pictures",))
        assert (said.exit_code, said.pending, said.orphans) == (75, 1, 1)
        said = await bench.run(now, sandbox, accept=("same-pictures",))
        assert (said.exit_code, said.done, said.submitted) == (ExitCode.DONE, 1, 0)
        assert len(sandbox.accepted()) == 1, "only what was bought before"


@pytest.mark.parametrize("change", ["prompt", "picture more", "failed before", "never bought"])
async def test_what_has_changed_otherwise_is_bought_without_a_question(
    bench: Bench, open_sandbox: OpenSandbox, change: str
) -> None:
    before, now = manifest(f"{HOST}/1/mug"), manifest(f"{HOST}/2/mug")
    match change:
        case "prompt":
            now = manifest(f"{HOST}/2/mug", prompt="black")
        case "picture more":
            now = manifest(f"[{HOST}/2/mug, {HOST}/2/cup]")
        case "failed before":
            before = manifest(f"{HOST}/1/mug", prompt="forbidden")
            now = manifest(f"{HOST}/2/mug", prompt="forbidden")
    async with open_sandbox(pictures=False) as sandbox:
        if change != "never bought":
            await bench.run(before, sandbox)
        assert (await bench.run(now, sandbox)).submitted == 1


async def test_a_job_that_another_shard_bought_is_not_bought_for_another_address(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    async with open_sandbox(pictures=False) as sandbox:
        for folder in (1, 2):
            text = manifest(*(f"{HOST}/{folder}/{n}" for n in range(12)))
            for index in range(2):
                if folder == 1:
                    await bench.run(text, sandbox, shard=Shard(index, 2))
                else:
                    await stopped(bench, text, sandbox, shard=Shard(index, 2))
        assert len(sandbox.accepted()) == 12


@pytest.mark.parametrize("kept", [0, 1])
async def test_files_that_are_in_no_record_stop_a_run_and_a_changed_prompt_does_not(
    bench: Bench, open_sandbox: OpenSandbox, kept: int
) -> None:
    text = manifest(f"{HOST}/mug", f"{HOST}/cup")
    ledger = ledger_path(bench.output)
    async with open_sandbox(pictures=False) as sandbox:
        await bench.run(text, sandbox, limit=kept) if kept else None
        older = ledger.read_bytes() if kept else None
        await bench.run(text, sandbox)
        assert (await bench.run(text.replace("white: white", "white: red"), sandbox)).done == 2
        assert (await bench.run(text, sandbox)).submitted == 0
        # An older copy of the ledger, or none: as after a move without it.
        newer = ledger.read_bytes()
        ledger.write_bytes(older) if older is not None else ledger.unlink()
        said = await stopped(bench, text, sandbox)
        assert said.startswith(f"no record names {2 - kept} file")
        assert "--accept files" in said
        ledger.write_bytes(newer)
        assert (await bench.run(text, sandbox)).exit_code is ExitCode.DONE
        ledger.unlink()
        assert (await bench.run(text, sandbox, accept=("files",))).submitted == 2


async def test_what_is_paid_for_is_collected_before_a_run_stops_at_a_concern(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    text = manifest(f"{HOST}/mug", f"{HOST}/cup")
    async with open_sandbox(pictures=False, faults="error-500-get") as sandbox:
        submitted: list[Record] = []

        def leave(record: Record) -> None:
            submitted.extend([record] if isinstance(record, Submitted) else [])
            if len(submitted) == 2:
                ending.end(Stop("interrupted", "by the test", at_once=True))

        ending, batch = Ending(), bench.batch(text, sandbox.url)
        assert (await run_batch(batch, listener=leave, ending=ending)).in_flight == 2
    async with open_sandbox(pictures=False) as sandbox:
        bench.output.joinpath("p7").mkdir()
        bench.output.joinpath("p7", "white.png").write_bytes(b"whole")
        more = text + f"  p7: {HOST}/bowl\n"
        summary = await bench.run(more, sandbox)
        assert summary.exit_code is ExitCode.USAGE
        assert (summary.done, summary.pending, summary.submitted) == (2, 1, 0)
        assert summary.error is not None
        assert "no record names 1 file here" in summary.error.message


@pytest.mark.parametrize(
    ("options", "further", "asked"),
    [
        ({"confirm_cost": True}, "", ["cost"]),
        ({"confirm_cost": True, "accept": ("cost",)}, "", []),
        ({"confirm_cost": True, "max_cost_usd": Decimal(5)}, "", []),
        ({"confirm_cost": True}, "limits: {cost_usd: 5}\n", []),
        ({"confirm_cost": True}, "limits: {cost_usd: 5/night}\n", []),
        ({}, "", []),
    ],
)
async def test_the_first_purchases_without_a_budget_are_asked_for_on_a_terminal(
    bench: Bench,
    open_sandbox: OpenSandbox,
    options: dict[str, object],
    further: str,
    asked: list[str],
) -> None:
    text, words = manifest(f"{HOST}/mug") + further, []

    async def ask(concern: Concern) -> bool:
        words.append(concern.word)
        assert "1 job, about 0.05 USD; there is no budget" in concern.message
        return len(words) > 1

    async with open_sandbox(pictures=False) as sandbox:
        if asked:
            with pytest.raises(UsageError):
                await run_batch(bench.batch(text, sandbox.url, **options), ask=ask)
            assert sandbox.accepted() == []
        summary = await run_batch(bench.batch(text, sandbox.url, **options), ask=ask)
        assert (summary.done, words) == (1, asked * 2)
        # Once something was bought, nobody is asked any more.
        text = text.replace("mug", "mug", 1) + ""
        await run_batch(bench.batch(text, sandbox.url, retry=("all",), **options), ask=ask)
        assert words == asked * 2


async def test_a_signal_ends_the_asking(bench: Bench, open_sandbox: OpenSandbox) -> None:
    async with open_sandbox(pictures=False) as sandbox:
        batch = bench.batch(manifest(f"{HOST}/mug"), sandbox.url, confirm_cost=True)

        async def ask(_: Concern) -> bool:
            asyncio.get_running_loop().call_soon(ending.end, Stop("interrupted", "by Ctrl-C"))
            await asyncio.Event().wait()
            return True

        ending = Ending()
        assert (await run_batch(batch, ask=ask, ending=ending)).exit_code is ExitCode.INTERRUPTED
        assert sandbox.accepted() == []
