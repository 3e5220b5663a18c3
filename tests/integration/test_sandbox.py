from __future__ import annotations

import asyncio
import io
import json
import re
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from PIL import Image

from batch_runner.sandbox import Sandbox, SandboxOptions, server
from batch_runner.sandbox.catalog import load_input_schema
from batch_runner.sandbox.faults import CODED, GONE, NOT_READY, OUTPUTS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

SEED_MODEL = "google/nano-banana-2/edit"
INPUT: dict[str, Any] = {
    "prompt": "on a white background",
    "image_urls": ["https://cdn.example.com/mug.png"],
    "resolution": "0.5K",
}
AUTHORIZATION = {"Authorization": "Bearer anything"}


@dataclass
class Answer:
    status: int
    body: Any
    headers: Any


class Clock:
    """Wall-clock time that moves when a test says so."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class Client:
    def __init__(self, sandbox: Sandbox, session: aiohttp.ClientSession, clock: Clock) -> None:
        self.sandbox, self.session, self.clock = sandbox, session, clock

    async def call(self, method: str, path: str, **options: Any) -> Answer:
        options.setdefault("headers", AUTHORIZATION)
        url = path if path.startswith("http") else self.sandbox.url + path
        async with self.session.request(method, url, allow_redirects=False, **options) as response:
            body = await response.read()
            is_json = response.content_type == "application/json"
            return Answer(response.status, json.loads(body) if is_json else body, response.headers)

    async def get(self, path: str, **options: Any) -> Answer:
        return await self.call("GET", path, **options)

    async def submit(self, model_id: str = SEED_MODEL, **changes: Any) -> Answer:
        return await self.call("POST", f"/v1/models/{model_id}", json=INPUT | changes)

    async def finish(self, model_id: str = SEED_MODEL, **changes: Any) -> Answer:
        """Submit, let the time pass, and return the result."""
        submitted = await self.submit(model_id, **changes)
        self.clock.now += 100
        return await self.get(submitted.body["result_url"])

    async def balance(self) -> float:
        balance: float = (await self.get("/prod/v2/balance")).body["balance_usd"]
        return balance


@asynccontextmanager
async def serve(folder: Path, clock: Clock | None = None, **options: Any) -> AsyncIterator[Client]:
    clock = clock or Clock()
    defaults: dict[str, Any] = {"run_s": (10.0, 10.0)}
    async with (
        Sandbox(folder, SandboxOptions(**(defaults | options)), now=clock) as sandbox,
        aiohttp.ClientSession() as session,
    ):
        yield Client(sandbox, session, clock)


async def test_a_request_goes_from_the_post_to_its_picture(tmp_path: Path) -> None:
    async with serve(tmp_path) as client:
        submitted = (await client.submit()).body
        request_id = submitted["request_id"]
        assert re.fullmatch(r"[A-Za-z0-9_-]{1,128}", request_id)
        address = f"{client.sandbox.url}/v1/requests/{request_id}"
        assert submitted == {
            "request_id": request_id,
            "status_url": f"{address}/status",
            "result_url": f"{address}/result",
            "cancel_url": f"{address}/cancel",
        }
        assert (await client.get(submitted["status_url"])).body["status"] == "in_progress"
        under_way = (await client.get(submitted["result_url"])).body
        assert under_way["status"] == "in_progress"
        assert "output" not in under_way
        client.clock.now += 10.5
        assert (await client.get(submitted["status_url"])).body == {
            "request_id": request_id,
            "status": "completed",
            "status_url": f"{address}/status",
            "result_url": f"{address}/result",
        }
        result = (await client.get(submitted["result_url"])).body
        assert result == {
            "request_id": request_id,
            "status": "succeeded",
            "output": {"image": f"{client.sandbox.url}/outputs/{request_id}/1.png"},
            "created_at": "2027-01-15T08:00:00.000Z",
            "finished_at": "2027-01-15T08:00:10.000Z",
        }
        picture = await client.get(result["output"]["image"], headers={})
        assert picture.headers["Content-Type"] == "image/png"
        assert int(picture.headers["Content-Length"]) == len(picture.body)
        assert Image.open(io.BytesIO(picture.body)).size == (512, 512)


async def test_calls_are_recorded_as_they_arrive(tmp_path: Path) -> None:
    async with serve(tmp_path, faults="lost-answer") as client:
        with pytest.raises(aiohttp.ClientError):
            await client.submit()
        await client.get("/nowhere", headers={})
        posted, got = client.sandbox.calls
        assert (posted.method, posted.path, posted.status) == (
            "POST",
            f"/v1/models/{SEED_MODEL}",
            None,
        )
        assert posted.headers_authorization_present
        assert (got.path, got.status, got.headers_authorization_present) == ("/nowhere", 401, False)
        assert posted.at_s <= got.at_s
        [accepted] = client.sandbox.accepted()
        assert (accepted.model_id, accepted.input) == (SEED_MODEL, INPUT)
        assert accepted.accepted_at_s == client.clock.now


async def test_several_outputs_are_listed_and_paid_for(tmp_path: Path) -> None:
    async with serve(tmp_path, balance_usd=Decimal(1)) as client:
        result = await client.finish(num_images=3, output_format="jpeg")
        urls = result.body["output"]["images"]
        assert [url.rsplit("/", 1)[1] for url in urls] == ["1.jpg", "2.jpg", "3.jpg"]
        pictures = [await client.get(url) for url in urls]
        assert {picture.headers["Content-Type"] for picture in pictures} == {"image/jpeg"}
        assert len({picture.body for picture in pictures}) == 3
        assert await client.balance() == 0.85
        costed = await client.get(
            f"/v1/requests/{result.body['request_id']}/result?include_cost=true"
        )
        assert costed.body["cost"] == 0.15


@pytest.mark.parametrize(
    ("model_id", "changes", "output"),
    [
        ("bytedance/seedream-4-0/edit", {"images": ["https://x.example/a.png"]}, list),
        ("blackforestlabs/flux-1-kontext/pro/edit", {"image_url": "https://x.example/a.png"}, str),
        ("google/nano-banana-2-lite/text-to-image", {}, dict),
        ("bytedance/seedream-5.0-pro/image-to-image", {"image": ["https://x.example/a.png"]}, dict),
    ],
)
async def test_the_other_models_answer_in_every_form(
    model_id: str, changes: dict[str, Any], output: type, tmp_path: Path
) -> None:
    async with serve(tmp_path) as client:
        body = {"prompt": "in the snow"} | changes
        submitted = await client.call("POST", f"/v1/models/{model_id}", json=body)
        client.clock.now += 100
        found = (await client.get(submitted.body["result_url"])).body["output"]
        assert type(found).__name__ == output.__name__
        url: str = found if output is str else found[0 if output is list else "image"]
        picture = await client.get(url)
        assert picture.headers["Content-Type"] == "image/png"


async def test_defaults_of_the_schema_hold_for_what_was_not_sent(tmp_path: Path) -> None:
    async with serve(tmp_path) as client:
        body = {"prompt": "in the snow", "image": ["https://x.example/a.png"]}
        model_id = "bytedance/seedream-5.0-pro/image-to-image"
        submitted = await client.call("POST", f"/v1/models/{model_id}", json=body)
        client.clock.now += 100
        result = (await client.get(submitted.body["result_url"])).body
        picture = await client.get(result["output"]["image"])
        assert Image.open(io.BytesIO(picture.body)).size == (2048, 2048)


async def test_a_model_publishes_its_schema_and_price(tmp_path: Path) -> None:
    async with serve(tmp_path) as client:
        model = (await client.get(f"/v1/models/{SEED_MODEL}")).body
        assert (model["model_id"], model["kind"], model["price_unit"]) == (
            SEED_MODEL,
            "model",
            "output",
        )
        assert model["base_price_usd"] == 0.05
        assert model["required_inputs"] == ["prompt", "image_urls"]
        assert "enable_web_search" in model["inputs"]
        assert model["model_url"].endswith(SEED_MODEL)
        assert model["description"]
        assert model["input_schema"] == load_input_schema(SEED_MODEL)


async def test_models_are_searched_filtered_and_paged(tmp_path: Path) -> None:
    async with serve(tmp_path) as client:
        everything = (await client.get("/v1/models")).body
        assert everything["total"] == len(everything["models"]) == 18
        assert "input_schema" not in everything["models"][0]
        page = (await client.get("/v1/models?limit=2&offset=17&include_schema=true")).body
        assert (page["total"], len(page["models"])) == (18, 1)
        assert "input_schema" in page["models"][0]
        for query, total in (
            ("search=SEEDREAM", 3), ("category=text-to-image", 2), ("category=image-to-video", 4),
            ("kind=model", 16), ("kind=inference", 1), ("search=trained+style", 1),
            ("kind=workflow", 1), ("search=nothing-like-it", 0),
        ):  # fmt: skip
            assert (await client.get(f"/v1/models?{query}")).body["total"] == total
        assert (page["limit"], page["offset"]) == (2, 17)
        assert (everything["limit"], everything["offset"]) == (100, 0)
        assert (await client.get("/v1/models?limit=500")).status == 200
        for limit in ("many", "0", "501"):
            assert (await client.get(f"/v1/models?limit={limit}")).status == 422
        categories = (await client.get("/v1/models/categories")).body["categories"]
        assert {"text-to-audio", "image-edit"} <= set(categories)


@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": "Basic x"}, {"Authorization": "Bearer "}]
)
async def test_without_a_token_every_call_is_401(headers: dict[str, str], tmp_path: Path) -> None:
    async with serve(tmp_path) as client:
        for method, path in (
            ("GET", "/v1/models"),
            ("GET", "/prod/v2/balance"),
            ("POST", f"/v1/models/{SEED_MODEL}"),
            ("GET", "/v1/requests/a/status"),
            ("GET", "/v1/requests/a/result"),
            ("POST", "/v1/requests/a/cancel"),
        ):
            answer = await client.call(method, path, headers=headers)
            assert (answer.status, answer.body["error_code"]) == (401, 400004)
        assert client.sandbox.accepted() == []


async def test_only_the_configured_token_is_accepted(tmp_path: Path) -> None:
    async with serve(tmp_path, token="right") as client:
        assert (await client.get("/v1/models")).status == 401
        assert (
            await client.get("/v1/models", headers={"Authorization": "Bearer right"})
        ).status == 200


async def test_what_does_not_exist_is_404_with_the_documented_codes(tmp_path: Path) -> None:
    async with serve(tmp_path) as client:
        for method in ("GET", "POST"):
            answer = await client.call(method, "/v1/models/no/such-model", json={})
            assert (answer.status, answer.body["error_code"]) == (404, 400001)
        for path in ("/v1/requests/none/status", "/v1/requests/none/result", "/outputs/none/1.png"):
            answer = await client.get(path)
            assert (answer.status, answer.body["error_code"]) == (404, 404001)
        assert (await client.call("POST", "/v1/requests/none/cancel")).body["error_code"] == 404001
        assert (await client.get("/nowhere")).body["error_code"] == 404001
        assert (await client.call("DELETE", "/v1/models")).body["error_code"] == 405
        submitted = (await client.submit()).body
        early = await client.get(f"/outputs/{submitted['request_id']}/1.png")
        client.clock.now += 100
        wrong = await client.get(f"/outputs/{submitted['request_id']}/2.png")
        assert (early.status, wrong.status) == (404, 404)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"aspect_ratio": "7:5"}, "aspect_ratio"),
        ({"num_images": 5}, "num_images"),
        ({"image_urls": []}, "image_urls"),
        ({"image_urls": ["not an address"]}, "image_urls.0"),
        ({"image_urls": ["https://[broken"]}, "image_urls.0"),
        ({"image_urls": ["https://x.example/a"] * 21}, "image_urls"),
        ({"colour": "red"}, "colour"),
        ({"prompt": 7}, "prompt"),
        ({"prompt": ["long"] * 500}, "prompt"),
    ],
)
async def test_an_input_against_the_schema_is_422_and_names_the_field(
    changes: dict[str, Any], field: str, tmp_path: Path
) -> None:
    async with serve(tmp_path) as client:
        answer = await client.submit(**changes)
        assert answer.status == 422
        assert answer.body["error_code"] == 422001
        [detail] = answer.body["detail"]
        assert field in ".".join(map(str, detail["loc"])) + detail["msg"]
        assert client.sandbox.accepted() == []


async def test_a_body_that_is_too_large_or_not_a_json_object_is_refused(tmp_path: Path) -> None:
    async with serve(tmp_path) as client:
        path = f"/v1/models/{SEED_MODEL}"
        for body in (b"{", b"[]", b"\xff"):
            assert (await client.call("POST", path, data=body)).status == 400
        large = io.BytesIO(b" " * (64 * 2**20 + 1))
        assert (await client.call("POST", path, data=large)).body["error_code"] == 413
        assert (await client.call("POST", path, json={"prompt": "x"})).status == 422


async def test_an_empty_balance_is_402(tmp_path: Path) -> None:
    async with serve(tmp_path, balance_usd=Decimal("0.12")) as client:
        statuses = [(await client.submit()).status for _ in range(3)]
        assert statuses == [200, 200, 402]
        refused = await client.submit()
        assert refused.body["error_code"] == 400002
        assert await client.balance() == 0.02


async def test_positions_capacity_cancel_and_refund(tmp_path: Path) -> None:
    async with serve(tmp_path, capacity=1, balance_usd=Decimal(1)) as client:
        running, second, third = [(await client.submit()).body for _ in range(3)]
        for submitted, position in ((second, 1), (third, 2)):
            for url in (submitted["status_url"], submitted["result_url"]):
                body = (await client.get(url)).body
                assert (body["status"], body["queue_position"]) == ("in_queue", position)
        cancelled = await client.call("POST", second["cancel_url"])
        assert (cancelled.status, cancelled.body["outcome"]) == (202, "cancelled")
        assert cancelled.body["status"] == "cancelled"
        too_late = await client.call("POST", running["cancel_url"])
        assert (too_late.status, too_late.body["outcome"]) == (202, "not_cancellable")
        assert await client.balance() == 0.9
        client.clock.now += 11  # the first has ended
        assert (await client.get(third["status_url"])).body["queue_position"] == 1
        client.clock.now += 10
        assert (await client.get(third["status_url"])).body["status"] == "in_progress"
        assert (await client.get(second["status_url"])).body["status"] == "cancelled"
        result = (await client.get(second["result_url"] + "?include_cost=true")).body
        assert (result["status"], result["cost"]) == ("cancelled", 0)
        assert "output" not in result
        again = await client.call("POST", second["cancel_url"])
        assert again.body["outcome"] == "not_cancellable"


@pytest.mark.parametrize("word", ["forbidden", "NSFW"])
async def test_a_refused_prompt_completes_by_status_and_fails_by_result(
    word: str, tmp_path: Path
) -> None:
    async with serve(tmp_path, balance_usd=Decimal(1)) as client:
        submitted = (await client.submit(prompt=f"a {word} thing")).body
        client.clock.now += 100
        assert (await client.get(submitted["status_url"])).body["status"] == "completed"
        result = (await client.get(submitted["result_url"] + "?include_cost=true")).body
        assert (result["status"], result["error"]["code"]) == ("failed", "content_refused")
        assert result["cost"] == 0
        assert "output" not in result
        assert await client.balance() == 1


async def test_a_missing_local_picture_fails_the_request(tmp_path: Path) -> None:
    async with serve(tmp_path) as client:
        result = await client.finish(image_urls=[(tmp_path / "none.png").as_uri()])
        assert result.body["error"]["code"] == "image_unreachable"


async def test_submits_over_the_limit_are_429(tmp_path: Path) -> None:
    async with serve(tmp_path, submits_per_s=2) as client:
        answers = [await client.submit() for _ in range(3)]
        assert [answer.status for answer in answers] == [200, 200, 429]
        assert answers[2].headers["Retry-After"] == "1"
        assert len(client.sandbox.accepted()) == 2
        assert (await client.get("/v1/models")).status == 200


async def test_a_killed_server_resumes_as_if_it_had_never_stopped(tmp_path: Path) -> None:
    clock = Clock()
    async with serve(tmp_path, clock, capacity=1) as client:
        ids = [(await client.submit(seed=number)).body["request_id"] for number in range(4)]
        await client.call("POST", f"/v1/requests/{ids[1]}/cancel")
        before = [request.request_id for request in client.sandbox.accepted()]
    with (tmp_path / "requests.jsonl").open("ab") as file:
        file.write(b'{"record":"accepted","at_s":18')  # what a kill in the middle leaves
    clock.now += 15
    async with serve(tmp_path, clock, capacity=1) as client:
        assert [request.request_id for request in client.sandbox.accepted()] == before == ids
        states = [(await client.get(f"/v1/requests/{one}/status")).body["status"] for one in ids]
        assert states == ["completed", "cancelled", "in_queue", "in_queue"]
        assert await client.balance() == 9_999.85
        result = (await client.get(f"/v1/requests/{ids[0]}/result")).body
        assert result["finished_at"] == "2027-01-15T08:00:10.000Z"
        assert result["output"]["image"].startswith(client.sandbox.url)
        assert (await client.get(result["output"]["image"])).status == 200
        clock.now += 30
        ends = [request.ends_at_s for request in client.sandbox.accepted()]
        assert [end - ends[0] for end in ends] == [0, 10, 20, 30]


async def test_one_folder_has_one_owner(tmp_path: Path) -> None:
    async with serve(tmp_path):
        with pytest.raises(BlockingIOError, match="another sandbox"):
            async with serve(tmp_path):
                pass


@pytest.mark.parametrize(
    "line",
    [
        b"{}",
        b"nonsense",
        b'{"record":"cancelled","at_s":0,"request_id":"none"}',
    ],
)
async def test_a_damaged_file_is_refused_with_its_line(line: bytes, tmp_path: Path) -> None:
    opened = b'{"record":"opened","version":1,"at_s":0,"capacity":1}\n'  # of earlier releases
    (tmp_path / "requests.jsonl").write_bytes(opened + line + b"\n")
    with pytest.raises(ValueError, match=r"requests\.jsonl:2: damaged"):
        async with serve(tmp_path):
            pass


async def test_the_same_seed_gives_the_same_durations(tmp_path: Path) -> None:
    finished = []
    for folder in ("first", "second"):
        async with serve(tmp_path / folder, run_s=(1.0, 30.0)) as client:
            result = await client.finish()
            finished.append(result.body["finished_at"])
    assert finished[0] == finished[1]


async def test_polling_a_long_queue_is_cheap(tmp_path: Path) -> None:
    async with serve(tmp_path, balance_usd=Decimal(1000)) as client:
        assert client.sandbox._book is not None
        book = client.sandbox._book
        for number in range(3000):
            book.accept(SEED_MODEL, INPUT | {"seed": number}, Decimal("0.05"))
        requests = [book.find(one.request_id) for one in client.sandbox.accepted()]
        started = asyncio.get_running_loop().time()
        for request in requests:
            assert request is not None
            book.observe(request)
        assert asyncio.get_running_loop().time() - started < 1.0


async def test_lost_answer_accepts_and_drops_the_connection(tmp_path: Path) -> None:
    async with serve(tmp_path, faults="lost-answer") as client:
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await client.submit()
        assert len(client.sandbox.accepted()) == 1


async def test_dropped_submit_accepts_nothing(tmp_path: Path) -> None:
    async with serve(tmp_path, faults="dropped-submit") as client:
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await client.submit()
        assert client.sandbox.accepted() == []
        assert (await client.get("/v1/models")).status == 200


async def test_error_500_accepts_half_of_the_time(tmp_path: Path) -> None:
    async with serve(tmp_path, faults="error-500") as client:
        assert {(await client.submit()).status for _ in range(40)} == {500}
        assert 8 < len(client.sandbox.accepted()) < 32


@pytest.mark.parametrize(
    ("fault", "status", "header"),
    [
        ("html-answer", 502, None),
        ("rate-limit", 429, "1"),
        ("rate-limit-date", 429, "date"),
        ("token-revoked", 401, None),
    ],
)
async def test_faults_of_any_call_refuse_before_anything_is_accepted(
    fault: str, status: int, header: str | None, tmp_path: Path
) -> None:
    async with serve(tmp_path, faults=fault) as client:
        for answer in (await client.submit(), await client.get("/v1/models")):
            assert answer.status == status
            retry_after = answer.headers.get("Retry-After")
            if header == "date":
                assert parsedate_to_datetime(retry_after).tzinfo is not None
            else:
                assert retry_after == header
            is_page = answer.headers["Content-Type"].startswith("text/html")
            assert is_page == (fault == "html-answer")
        assert client.sandbox.accepted() == []


async def test_error_500_get_leaves_posts_alone(tmp_path: Path) -> None:
    async with serve(tmp_path, faults="error-500-get") as client:
        assert (await client.submit()).status == 200
        assert (await client.get("/v1/models")).status == 500


async def test_answers_without_a_usable_request_id(tmp_path: Path) -> None:
    async with serve(tmp_path / "none", faults="no-request-id") as client:
        assert "request_id" not in (await client.submit()).body
        assert len(client.sandbox.accepted()) == 1
    async with serve(tmp_path / "bad", faults="bad-request-id") as client:
        assert "/" in (await client.submit()).body["request_id"]
        assert len(client.sandbox.accepted()) == 1


async def test_a_slow_answer_is_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "SLOW_ANSWER_S", 0.05)
    async with serve(tmp_path, faults="slow-answer") as client:
        started = asyncio.get_running_loop().time()
        assert (await client.submit()).status == 200
        assert asyncio.get_running_loop().time() - started >= 0.05


async def test_no_price_leaves_the_price_out(tmp_path: Path) -> None:
    async with serve(tmp_path, faults="no-price") as client:
        assert "base_price_usd" not in (await client.get(f"/v1/models/{SEED_MODEL}")).body


async def test_failed_requests_cost_nothing(tmp_path: Path) -> None:
    async with serve(tmp_path, faults="failed") as client:
        result = await client.finish()
        assert (result.body["status"], result.body["error"]["code"]) == (
            "failed",
            "generation_failed",
        )
        assert await client.balance() == 10_000
        missing = await client.get(f"/outputs/{result.body['request_id']}/1.png")
        assert missing.status == 404


async def test_stuck_requests_never_finish(tmp_path: Path) -> None:
    async with serve(tmp_path, faults="stuck,failed") as client:
        submitted = (await client.submit()).body
        client.clock.now += 1e6
        assert (await client.get(submitted["result_url"])).body["status"] == "in_progress"


async def test_both_calls_report_an_unknown_state(tmp_path: Path) -> None:
    async with serve(tmp_path, faults="unknown-state") as client:
        result = await client.finish()
        assert result.body["status"] == "under_review"


async def test_expired_results_and_other_accounts(tmp_path: Path) -> None:
    async with serve(tmp_path / "gone", faults="result-404") as client:
        submitted = (await client.submit()).body
        assert (await client.get(submitted["result_url"])).status == 200
        client.clock.now += 100
        gone = await client.get(submitted["result_url"])
        assert (gone.status, gone.body["error_code"]) == (404, 404001)
    async with serve(tmp_path / "other", faults="other-account") as client:
        refused = await client.finish()
        assert (refused.status, refused.body["error_code"]) == (403, 403001)


async def test_evil_urls_look_like_the_service(tmp_path: Path) -> None:
    async with serve(tmp_path, faults="evil-url") as client:
        urls = (await client.finish()).body["output"]["images"]
        assert "https://127.0.0.1\\@cdn.runcomfy.net/x.png" in urls
        assert all("runcomfy.net" in url for url in urls)


async def test_faults_of_output_files(tmp_path: Path) -> None:
    async def fetch(fault: str) -> Answer:
        async with serve(tmp_path / fault, faults=fault) as client:
            return await client.get((await client.finish()).body["output"]["image"])

    whole = await fetch("no-price")
    page = await fetch("html-file")
    assert (page.status, page.headers["Content-Type"][:9]) == (200, "text/html")
    assert (await fetch("missing-file")).status == 404
    cut = await fetch("wrong-length")
    assert int(cut.headers["Content-Length"]) == len(cut.body) < len(whole.body)
    assert whole.body.startswith(cut.body)
    away = await fetch("redirect-away")
    assert (away.status, away.headers["Location"][:8]) == (302, "https://")
    with pytest.raises(aiohttp.ClientPayloadError):
        await fetch("truncated-file")


async def test_a_redirected_file_is_at_the_other_path(tmp_path: Path) -> None:
    async with serve(tmp_path, faults="redirect-file") as client:
        moved = await client.get((await client.finish()).body["output"]["image"])
        assert moved.status == 302
        assert (await client.get(moved.headers["Location"])).status == 200


async def test_the_url_is_usable_and_the_port_is_its_own(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="not been started"):
        Sandbox(tmp_path).accepted()
    async with Sandbox(tmp_path) as sandbox, aiohttp.ClientSession() as session:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", sandbox.url)
        async with session.get(f"{sandbox.url}/v1/models", headers=AUTHORIZATION) as response:
            assert response.status == 200
        port = int(sandbox.url.rsplit(":", 1)[1])
        with pytest.raises(OSError, match="address already in use"):
            async with Sandbox(tmp_path / "other", port=port):
                pass


BLUE_DOT = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR42mNgYPgPAAEDAQAIicLsAAAA"
    "AElFTkSuQmCC"
)


@pytest.mark.parametrize("name", [name for name in CODED if name.startswith("post")])
async def test_a_post_gets_each_error_with_a_code(name: str, tmp_path: Path) -> None:
    fault = CODED[name]
    async with serve(tmp_path, faults=name) as client:
        answers = [await client.submit() for _ in range(40 if fault.is_unclear else 1)]
        assert {answer.status for answer in answers} == {fault.status}
        assert {answer.body["error_code"] for answer in answers} == {fault.code}
        assert fault.status in (200, fault.code // 1000)
        assert ("detail" in answers[0].body) == (fault.code == 422001)
        accepted = len(client.sandbox.accepted())
        assert 8 < accepted < 32 if fault.is_unclear else accepted == 0


@pytest.mark.parametrize("name", [name for name in CODED if name.startswith("get")])
async def test_a_poll_gets_each_error_with_a_code(name: str, tmp_path: Path) -> None:
    fault = CODED[name]
    async with serve(tmp_path, faults=name) as client:
        submitted = (await client.submit()).body
        early = await client.get(submitted["result_url"])
        early_status = await client.get(submitted["status_url"])
        client.clock.now += 100
        late = await client.get(submitted["result_url"])
        struck = [answer.body.get("error_code") for answer in (early, early_status, late)]
        code = fault.code
        expected = {NOT_READY: [code, None, None], GONE: [None, None, code]}
        assert struck == expected.get(code, [code, code, code])
        assert (late if code == GONE else early).status == fault.status


@pytest.mark.parametrize("name", [name for name in CODED if name.startswith(("model", "balance"))])
async def test_looking_up_a_model_and_the_balance_gets_each_error(
    name: str, tmp_path: Path
) -> None:
    fault = CODED[name]
    paths = {"model": f"/v1/models/{SEED_MODEL}", "balance": "/prod/v2/balance"}
    async with serve(tmp_path, faults=name) as client:
        answer = await client.get(paths.pop(fault.call))
        assert (answer.status, answer.body["error_code"]) == (fault.status, fault.code)
        assert (await client.get(*paths.values())).status == 200
        assert (await client.submit()).status == 200


async def test_an_account_can_be_overdrawn(tmp_path: Path) -> None:
    async with serve(tmp_path, balance_usd=Decimal("-1.5")) as client:
        assert (await client.get("/prod/v2/balance")).body == {
            "balance_usd": -1.5,
            "balance_microdollars": -1_500_000,
            "currency": "USD",
        }
        assert (await client.submit()).body["error_code"] == 400002


@pytest.mark.parametrize(
    ("changes", "cost"),
    [
        ({}, 0.05),
        ({"resolution": "1K"}, 0.05),
        ({"resolution": "2K"}, 0.1),
        ({"resolution": "4K", "num_images": 2}, 0.3),
        ({"enable_web_search": True}, 0.075),
        ({"resolution": "4K", "enable_web_search": True}, 0.225),
    ],
)
async def test_resolution_and_web_search_cost_more(
    changes: dict[str, Any], cost: float, tmp_path: Path
) -> None:
    async with serve(tmp_path, balance_usd=Decimal(1)) as client:
        result = await client.finish(**changes)
        url = f"/v1/requests/{result.body['request_id']}/result?include_cost=true"
        assert (await client.get(url)).body["cost"] == cost
        assert await client.balance() == pytest.approx(1 - cost)
    async with serve(tmp_path, balance_usd=Decimal(1), faults="no-cost") as client:
        assert "cost" not in (await client.get(url)).body


async def test_pictures_can_be_sent_inline(tmp_path: Path) -> None:
    async with serve(tmp_path / "taken") as client:
        result = (await client.finish(image_urls=[BLUE_DOT])).body
        assert (await client.get(result["output"]["image"])).status == 200
        broken = (await client.finish(image_urls=["data:image/png;base64,AAAA"])).body
        assert broken["error"]["code"] == "image_unreachable"
        assert "AAAA" not in broken["error"]["message"]
    async with serve(tmp_path / "refused", faults="no-data-uri") as client:
        assert (await client.submit(image_urls=[BLUE_DOT])).status == 422
        assert (await client.submit()).status == 200


async def test_a_post_can_be_answered_with_202_or_with_an_earlier_id(tmp_path: Path) -> None:
    async with serve(tmp_path / "short", faults="accepted-202") as client:
        answer = await client.submit()
        [accepted] = client.sandbox.accepted()
        assert answer.status == 202
        assert answer.body == {"request_id": accepted.request_id, "status": "in_queue"}
    async with serve(tmp_path / "again", faults="repeated-request-id") as client:
        first, second = [(await client.submit(seed=n)).body["request_id"] for n in (1, 2)]
        assert first == second
        assert len(client.sandbox.accepted()) == 2


async def test_a_result_can_echo_what_was_sent_and_write_times_otherwise(tmp_path: Path) -> None:
    async with serve(tmp_path, faults="echo,odd-times") as client:
        result = (await client.finish(seed=7)).body
        assert (result["model_id"], result["input"]) == (SEED_MODEL, INPUT | {"seed": 7})
        assert result["created_at"] == "2027-01-15T13:45:00.000000+05:45"


async def test_a_failed_request_can_list_its_errors(tmp_path: Path) -> None:
    async with serve(tmp_path, faults="failed,error-list") as client:
        [error] = (await client.finish()).body["error"]
        assert error["errorCode"] == "generation_failed"
        assert error.keys() == {"errorCode", "error", "debugInfo"}


async def test_the_price_can_be_for_an_image(tmp_path: Path) -> None:
    async with serve(tmp_path, faults="unit-image") as client:
        assert (await client.get(f"/v1/models/{SEED_MODEL}")).body["price_unit"] == "image"


async def test_an_unknown_state_can_last(tmp_path: Path) -> None:
    async with serve(tmp_path, faults="unknown-state-forever=50%") as client:
        for number in range(20):
            submitted = (await client.submit(seed=number)).body
            urls = [submitted["status_url"], submitted["result_url"]] * 2
            states = {(await client.get(url)).body["status"] for url in urls}
            assert states in ({"under_review"}, {"in_progress"}, {"in_queue"})


@pytest.mark.parametrize("fault", OUTPUTS)
async def test_outputs_come_in_every_form(fault: str, tmp_path: Path) -> None:
    async with serve(tmp_path, faults=fault) as client:
        result = (await client.finish(num_images=2)).body
        assert result["status"] == "succeeded"
        assert ("output" in result) == (fault != "output-missing")
        text = json.dumps(result.get("output"))
        urls = re.findall(rf"{client.sandbox.url}/outputs/[^\"]+", text)
        found = [await client.get(url) for url in urls[:2]]
        assert {answer.status for answer in found} <= {200}
        kind = found[0].headers["Content-Type"] if found else None
        expected = {
            **dict.fromkeys(("output-audio", "output-audios"), "audio/wav"),
            **dict.fromkeys(("output-unknown-key", "output-url", "output-path"), "image/png"),
            **dict.fromkeys(("output-preview", "output-and-preview"), "image/png"),
            **dict.fromkeys(("output-objects", "many-outputs"), "image/png"),
        }
        assert kind == expected.get(fault)
        assert (fault == "output-data-uri") == ("data:image/png;base64," in text)


async def test_an_audio_model_makes_a_sound_of_its_own_for_each_request(tmp_path: Path) -> None:
    async with serve(tmp_path) as client:
        sounds = []
        for seed in (1, 2):
            body = {"prompt": "good morning", "seed": seed}
            path = "/v1/models/sandbox/speech/text-to-audio"
            submitted = (await client.call("POST", path, json=body)).body
            client.clock.now += 100
            output = (await client.get(submitted["result_url"])).body["output"]
            sounds.append(await client.get(output["audio"]))
        assert {sound.headers["Content-Type"] for sound in sounds} == {"audio/wav"}
        assert sounds[0].body[:4] == b"RIFF"
        assert sounds[0].body != sounds[1].body
