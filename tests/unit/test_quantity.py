"""Numbers as people read them."""

from __future__ import annotations

import pytest

from batch_runner.text.quantity import counted, duration_text, rate_text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        *[(counted(number, "job"), text) for number, text in ((1, "1 job"), (0, "0 jobs"))],
        (counted(1200, "job"), "1,200 jobs"),
        *[(duration_text(s), text) for s, text in ((0.4, "0 s"), (59, "59 s"), (60, "1 min"))],
        (duration_text(61), "1 min 01 s"),
        (duration_text(3661), "1 h 01 min"),
        (duration_text(90_000), "1 d 01 h"),
        (rate_text(12.0), "12/s"),
        (rate_text(0.5), "30/min"),
        (rate_text(0.01), "36/h"),
        (rate_text(0.0001), "0.36/h"),
    ],
)
def test_a_number_is_shown_in_the_unit_that_people_use(text: str, shown: str) -> None:
    assert text == shown
