"""Where a manifest or a table is to blame for a job that cannot be.

Hides the ladder of places that may set an input: a prompt, the matrix, a model's notes, the
manifest. What always holds: the nearest place is blamed, and each problem is added once.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any
from unicodedata import normalize

from batch_runner.jobs.images import ImageSet
from batch_runner.manifest.document import Location
from batch_runner.manifest.form import Manifest, TableImages
from batch_runner.manifest.problems import Problems
from batch_runner.manifest.validation import Finding
from batch_runner.models.model import Model
from batch_runner.records import Job
from batch_runner.table import Row

_ROWS_NAMED = 5


class Blame:
    """Adds problems of jobs where they arise; `models` are all that the manifest names."""

    def __init__(self, manifest: Manifest, models: Mapping[str, Model], problems: Problems) -> None:
        self.manifest = manifest
        self.models = models
        self.problems = problems

    def empty_prompt(self, row: Row | None, location: Location) -> None:
        """Add the problem of a prompt without text: of its row, or of the prompt itself."""
        what, hint = f"the prompt '{location[1]}' is empty", "write what to do with the pictures"
        if row is not None:
            self.problems.add_row(row, what, hint)
        else:
            self.problems.add(location, "the prompt is empty", hint)

    def refused_input(
        self,
        model: Model,
        finding: Finding,
        input_: Mapping[str, Any],
        images: ImageSet,
        *,
        written_at: Location,
        owner: Location,
    ) -> None:
        """Point at the nearest place that set the input which the model does not take."""
        manifest, what, hint = self.manifest, self.named(model, finding.what), finding.hint
        name = str(finding.location[0]) if finding.location else ""
        what = what if finding.location else f"inputs: {what}"
        if name in model.image_properties and model.has_input(name):
            if images.row is not None:
                self.problems.add_row(images.row, what, hint)
            else:
                hint = hint or "all pictures of an image id go into one job: use several ids"
                self.problems.add(images.location, f"pictures of '{images.id}': {what}", hint)
            return
        notes: Location = ("models", model.model_id)
        places: list[Location] = []
        if name == model.prompt_property:
            places = [(*notes, "prompt_as"), ("prompt_as",)]
            if model.has_input(name):
                places = [written_at]
            else:
                what = f"the model {model.model_id} has no input '{name}' for the prompt"
                hint = f"say which takes it: prompt_as: NAME ({hint})"
        elif name in model.image_properties:
            named: Location = ("images_as", name)
            places = [(*notes, *named), (*notes, "images_as"), named, ("images_as",)]
        else:
            inside = ("inputs", *finding.location)
            places = [(*owner, *inside), (*notes, *inside), inside]
            if name in manifest.matrix and name in input_:
                axis: Location = ("matrix", name)
                position = manifest.matrix[name].index(input_[name])
                places.insert(1, (*axis, position) if model.has_input(name) else axis)
            knows = self._knows(model, name)
            if knows is not None:
                hint = f"leave it out here; if need be, write it under models: {{{knows}: …}}"
        places.append(manifest.model_locations[model.model_id])
        lines = manifest.document.lines
        self.problems.add(next(place for place in places if place in lines), what, hint)

    def named(self, model: Model, what: str) -> str:
        """Return a problem with its model in front if the manifest names several."""
        is_clear = len(self.models) == 1 or model.model_id in what
        return what if is_clear else f"{model.model_id}: {what}"

    def _knows(self, model: Model, name: str) -> str | None:
        """Return another model that has this input; None if there is none, or `model` has it."""
        if model.has_input(name):
            return None
        checked = (one for one in self.models.values() if one.schema_source is not None)
        return next((one.model_id for one in checked if one.has_input(name)), None)

    def same_key(self, first: Job, second: Job, rows: list[int]) -> None:
        """Add the problem of two jobs with one key; `rows` are all that share their id."""
        source = self.manifest.images
        if isinstance(source, TableImages) and source.is_folder and first.row and second.row:
            paths = f"{first.cells['path']} and {second.cells['path']}"
            what = f"two pictures have the id '{second.image_id}': {paths}"
            hint = "put folder or suffix into images.id, or pictures of one product together with"
            hint += ' images.group, such as group: "{{ folder }}"'
            self.problems.add(("images", "id"), what, hint)
            return
        if first.row is not None and second.row is not None:
            later = sorted(set(rows) - {first.row})
            shown = ", ".join(map(str, later[:_ROWS_NAMED])) + ", …" * (len(later) > _ROWS_NAMED)
            place = f"row{'s' * (len(later) > 1)} {shown}"
            what = f"{place}: the id '{second.image_id}' is that of row {first.row} too"
            hint = "choose a column whose values are unique for images.id, leave one of the rows"
            hint += " out, or put rows of one product together with images.group"
            self.problems.add_table_wide(what, hint)
            return
        ids = [include.id for include in self.manifest.include]
        # From the end: if two entries share an id, the later one is blamed.
        location = ("include", len(ids) - 1 - ids[::-1].index(second.image_id or ""), "id")
        what = f"two jobs are called '{second.key}'"
        self.problems.add(location, what, "give this one another id")

    def same_path(self, first: Job, second: Job, claim: str) -> None:
        """Add the problem of two jobs that would write one file."""
        later = second.key
        if normalize("NFC", first.key) == normalize("NFC", later):
            # The same letters, in other characters: both keys would look alike.
            later = later.encode("ascii", "backslashreplace").decode()
        what = f"the jobs '{first.key}' and '{later}' would both write '{claim}'"
        if first.path != second.path and first.path.casefold() == second.path.casefold():
            what += f": '{first.path}' and '{second.path}' differ in letter case only"
        template = self.manifest.output.path
        names = None if template is None else template.variables
        self.problems.add(("output", "path"), what, _difference(first, second, names))


def _difference(first: Job, second: Job, names: Collection[str] | None) -> str:
    """Return a hint that makes two paths differ; `names` are in the path (None: all)."""
    differing = [axis for axis, value in first.point.items() if second.point.get(axis) != value]
    differing += ["repeat"] if first.repeat != second.repeat else []
    differing += ["prompt"] if first.prompt_id != second.prompt_id else []
    differing += ["image"] if first.image_id != second.image_id else []
    if differing[-1] == "image" and (names is None or "image" in names):
        ids = f"'{first.image_id}' and '{second.image_id}'"
        return f"rename one of the ids {ids}: disks may take them for one name"
    return f"put {{{{ {differing[-1]} }}}} into output.path"
