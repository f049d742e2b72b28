"""Training laws of a few standard networks, which come with the library, and what plans make of them.

Each network is trained at EDM's default density; the errors of its slopes along the directions of the data, times the
examples, are its law (docs/theory.md section 5.7). `calibrate` writes the files in codesign_opt/training/calibrations,
`measured` plans with a law, trains and samples as planned, and holds what comes out against what was predicted.
"""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import codesign_opt as co
from codesign_opt.basics.checks import Array

__all__ = ["NETWORKS", "Network", "calibrate", "predicted_and_realised", "write_rows"]

PILOT = co.LogNormal(-1.2, 1.2)
COMMAND = "python -m problems.studies calibrate"
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Network:
    """A small standard network and its data.

    Args:
        title: for prints: which network on which data.
        data: function () -> (N, d) images in [-1, 1].
        width, layers: of the perceptron.
    """

    title: str
    data: Callable[[], Tensor]
    width: int = 128
    layers: int = 3

    def initial(self, images: Tensor, seed: int) -> co.testbed.MLP:
        """The untrained network of a seed; the caller's random state stays as it is."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            size = images.shape[1]
            return co.testbed.MLP(size, sigma_data=sigma_data(images), width=self.width, layers=self.layers)

    def size(self, images: Tensor) -> int:
        """Number of weights."""
        return sum(weight.numel() for weight in self.initial(images, 0).parameters())

    def trained(self, density: Any, examples: float, seed: int, batch: int = 128) -> co.testbed.TrainedDenoiser:
        """The network after so many examples at a density, averaged weights."""
        images = self.data()
        return co.testbed.train(
            self.initial(images, seed), images, iterations=max(1, round(examples / batch)),
            optimisation=co.testbed.Optimisation(density, batch), seed=seed,
        )  # fmt: skip


def sigma_data(images: Tensor) -> float:
    """Standard deviation of all pooled pixels, as the preconditioning takes it."""
    return round(float(images.double().std()), 4)


def _clothes() -> Tensor:
    images = torch.from_numpy(co.testbed.fashion_mnist("train")[0][:14_000])
    return torch.nn.functional.avg_pool2d(images, 4).flatten(1).contiguous()


NETWORKS = {
    "mlp_digits": Network("a perceptron of 3 x 128 units on 8 x 8 digits", co.testbed.digits),
    "mlp_photo_patches": Network("a perceptron of 3 x 128 units on 8 x 8 photo patches", co.testbed.photo_patches),
    "mlp_fashion_mnist": Network("a perceptron of 3 x 128 units on Fashion-MNIST, 7 x 7 pixels", _clothes),
}


def calibrate(
    name: str, folder: Path, *, examples: int = 256_000, seeds: Sequence[int] = (0, 1), progress: Progress = print
) -> co.Measured:
    """Train a network, measure the errors of its slopes, average over the seeds, and write folder/NAME.json."""
    network = NETWORKS[name]
    images, batch = network.data(), 128
    run = co.TrainingRun(PILOT, iterations=examples // batch, batch=batch)
    spectrum = co.Spectrum.from_samples(images.double().numpy())
    found = []
    for seed in seeds:
        denoiser = network.trained(PILOT, examples, seed, batch)
        found.append(co.estimate.slope_errors(denoiser, images, run, seed=seed).law())
        progress(f"{name}: seed {seed} measured")
    kappa1 = np.mean([law.reducible for law in found], axis=0)
    record = {
        "command": COMMAND, "title": network.title, "parameters": network.size(images),
        "training": f"{examples:,} examples at P_mean -1.2, P_std 1.2; Adam at 1e-3, batch {batch}, averaged by 0.999",
        "seeds": list(seeds), "images": len(images),
    }  # fmt: skip
    law = co.Measured.from_kappa1(
        found[0].sigma, kappa1, spectrum, log_width=found[0].log_width, sigma_data=sigma_data(images),
        source=network.title, record=record,
    )  # fmt: skip
    rounded = dataclasses.replace(law, parameters=np.array([float(f"{p:.4g}") for p in law.parameters]),
                                  sigma=np.array([float(f"{s:.6g}") for s in law.sigma]))  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    rounded.save(folder / f"{name}.json")
    return rounded


def predicted_and_realised(
    name: str, budget: float, *, training: co.Measured | None = None, seed: int = 10, samples: int = 8000
) -> dict[str, Any]:
    """Plan for a budget, train and sample as planned, and measure the distance that the plan predicts.

    Both are squared Wasserstein distances of Gaussians with the variances along the directions of the data and the
    means; the realised one is corrected for the number of samples.

    Args:
        name: one of `NETWORKS`.
        budget: in evaluations of the network; an example costs three, and 10,000 images are sampled.
        training: the law; that of the library unless given.
        seed: of training, not one of the calibration's.
        samples: that are compared with the data.
    """
    network = NETWORKS[name]
    images = network.data()
    spectrum = co.Spectrum.from_samples(images.double().numpy())
    law = co.Measured.load(name) if training is None else training
    model = co.GaussianModel(spectrum, sampler=co.Heun(), training=law, start="mean")
    plan = co.codesign(model, co.Prices(example=3.0, evaluation=1.0, images=10_000), budget)
    density = plan.training_density
    assert plan.sigmas is not None
    denoiser = network.trained(density, density.total, seed)
    realised = distance(sampled(denoiser, images, plan.sigmas, samples, seed), images)
    told = plan.handed_out["total"]
    return {
        "network": name, "budget": budget, "examples": round(density.total), "steps": plan.number_of_steps,
        "predicted": told, "realised": realised, "ratio": told / realised,
    }  # fmt: skip


@torch.no_grad()
def sampled(denoiser: Any, images: Tensor, sigmas: Array, count: int, seed: int) -> Tensor:
    """(count, d) samples of Heun's method on a grid, from the mean of the data as `start="mean"` says."""
    generator = torch.Generator().manual_seed(seed)
    start = float(sigmas[0]) * torch.randn((count, images.shape[1]), generator=generator) + images.mean(0)
    return co.estimate.run(co.estimate.Denoiser.of(denoiser), co.Heun(), sigmas, start)


def distance(samples: Tensor, images: Tensor) -> float:
    """Squared distance of standard deviations along the directions of the data, and of means, less sampling noise."""
    clean, made = images.double().numpy(), samples.double().numpy()
    mean = clean.mean(0)
    values, axes = np.linalg.eigh(np.cov(clean.T, bias=True))
    away = (made - mean) @ axes
    count, variance = len(away), away.var(0)
    bands = (np.sqrt(variance) - np.sqrt(np.maximum(values, 0.0))) ** 2 - variance / (2 * count)
    return float(bands.sum() + (away.mean(0) ** 2 - variance / count).sum())


def write_rows(rows: Sequence[dict[str, Any]], path: Path) -> Path:
    """A table as CSV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows([{k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows])
    return path
