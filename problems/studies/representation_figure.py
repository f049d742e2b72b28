"""Figures of the representation analysis: they draw the values that they are given (matplotlib)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import LogLocator, NullFormatter

import codesign_opt as co
from codesign_opt.estimate.features.representation import FeatureCollapse, GradientDecomposition, PhaseSpace
from codesign_opt.results.style import BLACK, BLUE, GREEN, GREY, LEGEND, ORANGE, RED, SIGMA, SKY, new_axes, tick

__all__ = ["kernel_figure", "mixture_figure", "network_figure"]

Excess = Mapping[tuple[str, str], co.estimate.Estimate]
Gradients = Mapping[str, GradientDecomposition]

_NAMES = {"eps": "ε", "x0": "x₀", "v": "v", "flow": "u (flow)"}


def mixture_figure(
    excess: Excess,
    phase: PhaseSpace,
    gradients: Gradients,
    kernel: co.estimate.TangentGram,
    features: FeatureCollapse,
    bound: co.estimate.LinearDegradation,
) -> Any:
    """Six panels: excess by training, phase space, gradients; eigenvalues, effective rank, bound."""
    figure, axes = plt.subplots(2, 3, figsize=(15.0, 9.0), layout="constrained")
    figure.suptitle("Mixture of four clusters at (±2, ±2), σ₀ = 0.3: exact E[x₀|x], perceptrons of 23,000 parameters")
    _excess(excess, phase.sigma, axes[0, 0])
    _phase(phase, axes[0, 1])
    _gradients(gradients, axes[0, 2])
    _eigenvalues(kernel, axes[1, 0])
    _ranks(kernel, features, axes[1, 1])
    _bound(bound, axes[1, 2])
    return figure


def kernel_figure(kernel: co.estimate.TangentGram, features: FeatureCollapse) -> Any:
    """Heat maps of the tangent kernel at three levels and across levels; features at four levels."""
    figure, axes = plt.subplots(2, 4, figsize=(16.0, 8.0), layout="constrained")
    figure.suptitle("Mixture of four clusters, network trained on v: the same examples at every noise level")
    levels = kernel.sigma
    shown = [int(np.argmin(np.abs(np.log(levels / at)))) for at in (0.1, 1.0, 10.0)]
    for k, ax in zip(shown, axes[0], strict=False):
        image = _heat(ax, kernel.correlation[k, :, k], f"Tangent kernel, σ = {levels[k]:.2g}")
        ax.set(xlabel="example, by cluster", ylabel="example, by cluster", xticks=[], yticks=[])
    figure.colorbar(image, ax=axes[0, 2], shrink=0.8)
    _coupling(kernel, axes[0, 3])
    for k, ax in zip(_four(features.sigma), axes[1], strict=True):
        _scatter(features, k, ax)
    return figure


def network_figure(
    phase: PhaseSpace, gradients: Gradients, kernel: co.estimate.TangentGram, features: FeatureCollapse
) -> Any:
    """Eight panels: phase space, gradients, eigenvalues, ranks; coupling, features at three levels."""
    figure, axes = plt.subplots(2, 4, figsize=(18.0, 9.0), layout="constrained")
    figure.suptitle("Fashion-MNIST, U-Net of 0.5 M parameters: the trained network in the place of E[x₀|x]")
    _phase(phase, axes[0, 0])
    _gradients(gradients, axes[0, 1])
    _eigenvalues(kernel, axes[0, 2])
    _ranks(kernel, features, axes[0, 3])
    _coupling(kernel, axes[1, 0])
    for k, ax in zip(_four(features.sigma)[:3], axes[1, 1:], strict=True):
        _scatter(features, k, ax)
    return figure


def _looks() -> dict[str, tuple[str, str]]:
    """Colour and marker of every target."""
    return {"eps": (BLUE, "o"), "x0": (ORANGE, "s"), "v": (GREEN, "^"), "flow": (RED, "D")}


def _level_axis(ax: Any, sigma: Any) -> None:
    ax.set(xscale="log", xlabel=SIGMA, xlim=(0.9 * sigma[0], 1.1 * sigma[-1]))


def _excess(excess: Excess, sigma: Any, ax: Any) -> None:
    new_axes(ax, "Excess of trained networks over the Bayes risk")
    for target, (color, marker) in _looks().items():
        for kind, style, fill in (("plain", "-", color), ("erd", "--", "none")):
            name = f"{_NAMES[target]}, " + ("ERD's weight" if kind == "erd" else "plain loss")
            values = excess[target, kind].value
            ax.plot(sigma, values, style, color=color, marker=marker, mfc=fill, ms=4, lw=1.4, label=name)
    _level_axis(ax, sigma)
    ax.set(yscale="log", ylabel="E|D − E[x₀|x]|² / E|x₀ − E[x₀|x]|²")
    low, high = ax.get_ylim()
    ax.set_ylim(low, high * (high / low) ** 0.45)
    ax.legend(**LEGEND, loc="upper center", ncols=2)


def _phase(phase: PhaseSpace, ax: Any) -> None:
    new_axes(ax, "Phase space (large marker: low noise)")
    signals, noises = [], []
    for target, (color, marker) in _looks().items():
        signal, noise = np.sqrt(phase.signal[target].value), np.sqrt(phase.noise[target].value)
        ax.plot(signal, noise, "-", color=color, lw=1.2)
        ax.scatter(signal, noise, s=np.linspace(90, 8, signal.size), color=color, marker=marker, label=_NAMES[target])
        signals.append(signal)
        noises.append(noise)
    across, up = ([0.75 * np.min(part), 1.5 * np.max(part)] for part in (signals, noises))
    ends = [min(across[0], up[0]), max(across[1], up[1])]
    ax.plot(ends, ends, "--", color=GREY, lw=1, label="half is noise")
    ax.set(xscale="log", yscale="log", xlim=across, ylim=up)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(tick)
        axis.set_minor_formatter(NullFormatter())
    ax.set(xlabel="recoverable, root of E|E[y|x]|²", ylabel="irreducible, root of E|y − E[y|x]|²")
    ax.legend(**LEGEND, loc="best")


def _gradients(gradients: Gradients, ax: Any) -> None:
    new_axes(ax, "Parts of one example's gradient")
    for (stage, parts), color, marker in zip(gradients.items(), (SKY, BLACK), ("o", "s"), strict=False):
        for name, part, style, fill in (
            ("signal", parts.signal, "-", color), ("noise", parts.noise, ":", "none"),
        ):  # fmt: skip
            look = {"color": color, "marker": marker, "mfc": fill, "ms": 4.5, "capsize": 2}
            label = f"{name}, {stage}"
            ax.errorbar(parts.sigma, part.value, yerr=part.standard_error, fmt=style, label=label, **look)
    _level_axis(ax, next(iter(gradients.values())).sigma)
    ax.set(yscale="log", ylabel="mean squared length, loss |D − x₀|² / 2")
    low, high = ax.get_ylim()
    ax.set_ylim(low, high * (high / low) ** 0.3)
    ax.legend(**LEGEND, loc="upper left")


def _eigenvalues(kernel: co.estimate.TangentGram, ax: Any) -> None:
    new_axes(ax, "Leading tangent eigenvalues")
    for target, (color, marker) in _looks().items():
        values = kernel.eigenvalues(target)[:, :3]
        for k, style in enumerate(("-", "--", ":")):
            label = f"network of {_NAMES[target]}" if k == 0 else "_"
            ax.plot(
                kernel.sigma, values[:, k], style, color=color, marker=marker if k == 0 else None, ms=4, label=label
            )
    _level_axis(ax, kernel.sigma)
    ax.set(yscale="log", ylabel="κ₁ (solid), κ₂ (dashed), κ₃ (dotted)")
    low, high = ax.get_ylim()
    ax.set_ylim(low, high * (high / low) ** 0.3)
    ax.legend(**LEGEND, loc="upper right", ncols=2)


def _ranks(kernel: co.estimate.TangentGram, features: FeatureCollapse, ax: Any) -> None:
    new_axes(ax, "Effective rank and features")
    count = kernel.gram.shape[1]
    ax.plot(
        kernel.sigma, kernel.effective_rank, "-o", color=BLUE, ms=5, label=f"effective rank of the kernel (of {count})"
    )
    ax.set(ylim=(0, 1.45 * max(kernel.effective_rank.max(), 1.0)), ylabel="effective rank")
    _level_axis(ax, kernel.sigma)
    other = ax.twinx()
    other.spines["top"].set_visible(False)
    other.plot(
        features.sigma, features.separation, "--s", color=ORANGE, ms=4, label="features: variance between classes"
    )
    other.plot(features.sigma, features.spread / features.spread.max(), ":^", color=GREEN, ms=4,
               label="features: total variance, of its maximum")  # fmt: skip
    other.set(ylim=(0, 1.45), yticks=[0, 0.5, 1], ylabel="share")
    handles, labels = (
        a + b for a, b in zip(ax.get_legend_handles_labels(), other.get_legend_handles_labels(), strict=True)
    )
    other.legend(handles, labels, **LEGEND, loc="upper left")


def _bound(bound: co.estimate.LinearDegradation, ax: Any) -> None:
    new_axes(ax, "Linear model: excess and its bound")
    for i, color in enumerate((BLUE, ORANGE, GREEN)):
        sigma = f"σ = {bound.sigma[i]:g}"
        ax.plot(bound.time, bound.bound[:, i], "--", color=color, lw=1.6, label=f"bound, {sigma}")
        ax.plot(bound.time, bound.excess[:, i], "-", color=color, lw=1.2, label=f"excess, {sigma}")
    ax.set(yscale="log", xlabel="training time", ylabel="excess loss", xlim=(0, bound.time[-1]))
    low, high = ax.get_ylim()
    ax.set_ylim(low, high * (high / low) ** 0.2)
    ax.legend(**LEGEND, loc="upper right", ncols=3)


def _heat(ax: Any, values: Any, title: str) -> Any:
    image = ax.imshow(values, cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
    ax.set_title(title, loc="left", fontweight="bold")
    return image


def _coupling(kernel: co.estimate.TangentGram, ax: Any) -> None:
    image = _heat(ax, kernel.level_coupling, "Coupling across noise levels")
    ticks = np.linspace(0, kernel.sigma.size - 1, 4).round().astype(int)
    labels = [f"{kernel.sigma[i]:.2g}" for i in ticks]
    ax.set(xlabel="σ", ylabel="σ′")
    ax.set_xticks(ticks, labels)
    ax.set_yticks(ticks, labels)
    ax.figure.colorbar(image, ax=ax, shrink=0.8)


def _four(sigma: Any) -> list[int]:
    return [round(at) for at in np.linspace(0, sigma.size - 1, 4)]


def _scatter(features: FeatureCollapse, k: int, ax: Any) -> None:
    new_axes(ax, f"Features, σ = {features.sigma[k]:.2g}")
    points = features.projections
    colors = None if features.labels is None else features.labels
    ax.scatter(points[k, :, 0], points[k, :, 1], c=colors, cmap=plt.get_cmap("tab10"), s=6, alpha=0.7)
    both = points[[0, k]].reshape(-1, points.shape[2])
    low, high = both.min(axis=0), both.max(axis=0)
    low, high = low - 0.12 * (high - low), high + 0.05 * (high - low)
    ax.set(
        xlim=(low[0], high[0]), ylim=(low[1], high[1]), xlabel="first axis at the lowest noise", ylabel="second axis"
    )
    ax.text(0.02, 0.02, f"between classes: {features.separation[k]:.2f}", transform=ax.transAxes, fontsize="small")
