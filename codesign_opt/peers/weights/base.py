"""A loss weight: stated on one prediction target, known on all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from ...basics.checks import Array, instance, number, numbers, shown
from ...basics.registry import Registry
from ...basics.user_code import answer
from ...ingredients.densities import SigmaDensity
from ...ingredients.parameterization import target_gain, target_name

__all__ = ["WEIGHTINGS", "Weighting", "add_weighting"]

Maker = TypeVar("Maker", bound=Callable[..., "Weighting"])
WEIGHTINGS: Registry[Callable[..., Weighting]] = Registry("weighting")

_STRATA = 20_000  # quantiles over which a weight is averaged


@dataclass(frozen=True, eq=False)
class Weighting:
    """Weight of the loss |estimate - y|^2 on a prediction target y, and the same loss stated on any other target.

    An error of the denoiser is an error target_gain(y) times as large in y (docs/theory.md section 5, with 1 / c_out),
    so that weight_y |estimate - y|^2 = weight_y gain_y^2 |D - x0|^2. Called with noise levels it gives the weight
    on its own target.

    Args:
        name: for tables.
        target: "eps", "x0", "v" (variance preserving), "flow" (or "u", straight path) or "edm" (or "F").
        weight: function of sigma (N,) -> (N,), >= 0.
        sigma_data: of "edm".
        scale: factor on the weight; see `normalised`.

    >>> plain = Weighting("plain eps", "eps", lambda sigma: np.ones_like(sigma))
    >>> plain.denoiser(np.array([0.5])).tolist(), plain.on("x0")(np.array([0.5])).tolist()
    ([4.0], [4.0])
    """

    name: str
    target: str
    weight: Callable[[Array], Array]
    sigma_data: float = 0.5
    scale: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "target", target_name(self.target, "Weighting.target"))
        if not callable(self.weight):
            raise ValueError(f"Weighting.weight is {shown(self.weight)}; a function of sigma is needed.")
        for field in ("sigma_data", "scale"):
            object.__setattr__(self, field, number(getattr(self, field), f"Weighting.{field}", positive=True))

    def __call__(self, sigma: Any) -> Any:
        """Weight on the own target; numpy in, numpy out, and a torch tensor for a torch tensor."""
        return _alike(sigma, self._own)

    def denoiser(self, sigma: Any) -> Any:
        """Equivalent weight on |D - x0|^2, what `Parameterization.output_weight` and training in this library take."""
        return _alike(sigma, lambda levels: self._own(levels) * self._gain(self.target, levels) ** 2)

    def on(self, target: str) -> Callable[[Any], Any]:
        """The same loss as a weight on another target: a function of sigma.

        Raises:
            ValueError: an unknown target.
        """
        other = target_name(target, "Weighting.on: target")
        return lambda sigma: _alike(
            sigma, lambda at: self._own(at) * (self._gain(self.target, at) / self._gain(other, at)) ** 2
        )

    def normalised(self, density: SigmaDensity, *, target: str | None = None) -> Weighting:
        """The weight times the factor that makes its mean over a training density 1 on a target (its own unless given).

        The average scale of the loss, and with it the learning rate, then stays that of the plain loss.

        Raises:
            ValueError: a weight whose mean is not positive and finite.
        """
        instance(density, SigmaDensity, "Weighting.normalised: density")
        sigma = density.quantile((np.arange(_STRATA) + 0.5) / _STRATA)
        own = self if target is None else self.on(target)
        with np.errstate(over="ignore", divide="ignore"):  # said below
            mean = float(np.mean(own(sigma)))
        if not (np.isfinite(mean) and mean > 0):
            raise ValueError(f"{self.name} has the mean {mean:g} over {density!r}; restrict the density with between.")
        return replace(self, scale=self.scale / mean)

    def _own(self, sigma: Array) -> Array:
        return self.scale * answer(self.weight, sigma, f"Weighting.weight of {self.name!r}")

    def _gain(self, target: str, sigma: Array) -> Array:
        return target_gain(target, sigma, sigma_data=self.sigma_data)

    def __repr__(self) -> str:
        return f"Weighting({self.name} on {self.target})"


def add_weighting(name: str) -> Callable[[Maker], Maker]:
    """Decorator: a function that makes a Weighting goes by a name in `weighting`, its parameters with it.

    Raises:
        ValueError: a name that another function has.

    >>> from codesign_opt import peers
    >>> @peers.add_weighting("high_noise")
    ... def high_noise(power: float = 1.0) -> peers.Weighting:
    ...     "sigma^power on eps."
    ...     return peers.Weighting("high_noise", "eps", lambda sigma: sigma**power)
    >>> peers.weighting("high_noise", power=2.0)(3.0)
    9.0
    """

    def enter(maker: Maker) -> Maker:
        WEIGHTINGS.add(name, maker)
        return maker

    return enter


def _alike(sigma: Any, function: Callable[[Array], Array]) -> Any:
    """function(sigma) in the kind of sigma: number, array, or torch tensor of the same dtype and device."""
    if type(sigma).__module__.split(".")[0] == "torch":
        found = function(numbers(sigma, "sigma").reshape(-1))
        return sigma.new_tensor(np.array(found)).reshape(sigma.shape)
    levels = numbers(sigma, "sigma")
    found = function(levels.reshape(-1)).reshape(levels.shape)
    return float(found) if levels.ndim == 0 else found
