"""`deliver`: makes accepted pictures ready for each channel, and the table that a shop imports."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from batch_runner.commands.arguments import BatchArguments, add_batch_options
from batch_runner.commands.console import say, say_first
from batch_runner.commands.looking import read_live
from batch_runner.commands.originals import Workers, original_of
from batch_runner.commands.output import command_again, print_lines
from batch_runner.errors import ExitCode, UsageError, did_you_mean
from batch_runner.files.bucket_storage import BucketStorage
from batch_runner.files.disk import make_folder, replacing, storage_error
from batch_runner.files.folder_storage import FolderStorage
from batch_runner.files.storage import Storage
from batch_runner.ledger.lock import hold
from batch_runner.ledger.verdict import Verdicts, Word
from batch_runner.manifest.form import Channel
from batch_runner.pictures.delivery import Delivery, Finished, Order, Outcome, make_file, wanted_by
from batch_runner.pictures.table import import_table, way_back
from batch_runner.records import SavedFile
from batch_runner.report.progress import tracked
from batch_runner.run.batch import SPOOL_FOLDER, Batch
from batch_runner.text.quantity import counted

FOLDER = "deliver"


class Arguments(BatchArguments):
    channels: list[str]
    saved: bool


def declare(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Make the accepted pictures as each channel of `deliver:` takes them, and check each file"
        " before it gets its name. Originals are only read, and nothing is bought."
    )
    add_batch_options(parser)
    parser.add_argument(
        "channels",
        nargs="*",
        default=[],
        metavar="CHANNEL",
        help="only these channels (default: all)",
    )
    parser.add_argument(
        "--saved",
        action="store_true",
        help="deliver all saved pictures, also those that nobody has judged yet",
    )


def execute(arguments: Arguments) -> int:
    """Deliver to each channel; return the exit code."""
    live = read_live(arguments)
    batch = live.batch
    channels = _chosen(batch, arguments)
    folder, failed = batch.ledgers.folder / FOLDER, 0
    with hold(folder, name=".lock"), Workers(make_file, _broken) as workers:
        for left in folder.glob(".*.part"):
            left.unlink()  # a delivery that was killed left it
        for channel in channels:
            target = _target(batch, channel, folder)
            delivery = Delivery(
                channel,
                target,
                folder / f"{channel.name}.jsonl",
                find=original_of(batch),
                make_all=lambda orders: list(workers.answers(orders)),
            )
            also_unjudged = arguments.saved or not channel.accepted_only
            chosen = _chooser(live.verdicts, also_unjudged=also_unjudged)
            wanted = wanted_by(channel, batch.manifest, live.details(), chosen)
            outcome = delivery.run(tracked(wanted, channel.name, unit="pictures"))
            tables = _write_tables(channel, outcome, folder)
            # A channel without any picture is no success: a script would publish an empty folder.
            failed += len(outcome.failed) or not outcome.made + outcome.unchanged
            _report(arguments, channel, target, outcome, tables)
    return ExitCode.SOME_FAILED if failed else ExitCode.DONE


def _chooser(verdicts: Verdicts, *, also_unjudged: bool) -> Callable[[SavedFile], bool]:
    """Return a function that tells whether a file is delivered."""
    words = (Word.ACCEPTED, None) if also_unjudged else (Word.ACCEPTED,)
    return lambda file: verdicts.word_on(file.sha256) in words


def _chosen(batch: Batch, arguments: Arguments) -> list[Channel]:
    """Return the channels to deliver to; raises UsageError."""
    known = {channel.name: channel for channel in batch.manifest.deliver}
    if not known:
        hint = "add deliver: to the manifest, as in jobs/deliver.yaml"
        raise UsageError(f"{arguments.manifest} has no channels", hint=hint)
    for name in arguments.channels:
        if name not in known:
            raise UsageError(f"there is no channel '{name}'", hint=did_you_mean(name, known))
    return [known[name] for name in dict.fromkeys(arguments.channels or known)]


def _target(batch: Batch, channel: Channel, folder: Path) -> Storage:
    """Return where a channel's files go; a rehearsal has a folder of its own, as for its batch."""
    place = channel.folder
    if batch.options.rehearsal:
        usual = batch.manifest.output.dir if channel.bucket is not None else place.parent
        place = usual / f"{place.name}-sandbox"
    elif channel.bucket is not None:
        return BucketStorage(batch.buckets, channel.bucket, folder / SPOOL_FOLDER)
    try:
        make_folder(place)
    except OSError as error:
        raise storage_error(place, error) from error
    return FolderStorage(place)


def _write_tables(channel: Channel, outcome: Outcome, folder: Path) -> list[Path]:
    """Write the table for the shop, and the one that undoes it; return their paths."""
    if channel.table is None:
        return []
    kind, products = channel.table.kind, outcome.products
    tables = {"import": import_table(kind, products)}
    if any(one.replaced for one in products.values()):
        tables["way-back"] = way_back(kind, products)
    paths = []
    for name, content in tables.items():
        path = (folder / f"{channel.name}-{name}.csv").resolve()
        with replacing(path, durable=True) as file:
            file.write(content)
        paths.append(path)
    return paths


def _report(
    arguments: Arguments,
    channel: Channel,
    target: Storage,
    outcome: Outcome,
    tables: Iterable[Path],
) -> None:
    if arguments.json:
        line = msgspec.structs.asdict(outcome) | {
            "channel": channel.name,
            "dir": str(target),
            "failed": [
                {"job": job, "file": file, "what": one.what} for job, file, one in outcome.failed
            ],
            "tables": [str(path) for path in tables],
        }
        del line["products"]
        print_lines([line])
        return
    delivered = outcome.made + outcome.unchanged
    print(f"{channel.name}: {counted(delivered, 'picture')} in {target} ({outcome.made:,} new)")
    for path in tables:
        print(f"{channel.name}: wrote {path}")
    for note, count in outcome.notes.items():
        say(f"{channel.name}: {counted(count, 'picture')}: {note}")
    say_first(
        [f"{channel.name}: {file}: {one.what}\nhint: {one.hint}" for _, file, one in outcome.failed]
    )
    if outcome.left:
        few = ", ".join(outcome.left[:5])
        say(
            f"{channel.name}: {counted(len(outcome.left), 'file')} of an earlier delivery"
            f" no longer belong there: {few}\nhint: delete them, if the shop must not take them"
        )
    if not delivered and not outcome.failed:
        view, review = (command_again(arguments, name) for name in ("view", "review"))
        say(
            f"{channel.name}: no picture was accepted yet\nhint: judge them with {view}, or with"
            f" {review} --accept KEY; --saved delivers all"
        )


def _broken(_: Order) -> Finished:
    what = "ended the process that decoded it"
    return Finished(what=what, hint="look at it with another program")
