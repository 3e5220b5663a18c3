"""A batch whose table is another batch: what is bought, what travels, and what is refused."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from bench import judge_saved
from conftest import FakeClock
from PIL import Image

from batch_runner.commands.cli import main
from batch_runner.errors import ExitCode
from batch_runner.files.upload import PictureMissingError
from batch_runner.ledger.verdict import Word
from batch_runner.records import Job, LocalFile
from batch_runner.run.pictures_in import PicturesIn
from batch_runner.service.answer import Meaning, Result, Verdict

Captured = pytest.CaptureFixture[str]

WHITE = """\
version: 1
model: google/nano-banana-2/edit
inputs: {resolution: 0.5K}
prompts: {white: Put it on white., grey: Put it on grey.}
images: {from: shop.csv, id: "{{ sku }}", urls: ["{{ url }}"]}
output: {dir: out/white}
"""
SCENE = """\
version: 1
model: google/nano-banana-2/edit
inputs: {resolution: 0.5K}
prompts: {city: "Put the {{ title }} in a city."}
images:
  from: white.yaml
  id: "{{ sku }}"
  where: "{{ row.prompt == 'white' }}"
output: {dir: out/scene}
"""
LAST = SCENE.replace("white.yaml", "scene.yaml").replace("== 'white'", "== 'city'")
TABLE = "sku,title,url\n" + "".join(
    f"p{n},Product {n},https://cdn.example.com/p{n}.png\n" for n in range(3)
)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    (tmp_path / "shop.csv").write_text(TABLE)
    (tmp_path / "white.yaml").write_text(WHITE)
    (tmp_path / "scene.yaml").write_text(SCENE)
    (tmp_path / "last.yaml").write_text(LAST.replace("out/scene", "out/last"))
    return tmp_path


def run(shop: Path, command: str, name: str, *words: str) -> int:
    return main([command, str(shop / f"{name}.yaml"), "--sandbox", *words])


def requests(shop: Path, name: str) -> int:
    path = shop / "out" / f"{name}-sandbox" / ".sandbox" / "requests.jsonl"
    return path.read_text().count('"record":"accepted"') if path.exists() else 0


def sent(shop: Path, name: str) -> list[dict[str, Any]]:
    lines = (shop / "out" / f"{name}-sandbox" / "ledger.jsonl").read_text().splitlines()
    return [line for line in map(json.loads, lines) if line["record"] == "submitting"]


def test_each_step_is_paid_once_and_a_change_buys_only_what_follows_from_it(
    shop: Path, capsys: Captured
) -> None:
    steps = [str(shop / f"{name}.yaml") for name in ("white", "scene", "last")]
    assert main(["run", "--sandbox", *steps, "--quiet"]) == ExitCode.DONE
    assert [requests(shop, name) for name in ("white", "scene", "last")] == [6, 3, 3]
    assert main(["run", "--sandbox", *steps, "--quiet"]) == ExitCode.DONE
    assert [requests(shop, name) for name in ("white", "scene", "last")] == [6, 3, 3]
    # One word in step two: nothing in step one, everything in step two and its successors.
    text = (shop / "scene.yaml").read_text()
    (shop / "scene.yaml").write_text(text.replace("in a city", "on a beach"))
    assert main(["run", "--sandbox", *steps, "--quiet"]) == ExitCode.DONE
    assert [requests(shop, name) for name in ("white", "scene", "last")] == [6, 6, 6]
    # One redo in step one makes exactly its successors new.
    assert run(shop, "redo", "white", "p1/white") == ExitCode.DONE
    assert main(["run", "--sandbox", *steps, "--quiet"]) == ExitCode.DONE
    assert [requests(shop, name) for name in ("white", "scene", "last")] == [7, 7, 7]
    capsys.readouterr()


def test_a_picture_is_recorded_by_its_content_and_no_seed_is_handed_down(shop: Path) -> None:
    text = (shop / "white.yaml").read_text()
    (shop / "white.yaml").write_text(text.replace("{resolution: 0.5K}", "{seed: 7}"))
    assert run(shop, "run", "white", "--quiet") == ExitCode.DONE
    assert run(shop, "run", "scene", "--quiet") == ExitCode.DONE
    for line in sent(shop, "scene"):
        assert "seed" not in line["input"]
        (url,) = line["input"]["image_urls"]
        assert url.startswith("sha256:")
    saved = (shop / "out" / "white-sandbox" / "ledger.jsonl").read_text()
    assert url.removeprefix("sha256:") in saved


def test_the_plan_reports_what_the_step_before_has_not_saved(shop: Path, capsys: Captured) -> None:
    assert run(shop, "plan", "scene") == ExitCode.INVALID
    assert "run it first: batch-runner run white.yaml" in capsys.readouterr().err
    assert run(shop, "run", "white", "--quiet", "--limit", "3") == ExitCode.STOPPED_EARLY
    capsys.readouterr()
    assert run(shop, "plan", "scene") == ExitCode.DONE
    out, err = capsys.readouterr()
    assert "white.yaml: 3 jobs of 6 have no saved picture yet" in out + err


def test_only_accepted_pictures_go_on(shop: Path, capsys: Captured) -> None:
    text = SCENE.replace("row.prompt == 'white'", "verdict == 'accepted'")
    (shop / "scene.yaml").write_text(text)
    assert run(shop, "run", "white", "--quiet") == ExitCode.DONE
    assert run(shop, "plan", "scene") == ExitCode.INVALID
    judge_saved(shop / "out" / "white-sandbox", Word.ACCEPTED, "p1/white")
    capsys.readouterr()
    assert run(shop, "plan", "scene") == ExitCode.DONE
    assert capsys.readouterr().out.startswith("scene: 1 job")


@pytest.mark.parametrize("first", ["scene.yaml", "last.yaml"])
def test_a_circle_of_manifests_names_both(shop: Path, capsys: Captured, first: str) -> None:
    (shop / "white.yaml").write_text(SCENE.replace("white.yaml", first))
    assert run(shop, "plan", "last") == ExitCode.INVALID
    err = capsys.readouterr().err
    assert f"white.yaml takes pictures from {first}, which takes pictures from it in turn" in err
    assert "white.yaml:6: " in err
    (shop / "white.yaml").write_text(SCENE)
    assert run(shop, "plan", "white") == ExitCode.INVALID
    assert "which takes them from itself" in capsys.readouterr().err


def test_a_step_that_stops_early_stops_those_after_it(shop: Path, capsys: Captured) -> None:
    steps = [str(shop / f"{name}.yaml") for name in ("white", "scene")]
    assert main(["run", "--sandbox", *steps, "--limit", "2"]) == ExitCode.STOPPED_EARLY
    assert requests(shop, "scene") == 0
    capsys.readouterr()


class FakeService:
    """Answers results; `is_local` as the real one is not."""

    is_local = False

    def __init__(self, verdict: Verdict) -> None:
        self.verdict = verdict
        self.asked = 0

    async def result(self, _: str) -> Verdict:
        self.asked += 1
        return self.verdict


def saved_result(*urls: str) -> Verdict:
    return Verdict(
        meaning=Meaning.SUCCEEDED, result=Result(outputs=list(urls), cost_usd=Decimal(0))
    )


GONE = Verdict(meaning=Meaning.PERMANENT, reason="not found", message="no such request")


def job_of(*files: LocalFile) -> Job:
    return Job(
        key="a/b",
        fingerprint="f",
        model="m",
        input={"prompt": "x", "image_urls": [file.url for file in files]},
        path="a/b",
        files=files,
    )


def ready(service: FakeService, *, inline: bool = False, works: bool = True) -> PicturesIn:
    async def turn() -> None:
        pass

    async def is_fetchable(_: str) -> bool:
        return works

    setting = SimpleNamespace(
        batch=SimpleNamespace(
            service=service, uploads=None, manifest=SimpleNamespace(uploads_inline=inline)
        ),
        uploads=None,
        downloads=SimpleNamespace(has=is_fetchable),
        clock=FakeClock(),
    )
    return PicturesIn(cast("Any", setting), turn)


def picture(folder: Path, size: int = 4, *, number: int = 1) -> LocalFile:
    path = folder / f"{number}.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n"[:size].ljust(size, b"x"))
    return LocalFile(f"sha256:{number:064}", str(path), size, request_id="r1", number=number)


async def test_a_result_travels_by_the_services_own_address_which_is_asked_for_once(
    tmp_path: Path,
) -> None:
    service = FakeService(saved_result("https://files/1.png?sig=x", "https://files/2.png?sig=x"))
    pictures = ready(service)
    job = job_of(picture(tmp_path, number=2))
    await pictures.prepare(job)
    assert (await pictures.sign(job))["image_urls"] == ["https://files/2.png?sig=x"]
    assert service.asked == 1
    assert job.input["image_urls"] == [f"sha256:{2:064}"]


@pytest.mark.parametrize(
    ("verdict", "works"), [(GONE, True), (saved_result("https://files/1.png"), False)]
)
async def test_a_result_that_is_gone_is_sent_inline_or_is_missing(
    tmp_path: Path, verdict: Verdict, works: bool
) -> None:
    job = job_of(picture(tmp_path))
    sent = await ready(FakeService(verdict), inline=True, works=works).sign(job)
    assert sent["image_urls"][0].startswith("data:")
    with pytest.raises(PictureMissingError, match="name a bucket under uploads:"):
        await ready(FakeService(verdict), works=works).prepare(job)
    gone = job_of(msgspec.structs.replace(job.files[0], path=str(tmp_path / "gone.png")))
    with pytest.raises(PictureMissingError, match="is gone"):
        await ready(FakeService(verdict), inline=True, works=works).prepare(gone)


async def test_a_request_takes_only_so_much_inline(tmp_path: Path) -> None:
    files = [picture(tmp_path, 6 * 2**20, number=number) for number in range(1, 10)]
    with pytest.raises(PictureMissingError, match="a request takes 64 MiB"):
        await ready(FakeService(GONE), inline=True).prepare(job_of(*files))
    with pytest.raises(PictureMissingError, match="name a bucket"):
        big = picture(tmp_path, 6 * 2**20 + 1)
        await ready(FakeService(GONE), inline=True).prepare(job_of(big))


def test_inline_pictures_are_planned_for_the_real_service(shop: Path, capsys: Captured) -> None:
    Image.new("RGB", (8, 8), "red").save(shop / "red.png")
    text = WHITE.partition("images:")[0]
    local = f"{text}images: {{red: red.png}}\noutput: {{dir: out/inline}}\n"
    (shop / "inline.yaml").write_text(local)
    assert main(["plan", str(shop / "inline.yaml")]) == ExitCode.INVALID
    (shop / "inline.yaml").write_text(f"{local}uploads: inline\n")
    capsys.readouterr()
    main(["plan", str(shop / "inline.yaml")])
    assert "2 jobs" in capsys.readouterr().out
