from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_runner.errors import Problem
from batch_runner.manifest.validation import show
from batch_runner.table import TableError
from batch_runner.text.shown import plain, trimmed, visible

SEEN = "👩\u200d👩\u200d👧 🏴\U000e0067\U000e0062\U000e007f"


@pytest.mark.parametrize("unseen", ["\u200b", "\ufeff", "\u00a0", "\u2060", "\u00ad", "\u200e"])
def test_what_nobody_sees_is_stripped_at_the_ends_and_shown_in_messages(unseen: str) -> None:
    shown = f"\\u{ord(unseen):04x}"
    assert trimmed(f"{unseen} {unseen}A{unseen}B {unseen}") == f"A{unseen}B"
    assert show(f"A{unseen}B") == f'"A{shown}B"'
    assert str(Problem("t.csv", 2, f"no '{unseen}A'", f"did you mean '{unseen}B'?")) == (
        f"t.csv:2: no '{shown}A'\nhint: did you mean '{shown}B'?"
    )


def test_letters_that_are_put_together_stay() -> None:
    assert trimmed(SEEN) == SEEN


@given(st.text())
def test_a_message_is_short_and_printable_whatever_a_table_holds(text: str) -> None:
    long = text * 1000
    for shown in (visible(long), show(long), str(TableError(long, hint=long).hint)):
        assert len(shown) <= 700 * 6
        assert "\n" not in shown
        assert "\x1b" not in shown
    trimmed(text)
    plain(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Women&#8217;s T&amp;Cotton", "Women\u2019s T&Cotton"),
        ("<b>Lamp</b>&nbsp;12&quot;", 'Lamp 12"'),
        ("&lt;p&gt;A mug&lt;/p&gt;", "A mug"),
        ("A &amp;amp; B", "A & B"),
        ("<p>A<br/>mug</p><script>x()</script>", "A mug"),
        ("1 < 2 & 3 > 2  ok", "1 < 2 & 3 > 2  ok"),
        ("R&D at AT&T; x", "R&D at AT&T; x"),
        (7, "7"),
    ],
)
def test_plain_text_has_no_html(text: object, said: str) -> None:
    assert plain(text) == said
