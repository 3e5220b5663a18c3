"""Machines without a home folder, without UTF-8, and with names that are no UTF-8."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from command import COMMAND, PROJECT, run

from batch_runner.errors import ExitCode, UsageError
from batch_runner.files.disk import require_utf8_names

MANIFEST = """\
version: 1
model: google/nano-banana-2/edit
inputs: {resolution: 0.5K, output_format: jpeg}
prompts: {white: white background}
images: {"マグ": https://cdn.example.com/a.png, "Käse": https://cdn.example.com/b.png}
output: {dir: out}
"""
FOLDER = MANIFEST.replace(MANIFEST.splitlines()[4], 'images: {from: photos/, id: "{{ stem }}"}')

nobody = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None,
    reason="needs root and setpriv, to be a user id that has no account",
)


def write(folder: Path, text: str = MANIFEST) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "batch.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def homeless(*words: str) -> subprocess.CompletedProcess[str]:
    """Run as a user id without an account, who may read and write all files."""
    powers = "+dac_override,+dac_read_search"
    user = ["setpriv", "--reuid", "12345", f"--inh-caps={powers}", f"--ambient-caps={powers}"]
    hidden = ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    return subprocess.run(
        [*user, *COMMAND, *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        env=environment,
    )


@nobody
def test_a_user_without_a_home_can_do_all_that_needs_none(tmp_path: Path) -> None:
    manifest = str(write(tmp_path))
    for words in (
        ["run", manifest, "--sandbox", "--quiet"],
        ["plan", manifest, "--sandbox", "--check-urls"],
        ["status", manifest, "--sandbox"],
        ["report", manifest, "--sandbox"],
        ["models", "--schema", "google/nano-banana-2/edit"],
        ["models", "--sandbox"],
    ):
        done = homeless(*words)
        assert done.returncode == ExitCode.DONE, done.stderr
    assert homeless("models", "--schema", "nobody/knows").returncode == ExitCode.NO_INPUT


def test_a_locale_without_utf8_is_refused_before_anything_is_bought(tmp_path: Path) -> None:
    manifest = str(write(tmp_path))
    posix = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    for command in ("run", "plan", "status", "check"):
        done = run(command, manifest, "--sandbox", **posix)
        assert done.returncode == ExitCode.USAGE
        assert "names files in ascii" in done.stderr
        assert "hint: set PYTHONUTF8=1" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["batch.yaml"]
    assert run("--version", **posix).returncode == ExitCode.DONE
    done = run("run", manifest, "--sandbox", **{**posix, "PYTHONUTF8": "1"})
    assert done.returncode == ExitCode.DONE, done.stderr
    names = {path.parent.name for path in (tmp_path / "out-sandbox").rglob("white.jpg")}
    assert names == {"マグ", "Käse"}
    assert run("check", manifest, "--sandbox").returncode == ExitCode.DONE


@pytest.mark.parametrize("encoding", ["iso8859-1", "ascii", "euc_jp"])
def test_a_library_user_is_refused_too(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    require_utf8_names()
    monkeypatch.setattr("sys.getfilesystemencoding", lambda: encoding)
    with pytest.raises(UsageError, match=encoding):
        require_utf8_names()


def test_output_in_another_encoding_is_escaped(tmp_path: Path) -> None:
    manifest = str(write(tmp_path))
    done = run("plan", manifest, "--sandbox", PYTHONIOENCODING="ascii")
    assert done.returncode == ExitCode.DONE, done.stderr
    assert "\\u30de\\u30b0/white" in done.stdout


@pytest.mark.parametrize("name", [b"caf\xe9.jpg", b"spring\xff/mug.jpeg", b"\x83J.png"])
def test_a_file_whose_name_is_not_utf8_is_a_problem_that_names_it(
    tmp_path: Path, name: bytes
) -> None:
    manifest = write(tmp_path, FOLDER.replace("photos/", "photos/**"))
    picture = next((PROJECT / "samples" / "photos").glob("*.jpg"))
    target = tmp_path / "photos" / os.fsdecode(name)
    try:
        target.parent.mkdir(parents=True)
        shutil.copy(picture, target)
    except OSError:
        pytest.skip("this file system takes no such names")
    shutil.copy(picture, tmp_path / "photos" / "mug.jpg")
    for command in ("plan", "run"):
        done = run(command, str(manifest), "--sandbox")
        assert done.returncode == ExitCode.INVALID
        shown = name.decode(errors="backslashreplace")
        assert f"batch.yaml:5: the name of '{shown}' is not UTF-8" in done.stderr
        assert "hint: rename it" in done.stderr
    target.unlink()
    assert run("run", str(manifest), "--sandbox").returncode == ExitCode.DONE


def test_init_refuses_a_table_whose_name_is_not_utf8_and_writes_nothing(tmp_path: Path) -> None:
    table = tmp_path / os.fsdecode(b"tab\xe9.csv")
    try:
        table.write_text("sku,image\na,https://cdn.example.com/a.png\n", encoding="utf-8")
    except OSError:
        pytest.skip("this file system takes no such names")
    done = run("init", "--from", str(table), str(tmp_path / "x.yaml"))
    assert done.returncode == ExitCode.USAGE, done.stderr
    assert "tab\\udce9.csv" in done.stderr
    assert "hint: rename the file" in done.stderr
    assert list(tmp_path.iterdir()) == [table]


def test_a_batch_in_a_folder_whose_name_is_not_utf8_runs(tmp_path: Path) -> None:
    try:
        manifest = str(write(tmp_path / os.fsdecode(b"kat\xe9")))
    except OSError:
        pytest.skip("this file system takes no such names")
    for command in ("plan", "run", "status", "report", "export", "check"):
        done = run(command, manifest, "--sandbox")
        assert done.returncode == ExitCode.DONE, done.stderr
    assert "kat\\udce9" in run("run", manifest, "--sandbox").stdout
