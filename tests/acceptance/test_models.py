"""The manifests about models that ship, run as a person would run them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from browser import Visit, browsing, needs_browser
from command import PROJECT, run
from PIL import Image


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for name in ("jobs", "samples"):
        shutil.copytree(PROJECT / name, folder / name)
    return folder / "jobs"


@pytest.fixture(scope="module")
def films(jobs: Path) -> list[Path]:
    done = run("run", str(jobs / "film.yaml"), "--sandbox", "--quiet")
    assert done.returncode == 0, done.stderr
    assert "4 of 4 jobs done" in done.stdout
    return sorted((jobs.parent / "out" / "film-sandbox").rglob("*.mp4"))


def test_two_models_are_compared_on_the_same_pictures(jobs: Path) -> None:
    words = (str(jobs / "compare.yaml"), "--sandbox")
    planned = run("plan", *words).stdout
    assert "model google/nano-banana-2/edit: 6 jobs · price: 0.05 USD an output" in planned
    assert "price: from 0.04 USD an output · estimate: at least 0.24 USD" in planned
    assert "estimate: at least 0.54 USD" in planned
    assert planned.count("inputs: checked against the schema that the service publishes\n") == 2
    alone = run("plan", *words, "--only", "*model=google/*").stdout
    assert "price: 0.05 USD an output · estimate: 0.30 USD" in alone
    done = run("run", *words, "--quiet")
    assert done.returncode == 0, done.stderr
    output = jobs.parent / "out" / "compare-sandbox"
    for image in ("mug", "lamp", "plant"):
        for prompt in ("white", "wood"):
            first = output / image / f"{prompt}-google-nano-banana-2-edit.png"
            second = output / image / f"{prompt}-blackforestlabs-flux-1-kontext-pro-edit.png"
            for path in (first, second):
                with Image.open(path) as picture:
                    assert picture.size == (1024, 1024)


def test_films_are_made_from_pictures_in_two_shapes(films: list[Path]) -> None:
    assert [path.stem for path in films] == ["turn-16x9", "turn-9x16"] * 2
    if shutil.which("ffprobe") is None:
        pytest.skip("the films are there; ffprobe is not, to play them (apt-get install ffmpeg)")
    for path in films:
        words = ["ffprobe", "-v", "error", "-show_entries", "format=duration", "-of", "csv=p=0"]
        found = subprocess.run([*words, str(path)], capture_output=True, text=True, check=True)
        assert (found.stdout.strip(), found.stderr) == ("4.000000", "")


@needs_browser
def test_a_browser_plays_the_films_of_the_report_to_their_end(
    jobs: Path, films: list[Path]
) -> None:
    assert run("report", str(jobs / "film.yaml"), "--sandbox").returncode == 0
    page = jobs.parent / "out" / "film-sandbox" / "report" / "index.html"
    with browsing() as browser:
        visit = Visit(browser, viewport={"width": 1200, "height": 1200})
        visit.page.goto(page.as_uri())
        visit.wait_until("document.querySelectorAll('video').length == 4")
        visit.page.evaluate(
            "document.querySelectorAll('video').forEach(film => {"
            " film.muted = true; film.loop = false; film.playbackRate = 8; film.play(); })"
        )
        visit.wait_until("[...document.querySelectorAll('video')].every(film => film.ended)")
        found = visit.page.evaluate(
            "[...document.querySelectorAll('video')].map("
            "film => [film.videoWidth, film.videoHeight, film.duration, film.error])"
        )
    assert sorted(found) == [[360, 640, 4, None]] * 2 + [[640, 360, 4, None]] * 2
    assert visit.complaints == []
