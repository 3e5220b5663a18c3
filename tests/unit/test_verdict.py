"""What follows from verdicts, one after another."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from batch_runner.ledger.verdict import Reviewed, Verdicts, Word


def said(word: Word, sha256: str = "one") -> Reviewed:
    at = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
    return Reviewed(at=at, job="mug/white", fingerprint="f", sha256=sha256, word=word)


@pytest.mark.parametrize("word", [Word.ACCEPTED, Word.REJECTED, Word.WITHDRAWN])
def test_another_word_about_its_picture_calls_a_redo_off_and_one_about_a_second_does_not(
    word: Word,
) -> None:
    assert set(Verdicts([said(Word.REDO)]).redos) == {"f"}
    assert not Verdicts([said(Word.REDO), said(word)]).redos
    assert set(Verdicts([said(Word.REDO), said(word, "two")]).redos) == {"f"}
