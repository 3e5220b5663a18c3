"""Checks of a whole batch: at the end of a run, on request, before money is spent."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Self

import pytest
from bench import judge_saved
from PIL import Image

from batch_runner.commands import check
from batch_runner.commands.cli import main
from batch_runner.commands.context import read_batch
from batch_runner.errors import ExitCode
from batch_runner.ledger.verdict import Result, Word
from batch_runner.ledger.verdict_book import Book
from batch_runner.pictures.kept import Kept, Order

MANIFEST = """\
version: 1
name: shop
model: google/nano-banana-2/edit
prompts: {white: Put it on a pure white background.}
images: {mug: mug.png, lamp: lamp.png, bag: bag.png}
output: {dir: out}
inputs: {aspect_ratio: "1:1", resolution: 0.5K}
"""
PRODUCTS = {"mug": "#b03030", "lamp": "#3050b0", "bag": "#308040"}

measured: list[str] = []


class Inline:
    """Stands for the worker processes, and remembers what was measured."""

    def __init__(
        self, function: Callable[[Order], Kept], _: object, is_left: Callable[[], bool] = bool
    ) -> None:
        self._function = function
        self._is_left = is_left

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def answers(self, orders: Iterable[Order]) -> Iterator[Kept]:
        for order in orders:
            if not self._is_left():
                measured.append(order.of)
                yield self._function(order)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, colour in PRODUCTS.items():
        picture = Image.new("RGB", (512, 512), "#c8c8d8")
        picture.paste(colour, (150, 100, 360, 430))
        picture.paste("#202020", (200, 160, 300, 220))
        picture.save(tmp_path / f"{name}.png")
    monkeypatch.setattr(check, "Workers", Inline)
    measured.clear()
    return tmp_path


def write(folder: Path, *more: str) -> str:
    manifest = folder / "shop.yaml"
    manifest.write_text(MANIFEST + "".join(f"{line}\n" for line in more), encoding="utf-8")
    return str(manifest)


def run(manifest: str, *words: str) -> int:
    return main(["run", manifest, "--sandbox", "--quiet", *words])


def results(folder: Path) -> dict[tuple[str, str], Result]:
    said = Book(folder / "out-sandbox").verdicts().checks.values()
    return {(one.job, one.check): one.result for checks in said for one in checks.values()}


def bought(folder: Path) -> int:
    ledger = (folder / "out-sandbox" / "ledger.jsonl").read_text(encoding="utf-8")
    return ledger.count('"record":"submitted"')


@pytest.mark.parametrize(
    ("spoil", "name"),
    [
        ("blank", "blank"),
        ("unedited", "edited"),
        ("off-white", "white"),
        ("cropped", "cut_off"),
        ("wrong-size", "aspect"),
        ("swapped", "edited"),
    ],
)
def test_each_spoiled_picture_of_a_rehearsal_fails_its_check(
    shop: Path, spoil: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = write(shop, "checks: {white: true, cut_off: true}")
    assert run(manifest, "--faults", spoil) == ExitCode.DONE
    capsys.readouterr()
    assert main(["check", manifest, "--sandbox", "--json"]) == ExitCode.SOME_FAILED
    lines = map(json.loads, capsys.readouterr().out.splitlines())
    failed = [one["job"] for one in lines if (one["check"], one["result"]) == (name, "fail")]
    assert len(failed) >= 2
    assert Result.FAIL in {result for (_, check), result in results(shop).items() if check == name}


def test_sound_pictures_of_a_rehearsal_pass(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = write(shop, "checks: {white: true, cut_off: true}")
    assert run(manifest) == ExitCode.DONE
    assert Result.FAIL not in results(shop).values()
    capsys.readouterr()
    assert main(["check", manifest, "--sandbox", "--json"]) == ExitCode.DONE
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["check"] for line in lines} >= {"blank", "edited", "aspect", "format", "white"}
    assert {line["job"] for line in lines} == {f"{name}/white" for name in PRODUCTS}


def test_a_changed_threshold_is_judged_without_measuring(shop: Path) -> None:
    assert run(write(shop, "checks: {fill: 0.1}")) == ExitCode.DONE
    assert len(measured) == 6  # three results, and what was sent for each
    measured.clear()
    said = Book(shop / "out-sandbox").path
    before = said.read_bytes()
    assert main(["check", write(shop, "checks: {fill: 0.1}"), "--sandbox"]) == ExitCode.DONE
    assert said.read_bytes() == before
    assert main(["check", write(shop, "checks: {fill: 1.0}"), "--sandbox"]) in (0, 3)
    assert said.read_bytes() != before
    assert measured == []


def test_a_failed_check_is_done_again_as_often_as_the_manifest_says(shop: Path) -> None:
    manifest = write(shop, "checks: {}", "review: {redo: {checks: 2}}")
    assert run(manifest, "--faults", "blank") == ExitCode.DONE
    assert bought(shop) == 3 * 3
    assert run(manifest, "--faults", "blank") == ExitCode.DONE
    assert bought(shop) == 3 * 3


def test_nothing_is_done_again_that_a_person_accepted_or_another_attempt_cannot_mend(
    shop: Path,
) -> None:
    plain = write(shop)
    assert run(plain, "--faults", "unedited") == ExitCode.DONE
    judge_saved(shop / "out-sandbox", Word.ACCEPTED, "mug/white")
    manifest = write(shop, "checks: {size: {longest: 5000}}", "review: {redo: {checks: 1}}")
    assert run(manifest) == ExitCode.DONE
    assert bought(shop) == 5  # the lamp and the bag once more; they are still too small


def test_a_limited_run_leaves_what_is_to_be_done_again_to_the_next_one(shop: Path) -> None:
    manifest = write(shop, "checks: {}", "review: {redo: {checks: 1}}")
    run(manifest, "--faults", "blank", "--limit", "2")
    assert bought(shop) == 2
    run(manifest)
    assert bought(shop) == 5


def test_plan_tells_before_money_is_spent_which_jobs_would_fail(
    shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checks = "checks: {size: {longest: 1600}, where: \"{{ prompt == 'white' }}\"}"
    manifest = write(shop, checks)
    assert main(["plan", manifest, "--sandbox"]) == ExitCode.DONE
    assert "would fail" not in capsys.readouterr().err
    assert run(manifest, "--limit", "1") == ExitCode.STOPPED_EARLY
    capsys.readouterr()
    assert main(["plan", manifest, "--sandbox"]) == ExitCode.DONE
    told = " ".join(capsys.readouterr().err.split())
    assert "2 jobs would fail the check 'size': each of 1 saved picture" in told
    assert "resolution: 0.5K" in told
    assert "512 x 512" in told


def test_a_command_s_answers_are_recorded_and_unclear_ones_asked_again(shop: Path) -> None:
    (shop / "own.py").write_text(
        "import json, pathlib, sys\n"
        "asked = pathlib.Path('asked').open('a')\n"
        "for line in sys.stdin:\n"
        "    path, *sources = line.rstrip().split('\\t')\n"
        "    print(path, file=asked)\n"
        "    if 'mug' in path:\n"
        "        print(json.dumps({'path': path, 'result': 'fail', 'why': sources[0][-7:]}))\n"
        "    elif 'lamp' in path:\n"
        "        print(json.dumps({'path': path, 'result': 'pass'}))\n",
        encoding="utf-8",
    )
    manifest = write(shop, "checks: {command: python3 own.py}")
    assert run(manifest) == ExitCode.DONE
    found = {job: result for (job, name), result in results(shop).items() if name == "command"}
    assert found == {"mug/white": "fail", "lamp/white": "pass", "bag/white": "unmeasurable"}
    assert main(["check", manifest, "--sandbox"]) == ExitCode.SOME_FAILED
    asked = (shop / "asked").read_text(encoding="utf-8").split()
    assert len(asked) == 4  # only the bag was asked about again


def test_checks_that_are_interrupted_judge_nothing(
    shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = write(shop)
    assert run(manifest) == ExitCode.DONE
    batch = read_batch(_arguments(manifest))
    assert check.check_batch(batch, lambda: True).pictures == 0
    assert results(shop) == {}
    assert check.check_batch(batch).pictures == 3


def _arguments(manifest: str) -> check.Arguments:
    return check.Arguments(
        command="check", manifest=Path(manifest), sandbox=True, only=[], json=False
    )
