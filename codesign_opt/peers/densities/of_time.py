"""Training densities made of steps: even in a process's time, SpeeD's, and IDDPM's resampler on levels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...basics.checks import AT_ONCE, Array, boolean, integer, number, shown, vector
from ...basics.user_code import answer
from ...ingredients.densities import SigmaDensity
from ...ingredients.levels import Levels
from ...ingredients.process import VP, Process
from ...ingredients.training_run import read_log

__all__ = ["OnLevels", "TimeStairs", "loss_second_moment", "speed_density", "uniform_time"]

_TIMESTEPS = 1000  # of the discrete processes in the papers


@dataclass(frozen=True, eq=False)
class TimeStairs(SigmaDensity):
    """Density that is constant between given times of a process; with one step it is uniform in its time.

    Args:
        process: the forward process.
        knots: (K+1,) ascending times from process.t_min to process.t_max.
        share: (K,) probability of each interval, >= 0; divided by their sum.

    Raises:
        ValueError: knots that do not span the process, or no positive share.

    >>> from codesign_opt import FlowMatching
    >>> flow = FlowMatching(t_min=0.1, t_max=0.9)
    >>> TimeStairs(flow, [0.1, 0.5, 0.9], [3.0, 1.0]).tails(np.array([1.0]))[0].round(12).tolist()
    [0.75]
    """

    process: Process
    knots: Array
    share: Array

    def __post_init__(self) -> None:
        if not isinstance(self.process, Process):
            raise ValueError(f"TimeStairs.process is {shown(self.process)}; a Process such as VP() is needed.")
        knots = vector(self.knots, "TimeStairs.knots", minimum_length=2, ascending=True)
        share = vector(self.share, "TimeStairs.share", length=knots.size - 1, nonnegative=True)
        ends = (self.process.t_min, self.process.t_max)
        if not np.allclose(knots[[0, -1]], ends, rtol=1e-12, atol=1e-12):
            raise ValueError(
                f"TimeStairs.knots go from {knots[0]:g} to {knots[-1]:g}; they must go from t_min = {ends[0]:g} to "
                f"t_max = {ends[1]:g} of the process."
            )
        if share.sum() <= 0:
            raise ValueError("TimeStairs.share sums to 0; at least one interval must be trained.")
        object.__setattr__(self, "knots", knots)
        object.__setattr__(self, "share", share / share.sum())

    def _time(self, sigma: Array) -> Array:
        process = self.process
        return np.asarray(process.time(np.clip(sigma, process.sigma_min, process.sigma_max)))

    def tails(self, sigma: Array) -> tuple[Array, Array]:
        """Probability below and above noise levels."""
        time = self._time(sigma)
        below = np.concatenate([[0.0], np.cumsum(self.share)])
        above = np.concatenate([np.cumsum(self.share[::-1])[::-1], [0.0]])
        return np.interp(time, self.knots, below), np.interp(time, self.knots, above)

    def quantile(self, u: Array) -> Array:
        """sigma below which a fraction `u` of the training examples lies."""
        used = self.share > 0  # np.interp needs rising knots; empty intervals are stepped over
        starts, widths, share = self.knots[:-1][used], np.diff(self.knots)[used], self.share[used]
        sums = np.concatenate([[0.0], np.cumsum(share)])
        k = np.clip(np.searchsorted(sums, u, side="right") - 1, 0, share.size - 1)
        inside = np.clip((np.asarray(u) - sums[k]) / share[k], 0.0, 1.0)
        return np.asarray(self.process.sigma(np.minimum(starts[k] + inside * widths[k], self.process.t_max)))

    def per_time(self, time: Array) -> Array:
        """Probability per unit time; 0 outside the process."""
        k = np.clip(np.searchsorted(self.knots, time, side="right") - 1, 0, self.share.size - 1)
        inside = (time >= self.knots[0]) & (time <= self.knots[-1])
        return np.where(inside, (self.share / np.diff(self.knots))[k], 0.0)

    def per_log_sigma(self, sigma: Array) -> Array:
        """Probability per unit log sigma; 0 outside the process."""
        sigma = np.asarray(sigma, dtype=np.float64)
        inside = (sigma >= self.process.sigma_min) & (sigma <= self.process.sigma_max)
        time = self._time(sigma)
        return np.where(inside, self.per_time(time) * sigma / self.process.dsigma_dt(time), 0.0)

    def __repr__(self) -> str:
        return f"TimeStairs({self.process!r}, {self.share.size} steps)"


def uniform_time(process: Process | None = None) -> TimeStairs:
    """Uniform in a process's time over its whole range: what plain training draws; the process is VP() unless given.

    >>> density = uniform_time(VP(t_min=0.5))
    >>> density.tails(np.array([VP().sigma(0.75)]))[0].round(12).tolist()
    [0.5]
    """
    process = VP() if process is None else process
    if not isinstance(process, Process):
        raise ValueError(f"uniform_time.process is {shown(process)}; a Process such as VP() is needed.")
    return TimeStairs(process, np.array([process.t_min, process.t_max]), np.ones(1))


def speed_density(
    process: Process | None = None, *, boundary: float = 0.7, factor: float = 5.0, paired: bool = True
) -> TimeStairs:
    """SpeeD's asymmetric density: times below `boundary` are drawn `factor` times as often as those above.

    Wang et al. 2024 (arXiv:2405.17403) on the continuous time in [0, 1] instead of 1000 timesteps. Their training
    draws each time t with a partner |t - m|, m the first time where sqrt(1 - alpha-bar) rises by less than 1e-4 in a
    timestep; the density of both together is returned unless `paired` is off.

    Args:
        process: VP() unless given; its times must lie within [0, 1].
        boundary: their tau / 1000, 0.7, within the process's times.
        factor: their k; 5 in the ablation's configuration, 2 for FFHQ.
        paired: with the partners.

    >>> speed_density(factor=1.0, paired=False).share.round(3).tolist()
    [0.7, 0.3]
    """
    process = VP() if process is None else process
    low, high = uniform_time(process).knots
    tau = number(boundary, "speed_density.boundary")
    k = number(factor, "speed_density.factor", positive=True)
    if not low < tau < high:
        raise ValueError(f"speed_density.boundary is {tau:g}; it must lie between t_min = {low:g} and {high:g}.")
    if low < 0 or high > 1:
        raise ValueError(f"speed_density.process has times from {low:g} to {high:g}; they must lie within [0, 1].")
    knots, weight = np.array([low, tau, high]), np.array([k * (tau - low), high - tau])
    if not boolean(paired, "speed_density.paired"):
        return TimeStairs(process, knots, weight)
    middle = _meaningful(process)
    places = np.concatenate([knots, np.abs(knots - middle), [middle, 2 * middle]])
    places = np.unique(np.clip(places, low, high))
    below = np.concatenate([[0.0], np.cumsum(weight / weight.sum())])

    def first(t: Array) -> Array:
        return np.interp(t, knots, below)

    # both the draw and its partner |t - m|; partners below t_min are drawn at t_min, as timestep 0 is
    both = 0.5 * first(places) + 0.5 * (first(middle + places) - first(middle - places))
    both[0] = 0.0
    return TimeStairs(process, places, np.maximum(np.diff(both), 0.0))


def _meaningful(process: Process) -> float:
    """First of 1000 timesteps where sqrt(1 - alpha-bar) rises by less than 1e-4, as a time."""
    times = np.linspace(process.t_min, process.t_max, _TIMESTEPS)
    sigma = np.asarray(process.sigma(times))
    slow = np.gradient(sigma / np.hypot(1.0, sigma)) < 1e-4
    return float(times[min(int(np.argmax(slow)) + 1, _TIMESTEPS - 1)]) if slow.any() else float(times[-1])


@dataclass(frozen=True, eq=False)
class OnLevels(SigmaDensity):
    """A density with a stated probability on each level, even in log sigma inside it.

    Args:
        levels: the levels.
        share: (L,) probabilities >= 0; divided by their sum.

    >>> OnLevels(Levels(np.array([1.0, 2.0, 4.0])), np.array([1.0, 3.0])).quantile(np.array([0.25, 1.0])).tolist()
    [2.0, 4.0]
    """

    levels: Levels
    share: Array

    def __post_init__(self) -> None:
        if not isinstance(self.levels, Levels):
            raise ValueError(f"OnLevels.levels is {shown(self.levels)}; a Levels is needed, such as Levels(edges).")
        share = vector(self.share, "OnLevels.share", length=len(self.levels), nonnegative=True)
        if share.sum() <= 0:
            raise ValueError("OnLevels.share sums to 0; at least one level must be trained.")
        object.__setattr__(self, "share", share / share.sum())

    def tails(self, sigma: Array) -> tuple[Array, Array]:
        """Probability below and above noise levels."""
        at = np.log(np.clip(sigma, self.levels.edges[0], self.levels.edges[-1]))
        knots = np.log(self.levels.edges)
        below = np.concatenate([[0.0], np.cumsum(self.share)])
        above = np.concatenate([np.cumsum(self.share[::-1])[::-1], [0.0]])
        return np.interp(at, knots, below), np.interp(at, knots, above)

    def quantile(self, u: Array) -> Array:
        """sigma below which a fraction `u` of the training examples lies."""
        used = np.flatnonzero(self.share > 0)
        sums = np.concatenate([[0.0], np.cumsum(self.share[used])])
        k = np.clip(np.searchsorted(sums, u, side="right") - 1, 0, used.size - 1)
        inside = np.clip((np.asarray(u) - sums[k]) / self.share[used[k]], 0.0, 1.0)
        low, high = self.levels.edges[used[k]], self.levels.edges[used[k] + 1]
        return low ** (1 - inside) * high**inside

    def per_log_sigma(self, sigma: Array) -> Array:
        """Probability per unit log sigma; 0 outside the levels."""
        edges = self.levels.edges
        k = np.clip(np.searchsorted(edges, sigma, side="right") - 1, 0, len(self.levels) - 1)
        inside = (sigma >= edges[0]) & (sigma <= edges[-1])
        return np.where(inside, (self.share / self.levels.log_width)[k], 0.0)

    def __repr__(self) -> str:
        return f"OnLevels({len(self.levels)} levels from {self.levels.edges[0]:g} to {self.levels.edges[-1]:g})"


def loss_second_moment(
    log: str | Path | Mapping[str, Any],
    levels: Levels,
    *,
    history: int = 10,
    uniform: float = 0.001,
    weight: Callable[[Array], Array] | None = None,
) -> OnLevels:
    """IDDPM's loss-aware resampler: examples in proportion to sqrt(E[loss^2]) on each level.

    Nichol and Dhariwal 2021, section 3.3: p = (1 - uniform) w / sum w + uniform / L with w the root of the mean of the
    last `history` squared losses, even over the levels until every level has that many. Their levels are timesteps;
    the importance weights 1 / (L p) that keep the loss's mean are `importance(sigma, OnLevels(levels, ones))`.

    Args:
        log: path of a loss log, or its columns `sigma` and `loss` in the order of training (`read_log`). Rows that
            average several examples have a smaller second moment than single examples.
        levels: the levels; rows outside them are not used.
        history: rows per level, 10.
        uniform: probability that is spread evenly, 0.001.
        weight: of the training loss on |D - x0|^2, as a function of sigma, where the log has |D - x0|^2 (such as
            `Weighting.denoiser`); 1 unless given.

    Raises:
        ValueError: an option out of range, or a log that cannot be read.

    >>> edges = Levels(np.array([0.1, 1.0, 10.0]))
    >>> log = {"sigma": np.tile([0.5, 2.0], 10), "loss": np.tile([1.0, 3.0], 10)}
    >>> loss_second_moment(log, edges, uniform=0.0).share.tolist()
    [0.25, 0.75]
    >>> loss_second_moment(log, edges, history=11).share.tolist()
    [0.5, 0.5]
    """
    count = integer(history, "loss_second_moment.history", minimum=1, maximum=AT_ONCE)
    even = number(uniform, "loss_second_moment.uniform", nonnegative=True, maximum=1.0)
    if not isinstance(levels, Levels):
        raise ValueError(f"loss_second_moment.levels is {shown(levels)}; a Levels is needed, such as Levels(edges).")
    table = read_log(log, "loss_second_moment.log") if isinstance(log, (str, Path)) else log
    if not isinstance(table, Mapping) or not {"sigma", "loss"} <= set(table):
        raise ValueError("loss_second_moment.log must be a path, or a dict with the columns sigma and loss.")
    sigma = vector(table["sigma"], "loss_second_moment.log: sigma", positive=True)
    loss = vector(table["loss"], "loss_second_moment.log: loss", length=sigma.size, nonnegative=True)
    if weight is not None:
        name = "loss_second_moment.weight"
        loss = loss * vector(answer(weight, sigma, name), f"{name}(sigma)", length=sigma.size, nonnegative=True)
    inside = (sigma >= levels.edges[0]) & (sigma <= levels.edges[-1])
    level = np.clip(np.searchsorted(levels.edges, sigma, side="right") - 1, 0, len(levels) - 1)
    rows = [loss[inside & (level == k)][-count:] for k in range(len(levels))]
    flat = np.full(len(levels), 1 / len(levels))
    if any(row.size < count for row in rows):
        return OnLevels(levels, flat)
    root = np.sqrt([float(np.mean(row**2)) for row in rows])
    if root.sum() <= 0:
        return OnLevels(levels, flat)
    return OnLevels(levels, (1 - even) * root / root.sum() + even * flat)
