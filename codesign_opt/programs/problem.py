"""Problem: terms to minimise, constraints to meet; checked, scaled, solved and certified."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import cvxpy as cp
import numpy as np

from ..basics.checks import Array, choice, number, shown, vector
from ..certificate.verdict import Certificate
from ..ingredients.levels import Levels
from ..modeling.algebra import Bound, Term
from ..modeling.constraints import Named
from ..modeling.design import Design, Point
from ..modeling.own_variables import own_variables
from ..modeling.parameters import parameters_of, settled
from ..modeling.samplings import OfSampling, RowsOfSampling
from ..models.coefficients import Coefficients
from ..results.plan import Plan
from .attempts import Solver, not_certified, rated, solve_declared
from .declaration import Declaration, refuse_unspent
from .declared_program import DeclaredProgram, declared_program
from .description import describe
from .needs import check_given
from .plan_point import point_of
from .scaling import check_leaf, rows_of
from .sweep import Sweep, swept

__all__ = ["Problem"]


@dataclass(frozen=True, eq=False)
class Problem:
    """Minimise a sum of terms subject to constraints, over examples and steps on the noise levels.

    Programs P1 (sampler given), P2 (training given), P3 (both) and P4 (shared parameters) of
    docs/theory.md section 7 are this one class with a quantity fixed or with another term.

    Args:
        objective: a term or a sum of terms.
        constraints: bounds (`term <= limit`), Constraint objects, functions of the design that
            return cvxpy constraints, or any of these with a name, `named("…", …)`.
        examples: (L,) all examples on each level, spent ones included, where training is given; None where it is
            decided.
        steps: (L,) sampler steps on each level, where the sampler is given.
        spent: (L,) examples already spent: they count and cost nothing.

    Raises:
        ConvexityError: a term or constraint that is not convex, by name.
        ValueError, TypeError: terms on different levels, on tables of different samplers or couplings, a wrong
            shape, an unusable constraint, fewer examples than are spent.

    >>> import numpy as np
    >>> from codesign_opt import Coefficients, Levels, Local, Prices
    >>> from codesign_opt.modeling import Compute, ScoreError
    >>> levels = Levels.log_uniform(0.01, 10.0, 30)
    >>> table = Coefficients(levels, score=np.ones(30), floor=np.zeros(30), response=np.zeros((0, 30)),
    ...                      coupling=Local(2.7), terminal="rescale")
    >>> prices = Prices(example=2.0, evaluation=1.0, images=1)
    >>> steps = np.full(30, 5.0)
    >>> plan = Problem(ScoreError(table), [Compute(prices, part="training") <= 1e4], steps=steps).solve()
    >>> plan.certificate.optimal, round(float(plan.error * 1e4 / 2 / np.log(1000) ** 2), 6)
    (True, 1.0)
    """

    objective: Term
    constraints: Sequence[Any] = field(default_factory=tuple)
    examples: Array | None = None
    steps: Array | None = None
    spent: Array | None = None
    _parameters: tuple[cp.Parameter, ...] = field(init=False, repr=False)
    _read: tuple[tuple[float, ...], Declaration] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        put = object.__setattr__
        if not isinstance(self.objective, Term):
            raise TypeError(f"Problem.objective is {shown(self.objective)}; give a term or a sum of terms.")
        if isinstance(self.constraints, (Bound, Named)) or not isinstance(self.constraints, (list, tuple)):
            raise TypeError("Problem.constraints must be a list of constraints.")
        put(self, "_parameters", tuple(parameters_of((self.objective, *self.constraints))))
        program = self._declared(default=1.0)  # what parameters stand for does not matter to what is checked here
        put(self, "_read", (self._values(), program))
        put(self, "examples", program.examples)
        put(self, "steps", program.steps)
        put(self, "spent", None if self.spent is None else program.spent)
        _check(program)

    def _declared(self, default: float | None = None) -> Declaration:
        objective, rows = self.objective, list(self.constraints)
        if self._parameters:
            objective, rows = settled(objective, default), [settled(what, default) for what in rows]
        return Declaration.of(objective, rows, examples=self.examples, steps=self.steps, spent=self.spent)

    @property
    def parameters(self) -> list[cp.Parameter]:
        """Every `cp.Parameter` among limits, weights and prices; functions of the design are not looked into."""
        return list(self._parameters)

    def _values(self) -> tuple[float, ...]:
        found = (parameter.value for parameter in self._parameters)
        return tuple(float("nan") if value is None else float(value) for value in found)

    @property
    def declaration(self) -> Declaration:
        """What the problem states, at the present values of its parameters."""
        values = self._values()
        if values != self._read[0] or np.any(np.isnan(values)):
            object.__setattr__(self, "_read", (values, self._declared()))
        return self._read[1]

    @property
    def table(self) -> Coefficients | None:
        """The coefficients behind the terms; None where no term has any."""
        return self.declaration.table

    @property
    def levels(self) -> Levels:
        """The levels that all terms share."""
        return self.declaration.levels

    @property
    def decides_steps(self) -> bool:
        """Whether any term depends on the sampler's steps and they are not given."""
        return self.declaration.decides_steps

    @property
    def spent_examples(self) -> Array:
        """(L,) examples already spent, zeros where none were stated."""
        return self.declaration.spent

    def design(self, reference: Point) -> Design:
        """The decision variables around `reference`, with the given quantities fixed."""
        return self.declaration.design(reference)

    def certify(
        self,
        *,
        examples: Array | None = None,
        steps: Array | Mapping[str, Array] | None = None,
        tolerance: float = 1e-6,
    ) -> Certificate:
        """How far a schedule of one's own is from the optimum: its value, a lower bound, its violations.

        Args:
            examples: (L,) all examples on each level, spent ones included; left out where given or not needed.
            steps: (L,) sampler steps on each level; likewise. Of several samplers a mapping by name.
            tolerance: gap below which the schedule counts as optimal.

        Raises:
            ValueError: a quantity that the problem decides is missing, or has the wrong shape; fewer examples than
                are spent.
            InfeasibleError, NotCertifiedError: the problem itself has no certified optimum.

        >>> import numpy as np
        >>> from codesign_opt import Coefficients, Levels, Local, Prices
        >>> from codesign_opt.modeling import Compute, ScoreError
        >>> table = Coefficients(Levels.log_uniform(0.01, 10.0, 2), score=[1.0, 9.0], floor=[0.0, 0.0],
        ...                      response=np.zeros((0, 2)), coupling=Local(2.7), terminal="rescale")
        >>> problem = Problem(ScoreError(table), [Compute(Prices(1.0, 1.0, 1), part="training") <= 100.0],
        ...                   steps=[9.0, 9.0])
        >>> proof = problem.certify(examples=[50.0, 50.0])  # the best is 25 and 75
        >>> round(proof.relative_gap, 6), proof.optimal
        (0.2, False)
        """
        lower = self.solve(tolerance=tolerance).certificate
        point = _own_point(self.declaration, examples, steps)
        return rated(self.declaration, point, lower, tolerance)

    def solve(
        self,
        *,
        method: str = "auto",
        tolerance: float = 1e-6,
        solver: str | None = None,
        start: Plan | None = None,
        verbose: bool = False,
        time_limit: float | None = None,
        on_attempt: Callable[[dict[str, Any]], None] | None = None,
        **options: Any,
    ) -> Plan:
        """Solve the declared program and prove the answer.

        Every attempt declares the program in variables relative to the last candidate; each is
        recorded in `plan.attempts`. Nothing is called optimal without the certificate.

        Args:
            method: "auto" takes the dual Newton method of solvers/joint/ where the problem has its
                structure (score error, discretisation, budgets, level bounds) and the certificate
                accepts its answer, and the declared program otherwise, scaled from the structured
                part's solution; "declared" always takes the cvxpy declaration. `plan.attempts` says
                which was used.
            tolerance: certified relative gap at which the answer is accepted.
            solver: an installed conic solver of cvxpy, CLARABEL unless given; with a solver or options the declared
                program is solved by that solver. Where what it returns is not proved, the same program in conic form
                is solved beside it, always by CLARABEL, for its point and for the dual that the proof needs.
            start: a plan of a similar problem, the first reference.
            verbose: show the solver's log.
            time_limit: seconds for all attempts together, building included. No attempt starts after it; CLARABEL is
                told what is left of it, other solvers end the attempt that they are in.
            on_attempt: called with each attempt's record.
            options: passed to the solver.

        Raises:
            InfeasibleError: names the constraints in conflict, with amounts.
            NotCertifiedError: no attempt reached `tolerance`, or not in time; carries the attempts and the best plan.
        """
        chosen = "CLARABEL" if solver is None else choice(solver, "solver", cp.installed_solvers())
        if solver is not None or options:
            method = "declared"
        if not isinstance(start, (Plan, type(None))):
            raise TypeError(
                f"Problem.solve: start is {shown(start)}; give a Plan, of this problem or of a similar one."
            )
        begin = None if start is None else point_of(self.declaration, start)
        program, way = self.declaration, Solver.until(chosen, verbose, options, time_limit)
        best, attempts = solve_declared(
            program,
            method=choice(method, "method", ("auto", "declared")),
            tolerance=number(tolerance, "tolerance", positive=True),
            solver=way,
            start=begin,
            on_attempt=on_attempt,
        )
        if best is None or not best.certificate.optimal:
            plan = None if best is None else describe(program, best)
            raise not_certified(program, best, attempts, plan, late=way.told())
        return describe(program, best)

    def sweep(self, what: Any, values: Any, **options: Any) -> Sweep:
        """A plan for every value of a limit or of a parameter, each started from the one before.

        Args:
            what: the name of a bound (`term <= limit`), whose limit is set to each value, or a `cp.Parameter` of the
                problem: a limit, a weight or a price. It has its own value again afterwards.
            values: numbers, in the order in which they are solved.
            options: passed to `solve`.

        Returns:
            A table that prints, `to_csv` and `plot`; a value without a certified plan has what was said instead.

        Raises:
            ValueError: no such bound or parameter.

        >>> import cvxpy as cp, numpy as np
        >>> from codesign_opt import Coefficients, Levels, Prices
        >>> from codesign_opt.modeling import Compute, ScoreError
        >>> table = Coefficients(Levels.log_uniform(0.01, 10.0, 2), score=[1.0, 9.0], floor=[0.0, 0.0],
        ...                      response=np.zeros((0, 2)), terminal="rescale")
        >>> problem = Problem(ScoreError(table), [Compute(Prices(1.0, 1.0, 1), part="training") <= 100.0],
        ...                   steps=[9.0, 9.0])
        >>> found = problem.sweep("Compute(training)", [100.0, 200.0])
        >>> round(float(found.errors[0] / found.errors[1]), 6)
        2.0
        """
        return swept(self, what, values, options)

    def cvxpy(self, start: Plan | None = None) -> DeclaredProgram:
        """The program as cvxpy sees it: a cp.Problem with expressions in your units; see DeclaredProgram.

        Args:
            start: a plan around which it is scaled; unless given the structured part's solution, or a first guess.
        """
        if not isinstance(start, (Plan, type(None))):
            raise TypeError(
                f"Problem.cvxpy: start is {shown(start)}; give a Plan, of this problem or of a similar one."
            )
        return declared_program(
            self.declaration, self.constraints, None if start is None else point_of(self.declaration, start)
        )


def _own_point(program: Declaration, examples: Array | None, steps: Array | Mapping[str, Array] | None) -> Point:
    """A user's schedule as a point; quantities that the problem gives or does not need are filled in."""
    size = len(program.levels)
    own = _own_steps(program, steps)
    if own:
        steps = None
    filled = {"examples": program.examples, "steps": program.steps}
    for name, value in (("examples", examples), ("steps", steps)):
        if value is not None:
            filled[name] = vector(value, f"Problem.certify.{name}", length=size, nonnegative=True)
    for name, decided in (("examples", program.decides_examples), ("steps", program.decides_steps)):
        if filled[name] is None and decided:
            raise ValueError(f"Problem.certify: {name} is missing; the problem decides them.")
    if filled["examples"] is not None and examples is not None:
        refuse_unspent("Problem.certify: examples", filled["examples"], program.spent, program.levels)
    zero = np.zeros(size)
    new = zero if filled["examples"] is None else np.maximum(filled["examples"] - program.spent, 0.0)
    return Point(new, program.spent, zero if filled["steps"] is None else filled["steps"], own)


def _own_steps(program: Declaration, steps: Any) -> dict[str, Array]:
    """(L,) of each sampler that shares the training; nothing where none does."""
    names = [each.name for each in program.samplings]
    if not names:
        return {}
    if not isinstance(steps, Mapping) or set(steps) != set(names):
        raise ValueError(f"Problem.certify: steps must be a mapping with the steps of each of {', '.join(names)}.")
    size = len(program.levels)
    return {name: vector(steps[name], f"Problem.certify.steps[{name!r}]", length=size, nonnegative=True)
            for name in names}  # fmt: skip


def _check(program: Declaration) -> None:
    """Refuse what no solver can be asked: curvature, shared variables, quantities without end."""
    check_given(program)
    bounded = [
        leaf for item in program.constraints if isinstance(item.what, Bound) for _, leaf in item.what.term.leaves()
    ]
    inside = [part for leaf in [*(leaf for _, leaf in program.leaves), *bounded] for part in leaf.components()]
    parts = [part for part in inside if not part.known_convex]
    leaves = [leaf for _, leaf in program.leaves if not leaf.known_convex]
    constraints = [item for item in program.constraints if item.name not in program.budgets]
    if parts or leaves or constraints:
        _check_convexity(program.design(program.neutral), parts, leaves, constraints)
    _refuse_free_quantities(program)


def _check_convexity(design: Design, parts: list[Term], leaves: list[Term], constraints: list[Named]) -> None:
    """Curvature leaf by leaf, at a neutral reference, so that an error blames the leaf."""
    owners: list[tuple[str, list[cp.Variable]]] = []
    for part in parts:  # the parts of a term first: they are to blame
        check_leaf(part.name, part.formulation(design)[0], design)
    for leaf in leaves:
        expression, auxiliary = leaf.formulation(design)
        check_leaf(leaf.name, expression, design)
        owners.append((leaf.name, own_variables([expression, *auxiliary], design)))
    for item in constraints:
        rows = rows_of(item, design)
        owners.append((item.name, own_variables([c for r in rows for c in (r.stated, *r.auxiliary)], design)))
    _refuse_shared(owners)


def _refuse_shared(owners: list[tuple[str, list[cp.Variable]]]) -> None:
    """A variable of one's own belongs to one term or one constraint: each is minimised over it by itself."""
    seen: dict[int, str] = {}
    for name, variables in owners:
        for variable in variables:
            first = seen.setdefault(variable.id, name)
            if first != name:
                raise TypeError(
                    f"Problem: {first} and {name} share the variable '{variable.name()}'; return its rows together "
                    "with the term, as (expression, [constraints]), or list them in one constraint."
                )


def _refuse_free_quantities(program: Declaration) -> None:
    """A quantity that helps and that nothing limits would run to infinity: say so by name."""
    others = len(program.constraints) > len(program.budgets)  # any other constraint may limit it
    own = any(leaf.coefficients is None for _, leaf in program.leaves)
    rows = [item for item in program.constraints if item.name not in program.budgets]
    general = any(not any(_speaks_of(item, each) for each in program.samplings) for item in rows)
    for each in program.samplings:
        priced = (leaf for _, leaf in program.leaves if isinstance(leaf, OfSampling) and leaf.sampling is each)
        if not (general or any(_speaks_of(item, each) for item in rows) or any(p.inner.as_compute for p in priced)):
            raise ValueError(
                f"Problem: nothing limits the steps of {each.name!r}; bound Compute(prices) or {each.name}(Steps())."
            )
    budgets = program.budgets.values()
    if program.decides_examples and not (others or own or any(np.all(b.example > 0) for b in budgets)):
        raise ValueError(
            "Problem: nothing limits the examples; bound Compute(prices), give every example a price, or add a Cap."
        )
    if program.decides_steps and not (others or own or any(np.all(b.step > 0) for b in budgets)):
        raise ValueError(
            "Problem: nothing limits the steps (images = 0 gives them no price); bound Steps() or Compute(prices)."
        )


def _speaks_of(item: Named, sampling: Any) -> bool:
    if isinstance(item.what, Bound):
        return any(leaf.whose is sampling for _, leaf in item.what.term.leaves())
    return isinstance(item.what, RowsOfSampling) and item.what.sampling is sampling
