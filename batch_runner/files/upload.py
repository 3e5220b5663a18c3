"""Making pictures ready for the service to fetch: in their bucket, and with a signed URL.

Hides uploading. What always holds: a job is submitted only when each of its pictures is whole in
its bucket; a picture is named by the hash of its content, so it is uploaded once, whichever run
does it, and an upload that a kill interrupted is invisible and in nobody's way; a record has the
input as it was before it was signed.

Pictures are uploaded just before the job that needs them, not all at the start: the service works
meanwhile, and pictures of jobs that a limit, a budget or a window holds back stay here.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from batch_runner.clock import Clock
from batch_runner.errors import AccessRefusedError, ManifestError, Problem, UsageError
from batch_runner.files.bucket import Buckets, BucketUrl, is_bucket_url, parse_bucket_url
from batch_runner.files.local_picture import SIZE_LIMIT_BYTES, too_large
from batch_runner.files.media import HEAD_BYTES, recognise
from batch_runner.records import Job, LocalFile, texts_in, with_texts

UPLOADS = 8
"""How many pictures are uploaded at a time."""

VALID = timedelta(hours=24)
"""How long a signed URL works: long enough for the service's queue, its work and its retries."""

_SHORTEST_VALID = timedelta(minutes=15)

_T = TypeVar("_T")


class PictureMissingError(Exception):
    """The service could not fetch this picture, so its job must not be paid for."""


class Uploads:
    """Makes pictures ready for one run.

    `service_is_here`: the service is on this machine, and can reach a store that is here, too.
    """

    def __init__(self, buckets: Buckets, *, clock: Clock, service_is_here: bool) -> None:
        self._buckets = buckets
        self._clock = clock
        self._service_is_here = service_is_here
        self._ready: set[str] = set()
        self._under_way: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._threads = ThreadPoolExecutor(UPLOADS, thread_name_prefix="upload")

    def close(self) -> None:
        """Wait for uploads under way; the next run does those that have not begun."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    async def prepare(self, job: Job) -> None:
        """Make sure that each picture of the job is in its bucket.

        Raises PictureMissingError if one is missing, ManifestError if a file has changed since it
        was looked at, and StorageError or AccessRefusedError if its bucket fails.
        """
        for text, url in _bucket_urls(job.input).items():
            if text not in self._ready:
                # Many jobs share a picture; one of them uploads it.
                async with self._under_way.setdefault(text, asyncio.Lock()):
                    if text not in self._ready:
                        file = next((file for file in job.files if file.url == text), None)
                        ready = (
                            partial(self._upload, url, file) if file else partial(self._check, url)
                        )
                        await self._in_thread(ready)
                        self._ready.add(text)

    def _check(self, url: BucketUrl) -> None:
        facts = self._buckets.facts(url)
        if facts is None:
            raise PictureMissingError(f"there is no object {url}")
        if facts.size_bytes > SIZE_LIMIT_BYTES:
            raise PictureMissingError(f"{url} {too_large(facts.size_bytes)}")

    def _upload(self, url: BucketUrl, file: LocalFile) -> None:
        """Upload a file unless it is there."""
        sha256 = PurePosixPath(url.key).stem
        if self._is_there(url, sha256, file.size_bytes):
            return
        try:
            content = Path(file.path).read_bytes()
        except OSError as error:
            what = f"can no longer be read: {error.strerror}"
            raise ManifestError([Problem(file.path, None, what)]) from error
        if hashlib.sha256(content).hexdigest() != sha256:
            hint = "run the same command again: the changed picture is a new job"
            raise ManifestError([Problem(file.path, None, "changed during the run", hint)])
        recognised = recognise(content[:HEAD_BYTES])
        media_type = recognised[0] if recognised else "application/octet-stream"
        self._buckets.put(url, content, media_type=media_type, sha256=sha256)

    def _is_there(self, url: BucketUrl, sha256: str, size_bytes: int) -> bool:
        try:
            facts = self._buckets.facts(url)
        except AccessRefusedError:
            # A bucket that may not be listed answers like this for a missing object. If it is
            # something else, the upload fails, too.
            return False
        if facts is None or facts.size_bytes != size_bytes:
            return False
        # Some stores do not keep our hash, but the name contains it, too.
        return facts.sha256 in (None, sha256)

    async def sign(self, input_: dict[str, Any]) -> dict[str, Any]:
        """Return the input as the service can use it: with signed bucket URLs.

        Raises AccessRefusedError if the credentials have expired, or expire too soon, and
        UsageError if the service cannot reach the store.
        """
        urls = _bucket_urls(input_)
        if not urls:
            return input_
        valid = self._valid()
        # In a thread: some kinds of credentials are fetched again from time to time.
        signed = await self._in_thread(
            lambda: {text: self._buckets.sign(url, valid) for text, url in urls.items()}
        )
        if not self._service_is_here and any(url.startswith("http:") for url in signed.values()):
            raise UsageError(
                "the service cannot fetch pictures from a store on this machine",
                hint="set uploads to a bucket on the internet, or run against a sandbox on this"
                " machine",
            )
        replaced: dict[str, Any] = with_texts(input_, lambda text: signed.get(text, text))
        return replaced

    def _valid(self) -> timedelta:
        """Return how long a signature is valid: at most as long as the credentials."""
        expires = self._buckets.credentials_expire()
        left = VALID if expires is None else min(VALID, expires - self._clock.now())
        if left < _SHORTEST_VALID:
            raise AccessRefusedError(
                "the bucket's credentials expire in less than"
                f" {_SHORTEST_VALID // timedelta(minutes=1)} minutes, and signed URLs with them",
                hint="nothing is lost: renew them, then run the same command again",
            )
        return left

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


def _bucket_urls(input_: Any) -> dict[str, BucketUrl]:
    """Return each text in an input that is the URL of an object and nothing else."""
    urls = {}
    for text in filter(is_bucket_url, texts_in(input_)):
        # A prompt may begin like a URL, so a text that cannot be parsed is none.
        with contextlib.suppress(ValueError):
            url = parse_bucket_url(text)
            if url.key:
                urls[text] = url
    return urls


def has_bucket_urls(input_: Any) -> bool:
    """Tell whether an input names an object in a bucket."""
    return bool(_bucket_urls(input_))
