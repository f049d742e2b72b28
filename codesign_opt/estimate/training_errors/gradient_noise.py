"""Training noise from gradients: their covariance and the curvature, level by level. docs/theory.md section 5."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from ...basics.checks import AT_ONCE, Array, integer, noise_levels, number, scale_of, takes
from ...basics.fields import holds
from ...basics.ledger import Ledger
from ...basics.user_code import answer
from ...curves.error_law import ErrorLaw, TrainingErrors
from ..draws.data_fingerprint import data_fingerprint, digest_of
from ..draws.streams import batches as batches_of
from ..draws.streams import check_dense, my_share, rademacher, seeded, sum_over_processes, tensor_of
from .per_sample import PerSampleGradients

__all__ = [
    "GradientNoise",
    "GradientSampling",
    "averaged_covariance",
    "clean_examples",
    "gradient_noise",
    "lyapunov",
]

_EXACT_OUTPUTS = 16  # up to this many outputs the Jacobian is computed in full
_PROBES = 4  # above: their noise in H averages over the examples, of which there are some thousands
_ZERO = 1e-12  # of the largest eigenvalue: less is the rounding of sums of squares, not curvature


@dataclass(frozen=True)
class GradientSampling:
    """What gradients are sampled on: examples per level, directions of the parameters, probes of the output.

    Args:
        batch, batches: examples per level = batch x batches; batches, at least 2, make the errors (leaving one out
            at a time), and 32 of them give errors good to an eighth.
        directions: random directions P kept of the parameters, each parameter counted into one of them; all of the
            parameters where there are no more.
        ridge: directions of smaller curvature are left out, softly; beta / (tau m) are those that m examples
            do not reach.
        probes: random output directions per example for H; None: all outputs up to 16, else 4.
        at_once: examples processed together, at most; memory.

    Raises:
        ValueError: a number out of range.

    >>> GradientSampling(batch=10, batches=5).directions
    512
    """

    batch: int = 64
    batches: int = 32
    directions: int = 512
    ridge: float = 0.0
    probes: int | None = None
    at_once: int = 256

    def __post_init__(self) -> None:
        put, name = object.__setattr__, "GradientSampling"
        for field, least in (("batch", 1), ("batches", 2), ("directions", 1), ("at_once", 1)):
            put(self, field, integer(getattr(self, field), f"{name}.{field}", minimum=least))
        put(self, "ridge", number(self.ridge, f"{name}.ridge", nonnegative=True))
        if self.probes is not None:
            put(self, "probes", integer(self.probes, f"{name}.probes", minimum=1, maximum=AT_ONCE))


@dataclass(frozen=True, eq=False)
class GradientNoise(TrainingErrors):
    """E|D_theta - D*|^2 = kappa1 / m (averaged) and kappa2 tau / beta (last iterate), from gradients.

    Attributes:
        sigma: (M,) noise levels.
        reducible, reducible_error: (M,) kappa1 = tr(F H^-1 Sigma H^-1), squared data units times examples.
        step_noise, step_noise_error: (M,) kappa2 = tr(F Pi), H Pi + Pi H = Sigma.
        loss, loss_error: (M,) |D - x0|^2 at the weights given.
        effective_dimension: (M,) tr(H (H + ridge)^-1), the directions that count.
        curvature, covariance: (M, P, P) H and Sigma in the P directions.
        parameters: how many the module has.
        notes: what was assumed.
    """

    sigma: Array
    reducible: Array
    reducible_error: Array
    step_noise: Array
    step_noise_error: Array
    loss: Array
    loss_error: Array
    effective_dimension: Array
    curvature: Array
    covariance: Array
    parameters: int
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        fields = ("sigma", "reducible", "reducible_error", "step_noise", "step_noise_error", "loss", "loss_error",
                  "effective_dimension")  # fmt: skip
        square = "level direction direction"
        holds(self, **dict.fromkeys(fields, "level"), curvature=square, covariance=square, parameters=int, notes=tuple)

    def law(self) -> ErrorLaw:
        """kappa1 and kappa2 of levels trained alone: m counts a level's own examples."""
        order = np.argsort(self.sigma)
        return ErrorLaw(
            self.sigma[order],
            self.reducible[order],
            self.reducible_error[order],
            self.step_noise[order],
            notes=self.notes,
            remedy="more batches lower its standard error: sampling=GradientSampling(batches=...)",
        )


def lyapunov(curvature: Array, noise: Array) -> Array:
    """Pi with H Pi + Pi H = C, for symmetric H; 0 where H has no curvature.

    The covariance of SGD's last iterate is this with C = tau Sigma / beta, for small steps (docs/theory.md
    section 5).

    >>> lyapunov(np.diag([1.0, 4.0]), np.eye(2)).round(3)
    array([[0.5  , 0.   ],
           [0.   , 0.125]])
    """
    # in the eigenvectors of H the equation is (h_i + h_j) Pi_ij = C_ij
    values, vectors = np.linalg.eigh(curvature)
    kept = values > _ZERO * max(float(values[-1]), 0.0)
    sums = values[:, None] + values
    solved = np.where(kept[:, None] & kept, vectors.T @ noise @ vectors / np.where(sums > 0, sums, 1.0), 0.0)
    return np.asarray(vectors @ solved @ vectors.T)


def averaged_covariance(curvature: Array, noise: Array, ridge: float = 0.0) -> Array:
    """H^-1 Sigma H^-1, the covariance of averaged weights times m: with H + ridge in place of H, pseudo-inverse.

    docs/theory.md section 5.

    >>> averaged_covariance(np.diag([2.0, 0.0]), np.eye(2))
    array([[0.25, 0.  ],
           [0.  , 0.  ]])
    """
    values, vectors = np.linalg.eigh(curvature)
    kept = values > _ZERO * max(float(values[-1]), 0.0)
    # a direction without curvature moves no output: whatever its weights do, it is no error
    inverse = (vectors * np.where(kept, 1 / np.where(kept, values + ridge, 1.0), 0.0)) @ vectors.T
    return np.asarray(inverse @ noise @ inverse)


@takes(sampling=GradientSampling)
def gradient_noise(
    denoiser: Any,
    data: Any,
    sigma: ArrayLike,
    *,
    module: torch.nn.Module | None = None,
    weight: Callable[[Array], Any] | float | None = None,
    sampling: GradientSampling | None = None,
    seed: int = 0,
    folder: str | Path | None = None,
) -> GradientNoise:
    """Training noise of each level trained alone, from the gradients of the loss omega |D - x0|^2 / 2 there.

    Sigma is the covariance of single examples' gradients, H = omega E[J^T J] the Gauss-Newton curvature, F =
    E[J^T J] what turns weights into outputs; the weights' covariances H^-1 Sigma H^-1 / m and Pi tau / beta
    become kappa1 / m and kappa2 tau / beta (docs/theory.md section 5). kappa2 = tr(Sigma) / (2 omega) needs
    no inverse and is taken in the full space. Above `sampling.directions` parameters the rest is done in random
    directions, each parameter counted into one of them with a random sign. Standard errors, and the removal
    of the bias that inverting a sampled H brings, by leaving out one batch at a time.

    Limits: a small step (a finite one adds multiplicative noise, `ConstantStepSGD` has it for Gaussian
    inputs), weights near the optimum of this level, no momentum; the data stand for
    their distribution (what N images leave is not in the errors). Levels that share weights disturb each other
    beyond this: `replicated_runs` measures that.

    Args:
        denoiser: nn.Module (x, sigma) -> x0, or a callable around `module`.
        data: clean examples: tensor, array, Dataset, DataLoader, or iterable of batches.
        sigma: (M,) noise levels, data units.
        module: whose parameters are trained, where `denoiser` is not it.
        weight: omega(sigma), a function or a number; None: 1.
        sampling: examples, directions and probes.
        seed: of all draws.
        folder: where finished levels are kept; a killed call goes on there, and levels can be added.

    Returns:
        GradientNoise.

    Raises:
        ValueError: an argument out of range; a folder of another question; a denoiser without parameters that need
            gradients.
        DenoiserError: the denoiser returns something that cannot be used, with the level.

    >>> module = torch.nn.Linear(1, 1, bias=False)
    >>> with torch.no_grad():
    ...     _ = module.weight.fill_(0.5)
    >>> found = gradient_noise(lambda x, sigma: module(x), torch.randn(20_000, 1), [1.0], module=module)
    >>> bool(abs(found.reducible[0] - 0.5) < 4 * found.reducible_error[0])  # lambda sigma^2 / v
    True
    """
    levels = noise_levels(sigma, "sigma")
    sampling = GradientSampling() if sampling is None else sampling
    model = PerSampleGradients(denoiser, module, sampling.directions, seed, sampling.at_once)
    source = clean_examples(data, sampling.batch * sampling.batches)
    question = _question(model, sampling, seed)
    question |= {} if folder is None else {"data": data_fingerprint(source, source[:1])}
    ledger = Ledger(folder, question)
    items, notes = [], model.notes
    for level in levels:
        told = answer(weight, level, "weight") if callable(weight) else 1.0 if weight is None else weight
        omega = scale_of(told, "weight")
        draw = _Draws(source, float(level), sampling.batch, seed)
        # levels and weight in the item's name, not in the question: others may be added to the folder
        compute = partial(_one_level, model, draw, omega, sampling)
        items.append(ledger.item(f"level-{level:.8g}-weight-{omega:.8g}", compute))
        if model.sketched and items[-1]["effective_dimension"] > 0.5 * model.size:
            notes.append(
                f"sigma = {level:.3g}: {items[-1]['effective_dimension']:.0f} of {model.size} random directions count; "
                "kappa1 is that of a model with these directions only, a lower bound. Raise directions, or give ridge."
            )
    stacked = {name: np.array([item[name] for item in items]) for name in items[0]}
    return GradientNoise(levels, **stacked, parameters=model.parameters, notes=tuple(dict.fromkeys(notes)))


def _question(model: PerSampleGradients, sampling: GradientSampling, seed: int) -> dict[str, Any]:
    """What finished levels depend on, the weights by a digest; not how many examples are at once."""
    kept = {name: value for name, value in asdict(sampling).items() if name != "at_once"}
    return {"estimate": "gradient_noise", "seed": seed, "weights": digest_of(list(model.named.values())), **kept}


def clean_examples(data: Any, count: int) -> torch.Tensor:
    """Clean examples to draw from: all of an array, the first of a stream."""
    if isinstance(data, np.ndarray) or torch.is_tensor(data):
        check_dense(data)
        whole = tensor_of(data)
        if whole.ndim < 2:
            raise ValueError(f"data has shape {tuple(whole.shape)}; (examples, …) is needed.")
        next(iter(batches_of(whole, whole.shape[0] or 1)))  # checks form and finiteness
        return whole if whole.is_floating_point() else whole.to(torch.float32)
    parts, have = [], 0
    for part in batches_of(data):
        parts.append(part)
        have += part.shape[0]
        if have >= count:
            break
    return torch.cat(parts)


@dataclass(frozen=True, eq=False)
class _Draws:
    """Noised examples of one level; every batch has its own generator."""

    data: torch.Tensor
    sigma: float
    batch: int
    seed: int

    def batches(self, which: Sequence[int], like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Clean and noised examples of several batches, one after the other."""
        clean, noised = [], []
        for index in which:
            generator = seeded(self.seed, "gradient_noise", f"{self.sigma:.8g}", index)
            rows = torch.randint(0, self.data.shape[0], (self.batch,), generator=generator)
            x0 = self.data[rows.to(self.data.device)].to(like.device, like.dtype)
            noise = torch.randn(x0.shape, generator=generator, dtype=torch.float64)
            clean.append(x0)
            noised.append(x0 + self.sigma * noise.to(like.device, like.dtype))
        return torch.cat(clean), torch.cat(noised)


def _one_level(model: PerSampleGradients, draw: _Draws, omega: float, sampling: GradientSampling) -> dict[str, Any]:
    return _estimates(_statistics(model, draw, omega, sampling), omega, sampling.ridge)


def _statistics(model: PerSampleGradients, draw: _Draws, omega: float, sampling: GradientSampling) -> dict[str, Array]:
    """Per batch: mean gradient, second moment, curvature, squared norm and loss; a share per process, then summed."""
    size, count = model.size, sampling.batches
    shapes = {"mean": (count, size), "second": (count, size, size), "curvature": (count, size, size)}
    found = {name: np.zeros(shape) for name, shape in shapes.items()} | {
        name: np.zeros(count) for name in ("norm", "loss")
    }
    mine = list(my_share(count))
    training = model.module.training
    model.module.eval()  # dropout or batch statistics would be one more noise in the gradients
    try:
        group = max(1, model.at_once // draw.batch)  # small batches share a call of the network
        for start in range(0, len(mine), group):
            _add_batches(model, draw, omega, mine[start : start + group], sampling.probes, found)
    finally:
        model.module.train(training)
    return {name: sum_over_processes(torch.as_tensor(value)).numpy() for name, value in found.items()}


def _add_batches(
    model: PerSampleGradients, draw: _Draws, omega: float, which: list[int], probes: int | None, found: dict[str, Array]
) -> None:
    clean, x = draw.batches(which, model.like)
    with torch.no_grad():
        out = model.checked(x, draw.sigma)
        found["loss"][which] = ((out - clean) ** 2).flatten(1).sum(1).reshape(len(which), -1).mean(1).cpu().numpy()
    # squared norms come from all parameters: tr(Sigma), and with it kappa2, is not that of the directions kept
    rows, norms = model.rows(x, draw.sigma, clean, "loss")
    found["norm"][which] = omega**2 * norms.reshape(len(which), -1).mean(1)
    small = omega * rows.reshape(len(which), draw.batch, model.size)
    found["mean"][which] = small.mean(axis=1)
    found["second"][which] = np.swapaxes(small, 1, 2) @ small / draw.batch
    # J^T u for directions u of the output: sum over u of (J^T u)(J^T u)^T is J^T J, exactly or in expectation
    for output in _probes(clean, draw, which, probes):
        rows = model.rows(x, draw.sigma, output, "probe")[0].reshape(len(which), draw.batch, model.size)
        found["curvature"][which] += omega * np.swapaxes(rows, 1, 2) @ rows / draw.batch


def _probes(clean: torch.Tensor, draw: _Draws, which: list[int], probes: int | None) -> Any:
    """Output directions u with E[sum u u^T] = 1: all unit vectors, or random signs."""
    outputs = clean[0].numel()
    if probes is None and outputs <= _EXACT_OUTPUTS:
        for i in range(outputs):
            unit = torch.zeros_like(clean).flatten(1)
            unit[:, i] = 1.0
            yield unit.reshape(clean.shape)
        return
    number_of = _PROBES if probes is None else probes
    shape = (draw.batch, *clean.shape[1:])
    # every batch has its own signs, by its number: any share of the batches gives the same numbers
    for i in range(number_of):
        names = [("probe", f"{draw.sigma:.8g}", index, i) for index in which]
        yield torch.cat([rademacher(draw.seed, *n, shape=shape, like=clean) for n in names]) / number_of**0.5


def _estimates(found: dict[str, Array], omega: float, ridge: float) -> dict[str, Any]:
    """Noise of one level with standard errors: all batches, and each left out in turn."""
    # the unit is a batch: its examples share a draw of the clean rows, and batches are independent
    count = found["norm"].size
    sums = {name: value.sum(axis=0) for name, value in found.items()}
    whole = _noise(sums, found["mean"], count, omega, ridge)
    left = np.array([
        _noise({n: sums[n] - found[n][b] for n in sums}, np.delete(found["mean"], b, 0), count - 1, omega, ridge)
        for b in range(count)
    ])  # fmt: skip
    error = np.sqrt((count - 1) / count * ((left - left.mean(axis=0)) ** 2).sum(axis=0))
    value = count * np.array(whole) - (count - 1) * left.mean(axis=0)  # the jackknife's removal of bias
    curvature = sums["curvature"] / count
    eigenvalues = np.maximum(np.linalg.eigvalsh(curvature), 0.0)
    kept = eigenvalues > _ZERO * eigenvalues[-1]
    mean = sums["mean"] / count
    return {
        "reducible": max(float(value[0]), 0.0),  # the corrected value may fall below 0 by its noise
        "reducible_error": float(error[0]),
        "step_noise": max(float(value[1]), 0.0),
        "step_noise_error": float(error[1]),
        "loss": sums["loss"] / count,
        "loss_error": float(np.std(found["loss"], ddof=1) / np.sqrt(count)),
        "effective_dimension": float(np.sum(eigenvalues[kept] / (eigenvalues[kept] + ridge))),
        "curvature": curvature,
        "covariance": sums["second"] / count - np.outer(mean, mean),
    }


def _noise(sums: dict[str, Array], means: Array, count: int, omega: float, ridge: float) -> tuple[float, float]:
    """kappa1 and kappa2 of some batches."""
    total = means.sum(axis=0)
    # squared mean gradient without its own noise: products of different batches
    square = float(total @ total - np.sum(means**2)) / (count * (count - 1)) if count > 1 else 0.0
    curvature, mean = sums["curvature"] / count, total / count
    noise = sums["second"] / count - np.outer(mean, mean)
    # omega cancels from H^-1 Sigma H^-1; the error is counted without it, by F = H / omega
    averaged = averaged_covariance(curvature, noise, ridge)
    # the trace of H Pi + Pi H = Sigma: 2 tr(H Pi) = tr(Sigma), whatever H is
    return float(np.sum(curvature * averaged)) / omega, (float(sums["norm"]) / count - square) / (2 * omega)
