"""What can be said about a saved file, and what follows from all that was said.

Hides how verdicts become lines of JSON and back. What always holds: a verdict is about the content
of a file, by its SHA-256, so a replaced picture needs a new one; the last word of a person counts,
and a withdrawal takes it back; a person's word says nothing about the checks, nor they about it.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

import msgspec

from batch_runner.records import digest

FORMAT_VERSION = 1


class Result(StrEnum):
    """What a check found. What it cannot see is unmeasurable, never a pass."""

    PASS = "pass"  # noqa: S105 - no password
    FAIL = "fail"
    UNMEASURABLE = "unmeasurable"


class Word(StrEnum):
    """What a person says; `withdrawn` takes back what was said before."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    REDO = "redo"
    WITHDRAWN = "withdrawn"


class Header(msgspec.Struct, frozen=True, kw_only=True, tag_field="record", tag="verdicts"):
    """The first line of the file."""

    version: int
    at: datetime


class Said(msgspec.Struct, frozen=True, kw_only=True, tag_field="record", omit_defaults=True):
    """What every verdict has: the time, the job's key and fingerprint, the file's SHA-256."""

    at: datetime
    job: str
    fingerprint: str
    sha256: str


class Checked(Said, frozen=True, kw_only=True, tag="checked"):
    """A check's result; `measured` and `required` are its figures, if it has any."""

    check: str
    version: int
    result: Result
    measured: Any = None
    required: Any = None


class Reviewed(Said, frozen=True, kw_only=True, tag="reviewed"):
    """A person's word; `seed` and `start` are for a redo: from the "source" or the "result"."""

    word: Word
    reason: str | None = None
    note: str | None = None
    by: str | None = None
    seed: int | None = None
    start: Literal["source", "result"] = "source"


Verdict = Header | Checked | Reviewed


class Redo(msgspec.Struct, frozen=True, kw_only=True):
    """What a redo asks for: the job that it replaces, which one it is, and how to do it.

    `is_off`: the picture was rejected since, without another redo; only a purchase keeps it alive.
    """

    replaces: str
    count: int
    note: str | None = None
    seed: int | None = None
    start: str = "source"
    sha256: str = ""
    is_off: bool = False

    @property
    def fingerprint(self) -> str:
        """Return the fingerprint of the redo's own job: the same, whichever run asks."""
        return digest(
            {
                "redo": self.replaces,
                "count": self.count,
                "note": self.note,
                "seed": self.seed,
                "from": self.start,
            }
        )


class Verdicts:
    """All that was said, folded.

    `people` and `checks` are by the SHA-256 of a file; of one check, the last result counts.
    `redos` are by the fingerprint of the job that is done again.
    """

    def __init__(self, said: Iterable[Verdict] = ()) -> None:
        self.people: dict[str, Reviewed] = {}
        self.checks: dict[str, dict[str, Checked]] = {}
        self.redos: dict[str, Redo] = {}
        self._counts: dict[str, int] = {}
        for one in said:
            self.add(one)

    def add(self, said: Verdict) -> None:
        """Fold one more verdict in."""
        if isinstance(said, Checked):
            self.checks.setdefault(said.sha256, {})[said.check] = said
        elif isinstance(said, Reviewed):
            if said.word is Word.WITHDRAWN:
                self.people.pop(said.sha256, None)
            else:
                self.people[said.sha256] = said
            self._fold_redo(said)

    def _fold_redo(self, said: Reviewed) -> None:
        """Keep the redo that was asked for last; another word about its picture calls it off.

        To reject a picture must not bring it back, in place of the new one that was paid for.
        """
        if said.word is not Word.REDO:
            asked = self.redos.get(said.fingerprint)
            # A job may have several pictures: a word about another one leaves the redo alone.
            if asked is not None and asked.sha256 == said.sha256:
                if said.word is Word.REJECTED:
                    self.redos[said.fingerprint] = msgspec.structs.replace(asked, is_off=True)
                else:
                    del self.redos[said.fingerprint]
            return
        redo = Redo(
            replaces=said.fingerprint,
            count=self._counts.get(said.fingerprint, 0) + 1,
            note=said.note,
            seed=said.seed,
            start=said.start,
            sha256=said.sha256,
        )
        self.redos[said.fingerprint] = redo
        self._counts[redo.fingerprint] = redo.count

    def word_on(self, sha256: str) -> Word | None:
        """Return a person's last word on a file."""
        said = self.people.get(sha256)
        return None if said is None else said.word


encode = msgspec.json.Encoder(decimal_format="string").encode
decode = msgspec.json.Decoder(Verdict).decode
