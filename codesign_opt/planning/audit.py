"""Audit: any grid and any training density against the certified optimum of the same compute."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..basics.causes import BESIDE_BIAS, TOTAL
from ..basics.checks import Array, integer, shown, takes
from ..basics.late import later
from ..basics.progress import Teller, teller
from ..basics.tabular import Tabular
from ..basics.wording import aligned, quantity
from ..ingredients.grids import check_grid, steps_on_levels
from ..ingredients.levels import MOST_LEVELS, Levels
from ..ingredients.prices import Prices
from ..ingredients.process import EDM
from ..ingredients.training_run import TrainingRun
from ..modeling.prediction import predict
from ..models.base import Model, check_model
from ..models.coefficients import Coefficients
from ..results.cause_words import beside, cause_cells
from ..results.headline import learner
from ..results.plan import Plan
from ..results.text import certificate_line, outer_line, share_of, wrapped
from .codesign import codesign
from .question import settled_levels
from .shared_errors import error_of, exactly_known
from .stated import said_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Audit", "audit", "audit_text"]

_STAGES = 3  # plans: of the training density, of the grid too, of everything


@dataclass(frozen=True, eq=False)
class Audit(Tabular):
    """What today's schedule costs against the best use of the same compute.

    Attributes:
        levels: the levels.
        sigmas, examples: what was audited.
        current: its predicted error by cause (exact bias, discrete score kernel; on a network its measured bias).
        optimum: the certified plan with the same compute.
        ratio: current error over the optimum's.
        gap: excess error removed by each change in turn: the training density at the same grid and
            training price, the grid at the same steps and stopping point, and the stopping point with
            the split of the compute. They sum to the whole gap.
        excess_by_level: (L,) score error of the audited density above the best density's at the same
            grid, level by level; negative where it trains more than the best.
        budget: compute of the audited schedule.
        within: (L,) examples of the run within one correlation length of each level. Where there is less than one, the
            error is that of an untrained denoiser, or without a prior nothing bounds it (docs/theory.md section 5.6).
    """

    levels: Levels
    sigmas: Array
    examples: Array
    current: dict[str, float]
    optimum: Plan
    ratio: float
    gap: dict[str, float]
    excess_by_level: Array
    budget: float
    within: Array

    def __str__(self) -> str:
        return audit_text(self)

    def columns(self) -> dict[str, Array]:
        """By noise level: its ends, the run's examples, those within a correlation length, and the excess error."""
        return {
            "sigma_low": self.levels.edges[:-1], "sigma_high": self.levels.edges[1:], "examples": self.examples,
            "within": self.within, "excess": self.excess_by_level,
        }  # fmt: skip

    def heading(self) -> list[str]:
        """What today's schedule costs, and what each change would remove."""
        said = [f"better {name}: error {quantity(-value)}" for name, value in self.gap.items()]
        return [f"Today's schedule makes {quantity(self.ratio, 3)} times the error that its compute allows", *said]

    def plot(self, ax: Axes | None = None) -> Axes:
        """Excess error by noise level, and the gap by cause; returns the Axes."""
        from .audit_figure import audit_plot

        return audit_plot(self.levels, self.excess_by_level, self.gap, ax, untrained=self.within < 1)

    def report(self, path: str | Path) -> Path:
        """One self-contained HTML page; see `codesign_opt.report`."""
        written: Path = later("reports.report", "report")(self, path)
        return written


@takes(prices=Prices)
def audit(
    model: Model,
    prices: Prices,
    *,
    sigmas: Any,
    run: TrainingRun,
    levels: int = 200,
    **options: Any,
) -> Audit:
    """Hold a grid and a training run against the certified optimum for the same compute.

    The compute is what the run and the images cost at `prices`. Three plans are solved: the best
    density for this grid, the best grid for this stopping point and number of steps, and the best of
    everything (docs/theory.md sections 4, 7).

    Args:
        model: GaussianModel, EstimatedModel, or a Model of your own.
        prices: prices of examples and evaluations, and the number of images.
        sigmas: the grid in use; it must end as the model's terminal map says.
        run: the training run in use.
        levels: levels over the whole range.
        options: passed to `codesign`.

    Raises:
        ValueError: a malformed grid, or one that contradicts the model's terminal map.
    """
    check_model(model, "audit")
    if not isinstance(run, TrainingRun):
        raise ValueError(f"audit: run is {shown(run)}; give co.TrainingRun(density=…, iterations=…, batch=…).")
    levels = integer(levels, "audit: levels", minimum=2, maximum=MOST_LEVELS)
    grid = check_grid(sigmas).sigmas
    _refuse_times(model, grid)
    shared = {name: options[name] for name in ("constraints", "terms", "tolerance") if name in options}
    asked = (shared.get("constraints", ()), shared.get("terms", ()))
    table = model.settled(grid, settled_levels(model, grid, levels, own=not any(asked)))
    examples = run.examples_on(table.levels)
    if not examples.sum() > 0:
        low, high = table.levels.edges[0], table.levels.edges[-1]
        raise ValueError(f"audit: the run has no examples between sigma {low:.3g} and {high:.3g} of the grid.")
    training, sampling = _costs(model, prices, table, grid, run)
    if exactly_known(model) and not shared.get("terms"):
        current = error_of(model, grid, examples, table.levels)
    else:
        current = said_of(model, grid, predict(model, grid, examples, table=table))
    with teller(options.pop("progress", None)) as tell:
        stages = _stages(model, (prices, training + sampling), grid, shared | {"levels": levels}, options, tell)
    # a later stage's program contains the earlier plan, but whole steps may round the other way: the best so far
    found = [stage.handed_out[TOTAL] for stage in stages]
    errors = np.minimum.accumulate([current[TOTAL], *found])
    optimum = stages[int(np.argmin(found))]
    excess = _excess(examples, stages[0])
    names = ("training density", "grid", "stopping point and split")
    return Audit(
        table.levels,
        grid,
        examples,
        current,
        optimum,
        float(errors[0] / errors[-1]),
        {name: float(errors[i] - errors[i + 1]) for i, name in enumerate(names[: len(stages)])},
        excess,
        training + sampling,
        examples / table.log_width * table.coupling.lengths(table.levels),
    )


def _stages(
    model: Model,
    compute: tuple[Prices, float],
    grid: Array,
    shared: dict[str, Any],
    options: dict[str, Any],
    tell: Teller,
) -> list[Plan]:
    """Plans at this price, each of which may choose what the one before does, and more."""
    tell("audit: the best training density for this grid", 0, _STAGES)
    stages = [codesign(model, *compute, sigmas=grid, **shared)]
    if model.sampler.own_levels is None:  # a sampler with levels of its own has no other grid
        same_range, stop = _starting_at(model, float(grid[0])), check_grid(grid).stopping_sigma
        tell("audit: the best grid for this stopping point and number of steps", 1, _STAGES)
        heard = tell.within(1, _STAGES, "audit")
        stages.append(
            codesign(same_range, *compute, steps=grid.size - 1, stopping_sigma=stop, progress=heard, **shared)
        )
        tell("audit: the best of everything at this price", 2, _STAGES)
        heard = tell.within(2, _STAGES, "audit")
        stages.append(codesign(same_range, *compute, progress=heard, **{"levels": shared["levels"], **options}))
    tell("audit", _STAGES, _STAGES)
    return stages


def _refuse_times(model: Model, grid: Array) -> None:
    """Times from 1 to 0, or timesteps, in place of noise levels: a grid that starts in the data, or far above all.

    Raises:
        ValueError: such a grid, with what turns it into noise levels.
    """
    spread, top, first = model.spectrum.sigma_data, model.process.sigma_max, float(grid[0])
    if first == 1.0 and top > 4.0 and spread > 0.25:
        raise ValueError(
            f"audit: sigmas starts at 1, where the data's standard deviation is {spread:.3g}: these look like times. "
            "Noise levels are process.sigma(t): t / (1 - t) of flow matching, below t = 1, where it is infinite."
        )
    if first >= 500.0 and np.all(grid == np.round(grid)) and first > 4.0 * top:
        raise ValueError(
            f"audit: sigmas starts at {first:g}, the process's noise ends at {top:g}: these look like timesteps. "
            "co.read_schedule(scheduler) gives their noise levels."
        )


def _starting_at(model: Model, sigma_max: float) -> Model:
    """The model that starts where the audited grid does, where that is lower: from above its own start is as good.

    What starting from pure noise costs is in the exact bias of each. A best that had to spend steps above would make
    the same schedule look the better the higher it starts.
    """
    if sigma_max >= model.process.sigma_max * (1 - 1e-9):
        return model
    return model.with_process(EDM(model.process.sigma_min, sigma_max))


def _excess(examples: Array, best: Plan) -> Array:
    """(L,) score error of the run's examples above that of the best density for the same grid."""
    weight, prior = np.asarray(best.tables["score_weight"]), np.asarray(best.tables["prior_examples"])
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(weight > 0, weight / (examples + prior) - weight / (best.examples + prior), 0.0)


def _costs(model: Model, prices: Prices, table: Coefficients, grid: Array, run: TrainingRun) -> tuple[float, float]:
    """Price of the run (examples outside the levels too, at the nearest level) and of the images."""
    per_level = run.examples_on(table.levels)
    example = prices.example_price(table.levels)
    outside = max(run.examples - float(per_level.sum()), 0.0)
    training = float(example @ per_level) + outside * float(example[0])
    step = prices.evaluation_price(table.levels) * model.sampler.evaluations_per_step
    sampling = float(step @ steps_on_levels(table.levels, grid))
    return training, sampling + table.final_steps * prices.final_price(table.stopping_sigma)


def audit_text(audit: Audit) -> str:
    """An audit as a table: today's error by cause, the certified optimum of the same compute, and the gap."""
    now, best = audit.current, audit.optimum.handed_out
    rows = [[*cause_cells(name, audit.optimum), *map(quantity, errors)] for name, *errors in beside(now, best)]
    rows.append([TOTAL, "", quantity(now[TOTAL]), quantity(best.get(TOTAL))])
    optimum = audit.optimum
    whole = sum(audit.gap.values())
    whose = learner(optimum)
    gaps = [[name, quantity(value), share_of(value, whole)] for name, value in audit.gap.items()]
    lines = [
        *([f"Audit for {whose}:"] if whose else []),
        f"{'' if whose else 'Audit: '}today's schedule makes {quantity(audit.ratio, 3)} times the error that its "
        "compute allows",
        f"  {audit.sigmas.size - 1:,} steps to sigma {quantity(audit.sigmas[audit.sigmas > 0][-1])}, "
        f"{quantity(float(audit.examples.sum()))} examples, compute {quantity(audit.budget)}",
        f"  best: {optimum.number_of_steps:,} steps to sigma {quantity(optimum.stopping_sigma)}, "
        f"{quantity(float(optimum.examples.sum()))} examples",
        *aligned(["Error by cause", "", "today", "best"], rows),
        *aligned(["Excess removed by changing, in turn", "error", "share"], gaps, left=(0,)),
        *(line for told in _offset(audit) for line in wrapped("  ", told)),
        *(line for told in _untrained(audit) for line in wrapped("", told)),
        "Proof of the best",
        f"  {certificate_line(optimum)}",
        *(line for told in _above(optimum) for line in wrapped("  ", told)),
    ]
    outer = outer_line(optimum)
    return "\n".join(lines + (wrapped("  ", outer) if outer else []))


def _offset(audit: Audit) -> list[str]:
    """Why a better density alone wins nothing, where it does not."""
    if audit.gap["training density"] > 0 or not audit.current.get(BESIDE_BIAS, 0.0) < 0:
        return []
    return ["on today's grid what is unlearned offsets errors of the steps: a better density alone wins nothing"]


def _untrained(audit: Audit) -> list[str]:
    """Which levels have fewer than one example, in a sentence."""
    few, edges = np.flatnonzero(audit.within < 1), audit.levels.edges
    if not few.size:
        return []
    runs = np.split(few, np.flatnonzero(np.diff(few) > 1) + 1)
    ranges = [f"{quantity(edges[run[0]], 3)} to {quantity(edges[run[-1] + 1], 3)}" for run in runs]
    there = "that of an untrained denoiser" if np.isfinite(audit.current[TOTAL]) else "without bound"
    where = f"Fewer than one example within a correlation length at sigma {', '.join(ranges)}"
    return [f"{where}: the error there is {there}"]


def _above(optimum: Plan) -> list[str]:
    """Why a proved bound lies above the error of the best, where it does."""
    found = optimum.handed_out.get(TOTAL, np.inf)
    if not found < optimum.certificate.lower_bound:
        return []
    return [
        f"this bound is of the program, whose discretisation error is to leading order; {quantity(found)} is the exact "
        "error of whole steps, whose errors partly cancel, and may lie below it"
    ]
