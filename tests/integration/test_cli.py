"""The command line in this process: what it prints where, and how it ends."""

from __future__ import annotations

import json
import os
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from batch_runner.commands.arguments import parse
from batch_runner.commands.cli import main
from batch_runner.commands.context import load, run_options
from batch_runner.errors import ExitCode
from batch_runner.ledger.lock import LOCK_NAME, take_lock
from batch_runner.ledger.reading import ledger_path, read_ledger
from batch_runner.records import RunFinished, utc_now
from batch_runner.sandbox.requests import RequestBook, SandboxOptions

TEXT = """\
version: 1
model: google/nano-banana-2/edit
inputs: {resolution: 0.5K, output_format: jpeg}
prompts: {white: white background}
images: {mug: https://cdn.example.com/mug.png, lamp: https://cdn.example.com/lamp.png}
output: {dir: out}
limits: {submits: 1000/s, polls: 1000/s}
"""

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _no_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("RUNCOMFY"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "batch.yaml"
    path.write_text(TEXT, encoding="utf-8")
    return path


def closed_window() -> str:
    hour = (utc_now().hour + 12) % 24
    return f'window: {{hours: "{hour:02d}:00-{hour:02d}:30", timezone: UTC}}\n'


def test_plan_shows_the_window_and_a_rehearsal_ignores_it_and_says_so(
    manifest: Path, capsys: Captured
) -> None:
    manifest.write_text(TEXT + closed_window(), encoding="utf-8")
    assert main(["plan", str(manifest), "--api-base", "https://127.0.0.2.example"]) == ExitCode.DONE
    (shown,) = re.findall("^window: (.*)$", capsys.readouterr().out, re.MULTILINE)
    assert re.fullmatch(r"\d\d:00-\d\d:30 UTC, closed until \d{4}-\d\d-\d\d \d\d:00 UTC", shown)
    assert main(["plan", str(manifest), "--sandbox"]) == ExitCode.DONE
    assert f"{shown} (a rehearsal ignores it)\n" in capsys.readouterr().out
    assert main(["run", str(manifest), "--sandbox"]) == ExitCode.DONE
    out, err = capsys.readouterr()
    assert "2 of 2 jobs done" in out
    assert "window for submits; a rehearsal ignores it" in err


@pytest.mark.parametrize(("words", "is_open"), [((), False), (("--now",), True)])
def test_now_ignores_the_window_of_the_real_service_once(
    manifest: Path, capsys: Captured, words: tuple[str, ...], is_open: bool
) -> None:
    manifest.write_text(TEXT + closed_window(), encoding="utf-8")
    real = ["plan", str(manifest), "--api-base", "https://127.0.0.2.example"]
    assert main([*real, *words]) == ExitCode.DONE
    assert ("(--now ignores it)" in capsys.readouterr().out) == is_open
    _, parsed = parse([*real, *words])
    assert run_options(parsed, load(parsed)).ignore_window == is_open


def test_run_in_the_sandbox_ends_with_a_summary_that_says_where_the_pictures_are(
    manifest: Path, capsys: Captured
) -> None:
    assert main(["run", str(manifest), "--sandbox"]) == ExitCode.DONE
    out, err = capsys.readouterr()
    assert "2 of 2 jobs done" in out
    assert "cost      0.10 USD (sandbox: nothing was charged)" in out
    folder = manifest.parent / "out-sandbox"
    assert f"pictures: {folder.resolve()}" in out
    assert (folder / "mug" / "white.jpg").is_file()
    assert "batch: 0/2 jobs" in err
    assert not (manifest.parent / "out").exists()
    # The counts are the batch's; so what this run cost is not all that they cost.
    assert main(["run", str(manifest), "--sandbox"]) == ExitCode.DONE
    out, _ = capsys.readouterr()
    assert "2 of 2 jobs done" in out
    assert "cost      0.00 USD in this run, 0.10 USD in all (sandbox" in out


def test_the_summary_names_the_command_that_deals_with_what_is_left(
    manifest: Path, capsys: Captured
) -> None:
    code = main(["run", str(manifest), "--sandbox", "--faults", "lost-answer", "--quiet"])
    out, err = capsys.readouterr()
    assert code == ExitCode.SOME_FAILED
    assert "2 jobs may or may not have been bought" in out
    assert f"batch-runner resolve --sandbox {manifest}" in out
    assert "✗ mug/white: unknown: answer lost" in err
    assert main(["run", str(manifest), "--sandbox", "--limit", "1"]) == ExitCode.SOME_FAILED


def test_the_summary_says_how_to_go_on_and_how_to_retry(manifest: Path, capsys: Captured) -> None:
    manifest.write_text(TEXT.replace("white background", "forbidden"), encoding="utf-8")
    assert main(["run", str(manifest), "--sandbox", "--limit", "1"]) == ExitCode.STOPPED_EARLY
    out, _ = capsys.readouterr()
    assert "stopped: --limit 1 is reached" in out
    assert "to resume (nothing is bought twice):" in out
    assert "--retry failed" in out


def test_json_prints_the_records_on_stdout_and_everything_else_on_stderr(
    manifest: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert main(["run", str(manifest), "--sandbox", "--json"]) == ExitCode.DONE
    out, err = capfdbinary.readouterr()
    records = [json.loads(line) for line in out.splitlines()]
    assert [record["record"] for record in records].count("saved") == 2
    assert records[0]["record"] == "run_started"
    assert records[-1]["record"] == "run_finished"
    assert b"2 of 2 jobs done" in err


def test_plan_changes_nothing(manifest: Path, capsys: Captured) -> None:
    assert main(["plan", str(manifest), "--sandbox"]) == ExitCode.DONE
    plan, _ = capsys.readouterr()
    assert "submit" in plan
    assert "new" in plan
    assert "mug/white, lamp/white" in plan
    assert "price: 0.05 USD an output · estimate: 0.10 USD" in plan
    assert sorted(path.name for path in manifest.parent.iterdir()) == ["batch.yaml"]


def test_plan_needs_neither_network_nor_token_and_says_that_it_asked_for_no_price(
    manifest: Path, capsys: Captured
) -> None:
    assert main(["plan", str(manifest)]) == ExitCode.DONE
    out, err = capsys.readouterr()
    assert "price: not known" in out
    assert "without a token" in err


def test_plan_says_when_nothing_checks_the_inputs(manifest: Path, capsys: Captured) -> None:
    manifest.write_text(TEXT.replace("google/nano-banana-2/edit", "some/model"), encoding="utf-8")
    assert main(["plan", str(manifest)]) == ExitCode.DONE
    out, _ = capsys.readouterr()
    assert "inputs: not checked" in out


def test_plan_as_json_is_one_job_a_line(manifest: Path, capsys: Captured) -> None:
    assert main(["plan", str(manifest), "--sandbox", "--json"]) == ExitCode.DONE
    out, _ = capsys.readouterr()
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["job"] for line in lines] == ["mug/white", "lamp/white"]
    assert {line["action"] for line in lines} == {"submit"}
    assert {line["estimate_usd"] for line in lines} == {"0.05"}


def test_plan_shows_the_budget_and_a_balance_that_will_not_do(
    manifest: Path, capsys: Captured
) -> None:
    manifest.write_text(TEXT + "price_usd: 6000\n", encoding="utf-8")
    assert main(["plan", str(manifest), "--sandbox", "--max-cost", "50000"]) == ExitCode.DONE
    out, _ = capsys.readouterr()
    assert "budget: 50000.00 USD, 50000.00 USD left" in out
    assert "balance: 10000.00 USD · the balance does not cover all jobs" in out


def test_status_counts_disjointly_as_text_and_as_json(manifest: Path, capsys: Captured) -> None:
    main(["run", str(manifest), "--sandbox", "--quiet", "--limit", "1"])
    capsys.readouterr()
    assert main(["status", str(manifest), "--sandbox", "--json"]) == ExitCode.DONE
    found = json.loads(capsys.readouterr().out)
    assert found == {
        "jobs": 2,
        "done": 1,
        "failed": 0,
        "unknown": 0,
        "in_flight": 0,
        "pending": 1,
        "cancelled": 0,
        "cost_usd": "0.05",
        "reserved_usd": "0.00",
        "unpriced": 0,
        "unknown_beyond": 0,
        "stopped": "limit",
        "reasons": {},
    }
    assert main(["status", str(manifest), "--sandbox"]) == ExitCode.DONE
    text = capsys.readouterr().out
    assert "spent      0.05 USD, reserved 0.00 USD" in text
    assert "last run: limit" in text


def test_status_before_any_run_has_everything_pending(manifest: Path, capsys: Captured) -> None:
    assert main(["status", str(manifest)]) == ExitCode.DONE
    assert "pending          2" in capsys.readouterr().out


def test_an_invalid_manifest_ends_with_65_and_all_its_problems(
    manifest: Path, capsys: Captured
) -> None:
    manifest.write_text(TEXT.replace("output:", "ouput:") + "repeat: 0\n", encoding="utf-8")
    assert main(["run", str(manifest), "--sandbox"]) == ExitCode.INVALID
    out, err = capsys.readouterr()
    assert out == ""
    assert f"{manifest}:6: unknown key 'ouput'\nhint: did you mean 'output'?" in err
    assert f"{manifest}:8: 'repeat' is 0, less than 1" in err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["run", "nowhere.yaml"], ExitCode.NO_INPUT, "nowhere.yaml: no such file"),
        (
            ["init", "x.yaml", "--from", "https://docs.example.com/t.csv"],
            ExitCode.NO_INPUT,
            "https:/docs.example.com/t.csv: no such file",
        ),
        (["run"], ExitCode.USAGE, "the following arguments are required: manifest\n"),
        (["fly"], ExitCode.USAGE, "there is no command 'fly'"),
        (["run", "MANIFEST", "--limit", "0"], ExitCode.USAGE, "must be 1 or more"),
        (["run", "MANIFEST", "--max-cost", "lots"], ExitCode.USAGE, "not an amount of USD"),
        (["run", "MANIFEST"], ExitCode.REFUSED, "no token for the service"),
        (["run", "MANIFEST", "--faults", "stuck"], ExitCode.USAGE, "--faults needs --sandbox"),
        (
            ["run", "MANIFEST", "--sandbox", "--faults", "stuk"],
            ExitCode.USAGE,
            "did you mean 'stuck'?",
        ),
        (
            ["run", "MANIFEST", "--sandbox", "--api-base", "https://x.example"],
            ExitCode.USAGE,
            "not allowed with",
        ),
        (["plan", "MANIFEST", "--api-base", "http://x.example"], ExitCode.USAGE, "is not https"),
        (["sandbox", "--faults", "stuk"], ExitCode.USAGE, "did you mean 'stuck'?"),
        (
            ["models", "--schema", "google/nano-banana-2/edt"],
            ExitCode.NO_INPUT,
            "no schema of the model",
        ),
    ],
)
def test_every_misuse_has_its_exit_code_and_a_hint(
    manifest: Path, capsys: Captured, words: list[str], code: ExitCode, message: str
) -> None:
    assert main([str(manifest) if word == "MANIFEST" else word for word in words]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert "\nhint: " in err


def test_models_prints_the_schema_of_one(capsys: Captured) -> None:
    assert main(["models", "--schema", "google/nano-banana-2/edit"]) == ExitCode.DONE
    assert "image_urls" in json.loads(capsys.readouterr().out)["properties"]


def test_the_sandbox_explains_its_faults(capsys: Captured) -> None:
    assert main(["sandbox", "--faults", "list"]) == ExitCode.DONE
    assert "lost-answer" in capsys.readouterr().out


def test_the_sandbox_says_when_it_cannot_start(tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    folder = tmp_path / "file" / "folder"
    assert main(["sandbox", "--port", "0", "--folder", str(folder)]) == ExitCode.USAGE
    assert "cannot start the sandbox" in capsys.readouterr().err


@pytest.mark.parametrize("variable", ["RUNCOMFY_API_TOKEN", "RUNCOMFY_TOKEN", "RUNCOMFY_API_KEY"])
def test_the_token_comes_from_the_environment_and_shows_up_nowhere(
    manifest: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured, variable: str
) -> None:
    manifest.write_text(TEXT + "retry: {give_up: 1s, max_wait_s: 0.1}\n", encoding="utf-8")
    monkeypatch.setenv(variable, "a-secret-of-the-user")
    monkeypatch.setenv("RUNCOMFY_API_BASE", "http://127.0.0.1:9")
    assert main(["run", str(manifest)]) == ExitCode.UNAVAILABLE
    out, err = capsys.readouterr()
    written = ledger_path(manifest.parent / "out").read_text(encoding="utf-8")
    assert "a-secret" not in out + err + written
    assert "the service has been away" in err


def test_the_token_that_the_vendors_tool_saved_is_found(
    manifest: Path, tmp_path: Path, write_login: Callable[[str], None], capsys: Captured
) -> None:
    base = ["--api-base", "https://127.0.0.1:9"]
    write_login('{"access_token": "saved-login"}')
    assert main(["plan", str(manifest), *base]) == ExitCode.DONE
    assert "the service did not describe" in capsys.readouterr().err
    write_login("not json")
    monkey_base = ["--api-base", "https://service.invalid"]
    assert main(["run", str(manifest), *monkey_base]) == ExitCode.REFUSED


@pytest.fixture
def write_login(tmp_path: Path) -> Callable[[str], None]:
    def write(text: str) -> None:
        folder = tmp_path / ".config" / "runcomfy"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "token.json").write_text(text, encoding="utf-8")

    return write


def test_version_and_every_help_are_there(capsys: Captured) -> None:
    for words in ([], ["run"], ["plan"], ["status"], ["check"], ["resolve"]):
        with pytest.raises(SystemExit) as caught:
            main([*words, "--help"])
        assert caught.value.code == 0
        assert "usage: batch-runner" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out.startswith("batch_runner ")


def test_a_run_that_finished_says_so_in_the_ledger(manifest: Path) -> None:
    main(["run", str(manifest), "--sandbox", "--quiet"])
    *_, last = read_ledger(ledger_path(manifest.parent / "out-sandbox"))
    assert isinstance(last, RunFinished)
    assert (last.saved, last.submitted, last.stopped) == (2, 2, None)


def test_resolve_lists_unknown_jobs_and_settles_them_by_key_glob_or_all(
    manifest: Path, capsys: Captured
) -> None:
    words = ["resolve", str(manifest), "--sandbox"]
    main(["run", str(manifest), "--sandbox", "--faults", "lost-answer", "--quiet"])
    capsys.readouterr()
    assert main(words) == ExitCode.SOME_FAILED
    out, _ = capsys.readouterr()
    assert "mug/white  sent " in out
    assert "prompt: white background" in out
    assert "KEY --attach REQUEST_ID" in out
    assert main([*words, "mug/*", "--json"]) == ExitCode.SOME_FAILED
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["job"] == "mug/white"
    for wrong, message in (
        (["--abandon"], "which jobs?"),
        (["mug/white", "--all", "--abandon"], "which jobs?"),
        (["--all", "--attach", "abc"], "--attach is for one job, not for 2"),
        (["cup/*", "--abandon"], "no unknown job is called 'cup/*'"),
        (["mug/white", "--attach", "never-heard-of"], "does not know the request"),
        (["mug/white", "--abandon", "--resubmit"], "not allowed with argument"),
        (["mug/white", "--nonsense"], "unrecognized arguments"),
    ):
        assert main([*words, *wrong]) == ExitCode.USAGE
        assert message in capsys.readouterr().err
    requests = manifest.parent / "out-sandbox" / ".sandbox" / "requests.jsonl"
    found = [json.loads(text) for text in requests.read_text(encoding="utf-8").splitlines()]
    request_id = next(one["request_id"] for one in found if "mug.png" in json.dumps(one))
    assert main([*words, "mug/white", "--attach", request_id]) == ExitCode.DONE
    assert f"attached to {request_id}" in capsys.readouterr().out
    assert main([*words, "--all", "--abandon"]) == ExitCode.DONE
    assert main(words) == ExitCode.DONE
    assert main([*words, "--all", "--abandon"]) == ExitCode.DONE
    assert "no job is unknown" in capsys.readouterr().out
    assert main(["run", str(manifest), "--sandbox", "--quiet"]) == ExitCode.DONE
    assert len(requests.read_text(encoding="utf-8").split('"request_id"')) == 3


def test_check_names_each_file_that_is_not_whole_and_restores_it(
    manifest: Path, capsys: Captured
) -> None:
    words = ["check", str(manifest), "--sandbox"]
    assert main(words) == ExitCode.NO_INPUT
    main(["run", str(manifest), "--sandbox", "--quiet"])
    capsys.readouterr()
    assert main(words) == ExitCode.DONE
    assert "2 of 2 files are whole" in capsys.readouterr().err
    picture = manifest.parent / "out-sandbox" / "mug" / "white.jpg"
    picture.write_bytes(b"damaged")
    assert main(words) == ExitCode.SOME_FAILED
    out, err = capsys.readouterr()
    assert out.startswith("* mug/white.jpg\n")
    assert f"restore them for free: batch-runner check --sandbox {manifest} --fix\n" in err
    assert main([*words, "--json"]) == ExitCode.SOME_FAILED
    first, *_ = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["path"], first["finding"]) == ("mug/white.jpg", "differs")
    assert main([*words, "--only", "lamp/*"]) == ExitCode.DONE
    assert "1 of 1 files are whole" in capsys.readouterr().err
    assert main([*words, "--fix"]) == ExitCode.DONE
    assert "1 file to restore\n2 of 2 files are whole" in capsys.readouterr().err
    assert main(words) == ExitCode.DONE


def test_cancel_says_when_nothing_is_in_flight(manifest: Path, capsys: Captured) -> None:
    main(["run", str(manifest), "--sandbox", "--quiet"])
    capsys.readouterr()
    assert main(["resolve", "--cancel", str(manifest), "--sandbox"]) == ExitCode.DONE
    assert capsys.readouterr().out == "nothing is in flight\n"
    assert main(["resolve", "--cancel", str(manifest), "lamp/*", "x", "--sandbox"]) == ExitCode.DONE
    assert capsys.readouterr().out == "nothing in flight is called lamp/* or x\n"
    assert main(["resolve", "--cancel", str(manifest), "--sandbox", "--json"]) == ExitCode.DONE
    assert capsys.readouterr().out == ""


def test_cancel_says_what_has_begun(manifest: Path, capsys: Captured) -> None:
    manifest.write_text(TEXT + "retry: {attempts: 1}\n", encoding="utf-8")
    main(["run", str(manifest), "--sandbox", "--quiet", "--faults", "stuck,error-500-get"])
    capsys.readouterr()
    assert main(["resolve", "--cancel", str(manifest), "--sandbox"]) == ExitCode.SOME_FAILED
    out, _ = capsys.readouterr()
    assert ": it has begun already; run collects it" in out
    assert " of 2 requests cancelled" in out


def test_after_a_rehearsal_alone_status_names_the_command_that_shows_it(
    manifest: Path, capsys: Captured
) -> None:
    assert main(["run", str(manifest), "--sandbox", "--quiet"]) == ExitCode.DONE
    capsys.readouterr()
    real = ["--api-base", "http://127.0.0.1:9"]
    for command in ("status", "export", "report"):
        assert main([command, str(manifest), *real]) == ExitCode.DONE
        said = capsys.readouterr().err
        assert f"hint: see it with: batch-runner {command} --sandbox {manifest}\n" in said
        assert main([command, str(manifest), "--sandbox"]) == ExitCode.DONE
        assert "rehearsal" not in capsys.readouterr().err


def test_check_and_resolve_where_nothing_was_run_say_so_and_what_to_type(
    manifest: Path, capsys: Captured
) -> None:
    commands = ("check", "resolve")
    for command in commands:
        assert main([command, str(manifest)]) == ExitCode.NO_INPUT
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("this batch was never run here: there is no ")
        assert "/out/ledger.jsonl\n" in err
        assert f"hint: run it with: batch-runner run {manifest}\n" in err
    assert not (manifest.parent / "out").exists()
    assert main(["run", str(manifest), "--sandbox", "--quiet"]) == ExitCode.DONE
    capsys.readouterr()
    for command in commands:
        assert main([command, str(manifest)]) == ExitCode.NO_INPUT
        said = "this batch was only rehearsed, in the sandbox\n"
        hint = f"hint: see it with: batch-runner {command} --sandbox {manifest}\n"
        assert capsys.readouterr() == ("", said + hint)


def test_a_plan_ends_with_the_run_that_would_do_it(manifest: Path, capsys: Captured) -> None:
    words = ["--sandbox", "--only", "mug/*", "--max-cost", "1", "--retry", "failed"]
    assert main(["plan", str(manifest), *words]) == ExitCode.DONE
    again = f"run --sandbox --only 'mug/*' --max-cost 1 {manifest} --retry failed"
    assert capsys.readouterr().err.endswith(f"next: batch-runner {again}\n")
    assert main(["run", str(manifest), "--sandbox", "--quiet"]) == ExitCode.DONE
    capsys.readouterr()
    assert main(["plan", str(manifest), "--sandbox"]) == ExitCode.DONE
    assert "next: " not in capsys.readouterr().err


def test_a_misspelled_command_is_told_which_was_meant(manifest: Path, capsys: Captured) -> None:
    assert main(["runn", str(manifest)]) == ExitCode.USAGE
    assert capsys.readouterr().err == "there is no command 'runn'\nhint: did you mean 'run'?\n"


def test_who_uses_the_sandbox_of_a_batch_is_named_with_its_place(
    manifest: Path, capsys: Captured
) -> None:
    (manifest.parent / "jobs").mkdir()
    moved = manifest.rename(manifest.parent / "jobs" / "batch.yaml")
    moved.write_text(TEXT.replace("dir: out", "dir: ../out"), encoding="utf-8")
    folder = manifest.parent / "out-sandbox"
    busy = RequestBook(folder / ".sandbox", SandboxOptions(), time.time)
    try:
        assert main(["run", str(moved), "--sandbox"]) == ExitCode.STOPPED_EARLY
        whose = "(another command that uses the sandbox)"
        assert capsys.readouterr().err.startswith(f"{folder}: another run is at work here {whose}")
        held = take_lock(folder / LOCK_NAME)
        try:
            assert main(["run", str(moved), "--sandbox"]) == ExitCode.STOPPED_EARLY
        finally:
            os.close(held)
        whose = f"(pid {os.getpid()} on {socket.gethostname()})"
        assert capsys.readouterr().err.startswith(f"{folder}: another run is at work here {whose}")
    finally:
        busy.close()


def test_what_is_no_manifest_says_what_to_type_instead(manifest: Path, capsys: Captured) -> None:
    table = manifest.with_name("products.csv")
    table.write_text("sku,url\n1,https://cdn.example.com/a.png\n", encoding="utf-8")
    near = manifest.with_name(f"{manifest.stem}s.yaml")
    for path, code, hint in (
        (table, ExitCode.USAGE, f"draft a manifest for it with: batch-runner init --from {table}"),
        (near, ExitCode.NO_INPUT, "name a manifest, such as jobs/catalog.yaml"),
        (manifest.parent, ExitCode.NO_INPUT, "name a manifest, such as jobs/catalog.yaml"),
    ):
        assert main(["plan", str(path)]) == code
        assert f"hint: {hint}\n" in capsys.readouterr().err
    assert main(["export", str(manifest), "--limit", "1"]) == ExitCode.USAGE
    assert "hint: see batch-runner export --help\n" in capsys.readouterr().err


def test_progress_does_not_call_an_unknown_job_failed(manifest: Path, capsys: Captured) -> None:
    words = ["run", str(manifest), "--sandbox"]
    assert main([*words, "--quiet", "--faults", "lost-answer=100%"]) == ExitCode.SOME_FAILED
    capsys.readouterr()
    assert main(words) == ExitCode.SOME_FAILED
    (line,) = (line for line in capsys.readouterr().err.splitlines() if "in flight" in line)
    assert line.endswith("2/2 jobs, 0 in flight, 2 unknown, $0.00")
