"""On a terminal, the first purchases without a budget are asked for."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

from command import accepted, run, write
from terminal import Terminal

from batch_runner.errors import ExitCode

PAID: dict[str, Any] = {"RUNCOMFY_API_TOKEN": "a-token-of-an-account"}


def asked(manifest: Path, sandbox: str, *words: str) -> Terminal:
    terminal = Terminal("run", str(manifest), "--api-base", sandbox, *words, **PAID)
    terminal.read_until("[y/N]")
    assert "this run would buy 6 jobs, about 0.30 USD; there is no budget" in terminal.text
    return terminal


def test_a_person_says_no_and_yes_or_interrupts_and_scripts_are_not_asked(
    tmp_path: Path, sandbox: str
) -> None:
    manifest = write(tmp_path, images=1)
    terminal = asked(manifest, sandbox)
    terminal.type("n\n")
    assert terminal.end() == ExitCode.USAGE
    assert asked(manifest, sandbox).end(signal.SIGINT) == ExitCode.INTERRUPTED
    plain = Terminal("run", str(manifest), "--api-base", sandbox, "--max-cost", "0.01", **PAID)
    assert plain.end() == ExitCode.STOPPED_EARLY
    assert "[y/N]" not in plain.text
    terminal = asked(manifest, sandbox, "--limit", "2")
    terminal.type("y\n")
    assert terminal.end() == ExitCode.STOPPED_EARLY
    # It is no longer the first run; and elsewhere nobody is there to be asked.
    further = Terminal("run", str(manifest), "--api-base", sandbox, "--limit", "1", **PAID)
    assert further.end() == ExitCode.STOPPED_EARLY
    assert "[y/N]" not in further.text
    other = write(tmp_path, images=1, name="other")
    other.write_text(other.read_text().replace("{dir: out}", "{dir: other}"), encoding="utf-8")
    assert run("run", str(other), "--api-base", sandbox, **PAID).returncode == ExitCode.DONE
    manifest = write(tmp_path, images=1, name="third")
    manifest.write_text(manifest.read_text().replace("{dir: out}", "{dir: third}"))
    said_yes = Terminal("run", str(manifest), "--api-base", sandbox, "--yes", **PAID)
    assert said_yes.end() == ExitCode.DONE
    assert sum(accepted(tmp_path).values()) == 2 + 1 + 6 + 6


def test_a_rehearsal_asks_nothing(tmp_path: Path) -> None:
    terminal = Terminal("run", str(write(tmp_path, images=1)), "--sandbox", **PAID)
    assert terminal.end() == ExitCode.DONE
    assert "[y/N]" not in terminal.text
