"""Study: one question to the planner, declared for any stopping point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from ..basics.checks import Array, integer, number, shown
from ..basics.errors import InfeasibleError
from ..ingredients.levels import MOST_LEVELS, Levels
from ..ingredients.prices import Prices
from ..ingredients.training_run import TrainingRun
from ..modeling import Discretization, GramDiscretization, ScoreError, Sum, Term, Truncation
from ..modeling.parameters import settled
from ..models.base import Model, check_model
from ..models.coefficient_batch import CoefficientBatch
from ..models.coefficients import Coefficients
from ..programs.form_structure import form_program
from ..programs.problem import Problem
from ..results.plan import Plan
from ..samplers.members import Euler
from ..solvers.forms.program import FormProgram
from ..solvers.joint.batch import JointBatch
from ..solvers.joint.program import JointProgram
from .budgets import Budgets
from .real_steps import INSIDE, RealSteps
from .step_constraints import StepConstraints, step_constraints

__all__ = ["Study", "settled_levels"]

_MOST_NODES = 1000  # of a grid whose every step has levels of its own: of more, neighbours ask for nearly the same
_DROWNED = 1e-12  # of the lowest noise: beside its square the data's variance is less than float64 tells apart


@dataclass(frozen=True, eq=False)
class Study:
    """One question to the planner, for any stopping point.

    Args:
        model: what is known of data, sampler and training.
        prices, budget: what compute costs and how much there is; None where only the sampler is planned.
        steps: number of sampler steps, the last to zero included, or None.
        run: a training run already made, whose examples count and cost nothing, or None; without a budget nothing is
            trained after it.
        constraints, terms: further ones of the modelling language, functions of the design.
        levels: levels over the whole range of sigma.
        tolerance: certified relative gap.

    Raises:
        ValueError, TypeError: a field of the wrong kind or out of range, or a question without limits.
    """

    model: Model
    prices: Prices | None
    budget: float | None
    steps: float | None
    run: TrainingRun | None
    constraints: Sequence[Any]
    terms: Sequence[Term]
    levels: int
    tolerance: float

    def __post_init__(self) -> None:
        check_model(self.model, "codesign")
        _check_limits(self)
        _check_parts(self)
        put = object.__setattr__
        if self.budget is not None:
            put(self, "budget", number(self.budget, "budget", positive=True, maximum=1e100))
        if self.steps is not None:
            put(self, "steps", number(self.steps, "steps", positive=True))
        put(self, "constraints", tuple(settled(what) for what in self.constraints))
        put(self, "terms", tuple(settled(term) for term in self.terms))
        put(self, "levels", integer(self.levels, "levels", minimum=2, maximum=MOST_LEVELS))
        put(self, "tolerance", number(self.tolerance, "tolerance", positive=True))

    @cached_property
    def budgets(self) -> Budgets:
        """What the question allows."""
        return Budgets(self.prices, self.budget, self.steps)

    @property
    def trains(self) -> bool:
        """Whether examples are decided; else only the sampler is."""
        return self.budget is not None

    @property
    def taught(self) -> bool:
        """Whether what examples leave counts: of those that are decided, or of a run after which none are."""
        return self.trains or self.run is not None

    def table(self, stopping_sigma: float) -> Coefficients:
        """The coefficients at one stopping point, without reducible score error where no training is known."""
        return self.without_training(self.model.coefficients(stopping_sigma, self.levels))

    def without_training(self, table: Coefficients) -> Coefficients:
        """The same table where examples are decided or known; else with no reducible score error."""
        if self.taught:
            return table
        return replace(table, score=np.zeros(len(table.levels)), final_score=0.0)

    def spent(self, table: Coefficients) -> Array | None:
        """(L,) examples already spent, or None."""
        return None if self.run is None else self.run.examples_on(table.levels)

    def most_spent(self, levels: Levels, low: float) -> Array | None:
        """(L,) at least the examples spent on each level wherever above `low` the lowest begins; None without a run."""
        if self.run is None:
            return None
        spent, edges = np.array(self.run.examples_on(levels)), levels.edges
        if low < edges[0] * (1 - 1e-12):
            spent[0] += float(self.run.examples_on(Levels(np.array([low, edges[0], edges[1]])))[0])
        return spent

    def _known(self, table: Coefficients) -> Array | None:
        """(L,) examples already spent and those that the untrained denoiser is worth, or None."""
        spent, prior = self.spent(table), table.prior_examples
        return spent if not prior.any() else prior if spent is None else spent + prior

    def alone(self, steps: int) -> Study:
        """The question for the sampler alone, with the most steps of this one, or with so many."""
        return replace(self, prices=None, budget=None, run=None, steps=steps if self.steps is None else self.steps)

    def problem(self, stopping_sigma: float) -> Problem:
        """The declared program at one stopping point."""
        table = self.table(stopping_sigma)
        return self.declare([ScoreError(table), self.discretization(table), Truncation(table)], table)

    def discretization(self, table: Coefficients) -> Discretization | GramDiscretization:
        """Magnitudes of bands, or a measured Gram matrix: with its signs where only steps are planned."""
        if not table.measured:
            return Discretization(table)
        steps_matter = bool(np.any(table.score > 0) or np.any(table.floor > 0))
        return GramDiscretization(table, "positive" if steps_matter else "signed")

    def levels_of(self, sigmas: Array) -> int | Levels:
        """The levels on which the examples of a grid are settled (`settled_levels`)."""
        return settled_levels(self.model, sigmas, self.levels, own=not self.terms and not self.constraints)

    def settled_problem(self, table: Coefficients, steps: Array, *, obeying: bool = False) -> Problem:
        """The declared program for a grid that is given, from its settled coefficients.

        Args:
            obeying: whether the grid's real steps were found to obey (`admits`): the limits of a density, which
                whole steps keep on the average alone, are then not asked of its levels once more.
        """
        asked = self.step_constraints(table.stopping_sigma).rest if obeying and self.constraints else self.constraints
        return self.declare([ScoreError(table), Truncation(table)], table, steps=steps, constraints=asked)

    def _decided(self, table: Coefficients) -> Coefficients | None:
        """The table for structured solvers: with what a run leaves as floor where nothing is trained after it, None
        where that has no bound; else itself."""
        if self.trains or self.run is None:
            return table
        examples = self.run.examples_on(table.levels)
        return None if table.untaught(examples).any() else table.after(examples)

    def _given(self, table: Coefficients) -> Array | None:
        """(L,) examples of a run after which nothing is trained; None where there is none.

        Raises:
            InfeasibleError: it leaves an error without bound.
        """
        if self.trains or self.run is None:
            return None
        examples = self.run.examples_on(table.levels)
        untaught = table.untaught(examples)
        if untaught.any():
            low, high = table.levels.edges[:-1][untaught].min(), table.levels.edges[1:][untaught].max()
            raise InfeasibleError(
                f"Infeasible: run has no examples on {untaught.sum()} levels between sigma {low:.4g} and {high:.4g}, "
                "and the model knows no untrained denoiser, so that the error there has no bound; stop above "
                "(stopping_sigma, search), give fewer levels, a run that reaches there, or a training law with a prior."
            )
        return examples

    def declare(
        self,
        terms: list[Term],
        table: Coefficients,
        *,
        steps: Array | None = None,
        constraints: Sequence[Any] | None = None,
    ) -> Problem:
        """The user's terms, budgets and constraints around the given terms; the study's constraints unless given."""
        leaves = tuple(leaf for term in [*terms, *self.terms] for leaf in term.leaves())
        asked = self.constraints if constraints is None else constraints
        known = {"examples": self._given(table), "steps": steps, "spent": self.spent(table)}
        return Problem(Sum(leaves), [*self.budgets.declared(), *asked], **known)

    def step_constraints(self, stopping_sigma: float) -> StepConstraints:
        """What the constraints ask of real steps at one stopping point, and what else they ask."""
        if stopping_sigma not in self._step_constraints:
            # a sampler of given coefficients has no program of its own; what is asked of steps is the same for any
            own = self.model.sampler.own_levels is not None
            study = replace(self, model=self.model.with_sampler(Euler())) if own else self
            declared = study.problem(stopping_sigma).declaration
            asked = step_constraints(self.constraints, declared.design(declared.neutral))
            self._step_constraints[stopping_sigma] = asked
        return self._step_constraints[stopping_sigma]

    @cached_property
    def _step_constraints(self) -> dict[float, StepConstraints]:
        return {}

    @cached_property
    def _limits_steps(self) -> bool:
        """Whether a constraint limits single steps anywhere: asked once, over the whole range of noise levels."""
        if not self.constraints:
            return False
        try:
            return self.step_constraints(self.model.process.sigma_min).limits is not None
        except ValueError:  # a constraint that knows one stopping point alone, as a table's does: asked there
            return True

    def real_steps(self, levels: Levels) -> RealSteps | None:
        """The limits of real steps above the stopping point of `levels`; None where nothing limits them."""
        if not self._limits_steps:
            return None
        limits = self.step_constraints(float(levels.edges[0])).limits
        return None if limits is None else RealSteps(limits, levels)

    def admits(self, sigmas: Array, reading: str = INSIDE) -> bool:
        """Whether every real step of a grid obeys the constraints on step sizes and densities (RealSteps)."""
        if not self._limits_steps:
            return True
        nodes = sigmas[sigmas > 0]
        levels = Levels.log_uniform(float(nodes[-1]), float(nodes[0]), self.levels)
        real = self.real_steps(levels)
        return real is None or real.admits(sigmas, reading)

    def program(self, table: Coefficients) -> JointProgram | None:
        """The same program for the structured solver; None where it holds parts that solver doesn't know."""
        form = table.coupling.known_form
        stated = self._decided(table)
        if form is None or stated is None or table.measured or table.pooling is not None:
            return None
        offset = stated.final_prior - float(stated.final_window @ stated.prior_examples)
        return self._joint(stated, form, self._known(stated), offset)

    def forms(self, table: Coefficients) -> FormProgram | None:
        """The same program for the solver of quadratic forms; None where it has none, or holds other parts."""
        form, pooling = table.coupling.known_form, table.pooling
        stated = self._decided(table)
        if form is None or stated is None or not (table.measured or pooling is not None):
            return None
        joint = self._joint(stated, form, self.spent(stated), 0.0)
        if joint is None:
            return None
        return form_program(joint, [(1.0, ScoreError(stated)), (1.0, self.discretization(stated))], pooling)

    def _joint(self, table: Coefficients, form: str, spent: Array | None, offset: float) -> JointProgram | None:
        """Score error, discretisation and budgets; None beside terms and constraints, and without room."""
        limits = self.budgets.of(table)
        if self.terms or self.constraints or limits.left.min() <= 0:
            return None
        return JointProgram(
            table.example_error,
            table.floor_error,
            table.kappa,
            table.step_response,
            table.order,
            limits.example_prices,
            limits.step_prices,
            limits.left,
            spent=spent,
            final_error=table.final_score,
            final_window=table.final_window,
            form=form,
            final_offset=offset,
        )

    def tables(self, stops: Array) -> CoefficientBatch | None:
        """The coefficients at many stopping points; None where the model gives them one by one."""
        if self.terms or self.constraints or self.budgets.per_level:
            return None
        table = self.model.coefficient_batch(stops, self.levels)
        if table is None or self.trains:
            return table
        spent = self.spent_batch(table)
        if spent is not None:
            return table.after(spent, (table.final_window * spent).sum(axis=1))
        return replace(table, score=np.zeros_like(table.score), final_score=np.zeros_like(table.final_score))

    def spent_batch(self, table: CoefficientBatch, lows: Array | None = None) -> Array | None:
        """(R, L) `spent` of many tables, or `most_spent` above `lows` (R,); None without a run."""
        if self.run is None:
            return None
        found = np.zeros(table.levels.used.shape)
        for r, used in enumerate(table.levels.used):
            levels = table.levels.levels(r)
            low = float(levels.edges[0] if lows is None else lows[r])
            found[r, used] = self.most_spent(levels, low)
        return found

    def batch(self, table: CoefficientBatch) -> JointBatch:
        """The programs at many stopping points, as `program` gives them one by one."""
        levels, limits = table.levels, self.budgets.of_batch(table)
        prior, made = table.prior_examples, self.spent_batch(table)
        spent = prior if made is None else prior + made
        free = ~levels.used[:, None]
        return JointBatch(
            used=levels.used,
            errors=table.example_error,
            floors=table.floor_error,
            kappa=table.kappa,
            response=table.step_response,
            order=table.order,
            examples_prices=np.where(free, 1.0, limits.example_prices),
            steps_prices=np.where(free, 1.0, limits.step_prices),
            budgets=limits.left,
            spent=spent,
            final_error=table.final_score,
            final_window=table.final_window,
            form=table.form,
            final_offset=table.final_prior - (table.final_window * prior).sum(axis=1),
        )

    def solve(self, stopping_sigma: float, start: Plan | None = None) -> Plan:
        """The certified plan at one stopping point, from the declared program."""
        return self.problem(stopping_sigma).solve(tolerance=self.tolerance, start=start)


def settled_levels(model: Model, sigmas: Array, levels: int, *, own: bool) -> int | Levels:
    """The levels on which the examples of a grid are settled.

    Where `own` levels are allowed and the grid's exact law is known, none straddles a step; a user's terms and
    constraints may know those of the program alone, and measured coefficients vary smoothly.

    Args:
        model: any.
        sigmas: (K+1,) grid.
        levels: number of levels over the whole range.
        own: whether they may be others than the program's.
    """
    exact = model.exact_residuals if model.sampler.own_levels is None else model.exact_error
    if not own or exact is None:
        return levels
    nodes = sigmas[sigmas > 0]
    low = min(model.process.sigma_min, float(nodes[-1]))
    return Levels.of_steps(sigmas, float(np.log(nodes[0] / low)) / levels, _MOST_NODES)


def _check_limits(study: Study) -> None:
    """Whether something limits the plan, and prices and budget belong together."""
    prices, steps = study.prices, study.steps
    if prices is not None and not isinstance(prices, Prices):
        raise ValueError(f"codesign: prices is {shown(prices)}; a co.Prices is needed, and the budget comes after it.")
    if (prices is None) != (study.budget is None):
        missing = "budget" if study.budget is None else "prices"
        raise ValueError(f"codesign: {missing} is missing; give prices and budget together, or steps alone.")
    if prices is not None and not isinstance(prices, Prices):
        raise ValueError(f"codesign: prices is {shown(prices)}; give co.Prices(example=…, evaluation=…, images=…).")
    if prices is None and steps is None:
        raise ValueError("codesign: nothing limits the plan; give prices and budget, or steps.")
    if prices is not None and not study.model.trained:
        raise ValueError(
            "codesign: the model was estimated without training, so that only the sampler can be planned; give steps "
            "instead of prices and budget, or estimate with training=co.TrainingRun(…)."
        )
    if prices is not None and prices.images == 0 and steps is None:
        raise ValueError("codesign: images is 0, so that steps cost nothing; give steps, or images > 0.")
    spread, lowest = study.model.spectrum.sigma_data, study.model.process.sigma_min
    if spread < _DROWNED * lowest:
        raise ValueError(
            f"codesign: the data's standard deviation is {spread:.3g}, the lowest noise {lowest:.3g}: rounding hides "
            "the data. State them as the network sees them, or a process with a lower sigma_min."
        )


def _check_parts(study: Study) -> None:
    """Whether constraints, terms and the run are what they must be."""
    if not isinstance(study.constraints, (list, tuple)):
        raise TypeError("codesign: constraints must be a list.")
    if not isinstance(study.terms, (list, tuple)) or not all(isinstance(term, Term) for term in study.terms):
        raise TypeError("codesign: terms must be a list of terms.")
    if study.run is not None and study.prices is None and not study.model.trained:
        raise ValueError(
            "codesign: the model was estimated without training, so that what a run leaves is not known; leave run "
            "out, or estimate with training=co.TrainingRun(…)."
        )
    if study.run is not None and not isinstance(study.run, TrainingRun):
        raise ValueError(f"codesign: run is {shown(study.run)}; give co.TrainingRun(density=…, iterations=…, batch=…).")
