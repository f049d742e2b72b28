"""The study of where a plan's law is off: rows of its tables."""

import numpy as np
import pytest

pytest.importorskip("torch")

from problems.studies.validation_cases import PER_WEIGHT, SPECTRUM, matrices


def test_full_matrices_with_few_examples_a_weight_leave_more_than_any_law_of_diagonal_ones_says():
    assert SPECTRUM.trace == pytest.approx(16.0)
    first = next(matrices(replicas=3))
    assert first["examples a weight"] == PER_WEIGHT[0]
    assert first["ratio"] == pytest.approx(first["realised"] / first["predicted"])
    assert first["over the programs' law"] > 3  # m - p - 1 of 1.2 d examples and d weights is near 0
    assert np.isfinite(list(first.values())).all()
