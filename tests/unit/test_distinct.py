"""The set of hashes that says which texts are certainly new."""

from __future__ import annotations

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from batch_runner.table.distinct import Distinct


@given(st.lists(st.text()))
def test_a_text_that_was_added_is_never_called_new_again(texts: list[str]) -> None:
    seen = Distinct()
    added: set[str] = set()
    for text in texts + texts:
        assert seen.add(text) is (text not in added)
        added.add(text)
    assert len(seen) == len(added)


def test_it_stays_right_while_it_grows() -> None:
    seen = Distinct()
    assert all(seen.add(f"job-{number}") for number in range(20_000))
    assert not any(seen.add(f"job-{number}") for number in range(20_000))
    assert len(seen) == 20_000


def test_a_text_whose_hash_is_zero_is_kept_like_any_other() -> None:
    seen = Distinct()
    assert hash("") == 0
    assert seen.add("")
    assert not seen.add("")


def test_it_takes_less_than_thirty_bytes_a_text() -> None:
    tracemalloc.start()
    seen = Distinct()
    for number in range(100_000):
        seen.add(f"https://cdn.example.com/pictures/{number}.png")
    current, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(seen) == 100_000
    assert current / len(seen) < 30
