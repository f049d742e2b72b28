"""GITS against enumeration, the recurrence of its released code, and EDM's grid on Gaussian data."""

from itertools import combinations

import numpy as np
import pytest

import codesign_opt as co
from codesign_opt.peers import GITS, EDMRho, Evidence, Trajectories, step_errors


def small_teacher(seed, levels=8, draws=5, dimensions=3):
    rng = np.random.default_rng(seed)
    sigma = np.sort(np.exp(rng.uniform(-3, 3, levels)))[::-1]
    shape = (levels, draws, dimensions)
    return Trajectories(sigma, rng.normal(size=shape).cumsum(axis=0), rng.normal(size=shape))


def evidence_of(teacher, terminal="rescale"):
    ends = {"sigma_min": float(teacher.sigma[-1]), "sigma_max": float(teacher.sigma[0])}
    return Evidence(**ends, terminal=terminal, trajectories=teacher)


def error_by_hand(teacher, metric, i, j):
    """One entry of the cost, draw by draw."""
    found = []
    for x, d, end, first, last in zip(
        teacher.states[i], teacher.slopes[i], teacher.states[j], teacher.states[0], teacher.states[-1], strict=True
    ):
        reached = x + (teacher.sigma[j] - teacher.sigma[i]) * d
        if metric == "dev":
            chord = (last - first) / np.sqrt(((last - first) ** 2).sum())
            off = [p - first - chord * float(chord @ (p - first)) for p in (reached, end)]
            found.append(np.sqrt((off[0] ** 2).sum()) - np.sqrt((off[1] ** 2).sum()))
        else:
            found.append(np.abs(reached - end).sum() if metric == "l1" else np.sqrt(((reached - end) ** 2).sum()))
    return np.mean(found)


@pytest.mark.parametrize("metric", ["l1", "l2", "dev"])
def test_cost_is_the_mean_error_of_one_straight_step(metric):
    teacher = small_teacher(0)
    errors = step_errors(teacher, metric)
    for i, j in combinations(range(8), 2):
        assert errors[i, j] == pytest.approx(error_by_hand(teacher, metric, i, j), rel=1e-10, abs=1e-12)
    assert np.all(np.tril(errors) == 0)


@pytest.mark.parametrize("metric", ["l1", "l2", "dev"])
@pytest.mark.parametrize("coefficient", [0.8, 1.0, 1.15])
def test_grid_is_the_best_of_all_subsets_of_the_teachers_levels(metric, coefficient):
    for seed in range(10):
        teacher = small_teacher(seed)
        errors = step_errors(teacher, metric)
        for steps in (1, 2, 4, 7):
            paths = [(0, *middle, 7) for middle in combinations(range(1, 7), steps - 1)]
            value = [sum(coefficient**k * errors[p[k], p[k + 1]] for k in range(steps)) for p in paths]
            best = teacher.sigma[list(paths[int(np.argmin(value))])]
            found = GITS(metric, coefficient).sigmas(steps, evidence_of(teacher))
            np.testing.assert_array_equal(found, best)


def test_grid_is_that_of_the_released_recurrence():
    """V[j][k] = min_i cost[j][i] + coefficient V[i][k - 1], read out from the first level on."""
    teacher = small_teacher(3, levels=15)
    cost, steps = step_errors(teacher), 6
    value = np.full((15, steps + 1), np.inf)
    value[:, 1] = cost[:, -1]
    for k in range(2, steps + 1):
        for j in range(14):
            for i in range(j + 1, 14):
                value[j][k] = min(value[j][k], cost[j][i] + 1.15 * value[i][k - 1])
    path, here = [0], 0
    for k in range(steps, 1, -1):
        here = next(i for i in range(here + 1, 15) if value[here][k] == cost[here][i] + 1.15 * value[i][k - 1])
        path.append(here)
    np.testing.assert_array_equal(GITS().sigmas(steps, evidence_of(teacher)), teacher.sigma[[*path, 14]])


@pytest.mark.parametrize(
    ("spectrum", "steps", "share"),
    [
        (co.Spectrum.from_eigenvalues([0.25]), 5, 0.29),
        (co.Spectrum.from_eigenvalues([0.25]), 8, 0.29),
        (co.Spectrum.from_eigenvalues([0.25]), 10, 0.29),
        (co.Spectrum.power_law(16, exponent=1.5), 5, 0.72),
        (co.Spectrum.power_law(16, exponent=1.5), 8, 0.60),
        (co.Spectrum.power_law(16, exponent=1.5), 10, 0.65),
    ],
)
def test_grid_beats_edm_for_euler_at_few_steps_on_gaussian_data(spectrum, steps, share):
    model = co.GaussianModel(spectrum, sampler=co.Euler())
    evidence = Evidence.of(model)
    error = [float(model.wasserstein2(kind.sigmas(steps, evidence))) for kind in (GITS(), EDMRho())]
    assert error[0] < share * error[1]


@pytest.mark.parametrize("terminal", ["denoise", "rescale"])
def test_all_levels_of_the_teacher_are_the_grid_when_all_are_asked_for(terminal):
    teacher = small_teacher(1)
    found = GITS().sigmas(8 if terminal == "denoise" else 7, evidence_of(teacher, terminal))
    np.testing.assert_array_equal(found[found > 0], teacher.sigma)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: GITS("l3"), r"GITS.metric is 'l3'"),
        (lambda: GITS(coefficient=0.0), r"GITS.coefficient is 0"),
        (lambda: step_errors(small_teacher(0), "mean"), r"metric is 'mean'"),
        (lambda: GITS().sigmas(5, Evidence(sigma_min=0.1, sigma_max=1.0)), r"gits needs Evidence.trajectories"),
        (lambda: GITS().sigmas(9, evidence_of(small_teacher(0))), r"10 levels are asked of a teacher with 8"),
        (
            lambda: GITS().sigmas(2, Evidence(sigma_min=1e-6, sigma_max=1e6, trajectories=small_teacher(0))),
            r"solve the teacher on that range",
        ),
    ],
)
def test_bad_input_is_refused_by_name(call, text):
    with pytest.raises(ValueError, match=text):
        call()
