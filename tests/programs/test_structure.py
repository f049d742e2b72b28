"""A structured solver of one's own joins the list, and the certificate judges its answer."""

import numpy as np
import pytest

import codesign_opt as co
import codesign_opt.programs.attempts  # the library's structures are entered before the first test
from codesign_opt.ingredients.grids import steps_on_levels
from codesign_opt.modeling.design import Point
from codesign_opt.programs import structure
from codesign_opt.programs.structure import Answer, Structure, register

TABLE = co.Coefficients(
    co.Levels.log_uniform(0.01, 10.0, 2), score=[1.0, 9.0], floor=[0.0, 0.0], response=np.zeros((0, 2)),
    coupling=co.Local(2.7), terminal="rescale",
)  # fmt: skip
PAID = [co.Compute(co.Prices(1.0, 1.0, 1), part="training") <= 100.0]


class SquareRoots(Structure):
    """m ~ sqrt(A), for a score error alone under one budget at a price of one."""

    method = "square roots"
    whole = True
    shift = 0.0

    def __init__(self, program):
        self.program = program

    @classmethod
    def read(cls, program):
        only = [leaf for _, leaf in program.leaves if isinstance(leaf, co.ScoreError) and leaf.is_structured]
        return cls(program) if len(only) == len(program.leaves) == 1 and program.steps is not None else None

    def solve(self):
        ((name, budget),) = self.program.budgets.items()
        root = np.sqrt(self.program.table.example_error)
        examples = budget.room * (root + self.shift) / (root + self.shift).sum()
        price = (root.sum() / budget.room) ** 2
        return Answer(Point(examples, self.program.spent, self.program.steps), {name: price}, 0 * root, 0 * root)


@pytest.fixture
def known(monkeypatch):
    monkeypatch.setattr(structure, "_KINDS", list(structure._KINDS))


@pytest.mark.usefixtures("known")
def test_a_structure_of_ones_own_is_asked_first_and_its_answer_is_proved():
    problem = co.Problem(co.ScoreError(TABLE), PAID, steps=[9.0, 9.0])
    assert problem.solve().attempts[0]["solver"] == "water-filling"
    register(SquareRoots)
    plan = problem.solve()
    assert [a["solver"] for a in plan.attempts] == ["square roots"]
    np.testing.assert_allclose(plan.examples, [25.0, 75.0], rtol=1e-9)
    assert plan.certificate.optimal


@pytest.mark.usefixtures("known")
def test_a_wrong_answer_of_a_structure_is_refused_and_the_program_declared():
    register(type("Wrong", (SquareRoots,), {"method": "wrong", "shift": 5.0}))
    plan = co.Problem(co.ScoreError(TABLE), PAID, steps=[9.0, 9.0]).solve()
    assert [a["solver"] for a in plan.attempts] == ["wrong", "CLARABEL"]
    np.testing.assert_allclose(plan.examples, [25.0, 75.0], rtol=1e-4)


@pytest.mark.usefixtures("known")
def test_a_structure_that_does_not_know_the_program_is_passed_over():
    register(SquareRoots)
    terms = co.ScoreError(TABLE) + co.Truncation(TABLE)
    assert co.Problem(terms, PAID, steps=[9.0, 9.0]).solve().attempts[0]["solver"] == "water-filling"


def test_the_librarys_structures_are_on_the_list():
    known = {"dual Newton", "interior point", "water-filling", "Newton in shares", "Newton in shares, split"}
    assert {kind.method for kind in structure._KINDS} == known


@pytest.mark.parametrize("seed", range(6))
def test_spent_examples_beside_a_last_evaluation_are_a_floor_of_water_filling(seed):
    rng = np.random.default_rng(seed)
    model = co.GaussianModel(co.Spectrum.power_law(int(rng.integers(2, 40)), exponent=rng.uniform(0.5, 2.5)))
    grid = co.edm_grid(int(rng.integers(4, 20)), 10 ** rng.uniform(-2.5, -1), 80.0)
    table = model.settled(grid, 40)
    run = co.LogNormal(rng.uniform(-3, 2), rng.uniform(0.3, 2.0)).mass(table.levels.edges)
    budget = co.Compute(co.Prices(10 ** rng.uniform(-1, 1), 1.0, 100), part="training") <= 10 ** rng.uniform(4, 7)
    given = {"spent": 10 ** rng.uniform(2, 7) * run, "steps": steps_on_levels(table.levels, grid)}
    problem = co.Problem(co.ScoreError(table), [budget], **given)
    plan, truth = problem.solve(), problem.solve(method="declared")
    assert [a["solver"] for a in plan.attempts] == ["water-filling"]
    assert table.final_score > 0
    assert abs(plan.certificate.relative_gap) <= 1e-12
    assert plan.error == pytest.approx(truth.error, rel=1e-8)
