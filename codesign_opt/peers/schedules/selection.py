"""Selection of a grid for a pretrained network: the best of many families by the exact law of the sampler that runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar

import numpy as np
from scipy.optimize import minimize_scalar

from ...basics.checks import Array, boolean, choice, entries, instance, integer, shown
from ...ingredients.evaluations import final_steps
from ...ingredients.process import EDM
from ...models.evidence import Evidence
from ...models.gaussian import GaussianModel
from .base import Schedule, schedule

__all__ = ["FAMILIES", "Ranked", "Ranking", "SpectrumSelect", "select"]

Families = Mapping[str, Mapping[str, Sequence[Any]]]

FAMILIES: Families = {
    "beta_sigma": {},
    "beta_timesteps": {},
    "cosine": {},
    "edm": {"rho": [1.5, 2.0, 3.0, 4.0, 5.0, 7.0, 10.0, 15.0, 25.0]},
    "euler_lagrange": {"measure": ["kl", "w2"]},
    "flow_uniform": {"shift": [0.25, 0.5, 1.0, 2.0, 3.0, 6.0]},
    "kl_optimal": {},
    "laplace": {"ends": ["truncate"]},
    "linear_sigma": {},
    "log_snr": {},
    "polyexponential": {"rho": [0.5, 0.7, 1.4, 2.0]},
    "power_uniform": {"rho": [4.0, 8.0, 12.0, 16.0]},
    "sde_path": {},
    "sde_terminal": {},
    "tangent": {"coefficient": ["range"], "scale": [0.1, 0.2, 0.35, 0.6, 1.0, 1.7, 3.0, 5.0, 10.0]},
    "time_uniform": {},
    "timestep_uniform": {},
}
"""Names of schedules with the values of their parameters; every combination is a candidate."""

_MEASURES = ("kl", "kl_reverse", "w2")


@dataclass(frozen=True, eq=False)
class Ranked:
    """One candidate: the schedule, its grid, and its exact error."""

    schedule: Schedule
    sigmas: Array
    error: float


@dataclass(frozen=True, eq=False)
class Ranking:
    """Candidates by their exact error, the best first.

    Attributes:
        rows: what was evaluated.
        refused: candidates that do not give such a grid, with the reason.
        measure: "kl", KL(data | output), "kl_reverse", KL(output | data), both in nats, or "w2", squared data units.
        steps: K of every grid.
    """

    rows: tuple[Ranked, ...]
    refused: tuple[tuple[Schedule, str], ...]
    measure: str
    steps: int

    def __post_init__(self) -> None:
        for name in ("rows", "refused"):
            object.__setattr__(self, name, entries(getattr(self, name), f"Ranking.{name}"))
        for row in self.rows:
            instance(row, Ranked, "an entry of Ranking.rows")

    @property
    def best(self) -> Ranked:
        """The first row."""
        return self.rows[0]

    def __repr__(self) -> str:
        shown = [f"  {row.error:10.4g}  {row.schedule}" for row in self.rows[:10]]
        left = [f"  … {len(self.rows) - 10} more"] if len(self.rows) > 10 else []
        refused = [f"  {len(self.refused)} refused"] if self.refused else []
        return "\n".join(
            [f"Ranking of {len(self.rows)} grids of {self.steps} steps by {self.measure}:", *shown, *left, *refused]
        )


def select(
    evidence: Evidence, steps: int, *, families: Families | None = None, measure: str = "kl", refine: bool = True
) -> Ranking:
    """Evaluate families of grids on Gaussian data of the spectrum, with the sampler really used, and rank them.

    docs/theory.md sections 2 and 11.3 (2601.13602 compares discretisations of a pretrained model by this divergence).
    The start is N(0, sigma_max^2 I), the terminal map the evidence's; O(K B) per candidate. Where a sampler's local
    error changes sign (DPM-Solver++(2M)) errors of one band can cancel for a fitted parameter: give the whole spectrum,
    not a few bands, and compare the winner with its neighbours.

    Args:
        evidence: spectrum, sampler, range and terminal map; whatever else some families need.
        steps: K.
        families: name of a schedule -> parameter -> values; `FAMILIES` unless given. Families whose evidence is not
            known are refused and listed.
        measure: "kl" (data | output), "kl_reverse" (output | data) or "w2" (squared Wasserstein distance). Both
            divergences weigh directions of tiny variance as much as the others; "w2" weighs by variance.
        refine: search on between the neighbours of the best value in every family that varies one positive number.

    Raises:
        ValueError: no spectrum, an unknown measure or family, no candidate left, or a divergence that is infinite for
            every grid (directions without data under "rescale").

    >>> import codesign_opt as co
    >>> known = Evidence(sigma_min=0.01, sigma_max=10.0, spectrum=co.Spectrum([1.0], [1]), terminal="rescale")
    >>> found = select(known, 6, families={"kl_optimal": {}, "edm": {"rho": [3.0, 7.0]}}, refine=False)
    >>> [row.schedule.name for row in found.rows]
    ['kl_optimal', 'edm', 'edm']
    """
    if not isinstance(evidence, Evidence):
        raise ValueError(
            f"select: evidence is {type(evidence).__name__}; give an Evidence, such as Evidence.of(model)."
        )
    if evidence.spectrum is None:
        raise ValueError("select needs Evidence.spectrum, which is not known; estimate.spectrum(data) measures it.")
    families = FAMILIES if families is None else instance(families, Mapping, "select: families")
    refine, steps = boolean(refine, "select: refine"), integer(steps, "select: steps", minimum=1)
    work = _Work(evidence, steps, choice(measure, "measure", _MEASURES))
    rows: list[Ranked] = []
    refused: list[tuple[Schedule, str]] = []
    for name, parameters in families.items():
        found = []
        for values in _combinations(parameters):
            candidate = schedule(name, **values)
            try:
                grid = candidate.sigmas(steps, evidence)
            except ValueError as error:
                refused.append((candidate, str(error)))
                continue
            found.append(Ranked(candidate, grid, work.error(grid)))
        if refine and len(found) > 1:
            found += work.refined(name, parameters, found)
        rows += found
    if not rows:
        reason = refused[0][1] if refused else "families is empty"
        raise ValueError(f"select: no candidate gives a grid of {steps} steps; {reason}")
    return Ranking(tuple(sorted(rows, key=lambda row: row.error)), tuple(refused), measure, steps)


@dataclass(frozen=True)
class SpectrumSelect(Schedule):
    """The best grid of `select`, for the spectrum and the sampler of the evidence.

    Args:
        families: see `select`; `FAMILIES` unless given.
        measure: "kl", "kl_reverse" or "w2".
        refine: see `select`.

    >>> import codesign_opt as co
    >>> known = Evidence(sigma_min=0.1, sigma_max=10.0, spectrum=co.Spectrum([1.0], [4]), terminal="rescale")
    >>> SpectrumSelect(families={"log_snr": {}, "kl_optimal": {}}).sigmas(2, known).round(9).tolist()
    [10.0, 1.0, 0.1]
    """

    families: Families | None = None
    measure: str = "kl"
    refine: bool = True
    name: ClassVar[str] = "spectrum_select"
    title: ClassVar[str] = "best family by the exact law on the spectrum"
    needs: ClassVar[tuple[str, ...]] = ("spectrum",)

    def __post_init__(self) -> None:
        choice(self.measure, "SpectrumSelect.measure", _MEASURES)
        if not (self.families is None or isinstance(self.families, Mapping)):
            raise ValueError(
                f"SpectrumSelect.families is {shown(self.families)}; a mapping of names to values is needed."
            )
        for name, values in (self.families or {}).items():
            instance(values, Mapping, f"SpectrumSelect.families[{shown(name)}]")

    def _nodes(self, count: int, evidence: Evidence) -> Array:
        steps = count - 1 + final_steps(evidence.terminal)
        found = select(evidence, steps, families=self.families, measure=self.measure, refine=self.refine)
        return found.best.sigmas[:count]


def _combinations(parameters: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    instance(parameters, Mapping, "select: families", "Give parameter -> values for each family.")
    several = [entries(values, f"select: values of {shown(name)}") for name, values in parameters.items()]
    for values in product(*several):
        yield dict(zip(parameters, values, strict=True))


class _Work:
    """The exact error of a grid."""

    def __init__(self, evidence: Evidence, steps: int, measure: str) -> None:
        assert evidence.spectrum is not None
        self.evidence, self.steps, self.measure = evidence, steps, measure
        process = EDM(sigma_min=evidence.sigma_min, sigma_max=evidence.sigma_max)
        self.model = GaussianModel(
            evidence.spectrum, process=process, sampler=evidence.sampler, terminal=evidence.terminal
        )

    def error(self, grid: Array) -> float:
        if self.measure == "w2":
            return float(self.model.wasserstein2(grid))
        with np.errstate(divide="ignore", over="ignore"):  # an output without variance is infinitely far
            return self.model.kl_divergence(grid, reverse=self.measure == "kl_reverse")

    def refined(self, name: str, parameters: Mapping[str, Sequence[Any]], found: list[Ranked]) -> list[Ranked]:
        """The best between the neighbours of the best value, where one positive number is varied."""
        varied = [key for key, values in parameters.items() if len(values) > 1]
        if len(varied) != 1:
            return []
        tried = {
            float(value): row.error
            for row in found
            if isinstance(value := getattr(row.schedule, varied[0]), (int, float)) and value > 0
        }
        if len(tried) < 2:
            return []
        fixed = {key: values[0] for key, values in parameters.items() if key != varied[0]}
        values = sorted(tried)
        best = values.index(min(tried, key=lambda value: tried[value]))
        bounds = np.log([values[max(best - 1, 0)], values[min(best + 1, len(values) - 1)]])

        def candidate(log_value: float) -> Ranked:
            made = schedule(name, **fixed, **{varied[0]: float(np.exp(log_value))})
            grid = made.sigmas(self.steps, self.evidence)
            return Ranked(made, grid, self.error(grid))

        found_at = minimize_scalar(
            lambda x: candidate(x).error, bounds=bounds, method="bounded", options={"xatol": 1e-3}
        )
        return [candidate(float(found_at.x))]
