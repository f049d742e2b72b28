"""What a network can learn at each noise level: signal and noise in its gradients and targets, and its features.

The analysis of arXiv:2605.10790 (representation degradation): sections 3.3 and appendix F, on any denoiser of this
library. It needs the Bayes denoiser E[x0|x], exact on a testbed, or a longer-trained network in its place.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ...basics.checks import AT_ONCE, Array, entries, integer, noise_level, noise_levels, numbers, shown, takes, vector
from ...basics.user_code import told_in
from ...ingredients.parameterization import amplitudes, target_coefficients, target_name
from ...ingredients.process import Process
from ..denoisers.denoiser import Denoise
from ..draws.precision import asked, full
from ..draws.statistics import Estimate, Moments
from ..draws.streams import normal
from ..training_errors.gradient_noise import clean_examples
from ..training_errors.per_sample import PerSampleGradients

__all__ = [
    "FeatureCollapse",
    "GradientDecomposition",
    "PhaseSpace",
    "feature_collapse",
    "gradient_decomposition",
    "phase_space",
]

_BATCH = 1_000


@dataclass(frozen=True, eq=False)
class GradientDecomposition:
    """Gradient of one example's loss |D - x0|^2 / 2 as signal J^T (D - E[x0|x]) plus noise J^T (E[x0|x] - x0).

    Proposition 3.7 of arXiv:2605.10790, in all parameters. A weight on the loss multiplies both parts, so that their
    ratio is the level's own.

    Attributes:
        sigma: (L,) noise levels.
        signal, noise, whole: Estimate (L,) of the mean squared lengths of the parts and of their sum.
        cross: Estimate (L,) of the parts' inner product; 0 in expectation for the exact E[x0|x], whole = signal +
            noise + 2 cross example by example.
        excess, floor: Estimate (L,) of |D - E[x0|x]|^2 and |E[x0|x] - x0|^2, the same of the outputs.
    """

    sigma: Array
    signal: Estimate
    noise: Estimate
    cross: Estimate
    whole: Estimate
    excess: Estimate
    floor: Estimate

    @property
    def contamination(self) -> Array:
        """(L,) noise / (signal + noise), the share of an example's squared gradient that teaches nothing."""
        return np.asarray(self.noise.value / (self.signal.value + self.noise.value))

    def __repr__(self) -> str:
        shares = ", ".join(f"{share:.3f}" for share in self.contamination)
        return f"GradientDecomposition({self.sigma.size} levels, contamination {shares})"


@takes(bayes=callable)
def gradient_decomposition(
    denoiser: Denoise,
    bayes: Callable[[Tensor, Tensor], Tensor],
    data: Any,
    sigma: ArrayLike,
    *,
    module: torch.nn.Module | None = None,
    examples: int = 256,
    directions: int = 100_000,
    seed: int = 0,
) -> GradientDecomposition:
    """Signal and noise in the gradients of single examples, level by level.

    Args:
        denoiser: nn.Module (x, sigma) -> x0, or a callable around `module`; a copy is used.
        bayes: E[x0|x], a function (x, sigma).
        data: clean examples (N, *shape), drawn from in order.
        sigma: (L,) ascending noise levels.
        module: whose parameters are meant, where `denoiser` is not it.
        examples: per level.
        directions: above that many parameters, inner products are taken in as many random directions of them.
        seed: of the noise.

    Raises:
        ValueError: levels that are not positive and ascending, too few examples.

    >>> class Net(torch.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.linear = torch.nn.Linear(2, 2, bias=False, dtype=torch.float64)
    ...     def forward(self, x, sigma):
    ...         return self.linear(x)
    >>> exact = lambda x, sigma: x / (1 + sigma[:, None] ** 2)
    >>> data = torch.randn(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    >>> gradient_decomposition(Net(), exact, data, [1.0], examples=50).sigma.tolist()
    [1.0]
    """
    levels = vector(noise_levels(sigma, "gradient_decomposition.sigma"), "gradient_decomposition.sigma", ascending=True)
    count = integer(examples, "gradient_decomposition.examples", minimum=2, maximum=AT_ONCE)
    clean = _first(data, count, "gradient_decomposition")
    function, inner = _trainable(denoiser, module)
    gradients = PerSampleGradients(function, inner, directions, seed)
    clean = clean.to(gradients.like.device, gradients.like.dtype)
    moments: dict[str, list[Moments]] = {name: [] for name in ("signal", "noise", "cross", "whole", "excess", "floor")}
    for index, level in enumerate(levels):
        x = clean + level * normal(seed, "decomposition", index, shape=tuple(clean.shape), like=clean)
        at = torch.full((count,), float(level), dtype=x.dtype, device=x.device)
        with torch.no_grad():
            best, out = _exact(bayes, x, at).to(x), function(x, at)
        signal, signal_squares = gradients.rows(x, float(level), best, "loss")
        noise, noise_squares = gradients.rows(x, float(level), best - clean, "probe")
        cross = (signal * noise).sum(axis=1)
        parts = {"signal": signal_squares, "noise": noise_squares, "cross": cross}
        parts["whole"] = signal_squares + noise_squares + 2 * cross
        parts["excess"] = (out - best).flatten(1).double().square().sum(1).cpu().numpy()
        parts["floor"] = (best - clean).flatten(1).double().square().sum(1).cpu().numpy()
        for name, values in parts.items():
            moments[name].append(Moments(()))
            moments[name][-1].add(values)
    return GradientDecomposition(levels, **{name: _gathered(rows) for name, rows in moments.items()})


@dataclass(frozen=True, eq=False)
class PhaseSpace:
    """Recoverable and irreducible part of prediction targets at each noise level: figures 3 and 8 of arXiv:2605.10790.

    Attributes:
        sigma: (L,) noise levels.
        signal, noise: by target, Estimate (L,) of E|E[y|x]|^2 and E|y - E[y|x]|^2, summed over dimensions; they add up
            to E|y|^2 for the exact E[x0|x]. Their roots are the coordinates of the phase space.
    """

    sigma: Array
    signal: Mapping[str, Estimate]
    noise: Mapping[str, Estimate]

    def contamination(self, target: str) -> Array:
        """(L,) noise / (signal + noise) of a target; above 1/2 the noise dominates."""
        noise, signal = self.noise[target].value, self.signal[target].value
        return np.asarray(noise / (signal + noise))


@takes(bayes=callable, process=Process)
def phase_space(
    bayes: Callable[[Tensor, Tensor], Tensor],
    data: Any,
    sigma: ArrayLike,
    *,
    targets: Sequence[str] = ("eps", "x0", "v", "flow"),
    process: Process | None = None,
    examples: int = 4_000,
    sigma_data: float = 0.5,
    seed: int = 0,
) -> PhaseSpace:
    """Mean squares of the recoverable target E[y|x] and of the rest, for several targets from one denoiser.

    Args:
        bayes: E[x0|x], a function (x, sigma) on x = x0 + sigma z.
        data: clean examples (N, *shape).
        sigma: (L,) ascending noise levels.
        targets: of `codesign_opt.peers.TARGETS`.
        process: schedule of the targets; unless given the path of each, variance preserving for eps and x0.
        examples: per level.
        sigma_data: of "edm".
        seed: of the noise.

    >>> exact = lambda x, sigma: x / (1 + sigma[:, None] ** 2)
    >>> data = torch.randn(4_000, 2, generator=torch.Generator().manual_seed(0))
    >>> phase_space(exact, data, [1.0], targets=["x0"]).contamination("x0").round(1).tolist()
    [0.5]
    """
    levels = vector(noise_levels(sigma, "phase_space.sigma"), "phase_space.sigma", ascending=True)
    names = [target_name(target, "phase_space.targets") for target in entries(targets, "phase_space.targets")]
    sigma_data = noise_level(sigma_data, "phase_space.sigma_data")
    clean = _first(data, integer(examples, "phase_space.examples", minimum=2, maximum=AT_ONCE), "phase_space")
    signal: dict[str, list[Moments]] = {name: [] for name in names}
    noise: dict[str, list[Moments]] = {name: [] for name in names}
    for index, level in enumerate(levels):
        for name in names:
            signal[name].append(Moments(()))
            noise[name].append(Moments(()))
        for part, chunk in enumerate(clean.split(_BATCH)):
            z = normal(seed, "phase space", index, part, shape=tuple(chunk.shape), like=chunk)
            x = chunk + float(level) * z
            with torch.no_grad():
                best = _exact(bayes, x, torch.full((len(x),), float(level), dtype=x.dtype, device=x.device))
            for name in names:
                alpha, amplitude = amplitudes([level], "v" if name in ("eps", "x0") else name, process)
                row = target_coefficients(name, alpha, amplitude, sigma_data=sigma_data)
                c_x, c_eps = (float(value[0]) for value in row)
                estimate = c_x * best + c_eps * (x - best) / float(level)
                rest = c_x * chunk + c_eps * z - estimate
                signal[name][-1].add(estimate.flatten(1).double().square().sum(1))
                noise[name][-1].add(rest.flatten(1).double().square().sum(1))
    return PhaseSpace(
        levels,
        {name: _gathered(rows) for name, rows in signal.items()},
        {name: _gathered(rows) for name, rows in noise.items()},
    )


@dataclass(frozen=True, eq=False)
class FeatureCollapse:
    """Hidden features at every noise level in the principal axes fitted at the lowest: appendix F.3.

    Attributes:
        sigma: (L,) noise levels.
        projections: (L, N, k) features minus the lowest level's mean, on its first k principal axes.
        spread: (L,) variance of the features over the examples, all axes, relative to the lowest level's.
        captured: (L,) share of a level's variance that lies in the k axes.
        separation: (L,) share of the variance within the k axes that lies between the labels' means; NaN without
            labels.
        labels: (N,) or None.
    """

    sigma: Array
    projections: Array
    spread: Array
    captured: Array
    separation: Array
    labels: Any


@takes(denoiser=torch.nn.Module, layer=torch.nn.Module)
def feature_collapse(
    denoiser: torch.nn.Module,
    layer: torch.nn.Module,
    data: Any,
    sigma: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    components: int = 2,
    examples: int = 512,
    seed: int = 0,
) -> FeatureCollapse:
    """Features that enter a layer, at every noise level, in the principal axes of the lowest noise level.

    The same examples and noise directions serve all levels. Feature maps are averaged over their pixels.

    Args:
        denoiser: module (x, sigma) -> x0.
        layer: a module inside it, such as the readout; its input (N, F) or (N, F, height, width) is taken.
        data: clean examples (N, *shape).
        sigma: (L,) ascending noise levels; the axes are fitted at the first.
        labels: (N,) of the examples, for `separation`.
        components: k.
        examples: how many.
        seed: of the noise.

    Raises:
        ValueError: a layer that the denoiser does not call, fewer features or examples than components.
    """
    levels = vector(noise_levels(sigma, "feature_collapse.sigma"), "feature_collapse.sigma", ascending=True)
    count, k = (
        integer(examples, "feature_collapse.examples", minimum=3, maximum=AT_ONCE),
        integer(components, "components", minimum=1),
    )
    known = None if labels is None else _labels(labels, count)
    clean = _first(data, count, "feature_collapse")
    like = full(next(denoiser.parameters()))
    clean = clean.to(like.device, like.dtype)
    z = normal(seed, "features", shape=tuple(clean.shape), like=clean)
    found = [_features(denoiser, layer, clean + float(level) * z, float(level)) for level in levels]
    centre = found[0].mean(axis=0)
    _, _, axes = np.linalg.svd(found[0] - centre, full_matrices=False)
    if len(axes) < k:
        raise ValueError(f"feature_collapse: {k} components are asked for, but there are {len(axes)} axes.")
    projections = np.stack([(rows - centre) @ axes[:k].T for rows in found])
    total = np.array([rows.var(axis=0).sum() for rows in found])
    inside = projections.var(axis=1).sum(axis=1)
    separation = np.full(levels.size, np.nan)
    if known is not None:
        separation = np.array([_between(rows, known) for rows in projections])
    return FeatureCollapse(levels, projections, total / total[0], inside / total, separation, known)


def _features(denoiser: torch.nn.Module, layer: torch.nn.Module, x: Tensor, level: float) -> Array:
    """(N, F) what enters the layer."""
    caught: list[Tensor] = []
    handle = layer.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0].detach()))
    try:
        with torch.no_grad():
            for chunk in x.split(_BATCH):
                asked(denoiser, chunk, torch.full((len(chunk),), level, dtype=x.dtype, device=x.device))
    finally:
        handle.remove()
    if not caught:
        raise ValueError("feature_collapse.layer is not called by the denoiser; give a module inside it.")
    if caught[0].ndim < 2:
        raise ValueError("feature_collapse.layer takes no tensor (N, F, ...) of the examples; give another module.")
    rows = torch.cat(caught)
    rows = rows.flatten(2).mean(2) if rows.ndim > 2 else rows
    return np.asarray(rows.cpu().double().numpy())


def _labels(labels: Any, count: int) -> Any:
    """(N,) of the examples that are taken."""
    if torch.is_tensor(labels):
        numbers(labels, "feature_collapse.labels")  # refuses what has none: sparse tensors, those on "meta"
        labels = labels.detach().tolist()
    found = entries(labels, "feature_collapse.labels", most=AT_ONCE)[:count]
    if len(found) < count or not all(isinstance(one, (str, int, float, np.generic)) for one in found):
        raise ValueError(
            f"feature_collapse.labels is {shown(labels)}; a number or a word for each of {count} examples is needed."
        )
    return np.array(found)


def _exact(bayes: Callable[[Tensor, Tensor], Tensor], x: Tensor, sigma: Tensor) -> Tensor:
    """What the user's E[x0|x] says: a tensor of the states' shape."""
    with told_in("bayes(x, sigma)"):
        found = bayes(x, sigma)
    if not torch.is_tensor(found) or found.shape != x.shape:
        raise ValueError(f"bayes(x, sigma) returned {shown(found)}; a tensor of the states' shape is needed.")
    if not found.is_floating_point() or not bool(torch.isfinite(found).all()):
        raise ValueError("bayes(x, sigma) returned entries that are no finite numbers.")
    return found


def _between(rows: Array, labels: Any) -> float:
    """Share of the variance that lies between the labels' means."""
    total = float(((rows - rows.mean(axis=0)) ** 2).sum())
    means = np.stack([rows[labels == label].mean(axis=0) for label in labels])
    return float(((means - rows.mean(axis=0)) ** 2).sum()) / total


def _trainable(denoiser: Denoise, module: torch.nn.Module | None) -> tuple[Any, torch.nn.Module | None]:
    """A copy whose parameters take gradients, where the denoiser is a module; what was given otherwise."""
    if module is not None or not isinstance(denoiser, torch.nn.Module):
        return denoiser, module
    return copy.deepcopy(denoiser).eval().requires_grad_(True), None


def _first(data: Any, count: int, name: str) -> Tensor:
    clean = clean_examples(data, count)
    if len(clean) < count:
        raise ValueError(f"{name}: data has {len(clean)} examples; {count} are asked for (examples=…).")
    return clean[:count]


def _gathered(rows: list[Moments]) -> Estimate:
    parts = [row.estimate() for row in rows]
    value, error = (np.array([float(getattr(part, name)) for part in parts]) for name in ("value", "standard_error"))
    return Estimate(value, error, parts[0].count)
