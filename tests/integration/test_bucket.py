"""Buckets for real: SeaweedFS, which checks signatures and expiry as Amazon's store does."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from aiohttp import web
from bench import FAST, Bench, OpenSandbox
from conftest import FakeClock
from loopback import serving
from photos import photo
from PIL import Image
from weed import BUCKET, KEY_ID, SECRET, Store, serving_store

from batch_runner.clock import Clock
from batch_runner.errors import AccessRefusedError, ManifestError, StorageError, UsageError
from batch_runner.files.bucket import Buckets, BucketUrl, parse_bucket_url
from batch_runner.files.bucket_storage import BucketStorage
from batch_runner.files.download import DownloadError, Downloads
from batch_runner.files.storage import NotSavedError, Whole
from batch_runner.files.upload import PictureMissingError, Uploads
from batch_runner.jobs.picture import find_picture
from batch_runner.records import Job, SavedFile
from batch_runner.sandbox import Sandbox
from batch_runner.service.answer import Meaning
from batch_runner.service.call import Service
from batch_runner.text.path import superseded_path


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with serving_store(tmp_path_factory.mktemp("weed")) as served:
        yield served


@pytest.fixture
def root(store: Store, request: pytest.FixtureRequest) -> BucketUrl:
    name: str = request.node.name
    return store.root(name.replace("[", "-").replace("]", ""))


@pytest.fixture
def storage(store: Store, root: BucketUrl, tmp_path: Path) -> BucketStorage:
    return BucketStorage(store.buckets, root, tmp_path / "spool")


def read(store: Store, url: BucketUrl) -> bytes:
    return b"".join(store.buckets.chunks(url))


def put(store: Store, url: BucketUrl, content: bytes) -> None:
    """Write as another program would, that keeps no hash."""
    import obstore

    obstore.put(store.buckets._store(url), url.key, content)


def save(storage: BucketStorage, path: str, body: bytes) -> SavedFile:
    (saved,) = storage.save_whole([Whole(path, "image/jpeg", body)])
    assert isinstance(saved, SavedFile)
    return saved


def fetched(url: str) -> int:
    try:
        with urlopen(url, timeout=10) as answer:
            return int(answer.status)
    except HTTPError as error:
        return error.code


# Signatures


def test_a_signed_url_gives_the_object_and_a_tampered_one_is_refused(
    store: Store, root: BucketUrl
) -> None:
    for name in ("mug ä+b%20c.png", "other.png"):
        put(store, root.join(name), b"a picture")
    url = store.buckets.sign(root.join("mug ä+b%20c.png"), timedelta(hours=24))
    assert fetched(url) == 200
    end = "0" if url[-1] != "0" else "1"
    assert fetched(url[:-1] + end) == 403
    other = store.buckets.sign(root.join("other.png"), timedelta(hours=24))
    assert fetched(other.partition("?")[0] + "?" + url.partition("?")[2]) == 403
    assert fetched(url.replace("X-Amz-Expires=86400", "X-Amz-Expires=86401")) == 403
    assert fetched(url.partition("?")[0]) == 403


def test_a_signed_url_ends_when_it_says(store: Store, root: BucketUrl) -> None:
    put(store, root, b"a picture")
    url = store.buckets.sign(root, timedelta(seconds=1))
    deadline = time.monotonic() + 30
    while fetched(url) != 403:
        assert time.monotonic() < deadline
        time.sleep(0.05)


async def test_a_service_that_is_given_a_tampered_url_fails_the_request(
    store: Store, root: BucketUrl, tmp_path: Path
) -> None:
    put(store, root.join("mug.jpg"), photo(1))
    put(store, root.join("page.jpg"), b"<html>")
    signed = store.buckets.sign(root.join("mug.jpg"), timedelta(hours=24))
    tampered = signed.replace("/mug.jpg?", "/page.jpg?")
    page = store.buckets.sign(root.join("page.jpg"), timedelta(hours=24))
    said = {}
    async with Sandbox(tmp_path, FAST) as sandbox, Service(sandbox.url, "any") as service:
        for url in (signed, tampered, page):
            input_ = {"prompt": "on white", "image_urls": [url]}
            accepted = await service.submit("google/nano-banana-2/edit", input_)
            assert accepted.request_id is not None
            verdict = await service.result(accepted.request_id)
            while verdict.meaning in (Meaning.WAITING, Meaning.RUNNING):
                verdict = await service.result(accepted.request_id)
            said[url] = (verdict.meaning, verdict.message)
    place = f"/{BUCKET}/{root.key}"
    assert said == {
        signed: (Meaning.SUCCEEDED, ""),
        tampered: (Meaning.FAILED, f"{place}/page.jpg cannot be fetched: HTTP 403"),
        page: (Meaning.FAILED, f"{place}/page.jpg cannot be read as a picture"),
    }


# Objects


def test_what_is_saved_is_there_with_its_hash_and_found_again(
    store: Store, storage: BucketStorage, root: BucketUrl, tmp_path: Path
) -> None:
    body = photo(1)
    saved = save(storage, "sku/white.jpg", body)
    assert read(store, root.join("sku/white.jpg")) == body
    facts = store.buckets.facts(root.join("sku/white.jpg"))
    assert facts is not None
    assert (facts.size_bytes, facts.sha256) == (len(body), saved.sha256)
    anew = BucketStorage(store.buckets, root, tmp_path)
    for thorough in (False, True):
        assert storage.is_in_place(saved.path, saved, thorough=thorough)
        assert anew.is_in_place(saved.path, saved, thorough=thorough)
        assert not anew.is_in_place("sku/other.jpg", saved, thorough=thorough)
    assert anew.sha256(saved.path) == saved.sha256
    assert anew.sha256("sku/other.jpg") is None
    assert str(storage) == str(root)


def test_a_large_file_goes_in_parts_and_leaves_nothing_here(
    store: Store, storage: BucketStorage, root: BucketUrl, tmp_path: Path
) -> None:
    content = os.urandom(20 * 2**20)
    digest = hashlib.sha256(content).hexdigest()
    saved = SavedFile(
        path="film.mp4", size_bytes=len(content), sha256=digest, media_type="video/mp4"
    )
    with storage.unfinished("film.mp4") as unfinished:
        Path(unfinished).write_bytes(content)
        storage.put_in_place(unfinished, saved)
    assert storage.sha256("film.mp4") == digest
    assert storage.is_in_place("film.mp4", saved, thorough=True)
    assert list((tmp_path / "spool").iterdir()) == []
    assert len(store.puts(root.key)) == 3
    with storage.unfinished("film.mp4") as unfinished:
        Path(unfinished).write_bytes(content)
        storage.put_in_place(unfinished, saved)
    assert len(store.puts(root.key)) == 3


def test_the_same_file_is_not_written_twice_and_another_one_is_set_aside(
    store: Store, storage: BucketStorage, root: BucketUrl
) -> None:
    first = save(storage, "a.jpg", photo(1))
    assert save(storage, "a.jpg", photo(1)) == first
    assert store.puts(root.key) == ["a.jpg"]
    second = save(storage, "a.jpg", photo(2))
    aside = superseded_path("a.jpg", first.sha256)
    assert read(store, root.join("a.jpg")) == photo(2)
    assert read(store, root.join(aside)) == photo(1)
    assert storage.is_in_place("a.jpg", second, thorough=True)
    assert not storage.is_in_place("a.jpg", first, thorough=True)
    assert storage.is_in_place(aside, first, thorough=True)


def test_what_a_kill_left_of_a_large_file_is_cleared_away(
    storage: BucketStorage, tmp_path: Path
) -> None:
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "0123.part").write_bytes(b"half a film")
    storage.prepare()
    assert list((tmp_path / "spool").iterdir()) == []


def test_what_a_person_put_there_is_set_aside_by_its_content(
    store: Store, storage: BucketStorage, root: BucketUrl
) -> None:
    put(store, root.join("a.jpg"), photo(7))
    saved = save(storage, "a.jpg", photo(1))
    aside = superseded_path("a.jpg", hashlib.sha256(photo(7)).hexdigest())
    assert read(store, root.join(aside)) == photo(7)
    put(store, root.join("b.jpg"), photo(1))
    assert storage.is_in_place("b.jpg", saved, thorough=True)


def test_a_second_name_is_a_copy_that_the_store_makes(
    store: Store, storage: BucketStorage, root: BucketUrl
) -> None:
    first = save(storage, "a.jpg", photo(1))
    put(store, root.join("x/b.jpg"), b"in the way")
    again = storage.reuse(first, "x/b.jpg")
    assert again.path == "x/b.jpg"
    assert storage.is_in_place("x/b.jpg", again, thorough=True)
    before = len(store.puts(root.key))
    assert storage.reuse(first, "x/b.jpg") == again
    assert len(store.puts(root.key)) == before
    put(store, root.join("a.jpg"), b"another")
    with pytest.raises(NotSavedError, match="has changed since it was saved"):
        storage.reuse(first, "c.jpg")


@pytest.mark.parametrize("side_px", [16, 900])
async def test_a_download_ends_in_the_bucket_whole_or_not_at_all(
    store: Store, storage: BucketStorage, root: BucketUrl, tmp_path: Path, side_px: int
) -> None:
    noise = Image.effect_noise((side_px, side_px), 100).convert("RGB")
    file = io.BytesIO()
    noise.save(file, "PNG")
    whole = file.getvalue()
    bodies = [whole[: len(whole) // 2], whole]

    async def handler(_: web.Request) -> web.Response:
        return web.Response(body=io.BytesIO(bodies.pop(0)))

    async with serving(handler) as origin, Downloads(storage, allow_loopback=True) as downloads:
        with pytest.raises(DownloadError, match="cut off"):
            await downloads.fetch(f"{origin}/a", "sku/a")
        assert dict(store.buckets.list_below(root)) == {}
        saved = await downloads.fetch(f"{origin}/a", "sku/a")
    assert saved.path == "sku/a.png"
    assert read(store, root.join("sku/a.png")) == whole
    assert storage.is_in_place(saved.path, saved, thorough=True)
    assert os.listdir(tmp_path / "spool" if side_px > 100 else tmp_path) == []  # noqa: PTH208 - nothing blocks here


def test_a_listing_of_more_than_one_page_is_whole(store: Store, root: BucketUrl) -> None:
    names = [root.join(f"{number:04}.jpg") for number in range(1001)]
    unwatched = store.unwatched
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda url: unwatched.put(url, b"x", media_type="text/plain"), names))
    listed = dict(store.buckets.list_below(root))
    assert len(listed) == 1001
    assert listed["1000.jpg"] == 1
    assert dict(store.buckets.list_below(root.join("no"))) == {}


# What goes wrong


def test_wrong_credentials_are_refused_in_words_without_a_secret(
    store: Store, root: BucketUrl, tmp_path: Path
) -> None:
    settings = {**store.settings, "AWS_SECRET_ACCESS_KEY": "another" + SECRET}
    storage = BucketStorage(Buckets(settings), root, tmp_path)
    with pytest.raises(AccessRefusedError) as caught:
        storage.prepare()
    assert caught.value.message == (
        f"{root}/.batch-runner: may not be written: 403 Forbidden, SignatureDoesNotMatch"
    )
    assert caught.value.__cause__ is None
    for text in (str(caught.value), repr(caught.value), repr(Buckets(settings))):
        assert SECRET not in text
        assert KEY_ID not in text


def test_a_store_that_is_away_ends_the_run_and_says_where(tmp_path: Path, store: Store) -> None:
    settings = {**store.settings, "AWS_ENDPOINT_URL": "http://127.0.0.1:1"}
    root = BucketUrl("s3", BUCKET, "away")
    with pytest.raises(StorageError, match=r"away/\.batch-runner: cannot be written"):
        BucketStorage(Buckets(settings), root, tmp_path).prepare()


# Uploads


def job(tmp_path: Path, root: BucketUrl, content: bytes) -> Job:
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    picture = find_picture("a.jpg", tmp_path, local_pictures=False, uploads=root)
    assert picture.file is not None
    input_ = {
        "prompt": "s3://is no picture",
        "image_urls": [picture.url, "https://a.example/b.png"],
    }
    return Job(key="a", fingerprint="f", model="m", input=input_, path="a", files=(picture.file,))


Opened = Callable[..., Uploads]


@pytest.fixture
def open_uploads(store: Store) -> Iterator[Opened]:
    made: list[Uploads] = []

    def opened(**settings: Any) -> Uploads:
        made.append(
            Uploads(
                Buckets({**store.settings, **settings.pop("settings", {})}),
                clock=settings.pop("clock", Clock()),
                service_is_here=settings.pop("service_is_here", True),
            )
        )
        return made[-1]

    yield opened
    for one in made:
        one.close()


@pytest.fixture
def uploads(open_uploads: Opened) -> Uploads:
    return open_uploads()


async def test_a_picture_of_many_jobs_is_uploaded_once_and_signed_anew_for_each(
    store: Store,
    root: BucketUrl,
    uploads: Uploads,
    open_uploads: Opened,
    tmp_path: Path,
) -> None:
    one = job(tmp_path, root, photo(1))
    await asyncio.gather(*(uploads.prepare(one) for _ in range(20)))
    assert len(store.puts(root.key)) == 1
    signed = await uploads.sign(one.input)
    assert one.input["image_urls"][0].startswith(str(root))
    assert fetched(signed["image_urls"][0]) == 200
    assert signed["image_urls"][1] == "https://a.example/b.png"
    assert signed["prompt"] == "s3://is no picture"
    await open_uploads().prepare(one)
    assert len(store.puts(root.key)) == 1


async def test_a_photo_that_changed_since_it_was_planned_is_not_uploaded_under_its_old_name(
    store: Store, root: BucketUrl, uploads: Uploads, tmp_path: Path
) -> None:
    planned = job(tmp_path, root, photo(1))
    (tmp_path / "a.jpg").write_bytes(photo(2))
    with pytest.raises(ManifestError, match=r"a\.jpg: changed during the run"):
        await uploads.prepare(planned)
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(ManifestError, match=r"a\.jpg: can no longer be read"):
        await uploads.prepare(planned)
    assert store.puts(root.key) == []


async def test_an_object_that_is_too_large_or_not_there_is_told(
    store: Store, root: BucketUrl, uploads: Uploads
) -> None:
    put(store, root.join("large.jpg"), bytes(50_000_001))
    for name, why in (("large.jpg", "is 50.0 MB; the service"), ("no.jpg", "there is no object")):
        input_ = {"image_urls": [str(root.join(name))]}
        one = Job(key="a", fingerprint="f", model="m", input=input_, path="a")
        with pytest.raises(PictureMissingError, match=why):
            await uploads.prepare(one)


async def test_what_lies_under_an_uploads_name_with_other_content_is_replaced(
    store: Store, root: BucketUrl, uploads: Uploads, tmp_path: Path
) -> None:
    one = job(tmp_path, root, photo(1))
    url = parse_bucket_url(one.input["image_urls"][0])
    put(store, url, b"what somebody else put there")
    await uploads.prepare(one)
    assert read(store, url) == photo(1)


async def test_no_url_is_signed_with_credentials_that_end_before_the_service_has_fetched(
    root: BucketUrl, open_uploads: Opened, clock: FakeClock
) -> None:
    clock.start = datetime.now(UTC)
    ends = {"AWS_CREDENTIAL_EXPIRATION": (clock.start + timedelta(minutes=40)).isoformat()}
    uploads = open_uploads(settings=ends, clock=clock)
    input_ = {"image_urls": [str(root.join("a.jpg"))]}
    signed = await uploads.sign(input_)
    assert "X-Amz-Expires=2400&" in signed["image_urls"][0]
    clock.elapsed_s = 26 * 60
    with pytest.raises(AccessRefusedError, match="credentials expire in less than 15 minutes"):
        await uploads.sign(input_)


async def test_a_store_on_this_machine_is_no_use_to_a_service_elsewhere(
    root: BucketUrl, open_uploads: Opened
) -> None:
    uploads = open_uploads(service_is_here=False)
    with pytest.raises(UsageError, match="cannot fetch pictures from a store on this machine"):
        await uploads.sign({"image_urls": [str(root.join("a.jpg"))]})
    assert await uploads.sign({"image_urls": ["https://a.example/b"]})


# Settings


def test_plain_http_leads_to_this_machine_only(root: BucketUrl) -> None:
    settings = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    for endpoint in ("http://store.example.com", "ftp://127.0.0.1", "store", "http://127.0.0.1.x"):
        buckets = Buckets({**settings, "AWS_ENDPOINT_URL": endpoint})
        with pytest.raises(UsageError, match=r"the object store's endpoint .* is not secure"):
            buckets.facts(root)


def test_credentials_that_end_soon_are_told_from_the_environment() -> None:
    ends = datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=10)
    assert Buckets({"AWS_CREDENTIAL_EXPIRATION": ends.isoformat()}).credentials_expire() == ends
    assert Buckets({}).credentials_expire() is None


# Runs


async def test_a_run_that_waited_for_its_window_has_uploaded_before_it_submits(
    store: Store, root: BucketUrl, bench: Bench, open_sandbox: OpenSandbox, clock: FakeClock
) -> None:
    for number in range(6):
        (bench.folder / f"{number}.jpg").write_bytes(photo(number))
    pictures = ", ".join(f"p{number}: {number}.jpg" for number in range(6))
    text = f"prompts: {{white: On white.}}\nimages: {{{pictures}}}\nuploads: {root}\n"
    window = 'window: {hours: "22:00-06:00", timezone: Europe/Madrid}\n'
    clock.start = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
    settings = store.settings
    async with open_sandbox() as sandbox:
        await bench.run(text + window, sandbox, clock=clock, wait=True, bucket_settings=settings)
        # By a clock that runs away some may not have ended; none was sent without its picture.
        summary = await bench.run(text, sandbox, bucket_settings=settings)
        assert (summary.done, len(sandbox.accepted())) == (6, 6)
    assert len(set(store.puts(root.key))) == len(store.puts(root.key)) == 6
