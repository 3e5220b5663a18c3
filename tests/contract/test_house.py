"""The house rules that a test can hold: imports, side effects, the public API, the map."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import reference

import batch_runner
from batch_runner.commands.arguments import COMMANDS
from batch_runner.errors import BatchRunnerError, ExitCode
from batch_runner.records import LEDGER_VERSION, Record

PACKAGE = Path(batch_runner.__file__).parent
MAP = (PACKAGE / "ARCHITECTURE.md").read_text(encoding="utf-8")
ORDER = re.findall(
    r"^\| `([\w.]+)` \| ", MAP.partition("## Modules")[2].partition("##")[0], re.MULTILINE
)
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")

LONGEST_FUNCTION_LINES = 60

OWNERS = {
    "yaml": {"manifest.document"},
    "jinja2": {"manifest.template", "report"},
    "jsonschema_rs": {"manifest.validation", "sandbox"},
    "aiohttp": {"web", "service", "files.download", "files.probe", "notice", "sandbox", "viewer"},
    "apprise": {"notice"},
    "aiofiles": {"files.download"},
    "tqdm": {"report"},
    "PIL": {"expansion.photo", "report", "sandbox", "viewer"},
    "obstore": {"bucket"},
    "argparse": {"commands"},
    "signal": {"__main__", "commands", "notice", "report"},
    "openpyxl": {"table"},
    "pyarrow": {"table", "report"},
    "fcntl": {"disk", "ledger.file", "ledger.lock", "sandbox"},
}


def part(path: Path) -> str:
    """Return the module or package of the map that a file belongs to."""
    dotted = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    return mapped(dotted) or dotted.split(".")[0]


def mapped(dotted: str) -> str | None:
    """Return the entry of the map that a name inside the package stands for, or None."""
    names = dotted.split(".")
    prefixes = (".".join(names[:length]) for length in range(len(names), 0, -1))
    return next((prefix for prefix in prefixes if prefix in ORDER), None)


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            # What is imported from a package may be one of its modules.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def calls(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}


def public_functions(path: Path) -> list[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = (node.name for node in tree.body if isinstance(node, ast.FunctionDef))
    return [name for name in names if not name.startswith("_")]


def test_architecture_names_every_module_and_no_other() -> None:
    parts = {part(path) for path in MODULES} - {"__main__"}
    assert set(ORDER) == parts
    assert len(ORDER) == len(set(ORDER))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_to_what_stands_before(path: Path) -> None:
    if part(path) == "__main__":
        return
    place = ORDER.index(part(path))
    for name in imports(path):
        if name.startswith("batch_runner."):
            imported = mapped(name.removeprefix("batch_runner."))
            if imported is not None:
                assert imported == part(path) or ORDER.index(imported) < place, name


def test_only_commands_know_the_sandbox() -> None:
    users = {
        part(p) for p in MODULES if any(n.startswith("batch_runner.sandbox") for n in imports(p))
    }
    assert users == {"commands", "sandbox"}


@pytest.mark.parametrize("library", OWNERS)
def test_each_side_effect_has_its_owner(library: str) -> None:
    users = {part(path) for path in MODULES if library in {n.split(".")[0] for n in imports(path)}}
    assert users <= OWNERS[library]


def test_printing_the_environment_and_syncing_have_their_owners() -> None:
    for path in MODULES:
        used = calls(path)
        text = path.read_text(encoding="utf-8")
        if part(path) not in ("commands", "report", "__main__"):
            assert "print" not in used, path
        if part(path) != "commands":
            assert "os.environ" not in text, path
        if part(path) != "disk":
            assert not used & {"os.fsync", "os.fdatasync"}, path
        if part(path) != "notice":
            assert "asyncio.create_subprocess_exec" not in used, path
        if part(path) not in (
            "runner.pool",
            "run",
            "files.probe",
            "commands",
            "ledger.file",
            "sandbox",
        ):
            assert not {name for name in used if name.endswith(("create_task", "ensure_future"))}, (
                path
            )


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_function_is_longer_than_a_screen(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            # Declaring options or drawing a scene is long and flat; logic is not.
            assert lines <= LONGEST_FUNCTION_LINES, f"{node.name} has {lines} lines"


def test_every_command_has_a_module_that_declares_its_options() -> None:
    modules = (PACKAGE / "commands").glob("*.py")
    found = {path.stem for path in modules if {"declare", "execute"} <= {*public_functions(path)}}
    assert found == set(COMMANDS)
    assert len(COMMANDS) <= 15


def test_the_public_api_is_small_sorted_and_there() -> None:
    names = batch_runner.__all__
    assert names == sorted(names)
    assert len(names) <= 15
    assert dir(batch_runner) == names
    for name in names:
        assert getattr(batch_runner, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = batch_runner.nonsense


def test_every_record_of_the_ledger_is_documented_with_its_fields() -> None:
    assert LEDGER_VERSION == 1
    section = MAP.partition("## The ledger, format 1")[2].partition("## The life")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", section, re.MULTILINE))
    kinds = {kind.__struct_config__.tag: kind for kind in Record.__args__}
    kinds.pop("ledger")
    assert set(rows) == set(kinds)
    for tag, kind in kinds.items():
        shown = set(re.findall(r"\w+", re.sub(r"\([^)]*\)", "", rows[tag])))
        common = {"at", "job", "fingerprint", "order"}
        assert shown == set(kind.__struct_fields__) - common, tag


def test_every_exit_code_of_an_error_is_in_the_readme() -> None:
    readme = (PACKAGE.parent / "README.md").read_text(encoding="utf-8")
    for code in ExitCode:
        assert re.search(rf"\| {int(code)} \|", readme), code
    pending = [BatchRunnerError]
    while pending:
        error = pending.pop()
        assert isinstance(error.exit_code, ExitCode)
        pending += error.__subclasses__()


def test_the_project_says_nothing_of_the_machine_it_was_written_on() -> None:
    root = PACKAGE.parent
    for path in root.rglob("*"):
        inside = path.relative_to(root).parts
        if path.suffix in (".py", ".md", ".yaml", ".toml", ".json", ".csv") and not (
            inside[0].startswith(".") or inside[0] == "out"
        ):
            assert str(root) not in path.read_text(encoding="utf-8"), path


def test_the_guide_explains_every_key_of_the_schema() -> None:
    text = reference.GUIDE.read_text(encoding="utf-8")
    made = reference.HEADING + text.partition(reference.HEADING)[2]
    assert made == reference.reference(), "run: python tests/reference.py"
