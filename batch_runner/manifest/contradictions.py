"""What is well-formed but makes no sense, such as names that refer to nothing."""

from __future__ import annotations

from batch_runner.errors import did_you_mean
from batch_runner.manifest.form import ABOUT_ONE_MODEL, MODEL_AXIS, Manifest, TableImages
from batch_runner.manifest.problems import Problems
from batch_runner.manifest.validation import show
from batch_runner.text.path import value_text


def find_contradictions(manifest: Manifest, problems: Problems) -> None:
    """Report what is well-formed but makes no sense."""
    for axis, values in manifest.matrix.items():
        for position, value in enumerate(values):
            if value_text(value) in map(value_text, values[:position]):
                what = f"'{axis}' lists {show(value)} twice"
                hint = "remove one; repeat: 2 makes two generations of every job"
                problems.add(("matrix", axis, position), what, hint)
    _find_contradictions_of_models(manifest, problems)
    _find_outputs_as_inputs(manifest, problems)


def _find_contradictions_of_models(manifest: Manifest, problems: Problems) -> None:
    used = manifest.model_locations
    unnamed = [one for one in manifest.prompts if one.model is None]
    if manifest.model is None and MODEL_AXIS not in manifest.matrix and unnamed:
        what = f"no model is named for the prompt '{unnamed[0].id}'"
        hint = "write model: MODEL_ID at the top, such as google/nano-banana-2/edit"
        problems.add(unnamed[0].location[:2], what, hint)
        return
    if MODEL_AXIS in manifest.matrix:
        for prompt in manifest.prompts:
            if prompt.model is not None:
                problems.add(
                    ("prompts", prompt.id, "model"),
                    f"the prompt '{prompt.id}' has a model, and the matrix has models for it too",
                    "remove one of them; exclude leaves single combinations out",
                )
    for model_id in manifest.models:
        if model_id not in used:
            what = f"models: no job goes to '{model_id}'"
            problems.add(("models", model_id), what, did_you_mean(model_id, used))
    if manifest.main_model not in used:
        for name in ABOUT_ONE_MODEL:
            if name in manifest.document.data:
                what = f"'{name}' does not say which of the {len(used)} models it is about"
                hint = f"write it for each: models: {{{next(iter(used))}: {{{name}: …}}}}"
                problems.add((name,), what, hint)


def _find_outputs_as_inputs(manifest: Manifest, problems: Problems) -> None:
    """Find an output folder among the pictures: every run would edit what the last one made."""
    images, output = manifest.images, manifest.output
    if not isinstance(images, TableImages) or not images.is_folder or output.bucket is not None:
        return
    root, place = images.path.resolve(), output.dir.resolve()
    is_inside = place == root or root in place.parents
    pattern = images.form.pattern or "*"
    depth = len(place.relative_to(root).parts) if is_inside else 0
    if is_inside and ("**" in pattern or pattern.count("/") >= depth):
        problems.add(
            ("output", "dir") if "output" in manifest.document.data else ("images", "from"),
            f"the output folder {place} is inside the folder of images.from",
            "choose one outside of it: pictures made there would be edited again",
        )
