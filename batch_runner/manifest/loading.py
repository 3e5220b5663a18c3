"""A manifest file in, a checked Manifest out.

Hides how the form of the file is checked (by one JSON Schema, which editors use too) and how its
texts become values. What always holds: a Manifest is well-formed, its templates compile, and its
ids, axes and exclusions fit together; all problems are reported at once, each with `file:line`.
`jobs.expand` finds what only the jobs can show: a value that the model refuses, an undefined
variable, two jobs with one path.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import time
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from batch_runner.errors import ManifestError
from batch_runner.files.bucket import is_bucket_url
from batch_runner.manifest.channels import read_channels
from batch_runner.manifest.contradictions import find_contradictions
from batch_runner.manifest.document import Location, read_document
from batch_runner.manifest.form import (
    INLINE,
    POLLS_A_SUBMIT,
    UNIT_S,
    Checks,
    FailureLimit,
    Limits,
    Manifest,
    ModelNotes,
    Output,
    Prompt,
    Rate,
    Retry,
    Review,
    TableImages,
    Window,
    manifest_schema,
)
from batch_runner.manifest.reader import Reader
from batch_runner.manifest.template import Template
from batch_runner.manifest.validation import Validator
from batch_runner.table import TableForm, is_encoding, is_manifest
from batch_runner.text.path import sieve_value

_NOT_CHECKS = ("profile", "advice", "where", "command")


def load_manifest(path: Path | str) -> Manifest:
    """Read and check a manifest; raises InputMissingError, or ManifestError with all problems."""
    document = read_document(Path(path))
    if not isinstance(document.data, dict):
        what = "is not a manifest: it has no keys"
        raise ManifestError([document.problem((), what, "begin it with version: 1")])
    builder = _Builder(document)
    problems = builder.problems
    # A value that YAML misread is reported once: what it does to the form is no news.
    reported = {problem.line for problem in document.problems}
    finding = None
    for finding in _form_validator().findings(document.data):
        if document.line(finding.location) not in reported:
            problems.add(finding.location, finding.what, finding.hint)
    if finding is not None:
        problems.raise_found()
    manifest = builder.build()
    find_contradictions(manifest, problems)
    problems.raise_found()
    return manifest


@cache
def _form_validator() -> Validator:
    return Validator(manifest_schema())


class _Builder(Reader):
    """Builds a Manifest from values whose form was checked; collects what the form cannot say."""

    def build(self) -> Manifest:
        data: dict[str, Any] = self.document.data
        name = data.get("name", self.document.path.stem)
        output = self._output(data.get("output", {}), name)
        is_inline = data.get("uploads") == INLINE
        return Manifest(
            document=self.document,
            name=name,
            model=data.get("model"),
            output=output,
            prompts=tuple(self._prompts(data["prompts"])),
            images=self._images(data.get("images")),
            inputs=data.get("inputs", {}),
            matrix=data.get("matrix", {}),
            exclude=tuple(data.get("exclude", ())),
            repeat=data.get("repeat", 1),
            limits=_limits(data.get("limits", {})),
            retry=_retry(data.get("retry", {})),
            window=self._window(data.get("window")),
            on_finish=data.get("notify", {}).get("on_finish"),
            notes=self._notes(data),
            models={
                model_id: self._notes(value, ("models", model_id))
                for model_id, value in data.get("models", {}).items()
            },
            uploads=None if is_inline else self.bucket(data.get("uploads"), ("uploads",)),
            uploads_inline=is_inline,
            review=_review(data.get("review", {})),
            checks=tuple(self._checks(data.get("checks", ()))),
            deliver=tuple(read_channels(self, data.get("deliver", {}), output.dir)),
        )

    def _notes(self, data: Mapping[str, Any], owner: Location = ()) -> ModelNotes:
        return ModelNotes(
            inputs=data.get("inputs", {}),
            price_usd=_money(data.get("price_usd")),
            price_unit=data.get("price_unit", "output"),
            prompt_as=data.get("prompt_as"),
            images_as=data.get("images_as"),
            input_schema=self._input_schema(data.get("schema"), owner),
        )

    def _prompts(self, data: Mapping[str, Any]) -> Iterator[Prompt]:
        for id_, value in data.items():
            location: Location = ("prompts", id_)
            if isinstance(value, str):
                yield Prompt(id_, self.template(value, location), {}, location)
                continue
            location = (*location, "prompt")
            text = self.template(value["prompt"], location)
            where = self.choice(value, ("prompts", id_), "where")
            yield Prompt(id_, text, value.get("inputs", {}), location, value.get("model"), where)

    def _images(self, data: Mapping[str, Any] | None) -> dict[str, list[str]] | TableImages | None:
        if data is None:
            return None
        if "from" not in data:
            return {id_: _as_list(urls) for id_, urls in data.items()}
        path, pattern = _folder_and_pattern(self.folder, data["from"])
        is_batch = pattern is None and is_manifest(path)
        needed = {
            "id": 'the image id, a template over the row\'s columns, such as "{{ sku }}"',
            "urls": 'templates of the picture URLs, such as ["{{ front_url }}"]',
        }
        for key, about in () if is_batch else needed.items():
            if key not in data and (key == "id" or pattern is None):
                self.problems.add(
                    ("images",), f"the key '{key}' is missing", f"add '{key}': {about}"
                )
        urls = _as_list(data.get("urls", "{{ file }}" if is_batch else "{{ path }}"))
        here: Location = ("images",)
        return TableImages(
            path=path,
            id=self.choice(data, here, "id") or Template("{{ picture_id }}"),
            urls=[self.template(url, ("images", "urls")) for url in urls],
            form=self._table_form(data, pattern),
            split=data.get("split"),
            pictures=data.get("pictures"),
            each_picture=data.get("each") == "picture",
            sample=data.get("sample"),
            where=self.choice(data, here, "where"),
            group=self.choice(data, here, "group"),
            identity=self.choice(data, here, "identity"),
        )

    def _table_form(self, data: Mapping[str, Any], pattern: str | None) -> TableForm:
        encoding = data.get("encoding")
        if encoding is not None and not is_encoding(encoding):
            hint = "such as cp1252 (Windows) or mac_roman"
            self.problems.add(("images", "encoding"), f"'{encoding}' is not a text encoding", hint)
        return TableForm(
            pattern=pattern,
            encoding=encoding,
            delimiter=data.get("delimiter"),
            sheet=data.get("sheet"),
            header=data.get("header", 1),
        )

    def _output(self, data: Mapping[str, Any], name: str) -> Output:
        usual = f"out/{sieve_value(name)}"
        written = data.get("dir", usual)
        bucket = None
        if is_bucket_url(written):
            bucket = self.bucket(written, ("output", "dir"))
            written = data.get("ledger", usual)
        return Output(
            self.folder / written,
            self.optional(data, ("output",), "path", path=True),
            tuple(data.get("hosts", ())),
            bucket,
            self.folder / data["ledger"] if bucket is None and "ledger" in data else None,
        )

    def _checks(self, data: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> Iterator[Checks]:
        is_one = isinstance(data, Mapping)
        for position, part in enumerate([data] if isinstance(data, Mapping) else data):
            here: Location = ("checks",) if is_one else ("checks", position)
            yield Checks(
                profiles=tuple(_as_list(part.get("profile", []))),
                advice=part.get("advice", True),
                where=self.choice(part, here, "where"),
                required={name: value for name, value in part.items() if name not in _NOT_CHECKS},
                command=self.words(part.get("command"), (*here, "command")),
            )

    def _window(self, data: Mapping[str, Any] | None) -> Window | None:
        if data is None:
            return None
        opens, _, closes = data["hours"].partition("-")
        window = Window(time.fromisoformat(opens), time.fromisoformat(closes), data.get("timezone"))
        if window.opens == window.closes:
            hint = "remove window to submit at any hour"
            self.problems.add(("window", "hours"), "the window is never open", hint)
        try:
            if window.timezone is not None:
                from zoneinfo import ZoneInfo  # noqa: PLC0415 - most batches have no window

                ZoneInfo(window.timezone)
        except (KeyError, ValueError, OSError):
            what = f"'{window.timezone}' is not a known time zone"
            hint = "write an IANA name such as Europe/Madrid"
            self.problems.add(("window", "timezone"), what, hint)
        return window

    def _input_schema(
        self, value: str | dict[str, Any] | None, owner: Location
    ) -> dict[str, Any] | None:
        if value is None or isinstance(value, dict):
            return value
        try:
            schema = msgspec.json.decode((self.folder / value).read_bytes(), type=dict[str, Any])
        except OSError as error:
            what = f"cannot read schema '{value}': {error.strerror}"
            self.problems.add((*owner, "schema"), what, "its path is relative to the manifest")
        except (msgspec.DecodeError, RecursionError) as error:
            hint = 'write the schema as JSON: {"properties": {…}}'
            self.problems.add((*owner, "schema"), f"schema '{value}' is not JSON: {error}", hint)
        else:
            inner = schema.get("input_schema", schema)
            return inner if isinstance(inner, dict) else schema
        return None


def _folder_and_pattern(base: Path, written: str) -> tuple[Path, str | None]:
    """Tell a folder, or a pattern of files in it, from a table: (path, pattern or None)."""
    parts = written.replace("\\", "/").split("/")
    is_pattern = [re.search(r"[*?\[]", part) is not None for part in parts]
    if any(is_pattern):
        first = is_pattern.index(True)
        pattern = "/".join(part for part in parts[first:] if part)
        # Python's `**` alone means folders; to everyone else it means all files below.
        pattern += "/*" if pattern.endswith("**") else ""
        return base.joinpath(*parts[:first]) if parts[0] else Path("/", *parts[:first]), pattern
    path = base / written
    return path, "*" if written.endswith("/") or path.is_dir() else None


def _limits(data: Mapping[str, Any]) -> Limits:
    values = dict(data)
    for name in ("submits", "polls"):
        if name in values:
            values[name] = Rate.parse(values[name])
    if "submits" in values and "polls" not in values:
        submits = values["submits"]
        values["polls"] = Rate(submits.count * POLLS_A_SUBMIT, submits.window_s)
    if "failures" in values:
        failures = values["failures"]
        values["failures"] = (
            FailureLimit(share=float(failures.rstrip("%")) / 100)
            if isinstance(failures, str)
            else FailureLimit(count=failures)
        )
    budgets = values.pop("cost_usd", None)
    for budget in budgets if isinstance(budgets, list) else [budgets]:
        amount, _, night = str(budget).partition("/")
        if budget is not None:
            values["nightly_usd" if night else "cost_usd"] = _money(amount)
    return Limits(**values)


def _review(data: Mapping[str, Any]) -> Review:
    values = {f"redo_{name}": value for name, value in data.get("redo", {}).items()}
    if "reasons" in data:
        values["reasons"] = tuple(data["reasons"])
    return Review(**values)


def _retry(data: Mapping[str, Any]) -> Retry:
    values = dict(data)
    for name in ("give_up", "stuck"):
        if name in values:
            number, unit = re.fullmatch(r"(\d+)(\D+)", values.pop(name)).groups()  # type: ignore[union-attr]  # the schema's pattern
            values[f"{name}_s"] = int(number) * UNIT_S[unit]
    return Retry(**values)


def _money(value: float | str | None) -> Decimal | None:
    """Read an amount of USD; through its shortest text, so that 0.05 is 0.05."""
    return None if value is None else Decimal(str(value))


def _as_list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value
