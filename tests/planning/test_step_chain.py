"""The chain through every number of steps: more never leave more, whatever a longer descent of fewer would find."""

import os
from itertools import pairwise

import numpy as np
import pytest

import codesign_opt as co
from codesign_opt.planning.grid_fit import ROUNDING, SearchedGrid
from codesign_opt.planning.grid_starts import GridStarts
from codesign_opt.planning.node_moves import resized, stretched
from codesign_opt.planning.question import Study
from codesign_opt.planning.saturation import density_for
from codesign_opt.planning.settling import settle
from codesign_opt.planning.step_chain import StepChain
from codesign_opt.planning.trained_fit import BestExamplesFit
from codesign_opt.planning.untrained_fit import UntrainedFit

FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"


def chain_of(model, stop, stops=None):
    study = Study(model, None, None, 30, None, (), (), 40, 1e-6)
    return StepChain(UntrainedFit(GridStarts(study, study.solve(stop), stops)))


CASES = [  # errors that cancel, nothing trained: each was worse with one step more, or might have been
    (co.DPMpp2M(), co.Spectrum.from_bands([4.0, 0.3, 0.002], [2, 5, 30]), co.EDM(0.01, 50.0)),
    (co.Heun(), co.Spectrum.power_law(16, exponent=1.5), co.VP()),
    (co.EulerMaruyama(1.0), co.Spectrum.from_bands([20.0, 0.01], [1, 40]), co.EDM(0.002, 1e4)),
    (co.Ancestral(1.0), co.Spectrum.power_law(64, exponent=0.5), co.VE()),
    (co.Heun(), co.Spectrum.from_bands([1.0, 0.25], [3, 3]), co.FlowMatching()),
]


@pytest.mark.parametrize("case", range(5) if FULL else (0,))
def test_no_step_that_is_allowed_ever_leaves_more(case):
    sampler, spectrum, process = CASES[case]
    model = co.GaussianModel(spectrum, process=process, sampler=sampler, start="mean")
    sizes = range(2, 41) if FULL else (6, 7)
    plans = [co.codesign(model, steps=k, levels=40, points=5) for k in sizes]
    errors = [float(model.wasserstein2(plan.sigmas)) for plan in plans]
    assert all(after <= before * (1 + 1e-9) + ROUNDING * spectrum.trace for before, after in pairwise(errors))
    for plan, error in zip(plans, errors, strict=True):
        assert plan.handed_out["total"] == pytest.approx(error, rel=1e-9)


def test_links_do_not_depend_on_the_steps_that_are_allowed():
    sampler, spectrum, process = CASES[0]
    model = co.GaussianModel(spectrum, process=process, sampler=sampler, start="mean")
    short, long = (chain_of(model, stop, (0.01, 25.0)) for stop in (0.02, 0.2))  # nor on where the program stops
    best = [chain.up_to(most)[0] for chain, most in ((short, 4), (long, 6))]
    for one, other in zip(short.found, long.found, strict=False):
        np.testing.assert_array_equal(one.sigmas, other.sigmas)
    assert [link.steps for link in long.found] == list(range(2, 8))  # one more, which the last descent stays above
    assert best[0].total >= min(link.total for link in long.found if link.steps <= 5)


def priced_chain(budget, stops=(0.002, 40.0), sampler=None):
    model = co.GaussianModel(co.Spectrum.power_law(8, exponent=1.5), sampler=sampler or co.Heun())
    study = Study(model, co.Prices(3.0, 1.0, 1000), budget, None, None, (), (), 40, 1e-6)
    return StepChain(BestExamplesFit(GridStarts(study, study.solve(0.01), stops)), priced=True)


@pytest.mark.parametrize("sampler", [co.Euler(), co.Heun(), co.Ancestral(1.0)] if FULL else [co.Ancestral(1.0)])
def test_beside_training_links_do_not_depend_on_the_steps_that_are_allowed(sampler):
    sizes = range(3, 60) if FULL else (5, 6)
    chains = [priced_chain(3e5, sampler=sampler) for _ in sizes]
    totals = [chain.up_to(most)[0].total for chain, most in zip(chains, sizes, strict=True)]
    for short, long in pairwise(chains):
        for one, other in zip(short.found, long.found, strict=False):
            np.testing.assert_array_equal(one.sigmas, other.sigmas)
    assert all(after <= before * (1 + 1e-12) for before, after in pairwise(totals))
    for chain, most, total in zip(chains, sizes, totals, strict=True):
        least = chain.up_to(most)[0]
        settled = settle(
            chain.fit.starts.study, least.sigmas, even=True
        )  # a program's examples on levels of the grid's
        assert settled.total <= total * (1 + 1e-9)
        assert settled.total == pytest.approx(total, rel=2e-3)


def test_beside_training_the_chain_ends_after_the_best_and_finishes_that():
    chain = priced_chain(2.5e4)
    found = chain.up_to(1000)
    best = min(chain.found, key=lambda link: link.total)
    assert chain.ended
    assert chain.found[-1].steps < 25
    assert best.steps < chain.found[-1].steps
    assert found[0].total < best.total
    longer = priced_chain(2.5e4)  # where a limit does not bind it changes nothing
    np.testing.assert_array_equal(longer.up_to(found[0].steps + 2)[0].sigmas, found[0].sigmas)


@pytest.mark.parametrize(("budget", "steps"), [(2.5e4, 8), (3e5, 12)])
def test_a_grid_that_its_examples_keep_from_being_the_best_is_not_refined_to_the_end(budget, steps):
    fit = priced_chain(budget).fit
    grid = co.log_snr_grid(steps, 0.01, 80.0)
    (found,) = fit.descended(fit.scored([grid], fit.cost(grid)), fit.cost(grid), 12)
    short, long = (fit.descended([found], fit.cost(grid), moves)[0].total for moves in (6, 20))
    assert long < short < found.total
    examples = found.total - found.bias
    assert fit.refined(found, 1e-3 * examples).total == short  # six moves cannot make up for it, nor can the rest
    assert fit.refined(found, 1.01 * examples).total == long  # fewer examples would do
    assert fit.refined(found, short).total == long  # what the first moves won would make it the best


def test_a_last_descent_ends_where_one_step_more_would_leave_less():
    model = co.GaussianModel(co.Spectrum.power_law(16, exponent=1.5), sampler=co.Heun())
    chain = chain_of(model, 0.01)
    grids = [co.log_snr_grid(k, 0.01, 80.0) for k in (8, 9)]  # poor links: a descent of 8 steps beats the usual 9
    errors = [float(model.wasserstein2(grid)) for grid in grids]
    chain.found.extend(SearchedGrid(grid, error, error) for grid, error in zip(grids, errors, strict=True))
    last = chain._last(chain.found[0])
    assert chain.fit.exhausted(chain.found[0]).total < 0.8 * errors[1]
    assert errors[1] <= last.total < errors[0]
    assert last.total == pytest.approx(float(model.wasserstein2(last.sigmas)), rel=1e-12)


def test_crowded_nodes_leave_less_each_time_that_one_changes_its_place():
    model = co.GaussianModel(co.Spectrum.from_bands([20.0, 0.01], [1, 40]), sampler=co.Ancestral(1.0), start="mean")
    fit = chain_of(model, 0.01).fit
    crowded = np.concatenate([np.geomspace(80.0, 56.0, 9), np.geomspace(0.5, 0.01, 4), [0.0]])
    (found,) = fit.scored([crowded], None)
    errors = [fit.with_moved_nodes(found, None, 1, times).total for times in range(4)]
    assert errors[0] == found.total
    assert all(after < before for before, after in pairwise(errors))


def test_the_chain_ends_where_errors_are_rounding():
    model = co.GaussianModel(co.Spectrum.from_bands([0.25], [64]), sampler=co.Heun(), start="mean")
    plan = co.codesign(model, steps=30, levels=40, points=5)
    assert plan.number_of_steps < 30
    assert plan.handed_out["total"] <= 1e-12 * model.spectrum.trace
    assert any("1e-12 of the data's variance" in note for note in plan.notes)


@pytest.mark.parametrize("terminal", ["denoise", "rescale"])
def test_a_stretched_grid_keeps_its_first_and_last_steps(terminal):
    grid = co.edm_grid(12, 0.01, 80.0, terminal=terminal)
    longer = stretched(grid, 14)
    assert longer.size == 15
    assert np.all(np.diff(longer) < 0)
    tail = np.count_nonzero(grid == 0)
    np.testing.assert_allclose(longer[:3], grid[:3], rtol=1e-12)
    np.testing.assert_allclose(longer[-3 - tail :], grid[-3 - tail :], rtol=1e-12)
    np.testing.assert_array_equal(stretched(grid[-5:], 6), resized(grid[-5:], 6))  # nothing between the ends


def test_money_between_a_step_and_the_last_evaluation_leaves_what_brute_force_leaves():
    # whatever the last evaluation's share: priors that no money matches, errors that nothing else has
    rng = np.random.default_rng(3)
    for _ in range(60):
        (g, h, last), (p, q, r) = 10.0 ** rng.uniform(-12, 3, 3), 10.0 ** rng.uniform(-6, 6, 3)
        price, near, money = (
            rng.uniform(0.5, 10.0, 2),
            np.array([0.0, rng.uniform(0.1, 3.0)]),
            10.0 ** rng.uniform(0, 6),
        )
        given = (np.array([[g, h]]), np.array([[p, q]]), price[None], near[None], np.array([last]), np.array([r]))
        rho, _ = density_for(*given, money)
        assert rho[0] @ price == pytest.approx(money, rel=1e-9)

        def left(share, parts=(g, h, last, p, q, r), price=price, near=near, money=money):
            g, h, last, p, q, r = parts
            first, second = (1 - share) * money / price[0], share * money / price[1]
            return g / (p + first) + h / (q + second) + last / (r + near[1] * second)

        even = np.concatenate([np.geomspace(1e-14, 0.5, 4000), 1 - np.geomspace(1e-14, 0.5, 4000), [0.0, 1.0]])
        found = left(rho[0, 1] * price[1] / money)
        assert found <= left(even).min() * (1 + 1e-9)


def test_a_step_whose_prior_no_money_matches_gets_the_money_and_no_number_that_is_none():
    # the examples of 1,000 random plans: one step without error of its own, known to 1e18 examples beforehand
    rho, worth = density_for(
        np.array([[1.556e-13]]), np.array([[1e18]]), np.array([[3.05]]), np.array([[0.693]]),
        np.array([1.5556]), np.array([9.09e8]), 699.16,
    )  # fmt: skip
    assert rho.item() == pytest.approx(699.16 / 3.05, rel=1e-12)
    assert np.isfinite(worth).all()
