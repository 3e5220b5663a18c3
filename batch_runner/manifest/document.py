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

from batch_runner.errors import PROBLEM_LIMIT, InputMissingError, ManifestError, Problem, closest
from batch_runner.manifest.comments import find_cut, find_cut_nearby, find_lost_colour

Location = tuple[str | int, ...]
"""Where a value stands: the keys and list positions that lead to it."""

SIZE_LIMIT_BYTES = 16 * 1024 * 1024
DEPTH_LIMIT = 32
VALUES_LIMIT = 200_000
ALIASED_CHARACTERS_LIMIT = 1_000_000

_LINES_BACK = 3
"""How many lines before a syntax error to search for its cause."""

_TAG = "tag:yaml.org,2002:"
_KEY_TAGS = ("str", "null", "bool", "int", "float", "timestamp", "value")
_PLAIN_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})")
_NOT_TEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ufffe\uffff]")

_TABLE_HINT = "put the images into a table and name it with images: {from: catalog.csv, …}"
_INDENT_HINT = "indent it like its neighbours, and quote a text that holds ': '"
_BACKSLASH_HINT = "inside double quotes a backslash is special: use single quotes"
_STAR_HINT = "quote a text that begins with * or &"
_SAID_BETTER = {
    "mapping values are not allowed in this context": (
        "a ':' stands where no key can be",
        _INDENT_HINT,
    ),
    "did not find expected key": (
        "this does not continue what stands before it",
        "indent it like its neighbours, and put quotes around the whole of a text",
    ),
    "did not find expected '-' indicator": (
        "this does not continue the list before it",
        "indent it like its neighbours",
    ),
    "could not find expected ':'": ("this line has no ':' after its key", _INDENT_HINT),
    "did not find expected alphabetic or numeric character": (
        "a name is missing after * or &",
        _STAR_HINT,
    ),
    "found undefined alias": ("this * refers to nothing", _STAR_HINT),
    "found unknown escape character": ("a backslash stands before a letter", _BACKSLASH_HINT),
    "did not find expected hexdecimal number": (
        "a backslash stands before a letter",
        _BACKSLASH_HINT,
    ),
    # Some versions of libyaml have a limit of their own, and meet it before the first event.
    "exceeded maximum nesting depth": (f"is nested more than {DEPTH_LIMIT} levels deep", None),
    "but found another document": (
        "a second manifest begins here",
        "remove '---', or put it into a file of its own",
    ),
}
"""What the YAML parser says: what it means, and what to do about it."""

_NOT_THERE = (
    "found unexpected end of stream",
    "found unexpected document indicator",
    "did not find expected ',' or ']'",
    "did not find expected ',' or '}'",
)
_NEVER_CLOSED = {
    "while scanning a quoted scalar": ("a quote", "add the closing quote"),
    "while parsing a flow sequence": ("a '['", "add the ']', or quote a text that begins with ["),
    "while parsing a flow mapping": ("a '{'", "add the '}', or quote a text that begins with {"),
}


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


def _other_file(path: Path) -> str:
    """Return a hint: the manifest beside it whose name is nearly the one that was typed."""
    try:
        names = [one.name for one in path.parent.iterdir() if one.suffix in (".yaml", ".yml")]
    except OSError:
        names = []
    match = closest(path.name, names, cutoff=0.8)
    if match is not None:
        return f"did you mean '{path.with_name(match)}'?"
    return "name the manifest to run, such as jobs/catalog.yaml"


def read_document(path: Path) -> Document:
    """Read a YAML file; raises InputMissingError, or ManifestError if it has no values."""
    shown_as = str(path)
    try:
        raw = path.read_bytes()
    except FileNotFoundError as error:
        raise InputMissingError(f"{shown_as}: no such file", hint=_other_file(path)) from error
    except IsADirectoryError as error:
        raise InputMissingError(
            f"{shown_as}: is a folder", hint="name the manifest in it, such as jobs/catalog.yaml"
        ) from error
    except OSError as error:
        raise InputMissingError(
            f"{shown_as}: cannot be read: {error.strerror}", hint="look at its permissions"
        ) from error
    if len(raw) > SIZE_LIMIT_BYTES:
        raise ManifestError(
            [
                Problem(
                    shown_as,
                    None,
                    f"is larger than {SIZE_LIMIT_BYTES // 2**20} MiB",
                    _TABLE_HINT,
                )
            ]
        )
    text = _decode(raw, shown_as)
    root = _compose(text, shown_as)
    walk = _Walk(shown_as, text)
    data = walk.value(root, ())
    if walk.given_up:
        raise ManifestError(walk.problems)
    sha256 = hashlib.sha256(raw).hexdigest()
    return Document(path, shown_as, sha256, data, walk.lines, tuple(walk.problems))


def _compose(text: str, shown_as: str) -> yaml.Node:
    found = _NOT_TEXT.search(text)
    if found is not None:
        line = text.count("\n", 0, found.start()) + 1
        what = f"holds the control character U+{ord(found.group()):04X}"
        raise ManifestError([Problem(shown_as, line, what, "this is not a text file, or damaged")])
    try:
        _check_size(text, shown_as)
        root: yaml.Node | None = yaml.compose(text, Loader=yaml.CSafeLoader)
    except yaml.MarkedYAMLError as error:
        raise ManifestError([_syntax_problem(error, text, shown_as)]) from error
    if root is None:
        hint = "a manifest needs at least version, model and prompts; see jobs/quickstart.yaml"
        raise ManifestError([Problem(shown_as, 1, "is empty", hint)])
    return root


def _check_size(text: str, shown_as: str) -> None:
    """Refuse too much depth and too many values before libyaml recurses into them: it can crash."""
    depth = values = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        if isinstance(event, yaml.NodeEvent):
            values += 1
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        what = hint = None
        if depth > DEPTH_LIMIT:
            what = f"is nested more than {DEPTH_LIMIT} levels deep"
        elif values > VALUES_LIMIT:
            what = f"holds more than {VALUES_LIMIT:,} values"
            hint = _TABLE_HINT
        if what is not None:
            line = event.start_mark.line + 1  # type: ignore[union-attr]  # the C parser always marks
            raise ManifestError([Problem(shown_as, line, what, hint)])


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
    mark = error.problem_mark
    line = mark.line if mark is not None else 0
    said = error.problem or ""
    written = [*text.split("\n"), ""][line]
    if "\t" in written[: len(written) - len(written.lstrip())] or "'\\t'" in said:
        what = "a tab stands where YAML allows only spaces"
        return Problem(shown_as, line + 1, what, "replace every tab by spaces")
    if re.search(r"[:\[,-] *\{\{", written):
        what = "a template is not in quotes"
        return Problem(shown_as, line + 1, what, 'write it as "{{ name }} …"')
    first = max(0, line - _LINES_BACK)
    if error.context in _NEVER_CLOSED and error.context_mark is not None:
        first = error.context_mark.line
    cut = find_cut_nearby(text.split("\n"), first, line)
    if cut is not None:
        return Problem(shown_as, *cut)
    if said == "found character that cannot start any token" and mark is not None:
        what = f"a text cannot begin with {written[mark.column]}"
        return Problem(shown_as, line + 1, what, "put it in quotes")
    if error.context in _NEVER_CLOSED and error.context_mark is not None and said in _NOT_THERE:
        what, hint = _NEVER_CLOSED[error.context]
        # The parser notices it far below; the mistake is where it was opened.
        opened = error.context_mark.line + 1
        return Problem(shown_as, opened, f"{what} is opened here and not closed", hint)
    if said in _SAID_BETTER:
        if said == "could not find expected ':'" and error.context_mark is not None:
            line = error.context_mark.line  # the key's; the parser is on the next one already
        return Problem(shown_as, line + 1, *_SAID_BETTER[said])
    return Problem(shown_as, line + 1, f"is not valid YAML: {said or error.context}")


class _Walk:
    """Turns YAML nodes into values, collecting lines and problems on the way."""

    def __init__(self, shown_as: str, text: str) -> None:
        self.shown_as = shown_as
        self._text = text
        self.lines: dict[Location, int] = {}
        self.problems: list[Problem] = []
        self.given_up = False
        self._seen: set[int] = set()
        self._open: set[int] = set()
        self._aliased = 0

    def value(self, node: yaml.Node, location: Location) -> Any:
        """Return the value of a node; if there is a problem with it, its text or None."""
        line = node.start_mark.line + 1
        self.lines[location] = line
        if not self._admit(node, location, line):
            return None
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
                return self._mapping(node, location)
            if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
                self._check_colours(node)
                return [
                    self.value(child, (*location, position))
                    for position, child in enumerate(node.value)
                ]
            if isinstance(node, yaml.ScalarNode):
                self._check_comment(node, location)
                return self._scalar(node, line)
        finally:
            self._open.discard(id(node))
        return self._refuse_tag(node.tag, line)

    def _admit(self, node: yaml.Node, location: Location, line: int) -> bool:
        """Bound the walk: a node seen again came through an alias, and aliases can multiply."""
        if self.given_up:
            return False
        if id(node) in self._open:
            self._add(line, "an anchor contains itself", "write the values out")
            return False
        if len(location) > DEPTH_LIMIT:
            self._add(line, f"is nested more than {DEPTH_LIMIT} levels deep")
            return False
        if id(node) in self._seen:
            # Every copy of a long text is checked character by character.
            self._aliased += 10 + len(node.value)
            if self._aliased > ALIASED_CHARACTERS_LIMIT:
                what = "aliases (*) multiply this file beyond reason"
                self._add(line, what, "write the values out, or put them into a table")
                self.given_up = True
                return False
        self._seen.add(id(node))
        return True

    def _mapping(self, node: yaml.MappingNode, location: Location) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                self._add(line, *_why_no_key(key_node))
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
            case "int" if re.fullmatch(r"[-+]?[1-9][0-9]*", text):
                return self._trap(line, text, "a number of more than 18 digits")
            case "int":
                return self._trap(line, text, _reading(text))
            case "float" if ":" in text or "_" in text:
                return self._trap(line, text, "a different number")
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

    def _check_comment(self, node: yaml.ScalarNode, location: Location) -> None:
        if node.style not in ("'", '"'):
            found = find_cut(
                self._text,
                node.start_mark.index,
                node.end_mark.index,
                node.value,
                is_text=node.tag == _TAG + "str",
                is_block=bool(node.style),
                location=location,
            )
            if found is not None:
                self._add(*found)

    def _check_colours(self, node: yaml.SequenceNode) -> None:
        if node.flow_style:
            spans = [(child.start_mark.index, child.end_mark.index) for child in node.value]
            found = find_lost_colour(self._text, spans, node.start_mark.index, node.end_mark.index)
            if found is not None:
                self._add(*found)

    def _add(self, line: int, what: str, hint: str | None = None) -> None:
        self.problems.append(Problem(self.shown_as, line, what, hint))
        self.given_up = len(self.problems) >= PROBLEM_LIMIT


def _why_no_key(node: yaml.Node) -> tuple[str, str]:
    """Explain a list or a mapping in place of a key: usually an unquoted `{{ name }}`."""
    inner = node.value[0] if isinstance(node, yaml.MappingNode) and len(node.value) == 1 else None
    if inner is not None and isinstance(inner[0], yaml.ScalarNode) and inner[1].value == "":
        return "a template is not in quotes", f'write it as "{{{{ {inner[0].value} }}}}"'
    return "a key is a list or a mapping", "quote a text that begins with { or ["


def _reading(text: str) -> str:
    """Return the integer that YAML 1.1 reads: 969 for `16:9`, 8 for `010`, 1000 for `1_000`."""
    digits = text.replace("_", "").lower().lstrip("+-")
    sign = "-" if text.startswith("-") else ""
    base = {"0x": 16, "0b": 2}.get(digits[:2], 8 if digits.startswith("0") else 10)
    try:
        if ":" not in digits:
            return f"the number {sign}{int(digits, base)}"
        number = 0
        for part in digits.split(":"):
            number = number * 60 + int(part)
    except ValueError:
        return "a number"
    return f"the number {sign}{number}"
