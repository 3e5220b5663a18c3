"""`deliver` and `redo` as a user runs them, and deliveries that are killed at every operation."""

from __future__ import annotations

import csv
import hashlib
import json
import random
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest
from bench import judge_saved
from PIL import Image
from simulation.disk import Crash, Disk, Operation, PowerCut

from batch_runner.commands import deliver
from batch_runner.commands.cli import main
from batch_runner.errors import ExitCode
from batch_runner.ledger.verdict import Word
from batch_runner.pictures.delivery import Finished, Order
from batch_runner.text.path import superseded_path

Captured = pytest.CaptureFixture[str]

MANIFEST = """\
version: 1
model: google/nano-banana-2/edit
inputs: {resolution: 0.5K}
prompts: {white: Put it on white., sunset: A beach at sunset.}
images: {from: shop.csv, id: "{{ sku }}", urls: ["{{ url }}"]}
output: {dir: out/batch}
deliver:
  main:
    dir: out/main
    path: "{{ sku }}.MAIN"
    pictures: saved
    where: "{{ prompt == 'white' }}"
    size: 200
    fit: pad
    format: jpeg
    table:
      kind: %s
      base_url: https://cdn.example.com/main
      handle: "{{ sku }}"
      title: "{{ title }}"
      alt: "{{ title }} on white"
  web: {dir: out/web, size: 64x48, fit: crop, format: webp}
"""
TABLE = """\
sku,title,url
mug,"Mug, large",https://cdn.example.com/old/mug.png
lamp,Lamp,https://cdn.example.com/old/lamp.png
"""


class Inline:
    """Stands for the worker processes, so that a simulated kill hits everything."""

    def __init__(self, function: Callable[[Order], Finished], _: object) -> None:
        self._function = function

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def answers(self, orders: Iterable[Order]) -> Iterator[Finished]:
        return map(self._function, orders)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A batch of four pictures that was rehearsed once for all tests."""
    folder = tmp_path_factory.mktemp("batch")
    (folder / "shop.csv").write_text(TABLE, encoding="utf-8")
    (folder / "batch.yaml").write_text(MANIFEST % "shopify", encoding="utf-8")
    assert main(["run", str(folder / "batch.yaml"), "--sandbox", "--quiet"]) == ExitCode.DONE
    return folder


@pytest.fixture
def batch(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "shop"
    shutil.copytree(saved, folder)
    monkeypatch.setattr(deliver, "Workers", Inline)
    return folder


def run(folder: Path, command: str, *words: str) -> int:
    return main([command, str(folder / "batch.yaml"), "--sandbox", *words])


def tree(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_each_channel_gets_what_it_takes_and_the_shop_its_tables(
    batch: Path, capsys: Captured
) -> None:
    before = tree(batch / "out" / "batch-sandbox")
    assert run(batch, "deliver") == ExitCode.SOME_FAILED  # for the second, nothing was accepted
    out, err = capsys.readouterr()
    assert "main: 2 pictures in " in out
    assert "web: no picture was accepted yet\nhint: judge them with " in err
    for name in ("mug", "lamp"):
        with Image.open(batch / "out" / "main-sandbox" / f"{name}.MAIN.jpg") as image:
            assert (image.size, image.format) == ((200, 200), "JPEG")
    assert before.items() <= tree(batch / "out" / "batch-sandbox").items()
    tables = batch / "out" / "batch-sandbox" / "deliver"
    assert rows(tables / "main-import.csv") == [
        {
            "Handle": sku,
            "Title": title,
            "Image Src": f"https://cdn.example.com/main/{sku}.MAIN.jpg",
            "Image Position": "1",
            "Image Alt Text": f"{title} on white",
        }
        for sku, title in (("mug", "Mug, large"), ("lamp", "Lamp"))
    ]
    assert [row["Image Src"] for row in rows(tables / "main-way-back.csv")] == [
        "https://cdn.example.com/old/mug.png",
        "https://cdn.example.com/old/lamp.png",
    ]


def test_only_accepted_pictures_go_out_unless_all_are_asked_for(
    batch: Path, capsys: Captured
) -> None:
    judge_saved(batch / "out" / "batch-sandbox", Word.ACCEPTED, "mug/sunset")
    assert run(batch, "deliver", "web", "--json") == ExitCode.DONE
    line = json.loads(capsys.readouterr().out)
    assert (line["channel"], line["made"], line["failed"]) == ("web", 1, [])
    assert run(batch, "deliver", "web", "--saved", "--json") == ExitCode.DONE
    line = json.loads(capsys.readouterr().out)
    assert (line["made"], line["unchanged"]) == (3, 1)
    assert run(batch, "deliver", "web", "--json") == ExitCode.DONE
    assert len(json.loads(capsys.readouterr().out)["left"]) == 3


def test_a_changed_recipe_makes_only_its_own_files_again_and_keeps_the_old_ones(
    batch: Path, capsys: Captured
) -> None:
    assert run(batch, "deliver", "--saved", "--json") == ExitCode.DONE
    text = (batch / "batch.yaml").read_text()
    (batch / "batch.yaml").write_text(text.replace("size: 200", "size: 150"))
    capsys.readouterr()
    assert run(batch, "deliver", "--saved", "--json") == ExitCode.DONE
    main_, web = map(json.loads, capsys.readouterr().out.splitlines())
    assert (main_["made"], main_["unchanged"]) == (2, 0)
    assert (web["made"], web["unchanged"]) == (0, 4)
    assert len(list((batch / "out" / "main-sandbox" / "superseded").iterdir())) == 2


def test_a_damaged_original_is_reported_and_stops_no_other(batch: Path, capsys: Captured) -> None:
    path = next((batch / "out" / "batch-sandbox" / "mug").glob("white.*"))
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert run(batch, "deliver", "main") == ExitCode.SOME_FAILED
    out, err = capsys.readouterr()
    assert "main: 1 picture in " in out
    assert "has changed since it was saved\nhint: restore it, for free: batch-runner check" in err


def test_an_original_whose_name_another_job_has_taken_is_found_where_it_was_moved(
    batch: Path,
) -> None:
    assert run(batch, "deliver", "main") == ExitCode.DONE
    before = tree(batch / "out" / "main-sandbox")
    shutil.rmtree(batch / "out" / "main-sandbox")
    folder = batch / "out" / "batch-sandbox"
    (path,) = (folder / "mug").glob("white.*")
    aside = folder / superseded_path(
        str(path.relative_to(folder)), hashlib.sha256(path.read_bytes()).hexdigest()
    )
    aside.parent.mkdir(parents=True)
    path.rename(aside)
    path.write_bytes(b"another job's")
    assert run(batch, "deliver", "main") == ExitCode.DONE
    assert tree(batch / "out" / "main-sandbox") == before


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("dir: out/main", "dir: out/batch/x", "is inside output.dir"),
        ("dir: out/web", "dir: out/main", "is also the folder of the channel 'main'"),
        ("{{ sku }}.MAIN", "{{ brand }}", "'path' cannot be rendered: 'brand' is undefined"),
        ("where:", "x:", "unknown key 'x'"),
        ("size: 200", "size: 0", "size"),
        ('title: "{{ title }}"', "", "the key 'title' is missing"),
        ("{{ sku }}.MAIN", "MAIN", "would both be MAIN"),
    ],
)
def test_a_channel_that_cannot_work_is_refused_with_its_line(
    batch: Path, capsys: Captured, old: str, new: str, what: str
) -> None:
    text = (batch / "batch.yaml").read_text()
    assert old in text
    (batch / "batch.yaml").write_text(text.replace(old, new))
    assert run(batch, "deliver", "--saved") == ExitCode.INVALID
    err = capsys.readouterr().err
    assert what in err
    assert "batch.yaml:" in err
    assert "hint: " in err


@pytest.mark.parametrize(
    ("words", "what"),
    [(("webb",), "hint: did you mean 'web'?"), (("--nothing",), "unrecognized arguments")],
)
def test_a_wrong_command_line_is_refused(
    batch: Path, capsys: Captured, words: tuple[str, ...], what: str
) -> None:
    assert run(batch, "deliver", *words) == ExitCode.USAGE
    assert what in capsys.readouterr().err


def deliveries(batch: Path) -> Any:
    return {
        name: tree(batch / "out" / name)
        for name in ("main-sandbox", "web-sandbox", "batch-sandbox")
        if (batch / "out" / name).exists()
    }


@pytest.mark.parametrize("kind", [Crash, PowerCut])
def test_killed_at_every_operation_and_run_again_gives_the_same_files(
    batch: Path, kind: type[Crash], capsys: Captured
) -> None:
    original = batch.with_name("original")
    shutil.copytree(batch, original)
    disk = Disk(batch)
    with disk.mount():
        assert run(batch, "deliver", "--saved") == ExitCode.DONE
    wanted, operations = deliveries(batch), disk.ordinal
    assert operations > 50
    for number in range(1, operations + 1):
        shutil.rmtree(batch)
        shutil.copytree(original, batch)
        disk = Disk(batch)

        def strike(operation: Operation, number: int = number) -> None:
            if operation.ordinal == number:
                raise kind

        with disk.mount():
            disk.on_operation(strike)
            with pytest.raises(Crash):
                run(batch, "deliver", "--saved")
            disk.on_operation(None)
            disk.kill()
            if kind is PowerCut:
                disk.crash(random.Random(number))
            assert run(batch, "deliver", "--saved") == ExitCode.DONE
        assert deliveries(batch) == wanted, number
    capsys.readouterr()
