"""From a pilot run to a training density, trained and sampled: is the planned one ever worse than the usual one?

Three sets of small images. On each, networks are trained at fifteen log-normal densities and at every density that the
safe route (`co.estimate.training_density`) plans from pilots at EDM's default, on equal examples; what counts is the
squared distance of their samples to those of a network trained much longer, from the same starts.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import codesign_opt as co
from codesign_opt.basics.checks import Array, choice, integer
from codesign_opt.estimate.draws.streams import normal

from .density_experiment import LOGNORMALS
from .fleet import train_fleet

__all__ = ["DATA", "DEFAULT", "KINDS", "PilotExperiment", "PilotRun", "small_images"]

DEFAULT = co.LogNormal(-1.2, 1.2)  # EDM's density, the one of every pilot
DATA = ("photo_patches", "digits", "clothes")
KINDS = ("ema", "raw")  # the averaged weights and the last iterate
SIGMA_MIN, SIGMA_MAX = 0.002, 80.0
_REFERENCE = co.LogNormal(-0.8, 1.8)
_CLOTHES = 14_000  # as many as there are photo patches
Progress = Callable[[str], None]


def small_images(name: str) -> Tensor:
    """(N, 16) images in [-1, 1] of 4 x 4 pixels: photo patches, digits or Fashion-MNIST, averaged over blocks.

    So small that a perceptron of 64 units is no bottleneck: densities then compete for examples, not for units.
    """
    if choice(name, "data", DATA) == "photo_patches":
        return co.testbed.photo_patches(side=4)
    if name == "digits":
        return nn.functional.avg_pool2d(co.testbed.digits().reshape(-1, 1, 8, 8), 2).flatten(1).contiguous()
    images = torch.from_numpy(co.testbed.fashion_mnist("train")[0][:_CLOTHES])
    return nn.functional.avg_pool2d(images, 7).flatten(1).contiguous()


@dataclass(frozen=True, eq=False)
class PilotRun:
    """One run at EDM's default density: what a practitioner has afterwards.

    Attributes:
        half, final: kind -> the network half-way and at the end.
        log: text of the log of its losses.
        examples: that it saw.
    """

    half: dict[str, nn.Module]
    final: dict[str, nn.Module]
    log: str
    examples: int


@dataclass(frozen=True)
class PilotExperiment:
    """Networks on one set of small images; finished runs are kept in `folder`.

    Runs of one seed share initial weights, images and noise.

    Args:
        data: one of `DATA`.
        folder: of finished runs; None keeps them in memory.
        iterations, batch, learning_rate: of every run; the product of the first two is its number of examples.
        longer: the reference network sees so many times as many.
        width, layers: of the perceptron.
        draws, steps: starts, and steps of Heun's method on EDM's grid from 80 to 0.002.
        progress: called with a line of text now and then.

    >>> PilotExperiment("digits").examples
    128000
    """

    data: str
    folder: str | Path | None = None
    iterations: int = 1000
    batch: int = 128
    learning_rate: float = 2e-3
    longer: int = 10
    width: int = 64
    layers: int = 2
    draws: int = 1024
    steps: int = 18
    progress: Progress | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        choice(self.data, "PilotExperiment.data", DATA)
        for name in ("iterations", "batch", "longer", "width", "layers", "draws", "steps"):
            integer(getattr(self, name), f"PilotExperiment.{name}", minimum=1)

    @property
    def examples(self) -> int:
        """Training examples of every run."""
        return self.iterations * self.batch

    @cached_property
    def ledger(self) -> co.estimate.Ledger:
        asked = {name: value for name, value in asdict(self).items() if name not in ("folder", "progress")}
        place = None if self.folder is None else Path(self.folder) / self.data
        return co.estimate.Ledger(place, {"experiment": "pilots", **asked})

    @cached_property
    def images(self) -> Tensor:
        return small_images(self.data)

    @cached_property
    def grid(self) -> Array:
        return co.edm_grid(self.steps, SIGMA_MIN, SIGMA_MAX, terminal="denoise")

    @cached_property
    def start(self) -> Tensor:
        return SIGMA_MAX * normal(0, "starts", shape=(self.draws, self.images.shape[1]), like=self.images)

    def initial(self, seed: int) -> co.testbed.MLP:
        """The untrained network of a seed; the caller's random state stays as it is."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            data = float(self.images.std())
            return co.testbed.MLP(self.images.shape[1], sigma_data=data, width=self.width, layers=self.layers)

    def optimisation(self, density: co.LogNormal, ema: float = 0.999) -> co.testbed.Optimisation:
        return co.testbed.Optimisation(density, self.batch, self.learning_rate, ema)

    @cached_property
    def reference(self) -> Tensor:
        """(draws, d) samples of the long-trained network."""

        def compute() -> dict[str, Array]:
            count = self.iterations * self.longer
            how = self.optimisation(_REFERENCE, 0.9995)
            network = co.testbed.train(self.initial(1_000), self.images, iterations=count, optimisation=how, seed=1_000)
            self.tell("reference trained")
            found = co.estimate.run(co.estimate.Denoiser.of(network), co.Heun(), self.grid, self.start)
            return {"samples": found.numpy()}

        return torch.from_numpy(self.ledger.item("reference", compute)["samples"])

    def errors(self, densities: Sequence[co.LogNormal], seed: int) -> dict[str, Array]:
        """Kind -> (G,) squared distance of the samples to the reference's, mean over draws; missing runs are made."""
        todo = self.missing(densities, seed)
        made = dict(zip(todo, self.trained(todo, seed), strict=True)) if todo else {}
        for density, one in made.items():
            self.keep(density, seed, one)
        found = [self.ledger.item(_run_name(density, seed), dict) for density in densities]
        return {kind: np.array([float(item[kind]) for item in found]) for kind in KINDS}

    def missing(self, densities: Sequence[co.LogNormal], seed: int) -> list[co.LogNormal]:
        """Those of which there is no finished run at a seed."""
        return [density for density in dict.fromkeys(densities) if _run_name(density, seed) not in self.ledger]

    def keep(self, density: co.LogNormal, seed: int, errors: dict[str, Array]) -> None:
        """Keep the errors of a finished run, kind by kind."""
        self.ledger.put(_run_name(density, seed), **errors)

    def trained(self, densities: Sequence[Any], seed: int) -> list[dict[str, Array]]:
        """Kind -> error of every density, or run that is planned along itself, trained side by side."""
        reference = self.reference
        fleet = train_fleet(
            self.initial(seed), self.images, densities, iterations=self.iterations,
            optimisation=self.optimisation(DEFAULT), seed=seed,
        )  # fmt: skip
        distances = {}
        for kind, weights in (("ema", fleet.average), ("raw", fleet.last)):
            away = (fleet.samples(weights, self.grid, self.start) - reference).double().square().sum(2)
            distances[kind] = away.mean(1).numpy()
        self.tell(f"{self.data}, seed {seed}: {len(densities)} densities trained")
        return [{kind: np.array(distances[kind][i]) for kind in KINDS} for i in range(len(densities))]

    def pilot(self, seed: int) -> PilotRun:
        """A run at EDM's default, its two kinds of weights half-way and at the end, and its log."""

        def compute() -> dict[str, Array]:
            half = self.iterations // 2
            options: dict[str, Any] = {"optimisation": self.optimisation(DEFAULT), "seed": seed}
            with tempfile.TemporaryDirectory() as place:
                # a run of half the length is the beginning of the whole one, with its last iterate
                before = co.testbed.train(self.initial(seed), self.images, iterations=half, folder=place, **options)
                kept = {
                    f"half-{kind}": _flat(net) for kind, net in zip(KINDS, (before.model, before.last), strict=True)
                }
                run = co.testbed.train(
                    self.initial(seed), self.images, iterations=self.iterations, folder=place, **options
                )
                kept |= {f"final-{kind}": _flat(net) for kind, net in zip(KINDS, (run.model, run.last), strict=True)}
                text = (Path(place) / "loss.csv").read_bytes()
            self.tell(f"{self.data}: pilot {seed} trained")
            return {**kept, "log": np.frombuffer(text, dtype=np.uint8)}

        found = self.ledger.item(f"pilots/{seed}", compute)
        half, final = ({kind: self._network(seed, found[f"{at}-{kind}"]) for kind in KINDS} for at in ("half", "final"))
        return PilotRun(half, final, found["log"].tobytes().decode("utf-8"), self.examples)

    def _network(self, seed: int, weights: Array) -> nn.Module:
        network = self.initial(seed).eval().requires_grad_(False)
        nn.utils.vector_to_parameters(torch.from_numpy(weights), network.parameters())
        return network

    def compared(self) -> tuple[co.LogNormal, ...]:
        """The fifteen densities; EDM's default is one of them."""
        return LOGNORMALS

    def tell(self, text: str) -> None:
        if self.progress is not None:
            self.progress(text)


def _run_name(density: co.LogNormal, seed: int) -> str:
    return f"runs/{density.mean:+.2f}-{density.std:.2f}-seed{seed}"


def _flat(network: nn.Module) -> Array:
    return np.asarray(nn.utils.parameters_to_vector(network.parameters()).detach().numpy())
