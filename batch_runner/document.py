"""YAML text in, plain values out, each with the line it stands on.

Hides PyYAML. What always holds: only mappings with text keys, lists, text, true/false, null and
finite numbers come out; nothing is guessed: where YAML 1.1 would read something else than what
stands there (`16:9` as 969, `NO` as false, the last of two equal keys), there is a problem with a
hint instead; time and memory are bounded, whatever the text does with anchors and nesting.
"""

from __future__ import annotations

import hashlib
import math
import re
from pathlib import Path
from typing import Any

import msgspec
import yaml

from batch_runner.errors import PROBLEM_LIMIT, InputMissingError, ManifestError, Problem

Location = tuple[str | int, ...]
"""Where a value stands: the keys and list positions that lead to it."""

SIZE_LIMIT_BYTES = 16 * 1024 * 1024
DEPTH_LIMIT = 32
ALIASED_NODES_LIMIT = 100_000

_TAG = "tag:yaml.org,2002:"
_PLAIN_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})")
_NOT_TEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class Document(msgspec.Struct, frozen=True):
    """The values of a YAML file, and the line of each."""

    path: Path
    shown_as: str
    sha256: str
    data: Any
    lines: dict[Location, int]

    def line(self, location: Location) -> int:
        """Return the line of a value, or of the nearest one around it."""
        while location and location not in self.lines:
            location = location[:-1]
        return self.lines.get(location, 1)

    def problem(self, location: Location, what: str, hint: str | None = None) -> Problem:
        """Return a problem that points at a value."""
        return Problem(self.shown_as, self.line(location), what, hint)


def read_document(path: Path) -> Document:
    """Read a YAML file; raises InputMissingError, or ManifestError with every problem found."""
    shown_as = str(path)
    try:
        raw = path.read_bytes()
    except FileNotFoundError as error:
        raise InputMissingError(
            f"{shown_as}: no such file", hint="name the manifest to run, such as jobs/catalog.yaml"
        ) from error
    except OSError as error:
        raise InputMissingError(f"{shown_as}: cannot be read: {error.strerror}") from error
    if len(raw) > SIZE_LIMIT_BYTES:
        raise ManifestError(
            [
                Problem(
                    shown_as,
                    None,
                    f"is larger than {SIZE_LIMIT_BYTES // 2**20} MiB",
                    "put the images into a table and name it with images: {from: catalog.csv}",
                )
            ]
        )
    data, lines = _parse(_decode(raw, shown_as), shown_as)
    return Document(path, shown_as, hashlib.sha256(raw).hexdigest(), data, lines)


def _parse(text: str, shown_as: str) -> tuple[Any, dict[Location, int]]:
    found = _NOT_TEXT.search(text)
    if found is not None:
        line = text.count("\n", 0, found.start()) + 1
        what = f"holds the control character U+{ord(found.group()):04X}"
        raise ManifestError([Problem(shown_as, line, what, "this is not a text file, or damaged")])
    try:
        root = yaml.compose(text, Loader=yaml.CSafeLoader)
    except yaml.MarkedYAMLError as error:
        raise ManifestError([_syntax_problem(error, text, shown_as)]) from error
    except yaml.YAMLError as error:
        raise ManifestError([Problem(shown_as, 1, f"is not YAML: {error}")]) from error
    if root is None:
        hint = "a manifest needs at least version, prompts and images; see jobs/quickstart.yaml"
        raise ManifestError([Problem(shown_as, 1, "is empty", hint)])
    walk = _Walk(shown_as)
    data = walk.value(root, ())
    if walk.problems:
        raise ManifestError(walk.problems)
    return data, walk.lines


def _decode(raw: bytes, shown_as: str) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        what = f"is not UTF-8 (byte 0x{raw[error.start]:02x})"
        raise ManifestError(
            [Problem(shown_as, line, what, "save the file as UTF-8 in your editor")]
        ) from error


def _syntax_problem(error: yaml.MarkedYAMLError, text: str, shown_as: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    number = mark.line + 1 if mark is not None else 1
    lines = text.splitlines()
    line = lines[number - 1] if number <= len(lines) else ""
    indent = line[: len(line) - len(line.lstrip())]
    what = f"is not valid YAML: {error.problem or error.context}"
    if "\t" in indent or "'\\t'" in (error.problem or ""):
        what = "a tab stands where YAML allows only spaces"
        return Problem(shown_as, number, what, "replace every tab by spaces")
    if error.problem == "mapping values are not allowed in this context":
        return Problem(
            shown_as, number, what, "indent it like its neighbours, or quote a text that holds ': '"
        )
    if error.context_mark is not None and error.context_mark.line + 1 != number:
        what += f" ({error.context}, begun on line {error.context_mark.line + 1})"
    return Problem(shown_as, number, what)


class _Walk:
    """Turns YAML nodes into values, collecting lines and problems on the way."""

    def __init__(self, shown_as: str) -> None:
        self.shown_as = shown_as
        self.lines: dict[Location, int] = {}
        self.problems: list[Problem] = []
        self._seen: set[int] = set()
        self._open: set[int] = set()
        self._aliased = 0
        self._given_up = False

    def value(self, node: yaml.Node, location: Location) -> Any:
        """Return the value of a node, or None where there is a problem with it."""
        line = node.start_mark.line + 1
        self.lines[location] = line
        if not self._admit(node, location, line):
            return None
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
                return self._mapping(node, location)
            if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
                return [
                    self.value(child, (*location, position))
                    for position, child in enumerate(node.value)
                ]
            if isinstance(node, yaml.ScalarNode):
                return self._scalar(node, line)
        finally:
            self._open.discard(id(node))
        return self._refuse_tag(node, line)

    def _admit(self, node: yaml.Node, location: Location, line: int) -> bool:
        """Bound the walk: a node met again came through an alias, and aliases can multiply."""
        if self._given_up:
            return False
        if id(node) in self._open:
            self._add(line, "an anchor contains itself", "write the values out")
            return False
        if len(location) > DEPTH_LIMIT:
            self._add(line, f"is nested more than {DEPTH_LIMIT} levels deep")
            return False
        if id(node) in self._seen:
            self._aliased += 1
            if self._aliased > ALIASED_NODES_LIMIT:
                self._give_up(line, f"aliases expand to more than {ALIASED_NODES_LIMIT:,} values")
                return False
        self._seen.add(id(node))
        return True

    def _mapping(self, node: yaml.MappingNode, location: Location) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                self._add(
                    line, "a key is a list or a mapping", "quote a key that begins with { or ["
                )
                continue
            # A key is always text, as it stands there: `NO:` may be Norway and `007:` an article.
            key = key_node.value
            if key_node.tag == _TAG + "merge":
                self._add(line, "merge keys (<<) are not supported", "write the keys out")
                continue
            if key in values:
                first = self.lines[(*location, key)]
                hint = f"it stands on line {first} already; remove one of them"
                self._add(line, f"duplicate key '{key}'", hint)
                continue
            values[key] = self.value(value_node, (*location, key))
            # A value may begin on a later line than its key; people look for the key.
            self.lines[(*location, key)] = line
        return values

    def _scalar(self, node: yaml.ScalarNode, line: int) -> Any:
        text = node.value
        match node.tag.removeprefix(_TAG):
            case "str" | "value":
                return text
            case "null":
                return None
            case "bool" if text.lower() in ("true", "false"):
                return text.lower() == "true"
            case "bool":
                return self._trap(line, text, str(text.lower() in ("yes", "on")).lower())
            case "int" if _PLAIN_INTEGER.fullmatch(text):
                return int(text)
            case "int" if ":" in text:
                return self._trap(line, text, f"the number {_sexagesimal(text)}")
            case "int" | "float" if re.fullmatch(r"[-+]?[0-9]{19,}", text):
                return self._trap(line, text, "a number of more than 18 digits")
            case "int":
                return self._trap(line, text, "another number than it looks like")
            case "float" if ":" in text or "_" in text:
                return self._trap(line, text, "another number than it looks like")
            case "float":
                return self._float(line, text)
            case "timestamp":
                return self._trap(line, text, "a date")
        return self._refuse_tag(node, line)

    def _float(self, line: int, text: str) -> float | None:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            self._add(line, f"{text} is not a finite number")
            return None
        return number

    def _refuse_tag(self, node: yaml.Node, line: int) -> None:
        tag = node.tag.replace(_TAG, "!!")
        self._add(line, f"the tag {tag} is not allowed", "remove it; quote the value if it is text")

    def _trap(self, line: int, text: str, reading: str) -> None:
        self._add(line, f"{text} is read as {reading} by YAML", f'write it in quotes: "{text}"')

    def _add(self, line: int, what: str, hint: str | None = None) -> None:
        self.problems.append(Problem(self.shown_as, line, what, hint))
        self._given_up = len(self.problems) >= PROBLEM_LIMIT

    def _give_up(self, line: int, what: str) -> None:
        self._add(line, what, "write the values out, or put them into a table")
        self._given_up = True


def _sexagesimal(text: str) -> int:
    number = 0
    for part in text.lstrip("+-").replace("_", "").split(":"):
        number = number * 60 + int(part)
    return -number if text.startswith("-") else number
