"""Representation analysis on the paper's 2-D mixture and on the Fashion-MNIST network: tables and figures.

The experiments of arXiv:2605.10790, sections 3.3 and appendix F, with the testbed's own networks: EDM-preconditioned
instead of plain perceptrons, so that they differ from the paper's. Everything but the networks is exact on the mixture.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import codesign_opt as co
from codesign_opt.basics.checks import Array
from codesign_opt.estimate.features.representation import FeatureCollapse, GradientDecomposition, PhaseSpace

__all__ = ["RepresentationReport", "WorldReport", "mixture_world", "network_world", "representation_study"]

TARGETS = ("eps", "x0", "v", "flow")
_SPREAD = 2.02  # pooled standard deviation of the mixture's coordinates, sqrt(4.09)
_EARLY, _ITERATIONS = 100, 2_000
Tell = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class WorldReport:
    """What was measured on one data set and one network.

    Attributes:
        name: of the world.
        phase: phase space of the four targets.
        gradients: by stage of the training, such as "100 iterations".
        kernel: Gram matrix of the tangent kernel.
        features: hidden features at all levels.
        excess: E|D - E[x0|x]|^2 over the Bayes risk by training, such as ("eps", "plain"); empty where E[x0|x] is
            not known.
    """

    name: str
    phase: PhaseSpace
    gradients: dict[str, GradientDecomposition]
    kernel: co.estimate.TangentGram
    features: FeatureCollapse
    excess: dict[tuple[str, str], co.estimate.Estimate]


@dataclass(frozen=True, eq=False)
class RepresentationReport:
    """Both worlds and the bound on the linear model; `save` writes figures and a table."""

    mixture: WorldReport
    network: WorldReport | None
    bound: co.estimate.LinearDegradation

    def save(self, folder: Path) -> list[Path]:
        """representation.csv and the figures in a folder; the paths."""
        import matplotlib.pyplot as plt

        from .representation_figure import kernel_figure, mixture_figure, network_figure

        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / "representation.csv"]
        with paths[0].open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["world", "quantity", "of", "sigma", "value", "standard_error"])
            writer.writerows(self.rows())
        world = self.mixture
        figures = {
            "representation_mixture": mixture_figure(
                world.excess, world.phase, world.gradients, world.kernel, world.features, self.bound
            ),
            "representation_kernel": kernel_figure(world.kernel, world.features),
        }
        if self.network is not None:
            other = self.network
            figures["representation_network"] = network_figure(
                other.phase, other.gradients, other.kernel, other.features
            )
        for name, figure in figures.items():
            paths.append(folder / f"{name}.png")
            _save(figure, paths[-1])
            plt.close(figure)
        return paths

    def rows(self) -> list[list[str]]:
        """(world, quantity, of what, sigma, value, standard error) as text."""
        rows = []
        for world in (self.mixture, self.network):
            if world is not None:
                rows += [[world.name, *row] for row in _world_rows(world)]
        for i, sigma in enumerate(self.bound.sigma):
            for name, value in (("excess", self.bound.excess), ("bound", self.bound.bound)):
                rows.append(["linear", name, "end", f"{sigma:.4g}", f"{value[-1, i]:.4g}", ""])
        return rows


def _save(figure: Any, path: Path) -> None:
    """PNG of 256 colours, half the size."""
    from PIL import Image

    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=75)
    Image.open(content).convert("RGB").quantize(256).save(path, optimize=True)


def _world_rows(world: WorldReport) -> list[list[str]]:
    rows: list[list[str]] = []

    def add(quantity: str, of: str, sigma: Array, value: Any, error: Any = None) -> None:
        for i, s in enumerate(sigma):
            shown = "" if error is None else f"{error[i]:.2g}"
            rows.append([quantity, of, f"{s:.4g}", f"{value[i]:.4g}", shown])

    for target in world.phase.signal:
        for name, part in (("recoverable", world.phase.signal[target]), ("irreducible", world.phase.noise[target])):
            add(f"{name} target", target, world.phase.sigma, part.value, part.standard_error)
    for stage, parts in world.gradients.items():
        for name, estimate in (("signal", parts.signal), ("noise", parts.noise), ("cross", parts.cross)):
            add(f"gradient {name}", stage, parts.sigma, estimate.value, estimate.standard_error)
    values = world.kernel.eigenvalues()
    for k in range(3):
        add("tangent eigenvalue", str(k + 1), world.kernel.sigma, values[:, k])
    add("effective rank", f"{values.shape[1]} examples", world.kernel.sigma, world.kernel.effective_rank)
    for name in ("spread", "captured", "separation"):
        add(f"features: {name}", "2 axes", world.features.sigma, getattr(world.features, name))
    for (target, kind), estimate in world.excess.items():
        add("relative excess", f"{target}, {kind}", world.phase.sigma, estimate.value, estimate.standard_error)
    return rows


def mixture_world(tell: Tell, *, iterations: int = _ITERATIONS, width: int = 48) -> WorldReport:
    """The paper's mixture of four clusters: small networks trained on each target, plainly and with ERD's weight."""
    mixture = co.testbed.clusters4()
    data, sigma = mixture.sample(20_000), np.geomspace(0.03, 30.0, 13)
    phase = co.estimate.phase_space(mixture, mixture.sample(20_000, seed=1), sigma, examples=20_000)
    networks, excess = {}, {}
    for target in TARGETS:
        for kind in ("plain", "erd"):
            tell(f"mixture: {target}, {kind}")
            model = _trained_on(data, target, kind, iterations, width)
            networks[target, kind] = model
            excess[target, kind] = _relative_excess(model, mixture, sigma, phase.noise["x0"].value)
    early = _trained_on(data, "v", "plain", min(_EARLY, iterations), width)
    sorted_points, labels = _by_cluster(mixture.sample(400, seed=2), 8)
    stages = {f"{min(_EARLY, iterations):,} iterations": early, f"{iterations:,} iterations": networks["v", "plain"]}
    tell("mixture: gradients, tangent kernel, features")
    gradients = {
        stage: co.estimate.gradient_decomposition(model, mixture, mixture.sample(400, seed=3), sigma, examples=400)
        for stage, model in stages.items()
    }
    model = networks["v", "plain"]
    kernel = co.estimate.tangent_gram(model, sorted_points, sigma, examples=len(sorted_points))
    points, labels = _by_cluster(mixture.sample(1_000, seed=4), 100)
    features = co.estimate.feature_collapse(model, model.outward, points, sigma, labels=labels, examples=len(points))  # type: ignore[arg-type]
    return WorldReport("mixture", phase, gradients, kernel, features, excess)


def network_world(tell: Tell, cache: Any = None, *, images: int = 24, kernel_images: int = 20) -> WorldReport:
    """The Fashion-MNIST U-Net, loaded; the trained network stands in for E[x0|x], an early one is decomposed by it."""
    result = co.testbed.trained("fashion_mnist", folder=cache)
    kept = sorted(result.snapshots())
    if len(kept) < 2:
        raise ValueError("the Fashion-MNIST network keeps no early weights; train it with the testbed's recipe.")
    pictures, labels = co.testbed.fashion_mnist("test")
    data, sigma = torch.from_numpy(pictures), np.geomspace(0.02, 40.0, 8)
    tell("network: phase space")
    phase = co.estimate.phase_space(result.model, data, sigma, examples=200)
    gradients = {}
    for iteration in (kept[0], kept[len(kept) // 2 - 1]):
        tell(f"network: gradients at {iteration:,} iterations")
        gradients[f"{iteration:,} iterations"] = co.estimate.gradient_decomposition(
            result.at(iteration), result.model, data, sigma, examples=images, directions=16_384
        )
    tell("network: tangent kernel")
    order = np.concatenate([np.flatnonzero(labels == k)[: kernel_images // 4] for k in (0, 1, 5, 8)])
    kernel = co.estimate.tangent_gram(
        result.model, data[order], sigma, examples=len(order), probes=6, directions=16_384
    )
    tell("network: features")
    features = co.estimate.feature_collapse(result.model, result.model.head, data, sigma, labels=labels, examples=500)  # type: ignore[arg-type]
    return WorldReport("fashion_mnist", phase, gradients, kernel, features, {})


def representation_study(tell: Tell, cache: Any = None, *, network: bool = True) -> RepresentationReport:
    """Everything: the mixture, the Fashion-MNIST network, and the bound on the linear model."""
    path = co.estimate.TrainingPath(pieces=300, duration=0.2)
    bound = co.estimate.linear_degradation([2.0, 0.5], [0.2, 1.0, 3.0], path=path)
    return RepresentationReport(mixture_world(tell), network_world(tell, cache) if network else None, bound)


def _trained_on(data: Tensor, target: str, kind: str, iterations: int, width: int) -> nn.Module:
    density = _density(target)
    weight = co.peers.weighting("uniform" if kind == "plain" else "erd", target=target)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = co.testbed.MLP(2, sigma_data=_SPREAD, width=width)
    how = co.testbed.Optimisation(density, batch=256, ema=0.99, weight=weight.normalised(density).denoiser)
    return co.testbed.train(model, data, iterations=iterations, optimisation=how).model


def _density(target: str) -> co.SigmaDensity:
    """Uniform time of each target's own path, as in the paper."""
    return co.peers.uniform_time(co.FlowMatching() if target == "flow" else co.Cosine())


def _relative_excess(model: nn.Module, mixture: co.testbed.Mixture, sigma: Array, floor: Array) -> co.estimate.Estimate:
    """E|D - E[x0|x]|^2 over the Bayes risk; the same in every target's own units."""
    clean = mixture.sample(4_000, seed=5)
    z = torch.randn(clean.shape, generator=torch.Generator().manual_seed(6))
    values, errors = [], []
    with torch.no_grad():
        for level, least in zip(sigma, floor, strict=True):
            x, at = clean + float(level) * z, torch.full((len(clean),), float(level))
            squares = (model(x, at) - mixture(x, at)).square().sum(1).double().numpy() / least
            values.append(squares.mean())
            errors.append(squares.std(ddof=1) / np.sqrt(squares.size))
    return co.estimate.Estimate(np.array(values), np.array(errors), len(clean))


def _by_cluster(points: Tensor, each: int) -> tuple[Tensor, Array]:
    """`each` points of each quadrant, cluster after cluster, and the clusters' numbers."""
    label = ((points[:, 0] > 0).int() * 2 + (points[:, 1] > 0).int()).numpy()
    order = np.concatenate([np.flatnonzero(label == k)[:each] for k in range(4)])
    return points[order], label[order]
