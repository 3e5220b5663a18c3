"""A cell of a spreadsheet is what the spreadsheet program shows for it."""

from __future__ import annotations

from datetime import date, datetime, time

import pytest

from batch_runner.table.number_format import shown_date, shown_number, shown_text


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
        (2500, '0,"k"', "3k"),
        (-3, "0;(0)", "(3)"),
        (-3, "0", "-3"),
        (0, '0;-0;"none"', "none"),
        (1, '"yes";"no"', "yes"),
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


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        ("dd.mm.yyyy", "01.03.2026"),
        ("d/m/yy", "1/3/26"),
        ("yyyy", "2026"),
        ("mmm yyyy", "Mar 2026"),
        ("[$-409]mmmm d, yyyy", "March 1, 2026"),
        ("[$-407]dd.mm.yyyy", "01.03.2026"),
        ("h:mm AM/PM", "2:05 PM"),
        ("mm:ss", "05:09"),
        ('"KW "dd', "KW 01"),
        ("mm-dd-yy", None),  # the format that each country writes in its own way
        ("[$-F800]dddd, mmmm dd, yyyy", None),
        ("[$-407]d. mmmm yyyy", None),
        ("[h]:mm", None),
    ],
)
def test_a_date_is_shown_by_its_format(code: str, shown: str | None) -> None:
    assert shown_date(datetime(2026, 3, 1, 14, 5, 9), code) == shown  # noqa: DTZ001 - no zone


def test_days_times_and_texts_have_formats_too() -> None:
    assert shown_date(date(2026, 12, 24), "d.m.yy") == "24.12.26"
    assert shown_date(time(8, 5), "h:mm") == "8:05"
    assert shown_text("7", '"SKU-"@') == "SKU-7"
    assert shown_text("7@x", "General") == "7@x"
