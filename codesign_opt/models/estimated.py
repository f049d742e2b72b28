"""EstimatedModel: what was measured on a network, as the optimizer's coefficients. No torch in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..basics.checks import Array, as_path, matrix, noise_level, shown, takes, vector
from ..basics.files import replacing
from ..basics.json_text import json_text
from ..basics.npz import read_npz
from ..basics.spelling import spelled
from ..basics.tabular import Tabular
from ..ingredients.coupling import Coupling, Local
from ..ingredients.estimation_record import EstimationRecord
from ..ingredients.fit_rules import FitRules
from ..ingredients.grids import check_grid
from ..ingredients.levels import Levels
from ..ingredients.measured_error import MeasuredError
from ..ingredients.process import EDM, Process
from ..ingredients.spectrum import Spectrum
from ..samplers.members import Heun, Sampler
from .base import Model
from .coefficients import Coefficients
from .estimated_text import estimated_text
from .grid_probe import FittedSteps, GridProbe
from .model_parts import name_parts
from .unknowns import Unknowns, row_unknowns

__all__ = ["EstimatedModel"]

_STOPS = (0.05, 0.15, 0.4)  # stopping points, of the data's standard deviation, to descend from too
_ROWS = ("sigma", "responses", "truncation", "sensitivity", "error_variance", "error_floor", "untrained")


@spelled
@dataclass(frozen=True, eq=False, repr=False)
class EstimatedModel(Model, Tabular):
    """Everything the planner asks, measured on a denoiser at M noise levels (docs/theory.md sections 3 to 5).

    Errors are mean squared distances of outputs under the same noise, summed over dimensions: the
    pathwise bound of the squared Wasserstein distance, so that all terms have one meaning:

        score error     a(sigma) sigma^2 = (1 + eta^2)^2 g^2 kappa1,  floor (1 + eta^2)^2 g^2 kappa2; without
                        examples that of one example within a correlation length
        discretisation  |sum over steps of step^(q+1) epsilon|^2 = sum_b (sum_l R_bl / n_l^q)^2
        truncation      distance between stopping at sigma and going on

    Args:
        sigma: (M,) ascending noise levels of the measurement, data units.
        responses: (B, M) signed rows sigma^(q+1) epsilon whose products are the Gram matrix (3.4).
        truncation: (M,) squared distance left by stopping at each level.
        process, sampler, terminal: what was measured with.
        sensitivity: (M,) g^2, squared terminal distance per squared error of the denoiser's output;
            None where only the sampler can be planned.
        error_variance: (M,) kappa1, squared error of the denoiser times examples within one
            correlation length; None where no training was measured.
        error_floor: (M,) kappa2 times learning rate over batch, the error no example removes; 0 unless given.
        untrained: (M,) squared error of the denoiser where a level has no example, which ends the law kappa1 / m in
            what is said of a design (docs/theory.md section 5.6); unless given, and in programs, that of one example.
        spectrum: of the data; its sigma_data ends the search for a stopping point.
        coupling: correlation length of the trained errors over log sigma.
        standard_errors: of the arrays above, by name.
        provenance: what was measured, with which seeds and at which cost; for people.
        estimation: how it was measured, as far as a plan says it.
        probe: the live measurement; None for a model read from a file.

    Raises:
        ValueError: a field that is not finite, of wrong shape or sign, by name.

    >>> model = EstimatedModel(np.array([0.1, 1.0, 10.0]), responses=np.array([[0.1, 0.4, 0.2]]),
    ...     truncation=np.array([1e-4, 1e-2, 1.0]), spectrum=Spectrum.power_law(4, exponent=1.0))
    >>> model.coefficients(0.1, levels=4)
    Coefficients(3 levels, sigma 0.1 to 80, 1 bands, order 2, denoise)
    """

    sigma: Array
    responses: Array
    truncation: Array
    spectrum: Spectrum
    process: Process = field(default_factory=EDM)
    sampler: Sampler = field(default_factory=Heun)
    terminal: str = "denoise"
    sensitivity: Array | None = None
    error_variance: Array | None = None
    error_floor: Array | None = None
    untrained: Array | None = None
    coupling: Coupling = field(default_factory=Local)
    standard_errors: Mapping[str, Array] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    estimation: EstimationRecord = field(default_factory=EstimationRecord)
    probe: GridProbe | None = None

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "sigma", vector(self.sigma, "EstimatedModel.sigma", minimum_length=2, positive=True, ascending=True))
        size = self.sigma.size
        put(self, "responses", matrix(self.responses, "EstimatedModel.responses", shape=(None, size)))
        for name in _ROWS[2:]:
            if getattr(self, name) is not None:
                value = vector(getattr(self, name), f"EstimatedModel.{name}", length=size, nonnegative=True)
                put(self, name, value)
        name_parts(self)
        self.check_parts()
        if not isinstance(self.estimation, EstimationRecord):
            raise ValueError(f"EstimatedModel.estimation is {shown(self.estimation)}; an EstimationRecord is needed.")
        if self.error_variance is not None and self.sensitivity is None:
            raise ValueError("EstimatedModel.sensitivity is missing; error_variance needs it to reach the output.")

    @property
    def trained(self) -> bool:
        """Whether training was measured, so that examples can be planned."""
        return self.error_variance is not None

    def coefficients(self, stopping_sigma: float | None = None, levels: int | Levels = 200) -> Coefficients:
        """The table of the programs of section 7 at one stopping point, interpolated in log sigma.

        Args:
            stopping_sigma: where sampling stops; process.sigma_min unless given.
            levels: number of levels over the whole range of the process, or the levels themselves.
        """
        stop = self.process.sigma_min if stopping_sigma is None else stopping_sigma
        stop = noise_level(stop, "stopping_sigma")
        table = self.levels_above(stop, levels)
        score, floor = self._score(table.sigma)
        ends = self.terminal == "denoise"
        last = self._score(np.array([stop]), sensitivity=False) if ends else np.zeros((2, 1))
        smallest = float(self.spectrum.eigenvalues.min())
        return Coefficients(
            table,
            score=score,
            floor=floor,
            response=self.response_at(table.sigma),
            order=self.sampler.order,
            evaluations_per_step=self.sampler.evaluations_per_step,
            coupling=self.coupling,
            terminal=self.terminal,
            truncation=self.truncation_at(stop),
            final_score=float(last[0][0]),
            final_floor=float(last[1][0]),
            variance_ratio=table.average(lambda sigma: sigma**2 / (smallest + sigma**2)),
            positivity=self.sampler.positivity,
            measured=True,
            sampler=self.sampler.to_dict(),
            trace=self.spectrum.trace,
            estimation=self.estimation,
            provenance=self.summary(),
            untrained=score if self.trained else None,  # a plan counts on no more: one example ends the law
            final_untrained=float(last[0][0]) if self.trained and ends else None,
            output_sensitivity=None if self.sensitivity is None else self._gain(table.sigma),
        )

    def measured_numbers(self) -> Unknowns | None:
        """The rows whose standard errors are known, at every noise level."""
        found = row_unknowns(self, self.sigma, self.standard_errors)
        missing = [name for name in _ROWS[1:] if getattr(self, name) is not None and name not in self.standard_errors]
        return None if found is None else replace(found, omitted=tuple(name.replace("_", " ") for name in missing))

    def response_at(self, sigma: Array) -> Array:
        """(B, N) rows at other noise levels: linear in log sigma, the end values beyond the ends."""
        logs = np.log(self.sigma)
        return np.stack([np.interp(np.log(sigma), logs, row) for row in self.responses])

    def truncation_at(self, stopping_sigma: float) -> float:
        """E0 at any stopping point: interpolated in logarithms, as sigma^4 below the lowest level measured."""
        # (sqrt(lambda + sigma^2) - sqrt(lambda))^2 = sigma^4 / (4 lambda) where sigma^2 is small beside lambda
        stop = noise_level(stopping_sigma, "truncation_at: stopping_sigma")
        return float(_interpolate(np.array([stop]), self.sigma, self.truncation, power=4.0)[0])

    def _score(self, sigma: Array, *, sensitivity: bool = True) -> tuple[Array, Array]:
        """Reducible and irreducible score error per unit log sigma at noise levels."""
        gain = self._gain(sigma) if sensitivity else np.ones(sigma.size)
        rows = (self.error_variance, self.error_floor)
        score, floor = (np.zeros(sigma.size) if r is None else gain * _interpolate(sigma, self.sigma, r) for r in rows)
        return score, floor

    def ended(self, table: Coefficients) -> Coefficients:
        """The table with what was seen, or is left by a shrunk input, where a level has no example."""
        if self.untrained is None or table.untrained is None:
            return table
        there = self._gain(table.sigma) * _interpolate(table.sigma, self.sigma, self.untrained)
        last = _interpolate(np.array([table.stopping_sigma]), self.sigma, self.untrained)
        ends = table.final_untrained is not None
        return replace(table, untrained=there, final_untrained=float(last[0]) if ends else None)

    def _gain(self, sigma: Array) -> Array:
        """(L,) squared terminal error per squared error of the output and per squared step in log sigma."""
        gain = np.full(sigma.size, (1 + self.sampler.eta**2) ** 2)
        return gain if self.sensitivity is None else gain * _interpolate(sigma, self.sigma, self.sensitivity)

    # a concrete grid

    def settled(self, sigmas: ArrayLike, levels: int | Levels = 200, *, smooth: bool = False) -> Coefficients:
        """The table for a grid that is given: step lengths inside the coefficients, `truncation` its bias.

        Args:
            sigmas: (K+1,) grid.
            levels: number of levels over the whole range, or the levels themselves.
            smooth: without effect here: the measured coefficients are smooth already.
        """
        return self.leading_order(sigmas, levels, bias=self.bias(self.own_grid(sigmas).sigmas))

    def settled_pair(self, sigmas: ArrayLike, levels: int | Levels = 200) -> tuple[Coefficients, Coefficients]:
        """`settled` twice: the measured coefficients are smooth already."""
        table = self.settled(sigmas, levels)
        return table, table

    @property
    def fine_accuracy(self) -> float:
        """Squared distance of the fine solution to one of half its steps, as it was measured; 0 where it was not."""
        return self.estimation.fine_accuracy

    @property
    def rounded_error(self) -> float:
        """Squared distance that the network's rounding alone makes: the square of its share, times the variance."""
        return 0.0 if self.probe is None else self.probe.rounding**2 * self.spectrum.trace

    @property
    def error_measure(self) -> str:
        """What errors of grids are.

        Raises:
            ValueError: the model was read from a file, so that no denoiser is there to measure them with.
        """
        if self.probe is None:
            raise ValueError(
                "compare: the model was read from a file and has no denoiser to measure errors with; "
                "estimate.network(denoiser, data, folder=…) brings it back without new measurements."
            )
        return "mean squared distance of the output to a fine solution under the same noise"

    @takes(sampler=Sampler)
    def with_sampler(self, sampler: Sampler) -> EstimatedModel:
        """The same model, for the sampler that it was measured with.

        Raises:
            ValueError: another sampler: responses are those of one sampler.
        """
        if sampler.to_dict() != self.sampler.to_dict():
            raise ValueError(
                f"codesign: samplers holds {shown(sampler)}, but the model's responses were measured with "
                f"{self.sampler!r}; estimate.network once for each sampler, plan with each, and compare."
            )
        return replace(self, sampler=sampler)

    def bias(self, sigmas: ArrayLike) -> float:
        """Squared distance of a grid's output to the fine solution: measured where there is a probe, else predicted.

        Measured on the draws that grids are chosen by, in the statistic of the probe's objective; what is said of the
        chosen one is `stated`, on others.
        """
        grid = check_grid(sigmas).sigmas
        if self.probe is None or not self.measures(grid):
            return self.predicted_bias(grid)
        return float(self.probe.error(grid).value)

    def measures(self, sigmas: Array) -> bool:
        """Whether the error of this grid is measured: there is a probe, and the grid is no longer than it affords."""
        return self.probe is not None and self.probe.affords(sigmas)

    def fitted(self, sigmas: Array, rules: FitRules) -> FittedSteps:
        """A multistep sampler fitted to the denoiser, from this grid and usual ones (docs/theory.md section 7.11)."""
        if self.probe is None:
            return super().fitted(sigmas, rules)
        if self.sampler.stochastic or self.sampler.evaluations_per_step > 1:
            raise ValueError(
                "codesign: solver='fit' fits one call of the denoiser a step to the probability-flow ODE, and the "
                f"model was measured for {self.sampler!r}; measure it for DPMpp2M() or Euler()."
            )
        return self.probe.fitted(sigmas, rules)

    def stated(
        self, grids: Mapping[str, Array], samplers: Mapping[str, Sampler] | None = None
    ) -> Mapping[str, MeasuredError]:
        """What is said of the grids that are measured, on draws that chose nothing; nothing where the first is not."""
        measured = {name: grid for name, grid in grids.items() if self.measures(grid)}
        first = next(iter(grids), None)
        return self.probe.stated(measured, samplers) if self.probe is not None and first in measured else {}

    def with_objective(self, objective: str) -> Model:
        """The same model, whose grids lower another statistic of the errors of draws.

        Raises:
            ValueError: the model was read from a file and another statistic than the mean is asked for.
        """
        if self.probe is None:
            return super().with_objective(objective)
        return replace(self, probe=self.probe.with_objective(objective))

    def polish(self, sigmas: Array, *, free_stop: bool = False) -> Array:
        """A grid of as many steps with smaller measured error; the same grid without a probe.

        Args:
            sigmas: (K+1,) grid.
            free_stop: whether the last positive level may move.
        """
        if self.probe is None:
            return sigmas
        top = 0.5 * float(sigmas[0])  # few steps stop far above the process's end, Heun's most
        stops = tuple(stop for share in _STOPS if (stop := share * self.spectrum.sigma_data) < top)
        return self.probe.descend(sigmas, free_stop=free_stop, stops=stops)

    def predicted_bias(self, sigmas: ArrayLike) -> float:
        """Leading order: |sum over steps of step^(q+1) epsilon|^2 plus the truncation (equation 3.4)."""
        grid = check_grid(sigmas)
        positive = grid.sigmas[grid.sigmas > 0]
        middle = np.sqrt(positive[1:] * positive[:-1])
        size = (-np.diff(positive) / middle) ** (self.sampler.order + 1)
        disc = self.response_at(middle) @ size if middle.size else np.zeros(1)
        return float(disc @ disc) + self.truncation_at(grid.stopping_sigma)

    def at_steps(self, sigmas: ArrayLike) -> EstimatedModel:
        """The model with responses measured anew at the step sizes of a grid; itself without a probe."""
        if self.probe is None:
            return self
        sigma, rows = self.probe.respond(check_grid(sigmas).sigmas)
        moved: dict[str, Any] = {
            name: None if getattr(self, name) is None else _interpolate(sigma, self.sigma, getattr(self, name))
            for name in _ROWS[3:]
        }
        truncation = np.array([self.truncation_at(float(s)) for s in sigma])
        probe = self.probe.after_response()
        return replace(
            self, probe=probe, sigma=sigma, responses=rows, truncation=truncation, standard_errors={}, **moved
        )

    # files

    def columns(self) -> dict[str, Array]:
        """By noise level of the measurement: squared response, truncation, and what training was measured."""
        own = {
            "sigma": self.sigma,
            "response": np.asarray((self.responses**2).sum(axis=0)),
            "truncation": self.truncation,
        }
        names = _ROWS[3:]
        beside = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return own | beside

    def heading(self) -> list[str]:
        """What was measured, with what."""
        trained = "training measured" if self.trained else "sampler alone"
        return [f"{self.title}: {self.sigma.size} noise levels, {self.sampler.name}, {trained}"]

    def __str__(self) -> str:
        """What was measured and how sure it is, in at most thirty lines."""
        return estimated_text(self)

    def __repr__(self) -> str:
        trained = "training measured" if self.trained else "sampler alone"
        name = self.estimation.denoiser or "no denoiser"
        return f"EstimatedModel({name}: {self.sigma.size} noise levels, {self.sampler.name}, {trained})"

    def summary(self) -> dict[str, Any]:
        """Where the numbers come from, as plain values."""
        return {
            **self.provenance,
            "process": self.process.to_dict(),
            "sampler": self.sampler.to_dict(),
            "coupling": self.coupling.to_dict(),
            "terminal": self.terminal,
            "error": self.estimation.error,
            "trace": self.spectrum.trace,
        }

    def save(self, path: str | Path) -> Path:
        """Write the measured arrays and their provenance as npz; the probe is left behind."""
        target = as_path(path)
        arrays = {name: value for name in _ROWS if (value := getattr(self, name)) is not None}
        arrays.update({f"standard_error.{name}": value for name, value in self.standard_errors.items()})
        record = {
            "kind": "codesign_opt.estimated_model",
            "process": self.process.to_dict(),
            "sampler": self.sampler.to_dict(),
            "spectrum": self.spectrum.to_dict(),
            "terminal": self.terminal,
            "coupling": self.coupling.to_dict(self.sigma),
            "provenance": dict(self.provenance),
            "estimation": asdict(self.estimation),
        }
        with replacing(target) as file:
            np.savez(file, record=np.array(json.dumps(record, default=str)), **arrays)
        return target

    @classmethod
    def load(cls, path: str | Path) -> EstimatedModel:
        """Read what `save` wrote; a correlation length that is a function comes back interpolated.

        A sampler, process or coupling of one's own must be defined before it is read.

        Raises:
            ValueError: the file is cut off or of another kind, or names a class that is not defined.
        """
        source = as_path(path)
        try:
            data = read_npz(source)
            record = json_text(str(data.pop("record")), f"the record of {source}")
        except (ValueError, KeyError) as error:
            raise ValueError(f"{source} is not a whole file of an estimated model ({error}).") from None
        if not isinstance(record, dict) or record.get("kind") != "codesign_opt.estimated_model":
            raise ValueError(f"{source} is not an estimated model of codesign_opt.")
        errors = {n.partition(".")[2]: data.pop(n) for n in list(data) if n.startswith("standard_error.")}
        try:
            return cls(
                **data,
                spectrum=Spectrum.from_dict(record["spectrum"]),
                process=Process.from_dict(record["process"]),
                sampler=Sampler.from_dict(record["sampler"]),
                terminal=record["terminal"],
                coupling=_coupling(record, data["sigma"]),
                standard_errors=errors,
                provenance=record["provenance"],
                estimation=_estimation(record),
            )
        except KeyError as error:
            raise ValueError(f"{source} lacks the field {error}; save the model again.") from None
        except (AttributeError, TypeError) as error:
            raise ValueError(f"{source} has a malformed field ({error}); save the model again.") from None


def _estimation(record: Mapping[str, Any]) -> EstimationRecord:
    if "estimation" not in record:  # version 0.1.0 kept it in the provenance
        return EstimationRecord.from_record(record["provenance"])
    return EstimationRecord.from_dict(record["estimation"])


def _coupling(record: Mapping[str, Any], sigma: Array) -> Coupling:
    said = dict(record["coupling"])
    if said.get("log_width") == "function of sigma":  # version 0.1.0 kept the table beside the coupling
        said["log_width"] = {"sigma": sigma.tolist(), "value": record["correlation_length"]}
    return Coupling.from_dict(said)


def _interpolate(at: Array, sigma: Array, values: Array, power: float | None = None) -> Array:
    """Log-log interpolation of nonnegative values; constant beyond the ends, or sigma^power below the lowest."""
    # zeros have no logarithm: they are held far below the rest and given back as zeros
    tiny = max(float(values.max()) * 1e-30, 1e-300)
    logs = np.interp(np.log(at), np.log(sigma), np.log(np.maximum(values, tiny)))
    result = np.where(np.exp(logs) <= 2 * tiny, 0.0, np.exp(logs))
    if power is not None:
        result = np.where(at < sigma[0], values[0] * (at / sigma[0]) ** power, result)
    return result
