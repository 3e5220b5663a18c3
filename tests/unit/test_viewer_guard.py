"""Who may talk to the live page."""

from __future__ import annotations

import pytest

from batch_runner.report.viewer.guard import is_own_host, is_own_origin


@pytest.mark.parametrize(
    "header",
    ["127.0.0.1:8643", "127.0.0.1", "localhost:8643", "LOCALHOST", "[::1]:8643", "127.1.2.3:1"],
)
def test_this_machine_by_number_or_as_localhost_is_itself_whatever_the_port(header: str) -> None:
    assert is_own_host(header, (), loopback_only=True)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "evil.example",
        "evil.example:8643",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "127.0.0.1@evil.example",
        "evil.example/127.0.0.1",
        "evil.example\\@localhost",
        "[::1",
        "192.168.1.5:8643",
        "night:8643",
        "2130706433",
    ],
)
def test_any_other_name_is_none_of_this_machine(header: str | None) -> None:
    assert not is_own_host(header, (), loopback_only=True)


def test_what_is_opened_to_others_goes_by_its_numbers_and_its_own_names() -> None:
    names = ("night", "night.local")
    for header in ("192.168.1.5:8643", "[fe80::1]:8643", "night:1", "Night.Local", "localhost"):
        assert is_own_host(header, names, loopback_only=False)
    assert not is_own_host("evil.example", names, loopback_only=False)


def test_an_order_comes_from_the_page_itself_or_from_no_page() -> None:
    assert is_own_origin(None, "127.0.0.1:8643")
    assert is_own_origin("http://127.0.0.1:8643", "127.0.0.1:8643")
    for origin in ("null", "http://evil.example", "http://127.0.0.1:9", "https://127.0.0.1:8643"):
        assert not is_own_origin(origin, "127.0.0.1:8643")
