"""One budget for shared parameters and sampler steps: where a unit of it is worth the same on both sides.

docs/theory.md section 7.5. Both errors are convex in what is spent on them, so that the sum has one minimum over the
split: the root of a difference of two prices, found in the logarithm of the ratio of the two amounts.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.optimize import brentq

__all__ = ["split_room"]

_REACH = 40.0  # of the logarithm of the ratio: beyond, one side gets all there is
_TIGHT = 1e-12  # the bound feels an error of the split by its square


def split_room(
    room: float, training: Callable[[float], float], sampling: Callable[[float], float], most: float = np.inf
) -> float:
    """What training gets of the room, so that both sides have the same price.

    Args:
        room: amount to split, > 0.
        training, sampling: decrease of the error per unit spent on that side, falling in the amount; >= 0.
        most: what sampling may take.

    >>> round(split_room(3.0, lambda x: 1 / x**2, lambda x: 4 / x**2), 9)
    1.0
    """

    def worth(logit: float) -> float:
        share = 1 / (1 + np.exp(-logit))
        one, other = training(room * share), sampling(room * (1 / (1 + np.exp(logit))))
        return float(np.log(max(one, 1e-300)) - np.log(max(other, 1e-300)))

    least = -_REACH if most >= room else max(float(np.log(room / most - 1)), -_REACH)
    low = high = max(0.0, least)
    at_low = at_high = worth(low)
    width = 1.0
    while at_high > 0 and high < _REACH:
        low, at_low, high, width = high, at_high, min(high + width, _REACH), 2 * width
        at_high = worth(high)
    while at_low < 0 and low > least:
        high, at_high, low, width = low, at_low, max(low - width, least), 2 * width
        at_low = worth(low)
    if at_low * at_high >= 0:
        logit = high if at_high > 0 or at_high == 0 else low
    else:
        logit = brentq(worth, low, high, xtol=_TIGHT, rtol=1e-14)
    return float(room / (1 + np.exp(-logit)))
