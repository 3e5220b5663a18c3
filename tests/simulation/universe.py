"""One simulated universe: a batch that is run, disturbed, resumed, and judged.

`play` does what a script says: its acts (`actors`) one after the other, while the faults of its
weather strike the calls (`faults`). What always holds: one script leads to one trace, every time.
"""

from __future__ import annotations

import contextlib
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from simulation import world as worlds
from simulation.disk import Disk, Operation
from simulation.disk_model import State
from simulation.service import Request, Service, Strike
from simulation.world import NeverEndsError, Process, World

from batch_runner.commands import cli

PICTURES = "https://shop.example"
MANIFEST = """\
version: 1
model: google/nano-banana-2/edit
prompts:
  white: Put it on white.
  wood: Put it on wood.{edit}
images:
{images}
output: {{dir: {folder}}}
{more}
"""


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A kind of universe: the batch that is run in it.

    - `images`: the pictures, by the ids of their products; `more` is added to the manifest.
    - `budget_usd`: what the manifest allows to spend; `shards`: how the batch is split at first.
    - `streams`: files are saved as they come, like large ones.
    - `pause_s`: how long a person waits between runs in the end.
    """

    name: str
    images: Mapping[str, str] = field(
        default_factory=lambda: {"mug": "mug", "lamp": "lamp", "vase": "vase"}
    )
    more: str = "limits: {submits: 5/s, in_flight: 3}"
    budget_usd: str | None = None
    shards: int = 1
    streams: bool = False
    pause_s: float = 3600.0


class Act(msgspec.Struct, frozen=True):
    """One thing that happens: an actor's action, and the seed of all that it draws."""

    name: str
    seed: int


class Script(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a universe follows from. `strikes` replaces what the weather would draw."""

    scenario: str
    seed: int
    acts: tuple[Act, ...]
    weather: dict[str, float] = {}
    strikes: tuple[Strike, ...] | None = None


@dataclass(kw_only=True)
class Command:
    """A command as a person typed it, and how it ended; `code` None: it was killed."""

    words: tuple[str, ...]
    process: Process

    @property
    def name(self) -> str:
        return self.words[0]

    @property
    def code(self) -> int | None:
        return None if self.process.is_killed else self.process.code

    @property
    def out(self) -> str:
        return self.process.out.getvalue()

    @property
    def err(self) -> str:
        return self.process.err.getvalue()


@dataclass(kw_only=True)
class Trace:
    """What became of a universe. `script` has the strikes that were drawn: it plays the same."""

    script: Script
    lines: list[str]
    violations: list[str]
    commands: list[Command]
    requests: list[Request]
    operations: int


class Universe:
    """What a universe consists of, while it is played; acts and oracles use it."""

    def __init__(self, script: Script, scenario: Scenario, root: Path) -> None:
        self.script, self.scenario, self.root = script, scenario, root
        self.world = World(script.seed)
        self.service = Service(self.world, script.seed, script.weather, script.strikes)
        self.folder, self.manifest = root / "out", root / "batch.yaml"
        self.folder.mkdir()
        self.disk = Disk(self.folder)
        self.commands: list[Command] = []
        self.violations: list[str] = []
        self.allowed: Counter[str] = Counter()
        """How often a person's word allows to buy a job once more."""
        self.damaged: set[str] = set()
        """Files that a person took away or changed, and jobs that a person gave up."""
        self.edit = ""
        self.kept_ledger: bytes | None = None
        self.is_put_back = False
        """Whether a person put an older ledger back."""
        self.has_power = True
        self.act = 0
        self.at_operation: Callable[[Operation], int | None] | None = None
        self.after_power_cut: Callable[[Disk], State | random.Random] = lambda _: self.world.dice
        self.after_command: Callable[[Universe, Command], Iterator[str]] | None = None
        self._numbers = iter(range(1, 10**6))
        self.write_manifest()
        self.disk.on_operation(self._on_operation)

    def write_manifest(self) -> None:
        """Write the manifest as it is now."""
        images = (
            f"  {name}: {PICTURES}/{picture}.jpg" for name, picture in self.scenario.images.items()
        )
        text = MANIFEST.format(
            folder=self.folder,
            edit=self.edit,
            images="\n".join(images),
            more=self.scenario.more,
        )
        self.manifest.write_text(text)

    def start(self, *words: str) -> Command:
        """Start a command, without waiting for it."""
        number = next(self._numbers)
        whole = (words[0], str(self.manifest), *words[1:])
        shown = " ".join(words)
        process = self.world.start(f"{number}:{words[0]}", lambda: cli._main(whole))
        self.world.note(f"{process} begins: {shown}")
        command = Command(words=words, process=process)
        self.commands.append(command)
        return command

    def wait(self) -> None:
        """Wait until every command has ended."""
        try:
            self.world.run()
        except NeverEndsError as error:
            self.violations.append(f"every-command-ends: {error}")
            raise
        for command in self.commands:
            if not command.process.is_noted:
                self._note_end(command)
        if not self.has_power:
            self.has_power = True
            state = self.disk.crash(self.after_power_cut(self.disk))
            self.world.note(f"the power is back; {state.story}")
            for request in self.service.accepted.values():
                request.is_known = False  # what was recorded of it may be lost

    def do(self, *words: str) -> Command:
        """Do a command to its end."""
        command = self.start(*words)
        self.wait()
        return command

    def run(self, *words: str) -> Command:
        """Run the batch to its end; if it is split, all of its shards at the same time."""
        for one in self.start_runs(*words):
            command = one
        self.wait()
        return command

    @property
    def shards(self) -> int:
        """Into how many shards the batch is split now."""
        for path in self.folder.glob("shards/*-of-*/ledger.jsonl"):
            return int(path.parent.name.partition("-of-")[2])
        return 1 if (self.folder / "ledger.jsonl").exists() else self.scenario.shards

    def start_runs(self, *words: str) -> list[Command]:
        """Start a run, or one of each shard."""
        shards = [("--shard", f"{index}/{self.shards}") for index in range(self.shards)]
        each = shards if self.shards > 1 else [()]
        return [self.start("run", "--quiet", *words, *shard) for shard in each]

    def cut_power(self) -> None:
        """Let the machine lose its power now; when all is still, it comes back."""
        self.world.note("the power is cut")
        self.has_power = False
        for process in self.world.processes:
            process.kill()

    def later(self, delay_s: float, happening: Callable[[], object]) -> None:
        """Let something happen after so much time, if a command of this act is still at work."""
        act = self.act

        def happen() -> None:
            if self.act == act and self.world.processes and self.has_power:
                happening()

        self.world.after(delay_s, happen)

    def ledgers(self) -> list[Path]:
        """Return the ledgers."""
        places = ("ledger.jsonl", "shards/*-of-*/ledger.jsonl")
        return [path for place in places for path in sorted(self.folder.glob(place))]

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield every whole line of the ledgers, read without the program."""
        for path in self.ledgers():
            for line in path.read_bytes().split(b"\n") if path.exists() else ():
                with contextlib.suppress(ValueError):
                    yield json.loads(line)

    def standing(self) -> dict[str, tuple[str, str]]:
        """Return each job's last record and its key, by what was bought (as in the book)."""
        jobs: dict[str, str] = {}
        last: dict[str, tuple[str, str]] = {}
        for record in self.records():
            fingerprint = record.get("fingerprint", "")
            if record["record"] == "submitting":
                words = [f"/v1/models/{record['model']}", record["input"]]
                jobs[fingerprint] = json.dumps(words, sort_keys=True)
            if fingerprint in jobs:
                what = record["record"] + (record.get("how") or "")
                last[jobs[fingerprint]] = (what, record["job"])
        return last

    def places(self, request: Request) -> Iterator[tuple[str, bytes]]:
        """Yield where the pictures of a request belong, without extension, and their content."""
        picture = request.input["image_urls"][0].rpartition("/")[2].partition(".")[0]
        prompt = "white" if "on white" in request.input["prompt"] else "wood"
        for name in (one for one, known in self.scenario.images.items() if known == picture):
            for number, content in enumerate(request.files(), start=1):
                yield f"{name}/{prompt}" + (f"-{number}" if number > 1 else ""), content

    def allow(self, *records: str) -> list[str]:
        """Allow to buy once more what stands like this; return the keys of these jobs."""
        chosen = {job: key for job, (record, key) in self.standing().items() if record in records}
        self.allowed.update(list(chosen))
        return sorted(chosen.values())

    def _on_operation(self, operation: Operation) -> int | None:
        worlds.require_life()
        self.world.note(f"  {operation.process}: {operation.kind} {operation.path}")
        return None if self.at_operation is None else self.at_operation(operation)

    def _note_end(self, command: Command) -> None:
        process = command.process
        process.is_noted = True
        self.disk.kill(process.name)
        error = process.error
        if error is not None and not process.is_killed:
            raise error
        how = "died" if process.is_killed else f"exit code {process.code}"
        self.world.note(f"{process} ended: {how}")
        if command.code == 1:
            self.violations.append(f"{process}: a bug:\n{command.err}")
        if self.after_command is not None:
            self.violations += self.after_command(self, command)
