"""The house rules that a test can hold: imports, side effects, the public API, the map."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
import reference

import batch_runner
from batch_runner.commands.arguments import COMMANDS
from batch_runner.errors import BatchRunnerError, ExitCode
from batch_runner.records import LEDGER_VERSION, Record

PACKAGE = Path(batch_runner.__file__).parent
MAP = (PACKAGE / "ARCHITECTURE.md").read_text(encoding="utf-8")
ROWS = re.findall(
    r"^\| `(\w+)` \| .* \| (.*) \|$",
    MAP.partition("## Rooms")[2].partition("\n## ")[0],
    re.MULTILINE,
)
ROOMS = [room for room, _ in ROWS]
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
LONGEST_FUNCTION_LINES = 60
MOST_METHODS = 20
MOST_ENTRIES = 24

OWNERS = {
    "yaml": {"manifest.document"},
    "jinja2": {"manifest.template"},
    "jsonschema_rs": {"manifest.validation", "sandbox"},
    "aiohttp": {
        *{"commands.check_urls", "files.download", "report.server"},
        *{"sandbox", "service.transport", "service.web"},
    },
    "aiofiles": {"files.download"},
    "tqdm": {"report"},
    "PIL": {"files.local_picture", "pictures", "report", "sandbox"},
    "obstore": {"files.bucket"},
    "argparse": {"commands"},
    "signal": {"__main__", "commands", "report"},
    "openpyxl": {"table"},
    "fcntl": {"files.disk", "ledger.file", "ledger.lock", "sandbox"},
}


def dotted(path: Path) -> str:
    """Return a module's name inside the package, as in `run.pool`."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def room(path: Path) -> str:
    return dotted(path).partition(".")[0]


def is_among(path: Path, owners: Collection[str]) -> bool:
    """Tell whether a module, or a package that it is in, is one of the owners."""
    return any(f"{dotted(path)}.".startswith(f"{owner}.") for owner in owners)


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            # What is imported from a package may be one of its modules.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_imports(path: Path) -> set[str]:
    """Return the modules of this package that a module imports."""
    names = {name.removeprefix("batch_runner.") for name in imports(path)}
    return names & {dotted(module) for module in MODULES}


def calls(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}


def public_functions(path: Path) -> list[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = (node.name for node in tree.body if isinstance(node, ast.FunctionDef))
    return [name for name in names if not name.startswith("_")]


def test_the_map_names_every_room_and_module_and_no_other() -> None:
    named = {
        ".".join(filter(None, (place, name)))
        for place, names in ROWS
        for name in re.findall(r"`([\w.]+)`", names) or [""]
    }
    assert named == {dotted(path) for path in MODULES} - {"__main__"}
    entries = [one.name for one in PACKAGE.iterdir() if one.name != "__pycache__"]
    assert len(entries) <= MOST_ENTRIES, entries


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_imports_point_to_rooms_that_stand_before(path: Path) -> None:
    if dotted(path) == "__main__":
        return
    place = ROOMS.index(room(path))
    for name in own_imports(path):
        other = name.partition(".")[0]
        assert other == room(path) or ROOMS.index(other) < place, name


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {dotted(path): own_imports(path) for path in MODULES}
    list(TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle


def test_no_folders_import_each_other_in_a_circle() -> None:
    graph: dict[str, set[str]] = {}
    for path in MODULES:
        folder = dotted(path).rpartition(".")[0]
        others = {name.rpartition(".")[0] for name in own_imports(path)}
        graph.setdefault(folder, set()).update(others - {folder, ""})
    graph.pop("", None)
    list(TopologicalSorter(graph).static_order())


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_no_class_has_too_many_methods(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef):
            methods = [one for one in node.body if isinstance(one, FUNCTIONS)]
            assert len(methods) <= MOST_METHODS, f"{node.name} has {len(methods)} methods"


def test_only_commands_know_the_sandbox() -> None:
    users = {
        room(path) for path in MODULES if any(n.startswith("sandbox") for n in own_imports(path))
    }
    assert users == {"commands", "sandbox"}


@pytest.mark.parametrize("library", OWNERS)
def test_each_side_effect_has_its_owner(library: str) -> None:
    for path in MODULES:
        if library in {name.split(".")[0] for name in imports(path)}:
            assert is_among(path, OWNERS[library]), path


def test_printing_the_environment_and_syncing_have_their_owners() -> None:
    for path in MODULES:
        used = calls(path)
        text = path.read_text(encoding="utf-8")
        if not is_among(path, ("commands", "report", "__main__")):
            assert "print" not in used, path
        if not is_among(path, ("commands",)):
            assert "os.environ" not in text, path
        if not is_among(path, ("files.disk",)):
            assert not used & {"os.fsync", "os.fdatasync"}, path
        if not is_among(path, ("report.notify",)):
            assert "asyncio.create_subprocess_exec" not in used, path
        owners = ("run.pool", "run.stop", "commands", "ledger.file", "report", "sandbox")
        if not is_among(path, owners):
            started = {name for name in used if name.endswith(("create_task", "ensure_future"))}
            assert not started, path


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_no_function_is_longer_than_a_screen(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, FUNCTIONS):
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
