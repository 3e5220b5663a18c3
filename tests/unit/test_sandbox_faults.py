from __future__ import annotations

import pytest

from batch_runner.errors import UsageError
from batch_runner.sandbox import FAULTS, SandboxOptions
from batch_runner.sandbox.faults import FaultPlan, parse_faults


def test_shares_are_percent_or_fractions_and_default_to_always() -> None:
    assert parse_faults("lost-answer=5%, error-500=0.02,stuck") == {
        "lost-answer": 0.05,
        "error-500": 0.02,
        "stuck": 1.0,
    }
    assert parse_faults("") == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lost-anwser", "did you mean 'lost-answer'"),
        ("???", "unknown fault"),
        ("stuck=5", "write 5%"),
        ("stuck=500%", "is not a share"),
        ("stuck=often", "is not a share"),
        ("stuck=", "is not a share"),
        ("stuck,stuck", "twice"),
    ],
)
def test_a_malformed_fault_is_explained(text: str, message: str) -> None:
    with pytest.raises(UsageError, match="fault") as caught:
        SandboxOptions(faults=text)
    assert message in f"{caught.value}\n{caught.value.hint}"


def test_a_fault_strikes_its_share_and_the_same_calls_every_time() -> None:
    def draw() -> list[bool]:
        plan = FaultPlan({"stuck": 0.2}, seed=3)
        return [plan.strikes_call("stuck") for _ in range(2000)]

    assert draw() == draw()
    assert 300 < sum(draw()) < 500


def test_only_selected_faults_strike() -> None:
    plan = FaultPlan({}, seed=0)
    assert not any(plan.strikes_call(name) or plan.strikes_request(name, "a") for name in FAULTS)


def test_a_request_keeps_its_fault() -> None:
    struck = [
        FaultPlan({"evil-url": 0.5}, 1).strikes_request("evil-url", str(n)) for n in range(99)
    ]
    again = [FaultPlan({"evil-url": 0.5}, 1).strikes_request("evil-url", str(n)) for n in range(99)]
    assert struck == again
    assert 20 < sum(struck) < 80
