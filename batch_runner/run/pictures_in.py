"""Making the pictures of a job ready for the service: by address, by bucket, or in the request.

Hides how a picture travels. What always holds: what is recorded names a picture by its content,
never its bytes; a job is submitted only when each of its pictures can be fetched; nothing is bought
here. A picture that another job made travels as the service's own result while that works, because
asking for a result is free; otherwise it is taken from its bucket, uploaded, or sent inline.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from batch_runner.files.bucket import is_bucket_url
from batch_runner.files.media import HEAD_BYTES, recognise
from batch_runner.files.upload import PictureMissingError, has_bucket_urls
from batch_runner.jobs.picture import CONTENT, INLINE_LIMIT_BYTES
from batch_runner.records import Job, LocalFile, with_texts
from batch_runner.run.setting import Setting
from batch_runner.service.answer import Meaning

REQUEST_LIMIT_BYTES = 64 * 2**20
"""The most that the vendor's own clients send in one request."""

_VALID_S = 600.0
"""How long a result's address is used before it is asked for again."""


class PicturesIn:
    """Makes pictures ready for one run; `turn` waits until a result may be asked for."""

    def __init__(self, setting: Setting, turn: Callable[[], Awaitable[object]]) -> None:
        self._setting = setting
        self._service = setting.batch.service
        self._uploads = setting.uploads
        self._clock = setting.clock
        self._turn = turn
        self._results: dict[str, tuple[float, str]] = {}

    def has_work(self, job: Job) -> bool:
        """Tell whether a job may need anything before its pictures can be fetched."""
        return bool(job.files) or (self._uploads is not None and has_bucket_urls(job.input))

    async def prepare(self, job: Job) -> None:
        """Make sure that each picture can be fetched.

        Raises PictureMissingError, ManifestError, StorageError, AccessRefusedError.
        """
        sent = await self._as_sent(job)
        if self._uploads is not None:
            await self._uploads.prepare(sent)

    async def sign(self, job: Job) -> dict[str, Any]:
        """Return the input as the service can use it; raises as `prepare` does."""
        input_ = (await self._as_sent(job)).input
        return input_ if self._uploads is None else await self._uploads.sign(input_)

    async def _as_sent(self, job: Job) -> Job:
        """Return the job with an address in place of each picture that is named by its content."""
        named = [file for file in job.files if file.url.startswith(CONTENT)]
        if not named:
            return job
        sent = {file.url: await self._address(file) for file in named}
        total = sum(len(url) for url in sent.values())
        if total > REQUEST_LIMIT_BYTES:
            raise PictureMissingError(
                f"its pictures have {total / 2**20:.0f} MiB as text, and a request takes"
                f" {REQUEST_LIMIT_BYTES >> 20} MiB"
            )
        files = [
            msgspec.structs.replace(file, url=sent.get(file.url, file.url)) for file in job.files
        ]
        input_ = with_texts(job.input, lambda text: sent.get(text, text))
        return msgspec.structs.replace(job, input=input_, files=tuple(files))

    async def _address(self, file: LocalFile) -> str:
        address = self._here(file) or await self._result_of(file)
        if address is not None:
            return address
        if is_bucket_url(file.path):
            return file.path
        return await asyncio.to_thread(self._from_disk, file)

    def _here(self, file: LocalFile) -> str | None:
        """Return a file's own address, for a service that reads the files of this machine."""
        path = Path(file.path)
        return path.absolute().as_uri() if self._service.is_local and path.is_file() else None

    def _from_disk(self, file: LocalFile) -> str:
        path = Path(file.path)
        if not path.is_file():
            raise PictureMissingError(
                f"{path} is gone, and the service no longer has it: run the manifest that made it,"
                " which fetches it again, free"
            )
        bucket = self._setting.batch.uploads
        if bucket is not None:
            return str(bucket.join(file.url.removeprefix(CONTENT) + path.suffix.lower()))
        if self._setting.batch.manifest.uploads_inline and file.size_bytes <= INLINE_LIMIT_BYTES:
            return _data_uri(path)
        raise PictureMissingError(
            f"{path}: the service no longer has this result; name a bucket under uploads:"
        )

    async def _result_of(self, file: LocalFile) -> str | None:
        """Ask for the address of a result; None if there is none that works."""
        if file.request_id is None:
            return None
        asked_s, address = self._results.get(file.url, (-_VALID_S, ""))
        if self._clock.monotonic() - asked_s < _VALID_S:
            return address or None
        await self._turn()
        verdict = await self._service.result(file.request_id)
        is_there = verdict.meaning is Meaning.SUCCEEDED and verdict.result is not None
        outputs = verdict.result.outputs if is_there and verdict.result is not None else []
        address = outputs[file.number - 1] if len(outputs) >= file.number else ""
        if not address.startswith("http") or not await self._setting.downloads.has(address):
            address = ""
        self._results[file.url] = (self._clock.monotonic(), address)
        return address or None


def _data_uri(path: Path) -> str:
    content = path.read_bytes()
    recognised = recognise(content[:HEAD_BYTES])
    media_type = recognised[0] if recognised else "application/octet-stream"
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"
