"""Levels that follow the steps of a grid."""

import numpy as np
import pytest

from codesign_opt import Levels


@pytest.mark.parametrize("seed", range(12))
def test_levels_of_steps_straddle_none_and_are_no_wider_than_asked(seed):
    rng = np.random.default_rng(seed)
    nodes = np.unique(np.exp(rng.uniform(-9.0, 5.0, int(rng.integers(2, 200)))))[::-1]
    width = float(rng.uniform(0.01, 1.0))
    levels = Levels.of_steps(np.append(nodes, np.zeros(seed % 2)), width, 1000)
    assert np.all(np.isin(nodes, levels.edges))
    assert (levels.edges[0], levels.edges[-1]) == (nodes[-1], nodes[0])
    assert levels.log_width.max() <= width * (1 + 1e-5)
    assert len(levels) <= nodes.size + np.log(nodes[0] / nodes[-1]) / width


def test_nodes_that_all_but_coincide_share_an_edge():
    nodes = np.array([8.0, 8.0 * (1 - 1e-9), 4.0, 4.0 * (1 - 1e-12), 1.0 + 1e-10, 1.0])
    levels = Levels.of_steps(nodes, 10.0, 100)
    assert len(levels) == 2
    np.testing.assert_allclose(levels.edges, [1.0, 4.0, 8.0], rtol=1e-8)
    assert (levels.edges[0], levels.edges[-1]) == (1.0, 8.0)


def test_very_many_steps_share_levels():
    grid = np.geomspace(100.0, 0.01, 5001)
    levels = Levels.of_steps(grid, 0.1, 1000)
    assert len(levels) <= 1001
    assert np.all(np.isin(levels.edges, grid))
    assert levels.log_width.max() <= 0.1
