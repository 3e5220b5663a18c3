from __future__ import annotations

import base64
import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_runner.records import former_identity, redact_url
from batch_runner.text.address import expires_at, may_be_signed, unsigned_url


def token(exp: int) -> str:
    claims = base64.urlsafe_b64encode(json.dumps({"exp": exp}).encode()).decode().rstrip("=")
    return f"eyJhbGciOiJIUzI1NiJ9.{claims}.c2ln"


V4 = "Algorithm={0}4-HMAC&X-{1}-Credential=C%2F1&X-{1}-Date=20261101T000000Z&X-{1}-Expires=3600"
KNOWN_BEFORE = [
    "https://b.s3.amazonaws.com/a.png?X-Amz-" + V4.format("AWS", "Amz") + "&X-Amz-Signature=ab",
    "https://b.s3.amazonaws.com/a.png?AWSAccessKeyId=A&Expires=1793491200&Signature=a%3D",
    (
        "https://s.blob.core.windows.net/c/a.png?sv=2022-11-02&st=2026-01-01T00%3A00Z"
        "&se=2026-11-01T00%3A00%3A00Z&sr=b&sp=r&spr=https&sig=abc%3D"
    ),
    "https://s.blob.core.windows.net/c/a.png?sv=2022-11-02&ss=b&srt=sco&sp=rl&se=2026-11-01&sig=a",
    "https://d.cloudfront.net/a.png?Expires=1793491200&Signature=abc&Key-Pair-Id=K",
    "https://d.cloudfront.net/a.png?Policy=P&Signature=abc&Key-Pair-Id=K",
    "https://storage.googleapis.com/b/a.png?GoogleAccessId=x&Expires=1793491200&Signature=abc",
    "https://storage.googleapis.com/b/a.png?X-Goog-"
    + V4.format("GOOG", "Goog")
    + "&X-Goog-SignedHeaders=host&X%2DGoog%2DSignature=ab",
    "https://b.oss.aliyuncs.com/a.png?OSSAccessKeyId=x&Expires=1793491200&Signature=abc",
]
KNOWN_NOW = [
    "https://media.discordapp.net/attachments/1/2/a.png?ex=6ae68600&is=66a8ef86&hm=2763&",
    f"https://x.supabase.co/storage/v1/object/sign/p/a.png?token={token(1793491200)}",
    f"https://db.shop.example/storage/v1/render/image/sign/p/a.png?token={token(1793491200)}",
    (
        "https://b.cos.ap-x.myqcloud.com/a.png?q-sign-algorithm=sha1&q-ak=A"
        "&q-sign-time=1793480000%3B1793491200&q-key-time=1%3B2&q-header-list=&q-signature=aa"
    ),
    "https://cdn.shop.example/a.png?token=HS256-aa&expires=1793491200&token_path=%2F",
    (
        "https://firebasestorage.googleapis.com/v0/b/b/o/a.png"
        "?token=2f2e6e6a-17b5-4d6e-9f6f-0c8f4c1b7a11"
    ),
]


@pytest.mark.parametrize("url", [*KNOWN_BEFORE, *KNOWN_NOW])
def test_a_signed_url_is_the_same_picture_without_its_signature(url: str) -> None:
    plain = url.partition("?")[0]
    assert unsigned_url(url).rstrip("?&") == plain
    assert redact_url(url).rstrip("?&") == plain


@pytest.mark.parametrize("url", KNOWN_BEFORE)
def test_schemes_that_earlier_releases_knew_give_the_same_picture(url: str) -> None:
    assert unsigned_url(f"{url}&v=2") == former_identity(f"{url}&v=2")


@pytest.mark.parametrize(
    "url",
    [
        "https://cdn.example.com/a.png",
        "https://cdn.example.com/a.png?ss=1&policy=small&expires=never",
        "https://cdn.example.com/@scope/a.png?v=2#top",
        "HTTPS://CDN.example.com/a%20b.png?V=2&w=",
        "https://[not an address?v=1",
        "https://a.example/x?",
        "https://a.example/x?a&&b=#",
        "https://evil.example\uff0f.runcomfy.net/x?v=1",
        "no URL at all @ home",
        "",
        # Parts of a scheme, which may be what tells two pictures apart
        "https://img.example.com/render?item=1&sr=front&sig=aaa",
        "https://img.example.com/render?item=1&sv=2022-11-02&sr=front&se=x&sp=r&sig=aaa",
        "https://img.example.com/render?item=1&sp=left&signature=aaa",
        "https://img.example.com/render?policy=dark&sig=aaa&expires=never",
        "https://img.example.com/render?signature=beckham",
        "https://img.example.com/render?ex=1&is=2&hm=3",
        "https://img.example.com/render?token=front",
        "https://img.example.com/render?s=front&expires=1793491200",
        "https://img.example.com/render?token=blue&expires=soon",
    ],
)
def test_what_tells_two_pictures_apart_is_kept_byte_for_byte(url: str) -> None:
    assert unsigned_url(url) == url


def test_what_changes_the_picture_is_kept_beside_a_signature() -> None:
    signed = (
        "https://b.oss.example/a.png?x-oss-process=image/resize,w_9&v=2&x-oss-date=20261101T000000Z"
    )
    assert unsigned_url(f"{signed}&x-oss-signature=a#f") == (
        "https://b.oss.example/a.png?x-oss-process=image/resize,w_9&v=2#f"
    )
    assert unsigned_url("https://u:p@a.example/x?token=s") == "https://a.example/x?token=s"


@given(st.text(), st.booleans())
def test_any_text_is_taken_and_unsigned_once(text: str, is_url: bool) -> None:
    url = f"https://{text}" if is_url else text
    assert unsigned_url(unsigned_url(url)) == unsigned_url(url)
    expires_at(url)


END = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "url",
    [
        *(url for url in (*KNOWN_BEFORE, *KNOWN_NOW) if "xpires=1793491200" in url),
        KNOWN_BEFORE[2],
        KNOWN_BEFORE[3],
        "https://media.discordapp.net/attachments/1/2/a.png?ex=69054a80&is=1&hm=2",
    ],
)
def test_an_address_tells_when_its_signature_ends(url: str) -> None:
    end = expires_at(url)
    assert end is not None
    if "ex=6" not in url:
        assert end == END
    assert expires_at(KNOWN_BEFORE[0]) == datetime(2026, 11, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "url",
    [
        "https://cdn.example.com/a.png?expires=1&w=3",
        "https://x.supabase.co/storage/v1/object/sign/p/a.png?token=a.b.c",
        "https://b.s3.example/a?X-Amz-Date=20269901T000000Z&X-Amz-Expires=9&X-Amz-Signature=a",
        "https://b.s3.example/a?X-Amz-Date=20261101T000000Z&X-Amz-Expires=x&X-Amz-Signature=a",
        "https://d.cloudfront.net/a?Key-Pair-Id=K&Signature=s&Expires=99999999999999999999",
    ],
)
def test_an_address_without_a_readable_end_has_none(url: str) -> None:
    assert expires_at(url) is None


NAMES = ["sig", "Signature", "X-Amz-Signature", "x-goog-signature", "s%69g", "policy", "v", "", "w"]


@given(
    st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(["", "=", "=1"]))),
    st.sampled_from(["https://h.example/a.png", "https://u@h.example/a.png"]),
    st.sampled_from(["", "#", "#sig=1"]),
)
def test_an_address_that_cannot_be_signed_never_had_another_name(
    pairs: list[tuple[str, str]], address: str, end: str
) -> None:
    url = f"{address}?{'&'.join(map(''.join, pairs))}{end}"
    if not may_be_signed(url):
        assert former_identity(url) == url == unsigned_url.__wrapped__(url)
