"""What one pilot run tells about where to train: errors left, their way to the output, and how they add.

docs/theory.md sections 4 to 6. Nothing here looks at a second run or at the long-trained network.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.utils import parameters_to_vector, vector_to_parameters

import codesign_opt as co
from codesign_opt.basics.checks import Array, Mask

from .density_experiment import DensityExperiment

__all__ = ["RULES", "PilotMeasurement", "Rule", "measure_pilot"]

PILOT_DENSITY, PILOT_SEED = co.LogNormal(-1.2, 1.2), 100  # EDM's default; a seed that no compared run has
SIGMA_MIN, SIGMA_MAX = 0.002, 80.0
_MAJORISATIONS = 100
_ROUGHNESS = 0.01  # smoothing may cost this part of the error of the square-root density


@dataclass(frozen=True)
class Rule:
    """One way from a pilot to a density.

    Args:
        title: for tables.
        source: "checkpoints" (two averaged checkpoints on common noise) or "log" (losses during training).
        transfer: width in log sigma of what examples teach their neighbours; 0: each level for itself; None: the
            width measured on the pilot.
        coherent: add errors by the measured Gram matrix instead of level by level.
        kept: part of the examples that stays at the square-root density without transfer, on every level: what
            neighbours teach says nothing about levels where nothing is trained.
        lognormal: the log-normal density of the least error by the rule, instead of any density: two numbers cannot
            follow the noise of the pilot, and leave no level out.
    """

    title: str
    source: str = "checkpoints"
    transfer: float | None = 0.0
    coherent: bool = False
    kept: float = 0.0
    lognormal: bool = False


RULES = {
    "log": Rule("square root, losses of the log", source="log"),
    "plain": Rule("square root"),
    "transfer 0.6": Rule("square root of what neighbours teach, assumed width 0.6", transfer=0.6),
    "transfer": Rule("square root of what neighbours teach, width from the pilot's errors", transfer=None),
    "kept half": Rule("as transfer, with half of the square root kept on every level", transfer=None, kept=0.5),
    "log-normal": Rule("as transfer, the best log-normal density", transfer=None, lognormal=True),
    "log-normal, log": Rule("the same by the losses of the log", source="log", transfer=None, lognormal=True),
    "coherent": Rule("coherent sum", coherent=True),
    "both": Rule("coherent sum of what neighbours teach, width from the pilot's errors", transfer=None, coherent=True),
}


@dataclass(frozen=True, eq=False)
class PilotMeasurement:
    """Everything measured on the pilot.

    Attributes:
        levels: (M,) levels of the learning curves and of g^2.
        density, examples: of the pilot.
        left, left_error: (M,) reducible squared error at the end of the pilot, with its standard error.
        logged, logged_error: (M,) kappa1 from the log of losses, examples within `length` in log sigma, likewise.
        logged_seen: (M,) whether the level had losses enough; the others' kappa1 is interpolated.
        gain, gain_error: (M,) g^2 along the difference of the two checkpoints, likewise.
        gram_levels, gram: (B, B) terminal responses to that difference, block by block.
        length: two-sided correlation length of these in log sigma.
        spectrum: of the images.
        transfer, transfer_error: width in log sigma of what examples teach their neighbours, likewise.
    """

    levels: co.Levels
    density: co.LogNormal
    examples: int
    left: Array
    left_error: Array
    logged: Array
    logged_error: Array
    logged_seen: Mask
    gain: Array
    gain_error: Array
    gram_levels: co.Levels
    gram: Array
    length: float
    spectrum: co.Spectrum
    transfer: float
    transfer_error: float

    def coupling(self, rule: Rule) -> co.Local | co.Transfer:
        width = self.transfer if rule.transfer is None else rule.transfer
        return co.Transfer(width, self.length) if width else co.Local(self.length)

    def score(self, rule: Rule) -> co.ScoreError | co.CoherentScore:
        """The score error as a function of the density, by a rule."""
        if rule.coherent:
            return self._coherent()
        reducible = self._reducible(self.left, self.coupling(rule))
        if rule.source == "log":
            reducible = self._logged(self.coupling(rule))
        model = co.EstimatedModel(
            self.levels.sigma,
            np.zeros((1, len(self.levels))),
            np.zeros(len(self.levels)),
            self.spectrum,
            process=co.EDM(SIGMA_MIN, SIGMA_MAX),
            terminal="rescale",
            sensitivity=self.gain,
            error_variance=reducible,
            coupling=self.coupling(rule),
        )
        return co.ScoreError(model.coefficients(levels=2 * len(self.levels)))

    def _reducible(self, left: Array, coupling: co.Local | co.Transfer) -> Array:
        """kappa1 = error left times the examples that served the level, those within the correlation length."""
        share = self.density.on_levels(self.levels)
        pooling = coupling.pooling(self.levels)
        served = share if pooling is None else pooling @ share
        return np.maximum(left, 0.0) * served / self.levels.log_width * self.examples * self.length

    def _logged(self, coupling: co.Local | co.Transfer) -> Array:
        """kappa1 of the log, which counts the examples of each level's own density, for what serves the level."""
        if coupling.pooling(self.levels) is None:
            return self.logged
        one = np.ones(len(self.levels))
        served = self.logged * self._reducible(one, coupling) / self._reducible(one, co.Local(self.length))
        logs, seen = np.log(self.levels.sigma), self.logged_seen
        return np.exp(np.interp(logs, logs[seen], np.log(served[seen])))

    def _coherent(self) -> co.CoherentScore:
        """Responses per unit log sigma, scaled from the pilot's density to one example per unit log sigma."""
        levels, width = self.gram_levels, self.gram_levels.log_width
        root = np.sqrt(self.examples * self.density.on_levels(levels) / width) / width
        size = len(levels)
        table = co.Coefficients(
            levels,
            np.zeros(size),
            np.zeros(size),
            np.zeros((0, size)),
            coupling=co.Local(self.length),
            terminal="rescale",
        )
        return co.CoherentScore(table, self.gram * root * root[:, None])

    def predicted(self, rule: Rule, densities: list[Any]) -> Array:
        """(D,) error of the rule at equal examples; on the pilot's own scale, so only ratios count."""
        return np.array([self._predicted(rule, density) for density in densities])

    def _predicted(self, rule: Rule, density: Any) -> float:
        if rule.coherent and rule.transfer != 0:
            return self._coherent_at(rule, self._served(rule, density.mass(self.gram_levels.edges)))
        score = self.score(rule)
        levels, steps = score.table.levels, _steps(score.table.levels)
        mass = density.mass(levels.edges)
        point = co.Point(self.examples * mass / mass.sum(), np.zeros(len(levels)), steps)
        seen = np.maximum(point.examples, 1e-9 * self.examples)  # a problem's own examples must teach every level
        given = co.Problem(score, [], examples=seen, steps=steps)
        return float(score.value(given.design(point), point))

    def planned(self, rule: Rule) -> co.TrainingDensity | co.LogNormal:
        """What the rule says to train at."""
        best = self.plan(rule).training_density
        if not rule.lognormal:
            return best
        fit = best.closest_lognormal()
        return co.LogNormal(fit.P_mean, fit.P_std)

    def plan(self, rule: Rule) -> co.Plan:
        """The best density of as many examples as the pilot had; pooled examples come with `Smooth`.

        Without it where the best log-normal density is asked for, which is as smooth as can be.
        """
        if rule.transfer == 0 or rule.lognormal:
            return self._solve(self.score(rule))
        plain = self._solve(self.score(RULES["plain"]))
        slopes = np.diff(plain.examples / plain.levels.log_width)
        roughness = float((slopes**2 / np.diff(np.log(plain.levels.sigma))).sum())
        if rule.coherent:
            return self._coherent_plan(rule, _ROUGHNESS / roughness)
        score = self.score(rule)
        smooth = _ROUGHNESS * self._solve(score).error / roughness
        if not rule.kept:
            return self._solve(score, smooth)
        return self._solve(score, smooth, [co.Floor(rule.kept * plain.examples, "examples")])

    def _solve(
        self, score: co.ScoreError | co.CoherentScore, smooth: float = 0.0, floors: Sequence[co.Floor] = ()
    ) -> co.Plan:
        paid = co.Compute(co.Prices(example=1.0, evaluation=1.0, images=1), part="training") <= float(self.examples)
        objective = score + co.Smooth("density", weight=smooth) if smooth else score
        return co.Problem(objective, [paid, *floors], steps=_steps(score.table.levels)).solve()

    def _served(self, rule: Rule, mass: Array) -> Array:
        """(B,) T rho on the blocks of the Gram matrix, examples per unit log sigma."""
        coupling, levels = self.coupling(rule), self.gram_levels
        assert isinstance(coupling, co.Transfer)
        return self.examples * coupling.kernel(levels) @ (mass / mass.sum() / levels.log_width)

    def _coherent_at(self, rule: Rule, served: Array) -> float:
        """sum_jk R+_jk / sqrt((T rho)_j (T rho)_k), the Gram matrix as measured at the pilot's own density."""
        root = np.sqrt(self._served(rule, self.density.on_levels(self.gram_levels)) / served)
        return float(root @ np.maximum(self.gram, 0.0) @ root)

    def _coherent_plan(self, rule: Rule, smooth: float) -> co.Plan:
        """Minimum of the coherent sum over T rho by majorisation, a separable score error at a time.

        1 / sqrt(z_j z_k) <= (c / z_j + 1 / (c z_k)) / 2 with equality at the last z for c = sqrt(z_j / z_k) there;
        the sum is convex in rho, so that the fixed point is its minimum.
        """
        levels, size = self.gram_levels, len(self.gram_levels)
        served = pilot = self._served(rule, self.density.on_levels(levels))
        unit = np.maximum(self.gram, 0.0) * np.sqrt(pilot * pilot[:, None])
        error = self._coherent_at(rule, served)
        for _ in range(_MAJORISATIONS):
            score = np.sqrt(served) * (unit @ (1 / np.sqrt(served))) / levels.log_width
            table = co.Coefficients(
                levels, score, np.zeros(size), np.zeros((0, size)), coupling=self.coupling(rule), terminal="rescale"
            )
            plan = self._solve(co.ScoreError(table), smooth * error)
            served = self._served(rule, plan.examples)
            before, error = error, self._coherent_at(rule, served)
            if abs(before - error) < 1e-5 * error:
                break
        return plan


def measure_pilot(experiment: DensityExperiment, seed: int = PILOT_SEED) -> PilotMeasurement:
    """Train the pilot and measure it; kept in the experiment's folder."""
    levels = co.Levels.log_uniform(SIGMA_MIN, SIGMA_MAX, experiment.levels)
    trained = experiment.ledger.item(f"pilot-{seed}/networks", lambda: _trained(experiment, seed, levels))
    final, half = (_network(experiment, seed, trained[name]) for name in ("final", "half"))

    def measured() -> dict[str, Array]:
        experiment.tell("pilot: errors left, sensitivity and Gram matrix")
        return _measured(experiment, levels, final, half)

    found = experiment.ledger.item(f"pilot-{seed}/measured", measured)
    gram_levels = co.Levels(found.pop("gram_edges"))
    length = float(found.pop("length"))
    log = _log_curve(trained, levels, length)

    def teaching() -> dict[str, Array]:
        order = np.random.default_rng(3).permutation(len(experiment.data))
        kernel = co.estimate.TransferKernel.from_errors(
            co.estimate.checkpoint_errors(half, final, experiment.data[order], levels)
        )
        return {"transfer": np.array(kernel.width), "transfer_error": np.array(kernel.standard_error)}

    widths = experiment.ledger.item(f"pilot-{seed}/transfer", teaching)
    return PilotMeasurement(
        levels=levels,
        density=PILOT_DENSITY,
        examples=experiment.examples,
        gram_levels=gram_levels,
        length=length,
        spectrum=co.Spectrum.from_samples(experiment.data.double().numpy()),
        transfer=float(widths["transfer"]),
        transfer_error=float(widths["transfer_error"]),
        **log,
        **found,
    )


def _trained(experiment: DensityExperiment, seed: int, levels: co.Levels) -> dict[str, Array]:
    """Weights half-way and at the end, and the log of the losses in between."""
    half = experiment.iterations // 2
    records = co.testbed.Records(every=experiment.iterations, keep=half, levels=levels)
    with tempfile.TemporaryDirectory() as place:
        run = experiment.trained(PILOT_DENSITY, seed, records=records, folder=place)
        networks = {"final": run.model, "half": run.at(half)}
        run.log.save(Path(place) / "log.csv")
        text = (Path(place) / "log.csv").read_bytes()
    weights = {name: parameters_to_vector(network.parameters()).numpy() for name, network in networks.items()}
    return {**weights, "log": np.frombuffer(text, dtype=np.uint8)}


def _network(experiment: DensityExperiment, seed: int, weights: Array) -> torch.nn.Module:
    network = experiment.initial(seed).eval().requires_grad_(False)
    vector_to_parameters(torch.from_numpy(weights), network.parameters())
    return network


def _measured(experiment: DensityExperiment, levels: co.Levels, final: Any, half: Any) -> dict[str, Array]:
    left = co.estimate.error_left(half, final, experiment.data, levels.sigma)
    like = torch.zeros((), dtype=experiment.data.dtype)
    shape = tuple(experiment.data.shape[1:])
    fine = co.estimate.Reference(
        final, co.Heun(), co.estimate.Draws(shape, 128, SIGMA_MAX, seed=1, like=like), SIGMA_MIN, steps=experiment.steps
    )
    gain = co.estimate.sensitivity(fine, levels.sigma, direction=co.estimate.difference_of(final, half)).gain
    grid = co.edm_grid(experiment.levels, SIGMA_MIN, SIGMA_MAX, terminal="denoise")
    starts = co.estimate.Starts(shape, draws=128, batch=64, like=like)
    gram = co.estimate.error_gram(final, half, co.Heun(), grid, starts, seed=2)
    values = {"left": left, "gain": gain}
    found = {name: estimate.value for name, estimate in values.items()}
    found |= {f"{name}_error": estimate.standard_error for name, estimate in values.items()}
    length = float(gram.correlation_length().gram.value)
    return {**found, "gram": gram.gram, "gram_edges": gram.levels.edges, "length": np.array(length)}


def _log_curve(trained: dict[str, Array], levels: co.Levels, length: float) -> dict[str, Any]:
    """kappa1 of the log on all levels: log-interpolated where the fit gives nothing, as small as the smallest."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "log.csv"
        path.write_bytes(trained["log"].tobytes())
        curves = co.learning_curves(path, levels=levels, log_width=length, smoothing="spline")
    positive = curves.reducible > 0
    at, known = np.log(levels.sigma), np.log(curves.sigma[positive])
    value = np.exp(np.interp(at, known, np.log(curves.reducible[positive])))
    error = np.interp(at, np.log(curves.sigma), curves.reducible_error)
    seen = np.histogram(curves.sigma[positive], levels.edges)[0] > 0
    return {"logged": value, "logged_error": error, "logged_seen": seen}


def _steps(levels: co.Levels) -> Array:
    """Far more steps than the correlation length asks for: the sampler is no part of the question."""
    return 10.0 * levels.log_width
