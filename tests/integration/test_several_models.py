"""Several models in one run: what the service is asked, what each learns, what is bought twice."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from aiohttp import web
from bench import FAST, Bench, OpenSandbox
from loopback import serving

from batch_runner.errors import ExitCode, ManifestError, ServiceUnavailableError, UsageError
from batch_runner.manifest.loading import load_manifest
from batch_runner.records import Submitting
from batch_runner.run.batch import Batch, RunOptions
from batch_runner.run.execution import run_batch
from batch_runner.sandbox import Sandbox

NANO, LITE = "google/nano-banana-2/edit", "google/nano-banana-2-lite/edit"
DREAM = "bytedance/seedream-4-0/edit"
TEXT = f"""\
prompts: {{white: white background}}
images: {{mug: https://cdn.example.com/mug.png, lamp: https://cdn.example.com/lamp.png}}
matrix: {{model: [{NANO}, {LITE}]}}
inputs: {{aspect_ratio: "1:1"}}
"""


async def test_each_model_gets_its_own_price_and_input(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    async with open_sandbox() as sandbox:
        batch = bench.batch(TEXT, sandbox.url, max_cost_usd=Decimal("0.14"))
        summary = await run_batch(batch, listener=bench.records.append)
        assert (summary.done, summary.cost_usd) == (4, Decimal("0.14"))
        assert {request.model_id for request in sandbox.accepted()} == {NANO, LITE}
    reserved = {r.model: r.reserved_usd for r in bench.records if isinstance(r, Submitting)}
    assert reserved == {NANO: Decimal("0.05"), LITE: Decimal("0.02")}
    assert sorted(path.name for path in (bench.output / "models").iterdir()) == [
        "google__nano-banana-2-lite__edit.json",
        "google__nano-banana-2__edit.json",
    ]


async def test_a_second_model_buys_only_its_own_jobs(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    alone = TEXT.replace(f"matrix: {{model: [{NANO}, {LITE}]}}\n", "")
    async with open_sandbox() as sandbox:
        assert (await bench.run(alone, sandbox)).submitted == 2
        both = await bench.run(TEXT, sandbox)
        assert (both.submitted, both.done) == (2, 4)
        assert (await bench.run(alone, sandbox)).submitted == 0
        assert len(sandbox.accepted()) == 4


async def test_a_price_that_one_model_lacks_is_told_before_anything_is_sent(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    text = TEXT.replace(LITE, DREAM).replace('aspect_ratio: "1:1"', "")
    async with open_sandbox() as sandbox:
        with pytest.raises(UsageError) as caught:
            await bench.run(text, sandbox, max_cost_usd=Decimal("0.20"))
        assert f"({DREAM}) is not known" in caught.value.message
        summary = await bench.run(text, sandbox)
        assert (summary.exit_code, summary.done) == (ExitCode.DONE, 4)
        # Without a budget a floor is reserved: it is the least that is on its way out.
        reserved = {r.model: r.reserved_usd for r in bench.records if isinstance(r, Submitting)}
        assert reserved == {NANO: Decimal("0.05"), DREAM: Decimal("0.03")}
        # What is bought already needs no price any more.
        again = await bench.run(text, sandbox, max_cost_usd=Decimal(1))
        assert (again.exit_code, again.submitted) == (ExitCode.DONE, 0)


@pytest.mark.parametrize("name", ["n", "max_images", "number_of_images", "batch_size"])
async def test_a_budget_holds_whatever_the_input_for_more_outputs_is_called(
    bench: Bench, tmp_path: Path, name: str
) -> None:
    schema = {"prompt": {"type": "string"}, name: {"type": "integer"}}
    text = f"prompts: {{a: a, b: b, c: c}}\nschema: {{properties: {json.dumps(schema)}}}\n"
    text += f"price_usd: 0.05\ninputs: {{{name}: 2}}\nlimits: {{cost_usd: 0.25}}\n"
    served = {"acme/draw": {"properties": schema}}
    async with Sandbox(tmp_path / "sandbox", replace(FAST, schemas=served)) as sandbox:
        path = bench.write(text)
        path.write_text(path.read_text(encoding="utf-8").replace(NANO, "acme/draw"))
        batch = Batch(load_manifest(path), RunOptions(api_base=sandbox.url, token="x"))
        summary = await run_batch(batch)
        assert (summary.done, summary.cost_usd) == (2, Decimal("0.20"))
        assert len(bench.files) == 4
        # Nobody knows how many come of it where it is not said.
        path.write_text(path.read_text().replace(f"{name}: 2", "").replace("c: c", "d: d"))
        batch = Batch(load_manifest(path), RunOptions(api_base=sandbox.url, token="x"))
        with pytest.raises(UsageError, match="the price of 'a'") as caught:
            await run_batch(batch)
        assert str(caught.value.hint).startswith(f"write {name} as a number into inputs; or")
        path.write_text(path.read_text() + "price_unit: job\n")
        batch = Batch(load_manifest(path), RunOptions(api_base=sandbox.url, token="x"))
        assert (await run_batch(batch)).cost_usd == Decimal("0.05")


async def test_a_model_that_the_service_has_not_is_told_where_it_is_written(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    text = TEXT.replace(LITE, "google/nano-banana-2-lit/edit")
    async with open_sandbox() as sandbox:
        with pytest.raises(ManifestError) as caught:
            await bench.run(text, sandbox)
        assert sandbox.accepted() == []
    (problem,) = caught.value.problems
    assert (problem.line, problem.what, problem.hint) == (
        5,
        "the service has no model 'google/nano-banana-2-lit/edit'",
        f"did you mean '{LITE}'?",
    )
    async with open_sandbox() as sandbox:
        with pytest.raises(ManifestError) as caught:
            await bench.run(text.replace("google/nano-banana-2-lit/edit", "x"), sandbox)
    assert caught.value.problems[0].hint == "see the models with batch-runner models"


async def test_a_service_that_does_not_answer_is_asked_once_and_not_for_every_model(
    bench: Bench,
) -> None:
    asked: list[str] = []

    async def hang_up(call: web.Request) -> web.Response:
        asked.append(call.path)
        assert call.transport is not None
        call.transport.abort()
        return web.Response()

    async with serving(hang_up) as origin:
        with pytest.raises(ServiceUnavailableError, match="the service gave no price"):
            await bench.run(TEXT, origin, max_cost_usd=Decimal(1))
    assert asked.count(f"/v1/models/{NANO}") >= 1
    assert f"/v1/models/{LITE}" not in asked
