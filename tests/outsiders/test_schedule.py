"""A schedule of one's own from one file: by name in `peers` and in a comparison."""

from dataclasses import dataclass

import numpy as np
import pytest

import codesign_opt as co
from codesign_opt import peers


def define():
    @dataclass(frozen=True)
    class Halving(peers.Schedule):
        """Every level a share of the one before."""

        share: float = 0.5
        name = "halving"

        def _nodes(self, count, evidence):
            return evidence.sigma_max * self.share ** np.arange(count)

    return Halving


def test_a_schedule_goes_by_its_name_with_its_parameters():
    kind = define()
    assert peers.schedule("halving", share=0.25) == kind(0.25)
    assert "halving" in peers.names()
    with pytest.raises(ValueError, match=r"schedule halving has no parameter ratio; it has share\."):
        peers.schedule("halving", ratio=0.25)


def test_a_comparison_holds_it_against_the_plan():
    define()
    found = co.compare(co.GaussianModel(co.Spectrum.power_law(8, exponent=1.5)), ["halving"], [6], samplers=["euler"])
    mine = next(row for row in found.rows if row.peer == "halving")
    np.testing.assert_allclose(mine.sigmas, [80.0, 40.0, 20.0, 10.0, 5.0, 2.5, 0.0])
