"""Closed forms of Euler and stochastic DDIM on Gaussian data, the schedules made from them, and the selection."""

import itertools
import math

import numpy as np
import pytest
from scipy.optimize import minimize

import codesign_opt as co
from codesign_opt import peers
from tests.helpers.gaussian_truth import scalar_output, wasserstein2

PAPER = co.Spectrum([4.0, 1.0, 0.25, 0.05, 0.01], np.ones(5))
SPREAD = {
    "five bands": PAPER,
    "power law": co.Spectrum.power_law(64, exponent=1.5),
    "spiked": co.Spectrum.spiked(100, [10.0, 4.0, 1.0], noise=0.01),
}
EDM_K12 = co.edm_grid(12, 0.02, 50.0)
GRIDS = {"denoise": EDM_K12, "rescale": EDM_K12[:-1]}


def known(spectrum, low=0.002, high=80.0, terminal="denoise", sampler=None):
    return peers.Evidence(
        sigma_min=low, sigma_max=high, terminal=terminal, spectrum=spectrum, sampler=sampler or co.Euler()
    )


def model(spectrum, terminal="denoise", start="marginal", sampler=None, low=0.002, high=80.0):
    return co.GaussianModel(
        spectrum,
        process=co.EDM(sigma_min=low, sigma_max=high),
        sampler=sampler or co.Euler(),
        terminal=terminal,
        start=start,
    )


# closed forms against the recursion


@pytest.mark.parametrize("terminal", ["denoise", "rescale"])
@pytest.mark.parametrize("start", ["marginal", "noise"])
def test_trajectory_equals_the_recursion_integrated_step_by_step(terminal, start):
    grid = GRIDS[terminal]
    found = peers.euler_trajectory(grid, PAPER, start=start)
    for b, lam in enumerate(PAPER.eigenvalues):
        first = lam + grid[0] ** 2 if start == "marginal" else grid[0] ** 2
        for k in range(grid.size):
            std = scalar_output("euler", list(grid[: k + 1]), lam, start=math.sqrt(first))[0] if k else math.sqrt(first)
            assert found[k, b] == pytest.approx(std**2, rel=1e-11)
    law = co.Euler().terminal_law(
        grid, PAPER.eigenvalues, initial_variance=PAPER.eigenvalues * (start == "marginal") + grid[0] ** 2
    )
    np.testing.assert_allclose(found[-1], law.variance, rtol=1e-11)


def test_trajectory_equals_a_simulation_of_ddim():
    rng = np.random.default_rng(0)
    grid, lam, draws = GRIDS["denoise"], 0.25, 200_000
    x = rng.normal(size=draws) * math.sqrt(lam + grid[0] ** 2)
    for s, t in itertools.pairwise(grid):
        denoised = lam / (lam + s * s) * x
        x = denoised + t / s * (x - denoised)
    expected = peers.euler_trajectory(grid, co.Spectrum([lam], [1]))[-1, 0]
    assert abs(x.var() / expected - 1) < 4 * math.sqrt(2 / draws)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("terminal", ["denoise", "rescale"])
@pytest.mark.parametrize("start", ["marginal", "noise"])
def test_both_divergences_equal_those_of_the_exact_law(reverse, terminal, start):
    spectrum = co.Spectrum([4.0, 0.25, 0.01], [1, 3, 2], mean_power=[1.0, 0.5, 0.0])
    grid = GRIDS[terminal]
    exact = model(spectrum, terminal, start).kl_divergence(grid, reverse=reverse)
    closed = peers.euler_kl(grid, spectrum, reverse=reverse, start=start, target="data")
    assert closed == pytest.approx(exact, rel=1e-9)


def test_divergence_to_the_marginal_leaves_out_what_stopping_costs():
    spectrum = co.Spectrum([1.0], [2])
    fine = np.geomspace(50.0, 0.5, 4000)
    assert peers.euler_kl(fine, spectrum) < 1e-6
    ratio = 1.25  # (1 + 0.5^2) / 1
    assert peers.euler_kl(fine, spectrum, target="data") == pytest.approx(1 / ratio - 1 + math.log(ratio), rel=1e-2)


@pytest.mark.parametrize("terminal", ["denoise", "rescale"])
def test_stochastic_closed_form_equals_the_exact_law_of_ancestral_sampling(terminal):
    grid, lam = GRIDS[terminal], PAPER.eigenvalues
    law = co.Ancestral(1.0).terminal_law(grid, lam, initial_variance=lam + grid[0] ** 2)
    target = lam + grid[-1] ** 2
    np.testing.assert_allclose(peers.stochastic_variance_ratio(grid, PAPER), law.variance / target, rtol=1e-10)


def test_path_divergence_equals_the_sum_of_the_single_steps():
    grid = GRIDS["rescale"]
    # KL(exact step | frozen step): same mean, variance larger by Var[x0 | x]
    total = 0.0
    for lam in PAPER.eigenvalues:
        for s, t in itertools.pairwise(grid**2):
            frozen = t * (s - t) / s
            exact = frozen + lam * s / (lam + s) * ((s - t) / s) ** 2
            total += 0.5 * (exact / frozen - 1 - math.log(exact / frozen))
    assert peers.stochastic_path_kl(grid, PAPER) == pytest.approx(total, rel=1e-9)


def test_leading_term_is_reached_at_many_steps_with_the_next_order_falling_off():
    def excess(steps):
        law = peers.Tangent(to_zero=True)
        grid = law.sigmas(steps, known(PAPER, high=1e3))
        energy = peers.path_energy(law.sigmas(4000, known(PAPER, high=1e3)), PAPER)
        return peers.euler_kl(grid, PAPER) / peers.leading_kl(energy, PAPER, steps) - 1

    errors = [abs(excess(k)) for k in (80, 160, 320)]
    assert errors[0] < 0.05
    assert errors[1] < 0.6 * errors[0]
    assert errors[2] < 0.6 * errors[1]


# tangent law


@pytest.mark.parametrize("steps", [3, 4, 6, 9, 12])
def test_tangent_law_is_the_best_of_all_grids_for_one_eigenvalue_at_finite_steps(steps):
    lam, high = 0.25, 80.0
    spectrum = co.Spectrum([lam], [1])
    tangent = peers.Tangent(to_zero=True).sigmas(steps, known(spectrum, high=high))

    def cost(logits):  # all interior knots free: shares of the range in log sigma above a free lowest level
        inner = np.sort(np.exp(logits))[::-1]
        return peers.euler_kl(np.concatenate([[high], inner, [0.0]]), spectrum, reverse=True)

    start = np.log(np.geomspace(high / 4, 0.05, steps - 1))
    found = minimize(cost, start, method="BFGS", options={"gtol": 1e-10})
    best = peers.euler_kl(tangent, spectrum, reverse=True)
    assert best <= found.fun * (1 + 1e-9)
    assert best == pytest.approx(found.fun, rel=1e-6)
    np.testing.assert_allclose(np.sort(np.exp(found.x))[::-1], tangent[1:-1], rtol=1e-2)


def test_tangent_coefficient_equals_a_free_search_over_the_whole_range():
    closed = peers.tangent_coefficient(PAPER)
    assert closed == pytest.approx(0.45376, abs=5e-6)
    steps = 640

    def divergence(g):
        angles = np.linspace(math.pi / 2 - 1e-9, 0.0, steps + 1)
        return peers.euler_kl(np.append(g * np.tan(angles[:-1]), 0.0), PAPER, reverse=True)

    candidates = closed * np.linspace(0.99, 1.01, 81)
    best = candidates[np.argmin([divergence(g) for g in candidates])]
    assert best == pytest.approx(closed, rel=5e-4)
    assert divergence(closed) == pytest.approx(5.704e-5, rel=5e-3)


@pytest.mark.parametrize("spectrum", SPREAD.values(), ids=SPREAD.keys())
def test_tangent_coefficient_of_a_range_equals_a_free_search_there(spectrum):
    low, high, steps = 0.05, 3.0, 600
    found = peers.tangent_coefficient(spectrum, sigma_min=low, sigma_max=high)

    def divergence(g):
        angles = np.linspace(math.atan(high / g), math.atan(low / g), steps + 1)
        return peers.euler_kl(g * np.tan(angles), spectrum)

    candidates = found * np.linspace(0.97, 1.03, 61)
    assert candidates[np.argmin([divergence(g) for g in candidates])] == pytest.approx(found, rel=2e-3)
    closed = peers.tangent_coefficient(spectrum)
    assert divergence(found) <= divergence(closed) * (1 + 1e-9)


def test_path_energy_of_the_tangent_law_equals_its_closed_form():
    law, g = peers.Tangent(coefficient=0.7, to_zero=True), 0.7
    energy = peers.path_energy(law.sigmas(4000, known(PAPER, high=1e5)), PAPER)
    root = np.sqrt(PAPER.eigenvalues)
    np.testing.assert_allclose(energy, math.pi**2 / 8 * (root / g + g / root), rtol=2e-4)


# Euler-Lagrange


@pytest.mark.cases(9)
@pytest.mark.parametrize("spectrum", SPREAD.values(), ids=SPREAD.keys())
@pytest.mark.parametrize("steps", [10, 20, 40])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("to_zero", [False, True])
def test_euler_lagrange_beats_tangent_beats_edm_on_spread_spectra(spectrum, steps, reverse, to_zero):
    for high in (80.0, 1e3):
        best, tangent, edm = (
            peers.euler_kl(law.sigmas(steps, known(spectrum, high=high)), spectrum, reverse=reverse)
            for law in (peers.EulerLagrange(to_zero=to_zero), peers.Tangent(to_zero=to_zero), peers.EDMRho())
        )
        assert best < tangent < edm


def test_euler_lagrange_reaches_the_stated_divergences():
    stated = {10: (0.139, 0.209, 0.931), 40: (0.00934, 0.0141, 0.0635)}
    for steps, numbers in stated.items():
        laws = (peers.EulerLagrange(to_zero=True), peers.Tangent(to_zero=True), peers.EDMRho())
        found = [peers.euler_kl(law.sigmas(steps, known(PAPER, high=1e3)), PAPER, reverse=True) for law in laws]
        np.testing.assert_allclose(found, numbers, rtol=5e-3)


def test_on_the_digits_one_coefficient_does_not_fit_and_euler_lagrange_still_wins():
    datasets = pytest.importorskip("sklearn.datasets")
    spectrum = co.Spectrum.from_samples(datasets.load_digits().data / 8 - 1)
    for steps in (10, 20, 40):
        best, tangent, edm = (
            peers.euler_kl(law.sigmas(steps, known(spectrum)), spectrum, reverse=True)
            for law in (peers.EulerLagrange(), peers.Tangent("range"), peers.EDMRho())
        )
        assert best < 0.6 * min(tangent, edm)


def test_euler_lagrange_is_the_optimum_over_free_grids_at_many_steps():
    spectrum, steps, low, high = PAPER, 24, 0.05, 20.0
    law = peers.EulerLagrange().sigmas(steps, known(spectrum, low, high, "rescale"))

    def cost(logits):
        shares = np.exp(logits - logits.max())
        inner = np.log(high) - np.cumsum(shares / shares.sum()) * np.log(high / low)
        return peers.euler_kl(np.concatenate([[high], np.exp(inner)]), spectrum) * 1e3

    start = np.log(-np.diff(np.log(law)))
    found = minimize(cost, start, method="L-BFGS-B", options={"maxiter": 400, "maxfun": 40_000})
    assert found.fun <= cost(start)
    assert cost(start) <= 1.03 * found.fun  # leading order in 1/K against the exact optimum


def test_for_one_band_euler_lagrange_is_the_closed_form():
    one = co.Spectrum([0.25], [7])
    for terminal in ("denoise", "rescale"):
        tangent = peers.Tangent(0.5).sigmas(9, known(one, terminal=terminal))
        np.testing.assert_allclose(peers.EulerLagrange().sigmas(9, known(one, terminal=terminal)), tangent, rtol=2e-5)
        both = known(one, terminal=terminal)
        np.testing.assert_allclose(
            peers.EulerLagrange(measure="w2").sigmas(9, both), peers.EulerLagrange().sigmas(9, both), rtol=1e-9
        )


def test_w2_weights_lower_w2_and_kl_weights_lower_kl():
    spectrum = SPREAD["power law"]
    grids = {m: peers.EulerLagrange(measure=m).sigmas(30, known(spectrum)) for m in ("kl", "w2")}
    exact = model(spectrum)
    assert exact.wasserstein2(grids["w2"]) < 0.9 * exact.wasserstein2(grids["kl"])
    assert exact.kl_divergence(grids["kl"]) < 0.9 * exact.kl_divergence(grids["w2"])


# stochastic schedules


def test_sde_terminal_is_near_the_free_optimum_and_beats_the_other_laws_at_40_steps():
    one, steps = co.Spectrum([0.25], [1]), 40
    evidence = known(one, 0.002, 80.0, "rescale")

    def divergence(grid):
        ratio = float(peers.stochastic_variance_ratio(grid, one)[0])
        return 0.5 * (ratio - 1 - math.log(ratio))

    laws = {name: divergence(peers.schedule(name).sigmas(steps, evidence)) for name in ("tangent", "log_snr")}
    own = divergence(peers.SDETerminal().sigmas(steps, evidence))
    assert own < laws["tangent"] < laws["log_snr"]

    def cost(logits):
        shares = np.exp(logits - logits.max())
        inner = np.log(80.0) - np.cumsum(shares / shares.sum()) * np.log(80.0 / 0.002)
        return 1e3 * divergence(np.concatenate([[80.0], np.exp(inner)]))

    start = np.log(-np.diff(np.log(peers.SDETerminal().sigmas(steps, evidence))))
    free = minimize(cost, start, method="L-BFGS-B", options={"maxiter": 200, "maxfun": 40_000}).fun / 1e3
    assert free <= own <= 1.06 * free


def test_sde_path_is_uniform_in_log_of_one_plus_snr_and_the_best_of_free_grids():
    lam, steps, low, high = 0.25, 7, 0.05, 20.0
    one = co.Spectrum([lam], [3])
    grid = peers.SDEPath().sigmas(steps, known(one, low, high, "rescale"))
    increments = np.diff(np.log1p(lam / grid**2))
    np.testing.assert_allclose(increments, increments.mean(), rtol=1e-5)
    best = peers.stochastic_path_kl(grid, one)
    rng = np.random.default_rng(1)
    for _ in range(50):
        moved = np.array(grid)
        moved[1:-1] *= np.exp(rng.normal(size=steps - 1) * 0.03)
        assert peers.stochastic_path_kl(np.sort(moved)[::-1], one) > best


def test_sde_path_lowers_the_path_divergence_of_a_spread_spectrum():
    evidence = known(PAPER, 0.01, 50.0, "rescale")
    divergences = {
        name: peers.stochastic_path_kl(peers.schedule(name).sigmas(40, evidence), PAPER)
        for name in ("sde_path", "log_snr", "edm", "tangent")
    }
    assert min(divergences, key=divergences.get) == "sde_path"


@pytest.mark.parametrize(
    ("rho", "variable", "twin"), [(14.0, "variance", 7.0), (7.0, "sigma", 7.0), (1.0, "sigma", 1.0)]
)
def test_power_uniform_holds_the_grids_of_edm(rho, variable, twin):
    found = peers.PowerUniform(rho, variable).sigmas(11, known(PAPER))
    np.testing.assert_allclose(found, peers.EDMRho(twin).sigmas(11, known(PAPER)), rtol=1e-9)
    variance = peers.PowerUniform(1.0).sigmas(5, known(PAPER))[:-1] ** 2
    np.testing.assert_allclose(np.diff(variance), np.diff(variance)[0], rtol=1e-9)


# selection

FEW = {"edm": {"rho": [3.0, 7.0, 15.0]}, "log_snr": {}, "tangent": {"coefficient": ["range", 0.2, 0.6]}, "cosine": {}}


@pytest.mark.parametrize("kind", ["euler", "heun", "dpmpp_2m"])
@pytest.mark.parametrize("steps", [5, 12])
def test_selection_ranks_as_the_exact_errors_do_for_the_sampler_in_use(kind, steps):
    sampler = {"euler": co.Euler(), "heun": co.Heun(), "dpmpp_2m": co.DPMpp2M()}[kind]
    evidence = known(PAPER, 0.01, 40.0, sampler=sampler)
    found = peers.select(evidence, steps, families=FEW, measure="w2")
    exact = [wasserstein2(kind, row.sigmas, PAPER.eigenvalues, PAPER.counts) for row in found.rows]
    np.testing.assert_allclose([row.error for row in found.rows], exact, rtol=1e-8)
    assert exact == sorted(exact)
    assert len(found.rows) == 8 + 2  # a refined value of rho and of the coefficient
    chosen = peers.SpectrumSelect(FEW, measure="w2").sigmas(steps, evidence)
    np.testing.assert_array_equal(chosen, found.best.sigmas)


@pytest.mark.cases(1)
@pytest.mark.parametrize("measure", ["kl", "kl_reverse"])
@pytest.mark.parametrize("terminal", ["denoise", "rescale"])
def test_selection_by_divergence_is_that_of_the_exact_law(measure, terminal):
    evidence = known(PAPER, 0.01, 40.0, terminal, co.Ancestral(1.0))
    exact = model(PAPER, terminal, "noise", co.Ancestral(1.0), 0.01, 40.0)
    found = peers.select(evidence, 9, measure=measure)
    assert len(found.rows) > 40
    for row in found.rows[::7]:
        assert row.error == pytest.approx(exact.kl_divergence(row.sigmas, reverse=measure == "kl_reverse"), rel=1e-12)
    errors = [row.error for row in found.rows]
    assert errors == sorted(errors)
    assert repr(found).splitlines()[0].endswith(f"grids of 9 steps by {measure}:")


def test_the_selected_family_depends_on_the_sampler():
    chosen = {}
    for sampler in (co.Euler(), co.Heun(), co.DPMpp2M()):
        found = peers.select(known(PAPER, sampler=sampler), 8, families={"edm": {}, "tangent": {}, "log_snr": {}})
        chosen[sampler.name] = found.best.schedule.name
    assert chosen == {"euler": "tangent", "heun": "edm", "dpmpp_2m": "log_snr"}


def test_the_selected_grid_is_never_worse_than_any_of_its_families():
    evidence = known(PAPER, sampler=co.Heun())
    best = peers.select(evidence, 8).best.error
    for name in ("edm", "log_snr", "euler_lagrange", "tangent", "cosine"):
        assert best <= peers.select(evidence, 8, families={name: {}}).best.error


def test_selection_of_the_tangent_law_does_not_depend_on_the_unit_of_the_data():
    chosen = []
    for unit in (1e-2, 1.0, 30.0):
        spectrum = co.Spectrum(PAPER.eigenvalues * unit**2, PAPER.counts)
        evidence = known(spectrum, 0.01 * unit, 40.0 * unit, sampler=co.Heun())
        best = peers.select(evidence, 8, families={"tangent": peers.FAMILIES["tangent"]}).best
        chosen.append([best.schedule.scale, *(best.sigmas / unit)])
    np.testing.assert_allclose(chosen[0], chosen[1], rtol=1e-3)
    np.testing.assert_allclose(chosen[2], chosen[1], rtol=1e-3)
    assert chosen[1][0] > 1.5  # Heun wants its levels higher than Euler


def test_families_without_their_evidence_or_levels_are_listed_not_dropped_silently():
    found = peers.select(known(PAPER), 30, families={"edm": {}, "laplace": {"spread": [5.0]}, "score_optimal": {}})
    assert [row.schedule.name for row in found.rows] == ["edm"]
    reasons = {s.name: text for s, text in found.refused}
    assert "truncate" in reasons["laplace"]
    assert "score_cost" in reasons["score_optimal"]
    assert "2 refused" in repr(found)


# bad input


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: peers.euler_kl([1.0, 2.0], PAPER), "sigmas"),
        (lambda: peers.euler_kl(EDM_K12, PAPER, start="zero"), "start"),
        (lambda: peers.euler_kl(EDM_K12, PAPER, target="all"), "target"),
        (lambda: peers.euler_kl(EDM_K12[:-1], co.Spectrum([1.0, 0.0], [1, 1]), target="data"), "infinite"),
        (lambda: peers.euler_trajectory([1.0], PAPER), "sigmas"),
        (lambda: peers.leading_kl([1.0], PAPER, 3), "energy"),
        (lambda: peers.leading_kl(np.ones(5), PAPER, 0), "steps"),
        (lambda: peers.tangent_coefficient(co.Spectrum([1.0, 0.0], [1, 1])), "floor"),
        (lambda: peers.tangent_coefficient(PAPER, floor=-1.0), "floor"),
        (lambda: peers.tangent_coefficient(PAPER, sigma_min=2.0, sigma_max=1.0), "sigma_min"),
        (lambda: peers.Tangent("best"), "Tangent.coefficient"),
        (lambda: peers.Tangent(-1.0), "Tangent.coefficient"),
        (lambda: peers.Tangent(floor=-1.0), "Tangent.floor"),
        (lambda: peers.Tangent(scale=0.0), "Tangent.scale"),
        (lambda: peers.Tangent(to_zero=1), "Tangent.to_zero"),
        (lambda: peers.EulerLagrange(measure="fid"), "EulerLagrange.measure"),
        (lambda: peers.EulerLagrange(eta=-0.5), "EulerLagrange.eta"),
        (lambda: peers.PowerUniform(0.0), "PowerUniform.rho"),
        (lambda: peers.PowerUniform(1.0, "time"), "PowerUniform.variable"),
        (lambda: peers.Tangent().sigmas(5, peers.Evidence(0.1, 1.0)), "Evidence.spectrum"),
        (lambda: peers.select(peers.Evidence(0.1, 1.0), 5), "Evidence.spectrum"),
        (lambda: peers.select(known(PAPER), 5, measure="fid"), "measure"),
        (lambda: peers.select(known(PAPER), 5, families={"none": {}}), "schedule"),
        (lambda: peers.select(known(PAPER), 5, families={}), "empty"),
        (lambda: peers.select(known(co.Spectrum([1.0, 0.0], [1, 1]), terminal="rescale"), 5), "infinite"),
        (lambda: peers.SpectrumSelect(measure="x"), "SpectrumSelect.measure"),
        (lambda: peers.SpectrumSelect(families=["edm"]), "SpectrumSelect.families"),
    ],
)
def test_bad_input_is_refused_by_name(call, word):
    with pytest.raises(ValueError, match=word):
        call()


def test_directions_without_data_are_left_out_under_denoise_and_exact_under_rescale():
    spectrum = co.Spectrum([1.0, 0.0], [2, 3])
    assert peers.euler_kl(EDM_K12, spectrum) == peers.euler_kl(EDM_K12, co.Spectrum([1.0], [2]))
    assert peers.euler_variance_ratio(EDM_K12[:-1], spectrum)[1] == 1.0
    for name in ("tangent", "euler_lagrange", "sde_terminal", "sde_path"):
        grid = peers.schedule(name).sigmas(8, known(spectrum))
        assert np.all(np.diff(grid) < 0)
