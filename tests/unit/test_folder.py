"""A folder of photos as a table: which files, in which order, called how."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from photos import photo

from batch_runner.errors import ManifestError
from batch_runner.manifest.loading import load_manifest
from batch_runner.records import Job
from batch_runner.run.batch import Batch, RunOptions
from batch_runner.run.plan import Action, Planned
from batch_runner.run.survey import Survey
from batch_runner.table import TableForm, read_rows

PROMPT = "prompts: {white: On white.}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    photos = tmp_path / "photos"
    names = ("lamp/2.jpg", "lamp/1.jpg", "mug/front.PNG", "a.jpg", "b c.webp", ".hidden.jpg")
    for number, name in enumerate(names):
        path = photos / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photo(number))
    (photos / "notes.txt").write_text("no picture", encoding="utf-8")
    (photos / "lamp" / "Thumbs.db").write_bytes(b"no picture")
    return photos


@pytest.fixture
def jobs(write_manifest: Callable[[str], Path]) -> Callable[..., list[Job]]:
    def jobs_of(images: str, more: str = "", **options: Any) -> list[Job]:
        options.setdefault("api_base", "http://127.0.0.1")
        manifest = load_manifest(write_manifest(f"{PROMPT}images: {images}\n{more}"))
        return list(Batch(manifest, RunOptions(**options)).jobs())

    return jobs_of


Jobs = Callable[..., list[Job]]


@pytest.mark.parametrize("written", ["photos/", "photos", "./photos/", "photos/*"])
def test_a_folder_is_the_pictures_in_it_in_order(jobs: Jobs, folder: Path, written: str) -> None:
    found = jobs(f'{{from: {written}, id: "{{{{ name }}}}"}}')
    assert [job.image_id for job in found] == ["a.jpg", "b c.webp"]
    assert found[0].input["image_urls"] == [(folder / "a.jpg").as_uri()]


@pytest.mark.parametrize(
    ("pattern", "paths"),
    [
        ("photos/**", ["a.jpg", "b c.webp", "lamp/1.jpg", "lamp/2.jpg", "mug/front.PNG"]),
        ("photos/**/*.jpg", ["a.jpg", "lamp/1.jpg", "lamp/2.jpg"]),
        ("photos/*.jpg", ["a.jpg"]),
        ("photos/lamp/[2-9]*", ["2.jpg"]),
        ("pho?os/*.jpg", ["photos/a.jpg"]),
    ],
)
def test_a_pattern_chooses_files(jobs: Jobs, folder: Path, pattern: str, paths: list[str]) -> None:
    found = jobs(f"{{from: '{pattern}', id: '{{{{ path | replace(\"/\", \"-\") }}}}'}}")
    assert [job.cells["path"] for job in found] == paths


def test_a_files_name_gives_the_columns(jobs: Jobs, folder: Path) -> None:
    found = jobs('{from: "photos/**", id: "{{ folder | default(\'top\') }}-{{ stem }}"}')
    assert [job.image_id for job in found][2:] == ["lamp-1", "lamp-2", "mug-front"]
    assert dict(found[-1].cells) == {
        "stem": "front",
        "name": "front.PNG",
        "path": "mug/front.PNG",
        "folder": "mug",
        "suffix": "PNG",
    }


def test_pictures_of_one_folder_can_be_one_product(jobs: Jobs, folder: Path) -> None:
    images = '{from: "photos/*/*", group: "{{ folder }}", id: "{{ folder }}"}'
    lamp, mug = jobs(images)
    assert (lamp.image_id, mug.image_id) == ("lamp", "mug")
    names = ["lamp/1.jpg", "lamp/2.jpg"]
    assert lamp.input["image_urls"] == [(folder / name).as_uri() for name in names]


def test_with_uploads_each_file_is_called_after_its_content(jobs: Jobs, folder: Path) -> None:
    images, more = '{from: photos/, id: "{{ stem }}"}', "uploads: s3://shop/up\n"
    here, there = jobs(images), jobs(images, more, api_base="https://api.example.com")
    rehearsed = jobs(images, more, rehearsal=True)
    assert [job.fingerprint for job in here] == [job.fingerprint for job in there]
    assert all(job.input["image_urls"][0].startswith("s3://shop/up/") for job in there)
    assert [job.input for job in rehearsed] == [job.input for job in here]
    survey = Survey()
    for job in (*there, *there):
        survey.add(Planned(job, Action.SUBMIT, "new"), None)
    assert survey.uploads == 2
    assert survey.uploads_bytes == sum(
        (folder / name).stat().st_size for name in ("a.jpg", "b c.webp")
    )


# What is wrong


def test_a_broken_picture_is_told_by_its_path(jobs: Jobs, folder: Path) -> None:
    (folder / "lamp" / "1.jpg").write_bytes(photo()[:50])
    with pytest.raises(ManifestError) as caught:
        jobs('{from: photos/lamp/, id: "{{ stem }}"}')
    assert f"{folder}/lamp/1.jpg: " in str(caught.value).replace("/./", "/")
    (problem,) = caught.value.problems
    assert problem.file.endswith("photos/lamp/1.jpg")
    assert problem.what.endswith('the picture "1.jpg" is cut off')
    assert not (caught.value.problems[0].line)


@pytest.mark.parametrize(
    ("images", "why"),
    [
        ('{from: gone/, id: "{{ stem }}"}', "there is no folder"),
        ('{from: photos/*.tif, id: "{{ stem }}"}', "there are no pictures in"),
        ('{from: photos/*.txt, id: "{{ stem }}"}', "but 1 other files"),
        ('{from: "photos/lamp/*", id: "{{ folder }}"}', "the column 'folder' is empty"),
        ('{from: "photos/*/*", id: "{{ folder }}"}', "two pictures have the id 'lamp'"),
        ('{from: photos/, id: "{{ sku }}"}', "'sku'"),
        ('{from: t.csv, id: "{{ sku }}"}', "the key 'urls' is missing"),
    ],
)
def test_what_is_wrong_with_a_folder_is_told(
    jobs: Jobs, folder: Path, images: str, why: str
) -> None:
    with pytest.raises(ManifestError, match=why):
        jobs(images)


@pytest.mark.parametrize(
    ("written", "place"),
    [
        ("./", "."),
        ("photos/", "photos"),
        ("./**", "out"),
        ("photos/**", "photos/edited"),
        ("ph*/*/*.jpg", "photos/edited"),
    ],
)
def test_results_are_never_the_pictures_of_the_next_run(
    jobs: Jobs, folder: Path, written: str, place: str
) -> None:
    images = f'{{from: "{written}", id: "{{{{ stem }}}}"}}'
    with pytest.raises(ManifestError, match=r"is inside the folder of images\.from"):
        jobs(images, f"output: {{dir: {place}}}\n")


# Where results go


def test_the_ledger_of_a_bucket_is_here(write_manifest: Callable[[str], Path]) -> None:
    text = PROMPT + "images: {a: https://a.example/a.png}\n"
    place = "output: {dir: 's3://shop/edited/'%s}\n"
    usual = load_manifest(write_manifest(text + place % ""))
    batch = Batch(usual, RunOptions())
    assert batch.ledgers.own_folder == usual.path.parent / "out" / "batch"
    assert (str(batch.storage), batch.bucket) == ("s3://shop/edited", "s3://shop/edited")
    named = load_manifest(write_manifest(text + place % ", ledger: kept"))
    assert Batch(named, RunOptions()).ledgers.own_folder == usual.path.parent / "kept"
    folder = usual.path.parent / "rehearsed"
    rehearsed = Batch(named, RunOptions(output_dir=folder, rehearsal=True))
    assert (rehearsed.ledgers.own_folder, rehearsed.bucket) == (folder, None)
    assert str(rehearsed.storage) == str(folder)
    assert "a rehearsal touches no bucket" in rehearsed.notes[0]


def test_the_ledger_of_a_folder_can_be_in_another(write_manifest: Callable[[str], Path]) -> None:
    text = PROMPT + "images: {a: https://a.example/a.png}\noutput: {dir: out, ledger: kept}\n"
    manifest = load_manifest(write_manifest(text))
    batch = Batch(manifest, RunOptions())
    folder = manifest.path.parent
    assert (batch.ledgers.own_folder, batch.output_dir) == (folder / "kept", folder / "out")
    batch.storage.prepare()
    assert (folder / "out").is_dir()


def test_what_other_programs_keep_among_photos_is_left_out(
    tmp_path: Path,
) -> None:
    kept = ["mug.jpg", "spring/lamp.JPG", "2020.old/cup.png", "thumbs up/cat.jpeg"]
    others = [
        "@eaDir/mug.jpg/SYNOPHOTO_THUMB_M.jpg",
        "#recycle/mug.jpg",
        "spring/@Recycle/lamp.jpg",
        "Spring.lrdata/1/2.jpg",
        "$Recycle.Bin/x.jpg",
        "lost+found/1.jpg",
        "__MACOSX/mug.jpg",
        "spring/.picasaoriginals/lamp.jpg",
        "._mug.jpg",
        "mug.jpg_original",
        "MVI_1.THM",
        "Shop.photoslibrary/resources/a.jpg",
    ]
    for number, name in enumerate([*kept, *others]):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photo(number))
    notes: list[str] = []
    found = read_rows(tmp_path / "photos", TableForm(pattern="**/*"), notes)
    assert [row.file for row in found] == sorted(kept)
    assert len(notes) == 1
    assert (
        f"left out {len(others)} files that are not called like pictures, or that other" in notes[0]
    )


def test_a_name_says_which_files_are_pictures_and_the_rest_is_told(tmp_path: Path) -> None:
    for name in ("raw.CR2", "IMG_1.jpg.json", "clip.mp4", "d", "torn.jpg", "a.jfif", "b.jpe"):
        (tmp_path / name).write_bytes(photo())
    notes: list[str] = []
    found = [row.file for row in read_rows(tmp_path, TableForm(pattern="*"), notes)]
    assert found == ["a.jfif", "b.jpe", "torn.jpg"]
    assert len(notes) == 1
    assert notes[0].startswith(f"{tmp_path}: left out 4 files that are not called like pictures")
    assert notes[0].endswith(": IMG_1.jpg.json, clip.mp4, d, …")
