"""A run of a finished batch goes by its ledger alone, where the jobs would say the same."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import pytest
from bench import FAST, Bench, OpenSandbox
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_runner.ledger.reading import ledger_path, read_ledger
from batch_runner.ledger.state import State
from batch_runner.manifest.loading import load_manifest
from batch_runner.records import RunFinished, RunStarted, SavedFile, Submitting
from batch_runner.run import execution
from batch_runner.run.batch import Batch, RunOptions
from batch_runner.run.planning import basis_of, survey_jobs, survey_of_ledger
from batch_runner.run.summary import Summary
from batch_runner.run.survey import Survey
from batch_runner.sandbox import Sandbox

TABLE = """\
prompts: {white: white background}
images: {from: products.csv, id: "{{ sku }}", urls: ["{{ url }}"]}
schema: model.json
price_usd: "0.05"
"""
SCHEMA = {"properties": {"prompt": {"type": "string", "maxLength": 1000}, "image_urls": {}}}

PLAIN = """\
prompts: {white: white background}
images: {mug: https://cdn.example.com/mug.png}
matrix: {seed: [1, 2]}
output: {dir: out, path: "p/{{ seed }}"}
"""
MANIFESTS = {
    "plain": PLAIN,
    "by other keys": PLAIN.replace("white:", "pale:"),
    "at other paths": PLAIN.replace("p/", "q/"),
    "at each other's paths": PLAIN.replace("{{ seed }}", "{{ 3 - seed }}"),
    "other words": PLAIN.replace("background", "backdrop"),
    "one more": PLAIN.replace("[1, 2]", "[1, 2, 3]"),
    "one less": PLAIN.replace("[1, 2]", "[2]"),
    "each twice": PLAIN.replace("mug.png}", "mug.png, cup: https://cdn.example.com/mug.png}")
    .replace("p/", "p/{{ image }}-"),
    "another price": PLAIN + 'price_usd: "0.07"\n',
}  # fmt: skip


Asked = list[tuple[str, int, bool]]


def surveyed(
    batch: Batch, how: Callable[[State], Survey | None], state: State
) -> tuple[Survey | None, Asked]:
    """Make a survey; returns it with what was asked of the disk for it."""
    asked: Asked = []
    look = batch.storage.is_in_place

    def noted(path: str, saved: SavedFile, *, thorough: bool) -> bool:
        asked.append((path, saved.size_bytes, thorough))
        return look(path, saved, thorough=thorough)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch.storage, "is_in_place", noted)
        return how(state), sorted(asked)


@contextmanager
def comparing() -> Iterator[list[bool]]:
    """Let every run make both surveys and compare them; notes whether it went by the ledger."""
    by_ledger = survey_of_ledger
    went: list[bool] = []

    def both(batch: Batch, state: State, **_: Any) -> Survey | None:
        short, asked = surveyed(batch, lambda state: by_ledger(batch, state), state)
        went.append(short is not None)
        if short is not None:
            full, asked_for_jobs = surveyed(batch, partial(survey_jobs, batch), state)
            assert full is not None
            assert asked == asked_for_jobs, "the very same was asked of the disk"
            for name in ("standings", "counts", "reasons", "known", "twins", "moved", "with_files"):
                assert getattr(short, name) == getattr(full, name), name
            assert not full.waiting
        return short

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(execution, "survey_of_ledger", both)
        yield went


@contextmanager
def without_shortcut() -> Iterator[None]:
    def refuse(*_: Any, **__: Any) -> None:
        return None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(execution, "survey_of_ledger", refuse)
        yield


def write_table(bench: Bench, *skus: str) -> None:
    rows = [f"{sku},https://cdn.example.com/{sku}.png\n" for sku in skus]
    (bench.folder / "products.csv").write_text("sku,url\n" + "".join(rows), encoding="utf-8")


def write_schema(bench: Bench, schema: dict[str, Any]) -> None:
    (bench.folder / "model.json").write_bytes(msgspec.json.encode(schema))


def first_file(bench: Bench) -> Path:
    return bench.output / bench.files[0]


def shorten(bench: Bench) -> None:
    content = first_file(bench).read_bytes()
    first_file(bench).write_bytes(content[:-1])


def damage(bench: Bench) -> None:
    content = first_file(bench).read_bytes()
    first_file(bench).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def link(bench: Bench) -> None:
    path = first_file(bench)
    path.symlink_to(path.rename(bench.folder / "moved by hand"))


def tear(bench: Bench) -> None:
    with ledger_path(bench.output).open("ab") as file:
        file.write(b'{"record":"subm')


def cut_last_saved(bench: Bench) -> None:
    """Leave the ledger as a run does that is killed just before its last file is recorded."""
    path = ledger_path(bench.output)
    lines = path.read_bytes().splitlines(keepends=True)
    last = max(n for n, line in enumerate(lines) if b'"record":"saved"' in line)
    path.write_bytes(b"".join(lines[:last]))


Change = Callable[[Bench], object]

# What changes before the last run, what it is told, whether it goes by the ledger alone.
CHANGES: dict[str, tuple[Change, dict[str, Any], bool]] = {
    "nothing": (lambda _: None, {}, True),
    "retry": (lambda _: None, {"retry": ("all",)}, True),
    "limit": (lambda _: None, {"limit": 1}, True),
    "budget": (lambda _: None, {"max_cost_usd": Decimal("0.01")}, True),
    "only": (lambda _: None, {"only": ("a1/*",)}, False),
    "file missing": (lambda bench: first_file(bench).unlink(), {}, False),
    "file shortened": (shorten, {}, False),
    "file damaged": (damage, {}, True),
    "file became a link": (link, {}, True),
    "row added": (lambda bench: write_table(bench, "a1", "a2", "a3", "a4"), {}, False),
    "row removed": (lambda bench: write_table(bench, "a1", "a2"), {}, False),
    "table written anew": (lambda bench: write_table(bench, "a1", "a2", "a3"), {}, True),
    "table in another order": (lambda bench: write_table(bench, "a2", "a1", "a3"), {}, False),
    "schema": (lambda bench: write_schema(bench, {**SCHEMA, "title": "new"}), {}, False),
    "torn": (tear, {}, True),
    "killed": (cut_last_saved, {}, False),
}
TEXTS = {
    "prompt": TABLE.replace("background", "backdrop"),
    "price": TABLE.replace("0.05", "0.06"),
    "path": TABLE + 'output: {dir: out, path: "p/{{ sku }}"}\n',
    "notify": TABLE + "notify: {on_finish: ./tell.sh}\n",
}


async def last_run(
    bench: Bench, sandbox: Sandbox, text: str, options: dict[str, Any]
) -> dict[str, Any]:
    """Run once more; returns all that tells of it, without times and ids."""
    bench.records.clear()
    before = sum(call.method == "POST" for call in sandbox.calls)
    summary: Summary = await bench.run(text, sandbox, **options)
    return {
        "summary": msgspec.structs.replace(summary, elapsed_s=0),
        "exit code": summary.exit_code,
        "posts": sum(call.method == "POST" for call in sandbox.calls) - before,
        "files": bench.files,
        "records": [
            sorted(
                (type(one).__name__, getattr(one, "job", ""), getattr(one, "fingerprint", ""))
                for one in bench.records
            ),
            [(one.jobs, one.plan, one.basis) for one in bench.records if type(one) is RunStarted],
            [
                (one.submitted, one.saved, one.stopped, one.cost_usd)
                for one in bench.records
                if type(one) is RunFinished
            ],
        ],
    }


@pytest.mark.parametrize("change", [*CHANGES, *TEXTS])
async def test_whatever_changed_a_run_ends_as_if_it_had_made_the_jobs_again(
    change: str, bench: Bench, open_sandbox: OpenSandbox
) -> None:
    act, options, goes_by_ledger = CHANGES.get(change, (lambda _: None, {}, False))
    text = TEXTS.get(change, TABLE)
    write_table(bench, "a1", "a2", "a3")
    write_schema(bench, SCHEMA)
    async with open_sandbox() as sandbox:
        await bench.run(TABLE, sandbox)
        act(bench)
        finished = bench.folder / "finished"
        shutil.copytree(bench.output, finished, symlinks=True)
        with without_shortcut():
            expected = await last_run(bench, sandbox, text, options)
        shutil.rmtree(bench.output)
        finished.rename(bench.output)
        with comparing() as went:
            found = await last_run(bench, sandbox, text, options)
    assert found == expected
    assert went == [goes_by_ledger]


STEPS = st.one_of(
    st.tuples(st.just("run"), st.sampled_from(sorted(MANIFESTS)), st.sampled_from([None, 1])),
    st.tuples(st.just("run"), st.just("plain"), st.none()),
    st.tuples(st.sampled_from(["remove", "damage", "cut"]), st.integers(0, 9), st.none()),
)


async def take_steps(folder: Path, steps: list[tuple[str, Any, int | None]]) -> list[bool]:
    bench, accept = Bench(folder), ("files", "new-pictures")
    ledger = ledger_path(bench.output)
    async with Sandbox(folder / "sandbox", replace(FAST)) as sandbox:
        with comparing() as went:
            await bench.run(PLAIN, sandbox, accept=accept)
            for what, which, limit in steps:
                files = [path for path in bench.files if not path.startswith("superseded")]
                if what == "run":
                    await bench.run(MANIFESTS[which], sandbox, limit=limit, accept=accept)
                elif what == "cut":
                    lines = ledger.read_bytes().splitlines(keepends=True)
                    ledger.write_bytes(b"".join(lines[: max(1, len(lines) - which)]))
                elif files:
                    path = bench.output / files[which % len(files)]
                    path.unlink() if what == "remove" else path.write_bytes(b"another picture")
            await bench.run(PLAIN, sandbox, accept=accept)
            await bench.run(PLAIN, sandbox, accept=accept)
    for record in read_ledger(ledger):
        assert not isinstance(record, Submitting) or record.attempt == 1
    return went


@settings(deadline=None, max_examples=25)
@given(st.lists(STEPS, max_size=5))
def test_whatever_was_run_before_the_ledger_and_the_jobs_ask_the_same_of_the_disk(
    steps: list[tuple[str, Any, int | None]],
) -> None:
    with TemporaryDirectory() as name:
        asyncio.run(take_steps(Path(name), steps))


@pytest.mark.parametrize("manifest", ["by other keys", "at other paths", "at each other's paths"])
async def test_once_files_are_where_a_changed_manifest_wants_them_the_ledger_says_so(
    manifest: str, bench: Bench, open_sandbox: OpenSandbox
) -> None:
    async with open_sandbox() as sandbox:
        with comparing() as went:
            for name in ("plain", "plain", manifest, manifest, manifest):
                await bench.run(MANIFESTS[name], sandbox)
        assert sum(call.method == "POST" for call in sandbox.calls) == 2
    assert went[:3] == [False, True, False]
    # A key that no record names stays unknown to the ledger: it is asked by hash, every time.
    assert went[3:] == [False, False] if manifest == "by other keys" else [False, True]


async def test_what_a_killed_run_had_yet_to_put_elsewhere_is_put_there_by_the_next(
    bench: Bench, open_sandbox: OpenSandbox
) -> None:
    async with open_sandbox() as sandbox:
        await bench.run(PLAIN, sandbox)
        await bench.run(MANIFESTS["at other paths"], sandbox)
        lines = ledger_path(bench.output).read_bytes().splitlines(keepends=True)
        begun = max(n for n, line in enumerate(lines) if b'"record":"run_started"' in line)
        ledger_path(bench.output).write_bytes(b"".join(lines[: begun + 1]))
        shutil.rmtree(bench.output / "q")
        with comparing() as went:
            await bench.run(MANIFESTS["at other paths"], sandbox)
    assert went == [False]
    assert bench.files == ["p/1.jpg", "p/2.jpg", "q/1.jpg", "q/2.jpg"]


def test_a_manifest_by_another_name_may_have_other_prompts(bench: Bench) -> None:
    path = bench.write(PLAIN.replace("white background", '"{{ name }}"'))
    renamed = bench.folder / "renamed.yaml"
    shutil.copy(path, renamed)
    options = RunOptions(api_base="http://127.0.0.1")
    one, other = (Batch(load_manifest(name), options) for name in (path, renamed))
    assert one.manifest.document.sha256 == other.manifest.document.sha256
    assert basis_of(one) != basis_of(other)
