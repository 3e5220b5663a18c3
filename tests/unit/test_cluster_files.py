"""The examples for clusters, held against what their engines say of themselves."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from batch_runner.commands.run import GRACE_S
from batch_runner.errors import ExitCode

JOBS = Path(__file__).parents[2] / "jobs"
SLURM = (JOBS / "slurm.sh").read_text(encoding="utf-8")
KUBERNETES = list(yaml.safe_load_all((JOBS / "kubernetes.yml").read_text(encoding="utf-8")))
JOB = next(document for document in KUBERNETES if document["kind"] == "Job")
POD: dict[str, Any] = JOB["spec"]["template"]["spec"]
# After the grace, calls under way get a few seconds, and notifications up to a minute.
LEAVING_S = GRACE_S + 60


def test_the_slurm_script_is_one_for_bash_and_lets_only_the_index_come_from_slurm() -> None:
    assert subprocess.run(["bash", "-n"], input=SLURM.encode(), check=False).returncode == 0
    shards = int(re.findall("^shards=(.*)$", SLURM, re.MULTILINE)[0])
    assert f"\n#SBATCH --array=0-{shards - 1}\n" in SLURM
    assert '--shard "$SLURM_ARRAY_TASK_ID/$shards"' in SLURM
    commands = [line for line in SLURM.splitlines() if not line.startswith("#")]
    assert set(re.findall(r"SLURM_\w+", "\n".join(commands))) == {
        *("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_JOB_ID", "SLURM_RESTART_COUNT")
    }


def test_a_shard_gets_longer_to_leave_than_its_run_takes() -> None:
    found = re.search(r"--signal=B:TERM@(\d+)", SLURM)
    assert found is not None
    assert int(found[1]) >= LEAVING_S
    assert POD["terminationGracePeriodSeconds"] >= LEAVING_S


@pytest.mark.parametrize("version", ["1.29", "1.31", "1.34"])
def test_kubernetes_knows_every_key(version: str) -> None:
    for document in KUBERNETES:
        kubernetes_validate.validate(document, version, strict=True)


def test_strict_validation_would_find_a_key_that_kubernetes_does_not_know() -> None:
    wrong = {**JOB, "spec": {**JOB["spec"], "backoffLimitPerIndexx": 1}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, "1.31", strict=True)


def test_a_kubernetes_job_has_as_many_indices_as_the_batch_has_shards() -> None:
    spec = JOB["spec"]
    (container,) = POD["containers"]
    values = {one["name"]: one.get("value") for one in container["env"]}
    assert spec["completionMode"] == "Indexed"
    assert spec["completions"] == spec["parallelism"] == int(values["SHARDS"])
    assert "$(JOB_COMPLETION_INDEX)/$(SHARDS)" in container["args"]
    assert spec["podReplacementPolicy"] == "Failed"


def test_kubernetes_repeats_what_is_worth_repeating_and_nothing_else() -> None:
    rules = JOB["spec"]["podFailurePolicy"]["rules"]
    by_code = {
        code: rule["action"]
        for rule in rules
        for code in rule.get("onExitCodes", {}).get("values", ())
    }
    assert by_code.pop(ExitCode.STOPPED_EARLY) == by_code.pop(ExitCode.UNAVAILABLE) == "Count"
    assert set(by_code.values()) == {"FailJob", "FailIndex"}
    # Every way for a run to end by itself has its rule; 130 is told by who stops the pod.
    assert set(by_code) == set(ExitCode) - {0, 69, 75, 130}
    named = {rule["onExitCodes"]["containerName"] for rule in rules if "onExitCodes" in rule}
    assert named == {POD["containers"][0]["name"]}
