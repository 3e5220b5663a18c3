"""`review`: takes verdicts from the command line or from someone's page, and counts them all."""

from __future__ import annotations

import argparse
import getpass
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from batch_runner.commands.arguments import BatchArguments, add_batch_options
from batch_runner.commands.console import say, say_first
from batch_runner.commands.looking import read_live
from batch_runner.commands.output import command_again, read_given
from batch_runner.errors import ExitCode, UsageError
from batch_runner.jobs.selection import Selection
from batch_runner.ledger.verdict import Reviewed, Verdicts, Word, decode
from batch_runner.records import Job
from batch_runner.report.live import Live
from batch_runner.report.numbers import numbers, numbers_text
from batch_runner.run.redo import record_words, word_on
from batch_runner.text.quantity import counted


class Arguments(BatchArguments):
    files: list[Path]
    accept: list[str]
    reject: list[str]
    reason: str | None


def declare(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Count accepted, rejected and waiting pictures. --accept and --reject judge them from here;"
        " --import takes over the verdicts that someone saved on a page from batch-runner report."
        " Pictures on which two people differ are named, and keep the verdict they have."
    )
    add_batch_options(parser, json=False, only=False)
    parser.add_argument(
        "--import",
        dest="files",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="take over the verdicts of a file; may be repeated",
    )
    for word in ("accept", "reject"):
        parser.add_argument(
            f"--{word}",
            action="append",
            default=[],
            metavar="KEY",
            help=f"{word} the pictures of this job, or of jobs like 'KEY*'; may be repeated",
        )
    parser.add_argument("--reason", metavar="TEXT", help="why pictures are rejected")


def execute(arguments: Arguments) -> int:
    """Take over verdicts, and print the numbers."""
    live = read_live(arguments)
    for word, keys in ((Word.ACCEPTED, arguments.accept), (Word.REJECTED, arguments.reject)):
        if keys:
            _judge(live, word, keys, arguments.reason if word is Word.REJECTED else None)
    conflicts = _import(arguments.files, live) if arguments.files else []
    say_first([f"conflict: {what}" for what in conflicts])
    live.read()
    found = numbers(live.details(), live.state.spent_usd)
    print(numbers_text(found) or f"{found.waiting:,} pictures wait for a verdict")
    if conflicts:
        say(f"{counted(len(conflicts), 'conflict')}; these pictures keep the verdict they had")
        say(f"hint: decide about them on the page: {command_again(arguments, 'view')}")
        return ExitCode.SOME_FAILED
    return ExitCode.DONE


def _judge(live: Live, word: Word, keys: Sequence[str], reason: str | None) -> None:
    """Record a word about all saved pictures of some jobs; raises UsageError if a key has none."""
    chosen = Selection(keys)
    said = [
        (details.job, word_on(details.job, file.sha256, word, reason=reason, by=getpass.getuser()))
        for details in live.details()
        if details.files and details.job.key in chosen
        for file in details.files
    ]
    if chosen.unmatched:
        what = f"no saved picture belongs to '{chosen.unmatched[0]}'"
        raise UsageError(
            what, hint="write keys as plan shows them, such as A-1/white, or globs such as 'A-1/*'"
        )
    record_words(live.batch, said)
    say(f"{word} {counted(len(said), 'picture')}")


def _import(paths: list[Path], live: Live) -> list[str]:
    """Record what all files agree on; return the conflicts."""
    jobs: dict[str, Job] = {}
    for details in live.details():
        jobs.update((file.sha256, details.job) for file in (*details.previous, *details.files))
    heard: dict[str, list[Reviewed]] = {}
    for path in paths:
        for said in Verdicts(_read(path)).people.values():
            by = said.by or path.stem
            heard.setdefault(said.sha256, []).append(msgspec.structs.replace(said, by=by))
    strange = [heard.pop(sha256) for sha256 in list(heard) if sha256 not in jobs]
    conflicts: list[str] = []
    taken: list[tuple[Job, Reviewed]] = []
    for sha256, some in heard.items():
        job, said = jobs[sha256], some[0]
        before = live.verdicts.people.get(sha256)
        everyone = some if before is None else [before, *some]
        if len({one.word for one in everyone}) > 1:
            conflicts.append(f"{job.key}: {', '.join(map(_text, everyone))}")
        elif before is None:
            fingerprint = live.fingerprint_of(job, sha256, said.word) or job.fingerprint
            said = msgspec.structs.replace(said, job=job.key, fingerprint=fingerprint)
            taken.append((job, said))
    record_words(live.batch, taken)
    say(f"took over {counted(len(taken), 'verdict')}")
    if strange:
        what = counted(len(strange), "verdict")
        say(f"left out {what} about pictures that this batch does not have")
    return conflicts


def _read(path: Path) -> Iterator[Reviewed]:
    lines = read_given(path, "name a file that the page saved").splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            said = decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise UsageError(
                f"{path}:{number}: not a verdict: {error}",
                hint="give the file that the page saved",
            ) from error
        if isinstance(said, Reviewed):
            yield said


def _text(said: Reviewed) -> str:
    reason = f" ({said.reason})" if said.reason else ""
    return f"{said.by or 'you'} {said.word}{reason}"
