"""Nodes that are added to grids and taken from them, against all grids that there are."""

import numpy as np
import pytest

import codesign_opt as co
from codesign_opt.planning.node_moves import extended, moved_nodes, with_steps

GRID = np.array([8.0, 5.0, 4.0, 1.0, 0.2, 0.0])


def wanted(nodes):
    """How far the logarithms of a grid's nodes are from others, the sum over both."""
    target = np.log([8.0, 2.0, 1.0, 0.5, 0.2])

    def error(grids):
        logs = np.log(np.where(grids > 0, grids, 1.0))
        far = np.abs(logs[..., :, None] - target) + 100 * (grids == 0)[..., :, None]
        return far.min(axis=-2).sum(axis=-1) + nodes * np.where(grids > 0, far.min(axis=-1), 0.0).sum(axis=-1)

    return error


def test_one_node_is_added_where_least_is_left():
    every = [np.insert(GRID, k + 1, np.sqrt(GRID[k] * GRID[k + 1])) for k in range(4)]
    errors = wanted(0.1)(np.array(every))
    assert np.array_equal(with_steps(GRID, 6, wanted(0.1)), every[int(np.argmin(errors))])


def test_one_node_between_the_ends_is_taken_where_least_is_left():
    every = [np.delete(GRID, k) for k in (1, 2, 3)]
    errors = wanted(0.1)(np.array(every))
    assert np.array_equal(with_steps(GRID, 4, wanted(0.1)), every[int(np.argmin(errors))])
    assert with_steps(GRID, 1, wanted(0.1)).tolist() == [8.0, 0.2, 0.0]  # the ends stay


def test_a_moved_node_comes_from_where_it_is_wasted_to_where_it_is_missed():
    found = moved_nodes(GRID, wanted(0.1))
    errors = wanted(0.1)(np.array(found))
    every = [
        np.insert(less, j + 1, np.sqrt(less[j] * less[j + 1]))
        for k in (1, 2, 3)
        for less in [np.delete(GRID, k)]
        for j in range(3)
        if j != k - 1
    ]
    assert errors[0] == wanted(0.1)(np.array(every)).min()
    assert list(errors) == sorted(errors)
    assert all(grid.size == GRID.size and (np.diff(grid) < 0).all() for grid in found)
    assert moved_nodes(np.array([8.0, 0.2]), wanted(0.1)) == []


def test_of_a_long_grid_some_nodes_are_tried_evenly():
    grid, asked = np.append(np.geomspace(80.0, 0.01, 301), 0.0), list[int]()

    def error(grids):
        asked.append(len(grids))
        return np.abs(np.log(grids[:, :-1] / 3.0)).min(axis=-1)

    found = moved_nodes(grid, error)
    assert all(each.size == grid.size and np.all(np.diff(each) < 0) for each in found)
    assert all(64 <= count <= 128 for count in asked)
    lost = [np.setdiff1d(grid, each) for each in found]
    assert all(each.size == 1 for each in lost)  # and none goes back into the step that it left


def test_errors_that_are_not_numbers_are_never_chosen():
    def broken(grids):
        return np.where(np.isclose(grids, 4.0).any(axis=-1), np.nan, 1.0)

    assert not np.isclose(with_steps(GRID, 4, broken), 4.0).any()


@pytest.mark.slow
def test_steps_with_noise_leave_no_nodes_far_above_the_data():
    # descents alone kept five of 20 nodes above 100, where all data is noise, and left up to three times as much
    model = co.GaussianModel(
        co.Spectrum.power_law(4, exponent=0.9),
        process=co.EDM(0.09, 2.5e8),
        sampler=co.EulerMaruyama(1.0),
        terminal="rescale",
    )
    plan = co.codesign(model, steps=20, levels=40)
    assert plan.handed_out["total"] < 0.0045
    assert (plan.sigmas[1:] < 100).sum() >= 18


def test_few_steps_whose_errors_cancel_keep_what_fewer_find():
    # eight steps left thirty times as much as four: their descents end where nothing is left of the data
    spectrum = co.Spectrum.from_bands([2.23309545, 0.447964182, 0.00123708643], [32, 12, 36])
    model = co.GaussianModel(spectrum, process=co.EDM(0.0110246215, 12432696.8), sampler=co.EulerMaruyama(0.3))
    errors = [co.codesign(model, steps=count, levels=60).handed_out["total"] for count in (4, 8)]
    assert errors[1] <= errors[0] < 0.05


def test_a_step_below_the_end_goes_to_half_of_it_within_the_range():
    (longer,) = extended(np.array([8.0, 2.0, 1.0, 0.0]), 0.5)
    np.testing.assert_array_equal(longer, [8.0, 2.0, 1.0, 0.5, 0.0])
    assert extended(np.array([8.0, 2.0, 1.0]), 0.6) == []
