"""Playing a universe: the real program, in a simulated world.

Hides what stands in for time, threads, network, dice and disk. What always holds: one script leads
to one trace, every time.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import io
import os
import random
import shutil
import socket
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any, Protocol
from unittest.mock import patch

import aiohttp
import msgspec
from simulation import world as worlds
from simulation.actors import ACTS
from simulation.client import Session
from simulation.scenarios import SCENARIOS
from simulation.service import TOKEN
from simulation.universe import Command, Script, Trace, Universe
from simulation.world import NeverEndsError, Stream, World

from batch_runner import records
from batch_runner.commands import check
from batch_runner.files import download
from batch_runner.run import execution

RUNS_TO_FINISH = 5
STOPPED = 75


class Judge(Protocol):
    """Looks for violations."""

    def after_command(self, universe: Universe, command: Command) -> Iterator[str]:
        """Yield what is wrong after a command has ended."""

    def at_end(self, universe: Universe) -> Iterator[str]:
        """Yield what is wrong at the end."""


class _Datetime(datetime):
    """Stands in for `datetime` where the program asks it for the time."""

    world: World

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
        return cls.world.clock().astimezone(tz)


class Inline(contextlib.nullcontext["Inline"]):
    """Stands in for the processes that measure pictures: it does their work at once."""

    def __init__(self, function: Callable[[Any], Any], *_: Any) -> None:
        super().__init__(self)
        self.answers = functools.partial(map, function)


@contextlib.contextmanager
def in_place(universe: Universe) -> Iterator[None]:
    """Put the simulation in place of the time, threads, network, dice and disk of the program."""
    world, dice = universe.world, random.Random(f"program {universe.script.seed}")
    Session.world, Session.server, _Datetime.world = world, universe.service, world
    random.seed(universe.script.seed)
    environment = {"RUNCOMFY_API_TOKEN": TOKEN, "HOME": str(universe.root)}
    with contextlib.ExitStack() as stack:

        def put(owner: Any, name: str, stand_in: Any) -> None:
            stack.enter_context(patch.object(owner, name, stand_in))

        stack.enter_context(patch.dict(os.environ, environment, clear=True))
        for name in ("stdout", "stderr"):
            put(sys, name, Stream(name))
        put(sys, "stdin", io.StringIO())
        put(asyncio, "run", worlds.run)
        put(time, "sleep", worlds.sleep)
        put(time, "monotonic", lambda: world.now_s)
        put(ThreadPoolExecutor, "shutdown", worlds.shut_down)
        put(records, "datetime", _Datetime)
        put(uuid, "uuid4", lambda: uuid.UUID(int=dice.getrandbits(128), version=4))
        put(os, "getpid", lambda: 4242)
        put(socket, "gethostname", lambda: "machine")
        put(aiohttp, "ClientSession", Session)
        put(aiohttp, "TCPConnector", lambda **_: None)
        put(aiohttp, "DummyCookieJar", lambda: None)
        put(check, "Workers", Inline)
        put(gc, "freeze", lambda: None)
        put(gc, "set_threshold", lambda *_: None)
        # By real time it looks twice a second; here a night would be a hundred thousand looks.
        put(execution, "_LOOK_FOR_REQUEST_S", 20.0)
        if universe.scenario.streams:
            put(download, "_MEMORY_LIMIT_BYTES", 64)
        with universe.disk.mount():
            yield


def play(script: Script, judge: Judge | None = None) -> Trace:
    """Play a universe, and return its trace; `judge` looks for violations."""
    place = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
    root = Path(tempfile.mkdtemp(prefix="universe-", dir=place))
    universe = Universe(script, SCENARIOS[script.scenario], root)
    try:
        with in_place(universe), contextlib.suppress(NeverEndsError):
            if judge is not None:
                universe.after_command = judge.after_command
            for act in script.acts:
                universe.world.note(f"act {act.name}")
                ACTS[act.name].do(universe, random.Random(act.seed))
                universe.at_operation = None
                universe.act += 1
            finish(universe)
            if judge is not None:
                universe.violations += judge.at_end(universe)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    strikes = tuple(dict.fromkeys(universe.service.struck))
    return Trace(
        script=msgspec.structs.replace(script, strikes=strikes),
        lines=[line.replace(str(root), "") for line in universe.world.trace],
        violations=universe.violations,
        commands=universe.commands,
        requests=list(universe.service.accepted.values()),
        operations=universe.disk.ordinal,
    )


def finish(universe: Universe) -> None:
    """Let everything be well again, and run until nothing is left to do."""
    universe.world.note("everything is well")
    universe.service.calm()
    answers: tuple[str, ...] = ()
    for _ in range(RUNS_TO_FINISH):
        universe.world.pass_time(universe.scenario.pause_s)
        first = len(universe.commands)
        calls = universe.service.purchases_and_polls
        universe.run(*answers)
        ended = universe.commands[first:]
        if all(one.code in (0, 3) for one in ended):
            return
        if any("--accept files" in one.err for one in ended):
            answers = ("--accept", "files")  # a person sees that these are not the jobs' pictures
        has_stopped = any(one.code == STOPPED for one in ended)
        if has_stopped and universe.service.purchases_and_polls == calls:
            return  # the budget is used up
    universe.violations.append(
        f"every-command-ends: {RUNS_TO_FINISH} calm runs: {[one.err for one in ended if one.err]}"
    )
