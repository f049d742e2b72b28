"""10,000 random joint programs: certified, refused, crashed, in disagreement; 900 problems also solved by cvxpy.

OMP_NUM_THREADS=1 PYTHONPATH=. pytest --benchmark-enable -s tests/benchmarks/test_fuzz.py
"""

from __future__ import annotations

import collections
import time

import numpy as np
import pytest

from codesign_opt.solvers.joint.newton import solve_joint
from tests.helpers.crosscheck import KINDS, TIGHT, compare
from tests.helpers.joint import check, random_program

_COUNT = 10_000
_COMPARED = {"joint": 600, "water-filling": 100, "information": 100, "information, blocks": 100}


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


@pytest.mark.parametrize("kind", KINDS)
def test_structured_answers_equal_the_declared_programs_where_cvxpy_certifies(kind):
    """5 to 30 levels, every form, order, bound and budget: rows of one table, and nothing to complain of."""
    begun, count, found, complaints = time.perf_counter(), _COMPARED[kind], [], []
    for seed in range(50_000, 50_000 + count):
        found.append(compare(*KINDS[kind](seed)))
        if found[-1].wrong is not None:
            complaints.append(f"{kind}, seed {seed}: {found[-1].wrong}")
    tight = [c for c in found if c.structured and c.declared <= TIGHT]
    loose = sum(c.declared <= 1e-6 for c in found)
    print(
        f"\n{kind}: {count} instances in {time.perf_counter() - begun:.0f} s; structured answer certified to 1e-6: "
        f"{sum(c.structured for c in found)}, no answer by either: {sum(not np.isfinite(c.own) for c in found)}; "
        f"declared certified to 1e-7: {len(tight)}, to 1e-6: {loose}; worst difference there "
        f"{max(c.difference for c in tight):.1e}, worst crossing of a bound and a value "
        f"{max(c.crossed for c in found):.1e}, worst own gap {max(c.own for c in found if c.structured):.1e}",
        *complaints,
        sep="\n",
    )
    assert not complaints
    assert len(tight) >= 0.7 * count
    assert sum(c.structured for c in found) >= 0.99 * count
