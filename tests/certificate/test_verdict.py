"""When a candidate may be called optimal."""

from dataclasses import replace

import numpy as np
import pytest

from codesign_opt.certificate.verdict import Certificate

GOOD = Certificate(value=1.0, lower_bound=1.0 - 1e-8, relative_gap=1e-8, infeasibility=1e-12)


def test_a_small_gap_at_a_feasible_point_is_optimal():
    assert GOOD.optimal
    assert GOOD.to_dict()["optimal"] is True


@pytest.mark.parametrize(
    "change",
    [
        {"relative_gap": 1e-4}, {"relative_gap": -1e-4}, {"relative_gap": np.nan}, {"relative_gap": np.inf},
        {"infeasibility": 1e-5}, {"tolerance": 1e-9},
    ],
)  # fmt: skip
def test_a_gap_beyond_the_tolerance_on_either_side_or_a_violation_is_not(change):
    assert not replace(GOOD, **change).optimal
