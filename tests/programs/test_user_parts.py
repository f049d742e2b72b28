"""Programs with parts of the user's own, certified, against the same programs raw in cvxpy in shares of the budget."""

import os

import pytest

from tests.helpers.extensions import extensions
from tests.helpers.raw_user_programs import Plain

FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"
SLOW = ("max of 3", "max of 8", "log-sum-exp")
LIKE_ANOTHER = (  # a cone or a power that another name has too
    "L1 turnover", "group lasso", "maximum of two stages", "kl", "power -0.5", "power -0.75", "power -1.0",
    "largest density", "squares",
)  # fmt: skip
NAMES = [name for name in extensions(Plain(30)) if FULL or name not in SLOW + LIKE_ANOTHER]
PLAIN = {size: Plain(size) for size in ((60, 200, 400) if FULL else (16,))}


@pytest.mark.cases(4)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", list(PLAIN))
def test_an_extension_is_certified_at_the_optimum_of_its_raw_statement(name, size):
    plain = PLAIN[size]
    terms, rows, raw_terms, raw_rows, score = extensions(plain)[name]
    proof = plain.problem(terms, rows, score).solve().certificate
    assert proof.optimal
    truth = plain.raw(raw_terms, raw_rows, score)
    assert proof.value == pytest.approx(truth, rel=1e-6)
    assert proof.lower_bound <= truth * (1 + 1e-9)  # of a point that meets the rows
