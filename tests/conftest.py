"""Every test runs with one thread per process (two cores, small matrices), figures without a screen."""

import os

import pytest

pytest.register_assert_rewrite("tests.helpers")

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")
os.environ.setdefault("MPLBACKEND", "Agg")
