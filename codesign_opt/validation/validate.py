"""validate(): linear denoisers trained and sampled as a plan says, and its prediction held against them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..basics.causes import BESIDE_BIAS, BIAS, FLOOR, LAST_EVALUATION, SCORE, TOGETHER, TOTAL
from ..basics.checks import Array, choice, integer, shown
from ..basics.progress import Progress, Teller, teller
from ..basics.spelling import spelled
from ..basics.wording import aligned, quantity
from ..ingredients.coupling import Coupling
from ..ingredients.densities import SigmaDensity
from ..ingredients.levels import Levels
from ..ingredients.process import Process
from ..ingredients.spectrum import Spectrum
from ..models.example_counts import ExampleCounts
from ..models.gaussian import GaussianModel
from ..models.predicting import counted
from ..models.prediction import Prediction
from ..results.plan import Plan
from ..samplers.members import Sampler
from ..training.base import TrainingNoise
from ..training.optimiser_runs import SGD
from .learners import Nodes, learner_of, taught, trained_by_features, trained_by_least_squares, trained_by_sgd
from .matrices import full_distance, trained_matrices

__all__ = ["Validation", "model_of", "realised", "validate"]

_MOST = 100_000  # trainings
_LEARNERS = {
    "experts": "an expert for each step",
    "blocks": "an expert for each block of one correlation length, at random offsets",
    "shared": "one network for all levels, a broken line with knots one correlation length apart",
}
TRAINED = "training of steps"


@dataclass(frozen=True, eq=False)
class Validation:
    """What was predicted of a grid and its training, and what trained denoisers left.

    Attributes:
        predicted: by `model.predict`.
        values: (R, 4) errors of each replica, in the model's metric: with all errors of training, with those of the
            steps alone, with the last evaluation's alone, and with none.
        learner: "experts", "blocks" or "shared".
        planned: total that the plan states for its whole steps; None where there was no plan.
    """

    predicted: Prediction
    values: Array
    learner: str
    planned: float | None = None

    @property
    def replicas(self) -> int:
        """Trainings."""
        return int(self.values.shape[0])

    @property
    def draws(self) -> dict[str, Array]:
        """(R,) of each cause, whose means are `realised`; `TOTAL` is all errors together."""
        every, steps, last, none = self.values.T
        return {BIAS: none, TRAINED: steps - none, LAST_EVALUATION: last - none,
                TOGETHER: every - steps - last + none, TOTAL: every}  # fmt: skip

    @property
    def realised(self) -> dict[str, tuple[float, float]]:
        """Mean and standard error over replicas, by cause."""
        root = np.sqrt(self.replicas)
        return {name: (float(x.mean()), float(x.std(ddof=1) / root)) for name, x in self.draws.items()}

    @property
    def expected(self) -> dict[str, float]:
        """The prediction by the same causes."""
        parts = self.predicted.parts
        found = {BIAS: parts[BIAS], TRAINED: parts[SCORE] + parts[FLOOR] + parts.get(BESIDE_BIAS, 0.0)}
        found |= {name: parts[name] for name in (LAST_EVALUATION, TOGETHER)}
        return {**found, TOTAL: self.predicted.total}

    def ratio(self, cause: str = TOTAL) -> tuple[float, float]:
        """Realised over predicted, and its standard error; infinite where nothing was predicted."""
        value, error = self.realised[choice(cause, "Validation.ratio: cause", self.draws)]
        of = self.expected[cause]
        return (value / of, error / abs(of)) if of else (np.inf, np.inf)

    @classmethod
    def of(
        cls,
        model: GaussianModel,
        sigmas: ArrayLike,
        examples: ArrayLike | None = None,
        *,
        density: SigmaDensity | None = None,
        levels: Levels | None = None,
        replicas: int = 64,
        seed: int = 0,
        learner: str | None = None,
        progress: Progress = None,
    ) -> Validation:
        """Of any grid and training, stated as to `model.predict`; the rest as in `validate`.

        Raises:
            ValueError: as those two.
        """
        if not isinstance(model, GaussianModel):
            raise ValueError(f"validate: model is {shown(model)}; only a GaussianModel has laws that are exact.")
        said = model.predict(sigmas, examples, density=density, levels=levels)
        counts = counted(model, said.sigmas, examples, density, levels, None)
        if counts is None:
            raise ValueError("validate: no examples are stated, so that there is nothing to train.")
        with teller(progress) as tell:
            values, name = realised(
                model, said.sigmas, counts, replicas=replicas, seed=seed, learner=learner, tell=tell
            )
        return cls(said, values, name)

    def __str__(self) -> str:
        rows = []
        for name, (value, error) in self.realised.items():
            said = self.expected[name]
            if not said and not value:
                continue
            ratio = self.ratio(name)
            spread = "" if name == BIAS else f"± {quantity(error, 2)}"
            quoted = "exact" if name == BIAS else f"{ratio[0]:.3f} ± {ratio[1]:.3f}"
            rows.append([name, quantity(said), quantity(value), spread, quoted])
        title = [f"{self.replicas} trainings", "predicted", "realised", "", "ratio"]
        measure = f"; errors are {self.predicted.measure}" if self.predicted.measure else ""
        lines = [f"Trained and sampled: {_LEARNERS[self.learner]}{measure}", *aligned(title, rows, left=(0, 3))]
        if self.planned is not None:
            lines.append(f"The plan states {quantity(self.planned)}")
        return "\n".join(lines + [f"Note: {note}" for note in self.predicted.outside])


@spelled
def validate(
    plan: Plan,
    model: GaussianModel | None = None,
    *,
    replicas: int = 64,
    seed: int = 0,
    learner: str | None = None,
    progress: Progress = None,
) -> Validation:
    """Train linear denoisers as a plan says, sample them with its sampler, and compare with what is predicted.

    Errors are counted in the model's metric, that of the plan.

    Every replica trains anew, with the plan's examples: an expert for each step (`PerStep`), or one for each block of
    a correlation length at a random offset (others), by least squares shrunk towards the untrained denoiser as the law
    has it, or by SGD, update by update; diagonal or full matrices. Given the weights the samples are Gaussian, and
    their squared Wasserstein-2 distance to the data is exact; only trainings are drawn.

    Args:
        plan: of a GaussianModel, with a grid and examples.
        model: the model that it was planned on; unless given, what the plan itself says of it.
        replicas: trainings, >= 2.
        seed: of all draws.
        learner: "shared" trains one network for all levels instead of blocks.
        progress: after each training: True, False, None (in a terminal or notebook, after 2 s), or a function of (done,
            total, text).

    Raises:
        ValueError: a plan of something else than Gaussian data, or without a grid or examples; a training that is not
            simulated.

    >>> import codesign_opt as co
    >>> model = co.GaussianModel(co.Spectrum.power_law(8, exponent=1.5), coupling=co.PerStep(0.1), start="mean")
    >>> plan = co.codesign(model, co.Prices(3.0, 1.0, 100), 1e5, levels=60, points=5)
    >>> ratio, error = validate(plan, replicas=50).ratio()
    >>> bool(abs(ratio - 1) < 0.05 + 3 * error)
    True
    """
    if not isinstance(plan, Plan):
        raise ValueError(f"validate: plan is {shown(plan)}; give a Plan of codesign.")
    if plan.sigmas is None or not plan.examples.sum() > 0:
        raise ValueError("validate: the plan has no grid or no examples, so that there is nothing to train and sample.")
    model = model_of(plan) if model is None else model
    options: dict[str, Any] = {"replicas": replicas, "seed": seed, "learner": learner, "progress": progress}
    found = Validation.of(model, plan.sigmas, plan.examples, levels=plan.levels, **options)
    return replace(found, planned=plan.handed_out.get(TOTAL))


def realised(
    model: GaussianModel,
    sigmas: Array,
    counts: ExampleCounts,
    *,
    replicas: int,
    seed: int,
    learner: str | None = None,
    tell: Teller | None = None,
) -> tuple[Array, str]:
    """(R, 4) `Validation.values` of a grid and examples, and the learner's name."""
    rng, name = np.random.default_rng(integer(seed, "validate.seed", minimum=0)), learner_of(model, learner)
    nodes = Nodes.of(model, sigmas)
    if not nodes.prior.any() and not isinstance(model.training, SGD) and not counts.total > 0:
        raise ValueError("validate: no examples and no prior; give examples.")
    distances = _full(model, sigmas, nodes) if model.training.matrix == "full" else _diagonal(model, sigmas, nodes)
    count = integer(replicas, "validate.replicas", minimum=2, maximum=_MOST)
    none, rows, tell = None, [], tell or teller(False)
    for done in range(1, count + 1):
        pair = _trained(model, sigmas, nodes, counts, rng, name)
        if none is None:
            none = distances(np.zeros_like(pair[0]))
        rows.append(np.mean([_causes(distances, errors, model.terminal, none) for errors in pair], axis=0))
        tell(f"trainings of {name}", done, count)
    return np.array(rows), name


def _causes(distances: Callable[[Array], float], errors: Array, terminal: str, none: float) -> list[float]:
    """Distances with all errors, with those of the steps, with that of the last evaluation, and with none."""
    if terminal != "denoise":
        every = distances(errors)
        return [every, every, none, none]
    steps, last = errors.copy(), np.zeros_like(errors)
    steps[-1], last[-1] = 0.0, errors[-1]
    return [distances(errors), distances(steps), distances(last), none]


def _trained(
    model: GaussianModel, sigmas: Array, nodes: Nodes, counts: ExampleCounts, rng: np.random.Generator, name: str
) -> tuple[Array, Array]:
    """Errors of the weights of two trainings with opposite noise."""
    if name == "shared":
        return trained_by_features(nodes, model, counts, rng)
    who = taught(model, sigmas, counts, rng)
    if isinstance(model.training, SGD):
        return trained_by_sgd(nodes, who, model.training, rng)
    full = model.training.matrix == "full"
    return trained_matrices(nodes, who, rng) if full else trained_by_least_squares(nodes, who, rng)


def _diagonal(model: GaussianModel, sigmas: Array, nodes: Nodes) -> Callable[[Array], float]:
    """Exact error, in the model's metric, of what denoisers with these errors (P, d) sample."""
    spectrum, counts = model.spectrum, model.spectrum.counts.astype(int)
    power = np.repeat(spectrum.mean_power / counts, counts)
    one = replace(spectrum, counts=np.ones(len(spectrum)))  # a band's directions stand one below the other
    place = np.concatenate([np.arange(count) for count in counts]), np.repeat(np.arange(counts.size), counts)
    right, none = np.tile(np.sqrt(spectrum.eigenvalues), (counts.max(), 1)), np.zeros((counts.max(), counts.size))
    start = sigmas[0] ** 2 + (nodes.eigenvalues if model.start == "marginal" else np.zeros(nodes.eigenvalues.size))
    tail = sigmas.size - nodes.sigmas.size

    def distance(errors: Array) -> float:
        weights = np.concatenate([nodes.weights + errors, np.zeros((tail, errors.shape[1]))])
        law = model.sampler.terminal_law(sigmas, nodes.eigenvalues, denoiser=weights, initial_variance=start)
        std, mean = right.copy(), none.copy()
        std[place] = law.std
        if model.start == "noise":
            mean[place] = power * law.amplitude**2
        return float(model.metric.distance(one, std, mean).sum())

    return distance


def _full(model: GaussianModel, sigmas: Array, nodes: Nodes) -> Callable[[Array], float]:
    """The same of full matrices (P, d, d)."""
    model.sampler.check_network_step()
    if model.start == "noise" and model.spectrum.mean_power.any():
        raise ValueError("validate: matrix='full' is simulated about the mean; give start='mean'.")

    def distance(errors: Array) -> float:
        if errors.ndim == 2:
            errors = np.zeros((*errors.shape, errors.shape[1]))
        return full_distance(model, sigmas, nodes, errors)

    return distance


def model_of(plan: Plan) -> GaussianModel:
    """The Gaussian model that a plan says it was made on.

    Raises:
        ValueError: a plan of something else, or of a version that did not keep all of it.
    """
    kept: Mapping[str, Any] = plan.provenance
    needed = ("eigenvalues", "counts", "mean_power", "coupling", "training", "process", "start")
    missing = [name for name in needed if name not in kept]
    if missing:
        raise ValueError(
            f"validate: the plan does not hold the model it was made on (no {', '.join(missing)}): it is not of a "
            "GaussianModel, or of an earlier version; plan again, or give the model."
        )
    if kept.get("metric"):
        raise ValueError(
            "validate: the plan counts errors in a metric of its own, which it does not hold; give the model that it "
            "was made on."
        )
    spectrum = Spectrum(kept["eigenvalues"], kept["counts"], kept["mean_power"])
    return GaussianModel(
        spectrum, Process.from_dict(kept["process"]), Sampler.from_dict(kept["sampler"]),
        TrainingNoise.from_dict(kept["training"]), Coupling.from_dict(kept["coupling"]), plan.terminal, kept["start"],
    )  # fmt: skip
