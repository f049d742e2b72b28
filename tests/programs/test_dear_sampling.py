"""What training costs beside a sampler that costs up to 1e14 times as much: bounds against exact fractions."""

from fractions import Fraction

import cvxpy as cp
import numpy as np
import pytest

import codesign_opt as co
from tests.helpers.raw_user_programs import own

SIZE = 6


class Dear:
    """Steps that are given, or held by floors, and a budget that leaves one part in `ratio` for training."""

    def __init__(self, ratio, seed=0):
        rng = np.random.default_rng([seed, int(np.log10(ratio))])
        levels = co.Levels.log_uniform(0.01, 30.0, SIZE)
        lengths = levels.log_width * rng.uniform(0.1, 1.0, SIZE)
        self.table = co.Coefficients(
            levels, score=np.exp(rng.normal(size=SIZE)), floor=np.zeros(SIZE), response=1e-3 * np.ones((1, SIZE)),
            coupling=co.PerStep(lambda _: lengths), terminal="rescale",
        )  # fmt: skip
        self.steps = rng.uniform(0.3, 3, SIZE)
        self.example, self.step = np.exp(rng.normal(size=(2, SIZE)))
        self.step = self.step * ratio
        self.sampled = sum(
            Fraction(k) * Fraction(n) for k, n in zip(self.step.tolist(), self.steps.tolist(), strict=True)
        )
        self.budget = float(self.sampled * (1 + Fraction(3, int(ratio))))
        error = self.table.log_width**2 * self.table.score * levels.log_width / lengths / self.steps
        self.room = float(Fraction(self.budget) - self.sampled)
        # water-filling, and the sampler's own error
        self.score = float(np.sqrt(error * self.example).sum() ** 2 / self.room)
        self.truth = self.score + float((1e-3 * levels.log_width**2 / self.steps).sum() ** 2)
        self.examples = np.sqrt(error / self.example) * self.room / np.sqrt(error * self.example).sum()

    def problem(self, *terms, floors=False):
        objective = co.ScoreError(self.table) + co.Discretization(self.table)
        for term in terms:
            objective = objective + own(term)
        budget = co.Compute(co.Prices(self.example, self.step, 1)) <= self.budget
        if floors:
            return co.Problem(objective, [budget, co.Floor(self.steps, "steps")])
        return co.Problem(objective, [budget], steps=self.steps)


@pytest.mark.parametrize("method", ["auto", "declared"])
@pytest.mark.parametrize("ratio", [1e8, 1e10, 1e12, 1e14])
def test_training_beside_a_given_sampler_is_certified_at_the_value_of_fractions(ratio, method):
    dear = Dear(ratio)
    proof = dear.problem().solve(method=method).certificate
    assert proof.value == pytest.approx(dear.truth, rel=1e-12 if method == "auto" else 1e-6)
    assert proof.lower_bound <= dear.truth * (1 + 1e-14)
    assert proof.optimal


@pytest.mark.parametrize("ratio", [1e10, 1e12])
def test_bounds_beside_steps_held_by_floors_lie_below_a_design_that_is_feasible(ratio):
    for seed in range(3):
        dear = Dear(ratio, seed)
        proof = dear.problem(floors=True).solve().certificate
        assert proof.optimal
        assert dear.truth * (1 - 1e-6) <= proof.lower_bound <= dear.truth * (1 + 1e-12)


def test_a_kink_beside_a_sampler_that_is_given_and_dear_is_certified():
    dear = Dear(1e12)
    weight = 0.1 * dear.score

    def worst(design):
        return weight * cp.max(cp.multiply(dear.examples, cp.inv_pos(design.examples)))

    proof = dear.problem(worst).solve().certificate
    # at the water-filling's optimum all entries of the maximum are 1: moving off it raises both
    assert proof.value == pytest.approx(dear.truth + weight, rel=1e-6)
    assert proof.lower_bound <= (dear.truth + weight) * (1 + 1e-12)
    assert proof.optimal


def test_certify_says_how_far_half_of_the_training_is_from_the_optimum():
    dear = Dear(1e12)
    problem = dear.problem()
    within = problem.certify(examples=dear.examples * (1 - 1e-9))
    half = problem.certify(examples=0.5 * dear.examples)
    assert within.optimal
    assert half.relative_gap == pytest.approx(0.5, rel=1e-6)  # twice the score error, of which half could go
