"""Training noise from repeated training: what the other routes are checked against. docs/theory.md section 5, 6."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from ...basics.checks import AT_ONCE, Array, array, integer, ndim, number, takes, vector
from ...basics.fields import holds
from ...basics.ledger import Ledger
from ...basics.progress import Progress, teller
from ...basics.user_code import told_in
from ...curves.error_law import ErrorLaw, TrainingErrors
from ...ingredients.training_run import TrainingRun
from ..denoisers.denoiser import Denoiser
from ..draws.data_fingerprint import data_fingerprint
from ..draws.statistics import Estimate
from ..draws.streams import batches as batches_of
from ..draws.streams import my_share, normal, seeded, sum_over_processes
from .served_examples import served_per_log_sigma

__all__ = ["ReplicatedRuns", "Replication", "replicated_runs", "run_seed"]

_LARGEST_COVARIANCE = 64


@dataclass(frozen=True, eq=False)
class ReplicatedRuns(TrainingErrors):
    """Errors that training leaves in the denoiser's output, from R runs that differ by their seed alone.

    Attributes:
        sigma: (M,) ascending noise levels.
        variance, variance_error: (M,) E|D - mean D|^2 over runs and inputs, squared data units.
        gram: (M, M) E<error at one level, error at another> for the same clean example and noise direction.
        correlation, correlation_error: (M, M) gram scaled to a unit diagonal.
        log_width, log_width_error: (M,) two-sided integral of the correlation over log sigma: the correlation
            length of docs/theory.md section 6, cut off at the ends of the levels.
        covariance: (M, d, d) of the output's error, averaged over inputs; None above 64 outputs.
        bias: (M,) squared distance of the mean output from the reference, less its own noise; None without.
        runs, inputs: how many.
        examples: that the weights of each run average over, as in `Replication`; None where that was not said.
    """

    sigma: Array
    variance: Array
    variance_error: Array
    gram: Array
    correlation: Array
    correlation_error: Array
    log_width: Array
    log_width_error: Array
    covariance: Array | None
    bias: Array | None
    runs: int
    inputs: int
    examples: Any = None

    def __post_init__(self) -> None:
        axes = dict.fromkeys(("sigma", "variance", "variance_error", "log_width", "log_width_error"), "level")
        axes |= dict.fromkeys(("gram", "correlation", "correlation_error"), "level level")
        holds(self, **axes, covariance=("level output output", None), bias=("level", None), runs=int, inputs=int)

    def law(self) -> ErrorLaw:
        """kappa1 = variance x examples, of runs whose weights are averages.

        Raises:
            ValueError: nothing says how many examples the runs saw.
        """
        if self.examples is None:
            raise ValueError(
                "ReplicatedRuns.examples is None, so that nothing says how many examples left this variance; give "
                "replicated_runs(replication=Replication(examples=…)): a number, one per level, or the co.TrainingRun "
                "of each run."
            )
        remedy = "more runs lower its standard error: replication=Replication(runs=...)"
        if not isinstance(self.examples, TrainingRun):
            found = self.reducible(self.examples)
            return ErrorLaw(self.sigma, found.value, found.standard_error, remedy=remedy)
        low, high = float(self.sigma[0]), float(self.sigma[-1])
        found = self.reducible(served_per_log_sigma(self.examples, None, self.sigma, low / 2, 2 * high))
        return ErrorLaw(self.sigma, found.value, found.standard_error, log_width=1.0, run=self.examples, remedy=remedy)

    def reducible(self, examples: ArrayLike) -> Estimate:
        """kappa1 = variance x m, of averaged weights after m examples (a number or one per level)."""
        told = [number(examples, "examples")] if ndim(examples) == 0 else examples
        m = vector(told, "examples", positive=True)
        if m.size == 1:  # of every level
            m = np.full(self.sigma.size, m[0])
        m = vector(m, "examples", length=self.sigma.size)
        return Estimate(self.variance * m, self.variance_error * m, self.runs)

    def step_noise(self, learning_rate: float, batch: int) -> Estimate:
        """kappa2 = variance x batch / learning rate, of last iterates after burn-in."""
        rate = number(learning_rate, "learning_rate", positive=True) / integer(batch, "batch", minimum=1)
        return Estimate(self.variance / rate, self.variance_error / rate, self.runs)


@dataclass(frozen=True)
class Replication:
    """How often training is repeated, and on how many inputs its results are compared.

    Args:
        runs: R, at least 3: leaving one out needs two others. Sixteen give a variance good to a third.
        inputs: clean examples per level, at least 2.
        examples: that the averaged weights of each run saw, which `estimate.network(training=...)` asks for: one
            number, one per level for levels trained alone, or the TrainingRun of each run, whose density says where.

    Raises:
        ValueError: a number out of range.

    >>> Replication(runs=32).inputs
    64
    """

    runs: int = 16
    inputs: int = 64
    examples: Any = None

    def __post_init__(self) -> None:
        hint = "Leaving one out needs two others."
        object.__setattr__(self, "runs", integer(self.runs, "Replication.runs", minimum=3, hint=hint))
        object.__setattr__(self, "inputs", integer(self.inputs, "Replication.inputs", minimum=2, maximum=AT_ONCE))
        if self.examples is not None and not isinstance(self.examples, TrainingRun):
            each = np.atleast_1d(array(self.examples, "Replication.examples"))
            object.__setattr__(self, "examples", vector(each, "Replication.examples", positive=True))


def run_seed(seed: int, run: int) -> int:
    """Seed of one run, below 2^31: what `train` is called with."""
    return int(seeded(seed, "run", run).initial_seed() % 2**31)


@takes(train=callable, replication=Replication)
def replicated_runs(
    train: Callable[[int], Any],
    data: Any,
    sigma: ArrayLike,
    *,
    replication: Replication | None = None,
    reference: Any = None,
    seed: int = 0,
    folder: str | Path | None = None,
    progress: Progress = None,
) -> ReplicatedRuns:
    """Train R times and compare the outputs at the same inputs, level by level and across levels.

    Inputs are x0 + sigma z with x0 and z shared by the levels, so that errors of different levels can be
    multiplied (docs/theory.md section 6). Standard errors of the variance: leave-one-run-out, and the spread
    over inputs. Every run's outputs are kept in `folder`: a stopped call goes on, and more runs can be added.

    Args:
        train: seed -> trained denoiser (x, sigma) -> x0; see `SGDPilot` for one of a given module.
        data: clean examples, from which the inputs are taken.
        sigma: (M,) ascending noise levels, data units.
        replication: how many runs R and inputs; 16 and 64 unless given.
        reference: a better denoiser, for the bias.
        seed: of the inputs and of the runs' seeds.
        folder: where the outputs of finished runs are kept.
        progress: True, False, None (in a terminal or notebook, after 2 s), or a function of (done, total, text).

    Raises:
        ValueError: an argument out of range, or a folder of another question.
        DenoiserError: a trained denoiser returns something that cannot be used, with the level.

    >>> data = torch.arange(100.0).view(50, 2)
    >>> four = Replication(runs=4)
    >>> found = replicated_runs(lambda s: lambda x, sigma: x * (1 + 0.1 * (s % 7)), data, [0.5, 1.0], replication=four)
    >>> found.correlation.round(2).tolist()  # every run's error is its factor times x, and sigma is small here
    [[1.0, 1.0], [1.0, 1.0]]
    """
    levels = vector(sigma, "sigma", positive=True, ascending=True)
    replication, tell = Replication() if replication is None else replication, teller(progress)
    count, examples = replication.runs, replication.examples
    if isinstance(examples, np.ndarray) and examples.size not in (1, levels.size):
        raise ValueError(f"Replication.examples has {examples.size} entries for {levels.size} noise levels.")
    clean = _clean(data, replication.inputs, seed)
    noise = normal(seed, "replicated_runs", "noise", shape=tuple(clean.shape), like=clean)
    # the number of runs is no part of the question: more of them can be added
    question = {"sigma": levels.tolist(), "inputs": list(clean.shape), "seed": seed}
    question |= {} if folder is None else {"data": data_fingerprint(data, clean[:1])}
    ledger = Ledger(folder, {"estimate": "replicated_runs", **question})
    outputs = np.zeros((count, levels.size, clean.shape[0], clean[0].numel()))
    for done, run in enumerate(my_share(count)):
        item = ledger.item(f"run-{run}", partial(_one_run, train, run_seed(seed, run), levels, clean, noise))
        outputs[run] = item["output"]
        tell("runs trained", done + 1, len(my_share(count)))
    outputs = sum_over_processes(torch.from_numpy(outputs)).numpy()
    target = None if reference is None else _outputs(reference, levels, clean, noise)
    return replace(_compare(levels, outputs, target), examples=examples)


def _one_run(
    train: Callable[[int], Any], seed: int, levels: Array, clean: torch.Tensor, noise: torch.Tensor
) -> dict[str, Array]:
    with told_in("train(seed)"):
        denoiser = train(seed)
    return {"output": _outputs(denoiser, levels, clean, noise)}


def _clean(data: Any, inputs: int, seed: int) -> torch.Tensor:
    """Clean examples of the inputs: random rows of an array, the first of a stream."""
    if isinstance(data, np.ndarray) or torch.is_tensor(data):
        whole = next(iter(batches_of(data, max(len(data) if data.ndim else 0, 1))))
        rows = torch.randperm(whole.shape[0], generator=seeded(seed, "replicated_runs", "inputs"))[:inputs]
        return whole[rows.to(whole.device)]
    parts: list[torch.Tensor] = []
    for part in batches_of(data):
        parts.append(part)
        if sum(p.shape[0] for p in parts) >= inputs:
            break
    return torch.cat(parts)[:inputs]


def _outputs(denoiser: Any, levels: Array, clean: torch.Tensor, noise: torch.Tensor) -> Array:
    """(M, inputs, d) outputs at every level."""
    checked = Denoiser.of(denoiser)
    parameter = next(iter(checked.function.parameters()), clean) if hasattr(checked.function, "parameters") else clean
    x0, z = (part.to(parameter.device, parameter.dtype) for part in (clean, noise))
    with torch.no_grad():
        found = [checked(x0 + float(s) * z, float(s)).flatten(1).to("cpu", torch.float64).numpy() for s in levels]
    return np.stack(found)


def _compare(levels: Array, outputs: Array, target: Array | None) -> ReplicatedRuns:
    runs, _, inputs, size = outputs.shape
    error = outputs - outputs.mean(axis=0)
    flat = error.reshape(runs, levels.size, inputs * size)
    single = flat @ np.swapaxes(flat, 1, 2) / inputs  # (R, M, M), one run's products
    gram = single.sum(axis=0) / (runs - 1)
    # leaving run r out moves the mean: sum of squares less R / (R - 1) e_r e_r^T
    left = (single.sum(axis=0) - runs / (runs - 1) * single) / (runs - 2)
    by_input = (error**2).sum(axis=(0, 3)) / (runs - 1)
    spread = np.var(by_input, axis=1, ddof=1) / inputs
    variance_error = np.sqrt(_jackknife(np.diagonal(left, axis1=1, axis2=2)) ** 2 + spread)
    correlation, others = _correlation(gram), np.array([_correlation(part) for part in left])
    weights = np.full(1, np.nan)  # one level says nothing of its neighbours
    if levels.size > 1:
        weights = np.gradient(np.log(levels))
        weights[[0, -1]] *= 0.5
    covariance = None
    if size <= _LARGEST_COVARIANCE:
        covariance = np.einsum("rmid,rmie->mde", error, error) / (inputs * (runs - 1))
    bias = None
    if target is not None:
        bias = ((outputs.mean(axis=0) - target) ** 2).sum(axis=2).mean(axis=1) - np.diag(gram) / runs
    return ReplicatedRuns(
        sigma=levels,
        variance=np.diag(gram).copy(),
        variance_error=variance_error,
        gram=gram,
        correlation=correlation,
        correlation_error=_jackknife(others),
        log_width=correlation @ weights,
        log_width_error=_jackknife(others @ weights),
        covariance=covariance,
        bias=bias,
        runs=runs,
        inputs=inputs,
    )


def _correlation(gram: Array) -> Array:
    scale = np.sqrt(np.maximum(np.diag(gram), 1e-300))
    return np.asarray(gram / np.outer(scale, scale))


def _jackknife(left: Array) -> Array:
    """Standard error from (R, ...) estimates that each leave one run out."""
    count = left.shape[0]
    return np.asarray(np.sqrt((count - 1) / count * ((left - left.mean(axis=0)) ** 2).sum(axis=0)))
