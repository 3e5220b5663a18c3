"""A cell of a spreadsheet is what the spreadsheet program shows for it."""

from __future__ import annotations

import pytest

from batch_runner.table.number_format import shown_number


@pytest.mark.parametrize(
    ("value", "code", "shown"),
    [
        (12345, "00-00-0", "12-34-5"),
        (42, '"ART-"0000', "ART-0042"),
        (9, "00000", "00009"),
        (5012345678900, "0 000000 000000", "5 012345 678900"),
        (8005551234, "(000) 000-0000", "(800) 555-1234"),
        (123456, r"00\.00\.00", "12.34.56"),
        (0.25, "0%", "25%"),
        (0.1234, "0.0%", "12.3%"),
        (19.9, "0.00", "19.90"),
        (0.5, ".00", ".50"),
        (5.0, "0.##", "5"),
        (1234567.891, "#,##0.00", "1234567.89"),
        (12.5, "[$€-407] 0.00", "€ 12.50"),
        (12.5, '#,##0.00\\ "kg"', "12.50 kg"),
        (-3, "0", "-3"),
        (7, '"SKU-"0;-0', "SKU-7"),
        (-3, "0;(0)", None),
        (2500, '0,"k"', None),
        # What is not understood, or shows less than there is, is left to the number itself.
        (8.8e12, "0.00E+00", None),
        (0.5, "# ?/?", None),
        (3, "[<5]0;00", None),
        (12, "General", None),
        (12, "", None),
        (12, ";;;", None),
    ],
)
def test_a_number_is_shown_by_its_format(value: float, code: str, shown: str | None) -> None:
    assert shown_number(value, code) == shown
