"""Object stores by their URLs: s3://bucket/key, gs://bucket/key, az://container/key.

Hides obstore, how each store is configured, and the words of its errors. What always holds: an
object is visible only when it is whole, even if it was sent in parts; no message contains a
credential or a signature; plain http is used on this machine only. Everything here blocks, and is
called in threads.

obstore's async functions are not used: with version 0.12, one process in seven ends with SIGABRT
when Python exits while their threads still run. The blocking functions release the interpreter lock
and have no such problem.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import msgspec

from batch_runner.errors import AccessRefusedError, BatchRunnerError, StorageError, UsageError

if TYPE_CHECKING:
    from obstore.store import AzureStore, GCSStore, S3Store

    Store = AzureStore | GCSStore | S3Store

SETTING_PREFIXES = ("AWS_", "AZURE_", "GOOGLE_")
"""The prefixes of the environment variables that configure object stores."""

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


class _Kind(NamedTuple):
    """One kind of store: the variables that configure it, as the store's own tools read them.

    `credentials`: any of these shows that there are credentials. Whatever else is set, obstore
    finds in the environment itself.
    """

    credentials: str
    settings: str
    endpoint: str
    hint: str


_KINDS = {
    "s3": _Kind(
        "AWS_ACCESS_KEY_ID AWS_WEB_IDENTITY_TOKEN_FILE AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"
        " AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN AWS_REGION AWS_DEFAULT_REGION"
        " AWS_VIRTUAL_HOSTED_STYLE_REQUEST",
        "AWS_ENDPOINT_URL",
        hint="set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION (AWS_ENDPOINT_URL for"
        " stores other than Amazon's); after a login by SSO:"
        ' eval "$(aws configure export-credentials --format env)"',
    ),
    "gs": _Kind(
        "GOOGLE_SERVICE_ACCOUNT GOOGLE_SERVICE_ACCOUNT_KEY GOOGLE_APPLICATION_CREDENTIALS",
        "GOOGLE_SERVICE_ACCOUNT GOOGLE_SERVICE_ACCOUNT_KEY GOOGLE_APPLICATION_CREDENTIALS",
        "",
        hint="set GOOGLE_APPLICATION_CREDENTIALS to the key file of a service account",
    ),
    "az": _Kind(
        "AZURE_STORAGE_ACCOUNT_NAME",
        "AZURE_STORAGE_ACCOUNT_NAME AZURE_STORAGE_ACCOUNT_KEY AZURE_STORAGE_SAS_KEY"
        " AZURE_STORAGE_CLIENT_ID AZURE_STORAGE_CLIENT_SECRET AZURE_STORAGE_TENANT_ID",
        "AZURE_STORAGE_ENDPOINT",
        hint="set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
    ),
}


class BucketUrl(msgspec.Struct, frozen=True):
    """An object, or a prefix: `key` neither begins nor ends with a slash; "" is the bucket."""

    scheme: str
    bucket: str
    key: str

    def __str__(self) -> str:
        root = f"{self.scheme}://{self.bucket}"
        return f"{root}/{self.key}" if self.key else root

    def join(self, path: str) -> BucketUrl:
        """Return the URL of `path` below this prefix."""
        return BucketUrl(self.scheme, self.bucket, f"{self.key}/{path}" if self.key else path)


class ObjectFacts(msgspec.Struct, frozen=True):
    """What a store knows of an object; only objects that this program wrote have a `sha256`."""

    size_bytes: int
    sha256: str | None


def is_bucket_url(text: str) -> bool:
    """Return whether a text means an object store, well-formed or not."""
    return _SCHEME.match(text) is not None


def parse_bucket_url(text: str) -> BucketUrl:
    """Parse a URL; the text of its ValueError says what is wrong."""
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
    """The object stores of one batch; each is opened when it is first used.

    `settings` are environment variables by name, as the stores' own tools read them.
    """

    def __init__(self, settings: Mapping[str, str]) -> None:
        self._settings = settings
        self._stores: dict[tuple[str, str], Store] = {}
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"Buckets({', '.join(sorted(self._settings))})"

    def facts(self, url: BucketUrl) -> ObjectFacts | None:
        """Return what is known of an object; None if there is none.

        Raises AccessRefusedError for a missing object, too, if the bucket may not be listed.
        """
        try:
            with self._our_errors(url, "be looked at"):
                found = self._store(url).get(url.key, options={"head": True})
        except FileNotFoundError:
            return None
        return ObjectFacts(found.meta["size"], found.attributes.get("sha256"))

    def put(
        self, url: BucketUrl, content: bytes | Path, *, media_type: str, sha256: str | None = None
    ) -> None:
        """Write an object, whatever is there.

        A large file goes in parts, each of which is retried; it appears with the last part.
        """
        size_bytes = len(content) if isinstance(content, bytes) else content.stat().st_size
        attributes = {"Content-Type": media_type} | ({"sha256": sha256} if sha256 else {})
        with self._our_errors(url, "be written"):
            self._store(url).put(
                url.key,
                content,
                attributes=attributes,
                use_multipart=size_bytes > _PART_BYTES,
                chunk_size=_PART_BYTES,
                max_concurrency=_PARTS_AT_A_TIME,
            )

    def copy(self, source: BucketUrl, target: BucketUrl) -> None:
        """Copy an object inside its bucket; FileNotFoundError if there is none."""
        with self._our_errors(target, "be written"):
            self._store(source).copy(source.key, target.key)

    def chunks(self, url: BucketUrl) -> Iterator[bytes]:
        """Read an object piece by piece; FileNotFoundError if there is none."""
        with self._our_errors(url, "be read"):
            found = self._store(url).get(url.key)
            for chunk in found.stream(min_chunk_size=_CHUNK_BYTES):
                yield bytes(chunk)

    def list_below(self, prefix: BucketUrl) -> Iterator[tuple[str, int]]:
        """Yield the path below the prefix, and the size in bytes, of every object there."""
        start = len(prefix.key) + 1 if prefix.key else 0
        with self._our_errors(prefix, "be listed"):
            for found in self._store(prefix).list(prefix.key or None, chunk_size=1000):
                for one in found:
                    yield one["path"][start:], one["size"]

    def sign(self, url: BucketUrl, valid: timedelta) -> str:
        """Return a URL with which anyone can read the object for some time."""
        with self._our_errors(url, "be signed", asks_store=False):
            import obstore  # noqa: PLC0415 - an extra, imported only when a bucket is used

            return obstore.sign(self._store(url), "GET", url.key, valid)

    def credentials_expire(self) -> datetime | None:
        """Return when temporary credentials expire, if the environment says so."""
        try:
            ends = datetime.fromisoformat(self._settings.get("AWS_CREDENTIAL_EXPIRATION", ""))
        except ValueError:
            return None
        return ends if ends.tzinfo is not None else ends.replace(tzinfo=UTC)

    def _store(self, url: BucketUrl) -> Store:
        with self._lock:
            store = self._stores.get((url.scheme, url.bucket))
            if store is None:
                store = self._stores[url.scheme, url.bucket] = self._open(url)
        return store

    def _open(self, url: BucketUrl) -> Store:
        from obstore.store import AzureStore, GCSStore, S3Store  # noqa: PLC0415

        kind = _KINDS[url.scheme]
        settings = {name: value for name, value in self._settings.items() if value}
        config = {
            name.lower(): settings[name] for name in kind.settings.split() if name in settings
        }
        endpoint = settings.get(f"{kind.endpoint}_S3") or settings.get(kind.endpoint)
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
        made: dict[str, Any] = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}
        with self._our_errors(url, "be opened", asks_store=False):
            store: Store = made[url.scheme](url.bucket, config=config, **options)
            return store

    @contextlib.contextmanager
    def _our_errors(self, url: BucketUrl, what: str, *, asks_store: bool = True) -> Iterator[None]:
        """Turn the library's errors into ours, except that there is no such object.

        If the store is not even asked, the settings must be wrong.
        """
        try:
            from obstore import exceptions  # noqa: PLC0415
        except ImportError as error:
            raise UsageError(
                f"{url}: buckets need an extra that is not installed",
                hint="pip install 'batch-runner[s3]'",
            ) from error
        hint = _KINDS[url.scheme].hint
        try:
            yield
        except (FileNotFoundError, BatchRunnerError):
            raise
        # Without their cause: the library's text may contain a signature or a key.
        except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
            message = f"{url}: may not {what}: {_detail(error)}"
            raise AccessRefusedError(message, hint=hint) from None
        except (exceptions.BaseError, ValueError, OSError) as error:
            # Without any, only a machine's role would have worked.
            if not any(map(self._settings.get, _KINDS[url.scheme].credentials.split())):
                message = f"{url}: cannot {what}: no credentials were found ({_detail(error)})"
                raise AccessRefusedError(message, hint=hint) from None
            if not asks_store:
                message = f"{url}: cannot {what} with the credentials that were found"
                raise AccessRefusedError(message, hint=hint) from None
            region = "check that AWS_REGION is the bucket's, and " if url.scheme == "s3" else ""
            raise StorageError(
                f"{url}: cannot {what}: {_detail(error)}",
                hint=f"nothing is lost: {region}once the store is back, run the same command again",
            ) from None


def _check_endpoint(endpoint: str) -> bool:
    """Return whether an endpoint needs plain http; raises UsageError if it is another machine."""
    parts = urlsplit(endpoint)
    if parts.scheme == "https" and parts.hostname:
        return False
    if parts.scheme == "http" and parts.hostname in ("localhost", "127.0.0.1", "::1"):
        return True
    raise UsageError(
        f"the object store's endpoint {parts.scheme or 'no URL'}://{parts.hostname or ''} is not"
        " secure",
        hint="set AWS_ENDPOINT_URL to an https URL; plain http is for stores on this machine only",
    )


def _detail(error: Exception) -> str:
    """Return in a few words what a store answered, without anything that could be a secret."""
    text = str(error)
    found = [pattern.search(text) for pattern in (_STATUS, _CODE)]
    words = [match.group(1) for match in found if match] or _CAUSE.findall(text)[-1:]
    return _SECRET_SIGN.sub("…", ", ".join(words)) or "no answer"
