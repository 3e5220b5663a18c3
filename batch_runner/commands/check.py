"""`check`: compares saved files with the ledger, measures the pictures, and judges them."""

from __future__ import annotations

import argparse
import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TypeVar

import msgspec

from batch_runner.commands.arguments import BatchArguments, add_batch_options
from batch_runner.commands.console import say, say_first
from batch_runner.commands.context import open_batch, read_batch, require_token
from batch_runner.commands.environment import environment_of_others
from batch_runner.commands.originals import Workers, original_of
from batch_runner.commands.output import command_again, print_lines, require_ledger
from batch_runner.commands.process import on_signals
from batch_runner.errors import ExitCode
from batch_runner.files.verification import Difference, Finding, verify
from batch_runner.jobs.selection import Selection
from batch_runner.ledger.verdict import Result, Verdicts, Word
from batch_runner.ledger.verdict_book import Book
from batch_runner.pictures.inspection import (
    Found,
    Source,
    Subject,
    judged,
    news,
    results_to_measure,
    sources_to_measure,
    subjects,
)
from batch_runner.pictures.kept import Kept, Measurements, Order, look, unmeasured
from batch_runner.pictures.own_command import AT_ONCE, NAME, ask, known_answer
from batch_runner.pictures.rules import VERSIONS
from batch_runner.report.live import Live
from batch_runner.report.progress import tracked
from batch_runner.report.remote import Remote
from batch_runner.run.batch import Batch
from batch_runner.run.mend import mend
from batch_runner.run.redo import record_words, word_on
from batch_runner.text.quantity import counted

_Item = TypeVar("_Item")
_RECORDED_AT_ONCE = 500
_A_PERSONS = (Word.ACCEPTED, Word.REJECTED)
_BY_ANOTHER_ATTEMPT = ("blank", "edited", "aspect", "white", "fill", "cut_off", NAME)
"""The checks whose failure another attempt may mend."""


class Arguments(BatchArguments):
    fix: bool


class Checkup(msgspec.Struct):
    """What the checks of a batch came to."""

    pictures: int = 0
    found: list[Found] = []

    @property
    def failed(self) -> list[Found]:
        """Return the results that are a fail."""
        return [one for one in self.found if one[1].result is Result.FAIL]


def declare(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Read every saved file and list those that are missing ('-') or changed ('*'). Then measure"
        " the pictures, and judge them by the checks of the manifest. Buys nothing. A picture is"
        " measured once. Exit code 3 if a file is not whole, or any check fails."
    )
    add_batch_options(parser)
    parser.add_argument(
        "--fix",
        action="store_true",
        help="restore missing and changed files first: downloads them again, buys nothing",
    )


def execute(arguments: Arguments) -> int:
    """Check the files and the pictures; return the exit code."""
    if arguments.fix:
        asyncio.run(_restore(arguments))
    batch = read_batch(arguments)
    require_ledger(arguments, batch)
    is_whole = _check_files(arguments, batch)
    checkup = check_batch(batch)
    if arguments.json:
        print_lines(
            {"job": subject.job, "path": subject.file.path, **msgspec.structs.asdict(one)}
            for subject, one in checkup.found
        )
    else:
        print_checkup(checkup, command_again(arguments, "view"))
    return ExitCode.DONE if is_whole and not checkup.failed else ExitCode.SOME_FAILED


def _check_files(arguments: Arguments, batch: Batch) -> bool:
    """List the saved files that are not whole; return whether all are."""
    compared = list(_compared(batch))
    wrong = [one for one in compared if one is not None]
    for one in wrong:
        if arguments.json:
            line = {"path": one.path, "finding": one.finding.name.lower(), "job": one.job}
            print_lines([line])
        else:
            print(f"{one.finding} {one.path}")
    marks = f" ({', '.join(f'{one} {one.name.lower()}' for one in Finding)})" if wrong else ""
    say(f"{len(compared) - len(wrong)} of {len(compared)} files are whole{marks}")
    if wrong and not arguments.fix:
        say(f"hint: restore them for free: {command_again(arguments, 'check')} --fix")
    return not wrong


def _compared(batch: Batch) -> Iterator[Difference | None]:
    """Compare the saved files of the selected jobs with the ledger."""
    selection = Selection(batch.options.only)
    files = verify(batch.storage, batch.ledgers.records(), selection.__contains__)
    return tracked(files, "reading", unit="files")


async def _restore(arguments: Arguments) -> None:
    """Download files again that are missing or changed."""
    async with open_batch(arguments) as batch:
        require_ledger(arguments, batch)
        wrong = [one for one in _compared(batch) if one is not None]
        if wrong:
            require_token(batch.options.token)
        say(f"{counted(len(wrong), 'file')} to restore")
        for part in batch.parts():
            mine = [one for one in wrong if part.has(one.fingerprint)]
            if mine:
                await mend(part, mine, say)


def check_batch(batch: Batch, is_left: Callable[[], bool] = lambda: False) -> Checkup:
    """Measure what is not measured yet, judge it all, and record what is new.

    Once `is_left`, measuring ends, and nothing is judged. Raises ManifestError,
    LedgerDamagedError, StorageError.
    """
    live, book, find = Live(batch), Book(batch.ledgers.folder), original_of(batch)
    live.read()
    chosen = list(subjects(batch.manifest, live.details()))
    verdicts, found = book.verdicts(), list[Found]()
    with Measurements(batch.ledgers.folder) as known:
        with Workers(look, _broken, is_left) as workers:
            new = results_to_measure(chosen, known.known)
            # One by one: those of a bucket would not all fit into memory.
            orders = (msgspec.structs.replace(one, original=find(file)) for one, file in new)
            _measure(known, workers.answers(orders), len(new), "measuring")
            sources = _with_fetched(batch, sources_to_measure(chosen, known.known))
            _measure(known, workers.answers(sources), len(sources), "comparing")
        if is_left():
            return Checkup()
        found += judged(chosen, known.known)
    for part in _parts(news(found, verdicts), _RECORDED_AT_ONCE):
        book.append(part)
    for answered in _own_commands(batch, chosen, verdicts):
        found += answered
        book.append(list(news(answered, verdicts)))
        if is_left():
            break
    return Checkup(len(chosen), found)


async def check_after_run(batch: Batch, again: str) -> int:
    """Check the pictures after a run; return how many jobs are to be done again.

    A signal ends it, and what was measured is kept. Failures are printed on stderr.
    """
    left = threading.Event()
    with on_signals(lambda _: left.set()):
        checkup = await asyncio.to_thread(check_batch, batch, left.is_set)
    if left.is_set():
        say(f"the checks were interrupted\nhint: resume with {again}")
        return 0
    failed = checkup.failed
    if failed:
        pictures = counted(len({subject.file.path for subject, _ in failed}), "picture")
        counts = Counter(one.check for _, one in failed)
        listed = ", ".join(f"{check} {count:,}" for check, count in counts.most_common())
        say(f"{pictures} of {checkup.pictures:,} failed a check: {listed}\nhint: {again}")
    return _redo(batch, failed)


def _redo(batch: Batch, failed: Sequence[Found]) -> int:
    """Ask for new pictures in place of those that failed, as often as the manifest allows."""
    review = batch.manifest.review
    most = min(review.redo_checks, review.redo_times)
    if not most or not failed:
        return 0
    why: dict[str, tuple[str, str]] = {}
    for subject, one in failed:
        if one.check in _BY_ANOTHER_ATTEMPT:
            why.setdefault(subject.fingerprint, (subject.file.sha256, one.check))
    verdicts, said = Book(batch.ledgers.folder).verdicts(), []
    for job in batch.jobs():
        sha256, check = why.pop(job.fingerprint, ("", ""))
        # A person's word counts more than a check.
        if sha256 and job.redo < most and verdicts.word_on(sha256) not in _A_PERSONS:
            said.append((job, word_on(job, sha256, Word.REDO, by="check", reason=check)))
    record_words(batch, said)
    return len(said)


def _measure(known: Measurements, answers: Iterable[Kept], total: int, what: str) -> None:
    if total:
        for kept in tracked(answers, what, total=total, unit="pictures"):
            known.add(kept)


def _broken(order: Order) -> Kept:
    return unmeasured(order, "ended the process that decoded it")


def _with_fetched(batch: Batch, needed: Sequence[tuple[Order, Source]]) -> list[Order]:
    """Fetch the pictures in that are elsewhere; return the orders for those that are here then."""
    urls = dict.fromkeys(source.url for _, source in needed if "://" in (source.url or ""))
    remote = Remote(batch, say)

    async def fetch() -> dict[str | None, Path | None]:
        found = await asyncio.gather(*(remote.find(url, None) for url in urls if url))
        return dict(zip(urls, found, strict=True))

    paths = {} if batch.options.rehearsal or not urls else asyncio.run(fetch())
    return [
        order if path is None else msgspec.structs.replace(order, original=str(path))
        for order, source in needed
        if (path := paths.get(source.url)) is not None or source.url is None
    ]


def _own_commands(
    batch: Batch, chosen: Sequence[Subject], verdicts: Verdicts
) -> Iterator[list[Found]]:
    """Yield what the user's commands found; they are asked about pictures not yet judged."""
    find, folder = original_of(batch), batch.manifest.path.parent
    todo: dict[tuple[str, ...], list[Subject]] = {}
    for one in chosen:
        before = verdicts.checks.get(one.file.sha256, {}).get(NAME) if one.command else None
        known = None if before is None else known_answer(before, one.command)
        if known is not None:
            yield [(one, known)]
        elif one.command:
            todo.setdefault(one.command, []).append(one)
    for words, asked in todo.items():
        shown = tracked(asked, words[0], total=len(asked), unit="pictures")
        for part in _parts(shown, AT_ONCE):
            places = [find(one.file) for one in part]
            pictures = [
                (
                    str(Path(place).absolute()) if isinstance(place, str) else None,
                    [source.path for source in one.sources if source.path],
                )
                for one, place in zip(part, places, strict=True)
            ]
            results = ask(words, pictures, folder=folder, environment=environment_of_others())
            yield list(zip(part, results, strict=True))


def _parts(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    remaining = iter(items)
    while part := list(islice(remaining, size)):
        yield part


def print_checkup(checkup: Checkup, look: str) -> None:
    """Print how many pictures pass each check, and which ones fail."""
    if not checkup.pictures:
        print("no picture is saved yet")
        return
    counts = Counter((one.check, one.result) for _, one in checkup.found)
    print(f"{counted(checkup.pictures, 'picture')} checked")
    print(f"{'check':<12}{'pass':>8}{'fail':>8}{'unmeasurable':>14}")
    for check in (*VERSIONS, NAME):
        row = [counts[check, result] for result in Result]
        if any(row):
            print(f"{check:<12}{row[0]:>8,}{row[1]:>8,}{row[2]:>14,}")
    failed = checkup.failed
    texts = [f"{subject.file.path}: {one.check}: {one.why}" for subject, one in failed]
    say_first(texts, "; --json lists all")
    if failed:
        say(f"hint: look at them with {look}, or ask for new ones with batch-runner redo")
