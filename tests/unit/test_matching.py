"""Requests of a pasted list, compared with the jobs whose outcome nobody knows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from batch_runner.report.unknown import match_text, unknown_text
from batch_runner.run.matching import pair, request_ids_in
from batch_runner.run.resolve import UnknownJob, choose
from batch_runner.service.answer import Meaning, Result, Verdict
from batch_runner.service.echo import compare

AT = datetime(2026, 3, 2, 22, 0, tzinfo=UTC)
MODEL = "google/nano-banana-2/edit"
ID = "4f1c2d3e-0000-4000-8000-00000000000a"


def unknown(key: str, fingerprint: str = "", *, at_s: float = 0, **changes: Any) -> UnknownJob:
    sent_at = AT + timedelta(seconds=at_s)
    input_ = {"prompt": f"{key} on white", "image_urls": [f"https://cdn.example.com/{key}.png"]}
    values: dict[str, Any] = {
        "job": key,
        "fingerprint": fingerprint or key.encode().hex().ljust(64, "0"),
        "sent_at": sent_at,
        "why": "answer lost",
        "model": MODEL,
        "input": input_,
    }
    return UnknownJob(**{**values, **changes})


Answered = tuple[str, Verdict]


def request(name: str, at_s: float | None = 1, **echo: Any) -> Answered:
    at = None if at_s is None else (AT + timedelta(seconds=at_s)).isoformat()
    echoed = echo or {
        "prompt": f"{name} on white",
        "image_urls": [f"https://cdn.example.com/{name}.png?sig=new&se=2026"],
        "seed": 0,
    }
    result = Result(created_at=at, model_id=MODEL, input=echoed if echo != {"no": 1} else None)
    return f"id-{name}", Verdict(meaning=Meaning.SUCCEEDED, result=result)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"{ID}\n\n{ID}\n", [ID]),
        ("r7\r\nr8\r\n", ["r7", "r8"]),
        (f"Completed\t{MODEL}\t{ID}\t$0.05", [ID]),
        (f"https://www.runcomfy.com/generations/{ID}?tab=1", [ID]),
        ('{"request_id": "abcd1234efgh", "status": "completed"}', ["abcd1234efgh"]),
        ("nothing here but words, 1,234 of them", []),
    ],
)
def test_request_ids_are_found_among_any_other_words(text: str, found: list[str]) -> None:
    ids = request_ids_in(text)
    assert [one for one in ids if one != "nano-banana-2"] == found


@pytest.mark.parametrize(
    ("sent", "echoed", "is_same"),
    [
        ({"prompt": "a  b"}, {"prompt": " a b\n", "seed": 3}, True),
        ({"prompt": "a"}, {"prompt": "b"}, False),
        ({"seed": 1, "prompt": "a"}, {"seed": 1.0, "prompt": "a"}, True),
        ({"prompt": "a", "aspect_ratio": "1:1"}, {"prompt": "a", "aspect_ratio": "4:5"}, False),
        (
            {"image_url": "https://c.example.com/a%20b.png"},
            {"image_url": "https://C.example.com/a b.png?X-Amz-Signature=1&X-Amz-Date=2"},
            True,
        ),
        (
            {"image_url": "https://c.example.com/a.png"},
            {"image_url": "https://c.example.com/b.png"},
            False,
        ),
        ({"image_urls": ["https://c/a", "https://c/b"]}, {"image_urls": ["https://c/a"]}, False),
        (
            {"image_urls": ["s3://shop/up/ab12.jpg"]},
            {
                "image_urls": [
                    "https://shop.s3.eu-west-1.amazonaws.com/up/ab12.jpg?X-Amz-Signature=1"
                ]
            },
            True,
        ),
        (
            {"image_urls": ["s3://shop/up/ab12.jpg"]},
            {"image_urls": ["https://shop.s3.eu-west-1.amazonaws.com/up/cd34.jpg"]},
            False,
        ),
        (
            {"image_url": "https://c.example.com/a.png?v=1"},
            {"image_url": "https://u:p@c.example.com/a.png?token=t&v=1"},
            True,
        ),
        (
            {"image_url": "https://c.example.com/a.png?v=1"},
            {"image_url": "https://c.example.com/a.png?v=2"},
            False,
        ),
        # Nothing to compare: no difference, and no proof either.
        ({"prompt": "a"}, {}, None),
        ({"aspect_ratio": "1:1"}, {"aspect_ratio": "1:1"}, None),
        (
            {"image_url": "data:image/png;base64,…"},
            {"image_url": "data:image/png;base64,AAA"},
            None,
        ),
        ({"image_url": "https://c/a.png"}, {"image_url": "https://in.runcomfy.net/9.png"}, None),
        ({"prompt": "a"}, {"prompt": ["a"]}, None),
        ({"prompt": "a", "image_url": "https://c/a.png"}, {"prompt": "a"}, None),
    ],
)
def test_what_an_answer_repeats_is_the_same_another_or_cannot_be_compared(
    sent: dict[str, Any], echoed: dict[str, Any], is_same: bool | None
) -> None:
    found = compare(MODEL, sent, Result(model_id=MODEL, input=echoed))
    assert (found.difference is None, found.is_proven) == (is_same is not False, is_same is True)


def test_another_model_is_another_job() -> None:
    sent, answer = {"prompt": "a"}, Result(model_id="other/model", input={"prompt": "a"})
    assert compare(MODEL, sent, answer).difference == (f"its model is 'other/model', not '{MODEL}'")


REPEAT: dict[str, Any] = {"input": {"prompt": "p", "image_urls": ["https://c/p"]}}
OF_REPEAT: dict[str, Any] = {"prompt": "p", "image_urls": ["https://c/p"]}


@pytest.mark.parametrize(
    ("jobs", "requests", "pairs"),
    [
        # By the input, whatever the order.
        (
            [unknown("a"), unknown("b")],
            [request("b"), request("a"), request("c")],
            {"a": "id-a", "b": "id-b"},
        ),
        # One input at two times: by the time.
        (
            [unknown("x1", **REPEAT), unknown("x2", at_s=4000, **REPEAT)],
            [request("late", 4001, **OF_REPEAT), request("early", 1, **OF_REPEAT)],
            {"x1": "id-early", "x2": "id-late"},
        ),
        # Repeats are alike: as many as there are get one each, in order of time.
        (
            [
                unknown("x1", **REPEAT),
                unknown("x2", at_s=1, **REPEAT),
                unknown("x3", at_s=2, **REPEAT),
            ],
            [request("two", 2, **OF_REPEAT), request("one", 1, **OF_REPEAT)],
            {"x1": "id-one", "x2": "id-two"},
        ),
        # More requests than jobs: nobody knows which.
        (
            [unknown("x", **REPEAT)],
            [request("1", 1, **OF_REPEAT), request("2", 3, **OF_REPEAT)],
            {},
        ),
        # Only the prompt is repeated, and two jobs have it.
        (
            [
                unknown("a", input={"prompt": "p", "image_urls": ["https://c/a"]}),
                unknown("b", input={"prompt": "p", "image_urls": ["https://c/b"]}),
            ],
            [request("one", 1, prompt="p"), request("two", 2, prompt="p")],
            {},
        ),
        # The same prompt for every product, and no word about the picture.
        (
            [unknown("a", input={"prompt": "p", "image_urls": ["https://c/a"]})],
            [request("one", 1, prompt="p")],
            {},
        ),
        # The time rules out what the input does not.
        ([unknown("a")], [request("a", -400)], {}),
        ([unknown("a")], [request("a", 5000)], {}),
        # Neither time alone nor input alone is enough.
        ([unknown("a")], [request("a", 1, no=1)], {}),
        ([unknown("a")], [request("a", None)], {}),
    ],
)
def test_only_what_can_be_one_jobs_alone_is_paired(
    jobs: list[UnknownJob], requests: list[Answered], pairs: dict[str, str]
) -> None:
    paired = pair(jobs, dict(requests))
    assert {one.job: paired[one.fingerprint] for one in jobs if one.fingerprint in paired} == pairs


def test_no_job_without_a_pair_is_said_not_to_be_bought() -> None:
    jobs = [unknown("a"), unknown("b")]
    text = match_text(jobs, {jobs[0].fingerprint: "id-a"}, {}, [AT], "RESOLVE")
    assert "1 job attached" in text
    assert "may have been bought all the same" in text
    assert "--not-bought" not in text


FIRST, SECOND = "aaaa1111" + "0" * 56, "bbbb2222" + "0" * 56
SAME_KEY = [
    unknown("mug/white", FIRST),
    unknown("mug/white", SECOND, at_s=9, input={"prompt": "other words"}),
    unknown("cup/white"),
    unknown("old/white", "cccc3333" + "0" * 56, abandoned=True, counted_usd=Decimal("0.05")),
]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["aaaa1111"], [FIRST]),
        (["bbbb22220000"], [SECOND]),
        (["mug/w*"], [FIRST, SECOND]),
        (["aaaa1111", "bbbb2222"], [FIRST, SECOND]),
        (["cup/white"], [SAME_KEY[2].fingerprint]),
        (["*"], [one.fingerprint for one in SAME_KEY[:3]]),
        (["old/white"], [SAME_KEY[3].fingerprint]),
        (["cccc3333"], [SAME_KEY[3].fingerprint]),
    ],
)
def test_jobs_are_named_by_key_fingerprint_or_glob(words: list[str], named: list[str]) -> None:
    assert [one.fingerprint for one in choose(SAME_KEY, words)] == named


def test_two_unknown_jobs_of_one_key_are_shown_with_what_was_sent() -> None:
    shown = unknown_text(choose(SAME_KEY, ["mug/white"]), "RESOLVE")
    for words in ("aaaa1111", "mug/white on white", "bbbb2222", "other words"):
        assert words in shown
