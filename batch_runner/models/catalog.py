"""What is known of the service's models, and where from.

Hides the places: the service's own answer, kept beside the ledger; the facts that ship; the
manifest. What always holds: they are asked in that order, and the first that
knows a schema is believed; a price that is missing, negative or not finite is unknown (None), never
free; a published price counts as a floor unless it is known to be fixed.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from batch_runner.errors import ManifestError
from batch_runner.files.disk import replacing, storage_error
from batch_runner.manifest.form import Manifest
from batch_runner.models.model import Model
from batch_runner.service.answer import read_cost_usd

SHIPPED_FOLDER = Path(__file__).parents[1] / "schema" / "models"
_KEPT_FOLDER = "models"
"""Holds, in the ledger's folder, what the service last said of a model."""


def offline_models(manifest: Manifest, ledger_dir: Path) -> dict[str, Model]:
    """Return what is known of the manifest's models without asking anyone; raises ManifestError."""
    return {
        model_id: offline_model(manifest, model_id, ledger_dir)
        for model_id in manifest.model_locations
    }


def offline_model(manifest: Manifest, model_id: str, ledger_dir: Path) -> Model:
    """Return what is known of one model without asking anyone; raises ManifestError."""
    kept = kept_entry(ledger_dir, model_id)
    try:
        return model_of(manifest, model_id, kept)
    except ManifestError:
        if kept is None:
            raise
        return model_of(manifest, model_id, None)


def model_of(manifest: Manifest, model_id: str, entry: Mapping[str, object] | None) -> Model:
    """Put together what is known of a model: the service's word first, then what ships, then ours.

    Raises ManifestError where a schema cannot be used.
    """
    published, price_usd, unit = read_published(entry or {})
    notes = manifest.notes_on(model_id)
    schemas = {
        "service": published,
        "shipped": shipped_facts(model_id).get("input_schema"),
        "manifest": notes.input_schema,
    }
    source = next((name for name, schema in schemas.items() if schema is not None), None)
    price = shipped_facts(model_id).get("price", {})
    is_floor, holds_for = price.get("kind") != "fixed", price.get("holds_for", {})
    is_own = notes.price_usd is not None
    if is_own:
        if price_usd is None and not shipped_facts(model_id):
            is_floor, holds_for = False, None  # there is no published price to compare with
        price_usd, unit = notes.price_usd, notes.price_unit
    try:
        return Model(
            model_id,
            schema=schemas.get(source or ""),
            schema_source=source,
            price_usd=price_usd,
            price_unit=unit,
            price_is_floor=is_floor,
            price_holds_for=holds_for,
            price_is_own=is_own,
            prompt_as=notes.prompt_as,
            images_as=notes.images_as,
        )
    except ValueError as error:
        what = f"the input schema of {model_id} ({source}) is not usable: {error}"
        notes_place = ("models", model_id, "schema")
        place = notes_place if notes_place in manifest.document.lines else ("schema",)
        raise ManifestError([manifest.document.problem(place, what)]) from error


def known_only_here(manifest: Manifest) -> dict[str, dict[str, Any]]:
    """Return the schemas of the manifest's models that neither the service nor this program has.

    A rehearsal serves them: where else could such a model be tried?
    """
    unknown = (id_ for id_ in manifest.model_locations if not shipped_facts(id_))
    schemas = {id_: manifest.notes_on(id_).input_schema for id_ in unknown}
    return {id_: schema for id_, schema in schemas.items() if schema is not None}


def read_published(entry: Mapping[str, Any]) -> tuple[dict[str, Any] | None, Decimal | None, str]:
    """Return (input schema, price in USD, price unit) of the service's answer about a model."""
    schema = entry.get("input_schema")
    unit = entry.get("price_unit")
    return (
        schema if isinstance(schema, dict) and schema.get("properties") else None,
        read_cost_usd(entry.get("base_price_usd")),
        unit if isinstance(unit, str) and unit else "output",
    )


class ListedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model as the service's catalog lists it; the texts hold nothing a terminal would obey."""

    model_id: str
    display_name: str = ""
    categories: tuple[str, ...] = ()
    price_usd: Decimal | None = None
    price_unit: str = "output"
    price_is_floor: bool = True
    pricing_note: str = ""


def read_listed(entry: Mapping[str, Any]) -> ListedModel | None:
    """Read an entry of the service's catalog; any field may be missing. None without an id."""
    model_id = _plain(entry.get("model_id"))
    if not model_id:
        return None
    _, price_usd, unit = read_published(entry)
    categories = entry.get("categories")
    return ListedModel(
        model_id=model_id,
        display_name=_plain(entry.get("display_name")),
        categories=tuple(map(_plain, categories)) if isinstance(categories, list) else (),
        price_usd=price_usd,
        price_unit=_plain(unit),
        price_is_floor=shipped_facts(model_id).get("price", {}).get("kind") != "fixed",
        pricing_note=_plain(entry.get("pricing_note")),
    )


def _plain(value: object) -> str:
    text = value if isinstance(value, str) else ""
    return "".join(letter for letter in text if letter.isprintable()).strip()


def shipped_facts(model_id: str) -> dict[str, Any]:
    """Return what ships about a model: `input_schema` and `price`; nothing if it does not ship."""
    try:
        raw = (SHIPPED_FOLDER / file_name(model_id)).read_bytes()
    except FileNotFoundError:
        return {}
    return msgspec.json.decode(raw, type=dict[str, Any])


def shipped_models() -> list[str]:
    """Return the ids of all models whose schema ships."""
    return sorted(path.stem.replace("__", "/") for path in SHIPPED_FOLDER.glob("*.json"))


def file_name(model_id: str) -> str:
    """Return the name of the file that keeps what is known of a model."""
    return model_id.replace("/", "__") + ".json"


def keep_published(ledger_dir: Path, model_id: str, entry: Mapping[str, Any]) -> None:
    """Keep the service's answer about a model; raises StorageError."""
    path = ledger_dir / _KEPT_FOLDER / file_name(model_id)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(path.parent, error) from error
    with replacing(path) as file:
        file.write(msgspec.json.format(msgspec.json.encode(entry), indent=2))


def kept_entry(ledger_dir: Path, model_id: str) -> dict[str, Any] | None:
    """Return the service's answer that an earlier run kept, or None."""
    path = ledger_dir / _KEPT_FOLDER / file_name(model_id)
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.DecodeError, RecursionError):
        return None
