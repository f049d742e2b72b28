"""The Hessian of a descent of nodes."""

import numpy as np
import pytest

import codesign_opt as co
from codesign_opt.models.grid_descent import Descent, Descents, GridResiduals, NodeErrors, _corrected


def test_a_corrected_hessian_is_that_of_one_update_after_the_other():
    rng = np.random.default_rng(0)
    base = rng.normal(size=(3, 6, 9))
    base = base @ base.swapaxes(1, 2)
    pairs = rng.normal(size=(5, 2, 3, 6))
    pairs[:4, 1] += np.einsum("gpq,mgq->mgp", 2 * base, pairs[:4, 0])
    pairs[1, :, 0] = 0.0  # no move
    pairs[2, 1, 1] *= -1.0  # curved downwards
    expected = base.copy()
    for row in range(3):
        for move, change in pairs[:, :, row]:
            image = expected[row] @ move
            rise, bend = move @ change, move @ image
            if rise > 1e-3 * bend > 0:
                expected[row] += np.outer(change, change) / rise - np.outer(image, image) / bend
    found = _corrected(base, pairs)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)
    assert np.linalg.eigvalsh(found).min() > 0
    assert _corrected(base, pairs[:0]) is base


def test_a_start_whose_error_is_not_finite_stays_and_spoils_no_other():
    def residuals(grids):
        logs = np.log(grids)
        by_node = np.broadcast_to(np.eye(4), (*logs.shape[:-1], 4, 4))
        return GridResiduals(logs - np.log([8.0, 3.0, 2.0, 1.0]), by_node, np.zeros((*logs.shape[:-1], 3)))

    def errors(grids):
        found = (residuals(grids).values ** 2).sum(axis=-1)
        return np.where(grids[:, 1] > 7.0, np.inf, found), None

    starts = np.array([[8.0, 7.5, 2.0, 1.0], [8.0, 5.0, 1.5, 1.0]])
    descents = Descents(starts, Descent(errors, residuals))
    descents._errors[0] = np.inf  # as where nothing is left for training
    descents.go(30)
    np.testing.assert_allclose(descents.sigmas[0], starts[0], rtol=1e-14)
    np.testing.assert_allclose(descents.sigmas[1], [8.0, 3.0, 2.0, 1.0], rtol=1e-4)


@pytest.mark.parametrize("start", ["noise", "mean", "marginal"])
@pytest.mark.parametrize("terminal", ["denoise", "rescale"])
def test_residuals_beside_a_cost_are_those_alone_and_their_slope_that_of_finite_differences(start, terminal):
    rng = np.random.default_rng(0)
    for sampler in (co.DPMpp2M(), co.Euler(), co.Heun(), co.EulerMaruyama(), co.Ancestral()):
        spectrum = co.Spectrum([4.0, 1.0, 0.1, 0.01], [1, 2, 3, 4], [0.1, 0.2, 0.0, 0.01])
        model = co.GaussianModel(spectrum, sampler=sampler, terminal=terminal, start=start)
        grids = np.array([co.edm_grid(7, stop, 80.0, terminal=terminal) for stop in (0.01, 0.03)])
        nodes = int((grids[0] > 0).sum())
        weights = NodeErrors(*rng.random((3, 2, nodes)))
        found, slope = model.residuals_and_slope(grids, weights)
        alone = model.exact_residuals(grids)
        np.testing.assert_allclose(found.values, alone.values, rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(found.by_node, alone.by_node, rtol=1e-10, atol=1e-14)

        def summed(grids, model=model, weights=weights):
            each = model.node_errors(grids)
            parts = zip(each, weights, strict=True)
            return sum((weight * part).sum(axis=-1) for part, weight in parts if part is not None)

        for node in range(1, nodes):
            near = np.ones(grids.shape[1])
            near[node] = np.exp(1e-5)
            difference = (summed(grids * near) - summed(grids / near)) / 2e-5
            np.testing.assert_allclose(slope[:, node], difference, rtol=1e-5, atol=1e-6 * np.abs(slope).max())
