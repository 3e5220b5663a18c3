"""Reads the texts of a manifest: templates, buckets, commands. What is wrong becomes a problem."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from batch_runner.files.bucket import BucketUrl, parse_bucket_url
from batch_runner.manifest.document import Document, Location
from batch_runner.manifest.problems import Problems
from batch_runner.manifest.template import Template, TemplateError
from batch_runner.manifest.validation import show
from batch_runner.text.path import sieve_value


class Reader:
    """Reads texts of one document; problems go to `problems`."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.folder = document.path.parent
        self.problems = Problems(document)

    def template(self, source: str, location: Location, *, path: bool = False) -> Template:
        """Return a template; an empty one if it is not valid."""
        try:
            return Template(source, sieve=sieve_value if path else None)
        except TemplateError as problem:
            what = f"'{location[-1]}' {problem.message}"
            hint = 'write variables as {{ name }}, and names with blanks as {{ row["Image Src"] }}'
            self.problems.add(location, what, hint)
            return Template("")

    def optional(
        self, data: Mapping[str, Any], owner: Location, key: str, *, path: bool = False
    ) -> Template | None:
        """Return the template under a key, or None if there is no such key."""
        return self.template(data[key], (*owner, key), path=path) if key in data else None

    def choice(self, data: Mapping[str, Any], owner: Location, key: str) -> Template | None:
        """Return the same for a template whose text differs from row to row."""
        template = self.optional(data, owner, key)
        if template is not None and template.source and not template.variables:
            what = f"'{key}' is the same for every row: it names no column"
            hint = 'write columns in braces, such as "{{ sku }}"'
            self.problems.add((*owner, key), what, hint)
        return template

    def bucket(self, written: str | None, location: Location) -> BucketUrl | None:
        """Return the bucket of an address; None if there is none."""
        try:
            return None if written is None else parse_bucket_url(written)
        except ValueError as error:
            hint = "as in s3://bucket/prefix; gs:// and az:// work too"
            self.problems.add(location, f"{show(written)} {error}", hint)
            return None

    def words(self, command: str | None, location: Location) -> tuple[str, ...]:
        """Return the words of a command; none if there is none."""
        try:
            words = shlex.split(command or "")
        except ValueError:
            words = []
        if command is not None and not words:
            hint = "such as ./same-product.py; close every quote"
            self.problems.add(location, f"'{location[-1]}' is no command", hint)
        return tuple(words)
