"""Video models from manifest to file, and what an independent player says of the files."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from bench import Bench, OpenSandbox
from PIL import Image, ImageChops, ImageStat

from batch_runner.errors import ExitCode, UsageError
from batch_runner.records import Saved, Submitting, Succeeded

needs_ffmpeg = pytest.mark.skipif(
    shutil.which("ffprobe") is None, reason="ffprobe is not installed (apt-get install ffmpeg)"
)

WAN, PRIME = "wan-ai/wan-3.0/image-to-video", "wan-ai/wan-3.0-prime/image-to-video"
SEEDANCE = "bytedance/seedance-2.5/image-to-video/1080p"
REFERENCE = "bytedance/seedance-2.5/reference-to-video/1080p"
DRAWN, FLUX = "bytedance/seedance-2.5/text-to-video/4k", "blackforestlabs/flux-3/text-to-video"

FROM_PICTURES = f"""\
prompts: {{turn: Turn it slowly on a beach at sunset.}}
images: {{mug: https://cdn.example.com/mug.png}}
matrix: {{model: [{WAN}, {PRIME}, {SEEDANCE}, {REFERENCE}]}}
inputs: {{duration: 4}}
"""
FROM_WORDS = f"""\
prompts:
  boat: {{prompt: A boat on a lake., model: {DRAWN}, inputs: {{duration: 6}}}}
  city: {{prompt: A city at night., model: {FLUX}, inputs: {{duration: "7", aspect_ratio: "9:16"}}}}
inputs: {{aspect_ratio: "16:9"}}
"""


def probe(path: Path) -> dict[str, Any]:
    """Return what ffprobe finds out by decoding every frame; complaints are errors."""
    words = ["ffprobe", "-v", "error", "-count_frames", "-show_streams", "-of", "json", str(path)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    (stream,) = json.loads(done.stdout)["streams"]
    return dict(stream)


def frame(path: Path, at_s: float) -> Image.Image:
    """Return the frame that is shown at a time."""
    words = ["ffmpeg", "-v", "error", "-ss", str(at_s), "-i", str(path), "-frames:v", "1"]
    done = subprocess.run(
        [*words, "-f", "image2pipe", "-c:v", "png", "-"], capture_output=True, check=True
    )
    assert done.stderr == b""
    return Image.open(io.BytesIO(done.stdout)).convert("RGB")


def difference(first: Image.Image, second: Image.Image) -> float:
    return sum(ImageStat.Stat(ImageChops.difference(first, second)).mean) / 3


async def test_video_models_run_to_whole_films_in_every_form_of_answer(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    async with open_sandbox() as sandbox:
        summary = await bench.run(FROM_PICTURES, sandbox)
        assert (summary.exit_code, summary.done) == (ExitCode.DONE, 4)
        assert bench.files == [
            "mug/turn-bytedance-seedance-2.5-image-to-video-1080p.mp4",
            "mug/turn-bytedance-seedance-2.5-reference-to-video-1080p.mp4",
            "mug/turn-wan-ai-wan-3.0-image-to-video.mp4",
            "mug/turn-wan-ai-wan-3.0-prime-image-to-video.mp4",
        ]
        saved = [record for record in bench.records if isinstance(record, Saved)]
        assert {file.media_type for record in saved for file in record.files} == {"video/mp4"}
        sent = {
            record.model: record.input for record in bench.records if isinstance(record, Submitting)
        }
        url = "https://cdn.example.com/mug.png"
        assert [sent[name].get("image_url") for name in (WAN, PRIME)] == [url, url]
        assert (sent[SEEDANCE]["image"], sent[REFERENCE]["images"]) == (url, [url])
        again = await bench.run(FROM_PICTURES, sandbox)
        assert (again.submitted, again.done, len(sandbox.accepted())) == (0, 4, 4)


async def test_films_cost_by_the_second_and_a_floor_is_no_price(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    async with open_sandbox() as sandbox:
        with pytest.raises(UsageError) as caught:
            await bench.run(FROM_WORDS, sandbox, max_cost_usd=Decimal("5.99"))
        assert "0.60 USD per output is only the least" in caught.value.message
        assert f"under models: {FLUX}:" in str(caught.value.hint)
        assert sandbox.accepted() == []
        text = FROM_WORDS + f"models: {{{FLUX}: {{price_usd: 1.25}}}}\n"
        summary = await bench.run(text, sandbox, max_cost_usd=Decimal(20))
        assert (summary.done, summary.cost_usd) == (2, Decimal("3.00"))
    reserved = {
        record.model: record.reserved_usd
        for record in bench.records
        if isinstance(record, Submitting)
    }
    assert reserved == {DRAWN: Decimal("2.4"), FLUX: Decimal("1.25")}
    assert sum(r.cost_usd or 0 for r in bench.records if isinstance(r, Succeeded)) == Decimal(3)


async def test_a_price_a_second_of_ones_own_makes_a_budget_of_films_exact(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    text = "prompts: {turn: turn}\nimages: {mug: https://cdn.example.com/mug.png}\n"
    text += f"matrix: {{model: [{WAN}], duration: [2, 5]}}\ninputs: {{resolution: 480p}}\n"
    async with open_sandbox() as sandbox:
        with pytest.raises(UsageError) as caught:
            await bench.run(text, sandbox, max_cost_usd=Decimal("0.56"))
        assert "0.08 USD per second is only the least" in caught.value.message
        assert "price_unit: second" in str(caught.value.hint)
        text += "price_usd: 0.08\nprice_unit: second\n"
        summary = await bench.run(text, sandbox, max_cost_usd=Decimal("0.56"))
        assert (summary.done, summary.cost_usd) == (2, Decimal("0.56"))


async def test_a_film_that_came_cut_off_is_fetched_again_for_free(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    text = FROM_PICTURES + "repeat: 3\n"
    async with open_sandbox(faults="truncated-file=40%,html-file=10%", pictures=False) as sandbox:
        summary = await bench.run(text, sandbox)
        assert (summary.done, len(sandbox.accepted())) == (12, 12)
    sizes = {(bench.output / name).stat().st_size for name in bench.files}
    assert len(bench.files) == 12
    assert min(sizes) > 0.9 * max(sizes)


async def test_a_second_picture_ends_the_film_where_images_as_says_so(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    two = "https://cdn.example.com/mug.png, https://cdn.example.com/bag.png"
    text = f"prompts: {{turn: turn}}\nimages: {{mug: [{two}]}}\nmatrix: {{model: [{WAN}]}}\n"
    text += "images_as: {image_url: 1, end_image_url: 2}\ninputs: {duration: 4}\n"
    async with open_sandbox() as sandbox:
        assert (await bench.run(text, sandbox)).done == 1
        (request,) = sandbox.accepted()
    assert request.input["end_image_url"] == "https://cdn.example.com/bag.png"


@needs_ffmpeg
async def test_an_independent_decoder_plays_the_films_to_their_end(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    async with open_sandbox() as sandbox:
        assert (await bench.run(FROM_WORDS, sandbox)).done == 2
    boat, city = (bench.output / name for name in bench.files)
    for path, width, height in ((boat, 640, 360), (city, 360, 640)):
        found = probe(path)
        assert (found["codec_name"], found["width"], found["height"]) == ("h264", width, height)
        assert found["duration"] == "4.000000"
    assert difference(frame(boat, 0), frame(boat, 3)) > 0.5  # it moves


async def test_a_model_of_which_the_service_tells_only_the_name_is_known_by_what_ships(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    async with open_sandbox(faults="bare-model") as sandbox:
        with pytest.raises(UsageError, match="is not known"):
            await bench.run(FROM_WORDS, sandbox, max_cost_usd=Decimal(20))
        assert (await bench.run(FROM_WORDS, sandbox)).done == 2
    assert [request.input["aspect_ratio"] for request in sandbox.accepted()] == ["16:9", "9:16"]
