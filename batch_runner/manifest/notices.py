"""The `notify` part of a manifest: where notices about a run go.

What always holds: a problem never shows the URL it is about, because anyone who has it can post
there.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from batch_runner.manifest.document import Location
from batch_runner.manifest.form import VARIABLE, Notify
from batch_runner.service.network import is_loopback_host

Report = Callable[[Location, str, str], None]
"""Takes a problem: its location, what is wrong, a hint."""


def notify(data: Mapping[str, Any], report: Report) -> Notify:
    """Return what the manifest says about notices."""
    urls: dict[str, list[str]] = {}
    for name in ("webhook", "heartbeat", "apprise"):
        value = data.get(name, [])
        urls[name] = [value] if isinstance(value, str) else value
        for position, url in enumerate(urls[name]):
            _check_url(("notify", name, position), url, report)
    return Notify(
        webhooks=tuple(urls["webhook"]),
        heartbeat=data.get("heartbeat"),
        on_finish=tuple(_command(data.get("on_finish"), report)),
        apprise=tuple(urls["apprise"]),
    )


def _command(text: str | None, report: Report) -> list[str]:
    if text is None:
        return []
    location = ("notify", "on_finish")
    _check_variables(location, text, report)
    try:
        words = shlex.split(text)
    except ValueError:
        report(location, "'on_finish' has a quote that is not closed", "close it")
        return []
    if not words:
        report(location, "'on_finish' names no command", "such as ./tell.sh")
    return words


def _check_url(location: Location, url: str, report: Report) -> None:
    _check_variables(location, url, report)
    if "${" in url:
        return
    if location[1] == "apprise":
        wrong = None if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", url) else "is not a URL"
        hint = "as in mailto://user:${MAIL_PASSWORD}@example.com"
    else:
        wrong = url_problem(url)
        hint = "write an https URL, or ${NAME} if an environment variable holds it"
    if wrong is not None:
        report(location, f"'{location[1]}' {wrong}", hint)


def _check_variables(location: Location, text: str, report: Report) -> None:
    if "${" in VARIABLE.sub("", text):
        what = f"'{location[1]}' has a '${{' that names no environment variable"
        report(location, what, "write it as ${NAME}: letters, digits and _")


def url_problem(url: str) -> str | None:
    """Return why a notice cannot be sent to this URL, without showing it; None if it can."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "is not a URL"
    if not host or parts.scheme not in ("https", "http") or re.search(r"\s", url):
        return "is not an https URL"
    if parts.scheme == "http" and not is_loopback_host(host):
        return "is not https: the notice would travel unencrypted"
    return None
