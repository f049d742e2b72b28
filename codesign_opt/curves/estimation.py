"""Training noise from logs of losses: what a practitioner has. docs/theory.md section 5, learning-curve route."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..basics.checks import Array, Mask, choice, integer, ndim, number, scale_of, takes
from ..ingredients.levels import MOST_LEVELS, Levels
from .least_squares import Bootstrap, LevelFit, bootstrap_errors, fit_level, run_multipliers
from .results import LearningCurves
from .smoothing import SMOOTHINGS, smooth_across_levels
from .windows import LogReading, Windows, inverse_examples, read_windows

__all__ = ["learning_curves"]

_WIDEST = 1e3  # of a transfer, in log sigma
_WIDTHS = np.concatenate([[0.0], np.arange(0.1, 3.01, 0.1)])


@takes(reading=LogReading)
def learning_curves(
    runs: Any,
    *,
    levels: Any = 12,
    log_width: float | None = 2.7,
    transfer: float | str = "fit",
    smoothing: str = "none",
    reading: LogReading | None = None,
    bootstrap: str | Bootstrap = "rows",
    seed: int = 0,
) -> LearningCurves:
    """Fit loss = L + kappa1 / m + kappa2 tau / beta on every noise level to logs of losses |D - x0|^2.

    Least squares over the windows of all runs, weighed by the examples in them, with L, kappa1, kappa2 >= 0
    (docs/theory.md section 5). kappa1 follows from losses at several m, averages over stretches of training or points
    of validation (`LogReading.examples`), kappa2 from runs at several learning rates. Where a log holds runs of
    averaged weights (column `averaged`) beside last iterates, kappa1 is taken from the former and kappa2 from the
    latter. Losses before `LogReading.burn_in` of each run's examples are dropped.
    Learning-rate schedules and moving averages are beyond this model: a rate that varies after burn-in is
    refused, a column `ema` above 0 is noted.

    Args:
        runs: path of a log, `TrainingRun` with one, a `LevelStatistics`, or a list: pilots at several m and tau.
            Columns: examples, sigma, loss; optional: run, learning_rate, batch, averaged, ema, variance (of single
            examples), start and end (examples at all levels before and after the row), as `LevelStatistics` writes.
        levels: Levels, edges, or a number of equal bins over the logs' range. All examples of a log of a single noise
            level count in m.
        log_width: m = (density of examples per unit log sigma) x log_width, the correlation length of section 6;
            None: the examples on the level itself, for experts trained one by one.
        transfer: "fit": the width of the Gaussian T by which examples teach neighbouring levels, m from T rho,
            where runs of two or more densities tell it; or a width in log sigma, >= 0, taken as given.
        smoothing: "none", "spline" or "tv": of log kappa in log sigma, zeros filled in.
        reading: what the logs do not say of themselves: how they count examples, the weight of their loss, learning
            rate and batch, and how much of their beginning is dropped (a tenth); see `LogReading`.
        bootstrap: "rows" (independent windows), "runs" (whole runs, three or more), or `Bootstrap(…)`.
        seed: of the bootstrap.

    Raises:
        ValueError: a log that cannot be read (by line), no level with two windows, a rate that varies within a
            run, an argument out of range.
    """
    transfer = _checked(transfer, smoothing)
    log_width = None if log_width is None else scale_of(log_width, "log_width")
    reading = LogReading() if reading is None else reading
    errors_by = bootstrap if isinstance(bootstrap, Bootstrap) else Bootstrap(bootstrap)
    shape: Any = levels if isinstance(levels, Levels) else None
    if shape is None:
        shape = integer(levels, "levels", minimum=1, maximum=MOST_LEVELS) if ndim(levels) == 0 else Levels(levels)
    bins, windows = read_windows(runs, shape, reading, log_width)
    table = _Table(bins, windows, reading.burn_in, log_width)
    profile = _profile(table, transfer)
    fits = table.fits(profile.used)
    errors = _errors(table, fits, profile.used, errors_by, seed)
    return _result(table, fits, errors, profile, smoothing)


def _checked(transfer: Any, smoothing: str) -> Any:
    """The transfer width as a number, or "fit"."""
    choice(smoothing, "smoothing", SMOOTHINGS)
    if isinstance(transfer, str):
        return choice(transfer, "transfer", ("fit",))
    return number(transfer, "transfer", nonnegative=True, maximum=_WIDEST)


class _Table:
    """The windows of all runs after burn-in, one below the other: (N, L) losses and what they are fitted on."""

    def __init__(self, levels: Levels, windows: list[Windows], burn_in: float, log_width: float | None) -> None:
        self.levels, self.windows, self.log_width = levels, windows, log_width
        self.keep = [w.start >= burn_in * w.end[-1] for w in windows]
        _refuse_schedules(windows, self.keep)
        self.run = np.concatenate([np.full(k.sum(), i) for i, k in enumerate(self.keep)])
        self.loss, self.count = self._stack("loss"), self._stack("count")
        self.averaged = self._stack("averaged")
        batch = self._stack("batch")
        self.rate = self._stack("rate") / np.where(np.isnan(batch), 1.0, batch)
        square = sum(np.asarray(w.square[k].sum(axis=0)) for w, k in zip(windows, self.keep, strict=True))
        freedom = sum(np.asarray(w.freedom[k].sum(axis=0)) for w, k in zip(windows, self.keep, strict=True))
        self.variance = np.where(freedom > 0, square / np.maximum(freedom, 1), np.nan)
        self.both = bool(self.averaged.any() and not self.averaged.all())
        dropped = sum(int((~k).sum()) for k in self.keep)
        self.notes = [f"{dropped} windows that begin in the first {burn_in:.0%} of their run were dropped as burn-in."]
        self.notes += [note for w in windows for note in w.notes]
        self._remark(batch)

    def _stack(self, name: str) -> Any:
        return np.concatenate([getattr(w, name)[k] for w, k in zip(self.windows, self.keep, strict=True)])

    def _remark(self, batch: Array) -> None:
        if np.any(np.isnan(batch)) and not np.all(np.isnan(self.rate)):
            self.notes.append("batch is unknown for some runs and taken as 1: kappa2 is per learning rate there.")
        moving = [w.name for w in self.windows if w.ema > 0]
        if moving:
            self.notes.append(
                f"{', '.join(moving)}: losses of a moving average (column ema); m counts all examples, the average "
                "remembers its window only, so kappa1 is too small once the run is longer than that."
            )

    @property
    def centre(self) -> Array:
        """(L,) geometric mean noise level of a bin's examples: the loss is steep in sigma, and they may sit aside."""
        total = self.count.sum(axis=0)
        place = (self.count * self._stack("log_sigma")).sum(axis=0) / np.maximum(total, 1e-300)
        return np.where(total > 0, np.exp(place), self.levels.sigma)

    def usable(self, inverse: Array, level: int) -> Mask:
        return np.asarray((self.count[:, level] > 0) & np.isfinite(inverse[:, level]))

    def inverse(self, width: float) -> Array:
        parts = [inverse_examples(w, self.levels, self.log_width, width) for w in self.windows]
        return np.concatenate([part[k] for part, k in zip(parts, self.keep, strict=True)])

    def rows(self, inverse: Array, level: int) -> tuple[Array, Array, Array, Array]:
        """Design (N, 3), losses, weights and runs of one level."""
        use = self.usable(inverse, level)
        spread = self.variance[level]
        weight = self.count[use, level] / (spread if spread > 0 else 1.0)
        last = ~self.averaged[use]
        examples = np.where(last & self.both, 0.0, inverse[use, level])
        design = np.stack([np.ones(use.sum()), examples, np.where(last, np.nan_to_num(self.rate[use]), 0.0)], axis=1)
        return design, self.loss[use, level], weight, self.run[use]

    def fits(self, width: float) -> dict[int, LevelFit]:
        """Fits of the levels whose rows tell L and kappa1 apart."""
        inverse, found = self.inverse(width), {}
        for level in range(len(self.levels)):
            design, loss, weight, _ = self.rows(inverse, level)
            fit = fit_level(design, loss, weight) if loss.size > 1 else None
            if fit is not None and fit.used[0] and fit.used[1]:
                found[level] = fit
        return found

    def known_noise(self, level: int) -> bool:
        return bool(self.variance[level] > 0)


def _refuse_schedules(windows: list[Windows], keep: list[Mask]) -> None:
    for part, mask in zip(windows, keep, strict=True):
        rates = np.unique(part.rate[mask & np.isfinite(part.rate)])
        if rates.size > 1:
            raise ValueError(
                f"learning_curves: {part.name}: learning_rate varies from {rates[0]:g} to {rates[-1]:g} after burn-in; "
                "kappa2 tau describes a constant rate. Name each stretch of constant rate in a column 'run', raise "
                "LogReading.burn_in past the warm-up, or leave the column out to fit L and kappa1 alone."
            )


@dataclass(frozen=True, eq=False)
class _Profile:
    """The width of the transfer kernel that is used, what the logs tell of it, and what to say."""

    used: float
    width: float
    error: float
    note: str


def _profile(table: _Table, transfer: float | str) -> _Profile:
    if not isinstance(transfer, str):
        return _Profile(transfer, float(transfer), 0.0, "the transfer width was given, not fitted.")
    alone = "transfer between levels is not identified (one density); kappa1 holds what neighbours teach."
    if len(table.windows) < 2 or table.log_width is None:
        return _Profile(0.0, np.nan, np.nan, alone)
    first = table.fits(0.0)
    common = [set(fits) for fits in (first, table.fits(float(_WIDTHS[-1])))]
    levels = sorted(common[0] & common[1])
    chi2 = np.array([_chi2(table, table.inverse(width), levels) for width in _WIDTHS])
    best = int(np.argmin(chi2))
    freedom = sum(first[level].freedom for level in levels)
    scale = max(chi2[best] / max(freedom, 1), 1.0) if all(map(table.known_noise, levels)) else chi2[best] / freedom
    rise = (chi2 - chi2[best]) / max(scale, 1e-300)
    if not levels or rise.max() < 3.84:
        return _Profile(0.0, np.nan, np.nan, alone.replace("one density", "the densities are too alike"))
    width, error = _minimum(rise, best)
    note = f"transfer width {width:.2f} +- {error:.2f} in log sigma, kappa's errors are at this width."
    return _Profile(width, width, error, note)


def _chi2(table: _Table, inverse: Array, levels: list[int]) -> float:
    total = 0.0
    for level in levels:
        design, loss, weight, _ = table.rows(inverse, level)
        total += fit_level(design, loss, weight).chi2
    return total


def _minimum(rise: Array, best: int) -> tuple[float, float]:
    """Minimum of the profile by a parabola, and its standard error from where the profile has risen by one."""
    width = float(_WIDTHS[best])
    if 0 < best < rise.size - 1:
        left, right = rise[best - 1], rise[best + 1]
        width += 0.5 * 0.1 * float((left - right) / max(left + right, 1e-300))
        curvature = (left + right) / 0.1**2
        near = 1 / np.sqrt(curvature / 2) if curvature > 0 else np.inf
    else:
        near = 0.0
    sides = []
    for side in (rise[best:], rise[best::-1]):
        above = np.flatnonzero(side >= 1.0)
        if above.size:
            i = int(above[0])
            sides.append(0.1 * (i - 1 + (1.0 - side[i - 1]) / (side[i] - side[i - 1])))
    wide = max(sides) if sides else float(_WIDTHS[-1])
    return max(width, 0.0), float(near if 0 < near < 0.1 else wide)


def _errors(
    table: _Table, fits: dict[int, LevelFit], width: float, bootstrap: Bootstrap, seed: int
) -> dict[int, Array]:
    whole = bootstrap.unit == "runs"
    if whole and len(table.windows) < 3:
        raise ValueError(f"bootstrap is 'runs' with {len(table.windows)} runs; three are needed, or use 'rows'.")
    inverse = table.inverse(width)
    rng = np.random.default_rng(integer(seed, "seed", minimum=0))
    common = run_multipliers(rng, bootstrap.repeats, len(table.windows))
    errors = {}
    for level, fit in fits.items():
        design, loss, weight, run = table.rows(inverse, level)
        ratio = fit.chi2 / max(fit.freedom, 1)
        scale = max(ratio, 1.0) if table.known_noise(level) else ratio
        noise = common if whole else rng.standard_normal((bootstrap.repeats, loss.size))
        errors[level] = bootstrap_errors(design, fit, weight, scale, noise, run if whole else None)
    return errors


def _result(
    table: _Table, fits: dict[int, LevelFit], errors: dict[int, Array], profile: _Profile, smoothing: str
) -> LearningCurves:
    if not fits:
        raise ValueError(
            "learning_curves: no level has losses at two different numbers of examples after burn-in; log more "
            "often, lower LogReading.burn_in, or use fewer levels."
        )
    sigma = table.centre[list(fits)]
    value = np.stack([fit.coefficients for fit in fits.values()], axis=1)
    error = np.stack(list(errors.values()), axis=1)
    notes = [*table.notes, profile.note, *_notes(table, fits)]
    if smoothing != "none":
        for i in (1, 2):
            value[i], error[i] = smooth_across_levels(sigma, value[i], error[i], smoothing)
        notes.append(f"kappa1 and kappa2 were smoothed across levels ({smoothing}).")
    ratio = [fit.chi2 / max(fit.freedom, 1) if table.known_noise(level) else np.nan for level, fit in fits.items()]
    names = ("bayes_floor", "reducible", "step_noise")
    return LearningCurves(
        sigma=sigma,
        **dict(zip(names, value, strict=True)),
        **dict(zip((f"{name}_error" for name in names), error, strict=True)),
        misfit=np.array(ratio),
        log_width=table.log_width,
        transfer_width=profile.width,
        transfer_error=profile.error,
        smoothing=smoothing,
        notes=tuple(notes),
    )


def _notes(table: _Table, fits: dict[int, LevelFit]) -> list[str]:
    notes = []
    centre = table.centre
    absent = [f"{centre[i]:.3g}" for i in range(len(table.levels)) if not table.count[:, i].any()]
    thin = [f"{centre[i]:.3g}" for i in range(len(table.levels)) if table.count[:, i].any() and i not in fits]
    if absent:
        notes.append(f"levels without data after burn-in, left out: sigma = {', '.join(absent)}.")
    if thin:
        notes.append(f"levels with too few windows to tell L from kappa1, left out: sigma = {', '.join(thin)}.")
    confounded = [f"{centre[i]:.3g}" for i, fit in fits.items() if not fit.used[2]]
    if len(confounded) == len(fits):
        notes.append("one learning rate only (or none logged): kappa2 is 0 and L holds kappa2 tau.")
    elif confounded:
        notes.append(f"one learning rate only at sigma = {', '.join(confounded)}: kappa2 is 0 there and L holds it.")
    bad = [i for i, f in fits.items() if table.known_noise(i) and f.chi2 > f.freedom + 5 * np.sqrt(2 * f.freedom + 1)]
    if bad:
        worst = max(bad, key=lambda i: fits[i].chi2 / max(fits[i].freedom, 1))
        notes.append(
            f"1/m does not describe {len(bad)} levels within their noise (worst sigma = {centre[worst]:.3g}, chi^2 "
            f"{fits[worst].chi2:.0f} for {fits[worst].freedom}); raise LogReading.burn_in, or take errors from "
            "bootstrap='runs'."
        )
    return notes
