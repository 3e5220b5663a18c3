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
    text = ended()["BATCH_RUNNER_TEXT"]
    assert text.startswith("spring: done\n16 of 16 jobs done in 12 s\n")
    again = ended(cost_usd=Decimal("0.05"), spent_usd=Decimal("0.80"))
    assert "  cost      0.05 USD in this run, 0.80 USD in all\n" in again["BATCH_RUNNER_TEXT"]


def test_a_rehearsal_says_that_it_was_one() -> None:
    assert ended(is_sandbox=True)["BATCH_RUNNER_TEXT"].startswith("spring (sandbox): done\n")


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
    assert ending["BATCH_RUNNER_OUTCOME"] == outcome
    assert ending["BATCH_RUNNER_EXIT_CODE"] == str(code)
    assert ending["BATCH_RUNNER_STATUS"] == ("0" if success else str(code))


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
    text = ended(done=1200, jobs=1216, pending=14, failed=2, stop=stop)["BATCH_RUNNER_TEXT"]
    assert what in text
    assert stop is None or f"stopped: {stop.message}" in text


@pytest.mark.parametrize(
    ("error", "text", "code", "cost"),
    [
        (
            AccessRefusedError("token refused", hint="set another"),
            "token refused\nset another",
            77,
            "0",
        ),
        # A locked ledger is no success, though its exit code is 75.
        (LedgerLockedError("another run owns it"), "another run owns it", 75, "0"),
        # A bug is told by its name alone, and nothing is claimed.
        (KeyError("secret"), "KeyError", 1, ""),
    ],
)
def test_an_error_before_the_first_submit_has_no_counts(
    tmp_path: Path, error: Exception, text: str, code: int, cost: str
) -> None:
    ending = broken(error, tmp_path)
    assert ending["BATCH_RUNNER_TEXT"] == f"broken: error\n{text}"
    assert ending["BATCH_RUNNER_STATUS"] == ending["BATCH_RUNNER_EXIT_CODE"] == str(code)
    assert ending["BATCH_RUNNER_COST_USD"] == cost
    assert ending["BATCH_RUNNER_DONE"] == ""


def test_a_command_finds_the_totals_in_variables() -> None:
    found = ended(failed=1)
    text = found.pop("BATCH_RUNNER_TEXT")
    assert text.startswith("spring: some failed\n")
    assert found == {
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
    }
