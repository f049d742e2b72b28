"""Many stopping points at once: the same tables, the same optima and true bounds, or one by one where it can't."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

import numpy as np
import pytest

import codesign_opt as co
from codesign_opt.planning.question import Study
from codesign_opt.planning.stopping_points import _batched, _solve, sweep
from codesign_opt.solvers.joint.batch import BatchSolution, JointBatch, solve_batch
from codesign_opt.solvers.joint.newton import JointProgram, JointSolution, solve_joint
from tests.helpers.joint import check

FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"
STOPS = np.geomspace(0.2, 0.002, 25)
PRICES = co.Prices(example=3.0, evaluation=1.0, images=1_000)
FUNCTIONS = co.Prices(
    example=lambda sigma: 2 + np.log1p(sigma),
    evaluation=lambda sigma: 1.0 + ((sigma > 0.3) & (sigma < 5.0)),
    images=500,
)
RUN = co.TrainingRun(co.LogNormal(-1.2, 1.2), 100, 64)


def model(**changes):
    return co.GaussianModel(**{"spectrum": co.Spectrum.power_law(24, exponent=1.5), **changes})


SGD = co.ConstantStepSGD(1e-3, 64)
BATCHED = {
    "heun": (model(), PRICES, 1e5, None, None),
    "heun, few examples": (model(), PRICES, 2e4, None, None),
    "euler, rescale": (model(sampler=co.Euler(), terminal="rescale"), PRICES, 1e6, None, None),
    "dpmpp, mean": (model(sampler=co.DPMpp2M(), start="mean"), PRICES, 1e6, None, None),
    "steps only": (model(), None, None, 12.0, None),
    "steps only, euler, floors": (model(sampler=co.Euler(), training=SGD), None, None, 20.0, None),
    "budget and idle bound on steps": (model(), PRICES, 1e5, 1e6, None),
    "budget and tight bound on steps": (model(training=SGD), PRICES, 3e5, 12.0, None),
    "spent": (model(), PRICES, 1e5, None, RUN),
    "floors": (model(training=SGD), PRICES, 1e5, None, None),
    "floors, rescale": (model(training=SGD, sampler=co.Euler(), terminal="rescale"), PRICES, 1e6, None, None),
    "ancestral": (model(sampler=co.Ancestral(0.5)), PRICES, 3e5, None, None),
    "reverse SDE": (model(sampler=co.EulerMaruyama(1.0), training=SGD), PRICES, 1e6, None, None),
    "prices as functions": (model(), FUNCTIONS, 1e5, None, None),
    "per step": (model(coupling=co.PerStep(0.5)), PRICES, 1e5, None, None),
    "length as a function": (model(coupling=co.Local(lambda s: 1 + s / (1 + s))), PRICES, 1e5, None, None),
    "full matrix": (model(training=co.AveragedSGD(matrix="full", intercept=True)), PRICES, 1e5, None, None),
    "data set": (model(training=co.AveragedSGD(dataset_size=10**6)), PRICES, 1e5, None, None),
    "a direction without variance": (model(spectrum=co.Spectrum.from_eigenvalues([1.0, 0.0])), PRICES, 1e5, None, None),
    "one dimension": (model(spectrum=co.Spectrum.from_eigenvalues([0.25])), PRICES, 1e5, None, None),
}  # fmt: skip
SINGLY = {
    "smooth coupling": (model(coupling=co.Local(form="p4")), PRICES, 1e5, None, None),
    "blocks": (model(coupling=co.PerLevel([0.001, 0.1, 1.0, 100.0])), PRICES, 1e5, None, None),
}  # fmt: skip


def study(case, levels=60):
    m, prices, budget, steps, run = case
    return Study(m, prices, budget, steps, run, (), (), levels, 1e-6)


def one(program_batch: JointBatch, r: int) -> JointProgram:
    """Member r on its own levels."""
    b, on = program_batch, program_batch.used[r]
    return JointProgram(
        b.errors[r, on], b.floors[r, on], b.kappa[r, on], b.response[r][:, on], b.order,
        b.examples_prices[r][:, on], b.steps_prices[r][:, on], b.budgets[r], spent=b.spent[r, on],
        final_error=float(b.final_error[r]), final_window=b.final_window[r, on], form=b.form,
        final_offset=0.0 if b.final_offset is None else float(b.final_offset[r]),
    )  # fmt: skip


def solution(found: BatchSolution, r: int, on) -> JointSolution:
    return JointSolution(
        found.examples[r, on], found.steps[r, on], float(found.value[r]), float(found.lower_bound[r]),
        float(found.relative_gap[r]), found.budget_multipliers[r], found.band_multipliers[r],
        float(found.window_multiplier[r]), 0,
    )  # fmt: skip


# ------------------------------------------------------------------ tables


@pytest.mark.cases(5)
@pytest.mark.parametrize("name", BATCHED)
def test_tables_of_all_stops_equal_the_table_of_each(name):
    found = study(BATCHED[name])
    table = found.tables(STOPS)
    batch = found.batch(table)
    for r in (0, 7, 24):
        single = found.table(float(STOPS[r]))
        wanted, got = found.program(single), one(batch, r)
        names = ("errors", "floors", "kappa", "examples_prices", "steps_prices", "budgets", "final_window")
        for field in names:
            np.testing.assert_allclose(
                getattr(got, field), getattr(wanted, field), rtol=1e-11, atol=1e-300, err_msg=field
            )
        scale = np.abs(wanted.response).max()
        np.testing.assert_allclose(got.response, wanted.response, rtol=1e-11, atol=1e-14 * scale)
        assert got.final_error == pytest.approx(wanted.final_error, rel=1e-12)
        np.testing.assert_allclose(got.spent, 0 if wanted.spent is None else wanted.spent, rtol=1e-12)
        for field in ("truncation", "initial", "final_floor"):
            assert getattr(table, field)[r] == pytest.approx(getattr(single, field), rel=1e-12)


def test_a_stop_on_an_edge_of_the_levels_cuts_none():
    found = study(BATCHED["heun"])
    edges = co.Levels.log_uniform(0.002, 80.0, 60).edges
    stops = edges[[20, 7, 0]] * np.array([1, 1 + 1e-12, 1])
    batch = found.batch(found.tables(stops))
    assert batch.used.sum(axis=1).tolist() == [len(found.table(float(stop)).levels) for stop in stops] == [40, 53, 60]


# ------------------------------------------------------------------ optima


@pytest.mark.cases(5)
@pytest.mark.parametrize("name", BATCHED)
def test_every_stop_is_solved_in_the_batch_as_one_by_one(name):
    found = study(BATCHED[name])
    for stop in _batched(found, STOPS):
        assert stop is not None
        alone = _solve(found, stop.sigma, None)
        assert stop.error == pytest.approx(alone.error, rel=1e-9)
        assert stop.record["lower_bound"] <= stop.error * (1 + 1e-14)
        assert stop.record["lower_bound"] == pytest.approx(alone.record["lower_bound"], rel=1e-9)
        assert stop.near_examples == pytest.approx(alone.near_examples, rel=1e-4)
        np.testing.assert_allclose(stop.prices, alone.prices, rtol=1e-4, atol=1e-290)
        np.testing.assert_allclose(stop.bands, alone.bands, rtol=1e-3, atol=1e-6 * alone.bands.max())
        assert list(stop.record) == list(alone.record)
        for key in ("score", "floor", "last evaluation", "discretization", "truncation", "initial"):
            assert stop.record[key] == pytest.approx(alone.record[key], rel=1e-3, abs=1e-5 * alone.error)


@pytest.mark.cases(5)
@pytest.mark.parametrize("name", BATCHED)
def test_points_are_inside_and_bounds_are_those_of_an_independent_bisection(name):
    found = study(BATCHED[name], levels=40)
    batch = found.batch(found.tables(STOPS[::6]))
    solved = solve_batch(batch)
    for r in range(len(batch.used)):
        program, answer = one(batch, r), solution(solved, r, batch.used[r])
        if batch.final_error[r] == 0:
            program = replace(program, final_window=None)
        assert check(program, answer, np.random.default_rng(r)) is None
        assert np.all(solved.steps[r, ~batch.used[r]] == 0)
        assert np.all(solved.examples[r, ~batch.used[r]] == 0)


@pytest.mark.parametrize("name", SINGLY)
def test_what_the_batch_does_not_take_is_solved_one_by_one(name):
    found = study(SINGLY[name], levels=30)
    stops = sorted(sweep(found, 0.02, 0.1, 3, lambda text: None), key=lambda stop: stop.sigma)
    for stop in stops[:2]:
        assert stop.error == pytest.approx(_solve(found, stop.sigma, None).error, rel=1e-6)


def random_batch(seed):
    """Members over decades of everything, some with levels that others lack."""
    rng = np.random.default_rng(seed)
    count, bands, size = 12, int(rng.choice([1, 3, 6])), int(rng.choice([2, 5, 30]))
    decades = float(rng.choice([0.5, 2, 5]))

    def spread(*shape):
        return 10 ** rng.uniform(-decades / 2, decades / 2, shape)

    used = np.arange(size) >= rng.integers(0, size, count)[:, None]
    on = used.astype(float)
    errors, kappa = spread(count, size) * on, spread(count, size) * on * 10 ** rng.uniform(-2, 2)
    floors = spread(count, size) * on * (rng.random() < 0.5)
    spent = spread(count, size) * on * (rng.random() < 0.4)
    window = np.where(used & (np.cumsum(used, axis=1) <= max(1, size // 3)), rng.uniform(0.2, 1, (count, size)), 0.0)
    final = spread(count) * 10 ** rng.uniform(-3, 3) if rng.random() < 0.6 else np.zeros(count)
    c, k = (np.where(used, spread(count, size), 1.0)[:, None] for _ in range(2))
    return JointBatch(
        used, errors, floors, kappa, spread(count, bands, size) * on[:, None], int(rng.integers(1, 4)), c, k,
        size * spread(count, 1) * 10 ** rng.uniform(-1, 3), spent, final, window, str(rng.choice(["max", "per_step"])),
    )  # fmt: skip


def test_random_batches_have_true_bounds_and_most_members_are_certified():
    certified = members = 0
    for seed in range(20 if FULL else 10):
        batch = random_batch(seed)
        found = solve_batch(batch)
        for r in np.flatnonzero(found.relative_gap <= 1e-9):
            program = one(batch, r)
            assert check(program, solution(found, r, batch.used[r]), np.random.default_rng(seed)) is None
            assert found.value[r] == pytest.approx(solve_joint(program).value, rel=2e-9)
        certified += int((found.relative_gap <= 1e-9).sum())
        members += found.value.size
    print(f"{certified} of {members} members certified in the batch")
    assert certified >= 0.9 * members


# ------------------------------------------------------------------ who is not asked


class OnlyTables(co.Model):
    """A user's model: tables one by one, nothing more."""

    def __init__(self, inner):
        self.inner, self.spectrum = inner, inner.spectrum

    def coefficients(self, stopping_sigma, levels):
        return self.inner.coefficients(stopping_sigma, levels)

    def settled(self, sigmas, levels=200, *, smooth=False):
        return self.inner.settled(sigmas, levels)


@dataclass(frozen=True)
class Damped(co.Euler):
    """A sampler whose law of the stopping point is its own."""

    name = "damped"

    def local_error(self, eigenvalues, sigma, stopping_sigma):
        return super().local_error(eigenvalues, sigma, stopping_sigma) * (1 + stopping_sigma)


@dataclass(frozen=True)
class Wary(co.AveragedSGD):
    """Training noise whose law of the stopping point is its own."""

    def reducible(self, eigenvalues, counts, sigma, stopping_sigma, **options):
        return super().reducible(eigenvalues, counts, sigma, stopping_sigma, **options) * (1 + stopping_sigma)


@pytest.mark.cases(1)
@pytest.mark.parametrize("own", [OnlyTables(model()), model(sampler=Damped()), model(training=Wary())])
def test_models_with_laws_of_their_own_keep_them(own):
    found = study((own, PRICES, 1e5, None, None), levels=30)
    for stop in sweep(found, 0.02, 0.1, 4, lambda text: None):
        assert stop.error == pytest.approx(_solve(found, stop.sigma, None).error, rel=1e-9)


def test_prices_of_the_wrong_length_are_refused_as_ever():
    prices = co.Prices(example=np.full(7, 3.0), evaluation=1.0, images=10)
    with pytest.raises(ValueError, match=r"Prices\.example has 7 entries"):
        sweep(study((model(), prices, 1e5, None, None)), 0.002, 0.1, 4, lambda text: None)


def test_every_point_is_told_in_order():
    told = []
    stops = sweep(study(BATCHED["heun"]), 0.002, 0.2, 5, told.append)
    assert len(told) == len(stops) > 5
    assert [float(line.split()[2].rstrip(":")) for line in told[:5]] == pytest.approx(
        np.geomspace(0.2, 0.002, 5), rel=1e-3
    )
