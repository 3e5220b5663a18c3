"""What the shell is told: every exit code, by every way that leads there, from the real command."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from command import COMMAND, PROJECT, accepted, records_of, run, wait_for, write

from batch_runner.errors import ExitCode
from batch_runner.ledger.file import Ledger
from batch_runner.records import LedgerHeader, utc_now

Done = subprocess.CompletedProcess[str]

NOWHERE = "http://127.0.0.1:9"


class Scene(NamedTuple):
    """A folder with a manifest of six jobs, and a sandbox for those who ask for it."""

    folder: Path
    request: pytest.FixtureRequest

    @property
    def sandbox(self) -> str:
        address: str = self.request.getfixturevalue("sandbox")
        return address

    @property
    def manifest(self) -> Path:
        return self.folder / "batch.yaml"

    @property
    def ledger(self) -> Path:
        return self.folder / "out" / "ledger.jsonl"

    def change(self, old: str, new: str) -> None:
        text = self.manifest.read_text(encoding="utf-8")
        assert old in text
        self.manifest.write_text(text.replace(old, new), encoding="utf-8")

    def run(self, *words: str, api_base: str | None = None, **environment: str) -> Done:
        base = self.sandbox if api_base is None else api_base
        return run("run", str(self.manifest), "--api-base", base, *words, **environment)

    def rehearse(self, faults: str) -> Done:
        return run("run", str(self.manifest), "--sandbox", "--faults", faults)


def all_done(scene: Scene) -> Done:
    return scene.run()


def a_bug(scene: Scene) -> Done:
    """Break the program itself, in the midst of a run; what was bought is there for the next."""
    code = (
        "import sys\nfrom batch_runner.commands.cli import main\n"
        "from batch_runner.run.save import Saving\n"
        "def broken(*_): raise ZeroDivisionError('a bug')\n"
        "Saving.download = broken\nsys.exit(main())"
    )
    words = ["run", str(scene.manifest), "--api-base", scene.sandbox]
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert "Traceback" in done.stderr
    bought = accepted(scene.folder)
    assert bought
    assert scene.run().returncode == 0
    assert set(accepted(scene.folder).values()) == {1}
    return done


def some_failed(scene: Scene) -> Done:
    scene.change("make it sepia", "forbidden")
    return scene.run()


def some_unknown(scene: Scene) -> Done:
    return scene.rehearse("lost-answer")


def a_file_that_differs(scene: Scene) -> Done:
    assert scene.run().returncode == 0
    next((scene.folder / "out").rglob("*.jpg")).write_bytes(b"another picture")
    return run("check", str(scene.manifest), "--api-base", scene.sandbox)


def wrong_usage(scene: Scene) -> Done:
    return scene.run("--limit", "0", api_base=NOWHERE)


def another_services_ledger(scene: Scene) -> Done:
    assert scene.run().returncode == 0
    return scene.run(api_base="https://api.example.com", RUNCOMFY_API_TOKEN="x")


def an_invalid_manifest(scene: Scene) -> Done:
    scene.change("prompts:", "promts:")
    return scene.run(api_base=NOWHERE)


def an_invalid_table(scene: Scene) -> Done:
    (scene.folder / "table.csv").write_text("sku,url\na,https://x.example/a.png\na,b\n")
    images = scene.manifest.read_text(encoding="utf-8").partition("images:\n")[2]
    scene.change(
        images.partition("output")[0],
        "  from: table.csv\n  id: '{{ sku }}'\n  urls: ['{{ url }}']\n",
    )
    return scene.run(api_base=NOWHERE)


def no_such_manifest(scene: Scene) -> Done:
    return run("run", str(scene.folder / "nowhere.yaml"))


def no_such_table(scene: Scene) -> Done:
    images = scene.manifest.read_text(encoding="utf-8").partition("images:\n")[2]
    scene.change(
        images.partition("output")[0], "  from: nowhere.csv\n  id: '{{ a }}'\n  urls: ['{{ b }}']\n"
    )
    return scene.run(api_base=NOWHERE)


def a_service_that_is_away(scene: Scene) -> Done:
    scene.change("output:", "retry: {give_up: 1s, max_wait_s: 0.1}\noutput:")
    return scene.run(api_base=NOWHERE)


def a_service_that_says_429_alone(scene: Scene) -> Done:
    scene.change("output:", "retry: {give_up: 1s, max_wait_s: 0.1}\noutput:")
    return scene.rehearse("rate-limit")


def a_damaged_ledger(scene: Scene) -> Done:
    assert scene.run().returncode == 0
    scene.ledger.write_bytes(b"nonsense\n" + scene.ledger.read_bytes())
    return scene.run()


def a_folder_that_cannot_be(scene: Scene) -> Done:
    (scene.folder / "out").write_text("a file in its place")
    return scene.run(api_base=NOWHERE)


def the_limit_is_reached(scene: Scene) -> Done:
    return scene.run("--limit", "1")


def the_budget_is_used_up(scene: Scene) -> Done:
    return scene.run("--max-cost", "0.12")


def the_failure_brake(scene: Scene) -> Done:
    scene.change("make it sepia", "forbidden")
    scene.change("submits: 500/s", "failures: 1, submits: 500/s")
    return scene.run()


def another_run_holds_the_ledger(scene: Scene) -> Done:
    header = LedgerHeader(version=1, at=utc_now(), program="batch_runner", service="local")
    ledger = Ledger.open(scene.folder / "out", header)
    try:
        return scene.run()
    finally:
        ledger.close()


def left_in_flight(scene: Scene) -> Done:
    scene.change("output:", "retry: {stuck: 1s}\noutput:")
    return scene.rehearse("stuck")


def ended_by(scene: Scene, number: signal.Signals) -> Done:
    scene.change("submits: 500/s", "submits: 2/s")
    process = subprocess.Popen(
        [*COMMAND, "run", str(scene.manifest), "--api-base", scene.sandbox],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(scene.ledger, "submitted", 1, process)
    process.send_signal(number)
    out, err = process.communicate(timeout=240)
    assert records_of(scene.ledger, "run_finished") == 1
    return Done(process.args, process.returncode, out, err)


def sigterm(scene: Scene) -> Done:
    return ended_by(scene, signal.SIGTERM)


def sighup(scene: Scene) -> Done:
    return ended_by(scene, signal.SIGHUP)


def ctrl_c(scene: Scene) -> Done:
    return ended_by(scene, signal.SIGINT)


def no_token(scene: Scene) -> Done:
    return scene.run(api_base="https://api.example.com")


def a_token_that_is_refused(scene: Scene) -> Done:
    return scene.rehearse("token-revoked")


def no_balance(scene: Scene) -> Done:
    return scene.rehearse("post-400002")


WAYS: dict[Callable[[Scene], Done], tuple[ExitCode, str]] = {
    all_done: (ExitCode.DONE, "6 of 6 jobs done"),
    a_bug: (ExitCode.BUG, "ZeroDivisionError: a bug\nthis is a bug in batch_runner"),
    some_failed: (ExitCode.SOME_FAILED, "--retry failed"),
    some_unknown: (ExitCode.SOME_FAILED, "6 jobs may or may not have been bought"),
    a_file_that_differs: (ExitCode.SOME_FAILED, "5 of 6 files are whole (- missing, * differs)"),
    wrong_usage: (ExitCode.USAGE, "must be 1 or more"),
    another_services_ledger: (ExitCode.USAGE, "another service (a sandbox on this machine, not"),
    an_invalid_manifest: (ExitCode.INVALID, "unknown key 'promts'"),
    an_invalid_table: (ExitCode.INVALID, "table.csv:3: "),
    no_such_manifest: (ExitCode.NO_INPUT, "nowhere.yaml: no such file"),
    no_such_table: (ExitCode.INVALID, "batch.yaml:7: cannot read table"),
    a_service_that_is_away: (ExitCode.UNAVAILABLE, "the service has been away for"),
    a_service_that_says_429_alone: (ExitCode.UNAVAILABLE, "nothing but 429"),
    a_damaged_ledger: (ExitCode.STORAGE, "ledger.jsonl:1: "),
    a_folder_that_cannot_be: (ExitCode.STORAGE, "out): move it away, or set another output.dir"),
    the_limit_is_reached: (ExitCode.STOPPED_EARLY, "--limit 1 is reached"),
    the_budget_is_used_up: (ExitCode.STOPPED_EARLY, "to resume, raise limits.cost_usd, or run it"),
    the_failure_brake: (ExitCode.STOPPED_EARLY, "too many of the last jobs failed"),
    another_run_holds_the_ledger: (ExitCode.STOPPED_EARLY, "another run is at work here"),
    left_in_flight: (ExitCode.STOPPED_EARLY, "in flight      6"),
    sigterm: (ExitCode.STOPPED_EARLY, "ended by SIGTERM"),
    sighup: (ExitCode.STOPPED_EARLY, "ended by SIGHUP"),
    no_token: (ExitCode.REFUSED, "no token for the service"),
    a_token_that_is_refused: (ExitCode.REFUSED, "refused the token"),
    no_balance: (ExitCode.REFUSED, "the account has no balance"),
    ctrl_c: (ExitCode.INTERRUPTED, "interrupted by Ctrl-C"),
}


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_every_way_to_end_has_its_exit_code(
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    way: Callable[[Scene], Done],
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # no login of this machine's user
    for name in ("RUNCOMFY_API_TOKEN", "RUNCOMFY_TOKEN", "RUNCOMFY_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    write(tmp_path, images=1)
    code, words = WAYS[way]
    done = way(Scene(tmp_path, request))
    assert words in done.stdout + done.stderr
    assert done.returncode == code, done.stderr
    assert ("Traceback" in done.stderr) == (code is ExitCode.BUG)
    # Whoever reads this at seven in the morning finds what to type or to look at next.
    said = done.stdout + done.stderr
    assert re.search(r"^hint: |^  batch-runner |^running it again", said, re.MULTILINE), said


def test_no_exit_code_lacks_a_way_that_leads_there_or_its_place_in_help_and_readme() -> None:
    assert {code for code, _ in WAYS.values()} == set(ExitCode)
    helps = run("--help").stdout
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    for code in ExitCode:
        assert f"{code:d} " in helps
        assert f"| {code:d} |" in readme
