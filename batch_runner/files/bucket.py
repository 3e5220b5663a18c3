"""Object stores by their URLs: s3://bucket/key, gs://bucket/key, az://container/key.

Hides obstore, how each store is configured, and how its errors read. What always holds: an object
is visible only whole (every store makes a put, also one in parts, visible at once or not at all);
no message holds a credential or a signature; plain http leads to this machine only. Everything here
blocks: it is called in threads.

Not used are obstore's own async functions: with 0.12 they end one process in seven by SIGABRT when
Python exits while their threads still run. Its blocking ones release the interpreter and do not.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from batch_runner.errors import AccessRefusedError, BatchRunnerError, StorageError, UsageError

if TYPE_CHECKING:
    from obstore.store import AzureStore, GCSStore, S3Store

    Store = AzureStore | GCSStore | S3Store

LONGEST_SIGNATURE = timedelta(days=7)
"""No store signs for longer."""

SETTING_PREFIXES = ("AWS_", "AZURE_", "GOOGLE_")
"""How the environment variables begin that configure object stores."""

_URL = re.compile(r"(s3|gs|az)://([a-z0-9][a-z0-9._-]{1,61}[a-z0-9])(?:/(.*))?", re.DOTALL)
_SCHEME = re.compile(r"(?:s3|gs|az)://")
_SECRET_SIGN = re.compile(r"\S+://\S+")
_STATUS = re.compile(r"status code: (\d{3}(?: [A-Z][a-z]+)*)")
_CODE = re.compile(r"<Code>(\w{1,60})</Code>")
_CAUSE = re.compile(r'(?:message|error): "([^"\n]{1,100})"')

_CONNECT_TIMEOUT = timedelta(seconds=10)
_CALL_TIMEOUT = timedelta(minutes=10)
_RETRIES = 4
_RETRY_TIMEOUT = timedelta(seconds=30)
_PART_BYTES = 8 * 1024 * 1024
_PARTS_AT_A_TIME = 4
_CHUNK_BYTES = 1024 * 1024

# By what the stores' own tools read; whatever else is set, obstore finds in the environment itself.
_SETTINGS = {
    "s3": (
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
        "AWS_VIRTUAL_HOSTED_STYLE_REQUEST",
    ),
    "gs": (
        "GOOGLE_SERVICE_ACCOUNT",
        "GOOGLE_SERVICE_ACCOUNT_KEY",
        "GOOGLE_APPLICATION_CREDENTIALS",
    ),
    "az": (
        "AZURE_STORAGE_ACCOUNT_NAME",
        "AZURE_STORAGE_ACCOUNT_KEY",
        "AZURE_STORAGE_SAS_KEY",
        "AZURE_STORAGE_CLIENT_ID",
        "AZURE_STORAGE_CLIENT_SECRET",
        "AZURE_STORAGE_TENANT_ID",
    ),
}
_ENDPOINTS = {
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
    "gs": (),
    "az": ("AZURE_STORAGE_ENDPOINT",),
}
_CREDENTIALS = {
    "s3": (
        "AWS_ACCESS_KEY_ID",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    ),
    "gs": (
        "GOOGLE_SERVICE_ACCOUNT",
        "GOOGLE_SERVICE_ACCOUNT_KEY",
        "GOOGLE_APPLICATION_CREDENTIALS",
    ),
    "az": ("AZURE_STORAGE_ACCOUNT_NAME",),
}
_HINTS = {
    "s3": "set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION (AWS_ENDPOINT_URL for other"
    " stores than Amazon's), or AWS_PROFILE; after a login by SSO:"
    ' eval "$(aws configure export-credentials --format env)"',
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS to the key file of a service account",
    "az": "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}


class BucketUrl(msgspec.Struct, frozen=True):
    """An object, or all below a prefix: `key` has no slash at its ends; "" is the whole bucket."""

    scheme: str
    bucket: str
    key: str

    def __str__(self) -> str:
        root = f"{self.scheme}://{self.bucket}"
        return f"{root}/{self.key}" if self.key else root

    def join(self, path: str) -> BucketUrl:
        """Return what is called `path` below this prefix."""
        return BucketUrl(self.scheme, self.bucket, f"{self.key}/{path}" if self.key else path)


class ObjectFacts(msgspec.Struct, frozen=True):
    """What a store tells of an object; `sha256` only of those that this program wrote."""

    size_bytes: int
    sha256: str | None


def is_bucket_url(text: str) -> bool:
    """Tell whether a text means an object store, well-formed or not."""
    return _SCHEME.match(text) is not None


def parse_bucket_url(text: str) -> BucketUrl:
    """Read a URL; raises ValueError, whose text says what is wrong with it."""
    found = _URL.fullmatch(text)
    if found is None:
        raise ValueError("is not s3://bucket/key, gs://bucket/key or az://container/key")
    scheme, bucket, key = found.groups(default="")
    key = key.removesuffix("/")
    segments = key.split("/")
    if key and ("" in segments or "." in segments or ".." in segments):
        raise ValueError("has an empty, '.' or '..' folder in its key")
    if re.search(r"[\x00-\x1f\x7f]", key):
        raise ValueError("has a control character in its key")
    return BucketUrl(scheme, bucket, key)


class Buckets:
    """The object stores of one batch, opened when they are first asked for.

    `settings` are environment variables by name, as the stores' own tools read them.
    """

    def __init__(self, settings: Mapping[str, str]) -> None:
        self._settings = settings
        self._stores: dict[tuple[str, str], Store] = {}
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"Buckets({', '.join(sorted(self._settings))})"

    def facts(self, url: BucketUrl) -> ObjectFacts | None:
        """Return what stands under a URL; None where nothing does.

        A store that lets nobody list its bucket tells "refused" of what is not there.
        """
        import obstore  # noqa: PLC0415 - an extra, and only where a bucket is used

        try:
            with self._told(url, "be looked at"):
                found = obstore.get(self._store(url), url.key, options={"head": True})
        except FileNotFoundError:
            return None
        return ObjectFacts(found.meta["size"], found.attributes.get("sha256"))

    def put(
        self,
        url: BucketUrl,
        content: bytes | Path,
        *,
        media_type: str,
        sha256: str,
        new: bool,
        looks_first: bool = False,
    ) -> bool:
        """Write an object; with `new` only where nothing stands, False telling that something does.

        `looks_first` is for stores that take no condition with a write. Of a large file each part
        is tried again by itself, and the object appears with the last.
        """
        import obstore  # noqa: PLC0415
        from obstore.exceptions import AlreadyExistsError, NotSupportedError  # noqa: PLC0415

        store = self._store(url)
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        options: dict[str, Any] = {
            "attributes": {"Content-Type": media_type, "sha256": sha256},
            "use_multipart": size > _PART_BYTES,
            "chunk_size": _PART_BYTES,
            "max_concurrency": _PARTS_AT_A_TIME,
        }
        with self._told(url, "be written"):
            if new and not looks_first and size <= _PART_BYTES:
                # The store itself makes sure, in one call.
                with contextlib.suppress(NotSupportedError):
                    try:
                        obstore.put(store, url.key, content, mode="create", **options)
                    except AlreadyExistsError:
                        return False
                    return True
        # In parts, or without a condition. This ledger's owner is the only one who writes here, so
        # that looking first is enough.
        if new and self.facts(url) is not None:
            return False
        with self._told(url, "be written"):
            obstore.put(store, url.key, content, **options)
        return True

    def create(self, url: BucketUrl, content: bytes) -> bool:
        """Write a small object where nothing stands; False: something does. The store makes sure.

        Raises UsageError where the store cannot.
        """
        import obstore  # noqa: PLC0415
        from obstore.exceptions import AlreadyExistsError, NotSupportedError  # noqa: PLC0415

        try:
            with self._told(url, "be written"):
                obstore.put(self._store(url), url.key, content, mode="create", use_multipart=False)
        except AlreadyExistsError:
            return False
        except NotSupportedError as error:
            raise UsageError(
                f"{url}: this store has no conditional writes", hint="use one that has"
            ) from error
        return True

    def replace(self, url: BucketUrl, content: bytes) -> None:
        """Write a small object, whatever stands there."""
        import obstore  # noqa: PLC0415

        with self._told(url, "be written"):
            obstore.put(self._store(url), url.key, content, use_multipart=False)

    def modified_at(self, url: BucketUrl) -> datetime | None:
        """Return when an object was written last, by the store's clock; None where there is none.

        A store that lets nobody list its bucket tells "refused" of what is not there.
        """
        import obstore  # noqa: PLC0415

        try:
            with self._told(url, "be looked at"):
                return obstore.head(self._store(url), url.key)["last_modified"]
        except FileNotFoundError:
            return None

    def copy(self, source: BucketUrl, target: BucketUrl) -> None:
        """Copy an object inside its bucket; FileNotFoundError where there is none."""
        import obstore  # noqa: PLC0415

        with self._told(target, "be written"):
            obstore.copy(self._store(source), source.key, target.key)

    def chunks(self, url: BucketUrl) -> Iterator[bytes]:
        """Read an object piece by piece; FileNotFoundError where there is none."""
        import obstore  # noqa: PLC0415

        with self._told(url, "be read"):
            found = obstore.get(self._store(url), url.key)
            for chunk in found.stream(min_chunk_size=_CHUNK_BYTES):
                yield bytes(chunk)

    def list_below(self, prefix: BucketUrl) -> Iterator[tuple[str, int]]:
        """Yield the path, relative to the prefix, and the size in bytes of every object below."""
        import obstore  # noqa: PLC0415

        start = len(prefix.key) + 1 if prefix.key else 0
        with self._told(prefix, "be listed"):
            for found in obstore.list(self._store(prefix), prefix.key or None, chunk_size=1000):
                for one in found:
                    yield one["path"][start:], one["size"]

    def sign(self, url: BucketUrl, valid: timedelta) -> str:
        """Return a URL by which anybody can read the object for a while."""
        import obstore  # noqa: PLC0415

        with self._told(url, "be signed for", asks_store=False):
            return obstore.sign(self._store(url), "GET", url.key, min(valid, LONGEST_SIGNATURE))

    def credentials_expire(self) -> datetime | None:
        """Return when temporary credentials end, where the environment says so."""
        try:
            ends = datetime.fromisoformat(self._settings.get("AWS_CREDENTIAL_EXPIRATION", ""))
        except ValueError:
            return None
        return ends if ends.tzinfo is not None else ends.replace(tzinfo=UTC)

    @property
    def credentials_are_temporary(self) -> bool:
        """Tell whether the credentials end, whether or not they say when."""
        return bool(self._settings.get("AWS_SESSION_TOKEN"))

    def has_credentials(self, url: BucketUrl) -> bool:
        """Tell whether the settings hold any; without, only a role of this machine would do."""
        return any(self._settings.get(name) for name in _CREDENTIALS[url.scheme])

    def _store(self, url: BucketUrl) -> Store:
        with self._lock:
            store = self._stores.get((url.scheme, url.bucket))
            if store is None:
                store = self._stores[url.scheme, url.bucket] = self._open(url)
        return store

    def _open(self, url: BucketUrl) -> Store:
        try:
            from obstore.store import AzureStore, GCSStore, S3Store  # noqa: PLC0415
        except ImportError as error:
            raise UsageError(
                f"{url}: object stores need an extra that is not installed",
                hint="pip install 'batch-runner[s3]'",
            ) from error
        config = {
            name.lower(): self._settings[name]
            for name in _SETTINGS[url.scheme]
            if self._settings.get(name)
        }
        endpoint = next(
            (self._settings[name] for name in _ENDPOINTS[url.scheme] if self._settings.get(name)),
            None,
        )
        options: dict[str, Any] = {
            "client_options": {
                "allow_http": endpoint is not None and _check_endpoint(endpoint),
                "connect_timeout": _CONNECT_TIMEOUT,
                "timeout": _CALL_TIMEOUT,
            },
            "retry_config": {"max_retries": _RETRIES, "retry_timeout": _RETRY_TIMEOUT},
        }
        if endpoint is not None:
            config["endpoint"] = endpoint
        if "aws_region" in config:
            config.pop("aws_default_region", None)
        made: dict[str, Any] = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}
        with self._told(url, "be opened", asks_store=False):
            store: Store = made[url.scheme](url.bucket, config=config, **options)
            return store

    @contextlib.contextmanager
    def _told(self, url: BucketUrl, what: str, *, asks_store: bool = True) -> Iterator[None]:
        """Turn the library's errors into ours; FileNotFoundError passes: it is an answer.

        Where the store is not even asked, it is the settings that are at fault.
        """
        from obstore.exceptions import (  # noqa: PLC0415
            AlreadyExistsError,
            BaseError,
            NotSupportedError,
            PermissionDeniedError,
            UnauthenticatedError,
        )

        try:
            yield
        except (FileNotFoundError, AlreadyExistsError, NotSupportedError, BatchRunnerError):
            raise
        # Without their cause: the library's own text may hold a signature or a key.
        except (PermissionDeniedError, UnauthenticatedError) as error:
            message = f"{url}: may not {what}: {_detail(error)}"
            raise AccessRefusedError(message, hint=_HINTS[url.scheme]) from None
        except (BaseError, ValueError, OSError) as error:
            if not self.has_credentials(url):
                message = f"{url}: cannot {what}: no credentials were found ({_detail(error)})"
                raise AccessRefusedError(message, hint=_HINTS[url.scheme]) from None
            if not asks_store:
                message = f"{url}: cannot {what} with the credentials that were found"
                raise AccessRefusedError(message, hint=_HINTS[url.scheme]) from None
            region = " and AWS_REGION is the bucket's" if url.scheme == "s3" else ""
            raise StorageError(
                f"{url}: cannot {what}: {_detail(error)}",
                hint=f"once the store is back{region}, run the same command again: nothing is lost",
            ) from None


def _check_endpoint(endpoint: str) -> bool:
    """Tell whether an endpoint needs plain http; raises UsageError if elsewhere than here."""
    parts = urlsplit(endpoint)
    if parts.scheme == "https" and parts.hostname:
        return False
    if parts.scheme == "http" and parts.hostname in ("localhost", "127.0.0.1", "::1"):
        return True
    raise UsageError(
        f"the object store's endpoint is {parts.scheme or 'no URL'}://{parts.hostname or ''}",
        hint="give an https URL; http only leads to this machine",
    )


def _detail(error: Exception) -> str:
    """Say in a few words what a store answered, and nothing that could be a secret."""
    text = str(error)
    found = [pattern.search(text) for pattern in (_STATUS, _CODE)]
    words = [match.group(1) for match in found if match] or _CAUSE.findall(text)[-1:]
    return _SECRET_SIGN.sub("…", ", ".join(words)) or "no answer"
