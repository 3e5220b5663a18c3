"""Disks that cannot hold the results: nothing is bought. Disks that cannot sync: a notice."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from bench import Bench, OpenSandbox
from command import COMMAND

from batch_runner.errors import ExitCode, StorageError
from batch_runner.files import disk
from batch_runner.sandbox import Sandbox
from batch_runner.text.path import ADDED_BYTES

TEXT = """\
prompts: {white: white background}
images: {mug: https://cdn.example.com/mug.png, %s: https://cdn.example.com/lamp.png}
output: {dir: out, ledger: led, path: "%s"}
"""
# Root may write anywhere but without these: then permissions count for it too.
_WITHOUT_POWER = [
    "setpriv",
    "--bounding-set=-dac_override,-dac_read_search",
    "--inh-caps=-dac_override,-dac_read_search",
]


def posts(sandbox: Sandbox) -> int:
    return sum(call.method == "POST" for call in sandbox.calls)


@pytest.mark.parametrize(
    ("name", "path"), [("ä" * 62, "{{ image }}"), ("m" * 150, "{{ image }}/{{ prompt }}")]
)
async def test_names_that_the_disk_does_not_take_are_a_problem_before_anything_is_bought(
    bench: Bench,
    open_sandbox: OpenSandbox,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    path: str,
) -> None:
    try_folder: Callable[..., bool] = disk.try_folder
    most = 143

    def refuse(folder: Path, stem: str, **options: bool) -> bool:
        if len(os.fsencode(stem)) + ADDED_BYTES > most:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), str(folder))
        return try_folder(folder, stem, **options)

    monkeypatch.setattr(disk, "try_folder", refuse)
    async with open_sandbox() as sandbox:
        with pytest.raises(StorageError, match="File name too long") as caught:
            await bench.run(TEXT % (name, path), sandbox)
        assert posts(sandbox) == 0
        most = 180
        assert (await bench.run(TEXT % (name, path), sandbox)).done == 2
    assert "shorten output.path" in (caught.value.hint or "")


async def test_a_folder_that_refuses_ends_the_run_before_anything_is_bought(
    bench: Bench, open_sandbox: OpenSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    try_folder: Callable[..., bool] = disk.try_folder

    def refuse(folder: Path, stem: str, **options: bool) -> bool:
        if folder.name == "white":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
        return try_folder(folder, stem, **options)

    monkeypatch.setattr(disk, "try_folder", refuse)
    (bench.output / "white").mkdir(parents=True)
    async with open_sandbox() as sandbox:
        with pytest.raises(StorageError, match="out/white: Permission denied") as caught:
            await bench.run(TEXT % ("lamp", "{{ prompt }}/{{ image }}"), sandbox)
        assert posts(sandbox) == 0
    assert caught.value.exit_code == ExitCode.STORAGE
    assert caught.value.hint is not None


@pytest.mark.parametrize("refusing", ["out", "out/white", "out/superseded", "out/white/deep"])
def test_a_plain_user_buys_nothing_for_a_folder_of_another_one(bench: Bench, refusing: str) -> None:
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        pytest.skip("root writes everywhere; it needs setpriv to be as weak as other users")
    manifest = bench.write(TEXT % ("lamp", "{{ prompt }}/deep/{{ image }}"))
    folder = bench.folder / refusing
    folder.mkdir(parents=True)
    # The sandbox keeps its requests beside the pictures.
    (bench.folder / "out-sandbox").symlink_to("out")
    (bench.folder / "out" / ".sandbox").mkdir(exist_ok=True)
    folder.chmod(0o555)
    words = [*COMMAND, "run", str(manifest), "--sandbox"]
    if os.geteuid() == 0:
        words = [*_WITHOUT_POWER, *words]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=240)
    folder.chmod(0o755)
    assert done.returncode == ExitCode.STORAGE, done.stderr
    assert "Permission denied" in done.stderr
    assert "hint: check the folder's owner and permissions" in done.stderr
    requests = bench.output / ".sandbox" / "requests.jsonl"
    assert not requests.exists() or b"input" not in requests.read_bytes()


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
async def test_where_nothing_can_be_synced_the_run_says_so_once_and_saves_all(
    bench: Bench, open_sandbox: OpenSandbox, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    monkeypatch.setattr(os, "fdatasync", fail)
    async with open_sandbox() as sandbox:
        summary = await bench.run(TEXT % ("lamp", "{{ prompt }}/{{ image }}"), sandbox)
        assert summary.exit_code == ExitCode.DONE
        assert len(bench.files) == 2
        notices = [notice for notice in bench.notices if "cannot sync" in notice]
        assert [notice.partition(":")[0] for notice in notices] == [
            str(bench.output),
            str(bench.folder / "led"),
        ]
        bench.notices.clear()
        assert (await bench.run(TEXT % ("lamp", "{{ prompt }}/{{ image }}"), sandbox)).done == 2
        assert posts(sandbox) == 2
        assert bench.notices == []
