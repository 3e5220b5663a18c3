"""Where a manifest or a table is to blame for a job that cannot be.

Hides the ladder of places that may set an input: a prompt, the matrix, a model's notes, the
manifest. What always holds: the nearest place is blamed, and each problem is added once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from unicodedata import normalize

from batch_runner.jobs.images import ImageSet
from batch_runner.manifest.document import Location
from batch_runner.manifest.form import Manifest, TableImages
from batch_runner.manifest.problems import Problems
from batch_runner.manifest.validation import Finding
from batch_runner.models.model import Model
from batch_runner.models.placing import ONE_PICTURE_EACH, ModelInputError
from batch_runner.records import Job

_ROWS_NAMED = 5
_ONE_PICTURE_A_ROW = "under images, pictures: 1 takes one, each: picture makes a job of each"


class Blame:
    """Adds problems of jobs where they arise; `models` are all that the manifest names."""

    def __init__(self, manifest: Manifest, models: Mapping[str, Model], problems: Problems) -> None:
        self.manifest = manifest
        self.models = models
        self.problems = problems

    def empty_prompt(self, images: ImageSet, location: Location) -> None:
        """Add the problem of a prompt without text: of its row, or of the prompt itself."""
        hint = "write what to do with the pictures"
        if images.row is not None:
            self.problems.add_row(images.row, f"the prompt '{location[1]}' is empty", hint)
        else:
            self.problems.add(location, "the prompt is empty", hint)

    def misplaced(self, model: Model, images: ImageSet, error: ModelInputError) -> None:
        """Add the problem of pictures that do not fit into the model's inputs."""
        hint = error.hint
        if images.row is not None and len(images.pictures) > 1 and hint is not None:
            # One problem for the whole table: one for each such row would hide all others.
            hint = hint.replace(ONE_PICTURE_EACH, _ONE_PICTURE_A_ROW)
            hint = f"first in row {images.row.number}; {hint}"
        self.problems.add(images.location, self._named(model, error.message), hint)

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
        name = str(finding.location[0]) if finding.location else ""
        what = "inputs: " * (not name) + self._named(model, finding.what)
        hint, notes = finding.hint, ("models", model.model_id)
        inside: Location = ("inputs", *finding.location)
        if name in model.image_properties and model.has_input(name):
            if images.row is not None:
                self.problems.add_row(images.row, what, hint)
                return
            places: list[Location] = [images.location]
            what = f"pictures of '{images.id}': {what}"
            hint = hint or "all pictures of an image id go into one job: use several ids"
        elif name in model.image_properties:
            named: Location = ("images_as", name)
            places = [(*notes, *named), (*notes, "images_as"), named, ("images_as",)]
        elif name != model.prompt_property:
            places = [(*owner, *inside), (*notes, *inside), inside]
            if name in self.manifest.matrix and name in input_:
                axis: Location = ("matrix", name)
                position = self.manifest.matrix[name].index(input_[name])
                places.insert(1, (*axis, position) if model.has_input(name) else axis)
            others = (one for one in self.models.values() if one.schema_source is not None)
            knows = [one.model_id for one in others if one.has_input(name)]
            if knows and not model.has_input(name):
                hint = f"leave it out here; if need be, write it under models: {{{knows[0]}: …}}"
        elif model.has_input(name):
            places = [written_at]
        else:
            places = [(*notes, "prompt_as"), ("prompt_as",)]
            what = f"the model {model.model_id} has no input '{name}' for the prompt"
            hint = f"say which takes it: prompt_as: NAME ({hint})"
        places.append(self.manifest.model_locations[model.model_id])
        lines = self.manifest.document.lines
        self.problems.add(next(place for place in places if place in lines), what, hint)

    def _named(self, model: Model, what: str) -> str:
        """Return a problem with its model in front if the manifest names several."""
        is_clear = len(self.models) == 1 or model.model_id in what
        return what if is_clear else f"{model.model_id}: {what}"

    def same_key(self, first: Job, second: Job, rows: list[int]) -> None:
        """Add the problem of two jobs with one key; `rows` are all that share their id."""
        source = self.manifest.images
        if isinstance(source, TableImages) and source.is_folder and first.row and second.row:
            paths = f"{first.cells['path']} and {second.cells['path']}"
            what = f"two pictures have the id '{second.image_id}': {paths}"
            hint = "put folder or suffix into images.id, or pictures of one product together with"
            hint += ' images.group, such as group: "{{ folder }}"'
            self.problems.add(("images", "id"), what, hint)
        else:
            later = sorted(set(rows) - {first.row})
            shown = ", ".join(map(str, later[:_ROWS_NAMED])) + ", …" * (len(later) > _ROWS_NAMED)
            what = f"row{'s' * (len(later) > 1)} {shown}: the id '{second.image_id}' is that of row"
            hint = "choose a column whose values are unique for images.id, leave one of the rows"
            hint += " out, or put rows of one product together with images.group"
            self.problems.add_table_wide(f"{what} {first.row} too", hint)

    def same_path(self, first: Job, second: Job, claim: str) -> None:
        """Add the problem of two jobs that would write one file."""
        later = second.key
        if normalize("NFC", first.key) == normalize("NFC", later):
            # The same letters, in other characters: both keys would look alike.
            later = later.encode("ascii", "backslashreplace").decode()
        what = f"the jobs '{first.key}' and '{later}' would both write '{claim}'"
        if first.path != second.path and first.path.casefold() == second.path.casefold():
            what += f": '{first.path}' and '{second.path}' differ in letter case only"
        one, other = (
            {"image": job.image_id, "prompt": job.prompt_id, "repeat": job.repeat, **job.point}
            for job in (first, second)
        )
        name = next((name for name in one if one[name] != other.get(name)), "image")
        template = self.manifest.output.path
        hint = f"put {{{{ {name} }}}} into output.path"
        if name == "image" and (template is None or name in template.variables):
            ids = f"'{first.image_id}' and '{second.image_id}'"
            hint = f"rename one of the ids {ids}: disks may take them for one name"
        self.problems.add(("output", "path"), what, hint)
