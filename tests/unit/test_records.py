from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, get_args
from urllib.parse import urlsplit

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_runner.records import (
    Cancelled,
    Failed,
    LedgerHeader,
    Record,
    Refused,
    Resolved,
    RunFinished,
    RunStarted,
    Saved,
    SavedFile,
    Submitted,
    Submitting,
    Succeeded,
    Unknown,
    decode,
    encode,
    fingerprint,
    is_request_id,
    redact,
    redact_url,
    utc_now,
)

TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)
NUMBERS = st.integers(0, 2**53)
MONEY = st.none() | st.decimals(0, 10_000, places=4)
MOMENTS = st.datetimes(
    datetime(2000, 1, 1),  # noqa: DTZ001 - a bound, which takes its zone from the next line
    datetime(2100, 1, 1),  # noqa: DTZ001 - likewise
    timezones=st.just(UTC),
)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
INPUTS = st.dictionaries(TEXTS, JSON, max_size=4)
FILES = st.builds(
    SavedFile, path=TEXTS, size_bytes=NUMBERS, sha256=TEXTS, media_type=st.just("image/png")
)
ABOUT: dict[str, Any] = {"at": MOMENTS, "job": TEXTS, "fingerprint": TEXTS}
OPTIONAL_TEXTS = st.none() | TEXTS

KINDS: dict[Any, st.SearchStrategy[Record]] = {
    LedgerHeader: st.builds(
        LedgerHeader, version=st.just(1), at=MOMENTS, program=TEXTS, service=TEXTS
    ),
    RunStarted: st.builds(
        RunStarted,
        at=MOMENTS,
        run=TEXTS,
        pid=NUMBERS,
        host=TEXTS,
        program=TEXTS,
        manifest_sha256=TEXTS,
        jobs=NUMBERS,
        plan=st.dictionaries(TEXTS, NUMBERS, max_size=3),
    ),
    RunFinished: st.builds(
        RunFinished,
        at=MOMENTS,
        run=TEXTS,
        submitted=NUMBERS,
        saved=NUMBERS,
        failed=NUMBERS,
        unknown=NUMBERS,
        cost_usd=st.decimals(0, 10_000, places=4),
        elapsed_s=st.floats(0, 1e9),
        stopped=OPTIONAL_TEXTS,
    ),
    Submitting: st.builds(
        Submitting,
        **ABOUT,
        model=TEXTS,
        input=INPUTS,
        path=TEXTS,
        attempt=NUMBERS,
        reserved_usd=MONEY,
    ),
    Refused: st.builds(
        Refused,
        **ABOUT,
        reason=TEXTS,
        message=TEXTS,
        again=st.booleans(),
        status=st.none() | NUMBERS,
        code=st.none() | NUMBERS,
    ),
    Submitted: st.builds(Submitted, **ABOUT, request_id=TEXTS),
    Unknown: st.builds(Unknown, **ABOUT, why=TEXTS),
    Succeeded: st.builds(
        Succeeded,
        **ABOUT,
        request_id=TEXTS,
        outputs=st.lists(TEXTS, max_size=3),
        cost_usd=MONEY,
        created_at=OPTIONAL_TEXTS,
        finished_at=OPTIONAL_TEXTS,
    ),
    Failed: st.builds(
        Failed, **ABOUT, request_id=TEXTS, reason=TEXTS, message=TEXTS, cost_usd=MONEY
    ),
    Cancelled: st.builds(Cancelled, **ABOUT, request_id=TEXTS, cost_usd=MONEY),
    Saved: st.builds(Saved, **ABOUT, files=st.lists(FILES, max_size=2), reused_from=OPTIONAL_TEXTS),
    Resolved: st.builds(
        Resolved,
        **ABOUT,
        how=st.sampled_from(["attached", "resubmit", "abandoned"]),
        request_id=OPTIONAL_TEXTS,
    ),
}


def test_the_round_trip_below_knows_every_kind_of_record() -> None:
    assert set(KINDS) == set(get_args(Record))


@given(st.one_of(*KINDS.values()))
def test_every_record_comes_back_from_its_line_as_it_was(record: Record) -> None:
    line = encode(record)
    assert decode(line) == record
    assert decode(memoryview(line)) == record
    assert line.index(b"\n") == len(line) - 1


def test_money_is_written_as_text_and_moments_in_utc() -> None:
    line = json.loads(
        encode(
            Succeeded(
                at=datetime(2026, 3, 2, 14, 0, tzinfo=timezone(timedelta(hours=2))).astimezone(UTC),
                job="a",
                fingerprint="f",
                request_id="r",
                outputs=[],
                cost_usd=Decimal("0.0800"),
            )
        )
    )
    assert line["record"] == "succeeded"
    assert line["at"] == "2026-03-02T12:00:00Z"
    assert line["cost_usd"] == "0.0800"
    assert utc_now().tzinfo is UTC


@pytest.mark.parametrize(
    "line",
    [
        b'{"record":"paid","at":"2026-03-02T12:00:00Z","job":"a","fingerprint":"f"}',
        b'{"at":"2026-03-02T12:00:00Z","job":"a","fingerprint":"f","why":"x"}',
        b'{"record":"unknown","at":"yesterday","job":"a","fingerprint":"f","why":"x"}',
        b'{"record":"unknown","at":"2026-03-02T12:00:00Z","job":"a","fingerprint":"f"}',
        b'{"record":"resolved","at":"2026-03-02T12:00:00Z","job":"a","fingerprint":"f","how":"so"}',
        b'{"record":"unknown"',
        b"[]",
        b"",
    ],
)
def test_what_is_not_a_known_record_is_refused(line: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode(line)


# What is bought


def test_a_fingerprint_depends_on_model_input_and_repeat_but_not_on_the_order_of_keys() -> None:
    first = fingerprint("m", {"prompt": "p", "seed": 1}, 1)
    assert first == fingerprint("m", {"seed": 1, "prompt": "p"}, 1)
    others = {
        fingerprint("n", {"prompt": "p", "seed": 1}, 1),
        fingerprint("m", {"prompt": "q", "seed": 1}, 1),
        fingerprint("m", {"prompt": "p", "seed": "1"}, 1),
        fingerprint("m", {"prompt": "p", "seed": 1}, 2),
    }
    assert len(others | {first}) == 5


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:hunter2@a.example/x.png", "https://a.example/x.png"),
        ("https://user:p@ss@a.example/x.png", "https://a.example/x.png"),
        ("https://a.example/x?token=s&w=1", "https://a.example/x?w=1"),
        ("https://a.example/x?access_token=s", "https://a.example/x"),
        ("https://a.example/x?accessToken=s", "https://a.example/x"),
        ("https://a.example/x?X-Amz-Security-Token=s", "https://a.example/x"),
        ("https://a.example/x?client_secret=s", "https://a.example/x"),
        ("https://a.example/x?password=s", "https://a.example/x"),
        ("https://a.example/x?apikey=s&api_key=s&api-key=s", "https://a.example/x"),
        ("https://a.example/x?key=s&auth=s", "https://a.example/x"),
        ("https://a.example/x?%74oken=s", "https://a.example/x"),
        ("https://a.example/x#access_token=s&w=1", "https://a.example/x#w=1"),
        ("HTTPS://user:hunter2@a.example/x", "HTTPS://a.example/x"),
        ("s3://user:hunter2@bucket/x", "s3://bucket/x"),
    ],
)
def test_secrets_are_taken_out_of_a_url_before_it_is_written_down(url: str, shown: str) -> None:
    assert redact_url(url) == shown
    assert redact({"image_urls": [url, {"deep": url}]}) == {"image_urls": [shown, {"deep": shown}]}


@pytest.mark.parametrize(
    "value",
    [
        "Put it on https://user:hunter2@a.example/x?token=abc, please",
        "https://example.com looks @ me",
        "https://[the mug] and nothing else?",
        "",
        7,
        None,
        True,
        1.5,
    ],
)
def test_prompts_that_only_mention_a_url_and_other_values_are_untouched(value: Any) -> None:
    assert redact(value) == value


@given(st.text(), st.booleans())
def test_redacting_never_fails_and_doing_it_twice_changes_nothing(text: str, is_url: bool) -> None:
    url = f"https://{text}" if is_url else text
    assert redact_url(redact_url(url)) == redact_url(url)


@given(
    st.from_regex(r"[a-z]{1,8}\.example", fullmatch=True),
    st.from_regex(r"[a-zA-Z0-9]{8,20}", fullmatch=True),
    st.sampled_from(["token", "sig", "X-Amz-Signature", "signature", "api_key", "Password"]),
)
def test_a_secret_in_a_known_place_never_survives(host: str, secret: str, name: str) -> None:
    shown = redact_url(f"https://me:S-{secret}@{host}/p?{name}=S-{secret}&w=1#{name}=S-{secret}")
    assert f"S-{secret}" not in shown
    assert urlsplit(shown).hostname == host


@pytest.mark.parametrize("value", ["a", "A-_9", "x" * 128])
def test_a_usable_request_id_is_one(value: str) -> None:
    assert is_request_id(value)


@pytest.mark.parametrize(
    "value", ["", "x" * 129, "a/b", "..", "a.b", "a b", "a\n", "é", "%2e", 7, None, ["a"], b"a"]
)
def test_nothing_else_is_a_request_id(value: object) -> None:
    assert not is_request_id(value)
