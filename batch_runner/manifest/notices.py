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
    value, command = data.get("apprise", []), data.get("on_finish")
    urls = [value] if isinstance(value, str) else value
    texts: dict[Location, str] = {("notify", "apprise", n): url for n, url in enumerate(urls)}
    for location, url in texts.items():
        if "${" not in url and not re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", url):
            hint = "as in mailto://user:${MAIL_PASSWORD}@example.com"
            report(location, "'apprise' is not a URL", hint)
    words: list[str] = []
    if command is not None:
        here: Location = ("notify", "on_finish")
        texts[here] = command
        try:
            words = shlex.split(command)
        except ValueError:
            report(here, "'on_finish' has a quote that is not closed", "close it")
        else:
            if not words:
                report(here, "'on_finish' names no command", "such as ./tell.sh")
    for location, text in texts.items():
        if "${" in VARIABLE.sub("", text):
            what = f"'{location[1]}' has a '${{' that names no environment variable"
            report(location, what, "write it as ${NAME}: letters, digits and _")
    return Notify(on_finish=tuple(words), apprise=tuple(urls))
