"""Sensitivities, step responses, truncation and grid descent against closed forms on Gaussian data."""

import os

import numpy as np
import pytest
import torch

import codesign_opt as co
from codesign_opt.basics.ledger import Ledger
from codesign_opt.estimate.draws.statistics import Moments
from codesign_opt.estimate.runs.fine_solution import Draws, Reference, mean_of_draws
from codesign_opt.estimate.runs.step_rule import StepRule
from codesign_opt.estimate.steps.responses import _truncation, _Work, rows_of, step_responses, truncation_error
from codesign_opt.estimate.training_errors.sensitivity import _Work as _Rest
from codesign_opt.estimate.training_errors.sensitivity import difference_of, ratio_of_means, sensitivity
from tests.helpers.processes import of_two

FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"
LAM = np.array([2.0, 0.5, 0.03, 0.2])
TOP, STOP = 20.0, 0.02
DOUBLE = torch.zeros((), dtype=torch.float64)
LEVELS = np.array([0.1, 0.4, 1.0, 4.0])
CLOSE = StepRule.relative(0.01)


def linear(lam=LAM):
    lam = torch.as_tensor(lam)
    return lambda x, sigma: x * (lam.to(x.dtype) / (lam.to(x.dtype) + sigma[:, None] ** 2))


def reference(sampler=None, count=64, terminal="denoise", **options):
    draws = Draws((LAM.size,), count, TOP, chunk=options.pop("chunk", 32), seed=options.pop("seed", 0), like=DOUBLE)
    steps = options.pop("steps", 32)
    return Reference(linear(), sampler or co.Heun(), draws, STOP, terminal, steps)


def weight(terminal):
    stop = LAM + STOP**2
    return LAM**2 / stop if terminal == "denoise" else stop


def terminal_variance(terminal):
    return weight(terminal) * TOP**2 / (LAM + TOP**2)  # of a start at N(0, sigma_max^2), not at the marginal


def within(estimate, truth, errors=3.0, bias=2e-3):
    assert np.all(np.abs(estimate.value - truth) <= errors * estimate.standard_error + bias * np.abs(truth)), (
        estimate.value / truth
    )


# fine solution


def test_the_fine_solution_is_the_exact_flow_and_its_accuracy_bounds_the_error():
    solution = reference(count=8, terminal="rescale", steps=100)
    start, end = solution.draws.start(0), solution.terminal_states(0)
    exact = start * torch.as_tensor(np.sqrt((LAM + STOP**2) / (LAM + TOP**2)))
    error = (end - exact).square().sum(dim=1).mean().item()
    assert error < 1e-5 * end.square().sum(dim=1).mean().item()
    found = float(solution.accuracy().value)  # of order 4: distances of halved steps fall to a sixteenth
    assert error == pytest.approx(found / 15**2, rel=0.1)


def test_states_at_levels_do_not_depend_on_which_others_are_asked_for():
    solution = reference(count=8, terminal="rescale", steps=150)
    alone = solution.path([1.0]).states(0)[0][0]
    among = solution.path([0.1, 1.0, 3.0, 1.0]).states(0)[0][1]
    assert torch.allclose(alone, among, rtol=1e-4)


@pytest.mark.parametrize("sampler", [co.Ancestral(1.0), co.EulerMaruyama(0.7)], ids=repr)
def test_a_stochastic_path_finishes_where_it_went_through(sampler):
    path = reference(sampler, count=8).path(LEVELS)
    states, end = path.states(0)
    for level, x in enumerate(states):
        assert torch.equal(path.finish(0, level, x), end)


# sensitivity


@pytest.mark.parametrize(
    ("method", "terminal"),
    [(method, terminal) for method in ("pairs", "adjoint") for terminal in ("denoise", "rescale")][:: 1 if FULL else 3],
)
def test_isotropic_sensitivity_is_the_mean_of_terminal_over_marginal_variance(method, terminal):
    found = sensitivity(reference(terminal=terminal, steps=48), LEVELS, method=method, probes=2)
    truth = np.array([np.mean(weight(terminal) / (LAM + s**2)) for s in LEVELS])
    within(found.gain, truth)
    assert method == "adjoint" or np.all(np.abs(found.nonlinearity) < 1e-9)


@pytest.mark.parametrize("method", ["pairs", "adjoint"])
def test_directed_sensitivity_weighs_directions_by_the_error_of_the_denoiser(method):
    other = np.array([0.05, -0.02, 0.004, 0.01])  # a second checkpoint: other weights
    changed = lambda x, sigma: linear()(x, sigma) + x * torch.as_tensor(other)  # noqa: E731
    solution = reference(count=600, chunk=200, steps=48)
    found = sensitivity(solution, LEVELS, direction=difference_of(changed, linear()), method=method)
    for m, s in enumerate(LEVELS):
        spread = other**2 * (LAM + s**2) * TOP**2 / (LAM + TOP**2)
        truth = np.sum(weight("denoise") / (LAM + s**2) * spread) / spread.sum()
        assert abs(found.gain.value[m] - truth) <= 3 * found.gain.standard_error[m] + 2e-3 * truth


@pytest.mark.slow
def test_sensitivity_of_the_reverse_sde_forgets_with_the_injected_noise():
    eta = 1.0
    found = sensitivity(reference(co.Ancestral(eta), 2, terminal="rescale", steps=100), [0.1, 1.0])
    truth = [np.mean(((LAM + STOP**2) / (LAM + s**2)) ** (1 + eta**2)) for s in (0.1, 1.0)]
    within(found.gain, np.array(truth), bias=0.1)  # first order in the fine step


def test_a_curved_denoiser_shows_in_the_nonlinearity():
    bent = lambda x, sigma: torch.tanh(x / (0.1 + sigma[:, None] ** 2))  # noqa: E731
    draws = Draws((2,), 16, TOP, like=DOUBLE)
    found = sensitivity(Reference(bent, co.Heun(), draws, STOP), [0.3], relative=0.5)
    assert abs(found.nonlinearity[0]) > 0.01


# responses


MATRIX = [
    (terminal, sampler) for terminal in ("denoise", "rescale") for sampler in (co.Euler(), co.Heun(), co.DPMpp2M())
]


@pytest.mark.cases(1)
@pytest.mark.parametrize(("terminal", "sampler"), MATRIX if FULL else MATRIX[::2], ids=repr)
def test_gram_of_small_steps_is_the_leading_order_of_section_3(sampler, terminal):
    solution = reference(sampler, count=400, chunk=100, terminal=terminal, steps=48)
    found = step_responses(solution, LEVELS, CLOSE)
    local = sampler.local_error(LAM, LEVELS, STOP) * LEVELS ** (sampler.order + 1)
    truth = (local * terminal_variance(terminal)[:, None]).T @ local
    scale = np.sqrt(np.outer(np.diag(truth), np.diag(truth)))
    gap = np.abs(found.gram.value - truth)
    assert np.all(gap <= 3 * found.gram.standard_error + 0.05 * scale), gap / scale


@pytest.mark.slow
@pytest.mark.parametrize("sampler", [co.Ancestral(0.0), co.Ancestral(0.6), co.Ancestral(1.0)], ids=repr)
def test_a_step_of_ancestral_sampling_shrinks_the_law_by_the_leading_order(sampler):
    levels, count, top, stop = np.array([0.4, 1.0]), 5_000, 3.0, 0.1
    draws = Draws((LAM.size,), count, top, chunk=count, like=DOUBLE)
    solution = Reference(linear(), sampler, draws, stop, "rescale", 40)
    work = _Work.prepared(solution, levels, StepRule.relative(0.1), 100, None)
    states, end = work.path.states(0)
    for m, s in enumerate(levels):
        x, move = end.numpy(), (work.scaled(0, m, states, end) * 0.1**2).numpy()
        changes = ((x + move) ** 2 - x**2) / (2 * (x**2).mean(axis=0)) / work.step[m] ** 2
        spread = changes.std(axis=0) / np.sqrt(count)
        truth = -sampler.local_error(LAM, [s], stop)[:, 0]
        assert np.all(np.abs(changes.mean(axis=0) - truth) <= 3 * spread + 0.2 * np.abs(truth)), (s, spread / truth)


def test_a_multistep_response_uses_the_node_before():
    sampler = co.DPMpp2M()
    wide = step_responses(reference(sampler, count=200, chunk=200), [0.4], CLOSE)
    alone = StepRule(CLOSE.next, lambda sigma, start: None)
    bare = step_responses(reference(sampler, count=200, chunk=200), [0.4], alone)
    assert bare.gram.value[0, 0] > 100 * wide.gram.value[0, 0]  # without memory the step is first order


def test_rows_reproduce_the_gram_and_units_convert():
    found = step_responses(reference(count=32), LEVELS, StepRule.of_grid(co.edm_grid(8, 0.05, TOP)))
    rows = found.scaled_response
    np.testing.assert_allclose(rows.T @ rows, found.gram.value, rtol=1e-9, atol=1e-12 * found.gram.value.max())
    np.testing.assert_allclose(found.response * LEVELS**3, rows, rtol=1e-12)
    gram = np.cov(np.random.default_rng(0).normal(size=(6, 40)) * np.logspace(-8, 3, 6)[:, None])
    np.testing.assert_allclose(rows_of(gram).T @ rows_of(gram), gram, rtol=1e-9)


@pytest.mark.slow
def test_the_quadratic_form_at_the_plans_own_steps_predicts_the_error_of_the_grid():
    grid = co.edm_grid(40, 0.05, TOP)
    solution = Reference(linear(), co.Euler(), Draws((4,), 200, TOP, chunk=200, like=DOUBLE), 0.05, steps=100)
    nodes = grid[:-2]
    found = step_responses(solution, nodes, StepRule.of_grid(grid))
    np.testing.assert_allclose(found.step, -np.diff(grid[:-1]), rtol=1e-9)
    predicted = found.step**2 / nodes**2 @ found.gram.value @ (found.step**2 / nodes**2)
    amplitude = co.Euler().terminal_law(grid, LAM).amplitude
    exact = np.sqrt(LAM**2 / (LAM + 0.05**2) / (LAM + TOP**2))
    truth = np.sum((amplitude - exact) ** 2) * TOP**2
    assert predicted == pytest.approx(truth, rel=0.25)  # sampling error 10 %, second order in the steps


def test_a_sketch_keeps_inner_products_on_average():
    wide = np.tile(LAM, 50)
    draws = Draws((wide.size,), 64, TOP, like=DOUBLE)
    solution = Reference(linear(wide), co.Euler(), draws, STOP)
    exact = step_responses(solution, LEVELS, StepRule.relative(0.3)).gram.value
    sketched = step_responses(solution, LEVELS, StepRule.relative(0.3), sketch=100).gram.value
    scale = np.sqrt(np.outer(np.diag(exact), np.diag(exact)))
    assert np.all(np.abs(sketched - exact) < 4 * np.sqrt(2 / (100 * 64)) * scale + 0.02 * scale)


@pytest.mark.parametrize("terminal", ["denoise", "rescale"])
def test_truncation_is_the_exact_distance_of_stopping_early(terminal):
    solution = reference(count=400, chunk=100, terminal=terminal, steps=100)
    found = truncation_error(solution, LEVELS)
    truth = []
    for s in LEVELS:
        handed = LAM / np.sqrt(LAM + s**2) if terminal == "denoise" else np.sqrt(LAM + s**2)
        truth.append(np.sum((handed - np.sqrt(weight(terminal))) ** 2 * TOP**2 / (LAM + TOP**2)))
    within(found, np.array(truth))


# calibration, resumption, processes


def test_ninety_five_percent_intervals_cover_in_ninety_to_ninety_nine_percent():
    lam, sampler, level = LAM, co.Euler(), 0.5
    local = sampler.local_error(lam, [level], STOP)[:, 0] * level**2
    gram_truth = np.sum(local**2 * terminal_variance("denoise"))
    other = torch.as_tensor([0.05, -0.02, 0.004, 0.01])
    spread = other.numpy() ** 2 * (lam + level**2)
    gain_truth = np.sum(weight("denoise") / (lam + level**2) * spread) / spread.sum()
    handed = lam / np.sqrt(lam + level**2)
    stop_truth = np.sum((handed - np.sqrt(weight("denoise"))) ** 2 * TOP**2 / (lam + TOP**2))
    # 200 repeats of 64 draws, all run as one batch
    solution = reference(sampler, count=200 * 64, chunk=200 * 64, steps=50)
    steps = _Work.prepared(solution, np.array([level]), CLOSE, 100, None).chunk(0)[0].numpy()
    table = (
        _Rest(solution, solution.path([level]), lambda x, sigma: x * other, 0.05, 1, Ledger(None, {}))
        .pairs(0)[:, 0]
        .numpy()
    )
    stops = _truncation(solution, solution.path([level]), 0)[:, 0]
    hits = np.zeros(3)
    for part in np.split(np.arange(200 * 64), 200):
        moments = Moments(())
        moments.add((steps[part] ** 2).sum(axis=1))
        gain = ratio_of_means(table[part, 0], table[part, 1])
        found = (moments.estimate(), gain, mean_of_draws(stops[part]))
        for i, (estimate, truth) in enumerate(zip(found, (gram_truth, gain_truth, stop_truth), strict=True)):
            low, high = estimate.interval()
            hits[i] += low <= truth <= high
    assert np.all((hits >= 180) & (hits <= 198)), hits


class Killed(Exception):
    pass


def test_a_run_killed_at_any_batch_goes_on_and_gives_the_same(tmp_path):
    solution = reference(co.DPMpp2M(), count=40, chunk=16, steps=8)
    whole = step_responses(solution, LEVELS, StepRule.relative(0.4))
    gain = sensitivity(solution, LEVELS)
    rng, calls = np.random.default_rng(0), [0]

    def fragile(x, sigma):
        calls[0] -= 1
        if calls[0] < 0:
            raise Killed
        return linear()(x, sigma)

    fragile.__name__ = solution.denoiser.name
    broken = Reference(fragile, solution.sampler, solution.draws, STOP, "denoise", 8)
    kills, found = 0, None
    while found is None:
        calls[0] = int(rng.integers(60, 200))
        try:
            again = sensitivity(broken, LEVELS, folder=tmp_path / "gain")
            found = step_responses(broken, LEVELS, StepRule.relative(0.4), folder=tmp_path / "steps")
        except Killed:
            kills += 1
    assert kills >= 5
    np.testing.assert_array_equal(found.gram.value, whole.gram.value)
    np.testing.assert_array_equal(again.gain.value, gain.gain.value)
    with pytest.raises(ValueError, match="holds results for"):
        step_responses(broken, LEVELS, StepRule.relative(0.3), folder=tmp_path / "steps")


def shared_work():
    solution = reference(co.Heun(), count=40, chunk=8, steps=8)
    gram = step_responses(solution, LEVELS, CLOSE).gram
    return gram.value, gram.standard_error, sensitivity(solution, LEVELS).gain.value


@pytest.mark.slow
def test_two_processes_give_the_result_of_one(tmp_path):
    truth = shared_work()
    for found in of_two(shared_work, tmp_path):
        for ours, theirs in zip(found, truth, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-10)


# bad input


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: reference().path([1e-5]), "outside the fine solution's range"),
        (lambda: step_responses(reference(), [STOP], CLOSE), "no room for a step"),
        (lambda: sensitivity(reference(), [1.0], method="guess"), "method is 'guess'"),
        (lambda: sensitivity(reference(), [1.0], direction=lambda x, s: 0 * x), "direction is zero at sigma = 1"),
        (lambda: Reference(linear(), "heun", Draws((4,), 2, TOP), STOP), "Reference.sampler is 'heun'"),
        (lambda: Reference(linear(), co.Heun(), Draws((4,), 2, TOP), 30.0), "must be below Draws.sigma_max"),
        (lambda: Draws((4,), 0, TOP), "Draws.count is 0"),
        (lambda: StepRule.of_grid([1.0, 0.0]), "one positive level"),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
