"""UniPC: a predictor whose every step is corrected with the output of the next, at no further call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, ClassVar

from numpy.polynomial import Polynomial

from ..basics.checks import boolean, choice
from .exponential import solver_order
from .interpolants import interpolation_error, lagrange_weights, rising_moments
from .multistep import OUTPUT_RATES, WEIGHT, Multistep, Near, Row

__all__ = ["UniPC"]


@dataclass(frozen=True)
class UniPC(Multistep):
    """UniPC of data prediction: the polynomial through the last p outputs predicts, one more node corrects.

    The denoiser is asked at the predicted state x_k, and D_k then corrects x_k before it predicts x_{k+1}. Both start
    from the corrected state before, so that the correction is a combination of D_k, ..., D_{k-p}: on predicted states
    the method is a multistep one with p outputs of memory, of order p + 1. The state that leaves the last step is
    predicted. Source: Zhao et al., UniPC (2023), algorithms 1 and 2 and B(h) = h ("bh1") or exp(h) - 1 ("bh2"), which
    differ where the weight 1/2 stands for an exact one: in predictors of order 2, correctors of order 1. As diffusers'
    UniPCMultistepScheduler with predict_x0; docs/theory.md section 2.

    Args:
        solver_order: p, 2 or 3.
        solver_type: "bh1" or "bh2".
        lower_order_final: whether no step has a higher order than steps are left, itself and that to zero counted in.

    Raises:
        ValueError: a field that is none of these.

    >>> UniPC(2).order, UniPC(2).memory
    (3, 2)
    """

    solver_order: int = 2
    solver_type: str = "bh2"
    lower_order_final: bool = True
    name: ClassVar[str] = "unipc"

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "solver_order", solver_order(self.solver_order, "UniPC.solver_order", (2, 3)))
        put(self, "solver_type", choice(self.solver_type, "UniPC.solver_type", ("bh1", "bh2")))
        put(self, "lower_order_final", boolean(self.lower_order_final, "UniPC.lower_order_final"))

    @property
    def order(self) -> int:  # type: ignore[override]
        """`solver_order` + 1."""
        return self.solver_order + 1

    @property
    def memory(self) -> int:  # type: ignore[override]
        """`solver_order`: the corrector goes one node further back than the predictor."""
        return self.solver_order

    def _relative_error(self) -> Polynomial:
        p = self.solver_order
        nodes = [-float(j) for j in range(p)]
        predicted = -interpolation_error(nodes) * OUTPUT_RATES[p]
        if p == 2:  # 1/2 and (1 - exp(-h)) / (2h) against (h - 1 + exp(-h)) / h^2 = 1/2 - h/6
            predicted = predicted + (1 / 6 if self.solver_type == "bh1" else -1 / 12) * OUTPUT_RATES[1]
        # the corrector's own error, and that of the state at which its outputs are taken
        return -interpolation_error([1.0, *nodes]) * OUTPUT_RATES[p + 1] + WEIGHT * predicted

    def _moments(self, length: Any, decay: Any) -> Sequence[Any]:
        return rising_moments(length, decay, self.solver_order + 1)

    def _row(self, near: Near) -> Row:
        order = near.order(self.solver_order, self.lower_order_final)
        outputs = [near.lengths[0] * weight for weight in self._predictor(near, order)]
        if len(near.lengths) == 1:
            return Row(near.decay, outputs)
        correction = [near.decay * near.lengths[1] * weight for weight in self._correction(near.before)]
        return Row(near.decay, [a + b for a, b in zip_longest(outputs, correction, fillvalue=0.0)])

    def _predictor(self, near: Near, order: int) -> list[Any]:
        """Weights of D_k, D_{k-1}, ... over the step's length."""
        return lagrange_weights(near.places(order), self._used(near.moments[0], order, 2))

    def _correction(self, near: Near) -> list[Any]:
        """Weights of D_{k+1}, D_k, ... in the corrected state minus the predicted one, over the step's length."""
        order = near.order(self.solver_order, self.lower_order_final)
        places = [1.0, *near.places(order)]
        corrected = lagrange_weights(places, self._used(near.moments[0], order + 1, 2 if order == 1 else 0))
        predicted = self._predictor(near, order)
        return [corrected[0], *(a - b for a, b in zip(corrected[1:], predicted, strict=True))]

    def _used(self, moments: Sequence[Any], count: int, halved: int) -> Sequence[Any]:
        """The first moments, the second one rounded to B(h)/2 where there are `halved` of them."""
        if count != halved:
            return moments[:count]
        return [moments[0], moments[0] / 2 if self.solver_type == "bh2" else 0.5]
