"""One simulated universe: a batch that is run, disturbed, resumed, and judged.

`play` does what a script says: its acts (`actors`) one after the other, while the faults of its
weather strike the calls (`faults`). What always holds: one script leads to one trace, every time.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
from simulation import world as worlds
from simulation.disk import Disk, Operation
from simulation.service import Request, Service, Strike
from simulation.world import NeverEndsError, Process, World

from batch_runner.commands import cli

MANIFEST = """\
version: 1
model: google/nano-banana-2/edit
prompts:
  white: Put it on white.
  wood: Put it on wood.{edit}
images:
  mug: https://shop.example/mug.jpg
  lamp: https://shop.example/lamp.jpg
  vase: https://shop.example/vase.jpg
output: {{dir: {folder}}}
{more}
"""


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A kind of universe: what the manifest adds, and which acts and faults there may be.

    `acts` and `faults` None: all of them. `shards`: into how many the batch is split at first.
    """

    name: str
    manifest: str = "limits: {submits: 5/s, in_flight: 3}"
    acts: tuple[str, ...] | None = None
    faults: tuple[str, ...] | None = None
    streams: bool = False


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
        self.words: list[str] = []
        """What a person said, which allows to buy something again."""
        self.edit = ""
        self.shards = 1
        self.kept: dict[str, bytes] = {}
        self.at_operation: Callable[[Operation], int | None] | None = None
        self.after_command: Callable[[Universe, Command], Iterator[str]] | None = None
        self._numbers = iter(range(1, 10**6))
        self.write_manifest()
        self.disk.on_operation(self._on_operation)

    def write_manifest(self) -> None:
        """Write the manifest as it is now."""
        text = MANIFEST.format(folder=self.folder, edit=self.edit, more=self.scenario.manifest)
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
            self.violations.append(f"a command never ends: {error}")
            raise
        for command in self.commands:
            if command.process.has_ended and not command.process.is_noted:
                self._note_end(command)

    def do(self, *words: str) -> Command:
        """Do a command to its end."""
        command = self.start(*words)
        self.wait()
        return command

    def run(self, *words: str) -> Command:
        """Run the batch to its end, quietly."""
        return self.do("run", "--quiet", *words)

    def cut_power(self, seed: int) -> None:
        """Let the power come back after a cut: the disk holds what it must, or more."""
        state = self.disk.crash(random.Random(seed))
        self.world.note(f"the power is back; {state.story}")

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
