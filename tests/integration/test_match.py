"""`resolve`: a bad night settled with one paste, and requests that are another job's refused."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import pytest
from bench import Bench, OpenSandbox

from batch_runner.commands.arguments import parse
from batch_runner.commands.resolve import Arguments, _resolve_batch
from batch_runner.errors import ExitCode, UsageError
from batch_runner.ledger.reading import ledger_path, read_ledger
from batch_runner.records import Resolved
from batch_runner.report.status import status
from batch_runner.sandbox import Sandbox

IMAGES = "images:\n" + "".join(
    f"  p{n}: https://cdn.example.com/p{n}.png?X-Amz-Signature=s{n}\n" for n in range(6)
)
SIX = f"prompts: {{white: white background}}\n{IMAGES}limits: {{in_flight: 1, polls: 1000/s}}\n"
Captured = pytest.CaptureFixture[str]


async def resolve(bench: Bench, sandbox: Sandbox, *words: str) -> int:
    path = str(bench.folder / "batch.yaml")
    _, arguments = parse(["resolve", path, "--api-base", sandbox.url, *words])
    assert isinstance(arguments, Arguments)
    return await _resolve_batch(arguments)


def resolved(bench: Bench) -> list[Resolved]:
    records = read_ledger(ledger_path(bench.output))
    return [record for record in records if isinstance(record, Resolved)]


def ids_by_picture(sandbox: Sandbox) -> dict[str, str]:
    """Return each accepted request's id by the name of its picture."""
    return {
        one.input["image_urls"][0].partition("?")[0].rpartition("/")[2]: one.request_id
        for one in sandbox.accepted()
    }


def pasted(folder: Path, ids: list[str]) -> str:
    path = folder / "page.txt"
    lines = [f"Completed\tnano-banana-2\t{one}\t2026-03-02 22:00" for one in ids]
    path.write_text("\n".join(["Status\tModel\tId", *lines]), encoding="utf-8")
    return str(path)


async def bad_night(bench: Bench, open_sandbox: OpenSandbox, more: str = "") -> None:
    """Leave every job unknown: the two in the middle were never bought."""
    for fault in ("lost-answer", "dropped-submit", "lost-answer"):
        async with open_sandbox(faults=fault + more) as sandbox:
            summary = await bench.run(SIX, sandbox, limit=2)
    assert summary.unknown == 6
    assert len(sandbox.accepted()) == 4


async def test_one_paste_attaches_what_was_bought_and_the_next_run_collects_it(
    bench: Bench, open_sandbox: OpenSandbox, capsys: Captured
) -> None:
    await bad_night(bench, open_sandbox)
    async with open_sandbox(faults="echo") as sandbox:
        bought = ids_by_picture(sandbox)
        page = pasted(bench.folder, list(bought.values()))
        assert await resolve(bench, sandbox, "--match", page, "--json") == ExitCode.SOME_FAILED
        found = json.loads(capsys.readouterr().out)
        pairs = {one["job"]: one["request_id"] for one in found["attached"]}
        assert pairs == {
            f"{name.partition('.')[0]}/white": request_id for name, request_id in bought.items()
        }
        assert [one["job"] for one in found["unknown"]] == ["p2/white", "p3/white"]
        # A second time: all are known by now.
        assert await resolve(bench, sandbox, "--match", page) == ExitCode.SOME_FAILED
        assert "nothing was attached" in capsys.readouterr().out
        assert len(resolved(bench)) == len(bought)
        await resolve(bench, sandbox, "--all", "--resubmit", "--not-bought")
        summary = await bench.run(SIX, sandbox)
        assert (summary.exit_code, summary.done) == (ExitCode.DONE, 6)
        assert len(sandbox.accepted()) == 6
        assert str(summary.spent_usd) == "0.30"


@pytest.mark.parametrize(
    ("at_night", "faults"), [("", ""), (",stuck", "echo"), ("", "other-account,echo")]
)
async def test_nothing_is_attached_if_the_service_does_not_repeat_what_was_sent(
    bench: Bench, open_sandbox: OpenSandbox, capsys: Captured, at_night: str, faults: str
) -> None:
    await bad_night(bench, open_sandbox, at_night)
    async with open_sandbox(faults=faults) as sandbox:
        page = pasted(bench.folder, list(ids_by_picture(sandbox).values()))
        assert await resolve(bench, sandbox, "--match", page) == ExitCode.SOME_FAILED
        out = capsys.readouterr().out
        assert "--not-bought" not in out
    assert resolved(bench) == []


async def test_a_service_that_does_not_answer_for_every_id_settles_nothing_by_absence(
    bench: Bench, open_sandbox: OpenSandbox, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batch_runner.pacing.pacer._FIRST_BACKOFF_S", 0.0)
    await bad_night(bench, open_sandbox)
    async with open_sandbox(faults="error-500-get") as sandbox:
        page = pasted(bench.folder, list(ids_by_picture(sandbox).values()))
        assert await resolve(bench, sandbox, "--match", page) == ExitCode.UNAVAILABLE
        printed = capsys.readouterr()
        assert "--not-bought" not in printed.out
        assert "hint: " in printed.err
    assert resolved(bench) == []


async def test_attaching_another_jobs_request_is_refused(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    await bad_night(bench, open_sandbox)
    async with open_sandbox(faults="echo") as sandbox:
        (name, request_id), *_ = ids_by_picture(sandbox).items()
        fitting = f"{name.partition('.')[0]}/white"
        other = "p0/white" if fitting != "p0/white" else "p1/white"
        with pytest.raises(UsageError, match="its image_urls is ") as caught:
            await resolve(bench, sandbox, other, "--attach", request_id)
        assert "nothing was changed" in (caught.value.hint or "")
        assert resolved(bench) == []
        assert await resolve(bench, sandbox, fitting, "--attach", request_id) == ExitCode.DONE
        with pytest.raises(UsageError, match="belongs to the job"):
            await resolve(bench, sandbox, other, "--attach", request_id)


@pytest.mark.parametrize(
    ("word", "spent"),
    [
        (["--abandon"], "0.30"),
        (["--abandon", "--not-bought"], "0.00"),
        (["--resubmit"], "0.30"),
        (["--resubmit", "--not-bought"], "0.00"),
    ],
)
async def test_what_a_person_knows_was_never_bought_is_not_counted_as_spent(
    bench: Bench, open_sandbox: OpenSandbox, word: list[str], spent: str
) -> None:
    async with open_sandbox(faults="lost-answer") as sandbox:
        await bench.run(SIX, sandbox)
        assert await resolve(bench, sandbox, "--all", *word) == ExitCode.DONE
    found = status(bench.batch(SIX, sandbox.url))
    assert (found.unknown, found.cost_usd) == (0, Decimal(spent))
    assert found.reserved_usd == 0


@pytest.mark.parametrize(
    ("word", "submitted"),
    [(["--abandon"], 0), (["--abandon", "--not-bought"], 6), (["--resubmit", "--not-bought"], 6)],
)
@pytest.mark.parametrize("budget", ["0.30", "0.30/night"])
async def test_what_was_never_bought_leaves_its_room_in_the_budget_and_in_tonights(
    bench: Bench, open_sandbox: OpenSandbox, budget: str, word: list[str], submitted: int
) -> None:
    text = SIX.replace("in_flight: 1", f"in_flight: 1, cost_usd: {budget}")
    async with open_sandbox(faults="lost-answer") as sandbox:
        assert (await bench.run(text, sandbox)).unknown == 6
        await resolve(bench, sandbox, "--all", *word)
    async with open_sandbox() as sandbox:
        summary = await bench.run(text.replace("white background", "sand"), sandbox)
        assert summary.submitted == submitted
        assert len(sandbox.accepted()) == 6 + submitted


async def test_an_abandoned_job_comes_back_by_its_name_and_not_by_all(
    bench: Bench, open_sandbox: OpenSandbox, capsys: Captured
) -> None:
    async with open_sandbox(faults="lost-answer") as sandbox:
        await bench.run(SIX, sandbox)
        request_ids = ids_by_picture(sandbox)
    async with open_sandbox(faults="echo") as sandbox:
        await resolve(bench, sandbox, "--all", "--abandon")
        assert await resolve(bench, sandbox) == ExitCode.DONE
        assert "6 jobs abandoned" in capsys.readouterr().out
        assert await resolve(bench, sandbox, "--all", "--resubmit") == ExitCode.DONE
        with pytest.raises(UsageError, match="no unknown job is called"):
            await resolve(bench, sandbox, "p*", "--resubmit")
        assert [one.how for one in resolved(bench)] == ["abandoned"] * 6
        await resolve(bench, sandbox, "p0/white", "--attach", request_ids["p0.png"])
        await resolve(bench, sandbox, "p1/white", "--abandon", "--not-bought")
        await resolve(bench, sandbox, "p2/white", "--resubmit")
        summary = await bench.run(SIX, sandbox)
        assert (summary.done, summary.cancelled, summary.submitted) == (2, 4, 1)
        # Attached: 0.05. Never bought: 0. Bought twice: 0.10. Three that count all the same: 0.15.
        assert str(summary.spent_usd) == "0.30"


async def test_two_unknown_jobs_of_one_key_are_settled_each_by_its_fingerprint(
    bench: Bench, open_sandbox: OpenSandbox, capsys: Captured
) -> None:
    one = "prompts: {white: white}\nimages: {mug: https://cdn.example.com/mug.png}\n"
    async with open_sandbox(faults="lost-answer") as sandbox:
        await bench.run(one, sandbox)
        edited = one.replace("white: white", "white: sand")
        await bench.run(edited, sandbox)
        assert await resolve(bench, sandbox, "--json") == ExitCode.SOME_FAILED
        first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
        assert first["job"] == second["job"] == "mug/white"
        assert await resolve(bench, sandbox, "mug/white") == ExitCode.SOME_FAILED
        out = capsys.readouterr().out
        for found in (first, second):
            assert f"[{found['fingerprint'][:8]}]" in out
            assert f"prompt: {found['input']['prompt']}\n" in out
        with pytest.raises(UsageError, match="2 unknown jobs are called"):
            await resolve(bench, sandbox, "mug/white", "--resubmit")
    async with open_sandbox() as sandbox:
        ids = {one.input["prompt"]: one.request_id for one in sandbox.accepted()}
        await resolve(bench, sandbox, first["fingerprint"][:8], "--abandon")
        await resolve(bench, sandbox, second["fingerprint"][:12], "--attach", ids["sand"])
        summary = await bench.run(edited, sandbox)
        assert (summary.done, len(sandbox.accepted())) == (1, 2)


async def test_a_word_that_names_no_unknown_job_is_refused(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    async with open_sandbox(faults="lost-answer") as sandbox:
        await bench.run(SIX, sandbox, limit=1)
        with pytest.raises(UsageError, match="no unknown job is called 'nobody/white'"):
            await resolve(bench, sandbox, "nobody/white", "--abandon")
    assert resolved(bench) == []


def test_an_option_that_means_nothing_alone_is_refused() -> None:
    command, arguments = parse(["resolve", "batch.yaml", "--not-bought"])
    with pytest.raises(UsageError, match="--not-bought needs --resubmit or --abandon"):
        command.execute(arguments)
