"""10,000 random joint programs: certified, refused, crashed, in disagreement.

OMP_NUM_THREADS=1 PYTHONPATH=. pytest -s tests/benchmarks/test_fuzz.py
"""

from __future__ import annotations

import collections
import sys
import time
from pathlib import Path

import numpy as np

from codesign_opt.solvers.joint import solve_joint

sys.path.insert(0, str(Path(__file__).parents[1]))
from _joint import check, random_program

_COUNT = 10_000


def classify(seed):
    """(what became of one instance, the complaint or None)."""
    program = random_program(seed)
    try:
        found = solve_joint(program)
    except Exception as error:
        return "crashed", f"{seed}: {error!r}"
    if found is None:
        return "refused", None
    wrong = check(program, found, np.random.default_rng(seed))
    if wrong is not None:
        return "disagreement", f"{seed}: {wrong}"
    for limit in (1e-9, 1e-6):
        if found.relative_gap <= limit:
            return f"certified to {limit:g}", None
    return "honest larger gap", None


def test_ten_thousand_random_programs_are_certified_or_honestly_not():
    counts: collections.Counter[str] = collections.Counter()
    complaints, begun = [], time.perf_counter()
    for seed in range(100_000, 100_000 + _COUNT):
        kind, complaint = classify(seed)
        counts[kind] += 1
        if complaint is not None:
            complaints.append(complaint)
    print(f"\n{dict(counts)} in {time.perf_counter() - begun:.0f} s", *complaints[:20], sep="\n")
    assert not complaints
    assert counts["certified to 1e-09"] + counts["certified to 1e-06"] >= 0.995 * _COUNT
