"""Model: what the planner asks of data, sampler and training. Two methods are required, the rest says "not known"."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from ..basics.checks import Array, choice, integer, noise_level, shown, takes
from ..ingredients.coupling import Coupling, Local, Settled
from ..ingredients.densities import SigmaDensity
from ..ingredients.fit_rules import FitRules
from ..ingredients.grids import Grid, check_grid, steps_on_levels
from ..ingredients.levels import MOST_LEVELS, Levels
from ..ingredients.measured_error import OBJECTIVES, MeasuredError
from ..ingredients.process import EDM, Process
from ..ingredients.spectrum import Spectrum
from ..ingredients.training_run import TrainingRun
from ..samplers.affine_steps import Numbers
from ..samplers.members import Heun, Sampler
from .coefficient_batch import CoefficientBatch
from .coefficients import Coefficients
from .evidence import Evidence
from .grid_descent import GridResiduals, NodeErrors
from .grid_probe import FittedSteps, GridProbe
from .model_parts import check_parts
from .node_sums import NodeTerms
from .predicting import counted, predicted
from .prediction import Prediction
from .unknowns import LENGTH, TRANSFER, Unknowns, coupling_unknowns

__all__ = ["Model", "check_model"]

_M = TypeVar("_M", bound="Model")


class Model(ABC):
    """Data, sampler and training as the planner sees them: two methods give the optimizer's coefficients.

    GaussianModel and EstimatedModel are models; one of your own is a frozen dataclass that derives from this
    class, with fields for what shall vary (`sampler` and `process` for `codesign(samplers=…)` and `audit`) and the two
    methods `coefficients` and `settled`. All other methods answer "not known" unless overridden: then stopping points
    are solved one by one, "best of N" is said of them instead of "optimal", errors of grids are those of `settled`.

    Attributes:
        spectrum: of the data; its sigma_data ends the search for a stopping point.
        process: its range of noise levels bounds the plan.
        sampler: how one step acts.
        coupling: over which stretch of log sigma one error of the denoiser persists (docs/theory.md section 6).
        terminal: "denoise" (the last step goes to zero noise) or "rescale".
        probe: a live denoiser that measures what the model would only predict, or None.

    >>> import codesign_opt as co
    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Exact(co.Model):
    ...     "A trained denoiser without error, whose local error is that of one eigenvalue."
    ...     spectrum: co.Spectrum
    ...     process: co.Process = co.EDM(0.01, 10.0)
    ...     sampler: co.Sampler = co.Euler()
    ...     def coefficients(self, stopping_sigma=None, levels=200):
    ...         stop = self.process.sigma_min if stopping_sigma is None else stopping_sigma
    ...         table = co.Levels.log_uniform(0.01, self.process.sigma_max, levels, stopping_sigma=stop)
    ...         zero = np.zeros(len(table))
    ...         local = self.sampler.local_error([0.25], table.sigma, stop) * table.sigma**2
    ...         return co.Coefficients(table, score=zero, floor=zero, response=local, truncation=stop**2)
    ...     def settled(self, sigmas, levels=200, *, smooth=False):
    ...         return self.leading_order(sigmas, levels)
    >>> plan = co.codesign(Exact(co.Spectrum.from_eigenvalues([0.25])), steps=8, levels=40, points=5)
    >>> plan.number_of_steps, plan.outer["status"][:7]
    (8, 'best of')
    """

    spectrum: Spectrum
    process: Process = EDM()
    sampler: Sampler = Heun()
    coupling: Coupling = Local()
    terminal: str = "denoise"
    probe: GridProbe | None = None

    @abstractmethod
    def coefficients(self, stopping_sigma: float | None = None, levels: int | Levels = 200) -> Coefficients:
        """The table of the programs of docs/theory.md section 7 at one stopping point.

        Args:
            stopping_sigma: where sampling stops, data units; process.sigma_min unless given.
            levels: number of levels over the whole range of the process, refining which changes no answer; models
                with `exact_residuals` are asked for given levels from `stopping_sigma` up, too.
        """

    @abstractmethod
    def settled(self, sigmas: ArrayLike, levels: int | Levels = 200, *, smooth: bool = False) -> Coefficients:
        """The table for a grid that is given: step lengths inside the coefficients, `truncation` the grid's bias.

        `leading_order` makes one from `coefficients`.

        Args:
            sigmas: (K+1,) grid.
            levels: as in `coefficients`.
            smooth: whether coefficients shall vary smoothly from step to step, for a density without stairs.
        """

    # what a model may know besides

    @property
    def trained(self) -> bool:
        """Whether the model knows what training leaves, so that examples can be planned."""
        return True

    @property
    def exact_error(self) -> Callable[[Numbers], Numbers] | None:
        """Exact squared distance of a grid's output to the data, as an analytic function of grids (..., K+1)."""
        return None

    @property
    def exact_residuals(self) -> Callable[[Array], GridResiduals] | None:
        """`exact_error` of grids (..., K+1) as a sum of squares with its derivatives, for descents of long grids."""
        return None

    def exact_values(self, sigmas: Array, *, sensitive: bool = False) -> tuple[Array, Array | None]:
        """(...) `exact_error` of grids, unchecked, and where asked for and known `exact_residuals`' sensitivity."""
        found = self._told_residuals(sigmas)
        return np.asarray((found.values**2).sum(axis=-1)), found.sensitivity if sensitive else None

    def node_errors(self, sigmas: Array, sensitivity: Array | None = None) -> NodeErrors:
        """What the error of each positive node's denoiser leaves in the output; for models with `exact_residuals`.

        Args:
            sigmas: (..., K+1) grids.
            sensitivity: that of `exact_residuals`, where it is known.
        """
        raise NotImplementedError(self._without("node_errors"))

    def node_errors_slope(self, sigmas: Array, weights: NodeErrors, sensitivity: Array | None = None) -> Array:
        """Derivatives of the weighted sum of `node_errors` by log sigma of the positive nodes; likewise."""
        raise NotImplementedError(self._without("node_errors_slope"))

    def _without(self, method: str) -> str:
        return f"{type(self).__name__} writes `exact_residuals` and not `{method}`; write both."

    def residuals_and_slope(
        self, sigmas: Array, weights: NodeErrors, sensitivity: Array | None = None
    ) -> tuple[GridResiduals, Array]:
        """`exact_residuals` and `node_errors_slope` of the same grids, which one gradient may tell together."""
        return self._told_residuals(sigmas), self.node_errors_slope(sigmas, weights, sensitivity)

    def _told_residuals(self, sigmas: Array) -> GridResiduals:
        residuals = self.exact_residuals
        if residuals is None:
            raise NotImplementedError(f"{type(self).__name__} has no exact_residuals")
        return residuals(sigmas)

    @property
    def title(self) -> str:
        """What the model is, for tables."""
        return type(self).__name__

    @property
    def error_measure(self) -> str:
        """What `bias` measures, for tables."""
        return "error of the grid as the model predicts it"

    @property
    def fine_accuracy(self) -> float:
        """Squared distance between the solution that a measured error is held against and one of half its steps."""
        return 0.0

    @property
    def rounded_error(self) -> float:
        """Squared distance that a network's rounding of its answers alone makes; 0 where nothing is measured."""
        return 0.0

    def coefficient_batch(self, stops: Array, levels: int = 200) -> CoefficientBatch | None:
        """`coefficients` at R stopping points at once; None where they come one by one."""
        return None

    def interval_coefficients(self, low: float, high: float, levels: int = 200) -> Coefficients | None:
        """A table below that of every stopping point in [low, high], for bounds; None where none is known."""
        return None

    def interval_batch(self, lows: Array, highs: Array, levels: int = 200) -> CoefficientBatch | None:
        """`interval_coefficients` of R intervals at once; None where they come one by one."""
        return None

    def ended(self, table: Coefficients) -> Coefficients:
        """`table` with what is known of levels without examples, for designs that are given."""
        return table

    def settled_pair(self, sigmas: ArrayLike, levels: int | Levels = 200) -> tuple[Coefficients, Coefficients]:
        """`settled` of one grid both ways, smooth and even."""
        return self.settled(sigmas, levels, smooth=True), self.settled(sigmas, levels)

    def predict(
        self,
        sigmas: ArrayLike,
        examples: ArrayLike | None = None,
        *,
        density: SigmaDensity | None = None,
        levels: Levels | None = None,
        run: TrainingRun | None = None,
    ) -> Prediction:
        """Error of any grid with any training, by cause, in milliseconds: nothing is solved.

        The bias is exact where the model knows the law. The error of training is of second order in the errors of the
        denoiser's weights and exact in how they go together: those of nodes that the same examples taught are added
        before they are squared, the last evaluation's with them, and examples count within one correlation length,
        not at each level alone (docs/theory.md section 6.5). Without a training the bias alone is told.

        Args:
            sigmas: (K+1,) grid.
            examples: (L,) examples on `levels`, or a number of examples drawn from `density`.
            density: of the examples over sigma.
            levels: of the examples (`plan.levels`).
            run: a training run, whose examples count too.

        Raises:
            ValueError: a malformed grid, one that contradicts the terminal map, or examples without a place.

        >>> import codesign_opt as co
        >>> model = co.GaussianModel(co.Spectrum.power_law(16, exponent=1.5), start="mean")
        >>> found = model.predict(co.edm_grid(18, 0.01, 80.0), 1e5, density=co.LogNormal(-1.2, 1.2))
        >>> found.exact, found.total == sum(found.parts.values())
        (('bias',), True)
        """
        grid = self.own_grid(sigmas).sigmas
        return predicted(self, sigmas, counted(self, grid, examples, density, levels, run), grid)

    def node_terms(self, sigmas: Array) -> NodeTerms | None:
        """What an error of the denoiser at each positive node does to the output; None where it is not known."""
        return None

    def truncation_and_start(self, stop: float) -> tuple[float, float]:
        """What stopping and starting alone leave a perfect sampler."""
        table = self.coefficients(stop, 2)
        return table.truncation, table.initial

    @property
    def speaks_of(self) -> str:
        """Whose training the model tells, as a phrase; empty where nothing is said."""
        return ""

    def bias(self, sigmas: ArrayLike) -> float:
        """Squared distance that a grid leaves to the data with a perfect denoiser, squared data units."""
        return self.settled(sigmas).truncation

    def measures(self, sigmas: Array) -> bool:
        """Whether `bias` of this grid is measured on a denoiser."""
        return False

    def stated(
        self, grids: Mapping[str, Array], samplers: Mapping[str, Sampler] | None = None
    ) -> Mapping[str, MeasuredError]:
        """What is said of grids by name, the first of which is a plan's; of those alone that are measured.

        Args:
            grids: (K+1,) noise levels by name.
            samplers: of those that another sampler than the model's runs on.
        """
        return {}

    def fitted(self, sigmas: Array, rules: FitRules) -> FittedSteps:
        """A multistep sampler of as many steps as the grid has, its coefficients and levels fitted to a denoiser.

        Raises:
            ValueError: there is no denoiser to fit it to, or the grid's sampler takes another number of calls.
        """
        raise ValueError(
            f"codesign: solver='fit' needs a live denoiser, and {self.title} has none; give an estimate.network. "
            "Coefficients fitted to a spectrum alone fail on networks."
        )

    def with_objective(self, objective: str) -> Model:
        """The same model, for another statistic of measured errors.

        Raises:
            ValueError: errors are not those of draws here, and another statistic than their mean is asked for.
        """
        if choice(objective, "objective", OBJECTIVES) != "mean":
            raise ValueError(
                f"objective is {shown(objective)}, but the errors of {self.title} are not measured draw by draw; leave "
                "it out, or give an estimate.network."
            )
        return self

    def polish(self, sigmas: Array, *, free_stop: bool = False) -> Array:
        """A grid of as many steps with smaller error; the same array where the model knows no better."""
        return sigmas

    def at_steps(self, sigmas: ArrayLike) -> Model:
        """The model with responses measured anew at the step sizes of a grid; itself where nothing is measured."""
        return self

    def warnings(self, table: Coefficients, examples: Array) -> tuple[str, ...]:
        """What the training noise has to say about (L,) planned examples, such as levels whose burn-in is not over."""
        return ()

    @takes(process=Process)
    def with_process(self, process: Process) -> Self:
        """The same model over another range of noise levels."""
        return _changed(self, "process", process)

    @takes(sampler=Sampler)
    def with_sampler(self, sampler: Sampler) -> Self:
        """The same model for another sampler."""
        return _changed(self, "sampler", sampler)

    def measured_numbers(self) -> Unknowns | None:
        """Which of the model's numbers were measured, and how badly they are known; None where all are stated."""
        return None

    def unknowns(self, *, length_error: float = 0.0, width_error: float = 0.0) -> Unknowns | None:
        """`measured_numbers`, with those of the coupling; None where there are none.

        Args:
            length_error, width_error: relative standard errors of the correlation length and of the transfer width.

        Raises:
            ValueError: an error of a number that the coupling does not have.
        """
        own = self.measured_numbers()
        beside, coupled = coupling_unknowns(self.coupling, {LENGTH: length_error, TRANSFER: width_error})
        if beside is None:
            return own
        size = 0 if own is None else len(own.sources)

        def moved(move: Array) -> Model:
            model = self if own is None else own.moved(move[:size])
            other: Model = _changed(model, "coupling", coupled(move[size:]))
            return other

        return replace(beside, moved=moved) if own is None else own.beside(beside, moved)

    def describe(self) -> dict[str, Any]:
        """Plain values that tell this model from others: kept parts of a comparison carry them."""
        table = self.coefficients(levels=50)
        ends = np.array([table.truncation, table.initial])
        numbers = (table.score, table.floor, table.response, ends, self.spectrum.eigenvalues)
        digest = hashlib.blake2b(b"".join(row.tobytes() for row in numbers), digest_size=8)
        return {
            "model": self.title,
            "process": self.process.to_dict(),
            "terminal": self.terminal,
            "numbers": digest.hexdigest(),
        }

    def evidence(self) -> Evidence:
        """What schedules of the literature may know: here the spectrum and the range of noise levels."""
        return Evidence(
            self.process.sigma_min, self.process.sigma_max, self.sampler, self.terminal, spectrum=self.spectrum
        )

    # for the methods of models

    def levels_above(self, stop: float, levels: int | Levels, top: float | None = None) -> Levels:
        """So many levels over the range of the process, or the given ones, from a stopping point up to `top`."""
        if not isinstance(levels, Levels):
            stop, high = noise_level(stop, "stop"), self.process.sigma_max if top is None else noise_level(top, "top")
            low = min(self.process.sigma_min, stop)
            count = integer(levels, "levels", minimum=2, maximum=MOST_LEVELS)
            levels = Levels.log_uniform(low, high, count, stopping_sigma=stop)
        return self.coupling.aligned(levels)

    def leading_order(
        self, sigmas: ArrayLike, levels: int | Levels = 200, *, bias: float | None = None
    ) -> Coefficients:
        """`settled` from `coefficients` at the grid's stopping point: score error times M of each step.

        Args:
            sigmas: (K+1,) grid.
            levels: number of levels over the whole range, or the levels themselves.
            bias: the grid's own error; unless given its leading order (equation 3.1, or 3.4 for measured
                responses) with truncation and start.

        Raises:
            ValueError: a malformed grid, or one that contradicts the model's terminal map.
        """
        grid = self.own_grid(sigmas)
        low = min(self.process.sigma_min, grid.stopping_sigma)
        table = self.with_process(EDM(low, float(grid.sigmas[0]))).coefficients(grid.stopping_sigma, levels)
        steps = steps_on_levels(table.levels, grid.sigmas)
        factor = self.coupling.factor(table.kappa / steps)
        return replace(
            table,
            score=table.score * factor,
            floor=table.floor * factor,
            untrained=None if table.untrained is None else table.untrained * factor,
            response=np.zeros((0, len(table.levels))),
            coupling=Settled(self.coupling.lengths(table.levels), self.coupling.pooling(table.levels)),
            truncation=_leading_bias(table, steps) if bias is None else bias,
            initial=0.0,
            provenance={**table.provenance, "stopping_sigma": grid.stopping_sigma},
        )

    def own_grid(self, sigmas: ArrayLike) -> Grid:
        """The grid, checked.

        Raises:
            ValueError: a malformed grid, or one that contradicts the model's terminal map.
        """
        grid = check_grid(sigmas)
        if grid.terminal != self.terminal:
            given = f"sigmas ends with {grid.sigmas[-1]:g}, which is terminal='{grid.terminal}'"
            raise ValueError(f"{given}, but the model's terminal is '{self.terminal}'; change one of them.")
        return grid

    def check_parts(self) -> None:
        """Whether spectrum, process, sampler, coupling and terminal are what they must be.

        Raises:
            ValueError: one of them, by name.
        """
        check_parts(self)


def check_model(model: Any, where: str, also: str = "") -> Model:
    """The model that a public function was given; `also` names what else it takes.

    Raises:
        ValueError: anything but a Model, with the methods to write; or a part of the wrong type.
    """
    if not isinstance(model, Model):
        raise ValueError(
            f"{where}: model is {shown(model)}; give a GaussianModel, an EstimatedModel{also}, or a co.Model of your "
            "own with the methods coefficients(stopping_sigma, levels) and settled(sigmas, levels, smooth)."
        )
    model.check_parts()
    return model


def _leading_bias(table: Coefficients, steps: Array) -> float:
    """sum_b (sum_l R_bl / n_l^q)^2 with signs where responses are measured, and what stopping and start cost."""
    sums = (table.response if table.measured else np.abs(table.response)) @ (
        table.log_width ** (table.order + 1) / steps**table.order
    )
    return float(sums @ sums) + table.truncation + table.initial


def _changed(model: _M, name: str, part: Any) -> _M:
    if not (is_dataclass(model) and name in {field.name for field in fields(model)}):
        raise TypeError(
            f"{type(model).__name__} can't change its {name}: make it a frozen dataclass with a field {name}, or "
            f"override with_{name}."
        )
    changed: _M = replace(model, **{name: part})
    return changed
