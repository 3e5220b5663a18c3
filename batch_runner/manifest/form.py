"""What a manifest says, as values: every struct that a checked manifest is made of.

Hides nothing but the arithmetic of rates. A Manifest that exists is well-formed (see `loading`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from batch_runner.files.bucket import BucketUrl
from batch_runner.manifest.document import Document, Location
from batch_runner.manifest.template import Template
from batch_runner.table import TableForm, is_manifest

SCHEMA_PATH = Path(__file__).parents[1] / "schema" / "manifest.json"
UNIT_S = {"s": 1.0, "min": 60.0, "h": 3600.0}

MODEL_AXIS = "model"
"""The axis of the matrix that is no input: it says which model a job goes to."""

ABOUT_ONE_MODEL = ("schema", "price_usd", "prompt_as", "images_as")

INLINE = "inline"
"""The word under `uploads` for pictures that are sent inside the request."""


class Rate(msgspec.Struct, frozen=True):
    """At most `count` calls in any `window_s` seconds."""

    count: int
    window_s: float

    @classmethod
    def parse(cls, text: str) -> Rate:
        """Read `n/s`, `n/min` or `n/h`."""
        count, _, unit = text.partition("/")
        return cls(int(count), UNIT_S[unit])


class FailureLimit(msgspec.Struct, frozen=True):
    """Stop submitting at this share of the last finished jobs, or at this count."""

    share: float | None = None
    count: int | None = None


POLLS_A_SUBMIT = 4
"""A job needs about so many polls, so the default rate of polls follows from that of submits."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a run may use."""

    submits: Rate = Rate(5, 1.0)
    in_flight: int = 20
    polls: Rate = Rate(5 * POLLS_A_SUBMIT, 1.0)
    downloads: int = 8
    cost_usd: Decimal | None = None
    nightly_usd: Decimal | None = None
    failures: FailureLimit = FailureLimit(share=0.5)

    @property
    def has_budget(self) -> bool:
        """Tell whether money is limited: in all, or for each night."""
        return self.cost_usd is not None or self.nightly_usd is not None


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """How often and how patiently free calls, and submits certainly not accepted, are repeated.

    `stuck_s` is how long a request may show no sign of life.
    """

    attempts: int = 6
    max_wait_s: float = 60.0
    give_up_s: float = 900.0
    stuck_s: float = 3600.0


class Window(msgspec.Struct, frozen=True):
    """The hours of the day in which submits may leave; `timezone` None is the machine's own."""

    opens: time
    closes: time
    timezone: str | None = None


class Prompt(msgspec.Struct, frozen=True):
    """One prompt: its id, its text, the inputs sent with it, and its model if it names one.

    `where` says for which pictures it is; None is all.
    """

    id: str
    text: Template
    inputs: dict[str, Any]
    location: Location
    model: str | None = None
    where: Template | None = None


class TableImages(msgspec.Struct, frozen=True, kw_only=True):
    """Image sets from a table: one a row, or one for the rows that `group` puts together.

    `split` separates the pictures in one cell, `pictures` is how many of a product are taken at
    most, and with `each_picture` every picture is a set of its own. `identity` says what a picture
    is, whatever its address.
    """

    path: Path
    id: Template
    urls: list[Template]
    form: TableForm = TableForm()
    where: Template | None = None
    group: Template | None = None
    identity: Template | None = None
    split: str | None = None
    pictures: int | None = None
    each_picture: bool = False
    sample: int | None = None

    @property
    def is_folder(self) -> bool:
        """Tell whether the rows are the pictures of a folder."""
        return self.form.pattern is not None

    @property
    def is_batch(self) -> bool:
        """Tell whether the rows are the saved pictures of another manifest's batch."""
        return is_manifest(self.path)

    @property
    def base(self) -> Path:
        """Return the folder to which pictures without a scheme are relative."""
        return self.path if self.is_folder else self.path.parent


class ModelNotes(msgspec.Struct, frozen=True, kw_only=True):
    """What the manifest says of one model: what to send with its jobs, and what nobody else tells.

    `price_usd` is that of one `price_unit`: "output", "second" of each, or "job".
    """

    inputs: dict[str, Any] = {}
    price_usd: Decimal | None = None
    price_unit: str = "output"
    prompt_as: str | None = None
    images_as: str | dict[str, int] | None = None
    input_schema: dict[str, Any] | None = None


class Output(msgspec.Struct, frozen=True):
    """Where files go: the folder, the path template inside it, further trusted hosts.

    With a `bucket`, pictures go there and `dir` is the folder of the ledger alone; without one,
    `ledger` is its folder where it is another than `dir`.
    """

    dir: Path
    path: Template | None = None
    hosts: tuple[str, ...] = ()
    bucket: BucketUrl | None = None
    ledger: Path | None = None

    @property
    def ledger_dir(self) -> Path:
        """Return the folder that the ledger is in."""
        return self.ledger or self.dir


class Review(msgspec.Struct, frozen=True, kw_only=True):
    """How pictures are judged.

    A job is done again at most `redo_times`, of these `redo_checks` by itself after failed checks.
    `reasons` are offered for rejecting a picture.
    """

    redo_times: int = 3
    redo_checks: int = 0
    reasons: tuple[str, ...] = (
        "not edited",
        "wrong product",
        "label or logo",
        "background",
        "cut off",
        "colour",
        "artefacts",
        "other",
    )


class Checks(msgspec.Struct, frozen=True, kw_only=True):
    """What is required of pictures; `where` says of which, None is all.

    `required` holds single checks with their thresholds; False leaves one out. `command` is one in
    words.
    """

    profiles: tuple[str, ...] = ()
    advice: bool = True
    where: Template | None = None
    required: dict[str, Any] = {}
    command: tuple[str, ...] = ()


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """How a channel wants its pictures.

    `size` is width and height in pixels: a limit for `keep`, exact for `pad` and `crop`. `format`
    None keeps each picture's own. `background` is a colour as CSS writes it.
    """

    size: tuple[int, int] | None = None
    fit: str = "keep"
    background: str | None = None
    format: str | None = None
    quality: int = 90
    max_bytes: int | None = None
    enlarge: bool = False


class ShopTable(msgspec.Struct, frozen=True, kw_only=True):
    """The table that a shop imports; `base_url` is the public address of the channel's folder."""

    kind: str
    base_url: str
    handle: Template
    title: Template
    alt: Template
    replaces: Template


class Channel(msgspec.Struct, frozen=True, kw_only=True):
    """Where pictures are delivered to, which ones, under which names, and made how."""

    name: str
    folder: Path
    recipe: Recipe
    bucket: BucketUrl | None = None
    path: Template | None = None
    accepted_only: bool = True
    where: Template | None = None
    profile: str | None = None
    table: ShopTable | None = None


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """A checked manifest.

    `images` are those of each id, a table of them, or None for models that need no picture.
    Pictures of this machine go to the bucket `uploads`, or into the request (`uploads_inline`).

    `model` is for all jobs that name no other; `models` holds the notes on each model by its id,
    and `notes` those at the top, which are about `main_model`.
    """

    document: Document
    name: str
    model: str | None
    output: Output
    prompts: tuple[Prompt, ...]
    images: Mapping[str, list[str]] | TableImages | None = None
    inputs: dict[str, Any] = {}
    matrix: dict[str, list[Any]] = {}
    exclude: tuple[dict[str, Any], ...] = ()
    repeat: int = 1
    limits: Limits = Limits()
    retry: Retry = Retry()
    window: Window | None = None
    on_finish: str | None = None
    notes: ModelNotes = ModelNotes()
    models: dict[str, ModelNotes] = {}
    uploads: BucketUrl | None = None
    uploads_inline: bool = False
    review: Review = Review()
    checks: tuple[Checks, ...] = ()
    deliver: tuple[Channel, ...] = ()

    @property
    def path(self) -> Path:
        """The manifest's own file."""
        return self.document.path

    @property
    def model_locations(self) -> dict[str, Location]:
        """Every model that has jobs, and where it is first named."""
        places: dict[str, Location] = {}
        for position, model_id in enumerate(self.matrix.get(MODEL_AXIS, ())):
            places.setdefault(model_id, ("matrix", MODEL_AXIS, position))
        for prompt in () if places else self.prompts:
            location: Location = ("prompts", prompt.id, "model") if prompt.model else ("model",)
            places.setdefault(prompt.model or self.model or "", location)
        return places

    def notes_on(self, model_id: str) -> ModelNotes:
        """Return the notes on a model: under its id, else at the top if they are about it."""
        own, top = self.models.get(model_id, ModelNotes()), self.notes
        if model_id != self.main_model:
            return own
        price = top if own.price_usd is None else own
        return ModelNotes(
            inputs=own.inputs,
            price_usd=price.price_usd,
            price_unit=price.price_unit,
            prompt_as=own.prompt_as or top.prompt_as,
            images_as=own.images_as or top.images_as,
            input_schema=top.input_schema if own.input_schema is None else own.input_schema,
        )

    @property
    def main_model(self) -> str | None:
        """Return the model that price_usd, prompt_as, … at the top are about."""
        used = self.model_locations
        return next(iter(used)) if len(used) == 1 else self.model


def manifest_schema() -> dict[str, Any]:
    """Return the JSON Schema of manifests, version 1."""
    schema: dict[str, Any] = json.loads(SCHEMA_PATH.read_bytes())
    return schema
