"""Samplers that integrate a polynomial through the last outputs of the denoiser, or slopes, over a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from numpy.polynomial import Polynomial

from ..basics.checks import boolean, choice, integer
from .interpolants import adams_moments, falling_moments, interpolation_error, lagrange_weights, rates, rising_moments
from .multistep import OUTPUT_RATES, WEIGHT, Multistep, Near, Row

__all__ = ["DEIS", "IPNDM", "AdamsBashforth", "DPMpp3M", "solver_order"]

_CARRY = Polynomial([1, -1])  # 1 - W, what the noise makes of the state


def solver_order(value: Any, name: str, known: Sequence[int]) -> int:
    """A number of outputs that a class knows, checked."""
    order = integer(value, name)
    if order not in known:
        raise ValueError(f"{name} is {order}; it must be one of {', '.join(map(str, known))}.")
    return order


@dataclass(frozen=True)
class DPMpp3M(Multistep):
    """DPM-Solver++(3M): x' = (s'/s) x + h sum_m I_m p_m, p the parabola in log sigma through the last three outputs D.

    p = D + p_1 t + p_2 t^2 over the step, h its length in log sigma, I_m = int_0^1 exp(-h (1 - t)) t^m dt, and the
    last term is taken **half**: so do the authors' code and diffusers (DPMSolverMultistepScheduler, solver_order=3),
    whose second difference lacks a factor 2. It is therefore of order 2, with a fraction of 2M's error; the whole
    term would make it order 3. The first step is Euler's and the second 2M's. Source: Lu et al., DPM-Solver++ (2022),
    section 4.2; docs/theory.md section 2.

    Args:
        lower_order_final: whether the last two steps, the one to zero counted in, are of order 2 and 1, as diffusers
            does below 15 steps.

    Raises:
        ValueError: lower_order_final is not True or False.

    >>> DPMpp3M().order, DPMpp3M().memory, DPMpp3M().signed
    (2, 2, True)
    """

    lower_order_final: bool = True
    name: ClassVar[str] = "dpmpp_3m"
    order: ClassVar[int] = 2
    memory: ClassVar[int] = 2

    def __post_init__(self) -> None:
        object.__setattr__(self, "lower_order_final", boolean(self.lower_order_final, "DPMpp3M.lower_order_final"))

    def _relative_error(self) -> Polynomial:
        return -OUTPUT_RATES[2] / 12  # the term t^2 h^2 D'' / 2 has I_2 / 2 = 1/6 in place of 1/3

    def _moments(self, length: Any, decay: Any) -> Sequence[Any]:
        return rising_moments(length, decay, 3)

    def _row(self, near: Near) -> Row:
        order, moments = near.order(3, self.lower_order_final), near.moments[0]
        used = [moments[:1], [moments[0], moments[0] / 2], [*moments[:2], moments[2] / 2]][order - 1]
        return Row(near.decay, [near.lengths[0] * weight for weight in lagrange_weights(near.places(order), used)])


@dataclass(frozen=True)
class DEIS(Multistep):
    """DEIS, log-rho multistep: x' = x + int eps dsigma, eps = (x - D)/sigma a polynomial in log sigma.

    The polynomial goes through the last `solver_order` slopes and is integrated in closed form. The first steps use the
    slopes that there are. Source: Zhang and Chen, Fast Sampling of Diffusion Models with Exponential Integrator
    (2023), section 3, as diffusers' DEISMultistepScheduler (solver_type="logrho"); docs/theory.md section 2.

    Args:
        solver_order: slopes used, 2 or 3.
        lower_order_final: whether the last two steps, the one to zero counted in, are of order 2 and 1, as diffusers
            does below 15 steps.

    Raises:
        ValueError: a field that is none of these.

    >>> DEIS(3).order, DEIS(3).memory
    (3, 2)
    """

    solver_order: int = 2
    lower_order_final: bool = True
    name: ClassVar[str] = "deis"

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "solver_order", solver_order(self.solver_order, "DEIS.solver_order", (2, 3)))
        put(self, "lower_order_final", boolean(self.lower_order_final, "DEIS.lower_order_final"))

    @property
    def order(self) -> int:  # type: ignore[override]
        """`solver_order`."""
        return self.solver_order

    @property
    def memory(self) -> int:  # type: ignore[override]
        """The slopes before this one."""
        return self.solver_order - 1

    def _relative_error(self) -> Polynomial:
        slope = rates(Polynomial([1]), -WEIGHT, self.order)[self.order]  # eps = x (1 - W)/sigma, (log eps)' = -W
        return interpolation_error([-float(j) for j in range(self.order)]) * _CARRY * slope

    def _moments(self, length: Any, decay: Any) -> Sequence[Any]:
        return falling_moments(length, decay, self.solver_order)

    def _row(self, near: Near) -> Row:
        order = near.order(self.solver_order, self.lower_order_final)
        weights = lagrange_weights(near.places(order), near.moments[0][:order])
        return _slopes([-near.levels[1] * near.lengths[0] * weight for weight in weights], near.levels)


@dataclass(frozen=True)
class IPNDM(Multistep):
    """iPNDM: Euler's step of an extrapolated slope or output, with Adams and Bashforth's weights of equal steps.

    prediction="epsilon": x' = x + (s' - s) sum_j b_j (x_{k-j} - D_{k-j})/sigma_{k-j};
    prediction="x0": x' = (s'/s) x + (1 - s'/s) sum_j b_j D_{k-j}; b = 1; 3/2, -1/2; 23/12, -16/12, 5/12; 55/24, ... as
    more are known. The weights hold on steps equal in sigma (in 1/sigma for x0) and on no others: elsewhere the method
    is of order 2, whatever `solver_order`. Source: Zhang and Chen (2023), section 3 and appendix, after Liu et al.,
    PNDM (2022), equation 9; docs/theory.md section 2.

    Args:
        solver_order: slopes or outputs used, 3 or 4.
        prediction: "epsilon" or "x0".

    Raises:
        ValueError: a field that is none of these.

    >>> IPNDM(3).order, IPNDM(4).memory
    (2, 3)
    """

    solver_order: int = 4
    prediction: str = "epsilon"
    name: ClassVar[str] = "ipndm"
    order: ClassVar[int] = 2

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "solver_order", solver_order(self.solver_order, "IPNDM.solver_order", (3, 4)))
        put(self, "prediction", choice(self.prediction, "IPNDM.prediction", ("epsilon", "x0")))

    @property
    def memory(self) -> int:  # type: ignore[override]
        """The slopes or outputs before this one."""
        return self.solver_order - 1

    def _relative_error(self) -> Polynomial:
        # both miss h^3 / 12 of a first derivative: that of D, W (1 - W) x, and that of -sigma eps, its opposite
        return OUTPUT_RATES[1] / 12 if self.prediction == "epsilon" else -OUTPUT_RATES[1] / 12

    def _row(self, near: Near) -> Row:
        order = near.order(self.solver_order, False)
        weights = lagrange_weights([-float(j) for j in range(order)], adams_moments(order))
        if self.prediction == "epsilon":
            return _slopes([(near.levels[0] - near.levels[1]) * weight for weight in weights], near.levels)
        return Row(near.decay, [(1 - near.decay) * weight for weight in weights])


@dataclass(frozen=True)
class AdamsBashforth(Multistep):
    """Adams and Bashforth's method in -log sigma: x' = x + h sum_j w_j (D_{k-j} - x_{k-j}), steps of any length.

    w integrates the polynomial through the last `solver_order` derivatives dx/d(-log sigma) = D - x. Nothing is
    integrated exactly, so that steps longer than 1 in log sigma (6/11 for order 3, 3/10 for order 4) make noise grow.
    Until as many derivatives are known, the polynomial through the outputs known is integrated exactly instead.
    Source: Hairer, Nørsett and Wanner, Solving Ordinary Differential Equations I, section III.1 and III.5;
    docs/theory.md section 2.

    Args:
        solver_order: derivatives used, 2, 3 or 4.

    Raises:
        ValueError: another solver_order.

    >>> AdamsBashforth(2).order, AdamsBashforth(2).memory
    (2, 1)
    """

    solver_order: int = 2
    name: ClassVar[str] = "adams_bashforth"

    def __post_init__(self) -> None:
        checked = solver_order(self.solver_order, "AdamsBashforth.solver_order", (2, 3, 4))
        object.__setattr__(self, "solver_order", checked)

    @property
    def order(self) -> int:  # type: ignore[override]
        """`solver_order`."""
        return self.solver_order

    @property
    def memory(self) -> int:  # type: ignore[override]
        """The derivatives before this one."""
        return self.solver_order - 1

    def _relative_error(self) -> Polynomial:
        state = rates(Polynomial([1]), -_CARRY, self.order + 1)[self.order + 1]
        return -interpolation_error([-float(j) for j in range(self.order)]) * state

    def _moments(self, length: Any, decay: Any) -> Sequence[Any]:
        return rising_moments(length, decay, self.solver_order - 1)

    def _row(self, near: Near) -> Row:
        order = near.order(self.solver_order, False)
        starts = order < self.solver_order
        moments = near.moments[0][:order] if starts else adams_moments(order)
        own = [near.lengths[0] * weight for weight in lagrange_weights(near.places(order), moments)]
        if starts:
            return Row(near.decay, own)
        return Row(1 - own[0], own, [-weight for weight in own[1:]])


def _slopes(weights: Sequence[Any], levels: Sequence[Any]) -> Row:
    """x_k + sum_j weights_j (x_{k-j} - D_{k-j})/sigma_{k-j}, as a row."""
    shares = [weight / level for weight, level in zip(weights, levels[1:], strict=False)]
    return Row(1 + shares[0], [-share for share in shares], shares[1:])
