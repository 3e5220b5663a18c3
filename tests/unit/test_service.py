from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_runner.errors import UsageError
from batch_runner.service.answer import (
    Answer,
    Call,
    Loss,
    Meaning,
    classify,
    parse_retry_after,
    read_balance_usd,
)
from batch_runner.service.call import Service
from batch_runner.service.network import is_loopback, parse_origin
from batch_runner.service.output import output_urls

HTML = None  # a body that is not JSON
M = Meaning


def answer(status: int, body: Any = HTML, **fields: Any) -> Answer:
    return Answer(status=status, body=body, **fields)


def coded(code: Any, message: str = "m") -> dict[str, Any]:
    return {"code": code, "message": message}


# what came back -> what it means about a POST, about a GET
ERRORS: list[tuple[str, Answer, Meaning, Meaning]] = [
    ("wrong model_id", answer(400, coded(400001)), M.PERMANENT, M.TRANSIENT),
    ("no balance, 400", answer(400, coded(400002)), M.NO_BALANCE, M.NO_BALANCE),
    ("no balance, 402", answer(402, coded(400002)), M.NO_BALANCE, M.NO_BALANCE),
    ("no balance, bare 402", answer(402, HTML), M.NO_BALANCE, M.NO_BALANCE),
    ("account, 400", answer(400, coded(400004)), M.TOKEN_REFUSED, M.TOKEN_REFUSED),
    ("account, 401", answer(401, coded(400004)), M.TOKEN_REFUSED, M.TOKEN_REFUSED),
    ("account, 403", answer(403, coded(400004)), M.TOKEN_REFUSED, M.TOKEN_REFUSED),
    ("bare 401", answer(401, HTML), M.TOKEN_REFUSED, M.TOKEN_REFUSED),
    ("another account's", answer(403, coded(403001)), M.TOKEN_REFUSED, M.TOKEN_REFUSED),
    ("not found", answer(404, coded(404001)), M.PERMANENT, M.GONE),
    ("a proxy's 404", answer(404, HTML), M.PERMANENT, M.TRANSIENT),
    ("a framework's 404", answer(404, {"detail": "Not Found"}), M.PERMANENT, M.TRANSIENT),
    ("400 without a code", answer(400, {"message": "m"}), M.PERMANENT, M.TRANSIENT),
    ("400 in HTML", answer(400, HTML), M.PERMANENT, M.TRANSIENT),
    ("422", answer(422, {"detail": [{"msg": "m"}]}), M.PERMANENT, M.TRANSIENT),
    ("429", answer(429, coded(429001), retry_after_s=7), M.THROTTLED, M.THROTTLED),
    ("429 in HTML", answer(429, HTML), M.THROTTLED, M.THROTTLED),
    *((f"{status}", answer(status, HTML), M.UNKNOWN, M.TRANSIENT) for status in (405, 408, 409)),
    *((f"{status}", answer(status, HTML), M.UNKNOWN, M.TRANSIENT) for status in (410, 413, 418)),
    *((f"{status}", answer(status, HTML), M.UNKNOWN, M.TRANSIENT) for status in (500, 502, 503)),
    *((f"{status}", answer(status, HTML), M.UNKNOWN, M.TRANSIENT) for status in (504, 520, 599)),
    ("500, JSON", answer(500, coded(500001)), M.UNKNOWN, M.TRANSIENT),
    ("500, no balance", answer(500, coded(400002)), M.UNKNOWN, M.TRANSIENT),
    *((f"{status}", answer(status, HTML), M.UNKNOWN, M.TRANSIENT) for status in (301, 302, 303)),
    *((f"{status}", answer(status, HTML), M.UNKNOWN, M.TRANSIENT) for status in (304, 307, 308)),
    ("no status at all", Answer(), M.UNKNOWN, M.TRANSIENT),
    ("not sent", Answer(loss=Loss.NOT_SENT), M.TRANSIENT, M.TRANSIENT),
    ("lost", Answer(loss=Loss.LOST), M.UNKNOWN, M.TRANSIENT),
    ("200 in HTML", answer(200, HTML), M.UNKNOWN, M.TRANSIENT),
    ("200, a list", answer(200, []), M.UNKNOWN, M.TRANSIENT),
    ("200, nothing in it", answer(200, {}), M.UNKNOWN, M.TRANSIENT),
    ("204", answer(204, HTML), M.UNKNOWN, M.TRANSIENT),
]
NOT_ACCEPTED = {M.PERMANENT, M.NO_BALANCE, M.TOKEN_REFUSED, M.THROTTLED}
CERTAIN = {400, 401, 402, 403, 404, 422, 429}


@pytest.mark.parametrize(
    ("came", "post", "get"), [row[1:] for row in ERRORS], ids=[row[0] for row in ERRORS]
)
def test_every_error_has_its_meaning_about_a_post_and_about_a_get(
    came: Answer, post: Meaning, get: Meaning
) -> None:
    about_post, about_get = classify(Call.SUBMIT, came), classify(Call.RESULT, came)
    assert (about_post.meaning, about_get.meaning) == (post, get)
    for verdict in (about_post, about_get):
        assert verdict.reason
        assert verdict.message or came.loss


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(
            st.sampled_from(
                ["code", "error", "message", "detail", "request_id", "status", "output"]
            ),
            inner,
        )
    ),
)


@given(st.integers(100, 999), JSON)
def test_about_a_post_only_the_certain_cases_are_not_accepted_and_all_else_is_unknown(
    status: int, body: Any
) -> None:
    meaning = classify(Call.SUBMIT, answer(status, body)).meaning
    if status in CERTAIN:
        assert meaning in NOT_ACCEPTED
    elif 200 <= status < 300:
        assert meaning in (M.ACCEPTED, M.UNKNOWN)
    else:
        assert meaning is M.UNKNOWN


@given(st.integers(200, 599), JSON, st.sampled_from(Call))
def test_whatever_an_answer_holds_it_has_a_meaning(status: int, body: Any, call: Call) -> None:
    verdict = classify(call, answer(status, body))
    assert verdict.meaning in Meaning
    assert len(verdict.message) <= 300
    assert len(verdict.reason) <= 60


@pytest.mark.parametrize("status", [200, 201, 202])
def test_a_post_with_a_usable_request_id_is_accepted(status: int) -> None:
    verdict = classify(Call.SUBMIT, answer(status, {"request_id": "r-1_A", "status_url": "x"}))
    assert (verdict.meaning, verdict.request_id) == (M.ACCEPTED, "r-1_A")


@pytest.mark.parametrize("request_id", ["", "../../balance", "a b", "x" * 129, 7, None, ["r"]])
def test_a_post_without_a_usable_request_id_is_unknown(request_id: Any) -> None:
    verdict = classify(Call.SUBMIT, answer(200, {"request_id": request_id}))
    assert (verdict.meaning, verdict.request_id) == (M.UNKNOWN, None)


def test_a_refused_token_and_another_accounts_request_are_told_apart() -> None:
    assert classify(Call.RESULT, answer(403, coded(403001))).reason == "another account's request"
    assert classify(Call.RESULT, answer(403, coded(400004))).reason == "token refused"


def test_what_is_worth_keeping_of_an_error_is_kept() -> None:
    verdict = classify(Call.SUBMIT, answer(429, coded(429001, "slow down"), retry_after_s=7.0))
    assert (verdict.status, verdict.code, verdict.message) == (429, 429001, "slow down")
    assert verdict.retry_after_s == 7.0
    verdict = classify(Call.SUBMIT, answer(503))
    assert (verdict.reason, verdict.message) == ("HTTP 503", "the service gave no reason")
    lost = classify(Call.SUBMIT, Answer(loss=Loss.LOST, detail="reset by peer"))
    assert (lost.reason, lost.message) == ("answer lost", "reset by peer")
    not_sent = classify(Call.SUBMIT, Answer(loss=Loss.NOT_SENT, detail="refused"))
    assert (not_sent.reason, not_sent.message) == ("not reachable", "refused")


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ({"code": 400001, "message": "m"}, 400001, "m"),
        ({"code": "400001", "message": "m"}, 400001, "m"),
        ({"error_code": 400001, "error_message": "m"}, 400001, "m"),
        ({"error": {"code": 400001, "message": "m"}}, 400001, "m"),
        ({"detail": {"code": 400001, "message": "m"}}, 400001, "m"),
        ({"code": "invalid", "error": {"code": 400001, "message": "m"}}, 400001, "m"),
        ({"code": None, "message": "outer", "error": {"message": "m"}}, None, "m"),
        ({"error": "m"}, None, "m"),
        ({"msg": "m", "code": True}, None, "m"),
        ({"detail": "m", "code": 1.5}, None, "m"),
        ({"detail": [{"loc": ["seed"]}]}, None, '{"loc":["seed"]}'),
        ({"detail": [{"loc": ["body", "seed", 0], "msg": "m"}, "n"]}, None, "body.seed.0: m; n"),
        (
            {"error_message": "invalid", "detail": [{"loc": ["seed"], "msg": "m"}]},
            None,
            "invalid: seed: m",
        ),
        ({"message": "m", "errors": ["n", "o"]}, None, "m: n; o"),
        ({"error": [{"errorCode": 400001, "error": "m", "debugInfo": "d"}]}, 400001, "m"),
        ({"error": [{"errorCode": "BAD", "error": "m"}]}, None, "m"),
        ({"message": "", "detail": [], "error": {}}, None, "HTTP 422"),
        ({"message": "x" * 1000}, None, "x" * 300),
        ({"code": "9" * 5000}, None, "HTTP 422"),
        (["m"], None, "HTTP 422"),
        ("m", None, "HTTP 422"),
    ],
)
def test_code_and_message_are_found_in_every_shape_of_an_error(
    body: Any, code: int | None, message: str
) -> None:
    verdict = classify(Call.SUBMIT, answer(422, body))
    assert (verdict.code, verdict.message) == (code, message)


def nested(depth: int, kind: str) -> Any:
    value: Any = "https://x"
    for _ in range(depth):
        value = [value] if kind == "list" else {"images": [value]}
    return value


@pytest.mark.parametrize("kind", ["list", "object"])
@pytest.mark.parametrize("depth", [20, 100_000])
def test_brackets_within_brackets_are_as_good_as_no_answer(kind: str, depth: int) -> None:
    deep = nested(depth, kind)
    made = classify(Call.RESULT, answer(200, {"status": "succeeded", "output": deep}))
    assert (made.meaning, made.reason) == (M.ODD, "no output")
    refused = classify(Call.SUBMIT, answer(422, {"detail": [deep]}))
    assert refused.meaning is M.PERMANENT


# States


STATES: list[tuple[Any, Meaning]] = [
    *((state, M.WAITING) for state in ("in_queue", "queued", "pending", "waiting")),
    *((state, M.RUNNING) for state in ("in_progress", "running", "starting", "processing")),
    *((state, M.SUCCEEDED) for state in ("succeeded", "completed", "COMPLETED")),
    *((state, M.FAILED) for state in ("failed", "error", "Failed")),
    *((state, M.CANCELLED) for state in ("cancelled", "canceled")),
    *((state, M.TRANSIENT) for state in ("paused", "", None, 7)),
    *((state, M.TRANSIENT) for state in (["failed"], {"failed": True})),
]


@pytest.mark.parametrize(("state", "meaning"), STATES)
def test_every_state_has_its_meaning_and_an_unknown_one_loses_nothing(
    state: Any, meaning: Meaning
) -> None:
    body = {"status": state, "output": {"image": "https://x"}}
    assert classify(Call.RESULT, answer(200, body)).meaning is meaning


def test_an_unknown_state_is_named() -> None:
    verdict = classify(Call.RESULT, answer(200, {"status": "paused"}))
    assert (verdict.reason, "'paused'" in verdict.message) == ("unknown state", True)


def test_a_waiting_state_has_a_queue_position() -> None:
    verdict = classify(Call.RESULT, answer(200, {"status": "in_queue", "queue_position": 3}))
    assert verdict.result is not None
    assert verdict.result.queue_position == 3


@pytest.mark.parametrize("state", ["succeeded", "completed"])
def test_a_request_that_ended_with_an_error_and_no_output_has_failed(state: str) -> None:
    error = {"code": "content_refused", "message": "not allowed"}
    verdict = classify(Call.RESULT, answer(200, {"status": state, "error": error, "cost": 0}))
    assert (verdict.meaning, verdict.reason) == (M.FAILED, "content refused")
    assert verdict.message == "not allowed"
    assert verdict.result is not None
    assert verdict.result.cost_usd == 0


def test_outputs_beside_an_error_are_not_thrown_away() -> None:
    body = {"status": "completed", "error": "half of it", "output": {"image": "https://x"}}
    assert classify(Call.RESULT, answer(200, body)).meaning is M.SUCCEEDED


@pytest.mark.parametrize(
    ("error", "reason", "message"),
    [
        ({"code": "nsfw", "message": "m"}, "nsfw", "m"),
        ({"code": 5, "message": "m"}, "failed", "m"),
        ("m", "failed", "m"),
        (None, "failed", "the service gave no reason"),
        ({}, "failed", "the service gave no reason"),
    ],
)
def test_a_failure_has_a_reason_and_a_message(error: Any, reason: str, message: str) -> None:
    verdict = classify(Call.RESULT, answer(200, {"status": "failed", "error": error}))
    assert (verdict.meaning, verdict.reason, verdict.message) == (M.FAILED, reason, message)


U, V, W = "https://x/1.png", "https://x/2.png", "https://x/3.mp4"
A, DATA = "https://x/4.mp3", "data:image/png;base64,iVBORw0KGgo="


@pytest.mark.parametrize(
    ("output", "urls"),
    [
        ({"image": U}, [U]),
        ({"images": [U, V]}, [U, V]),
        ({"video": W}, [W]),
        ({"videos": [W]}, [W]),
        ({"image": U, "images": [U, V], "video": W, "seed": 7}, [U, V, W]),
        ({"images": [{"url": U}, {"url": V, "width": 4}]}, [U, V]),
        ({"image": {"url": U}}, [U]),
        ({"url": U}, [U]),
        (U, [U]),
        ([U, V], [U, V]),
        ([[U], [[V]]], [U, V]),
        ([{"image": U}, {"video": W}], [U, W]),
        ({"audio": A}, [A]),
        ({"audios": [{"url": A}], "path": V}, [V, A]),
        ({"preview": {"url": V}, "images": [{"url": U}]}, [U, V]),
        ({"model_mesh": {"url": "https://x/a.glb"}}, ["https://x/a.glb"]),
        ({"whatever": {"it": [{"is": "https://x/called"}]}}, ["https://x/called"]),
        ({"image": DATA}, [DATA]),
        ({"image": U, "input": {"image_urls": [V]}, "result_url": V}, [U]),
    ],
)
def test_outputs_are_found_in_every_shape(output: Any, urls: list[str]) -> None:
    verdict = classify(Call.RESULT, answer(200, {"status": "succeeded", "output": output}))
    assert verdict.meaning is M.SUCCEEDED
    assert verdict.result is not None
    assert verdict.result.outputs == urls


@pytest.mark.parametrize("state", ["succeeded", "completed"])
@pytest.mark.parametrize(
    ("output", "words"),
    [
        (None, ""),
        ({}, ""),
        ([], ""),
        ("", ""),
        (0, ""),
        ({"images": []}, '{"images":[]}'),
        ({"image": None}, '{"image":null}'),
        ({"status_url": "https://x/status"}, '{"status_url":"https://x/status"}'),
        ("The picture was refused.", "The picture was refused."),
        ({"text": "refused, see https://x/why?token=1"}, '{"text":"refused, see https://x/why"}'),
        (["/tmp/a.png"], '["/tmp/a.png"]'),
        (7, "7"),
    ],
)
def test_an_end_without_an_output_is_odd_and_keeps_the_words_and_the_cost(
    output: Any, words: str, state: str
) -> None:
    verdict = classify(Call.RESULT, answer(200, {"status": state, "output": output, "cost": 0.1}))
    assert (verdict.meaning, verdict.reason) == (M.ODD, "no output")
    assert verdict.message.removeprefix("the request ended without an output").lstrip(": ") == words
    assert verdict.result is not None
    assert verdict.result.cost_usd == Decimal("0.1")


def test_an_unknown_state_is_odd_if_the_answer_names_its_request() -> None:
    body = {"request_id": "r1", "status": "moderated", "message": "under review"}
    verdict = classify(Call.RESULT, answer(200, body))
    assert (verdict.meaning, verdict.reason) == (M.ODD, "unknown state")
    assert "'moderated': under review" in verdict.message


@pytest.mark.parametrize("state", [{}, {"status": None}, {"status": 7}, {"status": ""}])
def test_no_state_at_all_is_odd_too_if_the_answer_names_its_request(state: dict[str, Any]) -> None:
    verdict = classify(Call.RESULT, answer(200, {"request_id": "r1", **state}))
    assert (verdict.meaning, verdict.reason) == (M.ODD, "unknown state")
    assert classify(Call.RESULT, answer(200, state)).meaning is M.TRANSIENT


def test_pictures_are_the_main_outputs() -> None:
    assert output_urls({"audio": A, "image": U, "preview": V}) == ([U, V, A], 1)
    assert output_urls({"audio": A, "cover": V}) == ([V, A], 1)
    assert output_urls({"audio": A, "stems": ["https://x/5"]}) == ([A, "https://x/5"], 2)


SIGNATURE = "&".join(
    f"X-Amz-{name}=1"
    for name in ("Algorithm", "Credential", "Date", "Expires", "SignedHeaders", "Signature")
)


def test_what_only_repeats_the_input_was_not_made() -> None:
    sent = {"https://shop/mug.png"}
    repeated = {"images": [f"https://shop/mug.png?{SIGNATURE}"], "image": U}
    assert output_urls(repeated, sent) == ([U], 1)
    body = {"status": "completed", "output": ["https://shop/mug.png"]}
    assert classify(Call.RESULT, answer(200, body), sent).reason == "no output"


# Errors inside HTTP 200


def error(code: Any, **more: Any) -> dict[str, Any]:
    return {"error_code": code, "error_message": "m", **more}


@pytest.mark.parametrize(
    ("body", "meaning", "reason"),
    [
        (error(400001), M.PERMANENT, "no such model"),
        (error(400002), M.NO_BALANCE, "no balance"),
        (error("400002"), M.NO_BALANCE, "no balance"),
        (error(400002, request_id="trace-1"), M.NO_BALANCE, "no balance"),
        (error(400004), M.TOKEN_REFUSED, "token refused"),
        (error(401001), M.TOKEN_REFUSED, "token refused"),
        (error(403001), M.TOKEN_REFUSED, "another account's request"),
        (error(403999), M.TOKEN_REFUSED, "token refused"),
        (error(422001), M.PERMANENT, "input refused"),
        (error(429001), M.THROTTLED, "rate limited"),
        ({"error": [{"errorCode": 400002, "error": "m"}]}, M.NO_BALANCE, "no balance"),
        *((error(code), M.UNKNOWN, "service error") for code in (400003, 400005, 409001, 500001)),
        *((error(code), M.UNKNOWN, "service error") for code in ("odd", None, 7, 999999)),
        (error(500001, request_id="r1"), M.ACCEPTED, ""),
        ({"request_id": "r1", "error": {"code": 422001}}, M.ACCEPTED, ""),
        ({"request_id": "r1", "error_code": None, "error_message": ""}, M.ACCEPTED, ""),
    ],
)
@pytest.mark.parametrize("status", [200, 202])
def test_an_error_inside_a_200_refuses_a_post_only_if_its_code_is_known(
    body: dict[str, Any], meaning: Meaning, reason: str, status: int
) -> None:
    verdict = classify(Call.SUBMIT, answer(status, body))
    assert (verdict.meaning, verdict.reason) == (meaning, reason)
    if meaning is M.UNKNOWN:
        assert verdict.message == "m"


@pytest.mark.parametrize(
    ("code", "about_post", "about_get"),
    [
        (400001, "no such model", "service error"),
        (400002, "no balance", "no balance"),
        (401001, "token refused", "token refused"),
        (403003, "another account's request", "another account's request"),
        (404001, "no such model", "expired"),
        (422001, "input refused", "service error"),
        (429001, "rate limited", "rate limited"),
        (500001, "input refused", "service error"),
    ],
)
def test_a_code_under_http_400_means_what_its_first_digits_say(
    code: int, about_post: str, about_get: str
) -> None:
    came = answer(400, error(code))
    assert classify(Call.SUBMIT, came).reason == about_post
    assert classify(Call.RESULT, came).reason == about_get


@pytest.mark.parametrize(
    ("body", "meaning"),
    [
        (error(404001), M.GONE),
        (error(404001, status="error"), M.GONE),
        (error(400005), M.WAITING),
        (error(400005, status="completed"), M.WAITING),
        (error(403001), M.TOKEN_REFUSED),
        (error(403003), M.TOKEN_REFUSED),
        (error(429001), M.THROTTLED),
        (error(500001), M.TRANSIENT),
        (error("maintenance"), M.TRANSIENT),
        (error(422001, request_id="r1"), M.ODD),
        (error(409001), M.ODD),
        (error("refused", request_id="r1"), M.ODD),
        (error(500001, request_id="r1"), M.TRANSIENT),
        (error(500001, status="completed"), M.FAILED),
        (error(429001, status="failed"), M.FAILED),
        (error(500001, status="in_progress"), M.RUNNING),
        (error(500001, status="completed", output=["https://x/1.png"]), M.SUCCEEDED),
    ],
)
def test_an_error_inside_a_200_on_a_poll_is_classified_by_its_code(
    body: dict[str, Any], meaning: Meaning
) -> None:
    assert classify(Call.RESULT, answer(200, body)).meaning is meaning


@pytest.mark.parametrize("status", [400, 404])
def test_a_result_that_is_not_ready_counts_as_waiting(status: int) -> None:
    assert classify(Call.RESULT, answer(status, error(400005))).meaning is M.WAITING


def test_other_calls_know_an_error_inside_a_200() -> None:
    assert classify(Call.OTHER, answer(200, error(401001))).meaning is M.TOKEN_REFUSED
    assert classify(Call.OTHER, answer(200, error("odd"))).meaning is M.TRANSIENT


def test_a_balance_may_be_negative_and_come_in_microdollars() -> None:
    for body, balance in (
        ({"balance_usd": -3.5}, "-3.5"),
        ({"balance_usd": 0, "balance_microdollars": 5}, "0"),
        ({"balance_usd": None, "balance_microdollars": -2_500_000}, "-2.5"),
        ({"balance_microdollars": "1000000"}, "1"),
        ({"balance_usd": "NaN"}, None),
        ({"balance_usd": True}, None),
        ([], None),
    ):
        assert read_balance_usd(body) == (None if balance is None else Decimal(balance))


@pytest.mark.parametrize(
    ("cost", "cost_usd"),
    [
        (0.08, "0.08"),
        (0, "0"),
        (1, "1"),
        ("0.0800", "0.0800"),
        (None, None),
        (float("nan"), None),
        (float("inf"), None),
        ("NaN", None),
        ("-0.01", None),
        (-0.01, None),
        ("free", None),
        (True, None),
        ({"usd": 1}, None),
        ("1e999999999", None),
        (10**30, None),
    ],
)
def test_a_cost_is_a_sane_amount_or_unknown(cost: Any, cost_usd: str | None) -> None:
    body = {"status": "succeeded", "output": U, "cost": cost}
    result = classify(Call.RESULT, answer(200, body)).result
    assert result is not None
    assert result.cost_usd == (None if cost_usd is None else Decimal(cost_usd))


def test_times_are_kept_as_they_were_given_if_they_are_text() -> None:
    body = {"status": "succeeded", "output": U, "created_at": "2026-03-02", "finished_at": 7}
    result = classify(Call.RESULT, answer(200, body)).result
    assert result is not None
    assert (result.created_at, result.finished_at) == ("2026-03-02", None)


def test_other_calls_are_in_order_when_they_bring_an_object() -> None:
    assert classify(Call.OTHER, answer(202, {"outcome": "cancelled"})).meaning is M.OK
    assert classify(Call.OTHER, answer(200, [])).meaning is M.TRANSIENT


# Addresses


@pytest.mark.parametrize(
    ("api_base", "origin"),
    [
        ("https://model-api.runcomfy.net", "https://model-api.runcomfy.net"),
        ("https://model-api.runcomfy.net/v1/", "https://model-api.runcomfy.net"),
        ("Model-API.runcomfy.net", "https://model-api.runcomfy.net"),
        ("https://a.example:8443/v1", "https://a.example:8443"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://localhost", "http://localhost"),
        ("http://[::1]:80", "http://[::1]:80"),
    ],
)
def test_an_origin_is_scheme_host_and_port(api_base: str, origin: str) -> None:
    assert parse_origin(api_base) == origin
    assert Service(api_base, None).origin == origin


@pytest.mark.parametrize(
    ("api_base", "why"),
    [
        ("http://model-api.runcomfy.net", "not https"),
        ("http://127.0.0.1.evil.example", "not https"),
        ("http://2130706433", "not https"),
        ("ftp://a.example", "not the address"),
        ("file:///etc/passwd", "not the address"),
        ("https://", "not the address"),
        ("", "not the address"),
        ("https://user:pw@a.example", "not the address"),
        ("https://@a.example", "not the address"),
        ("https://[::1", "not the address"),
        ("https://a.example:port", "not the address"),
        ("https://a.example:99999", "not the address"),
    ],
)
def test_what_is_no_address_or_would_carry_the_token_in_the_clear_is_refused(
    api_base: str, why: str
) -> None:
    with pytest.raises(UsageError, match=why) as caught:
        parse_origin(api_base)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("origin", "is_here"),
    [
        ("http://127.0.0.1", True),
        ("http://127.8.9.10:80", True),
        ("http://localhost:80", True),
        ("http://[::1]:80", True),
        ("http://127.evil.example", False),
        ("http://localhost.evil.example", False),
        ("http://127.0.0.2", True),
        ("http://0.0.0.0", False),
        ("http://[::]", False),
        ("http://10.0.0.1", False),
        ("https://model-api.runcomfy.net", False),
        ("", False),
    ],
)
def test_only_this_machine_is_this_machine(origin: str, is_here: bool) -> None:
    assert is_loopback(origin) is is_here


# Retry-After


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        (" 7 ", 7.0),
        ("1.5", 1.5),
        ("0", 0.0),
        ("-5", 0.0),
        ("100000", 3600.0),
        ("1e400", None),
        ("nan", None),
        ("soon", None),
        ("Mon, 02 Mar 2026 12:00:30 GMT", None),
        ("", None),
    ],
)
def test_retry_after_is_a_number_of_seconds(value: str, seconds: float | None) -> None:
    assert parse_retry_after(value) == seconds


@given(st.text())
def test_no_retry_after_whatever_is_an_error(value: str) -> None:
    seconds = parse_retry_after(value)
    assert seconds is None or 0 <= seconds <= 3600


# The token


def test_the_token_is_not_shown() -> None:
    assert repr(Service("https://a.example", "hunter2")) == (
        "Service('https://a.example', token set)"
    )
    assert repr(Service("https://a.example", None)).endswith("token missing)")


@pytest.mark.parametrize("token", ["hunter2\nX-Evil: 1", "hunter2 x", "h\u00fcnter2", "\x00", ""])
def test_a_token_that_cannot_be_one_is_refused_without_being_shown(token: str) -> None:
    with pytest.raises(UsageError) as caught:
        Service("https://a.example", token)
    assert "nter2" not in json.dumps([str(caught.value), caught.value.hint])


SIGNED = "https://shop.s3.amazonaws.com/mug.png?X-Amz-Date=1&X-Amz-Signature=5ec3e7"


@pytest.mark.parametrize(
    "body",
    [
        {"message": f"cannot fetch {SIGNED}"},
        {"detail": [{"loc": ["image_urls", 0], "msg": f"no picture at {SIGNED}"}]},
        {"error": {"message": "x " * 110 + SIGNED}},
    ],
)
def test_a_signature_that_the_service_repeats_is_left_out_of_its_message(body: Any) -> None:
    verdict = classify(Call.SUBMIT, answer(422, body))
    assert verdict.meaning is M.PERMANENT
    assert "s3.amazonaws.com/mug.png" in verdict.message
    assert "X-Amz" not in verdict.message
    assert "5ec3e7" not in verdict.message
