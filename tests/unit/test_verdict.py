"""What follows from verdicts, one after another."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from batch_runner.jobs.redo import redone
from batch_runner.ledger.verdict import Redo, Reviewed, Verdicts, Word
from batch_runner.models.model import Model
from batch_runner.records import Job


def said(word: Word, sha256: str = "one") -> Reviewed:
    at = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
    return Reviewed(at=at, job="mug/white", fingerprint="f", sha256=sha256, word=word)


@pytest.mark.parametrize("word", [Word.ACCEPTED, Word.WITHDRAWN])
def test_another_word_about_its_picture_calls_a_redo_off_and_one_about_a_second_does_not(
    word: Word,
) -> None:
    assert set(Verdicts([said(Word.REDO)]).redos) == {"f"}
    assert not Verdicts([said(Word.REDO), said(word)]).redos
    assert set(Verdicts([said(Word.REDO), said(word, "two")]).redos) == {"f"}


def test_to_reject_a_picture_calls_its_redo_off_and_a_redo_asked_for_again_is_the_same() -> None:
    asked = Verdicts([said(Word.REDO)]).redos["f"]
    rejected = Verdicts([said(Word.REDO), said(Word.REJECTED)]).redos["f"]
    assert (asked.is_off, rejected.is_off) == (False, True)
    again = Verdicts([said(Word.REDO), said(Word.REJECTED), said(Word.REDO)]).redos["f"]
    assert again == asked


def test_a_redo_from_a_result_that_is_unknown_is_not_bought_from_the_source_instead() -> None:
    job = Job(key="mug/white", fingerprint="f", model="m", input={"prompt": "x"}, path="mug/white")
    models = {"m": Model("m")}
    from_result = Redo(replaces="f", count=1, start="result", sha256="one")
    assert redone(job, {"f": from_result}, models, lambda _: None) is job
    from_source = Redo(replaces="f", count=1, note="lighter")
    again = redone(job, {"f": from_source}, models, lambda _: None)
    assert (again.fingerprint, again.redo) == (from_source.fingerprint, 1)
    assert again.input == {"prompt": "x\n\nlighter"}
