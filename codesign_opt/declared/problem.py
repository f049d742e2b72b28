"""DeclaredProblem: a question to the planner with its data, prices and budget, ready to solve."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..ingredients.prices import Prices
    from ..programs.problem import Problem
    from ..results.plan import Plan

__all__ = ["DeclaredProblem"]


@dataclass(frozen=True, eq=False)
class DeclaredProblem:
    """A named question: either a model with its prices and budget, or a finished `co.Problem`.

    Args:
        name, title: how lists and messages call it.
        provenance: where the data come from, and their licence.
        model: GaussianModel, or any object with its methods; None where `problem` is given.
        prices, budget: what compute costs and how much there is; both None where steps alone limit the plan.
        options: keyword arguments of `co.codesign`, such as steps, constraints or samplers.
        problem: a finished problem of the modelling language; it holds its own limits.

    Raises:
        ValueError: both or neither of model and problem.

    >>> from codesign_opt import problems
    >>> plan = problems.load("clipped_allocation").solve()
    >>> plan.certificate.optimal
    True
    """

    name: str
    title: str
    provenance: str
    model: Any = None
    prices: Prices | None = None
    budget: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    problem: Problem | None = None

    def __post_init__(self) -> None:
        if (self.model is None) == (self.problem is None):
            which = "neither" if self.model is None else "both"
            raise ValueError(f"DeclaredProblem {self.name!r} has {which} of model and problem; give one of them.")

    def solve(self, **overrides: Any) -> Plan:
        """The certified plan.

        Args:
            overrides: arguments of `co.codesign` (budget, prices, steps, levels, …), or of
                `co.Problem.solve` for a finished problem, instead of the declared ones.
        """
        if self.problem is not None:
            return self.problem.solve(**overrides)
        from ..planning.codesign import codesign

        question = {"prices": self.prices, "budget": self.budget, **self.options, **overrides}
        return codesign(self.model, **question)

    def with_limits(self, *, images: float | None = None, **changes: Any) -> DeclaredProblem:
        """The same question with another budget, number of images, or option of `co.codesign`.

        Raises:
            ValueError: a finished problem, which holds its own limits; images without prices.
        """
        if images is None and not changes:
            return self
        if self.problem is not None:
            names = ", ".join([*(["images"] if images is not None else []), *changes])
            raise ValueError(f"{self.name} is a finished problem; build() decides on {names}, so set them there.")
        prices = self.prices
        if images is not None:
            if prices is None:
                raise ValueError(f"{self.name} has no prices, so that images can't be set; give steps.")
            prices = prices.with_images(images)
        budget = changes.pop("budget", self.budget)
        if budget is not None and prices is None:
            raise ValueError(f"{self.name} has no prices, so that budget can't be set; give steps.")
        return replace(self, prices=prices, budget=budget, options={**self.options, **changes})

    def __repr__(self) -> str:
        return f"DeclaredProblem({self.name!r}: {self.title})"
