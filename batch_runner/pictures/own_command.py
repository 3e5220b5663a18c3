"""A check of the user's own: a command that looks at pictures.

Hides the process. It reads a line for each picture on stdin, the path and then the paths of the
pictures in, separated by tabs; and prints a line of JSON for each, in any order:
`{"path": …, "result": "pass" | "fail" | "unmeasurable", "measured": …, "why": …}`.

What always holds: no answer, half an answer, two different answers, an unknown word, a pass with a
reason against it, a command that fails: each is unmeasurable, never a pass.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from batch_runner.ledger.verdict import Checked, Result
from batch_runner.pictures.judge import Judged

VERSION = 1
NAME = "command"
AT_ONCE = 50
_TIMEOUT_S = 600.0


class _Answer(msgspec.Struct, frozen=True):
    path: str
    result: Result
    measured: Any = None
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
    lines, why = b"", "the command gave no clear answer"
    try:
        done = subprocess.run(  # noqa: S603 - it is the manifest that names the command
            words,
            input=text.encode(),
            stdout=subprocess.PIPE,
            cwd=folder,
            env=dict(environment),
            timeout=_TIMEOUT_S,
            check=True,
        )
        lines = done.stdout
    except subprocess.SubprocessError as error:
        why = str(error)
    except OSError as error:
        why = f"the command cannot be run: {error.strerror or error}"
    answers = _answers(lines.splitlines())
    required = {"command": " ".join(words)}
    found = []
    for path, _ in pictures:
        answer = answers.get(path) if path else None
        found.append(
            Judged(
                check=NAME,
                result=Result.UNMEASURABLE if answer is None else answer.result,
                measured=answer and {"measured": answer.measured, "why": answer.why},
                required=required,
                why=answer.why if answer else why if path else "is not on this machine",
            )
        )
    return found


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


def _answers(lines: Iterable[bytes]) -> Mapping[str, _Answer | None]:
    """Return the answers by path; None for one that is not clear."""
    found: dict[str, _Answer | None] = {}
    for line in lines:
        with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):
            one = msgspec.json.decode(line, type=_Answer)
            is_clear = found.get(one.path, one) == one
            is_clear &= one.result is not Result.PASS or not one.why
            found[one.path] = one if is_clear else None
    return found
