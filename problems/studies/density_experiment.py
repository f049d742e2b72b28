"""Where to train: many densities of noise levels, equal examples, compared by what the sampler makes of the networks.

docs/theory.md section 6, "Measured on a small network". Every network is trained from scratch on as many examples;
its terminal samples are compared with those of one network trained much longer, from the same starts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import codesign_opt as co
from codesign_opt.basics.checks import Array, integer
from codesign_opt.estimate.draws.streams import normal
from codesign_opt.testbed.networks.training import shown_density

__all__ = ["LOGNORMALS", "DensityExperiment"]

LOGNORMALS = tuple(co.LogNormal(mean, std) for mean in (-2.2, -1.7, -1.2, -0.7, -0.2) for std in (0.7, 1.2, 1.8))
REFERENCE_DENSITY = co.LogNormal(-0.8, 1.8)
SIGMA_DATA = 0.524  # standard deviation of all pooled pixels
Progress = Callable[[str], None]


@dataclass(frozen=True)
class DensityExperiment:
    """Networks on photo patches, one per density and seed, and how far their samples are from a long-trained one.

    Runs of one seed share initial weights, images and noise, so that densities are compared in pairs. Every
    finished run is kept in `folder`; a killed experiment goes on there.

    Args:
        folder: of finished runs; None keeps them in memory.
        iterations, batch: of every run; their product is the number of examples.
        longer: the reference network sees so many times as many examples.
        width, layers, learning_rate: of the perceptron and of Adam.
        levels: noise levels that the pilot is measured on.
        side: pixels along a patch.
        draws, steps: starts, and steps of Heun's method on EDM's grid from 80 to 0.002.
        progress: called with a line of text after every run.

    >>> len(LOGNORMALS), DensityExperiment(iterations=750, batch=256).examples
    (15, 192000)
    """

    folder: str | Path | None = None
    iterations: int = 750
    batch: int = 256
    longer: int = 32
    width: int = 128
    layers: int = 2
    learning_rate: float = 1e-3
    draws: int = 512
    steps: int = 18
    levels: int = 24
    side: int = 8
    progress: Progress | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        for name in ("iterations", "batch", "longer", "width", "layers", "draws", "steps", "levels", "side"):
            integer(getattr(self, name), f"DensityExperiment.{name}", minimum=1)

    @property
    def examples(self) -> int:
        """Training examples of every run."""
        return self.iterations * self.batch

    @cached_property
    def ledger(self) -> co.estimate.Ledger:
        question = {name: value for name, value in asdict(self).items() if name not in ("folder", "progress", "side")}
        return co.estimate.Ledger(
            self.folder, {"experiment": "densities", "data": f"photo patches {self.side} x {self.side}", **question}
        )

    @cached_property
    def data(self) -> Tensor:
        return co.testbed.photo_patches(side=self.side)

    @cached_property
    def grid(self) -> Array:
        return co.edm_grid(self.steps, 0.002, 80.0, terminal="denoise")

    def initial(self, seed: int) -> nn.Module:
        """The untrained network of a seed; the caller's random state stays as it is."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return co.testbed.MLP(self.data.shape[1], sigma_data=SIGMA_DATA, width=self.width, layers=self.layers)

    def trained(
        self, density: Any, seed: int, *, longer: int = 1, ema: float = 0.999, **options: Any
    ) -> co.testbed.TrainedDenoiser:
        """One network on `longer` times `examples` examples; options of `train`: records, folder, progress."""
        how = co.testbed.Optimisation(density, self.batch, self.learning_rate, ema)
        count = self.iterations * longer
        return co.testbed.train(self.initial(seed), self.data, iterations=count, optimisation=how, seed=seed, **options)

    @cached_property
    def reference(self) -> Tensor:
        """(draws, d) samples of the long-trained network."""

        def compute() -> dict[str, Array]:
            place = None if self.folder is None else Path(self.folder) / "reference"
            network = self.trained(
                REFERENCE_DENSITY,
                1_000,
                longer=self.longer,
                ema=0.9995,
                folder=place,
                records=co.testbed.Records(every=500, tell=500),
                progress=lambda done, total, text: self.tell(f"reference: {done:,} of {total:,}, {text}"),
            )
            return {"samples": self.samples(network).numpy()}

        return torch.from_numpy(self.ledger.item("reference-samples", compute)["samples"])

    @torch.no_grad()
    def samples(self, network: Any) -> Tensor:
        """(draws, d) output of the sampler from the starts that all networks share."""
        like = torch.zeros((), dtype=self.data.dtype)
        start = 80.0 * normal(0, "starts", shape=(self.draws, self.data.shape[1]), like=like)
        return co.estimate.run(co.estimate.Denoiser.of(network), co.Heun(), self.grid, start)

    def distance(self, samples: Tensor) -> Array:
        """(draws,) squared distance to the reference's samples."""
        return (samples - self.reference).double().square().sum(dim=1).numpy()

    def run(self, density: Any, seed: int, name: str) -> Tensor:
        """(draws, d) samples of the network trained at a density; it is trained now if it is missing."""

        def compute() -> dict[str, Array]:
            samples = self.samples(self.trained(density, seed))
            self.tell(f"trained: {name}, seed {seed}")
            return {"samples": samples.numpy()}

        found = self.ledger.item(f"runs/{shown_density(density).replace(' ', '-')}-seed{seed}", compute)
        return torch.from_numpy(found["samples"])

    def errors(self, densities: dict[str, Any], seeds: Iterable[int]) -> Array:
        """(D, S) realised errors, all densities of a seed before the next seed."""
        samples = [[self.run(density, seed, name) for name, density in densities.items()] for seed in seeds]
        return np.array([[self.distance(sample).mean() for sample in row] for row in samples]).T

    def tell(self, text: str) -> None:
        if self.progress is not None:
            self.progress(text)
