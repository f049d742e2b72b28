"""Membership in the dual cones, cone by cone, against their definitions in longer numbers and against points of K."""

import numpy as np
import pytest

from codesign_opt.basics.cones import Cones
from codesign_opt.certificate.conic import into_dual

LONG = np.longdouble
MARGINS = [1e-12, 1e-10, 1e-8, 1e-6]


def second_order(rng, margin):
    """A point whose head exceeds its tail by a share, and the point of K that tells when it does not."""
    tail = rng.normal(size=4) * 10 ** rng.uniform(-6, 6)
    size = np.linalg.norm(tail)
    return np.append(size * (1 + margin), tail), np.append(1.0, -tail / size)


def exponential(rng, margin):
    """(u, v, w): w = -u exp(v/u - 1) and a share; K touches there at (x, y, z) = (1 - v/u, 1, exp(1 - v/u))."""
    u, ratio = -(10 ** rng.uniform(-4, 4)), rng.uniform(-5, 5)
    edge = -u * np.exp(ratio - 1)
    return np.array([u, u * ratio, edge * (1 + margin)]), np.array([1 - ratio, 1.0, np.exp(1 - ratio)])


def power(rng, margin):
    """(u, w): w = prod (u/a)^a less a share; K touches there at x = a/u, z = -sign(w) prod x^a."""
    a = np.array([0.3, 0.7])
    u = 10 ** rng.uniform(-5, 5, size=2)
    edge, sign = np.prod((u / a) ** a), rng.choice([-1.0, 1.0])
    x = a / u
    return np.append(u, sign * edge * (1 - margin)), np.append(x, -sign * np.prod(x**a))


def semidefinite(rng, margin):
    """A matrix whose least eigenvalue is a share of its size, and the projection on that eigenvector."""
    vectors = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    size = 10 ** rng.uniform(-6, 6)
    return triangle(vectors @ np.diag([margin, 0.5, 1.0]) @ vectors.T * size), triangle(
        np.outer(vectors[:, 0], vectors[:, 0])
    )


def nonnegative(rng, margin):
    return np.array([margin, 1.0]), np.array([1.0, 0.0])


def triangle(matrix):
    """The upper triangle by column, entries off the diagonal times sqrt(2)."""
    columns, rows = np.tril_indices(len(matrix))
    return np.where(rows == columns, 1.0, np.sqrt(2)) * matrix[rows, columns]


KINDS = {
    "nonnegative": (nonnegative, Cones(nonnegative=2)),
    "second order": (second_order, Cones(second_order=(5,))),
    "semidefinite": (semidefinite, Cones(semidefinite=(3,))),
    "exponential": (exponential, Cones(exponential=1)),
    "power": (power, Cones(power=((0.3, 0.7),))),
}


def product(z, s):
    return float(np.sum(z.astype(LONG) * s.astype(LONG)))


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("margin", MARGINS)
def test_inside_by_a_margin_stays_and_outside_by_a_margin_is_moved_by_about_as_much(kind, margin):
    make, cones = KINDS[kind]
    rng = np.random.default_rng(int(-np.log10(margin)))
    for _ in range(50):
        z, _ = make(rng, margin)
        assert np.max(np.abs(into_dual(z, cones) - z)) <= 1e-13 * np.max(np.abs(z))
        outside, touching = make(rng, -margin)
        assert product(outside, touching) < 0  # it is no point of K*, and the test is none without a point to move
        moved = into_dual(outside, cones)
        worth = np.sum(np.abs(moved) * np.abs(touching))
        assert product(moved, touching) >= -1e-19 * worth - (1e-15 * worth if kind == "semidefinite" else 0.0)
        assert np.max(np.abs(moved - outside)) <= 30 * margin * max(np.max(np.abs(outside)), 1e-300)


@pytest.mark.parametrize("kind", ["second order", "exponential", "power"])
def test_what_is_called_inside_is_inside_by_its_definition_in_longer_numbers(kind):
    make, cones = KINDS[kind]
    rng = np.random.default_rng(5)
    for _ in range(400):
        z = into_dual(make(rng, rng.normal() * 10 ** rng.uniform(-17, -9))[0], cones).astype(LONG)
        if kind == "second order":
            assert np.sqrt(np.sum(z[1:] ** 2)) <= z[0]
        elif kind == "exponential":
            assert z[0] < 0
            assert -z[0] * np.exp(z[1] / z[0] - 1) <= z[2]
        else:
            a = np.array([0.3, 0.7], dtype=LONG)
            assert np.prod((z[:2] / a) ** a) >= abs(z[2])


def test_the_edges_of_the_exponential_cone_and_free_rows():
    one = Cones(exponential=1)
    assert into_dual(np.array([0.0, -1.0, -1.0]), one).tolist() == [0.0, 0.0, 0.0]
    assert into_dual(np.array([0.0, 2.0, 3.0]), one).tolist() == [0.0, 2.0, 3.0]
    u, v, w = into_dual(np.array([-1.0, -1e4, 1e-3]), one)  # exp(v/u) beyond the largest number: v is raised instead
    assert -u * np.exp(LONG(v) / LONG(u) - 1) <= w
    assert into_dual(np.array([np.nan, -5.0]), Cones(zero=2)).tolist() == [0.0, -5.0]


@pytest.mark.parametrize("seed", range(3))
def test_cones_of_some_rows_are_those_of_the_rows(seed):
    """Rows told by the number of their cone: restricted to whole cones, every row keeps its neighbours and its kind."""
    rng = np.random.default_rng(seed)
    cones = Cones(3, 4, (2, 5, 3, 2), (2, 4), 3, ((0.2, 0.8), (0.1, 0.4, 0.5), (0.6, 0.4)))
    numbers = np.unique(cones.cone_of_row)
    kept = np.isin(cones.cone_of_row, numbers[rng.random(numbers.size) < 0.5])
    part = cones.restricted(kept)
    rows = np.flatnonzero(kept)
    assert len(part) == rows.size
    assert np.array_equal(rows[part.cone_of_row], cones.cone_of_row[rows])
    blocks = {size: {tuple(block) for block in found} for size, found in named(cones).items()}
    for kind, found in named(part).items():
        assert {tuple(rows[list(block)]) for block in found} <= blocks[kind]


def named(cones):
    """Rows of every cone by its kind."""
    found = {("soc", b.shape[1]): b.tolist() for b in cones.second_order_rows}
    for order, span in cones.semidefinite_rows:
        found.setdefault(("psd", order), []).append(range(span.start, span.stop))
    found["exp"] = cones.exponential_rows.tolist()
    for exponents, rows in cones.power_rows:
        for a, block in zip(exponents.tolist(), rows.tolist(), strict=True):
            found.setdefault(("pow", *a), []).append(block)
    return found
