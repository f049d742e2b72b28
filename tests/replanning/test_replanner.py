"""Runs that are planned again: the program against plain cvxpy, the law against a world that obeys it, state, ranks."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import textwrap

import cvxpy as cp
import numpy as np
import pytest

import codesign_opt as co
from codesign_opt.replanning.program import RestOfRun
from codesign_opt.replanning.run_law import RunLaw

FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"
SPECTRUM = co.Spectrum.power_law(8, exponent=1.5)
MODEL = co.GaussianModel(SPECTRUM, process=co.EDM(0.01, 20.0), terminal="rescale")
RULES = co.training.ReplanRules(at=(0.1, 0.2, 0.4, 0.7), levels=16)
TOTAL = 64_000


def bayes(sigma):
    lam, n = SPECTRUM.eigenvalues, SPECTRUM.counts
    return np.array([float((n * lam * s**2 / (lam + s**2)).sum()) for s in np.atleast_1d(sigma)])


def true_parameters(sigma):
    """p of the world: a network that learns the middle of the range slowly."""
    return 20.0 + 200.0 * np.exp(-0.5 * (np.log(sigma / 0.3) / 1.2) ** 2)


def untrained(sigma):
    """Squared error of EDM's skip connection alone, sum n v (c_skip - lambda / v)^2, by hand."""
    lam, n, s = SPECTRUM.eigenvalues, SPECTRUM.counts, np.asarray(sigma)[:, None]
    skip = SPECTRUM.sigma_data**2 / (s**2 + SPECTRUM.sigma_data**2)
    return (n * (lam + s**2) * (skip - lam / (lam + s**2)) ** 2).sum(axis=1)


class World:
    """Losses of a learner whose error at a level is p L / (m + m0), m within a correlation length, each level alone."""

    def __init__(self, run, seed=0):
        self.run, self.seen = run, np.zeros(len(run.levels))
        self.rng = np.random.default_rng(seed)

    def errors(self):
        levels = self.run.levels
        within = self.seen / levels.log_width * self.run.rules.log_width
        one = true_parameters(levels.sigma) * bayes(levels.sigma)
        return one / (within + one / untrained(levels.sigma))  # without examples what it was before

    def step(self, batch, record=True):
        levels = self.run.levels
        sigma = self.run.training_density.quantile(self.rng.random(batch))
        at = np.clip(np.searchsorted(levels.edges, sigma, side="right") - 1, 0, len(levels) - 1)
        mean = bayes(sigma) + self.errors()[at]
        self.seen += np.bincount(at, minlength=len(levels))
        return (sigma, mean * self.rng.chisquare(200, batch) / 200) if record else None


def trained(run, batches=500, seed=0, stop=None):
    world = World(run, seed)
    for _ in range(batches if stop is None else stop):
        run.record(*world.step(TOTAL // batches))
    return world


def terminal(run, errors):
    """Squared terminal error of errors on the levels, by hand: sum of correlation length x g^2 x error, d log sigma."""
    lam, n, s = SPECTRUM.eigenvalues, SPECTRUM.counts, run.levels.sigma[:, None]
    share = n * lam * s**2 / (lam + s**2)
    gain = (share * (lam + run.levels.edges[0] ** 2) / (lam + s**2)).sum(axis=1) / share.sum(axis=1)
    return float((run.rules.log_width * gain * errors * run.levels.log_width).sum())


def best_examples(run, parameters, prior=None):
    """(L,) least sum of c / (m + m0) by hand: m = max(0, sqrt(c / y) - m0), y by bisection."""
    levels = run.levels
    one = parameters * bayes(levels.sigma) * levels.log_width / run.rules.log_width  # the error at one example each
    costs = np.array([terminal(run, np.where(np.arange(len(levels)) == i, one, 0.0)) for i in range(len(levels))])
    worth = np.zeros(len(levels)) if prior is None else one / prior
    low, high = 1e-30, 1e30
    for _ in range(300):
        y = np.sqrt(low * high)
        examples = np.maximum(np.sqrt(costs / y) - worth, 0.0)
        low, high = (y, high) if examples.sum() > TOTAL else (low, y)
    return examples


@pytest.mark.parametrize("caution", [0.0, 0.5, 4.0])
@pytest.mark.parametrize("width", [0.0, 0.7])
def test_a_plan_is_what_plain_cvxpy_finds(width, caution):
    rng = np.random.default_rng(1)
    rules = co.training.ReplanRules(levels=16, transfer=width, trust=0.05, floor=0.2, caution=caution)
    levels = co.Levels.log_uniform(0.01, 20.0, 16)
    q = rng.dirichlet(5 * np.ones(16))
    spent, left = 3_000 * rng.dirichlet(np.ones(16)), 5_000.0
    law = RunLaw(levels.sigma, true_parameters(levels.sigma), np.zeros(16))
    rest = RestOfRun(MODEL, levels, rules, spent, left, q)
    plan = rest.plan(law, trust=rules.trust)

    table = rest.score(law).table
    m = cp.Variable(16, nonneg=True)  # shares of what is left
    pool = table.pooling if width else np.eye(16)
    served = pool @ (spent + left * m) + table.prior_examples
    unit = 1e3 / table.example_error.max()
    kept = float(table.example_error @ (1 / (pool @ (spent + left * q) + table.prior_examples)))
    moved = cp.sum(cp.rel_entr(m, q * cp.sum(m)))
    problem = cp.Problem(
        cp.Minimize(unit / left * (table.example_error @ cp.inv_pos(served / left)) + unit * caution * kept * moved),
        [cp.sum(m) <= 1, cp.sum(cp.rel_entr(m, q * cp.sum(m))) <= rules.trust * cp.sum(m), m >= 0.2 * q],
    )
    problem.solve(solver=cp.CLARABEL)
    assert plan.certificate.optimal
    assert plan.new_examples / left == pytest.approx(m.value, abs=2e-4)
    assert plan.error == pytest.approx(problem.value / unit, rel=1e-5)
    nats = float(moved.value)
    assert rest.error(law, m.value) == pytest.approx(problem.value / unit - caution * kept * nats, rel=1e-5)
    assert rest.error(law, plan.new_examples / left) <= kept * (1 - caution * nats) * (1 + 1e-6)  # it wins what it must
    assert (nats < 0.5 * rules.trust) == (caution == 4.0)  # or the region binds in all
    # what is spent counts: without it the plan is another
    alone = RestOfRun(MODEL, levels, rules, 0 * spent, left, q).plan(law, trust=rules.trust)
    assert np.abs(alone.new_examples - plan.new_examples).max() > 1e-3 * left


def test_table_of_the_program_is_the_error_by_hand():
    levels, many = co.Levels.log_uniform(0.01, 20.0, 16), 10**13  # so many that an untrained denoiser is worth nothing
    run = co.training.Replanner(MODEL, many, rules=RULES, start="spectrum")
    law = RunLaw(levels.sigma, true_parameters(levels.sigma), np.zeros(16))
    rest = RestOfRun(MODEL, levels, co.training.ReplanRules(levels=16, transfer=0.0), np.zeros(16), many, run.start)
    within = many * run.start / levels.log_width * RULES.log_width
    errors = true_parameters(levels.sigma) * bayes(levels.sigma) / within
    assert rest.error(law, run.start) == pytest.approx(terminal(run, errors), rel=1e-6)
    # this first density is the square-root rule of the spectrum alone
    assert run.start == pytest.approx(best_examples(run, np.ones(16)) / TOTAL, rel=1e-4)


@pytest.mark.parametrize("scale", [0.5, 1.0, 7.0, 1e-12, 1e9])
def test_the_first_density_is_the_default_of_edm_in_units_of_the_spread(scale):
    """In the units in which the data's standard deviation is a half it is the one that EDM was tuned with."""
    spectrum = co.Spectrum.from_eigenvalues(scale**2 * np.array([1.6, 0.3, 0.1, 2.0]))
    run = co.training.Replanner(spectrum, 1000, rules=RULES)
    assert run.start.sum() == pytest.approx(1.0)
    assert (run.start > 0).all()
    moved = co.LogNormal(-1.2, 1.2).tails(run.levels.edges * 0.5 / scale)[0]  # the mean variance is scale^2
    if scale < 10 and scale > 1e-3:
        assert run.start == pytest.approx(np.diff(moved) / np.ptp(moved), rel=1e-3, abs=1e-6)


def test_a_run_in_a_world_that_obeys_the_law_learns_it_and_ends_near_the_best():
    rules = co.training.ReplanRules(levels=32, transfer=0.0)
    run = co.training.Replanner(MODEL, TOTAL, rules=rules)
    world = trained(run)
    # lower, an untrained denoiser is worth thousands of examples, which a fit of 1 / m takes for a smaller p
    middle = (run.law.sigma > 0.25) & (run.law.sigma < 3.0)
    off = np.log(run.law.parameters / true_parameters(run.law.sigma))[middle]
    assert np.abs(off).max() < 0.5, off
    assert np.all(np.abs(off) < 3 * run.law.spread[middle] + 0.1)
    stayed = World(run)
    stayed.seen = TOTAL * run.start
    ideal = World(run)
    ideal.seen = best_examples(run, true_parameters(run.levels.sigma), untrained(run.levels.sigma))
    drawn, stay, best = (terminal(run, each.errors()) for each in (world, stayed, ideal))
    assert drawn < stay - 0.75 * (stay - best), (drawn, stay, best)
    report = run.report({"EDM's": co.LogNormal(-1.2, 1.2)})
    assert report.bought == pytest.approx(1 - drawn / stay, abs=0.05)
    assert report.best <= report.error * (1 + 1e-9)
    assert "bought" in str(report)
    for plan in run.plans:
        assert plan.optimal
        assert plan.planned <= plan.kept * (1 + 1e-9)
        assert plan.moved <= rules.trust * (1 + 1e-6)


def test_a_move_of_the_trust_region_costs_about_twice_its_divergence_where_the_density_in_use_was_best():
    levels, rng = co.Levels.log_uniform(0.01, 20.0, 16), np.random.default_rng(2)
    for trust in (0.02, 0.1):
        rules = co.training.ReplanRules(levels=16, transfer=0.0, trust=trust)
        q = rng.dirichlet(20 * np.ones(16))
        law = RunLaw(levels.sigma, np.exp(rng.standard_normal(16)), np.zeros(16))  # what the log says, wrongly
        found = RestOfRun(MODEL, levels, rules, np.zeros(16), 1e6, q).plan(law, trust=trust).new_examples
        share = found / found.sum()
        excess = float((q**2 / share).sum() - 1)  # chi^2: what examples at `share` leave where q is the best
        assert trust < excess < 2 * trust * (1 + 3 * np.sqrt(trust)), (trust, excess)


def test_a_resumed_run_goes_on_to_the_same_bits_and_touches_no_global_generator():
    torch = pytest.importorskip("torch")
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002  the state that must not change

    def begun():
        run = co.training.Replanner(MODEL, 8_000, rules=co.training.ReplanRules(at=(0.25, 0.5), levels=12))
        return run, co.training.SigmaSampler(run, seed=3)

    def step(run, sampler, i):
        sigma = sampler(100, dtype=torch.float64).sigma
        noise = np.random.default_rng(i).chisquare(8, 100) / 8
        left = bayes(sigma.numpy()) * (1 + 30 / (i + 1))
        run.record(sigma.float(), torch.from_numpy(left * noise))
        return sigma

    whole, sampler = begun()
    for i in range(45):
        step(whole, sampler, i)
        if i == 32:
            saved = json.loads(json.dumps([whole.state_dict(), sampler.state_dict()]))
    again, other = begun()
    again.load_state_dict(saved[0])
    other.load_state_dict(saved[1])
    for i in range(33, 45):
        sigma = step(again, other, i)
    assert len(whole.plans) == len(again.plans) == 2
    assert np.array_equal(whole.training_density.now.share, again.training_density.now.share)
    assert again.state_dict() == whole.state_dict()
    assert torch.equal(sampler(64).value, other(64).value)
    assert sigma.shape == (100,)
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002


def test_processes_that_share_their_logs_have_one_plan_that_of_one_process_with_all_examples():
    rules = co.training.ReplanRules(at=(0.25,), levels=12)
    waiting = []
    runs = [co.training.Replanner(MODEL, 8_000, rules=rules, ranks=2, gather=lambda own: waiting) for _ in range(2)]
    alone = co.training.Replanner(MODEL, 8_000, rules=rules)
    rng = np.random.default_rng(0)
    for i in range(20):
        sigma = runs[0].training_density.quantile(rng.random(100))
        loss = bayes(sigma) * (1 + 30 / (i + 1)) * rng.chisquare(8, 100) / 8
        halves = [(sigma[:50], loss[:50]), (sigma[50:], loss[50:])]
        if i == 19:  # what all processes hold when they gather: the last step included
            for run, half in zip(runs, halves, strict=True):
                run.log.record(*half)
            waiting[:] = [run.log.state() for run in runs]
            assert [run._stepped(50) for run in runs] == [True, True]
        else:
            assert [run.record(*half) for run, half in zip(runs, halves, strict=True)] == [False, False]
        alone.record(sigma, loss)
    shares = [run.training_density.now.share for run in (*runs, alone)]
    assert np.array_equal(shares[0], shares[1])
    assert shares[2] == pytest.approx(shares[0], rel=1e-6)
    assert np.abs(shares[0] - runs[0].start).max() > 1e-3


def test_a_log_that_tells_nothing_leaves_the_density_and_says_so():
    run = co.training.Replanner(MODEL, 1_000, rules=co.training.ReplanRules(every=2, levels=12))
    first = run.training_density.now.share.copy()
    rng = np.random.default_rng(0)
    for _ in range(4):
        sigma = run.training_density.quantile(rng.random(50))
        run.record(sigma, np.ones(50))
    assert [plan.note != "" for plan in run.plans] == [True, True]
    assert np.array_equal(run.training_density.now.share, first)


def test_what_is_wrong_is_named():
    rules = co.training.ReplanRules
    run = co.training.Replanner(MODEL, 1_000, rules=rules(levels=12))
    other = co.training.Replanner(MODEL, 2_000, rules=rules(levels=12))
    for call, words in (
        (lambda: rules(at=(0.5, 1.2)), "at ends at 1.2"),
        (lambda: rules(trust=0.0), "ReplanRules.trust"),
        (lambda: rules(floor=1.0), "ReplanRules.floor is 1"),
        (lambda: rules(every=0), "ReplanRules.every"),
        (lambda: co.training.Replanner("data", 10), "a Spectrum or a GaussianModel"),
        (lambda: co.training.Replanner(MODEL, 0), "Replanner.examples"),
        (lambda: co.training.Replanner(MODEL, 10, ranks=2), "Replanner.gather is None with 2 processes"),
        (lambda: co.training.Replanner(MODEL, 10, start=3.0), "Replanner.start is 3.0"),
        (lambda: co.training.Replanner(MODEL, 10, rules=3), "Replanner.rules is 3"),
        (lambda: run.load_state_dict({"seen": 1}), "are needed"),
        (lambda: run.load_state_dict(other.state_dict()), "its examples is 2000, this one's is 1000"),
        (lambda: run.record(np.ones(3), np.ones(4)), "3 noise levels but 4 losses"),
        (lambda: run.report(), "nothing was recorded yet"),
    ):
        with pytest.raises(ValueError, match=words):
            call()


@pytest.mark.skipif(not FULL, reason="CODESIGN_OPT_FULL=1 starts two processes")
def test_two_real_processes_draw_disjoint_strata_and_plan_alike(tmp_path):
    pytest.importorskip("torch")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = tmp_path / "rank.py"
    script.write_text(
        textwrap.dedent("""
        import json, sys
        import numpy as np, torch
        from torch import distributed
        import codesign_opt as co
        rank, port, place = int(sys.argv[1]), sys.argv[2], sys.argv[3]
        distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
        rules = co.training.ReplanRules(at=(0.25, 0.5), levels=12)
        model = co.GaussianModel(co.Spectrum.power_law(8, exponent=1.5), process=co.EDM(0.01, 20.0))
        run = co.training.Replanner(model, 8_000, rules=rules, ranks=2, gather=co.training.gathered)
        sampler = co.training.SigmaSampler(run, seed=7, rank=rank, ranks=2)
        noise, drawn, strata = np.random.default_rng(rank), [], []
        for i in range(45):
            sigma = sampler(50, dtype=torch.float64).sigma
            strata.append(np.floor(run.training_density.tails(sigma.numpy())[0] * 100 + 1e-9).astype(int).tolist())
            left = sigma**2 / (1 + sigma**2) * (1 + 30 / (i + 1))
            run.record(sigma, left * torch.from_numpy(noise.chisquare(8, 50) / 8))
        out = {"strata": strata, "share": run.training_density.now.share.tolist(), "plans": len(run.plans)}
        open(f"{place}/{rank}.json", "w").write(json.dumps(out))
        """)
    )
    ranks = [
        subprocess.Popen([sys.executable, str(script), str(rank), str(port), str(tmp_path)], stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    for process in ranks:
        _, said = process.communicate(timeout=600)
        assert process.returncode == 0, said.decode()
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert first["plans"] == second["plans"] == 2
    assert first["share"] == second["share"], "one log, one plan, to the last bit"
    for one, two in zip(first["strata"], second["strata"], strict=True):
        assert sorted(one + two) == list(range(100)), "each stratum of a step once"
