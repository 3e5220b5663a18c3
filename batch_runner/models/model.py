"""One model: what it takes, where prompt and pictures go, what a job costs.

What always holds: a cost that is not known is None, never free, and a base price is not a cost;
defaults in a schema are examples and are never sent for the user. A model without a schema can be
used unchecked, and `plan` says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

from batch_runner.manifest.validation import Finding, Validator
from batch_runner.models.dialect import is_count, names_count, properties_of, standard, whole_number
from batch_runner.models.placing import Placing
from batch_runner.records import digest

# Inputs that change the picture and not its price.
_SEED = "seed"
_FREE = frozenset({_SEED, "aspect_ratio", "output_format", "safety_tolerance"})
_DEAREST_FACTOR = 10
"""The dearest inputs of a model cost at most so many times its published base price."""
_LIMIT = "limit_generations"
"""The seed's switch: where it is off, the prompt's words say how many outputs there are."""


class Model(Placing):
    """One model of the service, as far as it is known.

    `schema_source` says where its schema came from, None where there is none. `price_usd` is that
    of one `price_unit` ("output", "image", "second" or "job"); with `price_is_floor`, a job may
    cost more. `price_holds_for` lists the values of inputs for which the price is known to be the
    whole price: with any others a job may cost more, too. None: it holds for all. With
    `price_is_own`, the manifest names the price, and the others are about the published one.
    """

    def __init__(
        self,
        model_id: str,
        *,
        schema: Mapping[str, Any] | None = None,
        schema_source: str | None = None,
        price_usd: Decimal | None = None,
        price_unit: str = "output",
        price_is_floor: bool = False,
        price_holds_for: Mapping[str, Sequence[Any]] | None = None,
        price_is_own: bool = False,
        prompt_as: str | None = None,
        images_as: str | Mapping[str, int] | None = None,
    ) -> None:
        # Compiled first: what is no schema has no properties to look into either.
        self._validator = None if schema is None else Validator(standard(schema))
        super().__init__(
            model_id,
            properties_of(schema or {}),
            tuple((schema or {}).get("required", ())),
            prompt_as=prompt_as,
            images_as=images_as,
        )
        self.price_usd = price_usd
        self.price_unit = price_unit
        self.price_is_floor = price_is_floor and not price_is_own
        self._is_published_floor = price_is_floor
        self._price_is_own = price_is_own
        self._price_holds_for = price_holds_for
        self.schema_source = schema_source if schema is not None else None
        self._placed = frozenset((self.prompt_property, *self.image_properties))
        self._estimated: tuple[dict[str, Any] | None, Decimal | None] = (None, None)
        self._counts = {
            name: schema.get("default")
            for name, schema in self._properties.items()
            if is_count(name, schema)
        }
        self._is_limited = self._properties.get(_LIMIT, {}).get("default")
        further = (schema or {}).get("additionalProperties", False)
        self._takes_more = not self._properties or further is not False

    def has_input(self, name: str) -> bool:
        """Tell whether the model takes an input of that name, as far as is known."""
        return not self._properties or name in self._properties

    def accepts(self, input_: Mapping[str, Any]) -> bool:
        """Tell whether an input is valid; an unchecked model takes everything."""
        return self._validator is None or self._validator.accepts(input_)

    def findings(self, input_: Mapping[str, Any]) -> Iterator[Finding]:
        """Yield everything the model's schema does not allow in an input."""
        if self._validator is not None:
            yield from self._validator.findings(input_)

    def outputs(self, input_: Mapping[str, Any]) -> int:
        """Return how many outputs an input asks for at most; one if it does not say."""
        return self._count(input_)[0]

    def what_is_open(self, input_: Mapping[str, Any]) -> str | None:
        """Return what the input must say for its cost to be known; None if it is known."""
        name = self._count(input_)[1]
        if name == _LIMIT:
            return f"{_LIMIT}: true"
        if name is None and self.price_unit == "second" and self.duration_s(input_) is None:
            name = "duration"
        return None if name is None else f"{name} as a number"

    def _count(self, input_: Mapping[str, Any]) -> tuple[int, str | None]:
        """Return how many outputs an input asks for, and which input leaves open how many more."""
        is_limited = input_.get(_LIMIT)
        is_open = (self._is_limited if is_limited is None else is_limited) is False
        counts = {
            name: default if input_.get(name) is None else input_[name]
            for name, default in self._counts.items()
        }
        if self._takes_more:
            counts |= {
                name: asked
                for name, asked in input_.items()
                if asked is not None
                and name not in self._properties
                and names_count(name, is_number=isinstance(asked, int | float))
            }
        outputs, open_ = 1, _LIMIT if is_open else None
        for name, asked in counts.items():
            count = whole_number(asked)
            if count is None:
                open_ = name
            else:
                outputs *= count
        return outputs, open_

    def duration_s(self, input_: Mapping[str, Any]) -> Decimal | None:
        """Return how many seconds of film an input asks for; None where the model chooses."""
        default = self._properties.get("duration", {}).get("default")
        try:
            duration_s = Decimal(str(input_.get("duration", default)))
        except InvalidOperation:
            return None
        return duration_s if duration_s.is_finite() and duration_s > 0 else None

    def estimate_usd(self, input_: Mapping[str, Any]) -> Decimal | None:
        """Return what a job with this input is expected to cost; None if unknown."""
        # From row to row only the prompt and the pictures differ, and those have no price.
        inputs = {name: value for name, value in input_.items() if name not in self._placed}
        if inputs != self._estimated[0]:
            self._estimated = inputs, self._estimate_usd(inputs)
        return self._estimated[1]

    def _estimate_usd(self, input_: Mapping[str, Any]) -> Decimal | None:
        if not self._price_is_own and not self._has_whole_price(input_):
            return None
        outputs, open_ = self._count(input_)
        if open_ is not None and self.price_unit != "job":
            return None
        return self._cost_usd(input_, outputs)

    def least_usd(self, input_: Mapping[str, Any]) -> Decimal | None:
        """Return what a job with this input costs at the least; None if unknown."""
        return self._cost_usd(input_, self.outputs(input_))

    def most_usd(self, input_: Mapping[str, Any]) -> Decimal | None:
        """Return what a job certainly costs at most, if only a base price is known; None if none.

        Earlier purchases count so much under a budget while nothing better is known of them.
        """
        is_open = self._count(input_)[1] is not None and self.price_unit != "job"
        least_usd = None if is_open else self.least_usd(input_)
        return least_usd * _DEAREST_FACTOR if least_usd else None

    def relies_on_own_price(self, input_: Mapping[str, Any]) -> bool:
        """Tell whether only the manifest says what a job with this input costs."""
        return self._price_is_own and not self._has_whole_price(input_)

    def price_class(self, input_: Mapping[str, Any]) -> str:
        """Return a digest that jobs of one price share: they are equal in all that may change it.

        That is all but prompts, pictures (which count by their number) and the seed.
        """
        found: dict[str, Any] = {}
        for name, value in input_.items():
            if name in (_SEED, self.prompt_property) or name.endswith("prompt"):
                continue
            is_picture = name in self._placed or _is_address(value)
            count = len(value) if isinstance(value, list) else 1
            found[name] = count if is_picture else value
        return digest({"model": self.model_id, "inputs": found})

    def _has_whole_price(self, input_: Mapping[str, Any]) -> bool:
        """Tell whether the published price is known to be the whole price for these inputs."""
        if self._is_published_floor:
            return False
        holds_for = self._price_holds_for
        if holds_for is None:
            return True
        priced = {*self._counts, _LIMIT, *(("duration",) if self.price_unit == "second" else ())}
        priced |= {self.prompt_property, *self.image_properties, *_FREE}
        for name in {**holds_for, **input_}:
            if name in priced:
                continue
            value = input_.get(name)
            if value is None:
                # The service takes its own default, which may be another one tomorrow.
                value = self._properties.get(name, {}).get("default")
            if value is not None and value not in holds_for.get(name, ()):
                return False
        return True

    def _cost_usd(self, input_: Mapping[str, Any], outputs: int) -> Decimal | None:
        if self.price_usd is None or self.price_unit == "job":
            return self.price_usd
        if self.price_unit in ("output", "image"):
            return self.price_usd * outputs
        duration_s = self.duration_s(input_) if self.price_unit == "second" else None
        return None if duration_s is None else self.price_usd * outputs * duration_s


def _is_address(value: Any) -> bool:
    """Tell whether an input is the address of a file, or a list of such."""
    values = value if isinstance(value, list) else [value]
    return bool(values) and all(isinstance(one, str) and "://" in one for one in values)
