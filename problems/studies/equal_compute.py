"""Networks trained and sampled at equal total compute: the joint plan from its own pilot against EDM's defaults.

Compute is counted in evaluations of the network: an example costs three, an image as many as its sampler asks for, and
as many images are sampled as make EDM's sampler half of the budget. The joint plan knows a pilot, the first tenth of
EDM's run, and pays for it and for what is measured on it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import codesign_opt as co
from codesign_opt.basics.checks import Array, choice, integer, number
from codesign_opt.estimate.draws.streams import normal
from codesign_opt.testbed.metrics import energy_distance, frechet_distance

from .fleet import Fleet, train_fleet
from .pilot_experiment import DATA, DEFAULT, SIGMA_MAX, SIGMA_MIN, small_images

__all__ = ["ARMS", "DEFAULT", "EDM_GRID", "USUAL", "EqualCompute", "Planned"]

EXAMPLE = 3.0  # evaluations that a training example costs
EDM2 = co.LogNormal(-0.4, 1.0)
_EDM_CALLS = 35  # Heun's method, 18 steps
_PILOT = 0.1
_REFERENCE = co.LogNormal(-0.8, 1.8)
_REFERENCE_STEPS = 64
_HELD_OUT = 0.2
Progress = Callable[[str], None]


def _edm(steps: int) -> Array:
    return co.edm_grid(steps, SIGMA_MIN, SIGMA_MAX, terminal="denoise")


def _log_snr(steps: int) -> Array:
    return np.append(np.geomspace(SIGMA_MAX, SIGMA_MIN, steps), 0.0)


# name -> density, sampler, grid: EDM's defaults, and what else is usual; each spends the rest of the budget on training
USUAL: dict[str, tuple[co.LogNormal, co.Sampler, Array]] = {
    f"{density_name}, {sampler_name} {steps} steps, {grid_name}": (density, sampler, grid(steps))
    for density_name, density in (("EDM", DEFAULT), ("EDM2", EDM2))
    for sampler_name, sampler, grid_name, grid, steps in (
        ("Heun", co.Heun(), "EDM's levels", _edm, 18),
        ("Heun", co.Heun(), "EDM's levels", _edm, 9),
        ("2M", co.DPMpp2M(), "EDM's levels", _edm, 20),
        ("2M", co.DPMpp2M(), "equal log SNR", _log_snr, 10),
        ("2M", co.DPMpp2M(), "equal log SNR", _log_snr, 20),
    )
}
EDM_ARM = next(iter(USUAL))
EDM_GRID = USUAL[EDM_ARM][2]
PLANS = ("joint plan", "training only", "sampling only", "planned along the run")
ARMS = (*USUAL, *PLANS)


@dataclass(frozen=True, eq=False)
class Planned:
    """What the pilot's network and its plan say.

    Attributes:
        sigmas: (K+1,) levels of the joint plan's sampler, DPM-Solver++(2M).
        edges, share: (L+1,) and (L,) levels of the program, and the plan's new examples on them.
        examples: new ones.
        predicted: squared error that the plan states.
        measured: evaluations that measuring took; paid by every arm that uses a plan.
    """

    sigmas: Array
    edges: Array
    share: Array
    examples: float
    predicted: float
    measured: float

    @property
    def density(self) -> co.SigmaDensity:
        """Density of the examples after the pilot."""
        return co.peers.OnLevels(co.Levels(self.edges), self.share)


class _Staged(co.SigmaDensity):
    """A density for the first batches of a run and another for the rest; it counts the batches drawn from it."""

    def __init__(self, first: co.SigmaDensity, batches: int, then: co.SigmaDensity) -> None:
        self.first, self.left, self.then = first, batches, then

    def quantile(self, u: Array) -> Array:
        """sigma of the quantiles `u` of the next batch."""
        self.left -= 1
        return (self.first if self.left >= 0 else self.then).quantile(u)

    def tails(self, sigma: Array) -> tuple[Array, Array]:
        """Those of the density in use."""
        return (self.first if self.left > 0 else self.then).tails(sigma)

    def per_log_sigma(self, sigma: Array) -> Array:
        """That of the density in use."""
        return (self.first if self.left > 0 else self.then).per_log_sigma(sigma)


@dataclass(frozen=True)
class EqualCompute:
    """Networks on one set of small images at one budget; finished seeds are kept in `folder`.

    Args:
        data: one of `DATA`; a fifth of the images is held out.
        budget: evaluations of the network in all.
        folder: of finished work; None keeps it in memory.
        reference: examples of the network whose samples count as the truth.
        batch, learning_rate, width, layers: of the perceptrons and of Adam.
        draws: starts.
        progress: called with a line of text now and then.

    >>> EqualCompute("digits", 1e6).images_sampled, EqualCompute("digits", 1e6).examples(35.0)
    (14286, 166663.33333333334)
    """

    data: str
    budget: float
    folder: str | Path | None = None
    reference: int = 4_000_000
    batch: int = 256
    learning_rate: float = 2e-3
    width: int = 64
    layers: int = 2
    draws: int = 2048
    progress: Progress | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        choice(self.data, "EqualCompute.data", DATA)
        number(self.budget, "EqualCompute.budget", positive=True)
        for name in ("reference", "batch", "width", "layers", "draws"):
            integer(getattr(self, name), f"EqualCompute.{name}", minimum=1)

    # what is asked

    @property
    def images_sampled(self) -> int:
        """In the life of the network: EDM's sampler takes half of the budget."""
        return round(self.budget / (2 * _EDM_CALLS))

    def examples(self, evaluations: float, paid: float = 0.0) -> float:
        """Training examples that are left beside a sampler of so many evaluations an image, and what is paid."""
        return (self.budget - paid - evaluations * self.images_sampled) / EXAMPLE

    @staticmethod
    def calls(sampler: co.Sampler, grid: Array) -> int:
        """Evaluations that an image takes."""
        return (grid.size - 2) * sampler.evaluations_per_step + 1  # the last step, to zero, takes one

    def iterations(self, examples: float) -> int:
        return int(examples // self.batch)

    @property
    def pilot(self) -> int:
        """Iterations of the pilot: a tenth of the budget."""
        return self.iterations(_PILOT * self.budget / EXAMPLE)

    @cached_property
    def ledger(self) -> co.estimate.Ledger:
        asked = {name: value for name, value in asdict(self).items() if name not in ("folder", "progress")}
        place = None if self.folder is None else Path(self.folder) / f"{self.data}-{self.budget:g}"
        return co.estimate.Ledger(place, {"experiment": "equal compute", **asked})

    # data, networks, samples

    @cached_property
    def _split(self) -> tuple[Tensor, Tensor]:
        images = small_images(self.data)
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
        count = round(_HELD_OUT * len(images))
        return images[order[count:]], images[order[:count]]

    @property
    def images(self) -> Tensor:
        """(N, 16) training images."""
        return self._split[0]

    @property
    def held_out(self) -> Tensor:
        """(M, 16) images that nothing is trained on."""
        return self._split[1]

    @cached_property
    def start(self) -> Tensor:
        return SIGMA_MAX * normal(0, "starts", shape=(self.draws, self.images.shape[1]), like=self.images)

    @cached_property
    def truth(self) -> Tensor:
        """(draws, 16) fine solution of a network trained much longer, from the same starts."""

        def compute() -> dict[str, Array]:
            count = self.reference // self.batch
            fleet = self.fleet([_REFERENCE], count, 1_000, ema=0.9995)
            self.tell(f"{self.data}: reference trained")
            return {"samples": self.sampled(fleet.member(0), co.Heun(), _edm(_REFERENCE_STEPS)).numpy()}

        shared = None if self.folder is None else Path(self.folder) / f"{self.data}-reference"
        asked = {
            name: getattr(self, name) for name in ("data", "reference", "batch", "learning_rate", "width", "layers")
        }
        kept = co.estimate.Ledger(shared, {"experiment": "equal compute", "draws": self.draws, **asked})
        return torch.from_numpy(kept.item("reference", compute)["samples"])

    def fleet(
        self, densities: Sequence[Any], iterations: int, seed: int, *, ema: float = 0.999, keep: Any = ()
    ) -> Fleet:
        """Networks of one seed, one for every density, trained side by side."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            size = float(self.images.std())
            initial = co.testbed.MLP(self.images.shape[1], sigma_data=size, width=self.width, layers=self.layers)
        how = co.testbed.Optimisation(DEFAULT, self.batch, self.learning_rate, ema)
        return train_fleet(
            initial, self.images, densities, iterations=iterations, optimisation=how, seed=seed, keep=keep
        )

    @torch.no_grad()
    def sampled(self, denoiser: Any, sampler: co.Sampler, sigmas: Array) -> Tensor:
        """(draws, 16) samples from the common starts."""
        return co.estimate.run(denoiser, sampler, sigmas, self.start)

    # the plan

    def planned(self, seed: int) -> Planned:
        """The joint plan of one seed, from its pilot."""

        def compute() -> dict[str, Array]:
            model, denoiser = self.model(seed, co.DPMpp2M())
            # the search and what is said of its plan take about as much again as the measurement
            left = (1 - _PILOT) * self.budget - 2 * denoiser.evaluations
            prices = co.Prices(example=EXAMPLE, evaluation=1.0, images=self.images_sampled)
            plan = co.codesign(model, prices, left, run=self.run)
            spent = denoiser.evaluations  # of the measurement and of the search
            self.tell(f"{self.data}, {self.budget:g}, seed {seed}: planned, {plan.number_of_steps} steps")
            values = {
                "sigmas": plan.sigmas, "edges": plan.levels.edges, "share": plan.new_examples,
                "examples": plan.new_examples.sum(), "predicted": plan.handed_out["total"], "measured": spent,
            }  # fmt: skip
            return {name: np.asarray(value, dtype=np.float64) for name, value in values.items()}

        found = self.ledger.item(f"plans/{seed}", compute)
        numbers = {name: float(found[name]) for name in ("examples", "predicted", "measured")}
        return Planned(found["sigmas"], found["edges"], found["share"], **numbers)

    @property
    def run(self) -> co.TrainingRun:
        """The pilot, as it was trained."""
        return co.TrainingRun(DEFAULT, iterations=self.pilot, batch=self.batch)

    def model(self, seed: int, sampler: co.Sampler) -> tuple[co.EstimatedModel, co.estimate.Denoiser]:
        """What is measured on the pilot of one seed for a sampler, and its network, which counts its evaluations."""
        half, whole = self.pilot // 2, self.pilot
        fleet = self.fleet([DEFAULT], whole, seed, keep=[half])
        denoiser = fleet.member(0)
        history = co.estimate.TrainingHistory(self.run, other=fleet.member(0, half), growth=whole / half)
        few = co.estimate.Measurement(levels=8, draws=16, images=1024, evaluations=4000)
        model = co.estimate.network(denoiser, self.images, sampler=sampler, training=history, measurement=few)
        return model, denoiser

    # the arms

    def rows(self, seed: int) -> list[dict[str, Any]]:
        """What every arm comes to at one seed; missing networks are trained."""
        found = self.ledger.item(f"seeds/{seed}", lambda: self._computed(seed))
        return [{"arm": arm, **{name: float(found[name][i]) for name in _MEASURES}} for i, arm in enumerate(ARMS)]

    def _computed(self, seed: int) -> dict[str, Array]:
        plan = self.planned(seed)
        calls, paid = plan.sigmas.size - 1, plan.measured
        planned, usual = self.examples(calls, paid), self.examples(_EDM_CALLS, paid)
        cases = [(density is EDM2, self.examples(self.calls(sampler, grid)), sampler, grid)
                 for density, sampler, grid in USUAL.values()]  # fmt: skip
        counts = [self.iterations(examples) for _, examples, _, _ in cases]
        most, less = self.iterations(planned), self.iterations(usual)
        replanned = co.training.Replanner(co.Spectrum.from_samples(self.images.double().numpy()), most * self.batch)
        staged = _Staged(DEFAULT, self.pilot, plan.density)
        fleet = self.fleet([DEFAULT, EDM2], max([*counts, most]), seed, keep=[*counts, most])
        own = self.fleet([staged, replanned], most, seed, keep=[less, most])
        done = [(fleet.member(int(second), count), sampler, grid)
                for (second, _, sampler, grid), count in zip(cases, counts, strict=True)]  # fmt: skip
        two, levels = co.DPMpp2M(), plan.sigmas
        done += [
            (own.member(0), two, levels), (own.member(0, less), co.Heun(), EDM_GRID),
            (fleet.member(0, most), two, levels), (own.member(1), two, levels),
        ]  # fmt: skip
        examples = [*(count * self.batch for count in counts), *(self.batch * k for k in (most, less, most, most))]
        measures = [self._measured(*case) for case in done]
        self.tell(f"{self.data}, {self.budget:g}, seed {seed}: {len(done)} arms")
        evaluations = [self.calls(sampler, grid) for _, sampler, grid in done]
        table = {name: np.array([each[name] for each in measures]) for name in measures[0]}
        return {**table, "examples": np.array(examples), "evaluations": np.array(evaluations)}

    def _measured(self, denoiser: Any, sampler: co.Sampler, sigmas: Array) -> dict[str, float]:
        samples = self.sampled(denoiser, sampler, sigmas)
        away = (samples - self.truth).double().square().sum(1)
        count = min(len(samples), len(self.held_out))
        return {
            "error": float(away.mean()),
            "frechet": float(frechet_distance(samples, self.held_out, bootstraps=2).value),
            "energy": float(energy_distance(samples, self.held_out, block=count // 2).value),
            "loss": self._loss(denoiser),
        }

    @torch.no_grad()
    def _loss(self, denoiser: Any) -> float:
        """Denoising loss of held-out images, with EDM's weight, at the reference's density."""
        clean = self.held_out.repeat(4, 1)
        u = (np.arange(len(clean)) + 0.5) / len(clean)
        order = np.random.default_rng(0).permutation(len(clean))
        sigma = torch.from_numpy(_REFERENCE.quantile(u)[order]).to(clean)
        noisy = clean + sigma[:, None] * normal(0, "loss", shape=tuple(clean.shape), like=clean)
        size = float(self.images.std())
        weight = (sigma**2 + size**2) / (sigma * size) ** 2
        return float((weight * (denoiser(noisy, sigma) - clean).square().mean(1)).mean())

    def tell(self, text: str) -> None:
        if self.progress is not None:
            self.progress(text)


_MEASURES = ("error", "frechet", "energy", "loss", "examples", "evaluations")
