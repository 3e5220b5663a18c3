"""YAML text in, plain values out, each with the line it stands on.

Hides PyYAML. What always holds: only mappings with text keys, lists, text, true/false, null and
finite numbers come out. Nothing is guessed: if YAML 1.1 reads something other than what is written
(`16:9` as 969, `NO` as false, only the last of two equal keys), the document gets a problem and the
text as written. Time and memory are bounded, whatever the text does with anchors and nesting.
"""

from __future__ import annotations

import hashlib
import math
import re
from pathlib import Path
from typing import Any

import msgspec
import yaml

from batch_runner.errors import InputMissingError, ManifestError, Problem
from batch_runner.manifest.comments import HINT, find_cut

Location = tuple[str | int, ...]
"""Where a value stands: the keys and list positions that lead to it."""

SIZE_LIMIT_BYTES = 16 * 1024 * 1024
DEPTH_LIMIT = 32
VALUES_LIMIT = 200_000

_TAG = "tag:yaml.org,2002:"
_KEY_TAGS = ("str", "null", "bool", "int", "float", "timestamp", "value")
_PLAIN_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})")
_NOT_TEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ufffe\uffff]")

_OPENING = (
    yaml.BlockMappingStartToken,
    yaml.BlockSequenceStartToken,
    yaml.FlowMappingStartToken,
    yaml.FlowSequenceStartToken,
)
_CLOSING = (yaml.BlockEndToken, yaml.FlowMappingEndToken, yaml.FlowSequenceEndToken)

_TABLE_HINT = "put the images into a table and name it with images: {from: catalog.csv, …}"
_SYNTAX_HINT = (
    "indent it like its neighbours, close every quote and bracket, and quote texts that hold ': '"
    " or '#', or begin with one of [ { * & ! %"
)


class Document(msgspec.Struct, frozen=True):
    """The values of a YAML file, the line of each, and the problems of single values."""

    path: Path
    shown_as: str
    sha256: str
    data: Any
    lines: dict[Location, int]
    problems: tuple[Problem, ...] = ()

    def line(self, location: Location) -> int:
        """Return the line of a value, or of the nearest one around it."""
        while location and location not in self.lines:
            location = location[:-1]
        return self.lines.get(location, 1)

    def problem(self, location: Location, what: str, hint: str | None = None) -> Problem:
        """Return a problem that points at a value."""
        return Problem(self.shown_as, self.line(location), what, hint)


def read_document(path: Path) -> Document:
    """Read a YAML file; raises InputMissingError, or ManifestError if it has no values."""
    shown_as = str(path)
    try:
        raw = path.read_bytes()
    except OSError as error:
        what = f"{shown_as}: {(error.strerror or str(error)).lower()}"
        raise InputMissingError(what, hint="name a manifest, such as jobs/catalog.yaml") from error
    if len(raw) > SIZE_LIMIT_BYTES:
        what = f"is larger than {SIZE_LIMIT_BYTES // 2**20} MiB"
        raise ManifestError([Problem(shown_as, None, what, _TABLE_HINT)])
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        what = f"is not UTF-8 (byte 0x{raw[error.start]:02x})"
        hint = "save the file as UTF-8 in your editor"
        raise ManifestError([Problem(shown_as, line, what, hint)]) from error
    found = _NOT_TEXT.search(text)
    if found is not None:
        line = text.count("\n", 0, found.start()) + 1
        what = f"holds the control character U+{ord(found.group()):04X}"
        raise ManifestError([Problem(shown_as, line, what, "this is not a text file, or damaged")])
    walk = _Walk(shown_as)
    data = walk.value(_compose(text, shown_as, walk.problems), ())
    sha256 = hashlib.sha256(raw).hexdigest()
    return Document(path, shown_as, sha256, data, walk.lines, tuple(walk.problems))


def _compose(text: str, shown_as: str, problems: list[Problem]) -> yaml.Node:
    """Return the nodes of a text; comments that cut a text off become problems.

    Too much depth and too many values are refused before libyaml recurses into them: it can crash.
    """
    depth = values = 0
    before: Any = None
    try:
        for token in yaml.scan(text, Loader=yaml.CSafeLoader):
            line = token.start_mark.line + 1
            depth += isinstance(token, _OPENING) - isinstance(token, _CLOSING)
            values += isinstance(token, yaml.ScalarToken)
            if depth > DEPTH_LIMIT or values > VALUES_LIMIT:
                raise ManifestError([_too_much(shown_as, line, is_deep=depth > DEPTH_LIMIT)])
            cut = None if before is None else find_cut(text, before, token)
            if cut is not None:
                problems.append(Problem(shown_as, *cut, HINT))
            before = token
        root: yaml.Node | None = yaml.compose(text, Loader=yaml.CSafeLoader)
    except yaml.MarkedYAMLError as error:
        raise ManifestError(problems or [_syntax_problem(error, text, shown_as)]) from error
    if root is None:
        hint = "a manifest needs at least version, model and prompts; see jobs/quickstart.yaml"
        raise ManifestError([Problem(shown_as, 1, "is empty", hint)])
    return root


def _too_much(shown_as: str, line: int, *, is_deep: bool) -> Problem:
    if is_deep:
        return Problem(shown_as, line, f"is nested more than {DEPTH_LIMIT} levels deep")
    what = f"holds more than {VALUES_LIMIT:,} values, with those that aliases (*) repeat"
    return Problem(shown_as, line, what, _TABLE_HINT)


def _syntax_problem(error: yaml.MarkedYAMLError, text: str, shown_as: str) -> Problem:
    lines = [*text.split("\n"), ""]
    last = error.problem_mark.line if error.problem_mark is not None else 0
    first = last
    if error.context_mark is not None and re.search("quoted|flow|simple", error.context or ""):
        first = error.context_mark.line  # where a quote or a bracket was opened, maybe far above
    written = lines[last]
    if "\t" in written[: len(written) - len(written.lstrip())]:
        what, hint = "a tab stands where YAML allows only spaces", "replace every tab by spaces"
    elif re.search(r"[:\[,-] *\{\{", written):
        what, hint = "a template is not in quotes", 'write it as "{{ name }} …"'
    else:
        what, hint = f"is not valid YAML: {error.problem or error.context}", _SYNTAX_HINT
        last = first
    return Problem(shown_as, last + 1, what, hint)


class _Walk:
    """Turns YAML nodes into values, collecting lines and problems on the way."""

    def __init__(self, shown_as: str) -> None:
        self._shown_as = shown_as
        self.lines: dict[Location, int] = {}
        self.problems: list[Problem] = []
        self._weight = 0

    def value(self, node: yaml.Node, location: Location) -> Any:
        """Return the value of a node; if there is a problem with it, its text or None."""
        line = node.start_mark.line + 1
        self.lines[location] = line
        # Aliases can multiply: each time that a text comes again, it is checked again.
        self._weight += 1 + len(node.value) // 100
        if len(location) > DEPTH_LIMIT or self._weight > VALUES_LIMIT:
            is_deep = len(location) > DEPTH_LIMIT
            raise ManifestError([_too_much(self._shown_as, line, is_deep=is_deep)])
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return self._mapping(node, location)
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            return [self.value(one, (*location, place)) for place, one in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, line)
        return self._refuse_tag(node.tag, line)

    def _mapping(self, node: yaml.MappingNode, location: Location) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                what = "a key is a list or a mapping"
                self._add(line, what, 'put a text that begins with { or [ in quotes: "{{ name }}"')
                continue
            # A key is always text, as written: `NO:` may be Norway and `007:` an article.
            key = key_node.value
            if key_node.tag == _TAG + "merge":
                self._add(line, "merge keys (<<) are not supported", "write the keys out")
                continue
            if key_node.tag.removeprefix(_TAG) not in _KEY_TAGS:
                self._refuse_tag(key_node.tag, line)
                continue
            if key in values:
                first = self.lines[(*location, key)]
                hint = f"it is on line {first} already; remove one of them"
                self._add(line, f"duplicate key '{key}'", hint)
                continue
            values[key] = self.value(value_node, (*location, key))
            # A value can begin on a later line than its key; people look for the key.
            self.lines[(*location, key)] = line
        return values

    def _scalar(self, node: yaml.ScalarNode, line: int) -> Any:
        text = node.value
        match node.tag.removeprefix(_TAG):
            case "str" | "value":
                return text
            case "null" if text.lower() in ("", "~", "null"):
                return None
            case "bool" if text.lower() in ("true", "false"):
                return text.lower() == "true"
            case "bool" if text.lower() in ("yes", "no", "on", "off"):
                return self._trap(line, text, "true" if text.lower() in ("yes", "on") else "false")
            case "int" if _PLAIN_INTEGER.fullmatch(text):
                return int(text)
            case "int" | "float" if ":" in text or "_" in text or node.tag == _TAG + "int":
                return self._trap(line, text, "another number")
            case "float":
                return self._float(line, text)
            case "timestamp":
                return self._trap(line, text, "a date")
        return self._refuse_tag(node.tag, line)

    def _float(self, line: int, text: str) -> float | str:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            self._add(line, f"{text} is not a finite number", f'quote it if it is text: "{text}"')
            return text
        return number

    def _refuse_tag(self, tag: str, line: int) -> None:
        shown = tag.replace(_TAG, "!!")
        hint = "remove it; quote a text that begins with !"
        self._add(line, f"the tag {shown} is not allowed", hint)

    def _trap(self, line: int, text: str, reading: str) -> str:
        self._add(line, f"{text} is read as {reading} by YAML", f'write it in quotes: "{text}"')
        return text

    def _add(self, line: int, what: str, hint: str | None = None) -> None:
        self.problems.append(Problem(self._shown_as, line, what, hint))
