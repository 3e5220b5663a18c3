"""What page and table are told of each job, from manifests and ledgers that were never run."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from fabricated import NOBODY, START, fabricate

from batch_runner.ledger.reading import ledger_path
from batch_runner.manifest.loading import load_manifest
from batch_runner.records import Job, Resolved, Submitted, Submitting, Succeeded, encode
from batch_runner.report.details import JobDetails
from batch_runner.report.live import Live
from batch_runner.run.batch import Batch, RunOptions

WriteManifest = Callable[..., Path]

SIGNED = "https://cdn.example.com/mug.png?X-Amz-Signature=abc&X-Amz-Date=1&v=2"
TEXT = f"""\
prompts: {{white: white, sepia: sepia}}
images: {{mug: "{SIGNED}", lamp: https://cdn.example.com/lamp.png}}
inputs: {{resolution: 0.5K}}
output: {{dir: out}}
"""


def _details(path: Path) -> list[JobDetails]:
    return list(_live(path).details())


def _live(path: Path) -> Live:
    batch = Batch(load_manifest(path), RunOptions(api_base=NOBODY, token="any"))
    live = Live(batch)
    live.read()
    return live


def _append(path: Path, *records: Any) -> None:
    with ledger_path(path.parent / "out").open("ab") as file:
        file.writelines(encode(record) for record in records)


def test_each_job_has_its_facts_in_the_order_of_the_manifest(write_manifest: WriteManifest) -> None:
    path = write_manifest(TEXT)
    outcomes = {"mug/white": "done", "mug/sepia": "failed", "lamp/white": "unknown"}
    fabricate(path, lambda job: outcomes.get(job.key, "pending"))
    done, failed, unknown, pending = _details(path)
    assert [one.job.key for one in (done, failed, unknown, pending)] == [
        "mug/white",
        "mug/sepia",
        "lamp/white",
        "lamp/sepia",
    ]
    assert [one.standing for one in (done, failed, unknown, pending)] == [
        "done",
        "failed",
        "unknown",
        "pending",
    ]
    assert (done.prompt, done.inputs) == ("white", {"resolution": "0.5K"})
    assert (done.cost_usd, done.request_id, done.attempts) == (Decimal("0.05"), "request-0", 1)
    assert done.took_s == 5.0
    assert done.submitted_at == START + timedelta(seconds=2)
    assert done.saved_at == START + timedelta(seconds=7)
    assert [file.path for file in done.files] == ["mug/white.jpg"]
    assert (failed.reason, failed.message) == ("content refused", "the model <b>refuses</b> this")
    assert failed.cost_usd == 0
    assert (unknown.reason, unknown.request_id) == ("no usable answer", None)
    assert (pending.attempts, pending.cost_usd, pending.reason) == (0, None, None)


def test_signatures_are_left_out_of_what_is_written_and_kept_for_fetching(
    write_manifest: WriteManifest,
) -> None:
    path = write_manifest(TEXT)
    fabricate(path)
    first = _details(path)[0]
    assert first.sources == ("https://cdn.example.com/mug.png?v=2",)
    assert first.fetchable == (SIGNED,)
    assert first.local == {}


def test_a_job_that_was_sent_twice_tells_of_the_second_time(write_manifest: WriteManifest) -> None:
    path = write_manifest(TEXT)
    batch = fabricate(path, lambda job: "unknown" if job.key == "mug/white" else "pending")
    job = next(batch.jobs())
    later = START + timedelta(hours=1)
    about: dict[str, Any] = {"at": later, "job": job.key, "fingerprint": job.fingerprint}
    send = Submitting(**about, model=job.model, input={}, path=job.path, attempt=1)
    _append(
        path,
        Resolved(**about, how="resubmit"),
        send,
        Submitted(**about, request_id="again"),
        Succeeded(**about, request_id="again", outputs=["https://cdn.runcomfy.net/1.png"]),
    )
    details = _details(path)[0]
    assert (details.standing, details.attempts, details.request_id) == ("in_flight", 2, "again")
    assert details.urls == ("https://cdn.runcomfy.net/1.png",)
    assert details.submitted_at == later
    assert details.took_s == 0.0


def test_a_submit_that_a_killed_run_left_is_unknown(write_manifest: WriteManifest) -> None:
    path = write_manifest(TEXT)
    batch = fabricate(path, lambda job: "pending")
    job = next(batch.jobs())
    about: dict[str, Any] = {"at": START, "job": job.key, "fingerprint": job.fingerprint}
    _append(path, Submitting(**about, model=job.model, input={}, path=job.path, attempt=1))
    details = _details(path)[0]
    assert (details.standing, details.reason) == ("unknown", "no usable answer")


def test_what_left_the_manifest_is_counted(write_manifest: WriteManifest) -> None:
    fabricate(write_manifest(TEXT))
    path = write_manifest(TEXT.replace("sepia: sepia", "sepia: another"))
    found = _live(path)
    assert [one.standing for one in found.details()] == ["done", "pending", "done", "pending"]
    assert found.beyond == 2


def test_nothing_was_run_yet(write_manifest: WriteManifest) -> None:
    path = write_manifest(TEXT)
    assert {one.standing for one in _details(path)} == {"pending"}
    assert not (path.parent / "out").exists()


@pytest.mark.parametrize("times", [("nonsense", "2026-03-02"), (None, None)])
def test_times_that_the_service_did_not_tell_are_taken_from_here(
    write_manifest: WriteManifest, times: tuple[str | None, str | None]
) -> None:
    path = write_manifest(TEXT)
    batch = fabricate(path, lambda job: "in_flight" if job.key == "mug/white" else "pending")
    job: Job = next(batch.jobs())
    about: dict[str, Any] = {"job": job.key, "fingerprint": job.fingerprint}
    ended = Succeeded(
        at=START + timedelta(seconds=12),
        **about,
        request_id="request-0",
        outputs=["https://cdn.runcomfy.net/1.png"],
        created_at=times[0],
        finished_at=times[1],
    )
    _append(path, ended)
    details = _details(path)[0]
    assert details.took_s == 10.0
