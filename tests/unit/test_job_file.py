"""Job files, held against what their engines say of themselves."""

from __future__ import annotations

import base64
import dataclasses
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from batch_runner.errors import ExitCode, UsageError
from batch_runner.manifest.loading import load_manifest
from batch_runner.schedulers.job_file import Fleet, job_file, next_steps

HEAD = "version: 1\nname: Spring & Sün\nmodel: google/nano-banana-2/edit\n"
TEXT = """\
prompts: {white: white background}
images: {from: ../tables/products.csv, id: "{{ sku }}", urls: ["{{ url }}"]}
"""
TABLE = "sku,url\nmug,https://cdn.example.com/mug.png\n"


@pytest.fixture
def fleet(tmp_path: Path) -> Callable[..., Fleet]:
    def make(text: str = TEXT, table: str = TABLE, **options: Any) -> Fleet:
        folder = tmp_path / "jobs"
        folder.mkdir(exist_ok=True)
        (tmp_path / "tables").mkdir(exist_ok=True)
        (tmp_path / "tables" / "products.csv").write_bytes(table.encode())
        path = folder / "spring.yaml"
        path.write_text(HEAD + text, encoding="utf-8")
        options = {"shards": 4, "grace_s": 30} | options
        return Fleet(
            name="batch-runner-Spring",
            manifest=load_manifest(path),
            manifest_path=path,
            program=("/opt/batch runner/bin/batch-runner",),
            environment_file=Path("/home/ours/.config/batch-runner/env"),
            **options,
        )

    return make


def kinds(text: str) -> dict[str, Any]:
    """Return the documents of a file for Kubernetes by their kind."""
    return {document["kind"]: document for document in yaml.safe_load_all(text)}


# Slurm


def test_a_slurm_file_writes_the_number_of_shards_out_and_lets_only_the_index_come_from_slurm(
    fleet: Callable[..., Fleet], tmp_path: Path
) -> None:
    text = job_file("slurm", fleet())
    assert subprocess.run(["bash", "-n"], input=text.encode(), check=False).returncode == 0
    assert "#SBATCH --array=0-3\n" in text
    assert '--shard "$SLURM_ARRAY_TASK_ID/4"' in text
    commands = [line for line in text.splitlines() if not line.startswith("#")]
    used = set(re.findall(r"SLURM_\w+", "\n".join(commands)))
    assert used == {"SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_JOB_ID", "SLURM_RESTART_COUNT"}


def test_a_slurm_file_stops_the_shard_long_enough_before_its_time_is_up(
    fleet: Callable[..., Fleet],
) -> None:
    text = job_file("slurm", fleet())
    found = re.search(r"--signal=B:TERM@(\d+)", text)
    assert found is not None
    assert int(found[1]) >= 30 + 60


# Kubernetes


@pytest.mark.parametrize("version", ["1.29", "1.31", "1.34"])
def test_a_kubernetes_file_passes_strict_validation(
    fleet: Callable[..., Fleet], version: str
) -> None:
    for document in yaml.safe_load_all(job_file("kubernetes", fleet())):
        kubernetes_validate.validate(document, version, strict=True)


def test_strict_validation_would_find_a_key_that_kubernetes_does_not_know(
    fleet: Callable[..., Fleet],
) -> None:
    job = kinds(job_file("kubernetes", fleet()))["Job"]
    job["spec"]["backoffLimitPerIndexx"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(job, "1.31", strict=True)


def test_a_kubernetes_job_has_as_many_indices_as_the_batch_has_shards(
    fleet: Callable[..., Fleet],
) -> None:
    spec = kinds(job_file("kubernetes", fleet(shards=7)))["Job"]["spec"]
    assert spec["completionMode"] == "Indexed"
    assert spec["completions"] == spec["parallelism"] == 7
    assert "$(JOB_COMPLETION_INDEX)/7" in spec["template"]["spec"]["containers"][0]["args"]
    assert spec["podReplacementPolicy"] == "Failed"


def test_kubernetes_repeats_what_is_worth_repeating_and_nothing_else(
    fleet: Callable[..., Fleet],
) -> None:
    spec = kinds(job_file("kubernetes", fleet()))["Job"]["spec"]
    by_code = {
        code: rule["action"]
        for rule in spec["podFailurePolicy"]["rules"]
        for code in rule.get("onExitCodes", {}).get("values", ())
    }
    assert by_code.pop(ExitCode.STOPPED_EARLY) == by_code.pop(ExitCode.UNAVAILABLE) == "Count"
    assert set(by_code.values()) == {"FailJob", "FailIndex"}
    # Every way for a run to end by itself has its rule; 130 is told by who stops the pod.
    assert set(by_code) == set(ExitCode) - {0, 69, 75, 130}
    container = spec["template"]["spec"]["containers"][0]["name"]
    assert all(
        rule["onExitCodes"]["containerName"] == container
        for rule in spec["podFailurePolicy"]["rules"]
        if "onExitCodes" in rule
    )


def test_a_pod_is_given_longer_to_leave_than_its_run_takes(fleet: Callable[..., Fleet]) -> None:
    spec = kinds(job_file("kubernetes", fleet(grace_s=300)))["Job"]["spec"]["template"]["spec"]
    args = spec["containers"][0]["args"]
    assert args[args.index("--grace") + 1] == "300"
    assert spec["terminationGracePeriodSeconds"] >= 300 + 60


def mounted(text: str) -> dict[str, bytes]:
    """Return what a pod finds under each path that comes from the ConfigMap."""
    documents = kinds(text)
    config = documents["ConfigMap"]
    contents = {key: value.encode() for key, value in config.get("data", {}).items()}
    binary = config.get("binaryData", {})
    contents |= {key: base64.b64decode(value) for key, value in binary.items()}
    container = documents["Job"]["spec"]["template"]["spec"]["containers"][0]
    return {
        mount["mountPath"]: contents[mount["subPath"]]
        for mount in container["volumeMounts"]
        if "subPath" in mount
    }


@pytest.mark.parametrize(
    "table",
    [TABLE, TABLE.replace("\n", "\r\n"), f" {TABLE}", f"{TABLE}\n\n", f"\ufeff{TABLE}", "sku,url"],
    ids=["plain", "carriage returns", "leading blank", "blank lines", "mark", "no last newline"],
)
def test_a_pod_finds_the_manifest_and_its_table_byte_for_byte_laid_out_as_here(
    fleet: Callable[..., Fleet], table: str
) -> None:
    found = mounted(job_file("kubernetes", fleet(table=table)))
    assert found == {
        "/batch/jobs/spring.yaml": (HEAD + TEXT).encode(),
        "/batch/tables/products.csv": table.encode(),
    }


def test_a_table_too_large_for_a_config_map_goes_to_the_volume(
    fleet: Callable[..., Fleet],
) -> None:
    large = fleet(table=TABLE + "lamp,https://cdn.example.com/lamp.png\n" * 30_000)
    documents = kinds(job_file("kubernetes", large))
    assert "ConfigMap" not in documents
    container = documents["Job"]["spec"]["template"]["spec"]["containers"][0]
    assert {"name": "volume", "mountPath": "/batch"} in container["volumeMounts"]
    assert any("products.csv" in step for step in next_steps("kubernetes", large, "spring.yaml"))


def test_an_absolute_path_is_refused_for_a_container(
    fleet: Callable[..., Fleet],
) -> None:
    with pytest.raises(UsageError, match=r"output\.dir is an absolute path"):
        job_file("kubernetes", fleet(f"{TEXT}output: {{dir: /srv/out}}\n"))


def test_a_batch_whose_ledger_and_pictures_are_in_buckets_needs_no_volume(
    fleet: Callable[..., Fleet],
) -> None:
    text = f"{TEXT}output: {{dir: s3://shop/out, ledger_copy: s3://shop/ledger}}\n"
    documents = kinds(job_file("kubernetes", fleet(text)))
    assert set(documents) == {"ConfigMap", "Job"}
    kubernetes_validate.validate(documents["Job"], "1.34", strict=True)
    pod = documents["Job"]["spec"]["template"]["spec"]
    assert {"name": "ledger", "emptyDir": {}} in pod["volumes"]
    mounts = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    assert mounts["ledger"].startswith("/batch/jobs/out/")
    # Its credentials come from a secret, too.
    assert "envFrom" in pod["containers"][0]


def test_the_image_needs_the_extras_of_the_manifest(
    fleet: Callable[..., Fleet],
) -> None:
    plain = " ".join(next_steps("kubernetes", fleet(), "FILE"))
    assert "install batch-runner in an image" in plain
    text = f"{TEXT}output: {{ledger_copy: s3://shop/ledger}}\nnotify: {{apprise: ['tgram://x']}}\n"
    steps = " ".join(next_steps("kubernetes", fleet(text), "FILE"))
    assert "install batch-runner[s3,notify] in an image" in steps


def test_a_folder_of_the_ledger_alone_is_kept_as_well(fleet: Callable[..., Fleet]) -> None:
    text = f"{TEXT}output: {{dir: ../pictures, ledger: ../ledgers}}\n"
    pod = kinds(job_file("kubernetes", fleet(text)))["Job"]["spec"]["template"]["spec"]
    mounts = pod["containers"][0]["volumeMounts"]
    assert {"name": "volume", "mountPath": "/batch/ledgers", "subPath": "ledgers"} in mounts
    assert {"name": "volume", "mountPath": "/batch/pictures", "subPath": "pictures"} in mounts


@pytest.mark.parametrize("engine", ["slurm", "kubernetes"])
def test_no_job_file_contains_a_token_and_each_names_its_source(
    fleet: Callable[..., Fleet], monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    monkeypatch.setenv("RUNCOMFY_API_TOKEN", "token-of-the-tests")
    text = job_file(engine, fleet())
    assert "token-of-the-tests" not in text
    assert "RUNCOMFY_API_TOKEN" in text
    assert any(step.startswith("token:") for step in next_steps(engine, fleet(), "FILE"))


@pytest.mark.parametrize("engine", ["slurm", "kubernetes"])
def test_a_shard_of_a_batch_with_a_window_waits_for_it_instead_of_using_up_its_restarts(
    fleet: Callable[..., Fleet], engine: str
) -> None:
    assert "--wait" not in job_file(engine, fleet())
    night = fleet(f'{TEXT}window: {{hours: "22:00-06:00"}}\n')
    assert "--wait" in job_file(engine, night)


def test_a_slurm_file_refuses_a_folder_that_an_sbatch_line_cannot_hold(
    fleet: Callable[..., Fleet],
) -> None:
    odd = dataclasses.replace(fleet(), manifest_path=Path("/srv/'ours'/spring.yaml"))
    with pytest.raises(UsageError, match="cannot be written"):
        job_file("slurm", odd)
