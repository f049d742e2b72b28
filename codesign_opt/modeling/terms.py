"""The built-in terms but discretisation: score error, truncation, price, steps, roughness."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import cvxpy as cp
import numpy as np

from ..basics.causes import FLOOR, INITIAL, LAST_EVALUATION, SCORE, TRUNCATION
from ..basics.checks import Array, Indices, choice, number, shown
from ..certificate.lagrangian import LagrangianBound, ScorePart, pooled_price
from ..ingredients.prices import Prices
from ..models.coefficients import Coefficients
from .algebra import Fixed, Term, check_table
from .design import Design, Point, on_levels

__all__ = ["Compute", "ScoreError", "Smooth", "Steps", "Truncation"]


@dataclass(frozen=True, eq=False, repr=False)
class ScoreError(Term):
    """Score error at the end of sampling: sum_l (A_l/(m_l + m0_l) + F_l) M(kappa_l/n_l), plus the last evaluation's.

    m0 are the examples that the untrained denoiser is worth, 0 where it is not known (docs/theory.md section 5.6).
    Jointly convex in (examples, steps): 1/m, 1/(m n) and their maximum are (sections 6 and 7, equation 6.1;
    co-design paper, Theorem 1 with the correlation length made explicit).
    Under "denoise" the last evaluation adds A_r / (m_r + m0_r) + F_r with m_r the examples within one
    correlation length of the stopping point (section 2).

    Args:
        table: the coefficients, from `model.coefficients(...)` or from arrays.
    """

    structured: ClassVar[bool] = True
    scales_itself: ClassVar[bool] = True
    monotone: ClassVar[bool] = True
    table: Coefficients

    def __post_init__(self) -> None:
        check_table(self.table, "ScoreError")

    @property
    def coefficients(self) -> Coefficients:
        return self.table

    @property
    def known_convex(self) -> bool:
        return self.table.coupling.known_form is not None

    @property
    def needs_examples(self) -> bool:
        return bool(np.any(self.table.example_error > 0)) or self.table.final_score > 0

    def expression(self, design: Design) -> cp.Expression:
        return self._declared(design, [])

    def formulation(self, design: Design) -> tuple[cp.Expression, list[cp.Constraint]]:
        """Pooled examples get a variable of their own, z <= T m, whose dual is what the certificate needs."""
        constraints: list[cp.Constraint] = []
        return self._declared(design, constraints, pooled_variable=not design.fixed_examples), constraints

    def _declared(
        self, design: Design, constraints: list[cp.Constraint], *, pooled_variable: bool = False
    ) -> cp.Expression:
        c = self.table
        total = design.reference.examples
        with np.errstate(divide="ignore"):  # a level without steps is one on which there is no error
            kappa = c.kappa / design.reference.steps
        pooling = c.pooling
        served = (total if pooling is None else pooling @ total) + c.prior_examples
        served = np.where(served > 0, served, 1.0)
        if pooling is None and not np.any(c.prior_examples) and np.all(total > 0):
            relative = design.served
        else:
            relative = cp.multiply(design.reference.new_examples, design.new_variable) + design.reference.spent
            relative = relative if pooling is None else pooling @ relative
            relative = cp.multiply(1 / served, relative + c.prior_examples)
        parts: list[cp.Expression] = []
        on = np.flatnonzero(c.example_error > 0)
        if on.size:
            serving = on_levels(relative, on)
            if pooled_variable and pooling is not None:
                serving = cp.Variable(on.size, name="pooled examples")
                constraints.append(serving <= on_levels(relative, on))
            parts.append(self._reducible(design, serving, (c.example_error / served)[on], kappa[on], on))
        if np.any(c.floor_error > 0):
            factor = c.coupling.expression(design.step_variable, kappa)
            parts.append(cp.sum(cp.multiply(c.floor_error, factor)))
        if c.final_score > 0:
            window = self._near(total)
            near = cp.multiply(design.reference.new_examples, design.new_variable) + design.reference.spent
            serving = (c.final_window / window) @ near + c.final_prior / window
            parts.append(c.final_score / window * cp.inv_pos(serving))
        total_error: cp.Expression = cp.Constant(c.final_floor)
        for part in parts:
            total_error = total_error + part
        return total_error

    def _reducible(
        self, design: Design, examples: cp.Expression, weight: Array, kappa: Array, on: Indices
    ) -> cp.Expression:
        """sum weight/examples M(kappa/steps) over the levels `on`, in relative variables."""
        coupling = self.table.coupling
        if design.fixed_steps:
            factor = coupling.factor(self.table.kappa[on] / design.reference.steps[on])
            return cp.sum(cp.multiply(weight * factor, cp.inv_pos(examples)))
        steps = on_levels(design.step_variable, on)
        if design.fixed_examples:
            return cp.sum(cp.multiply(weight, coupling.expression(steps, kappa)))
        return cp.sum(cp.multiply(weight, coupling.product(examples, steps, kappa)))

    def _near(self, examples: Array) -> float:
        """Examples that serve the last evaluation, with those that the untrained denoiser is worth."""
        return float(self.table.final_window @ examples) + self.table.final_prior

    def levels_value(self, point: Point) -> tuple[Array, Array]:
        """(L,) reducible and (L,) irreducible score error of each level, without the last evaluation's."""
        return self._errors(point, self._served(point))

    def gains(self, point: Point) -> Array:
        """(L,) decrease of the levels' reducible error per example of a level, the last evaluation left out."""
        served = self._served(point)
        return self._gains(self._errors(point, served)[0], served)

    def _served(self, point: Point) -> Array:
        """(L,) examples that serve each level, with those that the untrained denoiser is worth there."""
        pooling = self.table.pooling
        return (point.examples if pooling is None else pooling @ point.examples) + self.table.prior_examples

    def _errors(self, point: Point, served: Array) -> tuple[Array, Array]:
        c = self.table
        with np.errstate(divide="ignore", invalid="ignore"):
            factor = c.coupling.factor(c.kappa / point.steps)
            reducible = np.where(c.example_error > 0, c.example_error * factor / served, 0.0)
            floor = np.where(c.floor_error > 0, c.floor_error * factor, 0.0)
        return reducible, floor

    def _served_weights(self, point: Point, reducible: Array, served: Array) -> Array:
        """(L,) reducible error times the examples that serve a level: finite where there are none, too."""
        c = self.table
        with np.errstate(divide="ignore", invalid="ignore"):
            unserved = c.example_error * c.coupling.factor(c.kappa / point.steps)
            weights = np.where(served > 0, reducible * served, unserved)
        return np.where(reducible > 0, weights, 0.0)

    def _gains(self, reducible: Array, served: Array) -> Array:
        c = self.table
        with np.errstate(divide="ignore", invalid="ignore"):
            per_served = np.where(c.example_error > 0, reducible / served, 0.0)
        pooling = c.pooling
        return per_served if pooling is None else np.asarray(per_served @ pooling)

    def final_value(self, point: Point) -> tuple[float, float]:
        """The last evaluation's reducible and irreducible error."""
        c = self.table
        if c.final_score == 0:
            return 0.0, c.final_floor
        near = self._near(point.examples)
        return (c.final_score / near if near > 0 else np.inf), c.final_floor

    def value(self, design: Design, point: Point) -> float:
        reducible, floor = self.levels_value(point)
        return float(reducible.sum() + floor.sum() + sum(self.final_value(point)))

    def constant(self, design: Design, point: Point) -> float:
        return self.value(design, _unlimited(design, point))

    def parts(self, design: Design, point: Point) -> dict[str, float]:
        reducible, floor = self.levels_value(point)
        return {
            SCORE: float(reducible.sum()),
            FLOOR: float(floor.sum()),
            LAST_EVALUATION: sum(self.final_value(point)),
        }

    def level_parts(self, point: Point) -> Mapping[str, Array]:
        c, examples = self.table, point.examples
        pooling, served = c.pooling, self._served(point)
        reducible, floor = self._errors(point, served)
        gain = self._gains(reducible, served)
        alone = c.prior_examples if pooling is None else 0.0
        told = {
            "score": reducible,
            "floor": floor,
            # sum of score_weight / (m + m0): the error itself, or its separable upper bound where examples are pooled
            "score_weight": np.where(examples + alone > 0, gain, 0.0) * (examples + alone) ** 2,
            "served_weight": self._served_weights(point, reducible, served),
            "final_window": c.final_window,
            "prior_examples": c.prior_examples,
        }
        if c.final_score > 0:
            gain = gain + c.final_score / self._near(examples) ** 2 * c.final_window
        return {**told, "gain": gain, **({} if pooling is None else {"pooling": pooling})}

    def derivatives(self, design: Design, point: Point) -> Mapping[str, Array]:
        """By `score`, `floor` (L,), `final_score` and `final_floor` of the table.

        The untrained denoiser's error is another number of the table, so that m0 moves with the score:
        d/dA of 1 / (m / A + 1 / E) is m / (m + m0)^2.
        """
        c, served = self.table, self._served(point)
        with np.errstate(divide="ignore", invalid="ignore"):
            factor = c.coupling.factor(c.kappa / point.steps)
            score = c.log_width**2 * factor / served * (1 - c.prior_examples / served)
        near = self._near(point.examples)
        by_final = (1 - c.final_prior / near) / near if near > 0 else 0.0
        final = {"final_score": np.array(by_final), "final_floor": np.array(1.0)}
        lengths = c.log_width * c.coupling.lengths(c.levels)
        return {"score": score, "floor": lengths * factor, **(final if c.terminal == "denoise" else {})}

    def add_to(self, bound: LagrangianBound, weight: float, point: Point) -> bool:
        c = self.table
        pooling = c.pooling
        price = None
        if pooling is not None and bound.fixed_examples is None:
            factor = c.coupling.factor(c.kappa / point.steps)
            price = weight * pooled_price(c.example_error, factor, self._served(point))
        self._add_parts(bound, weight, point, price)
        return True

    def add_solved(
        self,
        bound: LagrangianBound,
        weight: float,
        point: Point,
        design: Design,
        auxiliary: Sequence[cp.Constraint],
    ) -> bool:
        """With the price of pooled examples from the dual of z <= T m: it is exact to more digits than the point."""
        c = self.table
        pooling = c.pooling
        dual = auxiliary[0].dual_value if auxiliary else None
        if dual is None or pooling is None or bound.fixed_examples is not None or not np.all(np.isfinite(dual)):
            return self.add_to(bound, weight, point)
        price, on = np.zeros(len(c.levels)), c.example_error > 0
        price[on] = np.maximum(dual, 0.0) / self._served(design.reference)[on]
        worth = float(price @ self._served(point))
        if not worth > 0:
            return self.add_to(bound, weight, point)
        # the dual counts in the declared objective's unit; price z = A M / z in total sets the scale
        self._add_parts(bound, weight, point, price * weight * float(self.levels_value(point)[0].sum()) / worth)
        return True

    def _add_parts(self, bound: LagrangianBound, weight: float, point: Point, price: Array | None) -> None:
        c = self.table
        pooling = c.pooling
        error, floor = weight * c.example_error, weight * c.floor_error
        if pooling is not None and price is None:  # given examples: what serves each level is a number
            served = self._served(point)
            floor = floor + np.divide(error, served, out=np.zeros_like(error), where=error > 0)
            error = np.zeros_like(error)
        prior = None if c.untrained is None else c.prior_examples
        bound.parts.append(ScorePart(error, floor, c.coupling, c.kappa, price, pooling, prior))
        bound.constant += weight * c.final_floor
        near = self._near(point.examples)
        if c.final_score > 0 and near > 0:  # A/m_r by its tangent at the candidate; by 0 where there is none
            rate = weight * c.final_score / near / near
            slope = -rate * c.final_window
            known = float(slope @ point.spent) - rate * c.final_prior
            bound.add_linear(2 * weight * c.final_score / near + known, slope, np.zeros(len(c.levels)))

    def __repr__(self) -> str:
        return f"ScoreError({self.table!r})"


@dataclass(frozen=True, eq=False, repr=False)
class Truncation(Fixed):
    """What no design at this stopping point can change: E0 + E_init (docs/theory.md sections 1 and 2)."""

    structured: ClassVar[bool] = True
    table: Coefficients

    def __post_init__(self) -> None:
        check_table(self.table, "Truncation")

    @property
    def coefficients(self) -> Coefficients:
        return self.table

    def expression(self, design: Design) -> cp.Expression:
        return cp.Constant(self.table.truncation + self.table.initial)

    def value(self, design: Design, point: Point) -> float:
        return self.table.truncation + self.table.initial

    def constant(self, design: Design, point: Point) -> float:
        return self.value(design, point)

    def parts(self, design: Design, point: Point) -> dict[str, float]:
        return {TRUNCATION: self.table.truncation, INITIAL: self.table.initial}

    def derivatives(self, design: Design, point: Point) -> Mapping[str, Array]:
        return {"truncation": np.array(1.0), "initial": np.array(1.0)}

    def add_to(self, bound: LagrangianBound, weight: float, point: Point) -> bool:
        bound.constant += weight * (self.table.truncation + self.table.initial)
        return True


@dataclass(frozen=True, eq=False)
class Compute(Term):
    """Price of a design: sum_l c_l m_l for training plus sum_l k_l n_l for sampling, the last step included.

    Args:
        prices: what an example and an evaluation cost, and how many images will be drawn.
        part: "training" or "sampling" for one side only; None for both.
    """

    structured: ClassVar[bool] = True
    scales_itself: ClassVar[bool] = True
    nested: ClassVar[bool] = True
    prices: Prices
    part: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.prices, Prices):
            raise ValueError(f"Compute.prices is {shown(self.prices)}; a Prices object is needed.")
        if self.part is not None:
            choice(self.part, "Compute.part", ("training", "sampling"))

    @property
    def needs_examples(self) -> bool:
        return False

    @property
    def name(self) -> str:
        return "Compute" if self.part is None else f"Compute({self.part})"

    @property
    def as_compute(self) -> Compute:
        return self

    @property
    def owner(self) -> Prices:
        return self.prices

    def over(self, samplings: Sequence[Any]) -> Iterator[tuple[float, Term]]:
        """The training that all samplers share, and the sampling of each."""
        if self.part != "sampling":
            yield 1.0, Compute(self.prices, "training")
        for each in samplings if self.part != "training" else ():
            prices = self.prices if each.images is None else self.prices.with_images(each.images)
            yield 1.0, each(Compute(prices, "sampling"))

    @property
    def both(self) -> Compute:
        """The price of training and sampling together, whatever `part` says."""
        return Compute(self.prices)

    def table(self, design: Design) -> tuple[Array, Array, float]:
        """Price of an example (L,), of a step (L,), and of the last step to zero noise."""
        size = len(design)
        example, step, final = np.zeros(size), np.zeros(size), 0.0
        if self.part != "sampling":
            example = self.prices.example_price(design.levels)
        if self.part != "training":
            step = self.prices.evaluation_price(design.levels) * design.evaluations_per_step
            final = design.final_steps * self.prices.final_price(float(design.levels.edges[0]))
        return example, step, final

    def linear_prices(self, design: Design) -> tuple[Array, Array, float]:
        return self.table(design)

    def expression(self, design: Design) -> cp.Expression:
        example, step, final = self.table(design)
        reference = design.reference
        return (
            (example * reference.new_examples) @ design.new_variable
            + (step * reference.steps) @ design.step_variable
            + final
        )

    def value(self, design: Design, point: Point) -> float:
        example, step, final = self.table(design)
        return float(example @ point.new_examples + step @ point.steps + final)

    def derivatives(self, design: Design, point: Point) -> Mapping[str, Array]:
        """By the prices of an example and of an evaluation on each level (L,), and by the number of images."""
        found: dict[str, Array] = {}
        if self.part != "sampling":
            found["example price"] = point.new_examples
        if self.part != "training":
            calls = design.evaluations_per_step * point.steps
            calls[0] += design.final_steps  # the last step costs what an evaluation on the lowest level does
            prices = self.prices.with_images(1.0)
            paid = float(prices.evaluation_price(design.levels) @ (design.evaluations_per_step * point.steps))
            last = design.final_steps * prices.final_price(float(design.levels.edges[0]))
            found |= {"evaluation price": self.prices.images * calls, "images": np.array(paid + last)}
        return found


@dataclass(frozen=True, eq=False)
class Steps(Term):
    """Number of sampler steps, the last step to zero noise included."""

    structured: ClassVar[bool] = True
    scales_itself: ClassVar[bool] = True
    nested: ClassVar[bool] = True

    @property
    def needs_examples(self) -> bool:
        return False

    def linear_prices(self, design: Design) -> tuple[Array, Array, float]:
        return np.zeros(len(design)), np.ones(len(design)), float(design.final_steps)

    def expression(self, design: Design) -> cp.Expression:
        return design.reference.steps @ design.step_variable + design.final_steps

    def value(self, design: Design, point: Point) -> float:
        return float(point.steps.sum() + design.final_steps)


@dataclass(frozen=True, eq=False)
class Smooth(Term):
    """Roughness of a density: integral of its squared slope over log sigma.

    Args:
        quantity: "density" (examples per unit log sigma) or "step_density".
        weight: multiplies the integral; in error per (density squared per unit log sigma).
    """

    nested: ClassVar[bool] = True
    quantity: str = "density"
    weight: float = field(default=1.0)

    def __post_init__(self) -> None:
        choice(self.quantity, "Smooth.quantity", ("density", "step_density"))
        object.__setattr__(self, "weight", number(self.weight, "Smooth.weight", positive=True))

    def expression(self, design: Design) -> cp.Expression:
        if len(design) < 2:
            return cp.Constant(0.0)
        gaps = np.diff(np.log(design.sigma))
        slopes = cp.multiply(1 / np.sqrt(gaps), cp.diff(getattr(design, self.quantity)))
        return self.weight * cp.sum_squares(slopes)


def _unlimited(design: Design, point: Point) -> Point:
    """`point` with as much as anyone could want of every quantity that is decided."""
    plenty = np.full(len(design), 1e300)
    return Point(
        point.new_examples if design.fixed_examples else plenty,
        point.spent,
        point.steps if design.fixed_steps else plenty,
    )
