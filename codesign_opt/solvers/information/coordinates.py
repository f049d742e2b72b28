"""Coordinates in which all parameters of a block weigh the same, and which of them are determined at all.

docs/theory.md section 7.5. Features of a network differ by many decades and nearly repeat each other: everything here
works on roots A with A^T A = M and never on M, which has the square of their condition.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import qr

from ...basics.checks import Array

__all__ = ["determined", "outside", "root_of", "whitening"]

# directions of M^(1/2) below this fraction of the largest are undetermined: QR leaves noise of 1e-16 in each, and a
# direction that is divided by its length must keep a few digits
_CUT = 1e-11


def root_of(symmetric: Array) -> Array:
    """(n, n) with rows R^T R = the positive semidefinite argument."""
    # not by Cholesky, which stops at a zero eigenvalue; negative ones are rounding
    values, vectors = np.linalg.eigh((symmetric + symmetric.T) / 2)
    return (vectors * np.sqrt(np.maximum(values, 0.0))).T


def determined(rows: Array) -> tuple[Array, Array]:
    """(P, R) orthonormal basis of the directions that rows (any, P) determine, and (R,) their lengths; eats `rows`.

    Of many rows only the triangle of their QR factorisation goes into the decomposition: P x P, whatever their number.
    """
    triangle: Array = qr(rows, mode="r", overwrite_a=True, check_finite=False)[0][: min(rows.shape)]
    _, values, vectors = np.linalg.svd(triangle, full_matrices=False)
    keep = values > _CUT * values.max(initial=0.0)
    return vectors[keep].T, np.asarray(values[keep])


def outside(basis: Array, wanted: Array) -> float:
    """Share of the norm of `wanted` (P, r) outside the span of the orthonormal `basis` (P, R)."""
    missing = float(np.linalg.norm(wanted - basis @ (basis.T @ wanted)))
    return missing / max(float(np.linalg.norm(wanted)), 1e-300)


def whitening(roots: Array, fixed: Array, reference: Array, response: Array) -> tuple[Array, float]:
    """(P, R) with columns W, W^T M W = 1 at the reference, and the part of the response outside M's range.

    Args:
        roots: (L, k, P) A_l; M = fixed^T fixed + sum_l reference_l A_l^T A_l.
        fixed: (any, P).
        reference: (L,) examples.
        response: (P, r).
    """
    rows = (roots * np.sqrt(reference)[:, None, None]).reshape(-1, roots.shape[2])
    rows = np.vstack([rows, fixed])
    lengths = np.sqrt(np.einsum("ij,ij->j", rows, rows))
    # every parameter in a unit of its own, which changes no answer: what counts as undetermined must not depend on how
    # the features are scaled
    unit: Array = np.where(lengths > 0, lengths, 1.0)
    basis, values = determined(rows / unit)
    return basis / values / unit[:, None], outside(basis, response / unit[:, None])
