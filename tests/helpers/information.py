"""Features that many parameters share, as those of a network."""

from __future__ import annotations

import numpy as np


def smooth_features(parameters, levels, outputs, seed):
    """Bumps in log sigma, as a network's features are; the optimum has neighbouring spikes."""
    rng = np.random.default_rng(seed)
    s = np.linspace(np.log(0.002), np.log(80), levels)[:, None, None]
    centre = rng.uniform(s.min(), s.max(), (outputs, parameters))
    width = rng.uniform(0.3, 2.0, (outputs, parameters))
    return rng.standard_normal((outputs, parameters)) * np.exp(-0.5 * ((s - centre) / width) ** 2)
