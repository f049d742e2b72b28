"""The density in use of a run that is planned again: one object that follows the plans."""

from __future__ import annotations

from ..basics.checks import Array
from ..ingredients.densities import SigmaDensity
from ..peers.densities.of_time import OnLevels

__all__ = ["RunDensity"]


class RunDensity(SigmaDensity):
    """The density that a `Replanner` has in use now; whoever holds it draws from the next one after the next plan.

    Attributes:
        now: the density itself, a frozen value.
    """

    def __init__(self, now: OnLevels) -> None:
        self.now = now

    def tails(self, sigma: Array) -> tuple[Array, Array]:
        """Probability below and above noise levels."""
        return self.now.tails(sigma)

    def quantile(self, u: Array) -> Array:
        """sigma below which a fraction `u` of the training examples lies."""
        return self.now.quantile(u)

    def per_log_sigma(self, sigma: Array) -> Array:
        """Probability per unit log sigma."""
        return self.now.per_log_sigma(sigma)

    def __repr__(self) -> str:
        return f"RunDensity({self.now!r})"
