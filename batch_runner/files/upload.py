"""What a job's pictures need before the service can fetch them: to be there, and to be signed for.

Hides uploading. What always holds: a job is submitted only when each of its pictures stands whole
in its bucket; a picture is named by the hash of its content, so that it is uploaded once, by
whichever run, and what a kill left half-way is not visible and in nobody's way; an input is written
down as it is before it is signed.

Pictures are uploaded just before the job that needs them, and not all at the start: the service is
at work meanwhile, and what a limit, a budget or a window keeps from being submitted stays here.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from batch_runner.clock import Clock
from batch_runner.errors import AccessRefusedError, ManifestError, Problem, UsageError
from batch_runner.files.bucket import Buckets, BucketUrl, is_bucket_url, parse_bucket_url
from batch_runner.files.media import HEAD_BYTES, recognise
from batch_runner.files.photo import SIZE_LIMIT_BYTES, too_large
from batch_runner.records import Job, LocalFile

UPLOADS = 8
"""As many pictures are uploaded at a time."""

VALID = timedelta(hours=24)
"""How long a signed URL can be fetched: the service's queue, its work, and its own retries."""

_SHORTEST_VALID = timedelta(minutes=15)
_ASK_INTERVAL = timedelta(minutes=5)

_T = TypeVar("_T")


class PictureMissingError(Exception):
    """A picture that the service could not fetch: its job must not be paid for."""


class Uploads:
    """Makes pictures ready for one run.

    `on_upload` is told the size in bytes of each upload; `service_is_here` says that the service is
    on this machine, and reaches a store that is here too.
    """

    def __init__(
        self,
        buckets: Buckets,
        *,
        on_upload: Callable[[int], None],
        notice: Callable[[str], None],
        clock: Clock,
        service_is_here: bool,
    ) -> None:
        self._buckets = buckets
        self._on_upload = on_upload
        self._notice = notice
        self._clock = clock
        self._asked_at: dict[str, datetime] = {}
        self._has_warned = False
        self._service_is_here = service_is_here
        self._ready: set[str] = set()
        self._uploading: set[str] = set()
        self._under_way: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._threads = ThreadPoolExecutor(UPLOADS, thread_name_prefix="upload")

    @property
    def under_way(self) -> int:
        """Return how many pictures are being uploaded."""
        return len(self._uploading)

    def close(self) -> None:
        """Wait for what is under way; what has not begun is left for the next run."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    async def prepare(self, job: Job) -> None:
        """Make sure that each picture of the job is in its bucket.

        Raises PictureMissingError where one cannot be had, ManifestError where a file has changed
        since it was looked at, and StorageError or AccessRefusedError where its bucket is at fault.
        """
        for text in _bucket_urls(job.input):
            if text not in self._ready:
                # Many jobs share a picture; one of them uploads it.
                lock = self._under_way.setdefault(text, asyncio.Lock())
                async with lock:
                    if text not in self._ready:
                        await self._make_ready(text, job)
                        self._ready.add(text)

    async def _make_ready(self, text: str, job: Job) -> None:
        file = next((file for file in job.files if file.url == text), None)
        url = parse_bucket_url(text)
        if file is None:
            await self._in_thread(lambda: self._check(url))
        elif await self._in_thread(lambda: self._upload(url, file)):
            self._on_upload(file.size_bytes)
        self._asked_at[url.bucket] = self._clock.now()

    def _check(self, url: BucketUrl) -> None:
        facts = self._buckets.facts(url)
        if facts is None:
            raise PictureMissingError(f"there is no object {url}")
        if facts.size_bytes > SIZE_LIMIT_BYTES:
            raise PictureMissingError(f"{url} {too_large(facts.size_bytes)}")

    def _upload(self, url: BucketUrl, file: LocalFile) -> bool:
        """Upload a file unless it is there; True where it was not."""
        sha256 = PurePosixPath(url.key).stem
        if self._is_there(url, sha256, file.size_bytes):
            return False
        try:
            content = Path(file.path).read_bytes()
        except OSError as error:
            what = f"cannot be read any more: {error.strerror}"
            raise ManifestError([Problem(file.path, None, what)]) from error
        if hashlib.sha256(content).hexdigest() != sha256:
            hint = "run the same command again: the changed picture is a new job"
            raise ManifestError([Problem(file.path, None, "changed during the run", hint)])
        recognised = recognise(content[:HEAD_BYTES])
        media_type = recognised[0] if recognised else "application/octet-stream"
        self._uploading.add(file.url)
        try:
            self._buckets.put(url, content, media_type=media_type, sha256=sha256, new=False)
        finally:
            self._uploading.discard(file.url)
        return True

    def _is_there(self, url: BucketUrl, sha256: str, size_bytes: int) -> bool:
        try:
            facts = self._buckets.facts(url)
        except AccessRefusedError:
            # A store that lets nobody list says so of what is not there; then writing tells more.
            return False
        if facts is None or facts.size_bytes != size_bytes:
            return False
        # Some stores keep no hash of ours; the name holds it, too.
        return facts.sha256 in (None, sha256)

    async def sign(self, input_: dict[str, Any]) -> dict[str, Any]:
        """Return the input as the service can use it: bucket URLs signed, all else as it is.

        Raises AccessRefusedError where the credentials have ended, or end too soon for that, and
        UsageError where the service cannot reach the store.
        """
        urls = {text: parse_bucket_url(text) for text in _bucket_urls(input_)}
        if not urls:
            return input_
        await self._ask_again(urls.values())
        valid = self._valid()
        # In a thread: some kinds of credentials are fetched anew now and then.
        signed = await self._in_thread(
            lambda: {text: self._buckets.sign(url, valid) for text, url in urls.items()}
        )
        if not self._service_is_here and not all(map(_is_public, signed.values())):
            raise UsageError(
                "the service cannot fetch pictures from a store on this machine",
                hint="use a bucket on the internet, or a sandbox on this machine",
            )
        replaced: dict[str, Any] = _replaced(input_, signed)
        return replaced

    async def _ask_again(self, urls: Iterable[BucketUrl]) -> None:
        """Ask each store now and then: keys that have ended sign as well as before, for nothing."""
        now = self._clock.now()
        for url in urls:
            asked_at = self._asked_at.get(url.bucket)
            if asked_at is None or now - asked_at > _ASK_INTERVAL:
                self._asked_at[url.bucket] = now
                await self._in_thread(partial(self._buckets.facts, url))

    def _valid(self) -> timedelta:
        """Return for how long a signature holds: it ends with the credentials that made it."""
        expires = self._buckets.credentials_expire()
        if expires is None and self._buckets.credentials_are_temporary and not self._has_warned:
            self._has_warned = True
            self._notice(
                "the bucket's keys are temporary and do not say when they end: a picture that the"
                " service fetches after that fails its job, which is paid for"
                " (AWS_CREDENTIAL_EXPIRATION says it)"
            )
        left = VALID if expires is None else min(VALID, expires - self._clock.now())
        if left < _SHORTEST_VALID:
            raise AccessRefusedError(
                "the bucket's credentials end in less than"
                f" {_SHORTEST_VALID // timedelta(minutes=1)} minutes, and signed URLs with them",
                hint="renew them, then run the same command again: nothing is lost",
            )
        return left

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


def _is_public(url: str) -> bool:
    # Plain http leads to this machine alone (see `bucket`).
    return url.startswith("https://")


def _bucket_urls(value: Any) -> Iterator[str]:
    """Yield each text in an input that is a bucket's URL as a whole."""
    if isinstance(value, str):
        if is_bucket_url(value) and _is_well_formed(value):
            yield value
    elif isinstance(value, list):
        for item in value:
            yield from _bucket_urls(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _bucket_urls(item)


def _is_well_formed(text: str) -> bool:
    # A prompt may begin like a URL.
    try:
        return bool(parse_bucket_url(text).key)
    except ValueError:
        return False


def _replaced(value: Any, signed: dict[str, str]) -> Any:
    if isinstance(value, str):
        return signed.get(value, value)
    if isinstance(value, list):
        return [_replaced(item, signed) for item in value]
    if isinstance(value, dict):
        return {name: _replaced(item, signed) for name, item in value.items()}
    return value
