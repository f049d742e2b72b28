"""Calls by workers: the same results in the same order."""

import os
import sys

import numpy as np
import pytest

import codesign_opt as co
from codesign_opt.basics.jobs import each_of

MODEL = co.GaussianModel(co.Spectrum.power_law(8, exponent=1.5), co.EDM(0.01, 20.0), sampler=co.Euler())


def frontier(**options):
    return co.frontier(
        MODEL, co.Prices(3.0, 1.0, 100), [1e4, 3e4, 1e5], stopping_sigma=0.05, levels=20, polish=False, **options
    )


def test_workers_give_the_same_frontier_in_order():
    pytest.importorskip("joblib")
    backends = ["threading", "loky"] if os.environ.get("CODESIGN_OPT_FULL") else ["threading"]
    alone = frontier()
    for backend in backends:
        said = []
        found = frontier(n_jobs=2, backend=backend, progress=said.append)
        np.testing.assert_array_equal(found.errors, alone.errors)
        assert said == [f"budget {budget:,.4g}" for budget in alone.values]


def test_what_fails_is_recorded_by_workers_too():
    pytest.importorskip("joblib")
    found = co.frontier(
        MODEL, co.Prices(3.0, 1.0, 100), [50.0, 1e5], stopping_sigma=0.05, levels=20, polish=False, n_jobs=2,
        backend="threading",
    )  # fmt: skip
    assert found.plans[0] is None
    assert "nfeasible" in found.failures[0]
    assert found.plans[1] is not None


def test_no_workers_and_no_joblib_are_refused_by_name(monkeypatch):
    with pytest.raises(ValueError, match="n_jobs is 0"):
        list(each_of(pow, [(1, 2)], n_jobs=0))
    monkeypatch.setitem(sys.modules, "joblib", None)
    assert list(each_of(pow, [(2, 2)])) == [4]
    with pytest.raises(ImportError, match="pip install joblib"):
        list(each_of(pow, [(2, 2)], n_jobs=2))
