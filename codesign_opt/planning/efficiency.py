"""efficiency(): how much of a plan's score error any training at all could remove."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..basics.checks import Array
from ..basics.wording import aligned, quantity
from ..ingredients.spectrum import Spectrum
from ..models.gaussian import GaussianModel
from ..results.plan import Plan
from ..results.text import wrapped
from ..samplers.terminal import terminal_weight
from ..training.lower_bounds import bound_report, cramer_rao_score_error, dataset_floor
from ..training.terminal_error import output_data_error

__all__ = ["Efficiency", "efficiency"]


@dataclass(frozen=True, eq=False)
class Efficiency:
    """A plan's score error over what unbiased estimators leave at least (docs/theory.md section 9).

    Of a plan's examples and steps: training law A/m without the untrained denoiser's worth, which is a bias and no
    subject of these bounds. The last evaluation's error is in all totals.

    Attributes:
        sigma: (L,) noise levels.
        per_level: (L,) achieved over Cramér–Rao, levels trained independently; inf where nothing is to be learned,
            NaN where a level has no part in the error.
        achieved: reducible score error by the training law.
        floor: what the optimiser's step leaves beside it, whatever the number of examples.
        bound: Cramér–Rao's bound of the reducible score error, levels trained independently.
        shared_fit: denoising least squares with one eigenvalue per direction for all levels; None for a full matrix.
        shared_bound: Cramér–Rao's bound where all levels share the eigenvalues: one error, from all examples.
    """

    sigma: Array
    per_level: Array
    achieved: float
    floor: float
    bound: float
    shared_fit: float | None
    shared_bound: float

    @property
    def total(self) -> float:
        """Achieved over bound, levels trained independently."""
        return self.achieved / self.bound

    @property
    def sharing(self) -> float:
        """Factor that sharing the eigenvalues between levels could gain at most."""
        return self.achieved / self.shared_bound

    def __str__(self) -> str:
        rows: list[tuple[str, float | None]] = [
            ("training law, reducible", self.achieved),
            ("floor of the optimiser", self.floor),
            ("Cramér–Rao, levels apart", self.bound),
            ("least squares, eigenvalues shared", self.shared_fit),
            ("Cramér–Rao, eigenvalues shared", self.shared_bound),
        ]
        told = [[name, quantity(value), quantity(self.achieved / value, 3) if value else ""]
                for name, value in rows if value is not None]  # fmt: skip
        finite = self.per_level[np.isfinite(self.per_level)]
        ends = f"from {quantity(finite.min(), 3)} to {quantity(finite.max(), 3)} times the bound"
        return "\n".join(
            [
                *aligned(["Score error of the plan's examples", "error", "achieved / this"], told, left=(0,)),
                *wrapped("", f"Single levels are {ends}; bounds hold for unbiased estimators and the score term alone"),
            ]
        )


def efficiency(plan: Plan, model: GaussianModel) -> Efficiency:
    """Achieved score error of a plan over its lower bounds, per level and in total (docs/theory.md section 9).

    Args:
        plan: a plan that trains, of the model.
        model: Gaussian data.

    Raises:
        ValueError: another model, or a plan that trains nothing.

    >>> import codesign_opt as co
    >>> model = co.GaussianModel(co.Spectrum.power_law(8, exponent=1.5), sampler=co.Euler())
    >>> plan = co.codesign(model, co.Prices(1.0, 1.0, 100), 1e5, stopping_sigma=0.02, levels=40, polish=False)
    >>> found = co.efficiency(plan, model)
    >>> found.total >= 2, found.shared_bound <= found.shared_fit <= found.achieved
    (True, True)
    """
    if not isinstance(model, GaussianModel):
        raise ValueError(f"efficiency: model is {type(model).__name__}; the bounds are of a GaussianModel's data.")
    if not isinstance(plan, Plan) or not plan.examples.sum() > 0:
        raise ValueError("efficiency: plan trains no examples; plan with prices and a budget.")
    training, bands, stop = model.training, model.bands, plan.stopping_sigma
    table = model.coefficients(stop, plan.levels)
    lam, n, sigma = bands.eigenvalues, bands.counts, table.sigma
    options: dict[str, Any] = {"matrix": training.matrix, "intercept": training.intercept, "terminal": model.terminal}
    least = cramer_rao_score_error(lam, n, sigma, stop, eta=model.sampler.eta, **options) * sigma**2
    served = plan.examples if table.pooling is None else table.pooling @ plan.examples
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = table.coupling.factor(table.kappa / plan.steps)
        share = np.where((served > 0) & (plan.steps > 0), table.log_width**2 * factor / served, 0.0)
    report = bound_report(table.score, least, share)
    near = float(table.final_window @ plan.examples)
    full = training.matrix == "full"
    ends = _last(bands, stop, full=full, intercept=training.intercept) if table.final_score > 0 else 0.0
    return Efficiency(
        sigma=sigma,
        per_level=np.where(share > 0, report.per_level, np.nan),
        achieved=float(share @ table.score) + (table.final_score / near if near > 0 else 0.0),
        floor=float(table.floor_error @ np.where(plan.steps > 0, factor, 0.0)) + table.final_floor,
        bound=float(share @ least) + (ends / near if near > 0 else 0.0),
        shared_fit=None if full else _shared_fit(bands, sigma, plan.examples, stop, model.terminal),
        shared_bound=dataset_floor(lam, n, stop, max(int(plan.examples.sum()), 1), **options),
    )


def _last(bands: Spectrum, stop: float, *, full: bool, intercept: bool) -> float:
    """Cramér–Rao's bound of the last evaluation's error times its examples: a pair tells what its clean image does."""
    lam, n = bands.eigenvalues, bands.counts
    mean = float(n @ (lam * stop**4 / (lam + stop**2) ** 2)) if intercept else 0.0
    return output_data_error(lam, n, stop, full) + mean


def _shared_fit(bands: Spectrum, sigma: Array, examples: Array, stop: float, terminal: str) -> float:
    """Error of weighted least squares for the denoisers lambda / (lambda + sigma^2) of all levels at once.

    The residual of an example is lambda sigma^2 / v and the slope by lambda sigma^2 / v^2 times the input, of variance
    v: an example tells sigma^2 / (lambda v^2) of lambda, whose error is carried to the end by the terminal map.
    """
    on = bands.eigenvalues > 0
    lam, n = bands.eigenvalues[on], bands.counts[on]
    told = (sigma**2 / (lam[:, None] * (lam[:, None] + sigma**2) ** 2)) @ examples
    end = lam + stop**2
    slope = np.ones_like(lam) if terminal == "rescale" else lam * (lam + 2 * stop**2) / end**2
    return float(np.sum(n * slope**2 / (4 * terminal_weight(lam, stop, terminal) * told)))
