"""Bucket URLs and what stores are told, without a store: nothing here leaves the machine."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from batch_runner.errors import AccessRefusedError, StorageError, UsageError
from batch_runner.files.bucket import Buckets, BucketUrl, is_bucket_url, parse_bucket_url
from batch_runner.files.bucket_storage import BucketStorage
from batch_runner.records import redact_url
from batch_runner.run.batch import RunOptions
from batch_runner.text.address import unsigned_url
from batch_runner.text.path import ADDED_BYTES

SECRET = "sEcReT"
DAY = timedelta(hours=24)


@pytest.mark.parametrize(
    ("text", "bucket", "key"),
    [
        ("s3://my-shop", "my-shop", ""),
        ("s3://my-shop/", "my-shop", ""),
        ("gs://my.shop/a/b/", "my.shop", "a/b"),
        ("az://shop1/ä b+c%20?d#e.png", "shop1", "ä b+c%20?d#e.png"),
    ],
)
def test_a_url_names_a_bucket_and_a_key(text: str, bucket: str, key: str) -> None:
    url = parse_bucket_url(text)
    assert (url.bucket, url.key) == (bucket, key)
    assert str(url) == text.removesuffix("/")
    assert is_bucket_url(text)


def test_paths_are_joined_below_a_prefix_or_the_bucket() -> None:
    assert str(BucketUrl("s3", "shop", "").join("a.png")) == "s3://shop/a.png"
    assert str(BucketUrl("s3", "shop", "x/y").join("a/b.png")) == "s3://shop/x/y/a/b.png"


@pytest.mark.parametrize(
    "text",
    [
        "s3://",
        "s3://x",
        "s3://-shop/a",
        "s3://My Shop/a",
        "s3://shop//a",
        "s3://shop/a/../b",
        "s3://shop/./a",
        "s3://shop/a\nb",
        "S3://shop/a",
        "https://shop/a",
    ],
)
def test_what_is_no_bucket_url_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^(is not|has)"):
        parse_bucket_url(text)


def test_only_the_three_schemes_mean_a_bucket() -> None:
    assert not any(map(is_bucket_url, ("https://a/b", "file:///a", "photos/", "s3:/a", "as3://a")))


# Signing, which asks nobody


def test_azure_is_signed_with_the_accounts_key() -> None:
    key = base64.b64encode(SECRET.encode()).decode()
    settings = {"AZURE_STORAGE_ACCOUNT_NAME": "shop", "AZURE_STORAGE_ACCOUNT_KEY": key}
    url = Buckets(settings).sign(parse_bucket_url("az://photos/mug 1.png"), DAY)
    assert url.startswith("https://shop.blob.core.windows.net/photos/mug%201.png?")
    assert "sig=" in url
    assert redact_url(url) == unsigned_url(url) == url.partition("?")[0]


@pytest.mark.skipif(
    shutil.which("openssl") is None, reason="openssl, which makes a key, is missing"
)
def test_google_is_signed_with_the_service_accounts_key() -> None:
    made = subprocess.run(
        ["openssl", "genrsa", "2048"], capture_output=True, text=True, check=True, timeout=240
    )
    account = {
        "type": "service_account",
        "client_email": "shop@shop.iam.gserviceaccount.com",
        "private_key_id": "1",
        "private_key": made.stdout,
    }
    settings = {"GOOGLE_SERVICE_ACCOUNT_KEY": json.dumps(account)}
    url = Buckets(settings).sign(parse_bucket_url("gs://my-shop/mug.png"), DAY)
    assert url.startswith("https://storage.googleapis.com/my-shop/mug.png?")
    assert "X-Goog-Expires=86400" in url
    assert redact_url(url) == unsigned_url(url) == url.partition("?")[0]


def test_amazon_is_signed_for_the_region_and_with_the_session() -> None:
    settings = {
        "AWS_ACCESS_KEY_ID": "AKID",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_SESSION_TOKEN": "session",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_REGION": "eu-central-1",
    }
    url = Buckets(settings).sign(parse_bucket_url("s3://my.shop/mug.png"), DAY)
    assert url.startswith("https://s3.eu-central-1.amazonaws.com/my.shop/mug.png?")
    assert "X-Amz-Security-Token=session" in url
    assert SECRET not in url
    assert redact_url(url) == unsigned_url(url) == url.partition("?")[0]


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        (
            {"AZURE_STORAGE_ACCOUNT_NAME": "a", "AZURE_STORAGE_ACCOUNT_KEY": f"!{SECRET}"},
            "az://box/a",
        ),
        (
            {"AZURE_STORAGE_ACCOUNT_NAME": "a", "AZURE_STORAGE_SAS_KEY": f"sig={SECRET}"},
            "az://box/a",
        ),
        ({"GOOGLE_SERVICE_ACCOUNT_KEY": f"{{{SECRET}"}, "gs://box/a"),
    ],
)
def test_unusable_credentials_are_told_without_showing_them(
    settings: dict[str, str], url: str
) -> None:
    with pytest.raises(AccessRefusedError, match="with the credentials that were found") as caught:
        Buckets(settings).sign(parse_bucket_url(url), DAY)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_nothing_that_is_shown_of_options_and_buckets_holds_a_secret() -> None:
    settings = {"AWS_SECRET_ACCESS_KEY": SECRET}
    options = RunOptions(token=f"token-{SECRET}", bucket_settings=settings)
    assert SECRET not in repr(options)
    assert repr(Buckets(settings)) == "Buckets(AWS_SECRET_ACCESS_KEY)"


def test_a_bucket_without_the_extra_is_an_error_that_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("obstore", "obstore.store", "obstore.exceptions"):
        monkeypatch.setitem(sys.modules, name, None)
    url = parse_bucket_url("s3://shop/mug.png")
    for use in (Buckets({}).facts, lambda url: Buckets({}).sign(url, DAY)):
        with pytest.raises(UsageError, match="an extra that is not installed") as caught:
            use(url)
        assert caught.value.hint == "pip install 'batch-runner[s3]'"


def test_the_prefix_and_all_that_is_added_count_for_the_longest_key(tmp_path: Path) -> None:
    root = BucketUrl("s3", "shop", "pictures/spring")
    done: Any = SimpleNamespace(put=lambda *_, **__: None, facts=lambda _: None)
    storage = BucketStorage(done, root, tmp_path)
    left = 1024 - len("pictures/spring/superseded/") - ADDED_BYTES
    assert storage.prepare(["x" * left])
    with pytest.raises(StorageError, match="longer than a bucket"):
        storage.prepare(["short", "ü" * (left // 2 + 1)])
