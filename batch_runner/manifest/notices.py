"""The `notify` part of a manifest: where notices about a run go.

What always holds: a problem never shows the URL it is about, because anyone who has it can post
there.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from typing import Any

from batch_runner.manifest.document import Location
from batch_runner.manifest.form import VARIABLE, Notify

Report = Callable[[Location, str, str], None]
"""Takes a problem: its location, what is wrong, a hint."""


def notify(data: Mapping[str, Any], report: Report) -> Notify:
    """Return what the manifest says about notices."""
    value = data.get("apprise", [])
    urls = [value] if isinstance(value, str) else value
    for position, url in enumerate(urls):
        _check_url(("notify", "apprise", position), url, report)
    return Notify(
        on_finish=tuple(_command(data.get("on_finish"), report)),
        apprise=tuple(urls),
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
    if "${" not in url and not re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", url):
        hint = "as in mailto://user:${MAIL_PASSWORD}@example.com"
        report(location, "'apprise' is not a URL", hint)


def _check_variables(location: Location, text: str, report: Report) -> None:
    if "${" in VARIABLE.sub("", text):
        what = f"'{location[1]}' has a '${{' that names no environment variable"
        report(location, what, "write it as ${NAME}: letters, digits and _")
