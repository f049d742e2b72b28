"""From a pilot to a training density that is safe: guarded, robust and proved (docs/theory.md section 6.3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..basics.checks import Array, number, scale_of, takes
from ..basics.wording import aligned, quantity
from ..ingredients.densities import LogNormal, SigmaDensity
from ..ingredients.prices import Prices
from ..modeling import Compute, Floor, ScoreError, Smooth, WorstCase
from ..models.pilot import WIDTH_ACCURACY, PilotEvidence, spread_of
from ..programs.problem import Problem
from ..results.plan import Plan
from ..results.planned_density import SPIKE

__all__ = ["PilotDensity", "pilot_density"]

_FLOOR = 0.1  # of the present density, kept on every level
_ROUGHNESS = 0.01  # of the present error, what the present density would pay for its slopes
_LEAST_SPREAD = 0.5  # of the present density's standard deviation, the narrowest that is planned
_STEP = 0.1  # of P_mean and P_std: more digits no pilot has
_MEANS = (-3.0, 1.6)
_STDS = 2.4
_BEYOND = 1.5  # standard errors of what was left at high noise


@dataclass(frozen=True, eq=False)
class PilotDensity:
    """A training density planned from a pilot.

    Attributes:
        lognormal: P_mean and P_std to a tenth: of the log-normals allowed that of the best worst case. Train at it.
        present: the density in use, which every case is measured against.
        cases: name -> predicted error at `lognormal` over that at `present`, none above 1.
        plan: the best of all densities under the guards, with its proof: `plan.error` is its worst case, and no density
            that keeps to them is below `plan.certificate.lower_bound`.
        guards: what each guard does to the plan.
        evidence: what was measured.
    """

    lognormal: LogNormal
    present: SigmaDensity
    cases: Mapping[str, float]
    plan: Plan
    guards: tuple[str, ...]
    evidence: PilotEvidence

    @property
    def gain(self) -> float:
        """Predicted error at `lognormal` over that at the present density, in the worst case: at most 1."""
        return max(self.cases.values())

    @property
    def P_mean(self) -> float:
        return self.lognormal.mean

    @property
    def P_std(self) -> float:
        return self.lognormal.std

    def __str__(self) -> str:
        plan, proof = self.plan, self.plan.certificate
        lines = [
            f"Training density from a pilot: log-normal, P_mean {self.P_mean:.1f}, P_std {self.P_std:.1f}",
            f"  predicted error {self.gain:.3f} of that at {self.present!r} in the worst case, by",
        ]
        lines += aligned(("case", "", "error / present"), [(name, "", f"{v:.3f}") for name, v in self.cases.items()])
        proved = "proved optimal" if proof.optimal else "not proved optimal"
        lines += [
            f"  any density under the guards: {plan.error:.3f} at best, {proved} (lower bound "
            f"{quantity(proof.lower_bound)})",
            *(f"  {guard}" for guard in self.guards),
            f"  measured on {self.evidence.weights}, at sigma {self.evidence.sigma[0]:.2g} to "
            f"{self.evidence.sigma[-1]:.2g}, transfer width {self.evidence.width:.2f}",
            *(f"  note: {note}" for note in self.evidence.notes),
        ]
        return "\n".join(lines)


@takes(evidence=PilotEvidence, present=SigmaDensity)
def pilot_density(
    evidence: PilotEvidence,
    *,
    present: SigmaDensity | None = None,
    examples: float | None = None,
    floor: float = _FLOOR,
) -> PilotDensity:
    """The training density to use next, from what a pilot told: never predicted worse than the present one.

    Predicted is int g^2 kappa1 / (T density) over log sigma. What a pilot does not know is stated as cases: transfer
    widths a factor 1.3 apart, and errors left at high noise 1.5 standard errors larger or smaller. The program is

        minimise    max over cases of error(density) / error(present)  +  roughness
        subject to  as many examples as the present density has,  density >= floor x present on every level,

    a convex one, proved optimal by the certificate; its minimum is at most 1, since the present density is feasible.
    Whatever T says, a spike pays for the levels that it leaves out by the narrowest width, the floor keeps every level
    alive, and roughness costs at its scale. `lognormal` solves the same worst case over log-normals that keep the floor
    where the pilot trained, with P_std not below half the present density's, nor below 0.3 at all: no pilot has seen
    what training does there.

    Args:
        evidence: from `estimate.pilot`.
        present: the density in use; the pilot's own unless given.
        examples: of the run that is planned; the pilot's unless given. The density does not depend on it.
        floor: part of the present density that stays on every level, in (0, 1).

    Raises:
        ValueError: an argument out of range; no log-normal keeps the floor of a present density that is none.
        NotCertifiedError: the program could not be proved.

    >>> import codesign_opt as co
    >>> run = co.TrainingRun(co.LogNormal(-1.2, 1.2), iterations=1000, batch=128)
    >>> sigma = np.geomspace(0.01, 10.0, 16)
    >>> left, gain = 0.4 / (1 + (0.5 / sigma) ** 2), 1 / (1 + 4 * sigma**2)
    >>> pilot = co.PilotEvidence(sigma, left, 0.02 * left, gain, run, 1.2, co.Spectrum.power_law(16, exponent=1.5))
    >>> found = pilot_density(pilot)
    >>> found.lognormal, found.gain < 1, found.plan.certificate.optimal
    (LogNormal(mean=-1.0, std=1.0), True, True)
    """
    share = number(floor, "pilot_density: floor", positive=True)
    if share >= 1:
        raise ValueError(f"pilot_density: floor is {share:g}; below 1, or nothing could move.")
    now = evidence.run.density if present is None else present
    total = float(evidence.run.examples if examples is None else scale_of(examples, "examples"))
    question = _Question(evidence, now, total * now.on_levels(evidence.levels), share)
    plan = question.plan()
    best = question.best_lognormal()
    ratios = question.ratios(best.on_levels(evidence.levels)[None])
    cases = {name: float(values[0]) for name, values in ratios.items()}
    return PilotDensity(best, now, cases, plan, question.guards(plan, best), evidence)


@dataclass(frozen=True, eq=False)
class _Question:
    """What is asked: the pilot's cases, the present density's examples on its levels, and the floor."""

    evidence: PilotEvidence
    present: SigmaDensity
    today: Array
    floor: float

    @cached_property
    def cases(self) -> dict[str, tuple[float, float]]:
        """Name -> transfer width, and standard errors beyond what was left."""
        width = self.evidence.width
        widths = (width / WIDTH_ACCURACY, width, width * WIDTH_ACCURACY)
        named = {f"transfer width {each:.2f}": (each, 0.0) for each in widths}
        named["larger errors at high noise"] = (width, _BEYOND)
        named["smaller errors at high noise"] = (width, -_BEYOND)
        return named

    def ratios(self, shares: Array) -> dict[str, Array]:
        """Case -> (D,) predicted error of densities, (D, L) examples in any scale, over that of the present one."""
        shares = shares / shares.sum(axis=1, keepdims=True) * self.today.sum()
        return {
            name: self.evidence.errors(shares, *case) / self.evidence.errors(self.today[None], *case)[0]
            for name, case in self.cases.items()
        }

    def plan(self) -> Plan:
        """The best density under the guards, proved."""
        levels, total = self.evidence.levels, float(self.today.sum())
        scores = {}
        for name, (width, beyond) in self.cases.items():
            now = float(self.evidence.errors(self.today[None], width, beyond)[0])
            scores[name] = (1 / now) * ScoreError(self.evidence.model(width, beyond).coefficients(levels=levels))
        slopes = np.diff(self.today / levels.log_width) ** 2 / np.diff(np.log(levels.sigma))
        objective = WorstCase(scores) + Smooth("density", weight=_ROUGHNESS / float(slopes.sum()))
        paid = Compute(Prices(example=1.0, evaluation=1.0, images=1), part="training") <= total
        guard = Floor(self.floor * self.today, "examples")
        # far more steps than the correlation length asks for: the sampler is no part of the question
        return Problem(objective, [paid, guard], steps=10.0 * levels.log_width).solve()

    @cached_property
    def least_std(self) -> float:
        """The narrowest log-normal that is planned."""
        return max(SPIKE, _LEAST_SPREAD * spread_of(self.present))

    def best_lognormal(self) -> LogNormal:
        """Of all log-normals, to a tenth, that are not too narrow, and of the present one, the least worst case."""
        means = np.arange(*_MEANS, _STEP)
        stds = np.arange(np.ceil(self.least_std / _STEP - 1e-9) * _STEP, _STDS, _STEP)
        tried = [LogNormal(round(float(m), 6), round(float(s), 6)) for m in means for s in stds]
        if isinstance(self.present, LogNormal):
            tried.append(self.present)
        levels = self.evidence.levels
        shares = np.array([density.on_levels(levels) for density in tried])
        trained = (levels.sigma >= self.evidence.sigma[0]) & (levels.sigma <= self.evidence.sigma[-1])
        kept = np.all(shares[:, trained] >= self.floor * (self.today / self.today.sum())[trained], axis=1)
        worst = np.where(kept, np.max(list(self.ratios(shares).values()), axis=0), np.inf)
        if not kept.any():
            raise ValueError(
                f"pilot_density: no log-normal keeps {self.floor:.0%} of {self.present!r} where the pilot trained; "
                "give a smaller floor, or a log-normal as the present density."
            )
        return tried[int(np.argmin(worst))]

    def guards(self, plan: Plan, best: LogNormal) -> tuple[str, ...]:
        """What every guard does to the answer."""
        levels = self.evidence.levels
        held = plan.examples <= self.floor * self.today * (1 + 1e-4)
        if held.any():
            at = levels.sigma[held]
            text = f"binds at {held.sum()} of {held.size} levels, sigma {at[0]:.2g} to {at[-1]:.2g}"
        else:
            text = "binds nowhere"
        rough = float(plan.breakdown.get("Smooth", 0.0))
        narrow = "binds" if best.std <= self.least_std + 1e-9 else "does not bind"
        ratio = best.per_log_sigma(self.evidence.sigma) / self.present.per_log_sigma(self.evidence.sigma)
        return (
            f"guard: a floor of {self.floor:.0%} of the present density {text}",
            f"guard: the log-normal keeps {ratio.min():.0%} of it wherever the pilot trained",
            f"guard: roughness costs {rough:.3f}",
            f"guard: P_std is at least {self.least_std:.2g}, which {narrow}",
        )
