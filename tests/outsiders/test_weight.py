"""A loss weight of one's own from one file: by name in `peers`, with its parameters, on every target."""

import numpy as np
import pytest

import codesign_opt as co
from codesign_opt import peers


def define():
    @peers.add_weighting("high_noise")
    def high_noise(power: float = 1.0) -> peers.Weighting:
        """sigma^power on eps."""
        return peers.Weighting("high_noise", "eps", lambda sigma: sigma**power)


def test_a_weight_goes_by_its_name_and_is_known_on_every_target():
    define()
    assert "high_noise" in peers.weightings()
    weight, sigma = peers.weighting("high_noise", power=2.0), np.array([0.5, 3.0])
    np.testing.assert_allclose(weight(sigma), sigma**2)
    np.testing.assert_allclose(weight.on("x0")(sigma), [1.0, 1.0])  # |eps error|^2 = |x0 error|^2 / sigma^2
    scaled = peers.weighting("high_noise").normalised(co.LogNormal(-1.2, 1.2))
    assert scaled.scale == pytest.approx(np.exp(1.2 - 1.2**2 / 2), rel=1e-3)  # 1 / E sigma of the log-normal
    with pytest.raises(ValueError, match="weighting high_noise has no parameter gamma; it has power"):
        peers.weighting("high_noise", gamma=2.0)
