from __future__ import annotations

import importlib
import pkgutil

import pytest

import batch_runner
from batch_runner import errors
from batch_runner.errors import (
    PROBLEM_LIMIT,
    AccessRefusedError,
    BatchRunnerError,
    ExitCode,
    InputMissingError,
    LedgerDamagedError,
    LedgerLockedError,
    ManifestError,
    Problem,
    ServiceUnavailableError,
    StorageError,
    UsageError,
    closest,
    did_you_mean,
)

EXIT_CODES: dict[type[BatchRunnerError], int] = {
    BatchRunnerError: 1,
    UsageError: 64,
    ManifestError: 65,
    InputMissingError: 66,
    ServiceUnavailableError: 69,
    StorageError: 74,
    LedgerDamagedError: 74,
    LedgerLockedError: 75,
    AccessRefusedError: 77,
}


def every_error(kind: type[BatchRunnerError]) -> set[type[BatchRunnerError]]:
    return {kind}.union(*(every_error(child) for child in kind.__subclasses__()))


def test_every_error_that_ends_a_run_stands_in_one_file_and_has_its_exit_code() -> None:
    for module in pkgutil.walk_packages(batch_runner.__path__, "batch_runner."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found = every_error(BatchRunnerError)
    assert {kind.__module__ for kind in found} == {errors.__name__}
    assert {kind: int(kind.exit_code) for kind in found} == EXIT_CODES


def test_exit_codes_are_the_documented_ones_and_differ() -> None:
    assert [int(code) for code in ExitCode] == [0, 1, 3, 64, 65, 66, 69, 74, 75, 77, 130]
    assert len(set(ExitCode)) == len(ExitCode.__members__)


def test_an_error_carries_its_message_and_its_hint() -> None:
    error = UsageError("no such thing", hint="look again")
    assert (str(error), error.message, error.hint) == ("no such thing",) * 2 + ("look again",)
    assert StorageError("full").hint is None


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        (Problem("a.yaml", 14, "unknown key 'ouput'"), "a.yaml:14: unknown key 'ouput'"),
        (Problem("a.yaml", None, "is empty"), "a.yaml: is empty"),
        (
            Problem("a.yaml", 2, "unknown key 'ouput'", "did you mean 'output'?"),
            "a.yaml:2: unknown key 'ouput'\nhint: did you mean 'output'?",
        ),
    ],
)
def test_a_problem_names_its_place_and_gives_its_hint_on_a_line_of_its_own(
    problem: Problem, text: str
) -> None:
    assert str(problem) == text


def test_a_manifest_error_lists_its_problems_up_to_the_limit_and_says_that_it_stopped() -> None:
    few = ManifestError([Problem("a.yaml", 1, "one"), Problem("a.yaml", 2, "two")])
    assert str(few) == "a.yaml:1: one\na.yaml:2: two"
    many = ManifestError([Problem("a.yaml", line, "wrong") for line in range(PROBLEM_LIMIT + 5)])
    assert len(many.problems) == PROBLEM_LIMIT
    assert str(many).splitlines()[-1] == f"(stopped after {PROBLEM_LIMIT} problems)"


def test_a_hint_that_neighbours_share_is_given_once_after_the_last_of_them() -> None:
    problems = [Problem("a", line, "x", hint) for line, hint in enumerate("ppqp", start=1)]
    assert str(ManifestError(problems)).splitlines() == [
        "a:1: x",
        "a:2: x",
        "hint: p",
        "a:3: x",
        "hint: q",
        "a:4: x",
        "hint: p",
    ]


def test_a_hint_names_the_closest_word_or_else_all_of_them() -> None:
    assert did_you_mean("ouput", ["prompts", "output"]) == "did you mean 'output'?"
    assert did_you_mean("xyz", ["b", "a"]) == "known here: a, b"
    assert did_you_mean("xyz", []) == "there is nothing to choose from"
    assert closest("ouput", ["output"]) == "output"
    assert closest("xyz", ["output"]) is None
