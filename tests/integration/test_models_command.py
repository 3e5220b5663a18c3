"""`models`, and schemas of a user's own."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from aiohttp import web
from loopback import serving

from batch_runner.commands.cli import main
from batch_runner.errors import ExitCode
from batch_runner.service.answer import Meaning
from batch_runner.service.call import Service

Captured = pytest.CaptureFixture[str]

FRAMES = {
    "type": "object",
    "required": ["caption"],
    "properties": {
        "caption": {"type": "string"},
        "frames": {"type": "array", "format": "image_uris", "items": {"type": "string"}},
        "strength": {"type": "float", "minimum": 0},
    },
}


def test_models_lists_the_catalog_with_prices(capsys: Captured) -> None:
    assert main(["models", "--sandbox"]) == ExitCode.DONE
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert said.err == "18 models\n"
    prices = [
        float(found[1]) if (found := re.search(r" (\d+\.\d+) USD", line)) else None
        for line in lines
    ]
    known = [price for price in prices if price is not None]
    assert prices == [*sorted(known), *[None] * (len(prices) - len(known))]
    assert [
        " ".join(line.split()) for line in lines if "nano-banana-2/" in line or "wan-3.0/" in line
    ] == [
        "google/nano-banana-2/edit 0.05 USD an output image-to-image, image-edit",
        "wan-ai/wan-3.0/image-to-video from 0.08 USD a second image-to-video",
    ]


def test_models_searches_and_filters_and_prints_json_lines(capsys: Captured) -> None:
    assert main(["models", "SEEDANCE-2.5/text", "--sandbox", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["model_id"].rsplit("/", 1)[1] for line in lines] == ["1080p", "4k"]
    assert lines[0] == {
        "model_id": "bytedance/seedance-2.5/text-to-video/1080p",
        "display_name": "Seedance 2.5 Text to Video, 1080p",
        "categories": ["text-to-video"],
        "price_usd": "0.18",
        "price_unit": "second",
        "price_is_floor": False,
        "pricing_note": "Fixed per second.",
    }
    assert main(["models", "no-such-thing", "--sandbox"]) == ExitCode.DONE
    hint = "search for a shorter part of its name"
    assert capsys.readouterr() == ("", f"the service has no such model\nhint: {hint}\n")


def test_models_needs_a_token_and_a_service(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RUNCOMFY_API_TOKEN", "RUNCOMFY_TOKEN", "RUNCOMFY_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    assert main(["models"]) == ExitCode.REFUSED
    assert "no token for the service" in capsys.readouterr().err
    assert main(["models", "--api-base", "http://127.0.0.1:9"]) == ExitCode.UNAVAILABLE
    assert "hint: try again later; batch-runner models --schema ID" in capsys.readouterr().err
    assert main(["models", "--sandbox", "--api-base", "http://127.0.0.1:9"]) == ExitCode.USAGE


ODD = [
    {"model_id": "a/b", "display_name": "A\x1b[31m", "base_price_usd": "NaN", "categories": "x"},
    {"model_id": "c/d", "base_price_usd": -1, "price_unit": 7, "categories": ["\u202ex", 5]},
    {"display_name": "without an id"},
    "no entry at all",
]


async def test_a_catalog_comes_page_by_page_and_any_field_may_be_absent() -> None:
    asked: list[dict[str, str]] = []

    async def answer(call: web.Request) -> web.Response:
        asked.append(dict(call.query))
        offset = int(call.query["offset"])
        page = [{"model_id": f"m/{number}"} for number in range(offset, min(offset + 100, 230))]
        return web.json_response({"models": page, "total": 230})

    async with serving(answer) as origin, Service(origin, "t") as service:
        verdict, entries = await service.models("x y")
    assert verdict.meaning is Meaning.OK
    assert [entry["model_id"] for entry in entries] == [f"m/{number}" for number in range(230)]
    assert [query["offset"] for query in asked] == ["0", "100", "200", "230"]
    assert asked[0] == {"search": "x y", "limit": "100", "offset": "0"}


async def test_without_a_total_pages_are_asked_for_until_one_is_empty() -> None:
    async def answer(call: web.Request) -> web.Response:
        offset = int(call.query["offset"])
        page = [{"model_id": f"m/{number}"} for number in range(offset, min(offset + 50, 120))]
        return web.json_response({"models": page})

    async with serving(answer) as origin, Service(origin, "t") as service:
        _, entries = await service.models()
    assert len(entries) == 120


@pytest.mark.parametrize("total", [None, 10_000_000, "many"])
async def test_a_catalog_that_repeats_itself_comes_to_an_end(total: object) -> None:
    calls = 0

    async def answer(_: web.Request) -> web.Response:
        nonlocal calls
        calls += 1
        return web.json_response({"models": ODD, "total": total})

    async with serving(answer) as origin, Service(origin, "t") as service:
        _, entries = await service.models()
    assert entries == ODD[:3]
    assert calls == 2


def test_a_schema_of_ones_own_is_used_and_said(
    capsys: Captured, tmp_path: Path, write_manifest: Callable[..., Path]
) -> None:
    (tmp_path / "frames.json").write_text(json.dumps(FRAMES), encoding="utf-8")
    text = "prompts: {a: on white}\nimages: {mug: https://cdn.example.com/mug.png}\n"
    head = "version: 1\nmodel: acme/frames\nschema: frames.json\n"
    manifest = write_manifest(text, head=head)
    words = ["plan", str(manifest), "--api-base", "http://127.0.0.1:9"]
    assert main(words) == ExitCode.INVALID
    assert capsys.readouterr().err.splitlines()[:2] == [
        f"{manifest}:2: the model acme/frames has no input 'prompt' for the prompt",
        "hint: say which takes it: prompt_as: NAME (known here: caption, frames, strength)",
    ]
    manifest = write_manifest(text, head=f"{head}prompt_as: caption\n")
    assert main(words) == ExitCode.DONE
    said = capsys.readouterr().out
    assert "inputs: checked against the manifest's schema" in said
    assert 'prompt a: "on white"' in said
    # Nobody else knows the model: a rehearsal serves it, as far as its schema says.
    assert main(["run", str(manifest), "--sandbox", "--quiet"]) == ExitCode.DONE
    assert (manifest.parent / "out" / "batch-sandbox" / "mug" / "a.png").stat().st_size > 1000
    manifest.write_text(manifest.read_text() + "inputs: {strength: -1}\n", encoding="utf-8")
    assert main(["plan", str(manifest)]) == ExitCode.INVALID
    assert ":7: 'strength' is -1, less than 0" in capsys.readouterr().err


def test_a_film_model_of_the_manifests_own_schema_can_be_rehearsed(
    capsys: Captured, tmp_path: Path, write_manifest: Callable[..., Path]
) -> None:
    schema = {
        "required": ["text", "start"],
        "properties": {
            "text": {"type": "string"},
            "start": {"type": ["string", "null"], "format": "image_uri"},
            "speed": {"type": ["float", "null"]},
            "duration": {"type": "integer", "default": 3},
        },
    }
    manifest = write_manifest(
        "prompts: {a: turn}\nimages: {mug: https://cdn.example.com/mug.png}\n"
        f"schema: {json.dumps(schema)}\ninputs: {{speed: 1.5}}\n",
        head="version: 1\nmodel: acme/turn/image-to-video\n",
    )
    assert main(["run", str(manifest), "--sandbox", "--quiet"]) == ExitCode.DONE
    film = (tmp_path / "out" / "batch-sandbox" / "mug" / "a.mp4").read_bytes()
    assert film[4:8] == b"ftyp"
    assert main(["plan", str(manifest), "--sandbox", "--max-cost", "9"]) == ExitCode.DONE
