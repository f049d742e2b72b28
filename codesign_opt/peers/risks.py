"""Risks of the denoiser from losses and logs of any training, and what they say of a schedule.

gamma = 1/sigma^2 is the signal-to-noise ratio, mmse(gamma) the risk of the exact denoiser E[x0 | x], Prop and (n) the
propositions and equations of "Entropy-based dimension-free convergence and loss-adaptive schedules" (2026).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..basics.checks import AT_ONCE, Array, integer, matrix, noise_level, number, takes, vector
from ..basics.user_code import answer
from ..ingredients.parameterization import Parameterization
from ..ingredients.training_run import TrainingRun, read_log
from ..models.evidence import RiskCurve
from .paths.interval_cost import monotone

__all__ = [
    "discretization_error",
    "entropy_bound",
    "extended_risk",
    "frozen_denoiser_error",
    "mmse_slope",
    "mutual_information",
    "risk_from_log",
    "risk_from_losses",
]

Risk = Callable[[Array], Array]
_PIECES = 10_000  # of a step
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(24)


def risk_from_losses(
    sigma: Array,
    loss: Array,
    *,
    target: str = "edm",
    sigma_data: float = 0.5,
    dimensions: float = 1.0,
    standard_error: Array | None = None,
) -> RiskCurve:
    """Risk E |x0 - D|^2 from the plain loss E |F - target|^2 of any parameterisation: c_out(sigma)^2 loss.

    The network's error times c_out is the denoiser's (docs/theory.md section 5, table): gamma^-1 L for the noise
    ("eps", remark 6), L itself for "x0", (1 - alpha-bar) L for "v", EDM's L on F for "edm".

    Args:
        sigma: (L,) noise levels sigma_t / s_t in any order, data units.
        loss: (L,) unweighted mean squared error of the network's output.
        target: name of a `Parameterization`: "x0", "eps", "eps_vp", "v", "flow", "score", "edm".
        sigma_data: standard deviation of the data, for "edm".
        dimensions: 1 where the loss is summed over the dimensions; their number where it is their mean.
        standard_error: (L,) of the loss, or None.

    Raises:
        ValueError: sizes that differ, noise levels that repeat, an unknown target.

    >>> risk_from_losses(np.array([0.5, 2.0]), np.array([1.0, 0.25]), target="eps").risk.tolist()
    [0.25, 1.0]
    """
    level = vector(sigma, "sigma", positive=True, minimum_length=2)
    order = np.argsort(level)
    factor = Parameterization(target, sigma_data).c_out(level) ** 2 * number(dimensions, "dimensions", positive=True)
    risk = vector(loss, "loss", length=level.size, nonnegative=True) * factor
    error = None
    if standard_error is not None:
        error = (vector(standard_error, "standard_error", length=level.size, nonnegative=True) * factor)[order]
    return RiskCurve(level[order], risk[order], standard_error=error)


def risk_from_log(log: TrainingRun | str | Path, *, share: float = 0.5, bins: int = 40) -> RiskCurve:
    """Risk of the model at the end of a training, from the log of its losses |D - x0|^2.

    The last part of the log is averaged in bins of log sigma, each row by the examples that it averages, and made
    monotone in the noise level, as the risk of a good denoiser is.

    Args:
        log: a TrainingRun, or the path of a log with the columns examples, sigma, loss (`LevelStatistics.save`, the
            testbed's log, or one's own; see `TrainingRun`).
        share: part of the training that counts, from its end, in (0, 1]: windows by their end where the log has
            the column `end`, else rows.
        bins: of log sigma over the levels that occur; empty ones are left out.

    Returns:
        RiskCurve with standard errors, from the spread of a bin's rows; a bin of one row takes the largest.

    Raises:
        ValueError: an unreadable log, share outside (0, 1], fewer than two filled bins.

    >>> import codesign_opt as co, os, tempfile
    >>> stats = co.LevelStatistics([0.1, 1.0, 10.0])
    >>> stats.record(np.array([0.5, 0.5, 2.0]), np.array([0.1, 0.3, 0.7]))
    >>> path = os.path.join(tempfile.mkdtemp(), "log.csv")
    >>> stats.save(path)
    >>> risk_from_log(path).risk.round(12).tolist()
    [0.2, 0.7]
    """
    table = log.read_log() if isinstance(log, TrainingRun) else read_log(log, "log")
    part = number(share, "share", positive=True, maximum=1.0)
    size = table["sigma"].size
    if "end" in table:
        late = np.asarray(table["end"]) > (1 - part) * float(np.max(table["end"]))
    else:
        late = np.arange(size) >= int((1 - part) * size)
    late &= table["examples"] > 0
    if not late.any():
        raise ValueError(f"share is {part:g}, and no row of the log with examples is that late; two are needed.")
    logs, loss, weight = np.log(table["sigma"][late]), table["loss"][late], table["examples"][late]
    edges = np.linspace(logs.min(), logs.max(), integer(bins, "bins", minimum=2, maximum=AT_ONCE) + 1)
    of = np.clip(np.searchsorted(edges, logs, side="right") - 1, 0, edges.size - 2)
    mass, rows = np.bincount(of, weight, edges.size - 1), np.bincount(of, minlength=edges.size - 1)
    full = mass > 0
    if full.sum() < 2:
        raise ValueError(f"the log has {int(full.sum())} filled bins of log sigma; two at least are needed.")
    safe = np.where(full, mass, 1.0)
    mean, centre = np.bincount(of, weight * loss, mass.size) / safe, np.bincount(of, weight * logs, mass.size) / safe
    spread = np.bincount(of, (weight * (loss - mean[of])) ** 2, mass.size) / safe**2
    error = np.sqrt(spread * rows / np.maximum(rows - 1, 1))
    error[rows < 2] = error.max()
    risk = monotone(mean[full], np.asarray(mass[full], dtype=np.float64), decreasing=False)
    return RiskCurve(np.exp(centre[full]), risk, standard_error=error[full])


@takes(curve=RiskCurve)
def extended_risk(curve: RiskCurve, sigma_min: float, sigma_max: float) -> RiskCurve:
    """The curve continued to a wider range: like sigma^2 below its first level, constant above its last.

    What a trained model's log leaves out at the ends: at low noise the loss on the noise hardly changes, at high noise
    the risk is the variance of the data. It is a guess there; measure where it matters.

    Args:
        curve: known levels.
        sigma_min, sigma_max: range wanted; an end that the curve covers is left as it is.

    Raises:
        ValueError: a level that is not positive.

    >>> extended_risk(RiskCurve(np.array([1.0, 4.0]), np.array([0.5, 1.5])), 0.5, 8.0)(np.array([0.5, 8.0])).tolist()
    [0.125, 1.5]
    """
    low, high = noise_level(sigma_min, "sigma_min"), noise_level(sigma_max, "sigma_max")
    first, last = float(curve.sigma[0]), float(curve.sigma[-1])
    below = np.geomspace(low, first, 2 + int(20 * max(np.log(first / low), 0.0)))[:-1] if low < first else np.zeros(0)
    above = np.array([high]) if high > last else np.zeros(0)

    def along(values: Array | None) -> Array | None:
        if values is None:
            return None
        return np.concatenate([values[0] * (below / first) ** 2, values, np.full(above.size, values[-1])])

    risk = along(curve.risk)
    assert risk is not None
    sigma = np.concatenate([below, curve.sigma, above])
    return RiskCurve(sigma, risk, along(curve.standard_error), along(curve.floor))


@takes(mmse=callable)
def discretization_error(mmse: Risk, sigmas: Array, *, pieces: int = 8) -> float:
    """Path divergence of frozen steps with the exact denoiser: (1/2) sum_k int (mmse(gamma_k) - mmse(gamma)) dgamma.

    Prop 2, (4.1): the area between the risk and its stairs. It equals AYS's KLUB for the exact denoiser, and the
    divergence of the sampler DDIM with eta = 1 as a chain of its steps' divergences.

    Args:
        mmse: risk of the exact denoiser at noise levels, a RiskCurve or a function (L,) -> (L,).
        sigmas: (K+1,) descending noise levels; a last 0 is left out, its step is exact in this measure.
        pieces: parts of every step in log sigma, each with 24 Gauss-Legendre points.

    Returns:
        In nats, summed over dimensions.

    Raises:
        ValueError: levels that do not descend.

    >>> round(discretization_error(lambda s: s**2 / (1 + s**2), np.array([2.0, 1.0])), 6)
    0.064998
    """
    sigma = _positive(sigmas)
    gamma = sigma**-2.0
    stairs = float(np.diff(gamma) @ answer(mmse, sigma[:-1], "mmse"))
    return 0.5 * (stairs - 2 * mutual_information(mmse, sigma, pieces=pieces))


@takes(risk=callable)
def frozen_denoiser_error(risk: Risk, sigmas: Array, *, axis: Callable[[Array], Array] | None = None) -> float:
    """What the loss-adaptive schedule minimises: (1/2) sum_k (u_(k+1) - u_k) l(gamma_k), u = gamma unless given.

    Prop 4, (5.1): with u = gamma, less `mutual_information` of the exact risk between the ends, the path divergence
    of the sampler with this model, discretisation and approximation together.

    >>> frozen_denoiser_error(lambda s: s**2, np.array([1.0, 0.5, 0.0]))
    1.5
    """
    sigma = _positive(sigmas)
    u = sigma**-2.0 if axis is None else answer(axis, sigma**-2.0, "axis", what="gamma")
    return 0.5 * float(np.diff(u) @ answer(risk, sigma[:-1], "risk"))


@takes(mmse=callable)
def mutual_information(mmse: Risk, sigmas: Array, *, pieces: int = 8) -> float:
    """Information on x0 gained from the first to the last noise level, (1/2) int mmse dgamma, in nats.

    The I-MMSE identity of the Gaussian channel (Guo, Shamai and Verdu 2005). Arguments as in `discretization_error`.

    >>> exact = 0.5 * np.log(2 / 1.25)  # one Gaussian, gamma from 1/4 to 1
    >>> bool(abs(mutual_information(lambda s: s**2 / (1 + s**2), np.array([2.0, 1.0])) - exact) < 1e-15)
    True
    """
    logs = np.log(_positive(sigmas))
    parts = integer(pieces, "pieces", minimum=1, maximum=_PIECES)
    edges = np.interp(np.arange((logs.size - 1) * parts + 1) / parts, np.arange(logs.size), logs)
    half = -0.5 * np.diff(edges)[:, None]
    points = np.exp(0.5 * (edges[1:] + edges[:-1])[:, None] + half * _NODES)
    values = answer(mmse, points.ravel(), "mmse").reshape(points.shape)
    return float(np.sum(half * _WEIGHTS * values * points**-2.0))  # dgamma = -2 sigma^-2 dlog sigma


def mmse_slope(covariances: Array) -> tuple[float, float]:
    """Derivative of the risk by the signal-to-noise ratio, d mmse / d gamma = -E |Cov(x0 | x)|^2, with standard error.

    Frobenius norm; Prop 5, (C.2). For any denoiser that is exact, Cov(x0 | x) = sigma^2 dD/dx.

    Args:
        covariances: (N, d, d) of the posterior at N draws of x.

    >>> mmse_slope(np.array([[[0.5, 0.0], [0.0, 0.5]]] * 4))
    (-0.5, 0.0)
    """
    squares = (matrix(covariances, "covariances", shape=(None, None, None)) ** 2).sum(axis=(1, 2))
    if squares.size < 2:
        raise ValueError("covariances has 1 draw; at least 2 are needed for a standard error.")
    return -float(squares.mean()), float(squares.std(ddof=1) / np.sqrt(squares.size))


def entropy_bound(probabilities: Array, sigmas: Array) -> float:
    """Upper bound on `discretization_error` for discrete data by its entropy alone, whatever dimension and places.

    4 L^2 sum_k (gamma_(k+1)/gamma_k - 1)^2 with L = log(e + 1 + exp(H)/2), H = 2 log sum_i sqrt(p_i) the Renyi entropy
    of order 1/2. The paper's (4.5) has an unnamed constant and its remark 5 this entropy; the constant here follows
    from its proof: E exp(gamma R^2/8) <= 1 + exp(H)/2 for the distance R of x0 to a draw of its posterior, so
    E R^4 <= (8 L / gamma)^2, and -d mmse/d gamma <= E R^4 / 4. At given ends and number of steps it is least for equal
    steps of log-SNR, (4.6): `LogSNR`.

    Args:
        probabilities: (n,) of the data points, > 0; they are divided by their sum.
        sigmas: (K+1,) descending noise levels; a last 0 is left out.

    Returns:
        In nats.

    Raises:
        ValueError: a probability that is not positive, levels that do not descend.

    >>> round(entropy_bound(np.ones(2), np.array([2.0, 1.0])), 3)
    86.651
    """
    weight = vector(probabilities, "probabilities", positive=True)
    weight = weight / weight.sum()
    length = np.log(np.e + 1 + 0.5 * np.sqrt(weight).sum() ** 2)
    ratio = (_positive(sigmas)[:-1] / _positive(sigmas)[1:]) ** 2
    return float(4 * length**2 * ((ratio - 1) ** 2).sum())


def _positive(sigmas: Array) -> Array:
    levels = vector(sigmas, "sigmas", nonnegative=True)
    if levels.size > 1 and levels[-1] == 0:
        levels = levels[:-1]
    return vector(levels, "sigmas", positive=True, descending=True)
