"""Job files: one batch in shards, as an array job of Slurm or a Job of Kubernetes.

Hides the two formats; the texts stand beside this file. What always holds: the number of shards
is written into the file, never read from an environment; the token is in none of it, only the name
of the file or secret that holds it; a shard has longer to leave than it takes to collect; what a
person must decide (the exit codes that no repetition mends) is not repeated.

Not promised: that the engine's file system has locks that reach across machines. The files say so.
"""

from __future__ import annotations

import base64
import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from os.path import normpath
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from batch_runner.errors import InputMissingError, UsageError
from batch_runner.manifest.form import Manifest, TableImages
from batch_runner.manifest.template import Template
from batch_runner.schedulers.timer import TOKEN_VARIABLE, UNKNOWN_SOURCE

ENGINES = ("slurm", "kubernetes")
UNKNOWN_IMAGE = "WRITE-HERE-YOUR-REGISTRY/batch-runner"

# After the grace a run gives the calls under way a few seconds, and telling people up to a minute.
_LEAVING_S = 90
# A ConfigMap holds a MiB, and what is kept of it in the Job's history counts too.
_CONFIG_MAP_LIMIT_BYTES = 700_000
_ROOT = PurePosixPath("/batch")


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """One batch, to be run in shards; all paths are absolute."""

    name: str
    manifest: Manifest
    manifest_path: Path
    shards: int
    grace_s: int
    program: tuple[str, ...]
    environment_file: Path
    image: str = UNKNOWN_IMAGE
    source: str = UNKNOWN_SOURCE

    @property
    def waits(self) -> bool:
        """Whether a shard waits for the window itself: restarts would be used up until then."""
        return self.manifest.window is not None

    @property
    def leaving_s(self) -> int:
        """Seconds a shard needs from SIGTERM to its end."""
        return self.grace_s + _LEAVING_S

    @property
    def log_folder(self) -> Path:
        """Where Slurm writes what the shards say."""
        return self.manifest_path.parent / f"{self.name}-logs"

    @property
    def dns_name(self) -> str:
        """The name as Kubernetes takes it."""
        plain = re.sub(r"[^a-z0-9-]+", "-", self.name.lower())
        return plain[:50].strip("-")


class _InputFile(NamedTuple):
    """A file that every shard reads: its key in a ConfigMap, its place there, its text."""

    key: str
    path: str
    text: str


def job_file(engine: str, fleet: Fleet) -> str:
    """Return the whole file for an engine; raises UsageError for what it cannot do."""
    match engine:
        case "slurm":
            return _slurm(fleet)
        case _:
            return _kubernetes(fleet)


def next_steps(engine: str, fleet: Fleet, path: str) -> Iterator[str]:
    """Yield what to type once the file is saved under `path`: to start, to look, to undo."""
    status = f"batch-runner status {shlex.quote(str(fleet.manifest_path))}"
    match engine:
        case "slurm":
            environment_file = shlex.quote(str(fleet.environment_file))
            yield f"token:  write {TOKEN_VARIABLE}=… into {environment_file}, mode 0600"
            yield f"start:  mkdir -p {shlex.quote(str(fleet.log_folder))} && sbatch {path}"
            yield f"look:  squeue --name={fleet.name}; {status}"
            yield f"stop, and collect:  scancel --batch --signal=TERM --name={fleet.name}"
        case _:
            name = fleet.dns_name
            yield from _image_steps(fleet)
            if (layout := _layout(fleet)).is_large:
                yield f"volume:  kubectl apply -f {path} makes it; then, into its root, copy"
                for here, source in layout.inputs.items():
                    yield f"  {source} to {here.removeprefix('/batch')}"
            yield f"token:  kubectl create secret generic {_secret(name)} --from-file=token=FILE"
            yield (
                f"more variables, if the batch needs them:  kubectl create secret generic"
                f" {name}-environment --from-env-file=FILE"
            )
            yield f"start:  kubectl apply -f {path}"
            yield f"look:  kubectl get pods -l app.kubernetes.io/instance={name}"
            yield f"stop, and collect:  kubectl delete job {name}"
            yield f"again:  kubectl delete job {name}, then start; what is done is not bought again"


def _image_steps(fleet: Fleet) -> Iterator[str]:
    if fleet.image == UNKNOWN_IMAGE:
        extras = ",".join(_extras(fleet.manifest))
        source = fleet.source
        if extras:
            source = source.replace("batch-runner", f"batch-runner[{extras}]", 1)
        lines = ("FROM python:3.12-slim", f"RUN pip install {json.dumps(source)}")
        yield (
            f"image:  printf '%s\\n' {' '.join(map(shlex.quote, lines))}"
            " | docker build -t REGISTRY/batch-runner - && docker push REGISTRY/batch-runner,"
            " then again with --image REGISTRY/batch-runner"
        )


def _extras(manifest: Manifest) -> Iterator[str]:
    """Yield the extras of this program that a manifest needs."""
    output = manifest.output
    if output.bucket is not None or output.ledger_copy is not None or manifest.uploads is not None:
        yield "s3"
    if manifest.notify.apprise:
        yield "notify"
    if isinstance(manifest.images, TableImages):
        suffixes = manifest.images.path.suffixes
        yield from (extra for extra in ("parquet", "xlsx") if f".{extra}" in suffixes)


# Slurm


def _slurm(fleet: Fleet) -> str:
    folder = str(fleet.log_folder)
    if re.search(r"""["'\\\n]""", folder):
        raise UsageError(
            f"{folder!a} cannot be written into a job file",
            hint="rename the folder: no quotes, no backslashes",
        )
    # What Slurm puts in the place of %A and %a: the array's id and the index.
    pattern = f"{folder.replace('%', '%%')}/%A_%a.log"
    return _render(
        "slurm.sh.j2",
        name=fleet.name,
        shards=fleet.shards,
        grace_s=fleet.grace_s,
        leaving_s=fleet.leaving_s,
        log_pattern=f'"{pattern}"' if " " in pattern else pattern,
        environment_file=shlex.quote(str(fleet.environment_file)),
        command=shlex.join((*fleet.program, "run", str(fleet.manifest_path))),
        waits=fleet.waits,
        token_variable=TOKEN_VARIABLE,
    )


# Containers


class _Layout(NamedTuple):
    """Where things are in a container: laid out to each other as they are here.

    `is_scratch`: whatever is in the output folders is in buckets too, so that no volume is needed.
    """

    manifest: str
    outputs: list[str]
    is_scratch: bool
    inputs: dict[str, Path]

    @property
    def is_large(self) -> bool:
        """Whether the manifest and its tables are more than a ConfigMap takes."""
        sources = self.inputs.values()
        # A folder of pictures is, whatever it holds.
        return any(map(Path.is_dir, sources)) or (
            sum(len(_content(source)) for source in sources) > _CONFIG_MAP_LIMIT_BYTES
        )


def _layout(fleet: Fleet) -> _Layout:
    manifest, folder = fleet.manifest, fleet.manifest_path.parent
    data: dict[str, Any] = manifest.document.data
    output = data.get("output") or {}
    inputs = {"images.from": (data.get("images") or {}).get("from"), "schema": data.get("schema")}
    outputs = {"output.dir": output.get("dir"), "output.ledger": output.get("ledger")}
    paths = {
        what: normpath(path)
        for what, path in (inputs | outputs).items()
        if isinstance(path, str) and "://" not in path
    }
    if not paths.keys() & outputs.keys():
        paths["output.dir"] = f"out/{manifest.output.dir.name}"
    for what, path in paths.items():
        if PurePosixPath(path).is_absolute():
            raise UsageError(
                f"{what} is an absolute path, which is another one in a container: {path}",
                hint="write it relative to the manifest",
            )
    above = max((path.split("/").count("..") for path in paths.values()), default=0)
    if above >= len(folder.parts):
        raise UsageError(
            "the manifest names a folder above all others", hint="write a shorter path"
        )
    place = _ROOT.joinpath(*folder.parts[len(folder.parts) - above :])
    inside = {what: normpath(place / path) for what, path in paths.items()}
    here = str(place / fleet.manifest_path.name)
    return _Layout(
        here,
        list(dict.fromkeys(inside[what] for what in outputs if what in inside)),
        manifest.output.bucket is not None and manifest.output.ledger_copy is not None,
        {here: fleet.manifest_path}
        | {inside[what]: folder / paths[what] for what in inputs if what in inside},
    )


def _content(source: Path) -> bytes:
    """Read a file that every shard reads; raises InputMissingError."""
    try:
        return source.read_bytes()
    except OSError as error:
        raise InputMissingError(
            f"{source}: cannot be read: {error.strerror}", hint="look at its permissions"
        ) from error


def _kubernetes(fleet: Fleet) -> str:
    layout, name = _layout(fleet), fleet.dns_name
    return _render(
        "kubernetes.yaml.j2",
        name=name,
        shards=fleet.shards,
        grace_s=fleet.grace_s,
        leaving_s=fleet.leaving_s,
        image=fleet.image,
        secret=_secret(name),
        manifest=layout.manifest,
        root=str(_ROOT),
        outputs=[{"path": path, "folder": path.rpartition("/")[2]} for path in layout.outputs],
        is_scratch=layout.is_scratch,
        on_volume=layout.is_large,
        files=[
            {"key": f"file-{number}", "path": path, **_in_yaml(_content(source))}
            for number, (path, source) in enumerate(layout.inputs.items(), start=1)
            if not layout.is_large
        ],
        waits=fleet.waits,
        token_variable=TOKEN_VARIABLE,
    )


def _in_yaml(content: bytes) -> dict[str, Any]:
    """Return a file as lines of a block that people can read, or else as base64."""
    text = content.decode("utf-8", errors="replace")
    lines = text.removesuffix("\n").split("\n")
    is_plain = (
        text.endswith("\n")
        and text.encode() == content
        and all(line.isprintable() for line in lines)
        and lines[-1] != ""
        and not lines[0].startswith(" ")
        and lines[0] != ""
    )
    if is_plain:
        return {"lines": lines, "base64": None}
    return {"lines": None, "base64": base64.b64encode(content).decode()}


def _secret(name: str) -> str:
    return f"{name}-token"


def _render(file: str, /, **values: Any) -> str:
    text = Path(__file__).with_name(file).read_text(encoding="utf-8")
    return Template(text).render(values)
