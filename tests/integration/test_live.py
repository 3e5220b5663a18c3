"""A batch that is watched through its growing ledger: the counts are those of `status`, always."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from bench import Bench, OpenSandbox
from conftest import FakeClock

from batch_runner.errors import LedgerDamagedError, LedgerLockedError, UsageError
from batch_runner.ledger.drain import is_asked_to_drain
from batch_runner.ledger.file import Ledger
from batch_runner.ledger.reading import ledger_path, read_ledger
from batch_runner.ledger.tail import Replaced
from batch_runner.manifest.loading import load_manifest
from batch_runner.records import (
    LedgerHeader,
    Record,
    RunFinished,
    RunStarted,
    Saved,
    SavedFile,
    encode,
)
from batch_runner.report.live import Live, Moment, stop_runs
from batch_runner.report.status import status
from batch_runner.run.batch import Batch, RunOptions
from batch_runner.shards.ledgers import Ledgers

TEXT = """\
prompts:
  white: On white.
  bad: forbidden
  twin: On white.
matrix: {seed: [1, 2, 3, 4]}
images: {mug: https://cdn.example.com/mug.png, lamp: https://cdn.example.com/lamp.png}
"""
NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
COUNTS = ("jobs", "done", "failed", "unknown", "in_flight", "pending", "cancelled")


def standing(found: object) -> dict[str, object]:
    names = (*COUNTS, "cost_usd", "reserved_usd", "reasons")
    return {name: getattr(found, name) for name in names}


class Watched:
    """A manifest whose ledger is written by the test, as a run in another process would."""

    def __init__(self, bench: Bench, text: str = TEXT) -> None:
        self.bench = bench
        self.path = bench.write(text)
        self.clock = FakeClock(NOW)
        self.live = Live(self.open_batch(), self.clock)

    def open_batch(self) -> Batch:
        return Batch(load_manifest(self.path), RunOptions(api_base="http://127.0.0.1:1"))

    def stop(self) -> int:
        return stop_runs(self.live.batch.ledgers.paths())

    def look(self) -> Moment:
        """Look as a page does: once the jobs may be others, everything is read again."""
        try:
            return self.live.look()
        except Replaced:
            self.live = Live(self.open_batch(), self.clock)
            return self.live.look()

    @property
    def ledger(self) -> Path:
        return ledger_path(self.bench.output)

    def write(self, *records: Record) -> None:
        self.ledger.parent.mkdir(exist_ok=True)
        with self.ledger.open("ab") as file:
            file.write(b"".join(map(encode, records)))


def header() -> LedgerHeader:
    return LedgerHeader(version=1, at=NOW, program="batch_runner 1", service="local")


def started(run: str = "1", *, pid: int = 1, after_s: float = 0) -> RunStarted:
    return RunStarted(
        at=NOW + timedelta(seconds=after_s),
        run=run,
        pid=pid,
        host="elsewhere",
        program="batch_runner 1",
        manifest_sha256="0",
        jobs=3,
        plan={},
    )


def finished(run: str = "1", stopped: str | None = None) -> RunFinished:
    return RunFinished(
        at=NOW,
        run=run,
        submitted=0,
        saved=0,
        failed=0,
        unknown=0,
        cost_usd=Decimal(0),
        elapsed_s=1,
        stopped=stopped,
    )


def saved(key: str, fingerprint: str, path: str = "a.png", after_s: float = 0) -> Saved:
    file = SavedFile(path=path, size_bytes=3, sha256="0" * 64, media_type="image/png")
    at = NOW + timedelta(seconds=after_s)
    return Saved(at=at, job=key, fingerprint=fingerprint, files=[file])


async def lived(bench: Bench, open_sandbox: OpenSandbox) -> list[Record]:
    """Run a batch twice, with lost answers and refused prompts; return all that was recorded."""
    async with open_sandbox(faults="lost-answer=20%", seed=3) as sandbox:
        await bench.run(TEXT, sandbox, limit=9)
        await bench.run(TEXT, sandbox, retry=("unknown",))
    return list(read_ledger(ledger_path(bench.output)))


async def test_after_every_single_record_the_counts_are_those_of_status(
    bench: Bench, open_sandbox: OpenSandbox, tmp_path: Path
) -> None:
    records = await lived(bench, open_sandbox)
    copy = tmp_path / "copy"
    copy.mkdir()
    watched, seen = Watched(Bench(copy)), set()
    for record in records:
        watched.write(record)
        moment = watched.look()
        assert standing(moment) == standing(status(watched.open_batch()))
        seen |= {name for name in COUNTS if getattr(moment, name)}
    assert {"done", "failed", "unknown", "pending"} <= seen
    late = Live(watched.open_batch(), watched.clock).look()
    assert standing(late) == standing(moment)


def test_before_anything_was_run_all_is_pending(bench: Bench) -> None:
    moment = Watched(bench).live.look()
    assert (moment.jobs, moment.pending, moment.was_run) == (24, 24, False)
    assert moment.stopped is None
    assert not moment.at_work
    assert not moment.is_draining


def test_a_run_without_an_end_whose_lock_is_free_was_killed(bench: Bench) -> None:
    watched = Watched(bench)
    watched.write(header(), started())
    assert watched.look().stopped == "killed"
    watched.write(finished(stopped="budget"))
    assert watched.look().stopped == "budget"
    watched.write(started("2", after_s=9), finished("2"))
    moment = watched.look()
    assert (moment.stopped, moment.was_run) == (None, True)


def test_only_the_run_that_holds_the_lock_is_at_work_and_is_asked_to_stop(bench: Bench) -> None:
    watched = Watched(bench)
    # A run that was killed, and then somebody else who holds the ledger, such as check --fix.
    watched.write(header(), started("killed", pid=999_999))
    ledger = Ledger.open(bench.output, header())
    try:
        assert not watched.look().at_work
        with pytest.raises(LedgerLockedError, match="has not begun to submit"):
            watched.stop()
        mine = ledger.path.with_name(".ledger.lock").read_text(encoding="utf-8").split()
        ours = started("4f1", pid=int(mine[1]))
        ledger.append(msgspec.structs.replace(ours, host=mine[3]))
        moment = watched.look()
        assert moment.at_work == (f"pid {mine[1]} on {mine[3]}",)
        assert moment.stopped == "running"
        assert not moment.is_draining
        assert watched.stop() == 1
        assert is_asked_to_drain(bench.output, "4f1")
        assert not is_asked_to_drain(bench.output, "killed")
        assert watched.look().is_draining
    finally:
        ledger.close()
    assert watched.stop() == 0


def test_rate_and_time_left_follow_the_last_jobs_and_a_halt_shows(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(bench)
    monkeypatch.setattr("batch_runner.report.live.owner_of", lambda _: "pid 1 on elsewhere")
    jobs = list(watched.open_batch().jobs())
    watched.write(header(), started())
    assert watched.look().rate_per_s is None
    for second, job in enumerate(jobs[:8], start=1):
        watched.write(saved(job.key, job.fingerprint, after_s=2 * second))
    watched.clock.elapsed_s = 16
    moment = watched.look()
    assert moment.rate_per_s == pytest.approx(0.5)
    assert moment.left_s == pytest.approx((24 - moment.done) / 0.5)
    watched.clock.elapsed_s = 160
    halted = watched.look()
    assert halted.rate_per_s == pytest.approx(0.05)
    assert watched.stop() == 1
    assert watched.look().left_s is None  # nothing is in flight, and no more is submitted
    watched.write(finished())
    over = watched.look()
    assert over.rate_per_s is over.left_s is None


def test_a_ledger_that_was_replaced_is_counted_anew(bench: Bench) -> None:
    watched = Watched(bench)
    job = next(iter(watched.open_batch().jobs()))
    watched.write(header(), saved(job.key, job.fingerprint))
    first = watched.look()
    assert first.done > 0
    watched.ledger.unlink()
    assert watched.look().done == 0
    watched.write(header(), saved(job.key, job.fingerprint, "b.png"))
    assert watched.look().done == first.done


def test_a_run_of_another_version_of_the_manifest_is_counted_by_that_version(bench: Bench) -> None:
    watched = Watched(bench)
    assert watched.look().jobs == 24
    bench.write(TEXT.replace("[1, 2, 3, 4]", "[1, 2, 3, 4, 5]"))
    assert watched.look().jobs == 24
    watched.write(header(), started())
    assert watched.look().jobs == 30


def test_several_ledgers_add_up(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [bench.folder / "one", bench.folder / "two"]
    monkeypatch.setattr(Ledgers, "paths", lambda _: [ledger_path(one) for one in folders])
    watched = Watched(bench)
    jobs = list(watched.open_batch().jobs())
    for number, folder in enumerate(folders):
        folder.mkdir()
        job = jobs[number]
        lines: list[Record] = [
            header(),
            started(str(number)),
            saved(job.key, job.fingerprint, f"{number}.png"),
        ]
        ledger_path(folder).write_bytes(b"".join(map(encode, lines)))
    moment = watched.look()
    assert moment.done == 4  # each of them has a twin


def test_with_only_the_rest_of_the_batch_is_left_out(bench: Bench) -> None:
    watched = Watched(bench)
    jobs = list(watched.open_batch().jobs())
    lamp = next(job for job in jobs if job.key.startswith("lamp/"))
    mug = next(job for job in jobs if job.key.startswith("mug/"))
    options = RunOptions(api_base="http://127.0.0.1:1", only=("mug/*",))
    live = Live(Batch(load_manifest(watched.path), options), watched.clock)
    watched.write(header(), saved(lamp.key, lamp.fingerprint, "lamp.png"))
    watched.write(saved(mug.key, mug.fingerprint, "mug.png"))
    moment = live.look()
    assert moment.jobs == 12
    assert [one.job.image_id for one in live.details()] == ["mug"] * 12


def test_damage_and_another_services_ledger_are_refused(bench: Bench) -> None:
    watched = Watched(bench)
    watched.write(header())
    watched.look()
    with watched.ledger.open("ab") as file:
        file.write(b'{"record":"submitted","at":"2026-03-02T12:00:00Z","job":"a"')
        file.write(b',"fingerprint":"f","request_id":"r"}\n')
    with pytest.raises(LedgerDamagedError, match=r"ledger\.jsonl:2: .*never submitted"):
        watched.look()
    other = Watched(Bench(bench.folder))
    other.ledger.write_bytes(
        encode(LedgerHeader(version=1, at=NOW, program="p", service="https://x.example"))
    )
    with pytest.raises(UsageError, match="belongs to another service"):
        other.look()
