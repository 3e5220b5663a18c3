"""What is told to whom, and that it holds nothing secret."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from run_results import SMALL, broken, ended

from batch_runner.errors import (
    AccessRefusedError,
    LedgerLockedError,
    ManifestError,
    ServiceUnavailableError,
)
from batch_runner.manifest.loading import load_manifest
from batch_runner.report.notify import command_variables
from batch_runner.run.stop import Stop

Write = Callable[..., Path]


# The manifest


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("notify: {on_finish: ./tell.sh 'two words' $WHO}\n", "./tell.sh 'two words' $WHO"),
        ("notify: {}\n", None),
        ("", None),
    ],
)
def test_a_manifest_may_name_a_command(
    write_manifest: Write, text: str, command: str | None
) -> None:
    assert load_manifest(write_manifest(SMALL + text)).on_finish == command


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("on_finish: [tell.sh, SECRET]", "write the command as one text"),
        ("apprise: https://h/SECRET", "'apprise' is no longer a key"),
        ("webhook: https://h/SECRET", "'webhook' is no longer a key"),
        ("heartbeat: https://h/SECRET", "'heartbeat' is no longer a key"),
        ("webhooks: https://h/SECRET", "unknown key 'webhooks'"),
    ],
)
def test_what_cannot_be_told_is_a_problem_of_the_manifest_that_shows_no_secret(
    write_manifest: Write, text: str, what: str
) -> None:
    with pytest.raises(ManifestError) as caught:
        load_manifest(write_manifest(f"{SMALL}notify:\n  {text}\n"))
    assert len(caught.value.problems) == 1
    assert what in caught.value.message
    assert "batch.yaml:6:" in caught.value.message
    assert "SECRET" not in caught.value.message


# The results


def test_a_result_has_a_title_and_the_summary_of_the_run() -> None:
    result = ended()
    assert result.text.startswith("spring: done\n16 of 16 jobs done in 12 s\n")
    assert result.hint is None
    again = ended(cost_usd=Decimal("0.05"), spent_usd=Decimal("0.80"))
    assert "  cost      0.05 USD in this run, 0.80 USD in all\n" in again.text


def test_a_rehearsal_says_that_it_was_one() -> None:
    assert ended(is_sandbox=True).text.startswith("spring (sandbox): done\n")


@pytest.mark.parametrize(
    ("changes", "outcome", "code", "success"),
    [
        ({"failed": 2}, "some failed", 3, False),
        ({"unknown": 1, "failed": 2}, "some failed", 3, False),
        ({"cancelled": 1}, "done", 0, True),
        ({"cancelled": 1, "newly_cancelled": 1}, "some failed", 3, False),
        ({"pending": 3}, "stopped", 75, True),
        ({"in_flight": 3, "failed": 1}, "stopped", 75, True),
        ({"pending": 3, "stop": Stop("window", "it is closed")}, "stopped", 75, True),
        ({"stop": Stop("interrupted", "Ctrl-C"), "pending": 1}, "stopped", 130, False),
        (
            {"stop": Stop.of_error(ServiceUnavailableError("away", hint="later"))},
            "error",
            69,
            False,
        ),
    ],
)
def test_each_way_to_end_has_its_word(
    changes: dict[str, Any], outcome: str, code: int, success: bool
) -> None:
    ending = ended(**changes)
    assert (ending.outcome, ending.exit_code) == (outcome, code)
    assert (command_variables(ending)["BATCH_RUNNER_STATUS"] == "0") == success
    assert ending.hint == ("later" if outcome == "error" else None)


@pytest.mark.parametrize(
    ("stop", "what"),
    [
        (Stop("window", "the window is closed"), "to resume then (--wait waits for it"),
        (Stop("budget", "used up"), "to resume, raise limits.cost_usd"),
        (Stop("failures", "many"), "to resume, once you know"),
        (None, "to resume (nothing is bought twice):\n  RUN"),
    ],
)
def test_the_text_says_why_it_stopped_and_how_to_resume(stop: Stop | None, what: str) -> None:
    text = ended(done=1200, jobs=1216, pending=14, failed=2, stop=stop).text
    assert what in text
    assert stop is None or f"stopped: {stop.message}" in text


def test_an_error_before_the_first_submit_says_that_nothing_was_bought(tmp_path: Path) -> None:
    ending = broken(AccessRefusedError("token refused", hint="set another"), tmp_path)
    assert ending.text == "broken: error\ntoken refused\nset another"
    assert (ending.exit_code, ending.submitted, ending.cost_usd) == (77, 0, Decimal(0))
    assert (ending.counts, ending.stopped) == (None, "error")


def test_a_locked_ledger_is_no_success_though_its_exit_code_is_75(tmp_path: Path) -> None:
    ending = broken(LedgerLockedError("another run owns it"), tmp_path)
    assert ending.exit_code == 75
    assert command_variables(ending)["BATCH_RUNNER_STATUS"] == "75"


def test_a_bug_is_told_by_its_name_alone_and_nothing_is_claimed(tmp_path: Path) -> None:
    ending = broken(KeyError("secret"), tmp_path)
    assert ending.text == "broken: error\nKeyError"
    assert (ending.exit_code, ending.submitted, ending.cost_usd) == (1, None, None)


def test_a_command_finds_the_totals_in_variables() -> None:
    assert command_variables(ended(failed=1)) == {
        "BATCH_RUNNER_NAME": "spring",
        "BATCH_RUNNER_EXIT_CODE": "3",
        "BATCH_RUNNER_STATUS": "3",
        "BATCH_RUNNER_OUTCOME": "some failed",
        "BATCH_RUNNER_DONE": "16",
        "BATCH_RUNNER_FAILED": "1",
        "BATCH_RUNNER_UNKNOWN": "0",
        "BATCH_RUNNER_IN_FLIGHT": "0",
        "BATCH_RUNNER_PENDING": "0",
        "BATCH_RUNNER_CANCELLED": "0",
        "BATCH_RUNNER_COST_USD": "0.80",
        "BATCH_RUNNER_ELAPSED_S": "12.346",
        "BATCH_RUNNER_OUTPUT_DIR": "/pictures",
        "BATCH_RUNNER_STOPPED": "",
        "BATCH_RUNNER_TEXT": ended(failed=1).text,
    }
    # A night that will be resumed is no failure.
    assert command_variables(ended(pending=3))["BATCH_RUNNER_STATUS"] == "0"


def test_what_is_not_known_is_empty_for_a_command_and_not_0(tmp_path: Path) -> None:
    variables = command_variables(broken(KeyError(), tmp_path))
    assert variables["BATCH_RUNNER_DONE"] == ""
    assert variables["BATCH_RUNNER_COST_USD"] == ""
    assert variables["BATCH_RUNNER_EXIT_CODE"] == "1"
