"""Where a model takes the prompt and the pictures.

What always holds: pictures go into the input that the manifest names, else into the only one whose
schema takes pictures, else into the one with a usual name; a guess between several is an error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from batch_runner.models.dialect import takes_image, takes_one

_USUAL_IMAGE_NAMES = ("image_urls", "images", "image_url", "image")


class ModelInputError(ValueError):
    """Prompt or pictures do not fit into the model's input; has a message and a hint."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class Placing:
    """The inputs of one model that take prompt and pictures.

    `properties` are the schemas of its inputs, empty if none is known. `image_properties` are the
    inputs that take the pictures.
    """

    def __init__(
        self,
        model_id: str,
        properties: Mapping[str, Mapping[str, Any]],
        required: Sequence[str],
        *,
        prompt_as: str | None,
        images_as: str | Mapping[str, int] | None,
    ) -> None:
        self.model_id = model_id
        self._properties = properties
        self._required = required
        is_text = "prompt" not in properties and "text" in properties
        self.prompt_property = prompt_as or ("text" if is_text else "prompt")
        self._takers = [name for name, schema in properties.items() if takes_image(schema)]
        self._images_as = named = images_as or self._find_images()
        self.image_properties = [named] if isinstance(named, str) else list(named or ())
        # Every job asks, and the answer is the same for all.
        self._taking_one = {name for name, schema in properties.items() if takes_one(schema)}

    def place(self, prompt: str, urls: list[str]) -> dict[str, Any]:
        """Return the part of the input that holds prompt and pictures; raises ModelInputError."""
        placed: dict[str, Any] = {self.prompt_property: prompt}
        if not urls:
            if any(name in self._required for name in self.image_properties):
                raise ModelInputError(
                    f"the model {self.model_id} edits pictures, and there are none",
                    "add images, such as images: {mug: https://…/mug.png}",
                )
            return placed
        if self._images_as is None and self._takers:
            raise ModelInputError(
                f"the model {self.model_id} has several inputs for pictures",
                f"say which with images_as, such as {self._example()}",
            )
        if self._images_as is None:
            raise ModelInputError(
                f"the model {self.model_id} takes no pictures",
                "remove images, or choose a model that edits pictures",
            )
        if isinstance(self._images_as, str):
            placed[self._images_as] = self._one_or_many(self._images_as, urls)
            return placed
        for name, position in self._images_as.items():
            if position <= len(urls):
                placed[name] = self._one_or_many(name, [urls[position - 1]])
        if len(urls) > len(set(self._images_as.values())):
            raise ModelInputError(
                f"there are {len(urls)} pictures, but images_as names {len(self._images_as)}",
                "name an input for each picture, or leave pictures out",
            )
        return placed

    def _find_images(self) -> str | None:
        if not self._properties:
            return "image_urls"
        found = self._takers
        if len(found) > 1:
            found = [name for name in found if name in self._required]
        found = found or [name for name in _USUAL_IMAGE_NAMES if name in self._properties]
        return found[0] if len(found) == 1 else None

    def _example(self) -> str:
        places = (f"{name}: {number}" for number, name in enumerate(self._takers, start=1))
        return f"images_as: {{{', '.join(places)}}}"

    def _one_or_many(self, name: str, urls: list[str]) -> str | list[str]:
        """Send a string where the property is one, a list elsewhere."""
        if name not in self._taking_one:
            return urls
        if len(urls) > 1:
            hint = "give one URL for each image id; in a table, pictures: 1 takes one, and"
            hint += " each: picture makes a job of each"
            if len(self._takers) > 1:
                hint = f"say which goes where: {self._example()}; or {hint}"
            raise ModelInputError(f"'{name}' takes one picture, here are {len(urls)}", hint)
        return urls[0]
