"""What a second worker buys: a frontier of 64 budgets and a comparison, against the same work alone.

Run with `CODESIGN_OPT_FULL=1 pytest tests/benchmarks/test_workers.py -s -n 0` on a machine whose processors are free:
two workers of loky are 1.7 times as quick as one at least.
"""

import os
import time

import numpy as np
import pytest

import codesign_opt as co

pytest.importorskip("joblib")
pytestmark = pytest.mark.skipif(
    os.environ.get("CODESIGN_OPT_FULL") != "1" or len(os.sched_getaffinity(0)) < 2,
    reason="minutes on two free processors; CODESIGN_OPT_FULL=1 runs it",
)
MODEL = co.GaussianModel(co.Spectrum.power_law(64, exponent=1.5), co.EDM(0.002, 80.0), sampler=co.Heun())
PRICES = co.Prices(example=3.0, evaluation=1.0, images=10_000)


def _frontier(n_jobs):
    budgets = np.geomspace(3e5, 1e7, 64)
    return co.frontier(MODEL, PRICES, budgets, polish=False, n_jobs=n_jobs, progress=False).errors


def _compare(n_jobs):
    found = co.compare(MODEL, evaluations=[10, 20, 40], n_jobs=n_jobs, progress=False)
    return np.array([row.error for row in found.rows])


@pytest.mark.parametrize(("work", "least"), [(_frontier, 1.7), (_compare, 1.4)])
def test_two_workers_take_little_more_than_half_the_time(work, least):
    seconds, found = {}, {}
    co.frontier(MODEL, PRICES, [1e6, 2e6], levels=20, polish=False, n_jobs=2, progress=False)  # workers are started
    for n_jobs in (1, 2):
        start = time.perf_counter()
        found[n_jobs] = work(n_jobs)
        seconds[n_jobs] = time.perf_counter() - start
    ratio = seconds[1] / seconds[2]
    print(f"{work.__name__[1:]}: {seconds[1]:.1f} s alone, {seconds[2]:.1f} s by two workers, {ratio:.2f} times")
    np.testing.assert_array_equal(found[1], found[2])
    assert ratio >= least
