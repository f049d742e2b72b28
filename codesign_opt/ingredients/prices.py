"""Prices: what the user pays for one training example and for one evaluation of the denoiser."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..basics.checks import Array, ndim, number, takes, vector
from ..basics.user_code import answer
from .levels import Bins, Levels

__all__ = ["Prices"]

Price = float | Array | Callable[[Array], Array]
_FORBID = "a price must be > 0 (use Cap to forbid a level)"
_HINT = "A price must be > 0 (use Cap to forbid a level)."
_LEAST, _MOST = 1e-100, 1e100  # squares of what they buy have to be numbers
_UNIT = "it must lie between 1e-100 and 1e100: state prices and budget in another unit"


@dataclass(frozen=True, eq=False)
class Prices:
    """Price of a training example, price of one evaluation, and how many images will be drawn.

    Training sum_l c_l m_l plus sampling sum_l k_l n_l, where a step costs k = evaluation price x
    evaluations per step x images (docs/theory.md section 1). Any one unit serves: FLOPs, GPU
    seconds, money; the budget is in the same unit.

    Args:
        example: price of one noised training image at one sigma; a number, an array with one entry
            per level (for Problem; a search over stopping points changes the levels), or a function of
            sigma (averaged over each level).
        evaluation: price of one call of the denoiser for one image; the same three forms. Guidance
            on an interval is a function that is 2 inside and 1 outside.
        images: images that will be drawn with the plan, >= 0 (0 only where the steps are given).

    Raises:
        ValueError: a price that is not positive, or not between 1e-100 and 1e100, by name and noise level; images < 0.

    >>> Prices(example=3.0, evaluation=1.0, images=10_000)
    Prices(example=3, evaluation=1, images=10,000)
    """

    example: Price
    evaluation: Price
    images: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "images", number(self.images, "Prices.images", nonnegative=True, maximum=_MOST))
        for name in ("example", "evaluation"):
            value = getattr(self, name)
            if not callable(value):
                if ndim(value) == 0:
                    value = number(value, f"Prices.{name}", positive=True, maximum=_MOST, hint=_HINT)
                    if value < _LEAST:
                        raise ValueError(f"Prices.{name} is {value:g}; state prices and budget in a larger unit.")
                else:
                    value = vector(value, f"Prices.{name}", positive=True, hint=_HINT)
                    far = np.flatnonzero((value < _LEAST) | (value > _MOST))
                    if far.size:
                        raise ValueError(f"Prices.{name} is {value[far[0]]:g} at index {far[0]}; {_UNIT}.")
                object.__setattr__(self, name, value)

    @classmethod
    def from_throughput(cls, *, examples_per_second: float, evaluations_per_second: float, images: float) -> Prices:
        """Prices in GPU seconds from measured speeds; state the budget in GPU seconds too.

        >>> Prices.from_throughput(examples_per_second=500, evaluations_per_second=2000, images=100)
        Prices(example=0.002, evaluation=0.0005, images=100)
        """
        training = number(examples_per_second, "examples_per_second", positive=True)
        sampling = number(evaluations_per_second, "evaluations_per_second", positive=True)
        return cls(example=1 / training, evaluation=1 / sampling, images=images)

    @takes(levels=(Levels, Bins))
    def example_price(self, levels: Levels | Bins) -> Array:
        """(L,) price of one example at each level."""
        return self._tabulate("example", levels)

    @takes(levels=(Levels, Bins))
    def evaluation_price(self, levels: Levels | Bins) -> Array:
        """(L,) price of one evaluation for all images at each level."""
        return self._tabulate("evaluation", levels) * self.images

    def final_price(self, stopping_sigma: float) -> float:
        """Price of the one evaluation for all images that maps the last noise level to zero."""
        value = self.evaluation
        if callable(value):
            return self.images * float(self._call("evaluation", np.array([stopping_sigma]))[0])
        return self.images * float(np.ravel(value)[0])

    def with_images(self, images: float) -> Prices:
        """The same prices for another number of images."""
        return Prices(self.example, self.evaluation, images)

    def to_dict(self, levels: Levels) -> dict[str, Any]:
        """A JSON-able table on the levels."""
        return {
            "example": self.example_price(levels).tolist(),
            "evaluation": self._tabulate("evaluation", levels).tolist(),
            "images": self.images,
        }

    def _tabulate(self, name: str, levels: Levels | Bins) -> Array:
        value = getattr(self, name)
        if callable(value):
            return levels.average(lambda sigma: self._call(name, sigma), points=16)
        if ndim(value) == 0:
            return np.full(len(levels), float(value))
        if value.size != len(levels):
            raise ValueError(
                f"Prices.{name} has {value.size} entries but there are {len(levels)} levels; "
                "give a number or a function of sigma, which serves any number of levels."
            )
        return np.array(value)

    def _call(self, name: str, sigma: Array) -> Array:
        value = answer(getattr(self, name), sigma, f"Prices.{name}")
        bad = np.flatnonzero(~(np.isfinite(value) & (value > 0)))
        if bad.size:
            i = int(bad[0])
            raise ValueError(f"Prices.{name} is {value[i]:g} at sigma = {sigma[i]:.3g}; {_FORBID}.")
        far = np.flatnonzero((value < _LEAST) | (value > _MOST))
        if far.size:
            i = int(far[0])
            raise ValueError(f"Prices.{name} is {value[i]:g} at sigma = {sigma[i]:.3g}; {_UNIT}.")
        return value

    def __repr__(self) -> str:
        def show(value: Price) -> str:
            if callable(value):
                return "function of sigma"
            return f"{value:g}" if ndim(value) == 0 else f"array of {np.size(value)}"

        return f"Prices(example={show(self.example)}, evaluation={show(self.evaluation)}, images={self.images:,.0f})"
