"""Every declared problem against its reference, found with 400 levels and 40 stopping points.

python -m pytest tests/benchmarks/test_problems_full.py
"""

import pytest

from codesign_opt import problems

NAMES = [name for name in problems.names() if problems.reference(name)]  # weights of a network differ by machine


def loaded(name, **overrides):
    """The problem, or a skipped test where its data are not installed."""
    try:
        return problems.load(name, **overrides)
    except FileNotFoundError as absent:
        pytest.skip(str(absent))


@pytest.mark.parametrize("name", NAMES)
def test_problem_reaches_its_reference(name):
    plan = loaded(name).solve()
    expected = problems.reference(name)
    assert plan.certificate.optimal
    assert plan.error == pytest.approx(expected["error"], rel=expected["rtol"])
    assert not plan.outer.get("at_end", False)


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("custom_constraint", "clipped_allocation")])
@pytest.mark.parametrize("levels", [100, 200, 400])
def test_the_number_of_levels_changes_nothing(name, levels):
    plan = loaded(name, levels=levels).solve()
    assert plan.error == pytest.approx(problems.reference(name)["error"], rel=1e-3)
