"""A check of the user's own: a command that looks at pictures.

Hides the process. It reads a line for each picture on stdin, the path and then the paths of the
pictures in, separated by tabs; and prints a line of JSON for each, in any order:
`{"path": …, "result": "pass" | "fail" | "unmeasurable", "measured": …, "required": …, "why": …}`.

What always holds: no answer, half an answer, two different answers, an unknown word, a pass with a
reason against it, a command that fails: each is unmeasurable, never a pass.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from batch_runner.ledger.verdict import Checked, Result
from batch_runner.pictures.judge import Judged

VERSION = 1
NAME = "command"
AT_ONCE = 50
_TIMEOUT_S = 600.0
_WHY_CHARACTERS = 300


class _Answer(msgspec.Struct, frozen=True):
    path: str
    result: Result
    measured: Any = None
    required: Any = None
    why: str = ""


def ask(
    words: Sequence[str],
    pictures: Sequence[tuple[str | None, Sequence[str]]],
    *,
    folder: Path,
    environment: Mapping[str, str],
) -> list[Judged]:
    """Ask a command about pictures, each with its pictures in; return a result for each.

    A path that is None is that of a picture on another machine.
    """
    text = "".join("\t".join((path, *sources)) + "\n" for path, sources in pictures if path)
    why, lines = "", b""
    try:
        done = subprocess.run(  # noqa: S603 - it is the manifest that names the command
            words,
            input=text.encode(),
            stdout=subprocess.PIPE,
            cwd=folder,
            env=dict(environment),
            timeout=_TIMEOUT_S,
            check=False,
        )
        lines = done.stdout
        if done.returncode:
            why = f"the command ended with exit code {done.returncode}"
    except subprocess.TimeoutExpired:
        why = f"the command took more than {_TIMEOUT_S:.0f} s"
    except OSError as error:
        why = f"the command cannot be run: {error.strerror or error}"
    answers = {} if why else _answers(lines.splitlines())
    required = {"command": " ".join(words)}
    why = why or "the command gave no clear answer"
    return [
        _judged(answers.get(path), required, why)
        if path is not None
        else _judged(None, required, "is not on this machine")
        for path, _ in pictures
    ]


def known_answer(before: Checked, words: Sequence[str]) -> Judged | None:
    """Return what a command answered before; None if it is to be asked (again)."""
    is_same = (before.required, before.version) == ({"command": " ".join(words)}, VERSION)
    if not is_same or before.result is Result.UNMEASURABLE:
        return None
    seen = before.measured if isinstance(before.measured, dict) else {}
    return Judged(
        check=NAME,
        result=before.result,
        measured=before.measured,
        required=before.required,
        why=str(seen.get("why", "")),
    )


def _answers(lines: Iterable[bytes]) -> Mapping[str, _Answer]:
    """Return the clear answers, by path."""
    found: dict[str, _Answer] = {}
    unclear: set[str] = set()
    for answer in _decoded(lines):
        is_against_itself = answer.result is Result.PASS and answer.why
        if is_against_itself or found.get(answer.path, answer) != answer:
            unclear.add(answer.path)
        found[answer.path] = answer
    return {path: answer for path, answer in found.items() if path not in unclear}


def _decoded(lines: Iterable[bytes]) -> Iterator[_Answer]:
    decode = msgspec.json.Decoder(_Answer).decode
    for line in lines:
        try:
            yield decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            continue


def _judged(answer: _Answer | None, required: Mapping[str, Any], why: str) -> Judged:
    if answer is None:
        return Judged(check=NAME, result=Result.UNMEASURABLE, required=required, why=why)
    seen = {"measured": answer.measured, "required": answer.required, "why": answer.why}
    return Judged(
        check=NAME,
        result=answer.result,
        measured={key: value for key, value in seen.items() if value not in (None, "")} or None,
        required=required,
        why=answer.why[:_WHY_CHARACTERS],
    )
