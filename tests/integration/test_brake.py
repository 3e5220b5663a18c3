"""Buying stops when what is bought comes to nothing, whatever the reason."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest
from aiohttp import web
from bench import Bench
from conftest import FakeClock
from loopback import serving
from PIL import Image

from batch_runner.errors import ExitCode
from batch_runner.files.folder_storage import FolderStorage
from batch_runner.files.storage import Whole, disk_error
from batch_runner.manifest.form import FailureLimit
from batch_runner.run.brake import TRIAL, Brake

JOBS = 60
# Default limits: those of `limits` are left out.
TEXT = f"""\
prompts: {{white: On white.}}
matrix: {{seed: [{", ".join(map(str, range(JOBS)))}]}}
images: {{mug: https://cdn.example.com/mug.png}}
output: {{dir: out}}
limits: {{downloads: 8}}
"""

_file = io.BytesIO()
Image.new("RGB", (8, 8)).save(_file, "PNG")
PNG = _file.getvalue()


class Service:
    """Accepts whatever comes; `output` makes a result's output, `{here}` being its own origin."""

    def __init__(self, output: Any, *, good: int = 0, answer: Any = None) -> None:
        self.output = output
        self.good = good
        self.answer = answer
        self.posts = 0

    async def serve(self, request: web.Request) -> web.Response:
        if request.method == "POST":
            self.posts += 1
            return web.json_response(self.answer or {"request_id": f"r{self.posts}"})
        if request.path.startswith("/good"):
            return web.Response(body=PNG)
        if request.path.startswith("/page"):
            return web.Response(text="<html>", content_type="text/html")
        if request.path.startswith("/cut"):
            return web.Response(body=PNG[:-8])
        if not request.path.endswith("/result"):
            return web.json_response({}, status=404)
        here = f"http://{request.host}"
        request_id = request.path.split("/")[-2]
        output = self.output
        if self.good > 0:
            self.good -= 1
            output = "{here}/good"
        if isinstance(output, str):
            output = output.replace("{here}", here)
        body = {"request_id": request_id, "status": "completed", "output": output, "cost": 0.05}
        return web.json_response(body)


async def run(bench: Bench, service: Service, clock: FakeClock) -> Any:
    async with serving(service.serve) as url:
        return await bench.run(TEXT, url, clock=clock)


@pytest.mark.parametrize(
    "output",
    [
        "https://files.example.org/a.png",
        "http://cdn.runcomfy.net/a.png",
        "data:image/png;base64,AAAA",
        "{here}/page",
        "{here}/gone",
        "{here}/cut",
        {"images": []},
        {"text": "no"},
    ],
)
async def test_a_run_that_cannot_save_anything_buys_ten_jobs_and_the_next_run_none(
    bench: Bench, clock: FakeClock, output: Any
) -> None:
    service = Service(output)
    summary = await run(bench, service, clock)
    assert service.posts <= TRIAL
    assert summary.exit_code is ExitCode.STOPPED_EARLY
    assert summary.stop.reason == "failures"
    bought = service.posts
    if summary.in_flight:
        again = await run(bench, service, clock)
        assert service.posts == bought
        assert again.stop.reason == "failures"
        # Nothing is lost: they are saved, for free, once that is possible.
        service.output = "{here}/good"
        healed = await run(bench, service, clock)
        assert (healed.exit_code, healed.done, service.posts) == (ExitCode.DONE, JOBS, JOBS)


async def test_a_host_that_is_not_trusted_is_named_in_the_hint(
    bench: Bench, clock: FakeClock
) -> None:
    summary = await run(bench, Service("https://files.example.org/a.png"), clock)
    assert "files.example.org" in summary.stop.message
    assert "output.hosts" in summary.stop.hint
    assert any("output.hosts" in notice for notice in bench.notices)


async def test_answers_that_leave_submits_unknown_stop_after_ten(
    bench: Bench, clock: FakeClock
) -> None:
    service = Service(None, answer={"error_code": 500001, "error_message": "down"})
    summary = await run(bench, service, clock)
    assert service.posts == summary.unknown == TRIAL
    assert summary.stop.reason == "failures"


def unwritable(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: FolderStorage, files: Sequence[Whole]) -> list[Any]:
        error = PermissionError(13, "Permission denied")
        return [disk_error(f"out/{file.path}", error) for file in files]

    monkeypatch.setattr(FolderStorage, "save_whole", refuse)


async def test_a_folder_nobody_can_write_in_stops_the_buying(
    bench: Bench, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    unwritable(monkeypatch)
    service = Service("{here}/good")
    summary = await run(bench, service, clock)
    assert service.posts <= TRIAL
    assert "Permission denied" in summary.stop.message
    assert "write" in summary.stop.hint


async def test_results_that_can_no_longer_be_saved_stop_the_buying_midway(
    bench: Bench, clock: FakeClock
) -> None:
    service = Service("https://files.example.org/a.png", good=15)
    # One after the other: else good ones among the bad would begin the row anew.
    one_by_one = TEXT.replace("downloads: 8", "downloads: 1, in_flight: 1")
    async with serving(service.serve) as url:
        summary = await bench.run(one_by_one, url, clock=clock)
    assert summary.done == 15
    assert service.posts <= 15 + 5 + 5, "five in a row, each with one that was under way"
    assert summary.stop is not None
    assert "in a row" in summary.stop.message


async def test_inline_pictures_are_saved_and_stay_out_of_the_ledger(
    bench: Bench, clock: FakeClock
) -> None:
    inline = base64.b64encode(PNG).decode()
    service = Service({"images": [f"data:image/png;base64,{inline}"]})
    summary = await run(bench, service, clock)
    assert (summary.exit_code, summary.done, len(bench.files)) == (ExitCode.DONE, JOBS, JOBS)
    ledger = await asyncio.to_thread((bench.output / "ledger.jsonl").read_text)
    assert inline not in ledger


async def test_what_comes_along_with_a_picture_does_not_keep_it_from_being_saved(
    bench: Bench, clock: FakeClock
) -> None:
    inline = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    service = Service({"image": inline, "terms": "https://example.org/", "sound": inline})
    summary = await run(bench, service, clock)
    assert (summary.exit_code, summary.done) == (ExitCode.DONE, JOBS)
    assert any("left out" in notice for notice in bench.notices)


async def test_a_refusal_that_buys_nothing_gives_its_turn_back() -> None:
    brake = Brake(FailureLimit(share=0.5))
    for number in range(3 * TRIAL):
        assert await brake.may_buy(str(number))
        assert brake.ended(str(number), was_bought=False) is None


@pytest.mark.parametrize(
    "bad",
    [
        "data:image/png;base64,????",
        "data:image/png;base64,A",
        "data:text/plain,sorry",
        f"data:image/png;base64,{base64.b64encode(PNG[:-8]).decode()}",
    ],
)
@pytest.mark.parametrize("form", ["alone", "with a link", "beside a picture"])
async def test_an_inline_output_that_makes_no_file_fails_its_job(
    bench: Bench, clock: FakeClock, bad: str, form: str
) -> None:
    text = TEXT.replace(f"[{', '.join(map(str, range(JOBS)))}]", "[1]")
    good = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    output = {
        "alone": {"image": bad},
        "with a link": {"image": bad, "terms": "https://example.org/"},
        "beside a picture": {"images": [bad, good]},
    }[form]
    service = Service(output)
    async with serving(service.serve) as url:
        summary = await bench.run(text, url, clock=clock)
        assert (summary.done, summary.failed) == ((1, 0) if "beside" in form else (0, 1))
        assert any("left out an output" in notice for notice in bench.notices)
        again = await bench.run(text, url, clock=clock)
        assert (again.exit_code, service.posts) == (summary.exit_code, 1)
        if summary.failed:
            assert summary.exit_code is ExitCode.SOME_FAILED
            assert summary.cost_usd == Decimal("0.05")
            # A person may buy it again.
            service.output = {"image": good}
            healed = await bench.run(text, url, clock=clock, retry=("failed",))
            assert (healed.done, service.posts) == (1, 2)


@pytest.mark.parametrize(
    ("limit", "most"),
    [
        (FailureLimit(share=0.5), TRIAL),
        (FailureLimit(count=3), TRIAL),
        (FailureLimit(count=25), 25),
    ],
)
async def test_turns_end_when_submits_do(limit: FailureLimit, most: int) -> None:
    brake = Brake(limit)
    stops = []
    for number in range(most):
        assert await brake.may_buy(str(number))
        stops.append(brake.ended(str(number), was_bought=True))
    assert stops[:-1] == [None] * (most - 1)
    assert stops[-1] is not None
    brake.stop()
    assert not await brake.may_buy("another")
