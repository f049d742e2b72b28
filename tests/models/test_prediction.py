"""Predictions of any grid and training, against denoisers trained from drawn examples and sampled in plain numpy."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import integrate, stats

import codesign_opt as co
from codesign_opt.models.node_sums import examples_that_count

LAM = np.array([2.0, 0.5, 0.05])
GRID = np.array([8.0, 3.0, 1.0, 0.3, 0.0])


def model_of(**parts):
    spectrum = co.Spectrum.from_eigenvalues(LAM)
    parts = {"sampler": co.Euler(), "start": "mean", "training": co.AveragedSGD(prior=None)} | parts
    return co.GaussianModel(spectrum, co.EDM(0.01, 8.0), **parts)


def run_euler(weights):
    """W2 squared to the data of Euler's samples by (..., 4, 3) denoiser weights, written out."""
    amplitude = np.full((*weights.shape[:-2], 3), GRID[0])
    for k in range(3):
        amplitude *= weights[..., k, :] + GRID[k + 1] / GRID[k] * (1 - weights[..., k, :])
    return ((np.abs(amplitude * weights[..., 3, :]) - np.sqrt(LAM)) ** 2).sum(axis=-1)


def drawn_regressions(rng, sigmas, count, repeats):
    """(R, len(sigmas), 3) slopes of clean on noised examples, every one fitted to the same draws at each level."""
    clean, noise = (rng.standard_normal((repeats, count, 3)) for _ in range(2))
    clean = clean * np.sqrt(LAM)
    noised = clean[:, :, None] + np.asarray(sigmas)[:, None] * noise[:, :, None]
    return (noised * clean[:, :, None]).sum(axis=1) / (noised**2).sum(axis=1)


def test_experts_that_were_fitted_to_drawn_examples_leave_what_is_predicted():
    rng, repeats, each = np.random.default_rng(0), 3000, 40
    experts = [drawn_regressions(rng, [sigma], each, repeats) for sigma in GRID[:4]]
    found = run_euler(np.concatenate(experts, axis=1))
    model = model_of(coupling=co.PerStep(np.log(2.0)))
    levels = co.Levels(np.array([0.3, 0.6, 1.0, 3.0, 8.0]))  # 40 examples for one length everywhere
    density = each / np.log(2.0)
    examples = [density * np.log(2.0), density * np.log(1 / 0.6), density * np.log(3.0), density * np.log(8 / 3)]
    said = model.predict(GRID, examples, levels=levels)
    np.testing.assert_allclose(said.examples, each, rtol=1e-9)
    assert said.exact == ("bias",)
    assert said.parts["bias"] == pytest.approx(float(run_euler(LAM / (LAM + GRID[:4, None] ** 2))), rel=1e-12)
    error = found.std() / np.sqrt(repeats)
    assert abs(found.mean() - said.total) < 4 * error
    assert said.total - said.parts["bias"] > 12 * error  # and it is seen


def sensitivities():
    """d std / d W of `run_euler`'s outputs by central differences."""
    best, result = LAM / (LAM + GRID[:4, None] ** 2), np.zeros((4, 3))
    for k in range(4):
        for sign in (1.0, -1.0):
            moved = best.copy()
            moved[k] += sign * 1e-6
            amplitude = np.full(3, GRID[0])
            for j in range(3):
                amplitude = amplitude * (moved[j] + GRID[j + 1] / GRID[j] * (1 - moved[j]))
            result[k] += sign * np.abs(amplitude * moved[3]) / 2e-6
    return result


def test_nodes_of_one_block_err_together_and_with_the_last_evaluation():
    model = model_of(coupling=co.PerLevel([0.1, 1.5, 10.0]))
    levels, examples = co.Levels(np.array([0.3, 1.5, 8.0])), np.array([300.0, 500.0])
    said = model.predict(GRID, examples, levels=levels)
    v = LAM + GRID[:4, None] ** 2
    errors = sensitivities() * np.sqrt(LAM * GRID[:4, None] ** 2 / v**2)  # for one example
    high, low, last = errors[0] + errors[1], errors[2], errors[3]
    assert said.parts["score"] == pytest.approx((high**2).sum() / 498 + (low**2).sum() / 298, rel=1e-6)
    assert said.parts["last evaluation"] == pytest.approx((last**2).sum() / 298, rel=1e-6)
    assert said.parts["last with steps"] == pytest.approx(2 * (low * last).sum() / 298, rel=1e-6)
    assert said.total == pytest.approx(sum(said.parts.values()))


@pytest.mark.cases(3)
@pytest.mark.parametrize("prior", [0.0, 0.3, 3.0, 30.0])
@pytest.mark.parametrize("examples", [4, 10, 100])
def test_examples_that_count_are_those_of_chi_squared_inputs(examples, prior):
    q, slope = examples_that_count(np.array(float(examples)), np.array(prior), 1)
    for power, value in ((1, 1 / q), (2, slope / q**2)):
        if examples <= 2 * power and not prior:
            continue
        density = stats.chi2(examples).pdf
        truth = integrate.quad(lambda x, p=power, f=density: f(x) / (x + prior) ** p, 0, np.inf, limit=200)[0]
        few = examples + prior < 10
        assert value == pytest.approx(truth, rel=(0.15 if few else 0.04) * power)


def test_examples_are_those_within_a_length_not_those_at_the_level():
    said = model_of(coupling=co.Local(2.0)).predict(GRID, 1e5, density=co.LogNormal(0.0, 0.4))
    # a narrow density reaches the highest level, 2.08 in log sigma away, only through its length
    local = float(co.LogNormal(0.0, 0.4).per_log_sigma(np.array([8.0]))[0]) * 1e5 * 2.0
    assert local < 2.0 < 100.0 < said.examples[0]
    assert said.program - said.parts["bias"] > 1.5 * (said.total - said.parts["bias"])


def test_a_run_counts_beside_examples_and_units_cancel():
    model = model_of(coupling=co.Local(0.7), training=co.AveragedSGD())
    density = co.LogNormal(-0.2, 1.1)
    both = model.predict(GRID, 600.0, density=density, run=co.TrainingRun(density, 40, 10))
    assert both.total == pytest.approx(model.predict(GRID, 1000.0, density=density).total, rel=1e-9)
    larger = co.GaussianModel(
        co.Spectrum.from_eigenvalues(LAM * 9.0), co.EDM(0.03, 24.0), **{
            name: getattr(model, name) for name in ("sampler", "start", "training", "coupling")
        },
    )  # fmt: skip
    there = larger.predict(3 * GRID, 1000.0, density=co.LogNormal(-0.2 + np.log(3.0), 1.1))
    assert there.total == pytest.approx(9.0 * both.total, rel=1e-9)


def test_without_a_training_the_bias_alone_is_told_and_misuse_is_named():
    model = model_of()
    said = model.predict(GRID)
    assert dict(said.parts) == {"bias": pytest.approx(model.bias(GRID))}
    assert said.outside == ()
    with pytest.raises(ValueError, match="examples must be their number"):
        model.predict(GRID, np.ones(3), density=co.LogNormal())
    with pytest.raises(ValueError, match="levels that they lie on"):
        model.predict(GRID, np.ones(3))
    with pytest.raises(ValueError, match="density is 'edm'"):
        model.predict(GRID, 10, density="edm")


def test_what_lies_outside_the_verified_regime_is_said():
    few = model_of().predict(GRID, 15, density=co.LogNormal(0.0, 1.0))
    assert "the leading order was verified from 10 on" in few.outside[0]
    assert model_of().predict(GRID, 0.0, density=co.LogNormal(0.0, 1.0)).total == np.inf  # nothing bounds it
    model = model_of(training=co.AveragedSGD())
    assert not any("verified" in told for told in model.predict(GRID, 15, density=co.LogNormal(0.0, 1.0)).outside)
    full = replace(model, training=co.AveragedSGD(matrix="full")).predict(GRID, 300, density=co.LogNormal(0.0, 1.0))
    assert full.regressors == 3
    assert "from 120 on" in full.outside[0]
    assert len(str(few).splitlines()) <= 15


def test_what_is_unlearned_beside_the_bias_is_told_apart_and_signed():
    """Steps that lead too low and a denoiser that shrinks too much offset each other: no negative part of training."""
    model = model_of(training=co.AveragedSGD())
    density = co.LogNormal(0.0, 1.0)
    parts = model.predict(GRID, 6e4, density=density).parts
    doubled = model.predict(GRID, 12e4, density=density).parts
    assert parts["score"] > doubled["score"] > 0
    assert abs(parts["shared with bias"]) > abs(doubled["shared with bias"]) > 0
    assert np.sign(parts["shared with bias"]) == np.sign(doubled["shared with bias"])
    # linear in what is not learned, where the score's own part is quadratic in it: a half leaves about a half
    assert doubled["shared with bias"] / parts["shared with bias"] == pytest.approx(0.5, abs=0.01)
