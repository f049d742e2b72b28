"""Score-optimal schedules: closed forms, equal cost, the measurement on networks, and the update while training."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.optimize import minimize

import codesign_opt as co
from codesign_opt import peers
from codesign_opt.estimate import Denoiser, score_cost, step_costs
from codesign_opt.estimate.draws.streams import Stream
from codesign_opt.estimate.score_costs import Predictor

ONE = co.Spectrum([0.25], [1])
BANDS = co.Spectrum([2.0, 0.25, 0.01], [1, 3, 4])


def known(spectrum, low=0.002, high=80.0, terminal="denoise"):
    model = co.GaussianModel(spectrum, process=co.EDM(sigma_min=low, sigma_max=high), terminal=terminal)
    return peers.Evidence.of(model)


def draws(spectrum, count, seed=0):
    rng = np.random.default_rng(seed)
    std = np.sqrt(np.repeat(spectrum.eigenvalues, spectrum.counts.astype(int)))
    return torch.as_tensor(rng.normal(size=(count, std.size)) * std)


def linear(spectrum):
    lam = torch.as_tensor(np.repeat(spectrum.eigenvalues, spectrum.counts.astype(int)))
    return lambda x, sigma: lam / (lam + sigma[:, None] ** 2) * x


# closed forms


def test_oracle_length_is_the_integral_of_the_root_of_the_incremental_cost():
    for lam in (0.01, 0.25, 4.0):
        for low, high in ((0.002, 0.1), (0.1, 1.0), (1.0, 80.0)):
            exact = quad(lambda s, lam=lam: 2 * s**2 * (lam + s * s) ** -1.5, low, high, epsrel=1e-12)[0]
            found = peers.gaussian_length(high, lam) - peers.gaussian_length(low, lam)
            assert found == pytest.approx(exact, rel=1e-9)


def test_costs_equal_a_simulation_of_both_scores_at_the_same_points():
    rng = np.random.default_rng(3)
    levels = np.array([4.0, 1.5, 0.6, 0.1])
    lam, n = BANDS.eigenvalues, BANDS.counts
    for velocity in ("source", "receiving"):
        found = peers.corrector_cost(levels, BANDS, velocity=velocity)
        for k, (s, t) in enumerate(pairwise(levels)):
            x = rng.normal(size=(100_000, lam.size)) * np.sqrt(lam + s * s)
            squared = ((x / (lam + s * s) - x / (lam + t * t)) ** 2) @ n * (s if velocity == "source" else t) ** 2
            assert abs(squared.mean() - found[k]) < 4 * squared.std() / np.sqrt(squared.size)


def test_predictor_cost_equals_a_simulation_after_an_euler_step_and_is_of_fourth_order():
    rng = np.random.default_rng(4)
    lam, n, s, t = BANDS.eigenvalues, BANDS.counts, 1.5, 0.6
    x = rng.normal(size=(200_000, lam.size)) * np.sqrt(lam + s * s)
    multiplier = 1 + (t - s) * s / (lam + s * s)
    landed = multiplier * x
    squared = ((landed / (lam + t * t) - landed / (multiplier**2 * (lam + s * s))) ** 2) @ n * t**2
    found = peers.predictor_cost([s, t], BANDS)[0]
    assert abs(squared.mean() - found) < 4 * squared.std() / np.sqrt(squared.size)
    costs = [peers.predictor_cost([1.0 + h, 1.0], BANDS)[0] for h in (0.02, 0.01)]
    assert costs[0] / costs[1] == pytest.approx(16, rel=0.05)
    costs = [peers.corrector_cost([1.0 + h, 1.0], BANDS)[0] for h in (0.02, 0.01)]
    assert costs[0] / costs[1] == pytest.approx(4, rel=0.05)


def test_incremental_cost_is_the_limit_of_the_cost_of_a_step():
    evidence = known(BANDS)
    for sigma in (0.01, 0.3, 5.0):
        delta = np.interp(sigma, evidence.score_cost.sigma, evidence.score_cost.delta)
        h = 1e-4 * sigma
        assert peers.corrector_cost([sigma + h, sigma], BANDS)[0] / h**2 == pytest.approx(delta, rel=3e-3)


# the schedule


@pytest.mark.parametrize("lam", [0.01, 0.25, 4.0])
@pytest.mark.parametrize("steps", [5, 10, 40, 200])
@pytest.mark.parametrize("terminal", ["denoise", "rescale"])
def test_schedule_has_steps_of_equal_length_by_the_oracle(lam, steps, terminal):
    grid = peers.ScoreOptimal().sigmas(steps, known(co.Spectrum([lam], [5]), terminal=terminal))
    lengths = -np.diff(peers.gaussian_length(grid[grid > 0], lam))
    np.testing.assert_allclose(lengths, lengths.mean(), rtol=1e-3)


def test_schedule_inverts_the_oracle_length():
    lam, steps = 0.25, 12
    grid = peers.ScoreOptimal().sigmas(steps, known(ONE, terminal="rescale"))
    ends = peers.gaussian_length(np.array([80.0, 0.002]), lam)
    reached = peers.gaussian_length(grid, lam)
    np.testing.assert_allclose(reached, np.linspace(*ends, steps + 1), atol=1e-3 * ends[0] / steps)


@pytest.mark.parametrize("spectrum", [BANDS, co.Spectrum.power_law(64, exponent=1.5)], ids=["bands", "power law"])
def test_steps_of_any_spectrum_have_equal_length_by_quadrature(spectrum):
    lam, n = spectrum.eigenvalues, spectrum.counts
    for steps in (6, 25):
        grid = peers.ScoreOptimal().sigmas(steps, known(spectrum, terminal="rescale"))
        lengths = [
            quad(lambda s: 2 * s**2 * np.sqrt((lam + s * s) ** -3 @ n), t, s, epsrel=1e-9, limit=200)[0]
            for s, t in pairwise(grid)
        ]
        np.testing.assert_allclose(lengths, np.mean(lengths), rtol=1e-3)


def test_steps_cost_the_corrector_the_same_at_many_steps_and_in_total_the_squared_length_over_k():
    grid = peers.ScoreOptimal().sigmas(4000, known(BANDS, 0.05, 20.0, "rescale"))
    cost = np.sqrt(
        peers.corrector_cost(grid, BANDS, velocity="source") * peers.corrector_cost(grid, BANDS)
    )  # v of the middle
    np.testing.assert_allclose(cost, cost.mean(), rtol=5e-3)
    assert 4000 * cost.sum() == pytest.approx(np.sqrt(cost).sum() ** 2, rel=1e-5)


def test_total_cost_is_the_least_of_free_grids_at_many_steps():
    evidence = known(BANDS, 0.05, 20.0, "rescale")
    grid = peers.ScoreOptimal().sigmas(40, evidence)

    def total(logits):
        shares = np.exp(logits - logits.max())
        inner = np.log(20.0) - np.cumsum(shares / shares.sum()) * np.log(400.0)
        levels = np.concatenate([[20.0], np.exp(inner)])
        both = [peers.corrector_cost(levels, BANDS, velocity=v).sum() for v in ("source", "receiving")]
        return float(np.mean(both))  # the mean of both ends cancels the third order

    start = np.log(-np.diff(np.log(grid)))
    free = minimize(total, start, method="L-BFGS-B", options={"maxiter": 200, "maxfun": 30_000}).fun
    assert free <= total(start) <= 1.02 * free
    for name in ("edm", "log_snr", "tangent"):
        other = peers.schedule(name).sigmas(40, evidence)
        assert total(np.log(-np.diff(np.log(other)))) > total(start)


def test_the_number_of_levels_of_the_fine_grid_does_not_matter():
    coarse, fine = (peers.ScoreOptimal(fine=count).sigmas(20, known(BANDS)) for count in (512, 4096))
    np.testing.assert_allclose(coarse[:-1], fine[:-1], rtol=2e-3)


def test_equal_cost_levels_of_a_fine_grid_are_those_of_the_schedule():
    fine = np.geomspace(80.0, 0.002, 1500)
    cost = peers.corrector_cost(fine, ONE)
    found = peers.equal_cost_levels(fine, cost, 15)
    lengths = -np.diff(peers.gaussian_length(found, 0.25))
    np.testing.assert_allclose(lengths, lengths.mean(), rtol=1e-2)  # the receiving v biases each cost by O(step)


# measured on a denoiser


def test_measured_cost_of_a_linear_denoiser_is_the_closed_form_within_three_standard_errors():
    levels = np.geomspace(0.01, 50.0, 12)
    lam, n = BANDS.eigenvalues, BANDS.counts
    exact = 4 * levels**4 * ((1 / (lam + levels[:, None] ** 2) ** 3) @ n)
    found = score_cost(linear(BANDS), draws(BANDS, 4000), levels)
    assert np.all(np.abs(found.delta - exact) < 3 * found.standard_error)
    assert np.all(found.standard_error < 0.05 * exact)


def test_schedule_from_the_measurement_is_that_of_the_oracle_within_its_standard_error():
    levels = np.geomspace(0.002, 80.0, 60)
    found = score_cost(linear(ONE), draws(ONE, 3000), levels)
    evidence = peers.Evidence(sigma_min=0.002, sigma_max=80.0, score_cost=found)
    fine = evidence.fine(1024)
    delta = np.exp(np.interp(np.log(fine), np.log(levels), np.log(found.delta)))
    measured = np.sum(0.5 * (np.sqrt(delta[1:]) + np.sqrt(delta[:-1])) * np.diff(fine))
    exact = np.diff(peers.gaussian_length(np.array([0.002, 80.0]), 0.25))[0]
    # every level's noise moves sqrt(delta) by half its relative error; they are independent between levels
    weights = np.sqrt(found.delta) * np.gradient(np.log(levels)) * levels
    error = 0.5 * np.sqrt(np.sum((weights * found.standard_error / found.delta) ** 2))
    assert abs(measured - exact) < 3 * error + 1e-3 * exact
    lengths = -np.diff(peers.gaussian_length(peers.ScoreOptimal().sigmas(10, evidence)[:-1], 0.25))
    np.testing.assert_allclose(lengths, lengths.mean(), rtol=0.03)


@pytest.mark.parametrize("kind", ["corrector", "predictor"])
@pytest.mark.parametrize("velocity", ["source", "receiving"])
def test_measured_step_costs_of_a_linear_denoiser_are_the_closed_forms(kind, velocity):
    levels = [5.0, 2.0, 1.0, 0.4, 0.1]
    closed = {"corrector": peers.corrector_cost, "predictor": peers.predictor_cost}[kind]
    exact = closed(levels, BANDS, velocity=velocity)
    found = step_costs(linear(BANDS), draws(BANDS, 1500, 1), levels, kind=kind, velocity=velocity)
    assert np.all(np.abs(found.value - exact) < 3 * found.standard_error + 1e-3 * exact)
    assert np.all(found.standard_error < 0.1 * exact)
    assert found.count == 1500


def test_measured_costs_in_float32_on_images_are_those_in_float64():
    images = draws(ONE, 1500 * 16).reshape(1500, 1, 4, 4)
    levels = np.array([0.1, 0.5, 5.0])

    def denoise(x, sigma):
        return 0.25 / (0.25 + sigma[:, None, None, None] ** 2) * x

    double = score_cost(denoise, images, levels, stream=Stream(batch=100))
    single = score_cost(denoise, images.float(), levels, stream=Stream(batch=100))
    rounding = 1e-7 * (0.25 + levels**2) ** 2 / (2 * 0.02 * levels**4)  # of the squared difference, relative
    assert np.all(np.abs(single.delta / double.delta - 1) < rounding + 1e-5)
    exact = 16 * 4 * levels**4 / (0.25 + levels**2) ** 3
    assert np.all(np.abs(double.delta - exact) < 3 * double.standard_error)
    for kind in ("corrector", "predictor"):
        both = [
            step_costs(denoise, x, levels[::-1], kind=kind, stream=Stream(batch=500)) for x in (images, images.float())
        ]
        np.testing.assert_allclose(both[1].value, both[0].value, rtol=5e-3)


MEANS = torch.tensor([[1.5, 0.0], [-0.7, 1.0], [-0.5, -1.2]], dtype=torch.float64)
WEIGHTS = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)


def mixture(x, sigma):
    """Exact denoiser of three Gaussians of variance 0.09."""
    spread = 0.09 + sigma[:, None] ** 2
    square = ((x[:, None] - MEANS) ** 2).sum(-1)
    share = torch.softmax(WEIGHTS.log() - square / (2 * spread), dim=1)
    inner = MEANS + (0.09 / spread)[..., None] * (x[:, None] - MEANS)
    return (share[..., None] * inner).sum(1)


def test_predictor_cost_with_hutchinson_terms_equals_brute_force_on_a_mixture():
    before, after, probes = 1.0, 0.7, 2000
    x = torch.as_tensor(np.random.default_rng(0).normal(size=(6, 2))) * 1.3

    def landed(point):
        return after / before * point + (1 - after / before) * mixture(point[None], torch.tensor([before]))[0]

    def exact(point):
        jacobian = torch.autograd.functional.jacobian(landed, point)
        at = point.clone().requires_grad_()
        whole = torch.autograd.functional.jacobian(landed, at, create_graph=True)
        (bend,) = torch.autograd.grad(torch.linalg.slogdet(whole)[1], at)
        score = (mixture(point[None], torch.tensor([before]))[0] - point) / before**2
        law = torch.linalg.solve(jacobian.T, score - bend)
        target = landed(point)
        wanted = (mixture(target[None], torch.tensor([after]))[0] - target) / after**2
        assert float(bend.norm()) > 1e-3 * float(score.norm())  # the Hutchinson term is there to be missed
        return float((wanted - law).square().sum())

    truth = np.array([exact(point) for point in x])
    states = x.repeat(probes, 1)
    samples = (
        Predictor().squared(Denoiser.of(mixture), states, (before, after), 0, (0, 0)).numpy().reshape(probes, len(x))
    )
    error = samples.std(axis=0, ddof=1) / np.sqrt(probes)
    assert np.all(np.abs(samples.mean(axis=0) - truth) < 3.5 * error + 2e-3 * truth)


def test_corrector_cost_of_a_mixture_needs_no_gradient_and_does_not_depend_on_the_batches():
    data = MEANS[torch.arange(300) % 3] + 0.3 * torch.as_tensor(np.random.default_rng(1).normal(size=(300, 2)))
    with torch.no_grad():
        found = step_costs(mixture, data, [2.0, 1.0, 0.5], stream=Stream(batch=300))
    again = step_costs(mixture, [data], [2.0, 1.0, 0.5])
    np.testing.assert_array_equal(found.value, again.value)
    first = step_costs(mixture, data, [2.0, 1.0, 0.5], stream=Stream(batch=300), seed=1)
    assert np.all(first.value != found.value)
    assert step_costs(mixture, data, [2.0, 1.0], stream=Stream(batch=64, examples=100)).count == 100


# the update while training


def iterate(levels, velocity, rounds=2000, blend=0.3, cost=peers.corrector_cost, exponent=2.0):
    current = np.array(levels)
    for _ in range(rounds):
        found = cost(current, ONE, velocity=velocity)
        following = peers.equal_cost_levels(current, found, current.size, exponent=exponent)
        following = blend * following + (1 - blend) * current
        change = np.abs(np.log(following / current)).max()
        current = following
        if change < 1e-10:
            break
    return current, change


def test_update_with_v_of_the_receiving_level_has_a_spurious_fixed_point_with_a_giant_last_jump():
    for count, last in ((21, 18.96), (101, 6.39)):
        for start in (np.geomspace(80.0, 0.002, count), co.edm_grid(count, 0.002, 80.0)[:-1]):
            levels, change = iterate(start, "receiving", blend=1.0)
            cost = peers.corrector_cost(levels, ONE)
            assert change < 1e-9
            assert cost.max() / cost.min() < 1 + 1e-6  # equal cost by its own measure
            assert levels[-2] == pytest.approx(last, rel=1e-2)  # and then one jump to 0.002
            lengths = -np.diff(peers.gaussian_length(levels, 0.25))
            assert lengths[-1] > 10 * lengths.mean()


def test_update_with_v_of_the_source_level_stays_near_equal_length():
    for count in (21, 101, 1001):
        for start in (np.geomspace(80.0, 0.002, count), np.linspace(80.0, 0.002, count)):
            levels, change = iterate(start, "source")
            lengths = -np.diff(peers.gaussian_length(levels, 0.25))
            assert change < 1e-9
            assert lengths.min() > 0.64 * lengths.mean()
            assert lengths.max() < 1.04 * lengths.mean()


def test_square_roots_of_a_fourth_order_cost_oscillate_and_fourth_roots_or_blending_converge():
    start = np.geomspace(20.0, 0.2, 21)
    changes = {
        (exponent, blend): iterate(start, "source", 400, blend, peers.predictor_cost, exponent)[1]
        for exponent, blend in ((2.0, 1.0), (2.0, 0.5), (4.0, 1.0))
    }
    assert changes[2.0, 1.0] > 1e-3
    assert changes[2.0, 0.5] < 1e-6
    assert changes[4.0, 1.0] < 1e-6


def test_online_schedule_learns_from_noisy_costs_what_exact_costs_give():
    rng = np.random.default_rng(0)
    online = peers.OnlineSchedule(np.geomspace(80.0, 0.002, 21), blend=0.1, minimum_visits=24)
    tail = []
    for round_ in range(2000):
        levels = online.sigmas
        index = rng.integers(0, 20, size=256)
        exact = peers.corrector_cost(levels, ONE, velocity="source") / levels[:-1] ** 2
        online.observe(index, exact[index] * rng.chisquare(1, size=256))
        online.update()
        if round_ > 500:
            tail.append(np.log(online.sigmas))
    wanted, _ = iterate(np.geomspace(80.0, 0.002, 21), "source")
    np.testing.assert_allclose(np.mean(tail, axis=0), np.log(wanted), atol=0.05)
    assert online.updates > 200


def test_online_schedule_inside_a_training_loop_learns_the_denoiser_and_its_levels():
    generator = torch.Generator().manual_seed(0)
    log_variance = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)  # D = lambda / (lambda + sigma^2) x
    optimizer = torch.optim.Adam([log_variance], lr=0.1)
    online = peers.OnlineSchedule(np.geomspace(80.0, 0.002, 21), blend=0.1, burn_in=100)
    steps, tail = 400, []

    def score(x, sigma):
        return -x / (log_variance.exp() + sigma**2)

    for step in range(steps):
        levels = torch.tensor(online.sigmas)
        index = torch.randint(0, 20, (128,), generator=generator)
        sigma, after = levels[index], levels[index + 1]
        clean = 0.5 * torch.randn(128, generator=generator, dtype=torch.float64)
        x = clean + sigma * torch.randn(128, generator=generator, dtype=torch.float64)
        residual = x + sigma**2 * score(x, sigma) - clean
        loss = (residual**2 * (0.25 + sigma**2) / (0.25 * sigma**2)).mean()
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - step / steps)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            online.observe(index.numpy(), ((score(x, after) - score(x, sigma)) ** 2).numpy())
        moved = online.update()
        assert not (moved and step < 100)
        if step >= steps // 2:
            tail.append(np.log(online.sigmas))
    assert float(log_variance.detach()) == pytest.approx(np.log(0.25), abs=0.1)
    wanted, _ = iterate(np.geomspace(80.0, 0.002, 21), "source")
    np.testing.assert_allclose(np.mean(tail, axis=0), np.log(wanted), atol=0.05)


def test_online_schedule_waits_for_burn_in_and_visits():
    online = peers.OnlineSchedule([4.0, 2.0, 1.0], minimum_visits=2, burn_in=3)
    for _ in range(3):
        online.observe([0, 0, 1, 1], [1.0, 1.0, 1.0, 1.0])
    assert online.visits.tolist() == [0, 0]
    assert not online.update()
    online.observe([0, 0, 1], [1.0, 3.0, 1.0])
    assert online.costs.tolist() == [16.0 * 2.0, 4.0]
    assert not online.update()
    online.observe([1], [1.0])
    kept = online.state()
    assert online.update()
    moved = online.sigmas
    assert np.isnan(online.costs).all()
    other = peers.OnlineSchedule([5.0, 2.0, 1.0], minimum_visits=2)
    other.restore(kept)
    assert other.update()
    np.testing.assert_array_equal(other.sigmas, moved)
    assert other.calls == 5


# bad input

DATA = draws(ONE, 8)


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: peers.ScoreOptimal().sigmas(5, peers.Evidence(0.1, 1.0)), "Evidence.score_cost"),
        (
            lambda: peers.ScoreOptimal().sigmas(
                5, peers.Evidence(0.1, 1.0, score_cost=peers.ScoreCost([0.2, 1.0], [1.0, 1.0]))
            ),
            "covers",
        ),
        (
            lambda: peers.ScoreOptimal().sigmas(
                5, peers.Evidence(0.1, 1.0, score_cost=peers.ScoreCost([0.1, 1.0], [0.0, 0.0]))
            ),
            "0 everywhere",
        ),
        (lambda: peers.ScoreOptimal(exponent=0.0), "ScoreOptimal.exponent"),
        (lambda: peers.ScoreOptimal(floor=2.0), "ScoreOptimal.floor"),
        (lambda: peers.ScoreOptimal(fine=3), "ScoreOptimal.fine"),
        (lambda: peers.ScoreCost([0.1, 1.0], [1.0, 1.0], [1.0]), "ScoreCost.standard_error"),
        (lambda: peers.corrector_cost([1.0, 0.0], ONE), "sigmas"),
        (lambda: peers.corrector_cost([1.0, 0.5], ONE, velocity="mean"), "velocity"),
        (lambda: peers.predictor_cost([0.5, 1.0], ONE), "sigmas"),
        (lambda: peers.gaussian_length(1.0, 0.0), "eigenvalue"),
        (lambda: peers.gaussian_length(-1.0, 1.0), "sigma"),
        (lambda: peers.equal_cost_levels([2.0, 1.0], [1.0, 1.0], 3), "costs"),
        (lambda: peers.equal_cost_levels([2.0, 1.0], [0.0], 3), "0 everywhere"),
        (lambda: peers.equal_cost_levels([2.0, 1.0], [1.0], 1), "count"),
        (lambda: peers.OnlineSchedule([2.0, 1.0]), "sigmas"),
        (lambda: peers.OnlineSchedule([4.0, 2.0, 1.0], blend=0.0), "blend"),
        (lambda: peers.OnlineSchedule([4.0, 2.0, 1.0], velocity="x"), "velocity"),
        (lambda: peers.OnlineSchedule([4.0, 2.0, 1.0]).observe([2], [1.0]), "intervals"),
        (lambda: peers.OnlineSchedule([4.0, 2.0, 1.0]).observe([0.5], [1.0]), "intervals"),
        (lambda: peers.OnlineSchedule([4.0, 2.0, 1.0]).observe([0, 1], [1.0]), "intervals"),
        (lambda: peers.OnlineSchedule([4.0, 2.0, 1.0]).observe([0], [-1.0]), "squared"),
        (lambda: peers.OnlineSchedule([4.0, 2.0, 1.0]).restore({"sigmas": [2.0, 1.0]}), "state sigmas"),
        (lambda: score_cost(linear(ONE), DATA, [1.0, 0.5]), "sigma"),
        (lambda: score_cost(linear(ONE), DATA, [0.5, 1.0], step=0.0), "step"),
        (lambda: score_cost(linear(ONE), DATA[:1], [0.5, 1.0]), "at least 2"),
        (lambda: score_cost(linear(ONE), DATA, [0.5, 1.0], stream=Stream(examples=1)), "examples"),
        (lambda: score_cost("net", DATA, [0.5, 1.0]), "denoiser"),
        (lambda: step_costs(linear(ONE), DATA, [0.5, 1.0]), "sigmas"),
        (lambda: step_costs(linear(ONE), DATA, [1.0, 0.5], kind="both"), "kind"),
        (lambda: step_costs(linear(ONE), DATA, [1.0, 0.5], velocity="x"), "velocity"),
        (lambda: step_costs(linear(ONE), DATA, [1.0, 0.5], kind=Predictor(probes=1)), "probes"),
        (
            lambda: step_costs(torch.no_grad()(linear(ONE)), DATA, [1.0, 0.5], kind="predictor"),
            "carries no gradient",
        ),
        (
            lambda: step_costs(linear(BANDS), draws(BANDS, 8), [10.0, 0.01], kind=Predictor(iterations=1)),
            "iterations",
        ),
    ],
)
def test_bad_input_is_refused_by_name(call, word):
    with pytest.raises(ValueError, match=word):
        call()
