"""The file for Prometheus: what stands in it, and that nobody ever reads a part of it."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from run_results import broken, ended

from batch_runner.errors import ServiceUnavailableError, StorageError
from batch_runner.files import disk
from batch_runner.report.metrics import metrics_text, write_metrics
from batch_runner.report.result import RunResult

AT = datetime(2026, 3, 2, 12, 0, 0, 250_000, tzinfo=UTC)


def samples(result: RunResult) -> dict[tuple[str, str | None], float]:
    """Read the metrics with the official parser: name and state to value."""
    found = {}
    for family in text_string_to_metric_families(metrics_text(result, AT)):
        assert family.type == "gauge"
        assert family.documentation
        for sample in family.samples:
            assert sample.labels["batch"] == result.batch
            found[sample.name, sample.labels.get("state")] = sample.value
    return found


def test_all_totals_of_a_run_can_be_read_by_the_official_parser() -> None:
    assert samples(ended(failed=1, pending=2, cost_usd=Decimal("1E+2"))) == {
        ("batch_runner_jobs", "done"): 16,
        ("batch_runner_jobs", "failed"): 1,
        ("batch_runner_jobs", "unknown"): 0,
        ("batch_runner_jobs", "in_flight"): 0,
        ("batch_runner_jobs", "pending"): 2,
        ("batch_runner_jobs", "cancelled"): 0,
        ("batch_runner_cost_usd", None): 100,
        ("batch_runner_submitted", None): 16,
        ("batch_runner_elapsed_seconds", None): 12.346,
        ("batch_runner_exit_code", None): 75,
        ("batch_runner_last_run_timestamp_seconds", None): AT.timestamp(),
    }


def test_a_run_that_never_began_has_no_counts_but_an_exit_code(tmp_path: Path) -> None:
    found = samples(broken(ServiceUnavailableError("away"), tmp_path))
    assert found["batch_runner_exit_code", None] == 69
    assert found["batch_runner_cost_usd", None] == 0
    assert not [key for key in found if key[0] == "batch_runner_jobs"]
    assert ("batch_runner_cost_usd", None) not in samples(broken(KeyError(), tmp_path))


@pytest.mark.parametrize("name", ['a "b"', "back\\slash", "new\nline", 'x"} 1\nevil 1', "grün"])
def test_no_name_breaks_out_of_its_label(name: str) -> None:
    assert len(samples(ended(name))) == 11


def test_the_text_is_plain_money_without_exponents() -> None:
    text = metrics_text(ended(cost_usd=Decimal("1E+2")), AT)
    assert 'batch_runner_cost_usd{batch="spring"} 100\n' in text
    assert "# HELP batch_runner_cost_usd What the last run cost, in USD.\n" in text
    assert "# TYPE batch_runner_cost_usd gauge\n" in text


def test_the_file_takes_the_place_of_the_one_before_and_leaves_nothing_beside(
    tmp_path: Path,
) -> None:
    path = tmp_path / "batch.prom"
    path.write_text("before", encoding="utf-8")
    write_metrics(path, ended(), AT)
    assert path.read_text(encoding="utf-8") == metrics_text(ended(), AT)
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "batch.prom"
    link.symlink_to(tmp_path / "real" / "batch.prom")
    write_metrics(link, ended(), AT)
    assert link.is_symlink()
    assert (tmp_path / "real" / "batch.prom").is_file()


def test_a_disk_that_fails_leaves_the_file_before_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(_: int) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "batch.prom"
    path.write_text("before", encoding="utf-8")
    monkeypatch.setattr(disk, "sync_data", no_space)
    with pytest.raises(StorageError, match="No space left on device"):
        write_metrics(path, ended(), AT)
    assert path.read_text(encoding="utf-8") == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_no_file_is_never_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(StorageError, match="is not a regular file"):
        write_metrics(pipe, ended(), AT)
    assert pipe.is_fifo()
    with pytest.raises(StorageError, match="No such file or directory"):
        write_metrics(tmp_path / "nowhere" / "batch.prom", ended(), AT)
    with pytest.raises(StorageError, match="Not a directory"):
        write_metrics(pipe / "batch.prom", ended(), AT)
