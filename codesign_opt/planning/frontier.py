"""Frontier: plans along a sweep of budgets, or of the number of images that will be drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..basics.causes import TOTAL
from ..basics.checks import Array, entries, takes, vector
from ..basics.errors import CodesignError
from ..basics.jobs import each_of
from ..basics.progress import Progress, teller
from ..basics.tabular import Tabular
from ..ingredients.prices import Prices
from ..models.base import Model, check_model
from ..results.headline import learner
from ..results.plan import Plan
from .codesign import codesign

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Frontier", "frontier"]


@dataclass(frozen=True, eq=False)
class Frontier(Tabular):
    """Certified plans along one axis.

    Attributes:
        axis: "budget" or "images".
        values: (N,) the budgets or numbers of images.
        plans: the plan at each value, or None where none was certified.
        failures: what was said where there is no plan, by index.
    """

    axis: str
    values: Array
    plans: tuple[Plan | None, ...]
    failures: dict[int, str]

    def _gather(self, read: Callable[[Plan], float]) -> Array:
        return np.array([np.nan if plan is None else read(plan) for plan in self.plans])

    @property
    def budgets(self) -> Array:
        """(N,) the values of the axis, whatever it is."""
        return self.values

    @property
    def errors(self) -> Array:
        """(N,) predicted error of each handed-out plan; nan where there is none."""
        return self._gather(lambda plan: plan.handed_out.get(TOTAL, plan.error))

    @property
    def training_share(self) -> Array:
        """(N,) part of the compute that goes into training."""
        return self._gather(lambda p: p.costs["training"] / (p.costs["training"] + p.costs["sampling"]))

    @property
    def steps(self) -> Array:
        """(N,) number of sampler steps."""
        return self._gather(lambda plan: float(plan.number_of_steps))

    @property
    def stopping_sigmas(self) -> Array:
        """(N,) stopping points."""
        return self._gather(lambda plan: plan.stopping_sigma)

    def break_even(self) -> float:
        """Value of the axis at which training and sampling cost the same; nan where the sweep has none.

        Interpolated in the logarithm of the axis.
        """
        share, logs = self.training_share, np.log(self.values)
        for i in range(len(share) - 1):
            a, b = share[i] - 0.5, share[i + 1] - 0.5
            if np.isfinite(a) and np.isfinite(b) and a * b <= 0 and a != b:
                return float(np.exp(logs[i] + (logs[i + 1] - logs[i]) * a / (a - b)))
        return float("nan")

    def columns(self) -> dict[str, Array]:
        """By value of the axis: error, share of the training, steps and stopping point; nan where there is no plan."""
        return {
            self.axis: self.values, "error": self.errors, "training_share": self.training_share, "steps": self.steps,
            "stopping_sigma": self.stopping_sigmas,
        }  # fmt: skip

    def heading(self) -> list[str]:
        """How many plans along which axis."""
        found = sum(plan is not None for plan in self.plans)
        return [f"Frontier: {found} plans of {len(self.plans)} values of the {self.axis}"]

    def plot(self, ax: Axes | None = None) -> Axes:
        """Error and training share against the axis; returns the matplotlib Axes."""
        from ..results.style import ERROR, error_label
        from .frontier_figure import frontier_plot

        label = next((error_label(plan) for plan in self.plans if plan is not None), ERROR)
        return frontier_plot(self.axis, self.values, self.errors, self.training_share, ax, label=label)

    def __str__(self) -> str:
        head = f"{self.axis:>12}  {'error':>10}  {'training':>8}  {'steps':>5}  {'stop sigma':>10}"
        whose = next((learner(plan) for plan in self.plans if plan is not None), "")
        lines = [f"Frontier for {whose}", head] if whose else [head]
        for i, value in enumerate(self.values):
            if self.plans[i] is None:
                lines.append(f"{value:12,.4g}  {self.failures.get(i, 'no plan')}")
                continue
            lines.append(
                f"{value:12,.4g}  {self.errors[i]:10.4g}  {self.training_share[i]:8.1%}  {self.steps[i]:5.0f}  "
                f"{self.stopping_sigmas[i]:10.4g}"
            )
        return "\n".join(lines)


@takes(prices=Prices)
def frontier(
    model: Model,
    prices: Prices,
    budgets: Any,
    *,
    images: Iterable[float] | None = None,
    progress: Progress = None,
    n_jobs: int = 1,
    backend: str | None = None,
    **options: Any,
) -> Frontier:
    """Plan for every budget; or, with `images`, for every number of images at one budget.

    Args:
        model: GaussianModel, EstimatedModel, or a Model of your own.
        prices: prices; their number of images is replaced where `images` is swept.
        budgets: ascending budgets, or one budget with `images`.
        images: ascending numbers of images.
        progress: after each plan: True, False, None (in a terminal or notebook, after 2 s), or a function of (done,
            total, text).
        n_jobs, backend: as in joblib.Parallel: plans at a time (-1: one per core), and what runs them ("loky"
            processes unless given, "threading", "dask" or "ray" where they are installed). The numbers are the same.
        options: passed to `codesign`.

    >>> import codesign_opt as co
    >>> model = co.GaussianModel(co.Spectrum.power_law(8, exponent=1.5), sampler=co.Euler())
    >>> found = frontier(model, co.Prices(1.0, 1.0, 100), [2e3, 4e3], stopping_sigma=0.02, levels=40)
    >>> bool(found.errors[1] < found.errors[0])
    True
    """
    check_model(model, "frontier")
    if images is None:
        axis, values = "budget", vector(budgets, "budgets", positive=True, ascending=True)
        questions = [(prices, float(budget)) for budget in values]
    else:
        axis, values = "images", vector(entries(images, "images"), "images", positive=True, ascending=True)
        questions = [(prices.with_images(float(count)), budgets) for count in values]
    plans: list[Plan | None] = []
    failures: dict[int, str] = {}
    asked = ((model, price, budget, {**options, "progress": False}) for price, budget in questions)
    with teller(progress) as tell:
        for i, found in enumerate(each_of(_planned, asked, n_jobs=n_jobs, backend=backend)):
            plans.append(None if isinstance(found, str) else found)
            if isinstance(found, str):
                failures[i] = found
            tell(f"{axis} {values[i]:,.4g}", i + 1, len(values))
    return Frontier(axis, values, tuple(plans), failures)


def _planned(model: Model, prices: Prices, budget: float, options: dict[str, Any]) -> Plan | str:
    """The plan of one value, or what was said instead: a sweep records what fails and goes on."""
    try:
        return codesign(model, prices, budget, **options)
    except CodesignError as error:
        return str(error)
