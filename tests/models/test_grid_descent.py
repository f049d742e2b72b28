"""The Hessian of a descent of nodes."""

import numpy as np

from codesign_opt.models.grid_descent import _corrected


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
