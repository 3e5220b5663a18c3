"""Job, and the records that can be written about one: the program's only events.

Hides how a record becomes a line of JSON and back. What always holds: the run makes a record, the
ledger stores it, and the progress bar, `--json` and library callers get the same object;
`decode(encode(record)) == record`; money is a Decimal, written as a string; times are UTC.
Not promised: that a record's fields stay the same across ledger versions.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, Literal
from urllib.parse import unquote

import msgspec

from batch_runner.text.address import unsigned_url

LEDGER_VERSION = 1

_REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")

# Query parameters that may be part of a signature. None of them is recorded. Earlier releases left
# all of them out of a picture's identity; `address` leaves out whole schemes only.
_SIGNATURE_MARKERS = frozenset(
    ("x-amz-signature", "x-goog-signature", "x-oss-signature", "signature", "sig")
)
_SIGNATURE_PARAMETERS = re.compile(
    r"x-(?:amz|goog|oss)-.*|awsaccesskeyid|googleaccessid|ossaccesskeyid|signature|sig|policy"
    r"|key-pair-id|expires|s[eprvtk]|ss|spr|srt|sko?id|sktid|skt|ske|sks|skv"
)
_SECRET_PARAMETERS = re.compile(r".*(?:token|secret|password|(?:api|access)[_-]?key)|auth|key")

_URL = re.compile(r"(?:https?|s3|gs|az)://", re.IGNORECASE)
_LINK = re.compile(r"https?://|data:", re.IGNORECASE)
_URL_IN_TEXT = re.compile(r"https?://[^\s\"'<>\\]+", re.IGNORECASE)
_HEAD_CHARACTERS = 60
_NOTHING_SECRET = re.compile(r"[^?#@]*")
_USER = re.compile(r"^([^/?#]*//)[^/?#\s]*@")


class LocalFile(msgspec.Struct, frozen=True):
    """A picture of this machine; `url` is its address in an input.

    If another job made the picture, it is output `number` of the request `request_id`.
    """

    url: str
    path: str
    size_bytes: int
    request_id: str | None = None
    number: int = 1


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One submission: one prompt x one image set x one point of the matrix.

    `input` is what is sent (JSON). `path` is where its first output goes, relative to the output
    folder and without extension; `outputs` is how many files it asks for. `cells` are its row in
    the table, by column, shared by all jobs of that row. `files` are its pictures on this machine.
    `aliases` are other fingerprints under which a ledger may have the same job: those of earlier
    releases, and the one of its addresses as they are written. `is_named`: the manifest names its
    pictures (`images.identity`). `redo` is how often it was done again before; 0: never.
    """

    key: str
    fingerprint: str
    model: str
    input: dict[str, Any]
    path: str
    outputs: int = 1
    prompt_id: str | None = None
    image_id: str | None = None
    point: dict[str, Any] = {}
    repeat: int = 1
    row: int | None = None
    cells: Mapping[str, Any] = {}
    files: tuple[LocalFile, ...] = ()
    aliases: tuple[str, ...] = ()
    is_named: bool = False
    redo: int = 0


class SavedFile(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One file in place; `path` is relative to the output folder."""

    path: str
    size_bytes: int
    sha256: str
    media_type: str


class LedgerHeader(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    tag_field="record",
    tag="ledger",
    omit_defaults=True,
):
    """The first line of a ledger: its format, and the service of its requests.

    `shard` is a shard, as "0/4". Release 0.1 could change the number of shards: `budget_offset_usd`
    is what a shard may spend beyond an equal share of the budget, because its jobs had cost that
    much more (or less) before.
    """

    version: int
    at: datetime
    program: str
    service: str
    shard: str | None = None
    budget_offset_usd: Decimal | None = None


class RunStarted(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    tag_field="record",
    tag="run_started",
    omit_defaults=True,
):
    """One execution of the command began; `plan` counts the jobs by action.

    `basis` is a digest of everything that the jobs follow from. It is recorded only if no two jobs
    are equal, and the ledger has no other jobs and none of these under another key or path. While
    it stays the same, the ledger alone tells how many jobs there are and where their files are.
    """

    at: datetime
    run: str
    pid: int
    host: str
    program: str
    manifest_sha256: str
    jobs: int
    plan: dict[str, int]
    basis: str | None = None


class RunFinished(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="record", tag="run_finished"
):
    """The execution ended in an orderly way; `stopped` is None if it did all it could."""

    at: datetime
    run: str
    submitted: int
    saved: int
    failed: int
    unknown: int
    cost_usd: Decimal
    elapsed_s: float
    stopped: str | None = None


class JobRecord(msgspec.Struct, frozen=True, kw_only=True, tag_field="record", omit_defaults=True):
    """What every record about a job has: the time, the job's key, its fingerprint.

    `order` is the record's place among all records of a batch whose shards release 0.1 changed.
    """

    at: datetime
    job: str
    fingerprint: str
    order: int | None = None


class Submitting(JobRecord, frozen=True, kw_only=True, tag="submitting"):
    """Durable before the POST leaves; if no outcome follows it, the job is unknown.

    `named`: the manifest named its pictures (`images.identity`).
    """

    model: str
    input: dict[str, Any]
    path: str
    attempt: int
    reserved_usd: Decimal | None = None
    named: bool = False


class Refused(JobRecord, frozen=True, kw_only=True, tag="refused"):
    """The POST was certainly not accepted; `again`: the job may be sent again."""

    reason: str
    message: str
    again: bool
    status: int | None = None
    code: int | None = None


class Submitted(JobRecord, frozen=True, kw_only=True, tag="submitted"):
    """The service accepted the job; written the moment its request_id was read."""

    request_id: str


class Unknown(JobRecord, frozen=True, kw_only=True, tag="unknown"):
    """The POST may have been accepted: it is never sent again unless a person says so."""

    why: str


class Succeeded(JobRecord, frozen=True, kw_only=True, tag="succeeded"):
    """The service made the outputs; `outputs` are their URLs without signatures."""

    request_id: str
    outputs: list[str]
    cost_usd: Decimal | None = None
    created_at: str | None = None
    finished_at: str | None = None


class Failed(JobRecord, frozen=True, kw_only=True, tag="failed"):
    """The service ended the request without outputs, or no longer knows the request."""

    request_id: str
    reason: str
    message: str
    cost_usd: Decimal | None = None


class Cancelled(JobRecord, frozen=True, kw_only=True, tag="cancelled"):
    """The service cancelled the request."""

    request_id: str
    cost_usd: Decimal | None = None


class Saved(JobRecord, frozen=True, kw_only=True, tag="saved"):
    """Every output is in place under its final name, whole.

    `model`, `input` and `named` are recorded if nothing was ever sent for this job: a person said
    that its pictures are those of another job, which was bought.
    """

    files: list[SavedFile]
    reused_from: str | None = None
    model: str | None = None
    input: dict[str, Any] | None = None
    named: bool = False


class Resolved(JobRecord, frozen=True, kw_only=True, tag="resolved"):
    """A person decided about the job; "attached" names the request that it turned out to have.

    `cost_usd` is what the unknown purchase cost, by that person: 0 if it was never bought.
    """

    how: Literal["attached", "resubmit", "abandoned"]
    request_id: str | None = None
    cost_usd: Decimal | None = None


Record = (
    LedgerHeader
    | RunStarted
    | RunFinished
    | Submitting
    | Refused
    | Submitted
    | Unknown
    | Succeeded
    | Failed
    | Cancelled
    | Saved
    | Resolved
)
"""Any line of a ledger."""

_encoder = msgspec.json.Encoder(decimal_format="string")
_canonical = msgspec.json.Encoder(order="sorted", decimal_format="string")
_decoder = msgspec.json.Decoder(Record)


def encode(record: Record) -> bytes:
    """Return the record as one line of JSON, newline included."""
    return _encoder.encode(record) + b"\n"


decode: Callable[[bytes | memoryview], Record] = _decoder.decode
"""Returns the record on a line; raises msgspec.DecodeError or ValidationError."""


def fingerprint(model: str, identity: dict[str, Any], repeat: int) -> str:
    """Return the SHA-256 (hex) of what is bought: canonical JSON of model, input and repeat.

    `identity` is the input with each picture named by what it *is*: a URL without its signature, a
    local file by the hash of its content. A new signature, or a moved file, buys nothing new.
    """
    return digest({"model": model, "input": identity, "repeat": repeat})


def digest(value: Any) -> str:
    """Return the SHA-256 (hex) of a value's canonical JSON."""
    return hashlib.sha256(_canonical.encode(value)).hexdigest()


def is_request_id(value: object) -> bool:
    """Return whether a value can be a request's id; any other must never go into a path."""
    return isinstance(value, str) and _REQUEST_ID.fullmatch(value) is not None


def _without_parameters(url: str, *, secrets: bool) -> str:
    # Parsed by hand: a prompt may begin like a URL, and an answer's URL may be none. No text is an
    # error here, and everything that may stay is kept byte for byte.
    address, hash_mark, fragment = url.partition("#")
    address, question_mark, query = address.partition("?")
    return "".join(
        (
            _USER.sub(r"\1", address),
            _kept_parameters(question_mark, query, secrets=secrets),
            _kept_parameters(hash_mark, fragment, secrets=True)
            if secrets
            else hash_mark + fragment,
        )
    )


def _kept_parameters(mark: str, query: str, *, secrets: bool) -> str:
    """Return the mark and the parameters, or nothing if none of the parameters is kept."""
    pairs = query.split("&")
    names = [unquote(pair.partition("=")[0]).lower() for pair in pairs]
    signed = not _SIGNATURE_MARKERS.isdisjoint(names)
    kept = [
        pair
        for pair, name in zip(pairs, names, strict=True)
        if not (signed and _SIGNATURE_PARAMETERS.fullmatch(name))
        and not (secrets and _SECRET_PARAMETERS.fullmatch(name))
    ]
    return mark + "&".join(kept) if kept else ""


@lru_cache(maxsize=1024)
def former_identity(url: str) -> str:
    """Return a picture's identity in earlier releases: ledgers have fingerprints of it."""
    return _without_parameters(url, secrets=False) if "?" in url or "@" in url else url


def redact_url(url: str) -> str:
    """Return a URL that may be recorded: no user, password, signature, token or content."""
    if url[:5].lower() == "data:":
        return f"{url.partition(',')[0][:_HEAD_CHARACTERS]},…"
    url = unsigned_url(url)
    if _NOTHING_SECRET.fullmatch(url):
        return url
    return _without_parameters(url, secrets=True)


def texts_in(value: Any) -> Iterator[str]:
    """Yield every text in JSON, except the names of fields."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            if isinstance(item, str):  # nearly all are: a generator of their own takes longer
                yield item
            else:
                yield from texts_in(item)


def with_texts(value: Any, change: Callable[[str], str]) -> Any:
    """Return JSON with every text changed, except the names of fields."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [with_texts(item, change) for item in value]
    if isinstance(value, dict):
        return {name: with_texts(item, change) for name, item in value.items()}
    return value


def urls_in(value: Any) -> set[str]:
    """Return every URL in JSON, unsigned."""
    return {unsigned_url(text) for text in texts_in(value) if _LINK.match(text)}


def is_address(value: object) -> bool:
    """Return whether a value is a URL, of the web or of an object."""
    return isinstance(value, str) and _URL.match(value) is not None


def redact(value: Any) -> Any:
    """Return JSON with every URL redacted; prompts that only mention one stay as they are."""
    return with_texts(value, lambda text: redact_url(text) if _URL.match(text) else text)


def redact_text(text: str) -> str:
    """Return a text with every URL in it redacted: services repeat what they were sent."""
    return _URL_IN_TEXT.sub(lambda found: redact_url(found.group()), text)


def utc_now() -> datetime:
    """Return the present moment in UTC."""
    return datetime.now(UTC)


def usd(amount: Decimal | None) -> str:
    """Return an amount with all its decimals, at least two."""
    if amount is None:
        return "not known"
    normal = amount.normalize()
    places = max(2, -int(normal.as_tuple().exponent))
    return f"{normal:.{places}f} USD"
