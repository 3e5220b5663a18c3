"""Where a manifest or a table is to blame for a job that cannot be.

Hides the ladder of places that may set an input: a prompt, the matrix, a model's notes, the
manifest. What always holds: the nearest place is blamed, and each problem is added once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batch_runner.jobs.images import ImageSet
from batch_runner.manifest.document import Location
from batch_runner.manifest.form import Manifest, Prompt, TableImages
from batch_runner.manifest.problems import Problems
from batch_runner.manifest.validation import Finding
from batch_runner.models.model import Model
from batch_runner.models.placing import ModelInputError
from batch_runner.records import Job
from batch_runner.table import Row
from batch_runner.text.path import collision_key

_ROWS_NAMED = 5


class Blame:
    """Adds problems of jobs where they arise; `models` are all that the manifest names."""

    def __init__(self, manifest: Manifest, models: Mapping[str, Model], problems: Problems) -> None:
        self.manifest = manifest
        self.models = models
        self.problems = problems

    def empty_prompt(self, images: ImageSet, prompt: Prompt) -> None:
        """Add the problem of a prompt without text: of its row, or of the prompt itself."""
        what = f"the prompt '{prompt.id}' is empty"
        self._add(images.row, prompt.location, what, "write what to do with the pictures")

    def misplaced(self, model: Model, images: ImageSet, error: ModelInputError) -> None:
        """Add the problem of pictures that do not fit into the model's inputs."""
        # One problem for a whole table: one for each such row would hide all others.
        self.problems.add(images.location, self._named(model, error.message), error.hint)

    def refused_input(
        self,
        model: Model,
        finding: Finding,
        input_: Mapping[str, Any],
        images: ImageSet,
        prompt: Prompt,
    ) -> None:
        """Point at the nearest place that set the input which the model does not take."""
        name = str(finding.location[0]) if finding.location else ""
        what = "inputs: " * (not name) + self._named(model, finding.what)
        hint, is_input = finding.hint, model.has_input(name)
        if name in model.image_properties and is_input:
            hint = (
                hint
                or "all pictures of an image id go into one job: use several ids, or take fewer"
            )
            what = what if images.row else f"pictures of '{images.id}': {what}"
            self._add(images.row, images.location, what, hint)
            return
        notes = ("models", model.model_id)
        if name == model.prompt_property and is_input:
            places: list[Location] = [prompt.location]
        elif name == model.prompt_property:
            places = [(*notes, "prompt_as"), ("prompt_as",)]
            what = f"the model {model.model_id} has no input '{name}' for the prompt"
            hint = f"say which takes it: prompt_as: NAME ({hint})"
        elif name in model.image_properties:
            named: Location = ("images_as", name)
            places = [(*notes, *named), (*notes, "images_as"), named, ("images_as",)]
        else:
            inside: Location = ("inputs", *finding.location)
            axis: Location = ("matrix", name)
            values = enumerate(self.manifest.matrix.get(name, ()) if is_input else ())
            points = ((*axis, place) for place, value in values if value == input_.get(name))
            places = [(*prompt.location[:2], *inside), *points, axis, (*notes, *inside), inside]
            others = (one for one in self.models.values() if one.schema_source is not None)
            knows = [one.model_id for one in others if one.has_input(name)]
            if knows and not is_input:
                hint = f"leave it out here; if need be, write it under models: {{{knows[0]}: …}}"
        places.append(self.manifest.model_locations[model.model_id])
        lines = self.manifest.document.lines
        self.problems.add(next(place for place in places if place in lines), what, hint)

    def _add(self, row: Row | None, location: Location, what: str, hint: str) -> None:
        if row is None:
            self.problems.add(location, what, hint)
        else:
            self.problems.add_row(row, what, hint)

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
        what = f"the jobs '{first.key}' and '{second.key}' would both write '{claim}'"
        if collision_key(first.key) == collision_key(second.key):
            what += f": disks may take {first.key!a} and {second.key!a} for one name"
        one, other = (
            {"image": job.image_id, "prompt": job.prompt_id, "repeat": job.repeat, **job.point}
            for job in (first, second)
        )
        name = next((name for name in one if one[name] != other.get(name)), "image")
        template = self.manifest.output.path
        hint = f"put {{{{ {name} }}}} into output.path"
        if name == "image" and (template is None or name in template.variables):
            hint = f"rename one of the ids '{first.image_id}' and '{second.image_id}'"
        self.problems.add(("output", "path"), what, hint)
