"""The manifests in jobs/ as a newcomer uses them: by the commands that their comments show."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from command import COMMAND, PROJECT

from batch_runner.manifest.loading import load_manifest


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in ("jobs", "samples"):
        shutil.copytree(PROJECT / name, tmp_path / name)
    return tmp_path


def shown_commands(manifest: Path) -> list[list[str]]:
    """Return the commands that a manifest's comments show, without the remarks behind them."""
    text = manifest.read_text(encoding="utf-8")
    lines = re.findall(r"^#     batch-runner (.*)$", text, re.MULTILINE)
    return [shlex.split(re.split(r"  +", line)[0]) for line in lines]


def execute(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *words], cwd=folder, capture_output=True, text=True, timeout=240, check=False
    )


@pytest.mark.parametrize("name", ["photos", "shopify", "woocommerce"])
def test_the_commands_in_a_catalogs_comments_do_what_they_say(project: Path, name: str) -> None:
    # jobs/catalog.yaml itself is run by the library example.
    planned, words = shown_commands(project / "jobs" / f"{name}.yaml")
    assert planned == ["plan", *words[1:]]  # which is tried where all manifests are planned
    done = execute(words, project)
    assert done.returncode == 0, done.stderr
    assert list((project / "out" / f"{name}-sandbox").rglob("*.*g"))


def test_pictures_go_out_of_the_door_and_into_the_next_step(project: Path) -> None:
    bought, delivered = shown_commands(project / "jobs" / "deliver.yaml")
    assert execute(bought, project).returncode == 0
    done = execute(delivered, project)
    assert done.returncode == 0, done.stderr
    assert len(list((project / "out" / "marketplace-sandbox").glob("*.MAIN.jpg"))) == 4
    assert len(list((project / "out" / "shop-sandbox").glob("*.webp"))) == 8
    tables = project / "out" / "deliver-sandbox" / "deliver"
    assert (tables / "shop-import.csv").read_text().count("https://cdn.example.com/spring/") == 8
    both, planned = shown_commands(project / "jobs" / "chain.yaml")
    chained = execute(both, project)
    assert chained.returncode == 0, chained.stderr
    assert "4 of 4 jobs done" in chained.stdout
    assert "  skip            4  done" in execute(planned, project).stdout


def test_pictures_are_checked_judged_and_made_again_as_the_comments_tell(project: Path) -> None:
    spoiled, viewed, judged, again, last = shown_commands(project / "jobs" / "review.yaml")
    assert viewed[0] == "view"  # which runs until it is stopped
    first = execute(spoiled, project)
    assert first.returncode == 0, first.stderr
    verdicts = project / "out" / "review-sandbox" / "verdicts.jsonl"
    assert '"by":"check"' in verdicts.read_text(encoding="utf-8")
    done = execute(judged, project)
    assert done.returncode == 0, done.stderr
    assert "accepted 2 pictures\nrejected 1 picture\n" in done.stderr
    assert execute(again, project).returncode == 0
    assert execute(last, project).returncode == 0
    kept = project / "out" / "review-sandbox" / "superseded" / "HL-1003"
    assert list(kept.glob("white-*"))


def test_the_command_beside_a_comparison_lists_what_there_is_to_compare(project: Path) -> None:
    _, words = shown_commands(project / "jobs" / "compare.yaml")
    listed = execute(words, project)
    assert listed.returncode == 0, listed.stderr
    for model_id in ("google/nano-banana-2/edit", "blackforestlabs/flux-1-kontext/pro/edit"):
        assert f"{model_id} " in listed.stdout


def test_the_night_can_be_planned_for_free_and_keeps_its_hours(project: Path) -> None:
    manifest = project / "jobs" / "overnight.yaml"
    for_real, planned = shown_commands(manifest)
    assert for_real == ["run", "jobs/overnight.yaml"]
    assert "submit" in execute(planned, project).stdout
    assert load_manifest(manifest).window is not None


def test_a_bad_night_is_rehearsed_and_put_right_as_the_comments_tell(project: Path) -> None:
    bad_night, status, unknown, settle, again = shown_commands(project / "jobs" / "resume.yaml")
    first = execute(bad_night, project)
    assert first.returncode == 3, first.stderr
    counted = json.loads(execute([*status, "--json"], project).stdout)
    assert counted["failed"] > 0
    assert counted["unknown"] > 0
    assert execute(unknown, project).stdout.count("  sent ") == counted["unknown"]
    assert execute(settle, project).returncode == 0
    last = execute(again, project)
    assert last.returncode == 0, last.stderr
    assert "16 of 16 jobs done" in last.stdout
    # What was done in the bad night was not bought again.
    ledger = (project / "out" / "resume-sandbox" / "ledger.jsonl").read_text(encoding="utf-8")
    assert ledger.count('"record":"submitting"') == 16 + counted["failed"] + counted["unknown"]


# init


@pytest.mark.parametrize("table", ["catalog.csv", "shopify.csv", "woocommerce.csv"])
def test_a_drafted_manifest_runs_as_it_is(project: Path, table: str) -> None:
    drafted = execute(["init", "--from", f"samples/{table}"], project)
    assert drafted.returncode == 0, drafted.stderr
    name = drafted.stdout.strip()
    assert name == f"{Path(table).stem}.yaml"
    (next_command,) = re.findall(r"then batch-runner (.*)$", drafted.stderr, re.MULTILINE)
    assert shlex.split(next_command) == ["plan", name, "--sandbox"]
    assert execute(["run", name, "--sandbox"], project).returncode == 0
    again = execute(["init", "--from", f"samples/{table}"], project)
    assert (again.returncode, again.stdout) == (64, "")
    assert again.stderr == (
        f"{name} already exists, and init never overwrites a file\n"
        "hint: name another file: batch-runner init … other.yaml\n"
    )


def test_what_keeps_a_table_from_being_drafted_is_told_and_nothing_written(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("sku;titel;bild\na;Kännchen;x.jpg\n".encode("cp1252"))
    wrong = execute(["init", "--from", "t.csv"], tmp_path)
    assert wrong.returncode == 65
    assert wrong.stderr.startswith(
        "t.csv:2: is not utf-8\nhint: export the table again as 'CSV UTF-8', or "
    )
    assert execute(["init", "--from", "gone.csv"], tmp_path).returncode == 66
    assert not list(tmp_path.glob("*.yaml"))
