"""The manifests about models that ship, run as a person would run them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from command import PROJECT, run
from PIL import Image


@pytest.fixture
def jobs(tmp_path: Path) -> Path:
    for name in ("jobs", "samples"):
        shutil.copytree(PROJECT / name, tmp_path / name)
    return tmp_path / "jobs"


def test_two_models_are_compared_on_the_same_pictures(jobs: Path) -> None:
    done = run("run", str(jobs / "compare.yaml"), "--sandbox", "--quiet")
    assert done.returncode == 0, done.stderr
    output = jobs.parent / "out" / "compare-sandbox"
    for image in ("mug", "lamp", "plant"):
        for prompt in ("white", "wood"):
            first = output / image / f"{prompt}-google-nano-banana-2-edit.png"
            second = output / image / f"{prompt}-blackforestlabs-flux-1-kontext-pro-edit.png"
            for path in (first, second):
                with Image.open(path) as picture:
                    assert picture.size == (1024, 1024)
    planned = run("plan", str(jobs / "compare.yaml"), "--sandbox")
    assert "model google/nano-banana-2/edit: 6 jobs · price: 0.05 USD an output" in planned.stdout
    assert "price: from 0.04 USD an output" in planned.stdout


def test_one_model_of_a_comparison_can_be_run_alone(jobs: Path) -> None:
    words = ("run", str(jobs / "compare.yaml"), "--sandbox", "--only", "*model=google/*")
    assert "6 of 6 jobs done" in run(*words).stdout


def test_films_are_made_within_their_budget(jobs: Path) -> None:
    done = run("run", str(jobs / "film.yaml"), "--sandbox", "--quiet")
    assert done.returncode == 0, done.stderr
    assert "4 of 4 jobs done" in done.stdout
    films = sorted((jobs.parent / "out" / "film-sandbox").rglob("*.mp4"))
    assert [path.stem for path in films] == ["turn-16x9", "turn-9x16"] * 2
    if shutil.which("ffprobe") is None:
        pytest.skip("the films are there; ffprobe is not, to play them (apt-get install ffmpeg)")
    for path in films:
        words = ["ffprobe", "-v", "error", "-show_entries", "format=duration", "-of", "csv=p=0"]
        found = subprocess.run([*words, str(path)], capture_output=True, text=True, check=True)
        assert (found.stdout.strip(), found.stderr) == ("4.000000", "")
