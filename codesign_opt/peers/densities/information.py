"""InfoNoise's training density: examples where the noise takes most of the information on the data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...basics.checks import Array, instance, number, takes, vector
from ...basics.user_code import answer
from ...ingredients.levels import Levels
from .of_time import OnLevels

__all__ = ["infonoise", "information_onset"]

_NAME = "infonoise"


@takes(risk=callable)
def infonoise(
    risk: Callable[[Array], Any],
    levels: Levels,
    *,
    weight: Callable[[Array], Any] | None = None,
    pivot: float | None = None,
    power: float = 3.0,
    onset: float = 0.002,
) -> OnLevels:
    """What a loss sees of a level, density times weight, in proportion to the rate of the conditional entropy there.

    dH[x0 | x] / dsigma = mmse(sigma) / sigma^3 (I-MMSE), with the model's own risk in place of the exact one, times
    a gate sigma^n / (sigma^n + c^n) that takes the low end out, where the risk of a model is furthest from the exact
    one; divided by the weight of the loss, which stays as it is. Per unit log sigma the density is
    risk / sigma^2 * gate / weight. Raya, Nguyen, Batzolis, Takida, Stancevic, Murata, Lai, Mitsufuji, Ambrogioni 2026
    (InfoNoise, arXiv:2602.18647, equations 13 to 15 and appendix B.6); docs/theory.md section 11.4.

    It is the density at one moment: the paper makes it anew along the run, from the losses so far
    (`risk_from_log` reads them). How long it waits, how it smooths and how often it renews are its training's, not
    the density's, and are left to the caller; the levels are the bins.

    Args:
        risk: E |x0 - D|^2 at noise levels, (L,) -> (L,), a `RiskCurve` or any function; unweighted, any scale.
        levels: the levels; each gets the value at its middle.
        weight: of the training loss on |D - x0|^2 (`Weighting.denoiser`); 1 unless given.
        pivot: c of the gate, data units; 0 for no gate; by the rule of `information_onset` unless given (the paper
            pins .15 to .2 where that rule has nothing to hold on to).
        power: n of the gate, 3.
        onset: share of the largest rate where `information_onset` stops, .002.

    Raises:
        ValueError: a risk or weight that is not positive and finite on the levels, an option out of range, or a risk
            that is 0 on all levels.

    >>> edges = Levels(np.array([0.5, 2.0, 8.0]))
    >>> infonoise(lambda sigma: sigma**2, edges, weight=lambda sigma: sigma, pivot=0.0).share.tolist()
    [0.8, 0.2]
    """
    instance(levels, Levels, f"{_NAME}.levels")
    sigma, count = levels.sigma, len(levels)
    value = vector(answer(risk, sigma, f"{_NAME}.risk"), f"{_NAME}.risk(sigma)", length=count, nonnegative=True)
    if not value.any():
        raise ValueError(f"{_NAME}.risk is 0 on all levels; the loss of a model on noise levels is needed.")
    own = np.ones(count)
    if weight is not None:
        own = vector(answer(weight, sigma, f"{_NAME}.weight"), f"{_NAME}.weight(sigma)", length=count, positive=True)
    exponent = number(power, f"{_NAME}.power", positive=True)
    if pivot is None:
        centre = information_onset(lambda _: value, levels, share=onset)
    else:
        centre = number(pivot, f"{_NAME}.pivot", nonnegative=True)
    with np.errstate(over="ignore"):  # a gate as sharp as that is shut
        gate = 1 / (1 + (centre / sigma) ** exponent)
    return OnLevels(levels, value / sigma**2 * gate / own * levels.log_width)


@takes(risk=callable)
def information_onset(risk: Callable[[Array], Any], levels: Levels, *, share: float = 0.002) -> float:
    """The highest level where risk / sigma^3 is at least a share of its largest value: the gate's centre.

    From high noise down, the first level where the rate counts. InfoNoise, appendix B.6, equation 87.

    Args:
        risk, levels: as for `infonoise`.
        share: in (0, 1].

    >>> information_onset(lambda sigma: sigma**2, Levels(np.array([0.5, 2.0, 8.0, 32.0])), share=0.2)
    4.0
    """
    instance(levels, Levels, "information_onset.levels")
    least = number(share, "information_onset.share", positive=True, maximum=1.0)
    sigma = levels.sigma
    rate = vector(answer(risk, sigma, "information_onset.risk"), "risk(sigma)", length=len(levels), nonnegative=True)
    rate = rate / sigma**3
    return float(sigma[np.flatnonzero(rate >= least * rate.max())[-1]])
