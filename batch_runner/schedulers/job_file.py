"""Job files: one batch in shards, as an array job of Slurm or a Job of Kubernetes.

Hides the two formats; the templates are beside this file. Always holds: the number of shards is
written into the file, never read from an environment; the file contains only the name of the file
or secret with the token; a shard gets enough time to collect before it is killed; it is not
restarted after exit codes that need a person.

Not promised: locks that reach across machines. They need a suitable file system; the files say so.
"""

from __future__ import annotations

import base64
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
from batch_runner.schedulers.timer import TOKEN_VARIABLE

UNKNOWN_IMAGE = "WRITE-HERE-YOUR-REGISTRY/batch-runner"

# After the grace, calls under way get a few seconds, and notifications up to a minute.
_LEAVING_S = 90
# A ConfigMap takes 1 MiB, and base64 makes a file a third larger. Only a server-side apply takes as
# much: otherwise kubectl keeps a copy in an annotation, which ends at 256 KiB.
_CONFIG_MAP_LIMIT_BYTES = 700_000
_ROOT = PurePosixPath("/batch")


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """One batch to run in shards; all paths are absolute."""

    name: str
    manifest: Manifest
    manifest_path: Path
    shards: int
    grace_s: int
    program: tuple[str, ...]
    environment_file: Path
    image: str = UNKNOWN_IMAGE

    @property
    def waits(self) -> bool:
        """Whether a shard waits for the window itself, because restarts would run out first."""
        return self.manifest.window is not None

    @property
    def leaving_s(self) -> int:
        """How many seconds a shard needs from SIGTERM to its end."""
        return self.grace_s + _LEAVING_S

    @property
    def log_folder(self) -> Path:
        """Where Slurm writes the shards' output."""
        return self.manifest_path.parent / f"{self.name}-logs"

    @property
    def dns_name(self) -> str:
        """The name as Kubernetes accepts it."""
        plain = re.sub(r"[^a-z0-9-]+", "-", self.name.lower())
        return plain[:50].strip("-")


def job_file(engine: str, fleet: Fleet) -> str:
    """Return the whole file for an engine; raises UsageError if it cannot run this batch."""
    return _slurm(fleet) if engine == "slurm" else _kubernetes(fleet)


def next_steps(engine: str, fleet: Fleet, path: str) -> Iterator[str]:
    """Yield the next commands once the file is saved as `path`: to start, to look, to stop."""
    status = f"batch-runner status {shlex.quote(str(fleet.manifest_path))}"
    if engine == "slurm":
        environment_file = shlex.quote(str(fleet.environment_file))
        yield f"token:  write {TOKEN_VARIABLE}=… into {environment_file}, mode 0600"
        yield f"start:  mkdir -p {shlex.quote(str(fleet.log_folder))} && sbatch {path}"
        yield f"look:  squeue --name={fleet.name}; {status}"
        yield f"collect and stop:  scancel --batch --signal=TERM --name={fleet.name}"
        return
    name = fleet.dns_name
    yield from _image_steps(fleet)
    if (layout := _layout(fleet)).is_large:
        yield f"volume:  kubectl apply --server-side -f {path} creates it; then copy into its root"
        for here, source in layout.inputs.items():
            yield f"  {source} to {here.removeprefix('/batch')}"
    yield f"token:  kubectl create secret generic {_secret(name)} --from-file=token=FILE"
    yield (
        f"other variables, if the batch needs any:  kubectl create secret generic"
        f" {name}-environment --from-env-file=FILE"
    )
    yield f"start:  kubectl apply --server-side -f {path}"
    yield f"look:  kubectl get pods -l app.kubernetes.io/instance={name}"
    yield f"collect and stop:  kubectl delete job {name}"
    yield f"resume:  kubectl delete job {name}, then start; nothing is bought twice"


def _image_steps(fleet: Fleet) -> Iterator[str]:
    if fleet.image == UNKNOWN_IMAGE:
        extras = ",".join(_extras(fleet.manifest))
        program = f"batch-runner[{extras}]" if extras else "batch-runner"
        yield (
            f"image:  install {program} in an image with Python 3.12, push it, and repeat this"
            " command with --image REGISTRY/batch-runner"
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
    # Slurm replaces %A by the array's id and %a by the index.
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
    """Where files are in a container: in the same relative places as here.

    `is_scratch`: everything in the output folders is also in buckets, so no volume is needed.
    """

    manifest: str
    outputs: list[str]
    is_scratch: bool
    inputs: dict[str, Path]

    @property
    def is_large(self) -> bool:
        """Whether the manifest and its tables are too large for a ConfigMap."""
        sources = self.inputs.values()
        # A folder of pictures does not fit into one at all.
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
                f"{what} is an absolute path, which a container does not have: {path}",
                hint="write it relative to the manifest",
            )
    above = max((path.split("/").count("..") for path in paths.values()), default=0)
    if above >= len(folder.parts):
        raise UsageError("the manifest names a folder above the root", hint="write fewer `..`")
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
            f"{source}: cannot be read: {error.strerror}", hint="check its permissions"
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
    """Return a file as lines of readable text if YAML allows that, else as base64."""
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
