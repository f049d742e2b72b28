"""Where to train, from one run: what two checkpoints tell against closed forms, and the comparison in small."""

import csv
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from codesign_opt import Levels, LogNormal, Spectrum  # noqa: E402
from codesign_opt.estimate.training_errors.checkpoint_curve import checkpoint_errors, error_left  # noqa: E402
from codesign_opt.estimate.training_errors.correlation import ErrorGram  # noqa: E402
from codesign_opt.estimate.training_errors.transfer import TransferKernel, teaching_shares  # noqa: E402
from codesign_opt.modeling.information import InformationError  # noqa: E402
from codesign_opt.testbed import LinearDenoiser  # noqa: E402
from problems.studies.density_experiment import DensityExperiment  # noqa: E402
from problems.studies.density_pilot import RULES, PilotMeasurement  # noqa: E402
from problems.studies.density_report import compare_densities, lognormals  # noqa: E402


def gaussian_images(count, values, seed=0):
    draws = torch.randn(count, len(values), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return draws * torch.tensor(values, dtype=torch.float64).sqrt()


def test_error_left_is_the_excess_loss_of_the_earlier_checkpoint():
    values, off = [1.0, 0.25, 0.04], torch.tensor([[0.1, 0.2, 0.0], [0.0, 0.1, 0.0], [0.0, 0.0, 0.3]])
    images = gaussian_images(20_000, values)
    sigma = np.array([0.1, 0.7, 3.0])
    best, worse = LinearDenoiser(values), LinearDenoiser(values, perturbation=off.numpy())
    found = error_left(worse, best, images, sigma, growth=3.0, batch=3_000)
    excess = [float(((off**2).double() @ (torch.tensor(values, dtype=torch.float64) + s**2)).sum()) / 2 for s in sigma]
    assert np.all(np.abs(found.value - excess) < 3 * found.standard_error)
    assert np.all(found.standard_error < 0.03 * np.array(excess))
    with pytest.raises(ValueError, match="growth is 1"):
        error_left(worse, best, images, sigma, growth=1.0)


def random_fields(correlation, units, size, seed=0):
    """(units, L, size) independent Gaussian errors with a correlation between levels."""
    root = np.linalg.cholesky(correlation + 1e-9 * np.eye(len(correlation)))
    return np.einsum("lk,uks->uls", root, np.random.default_rng(seed).standard_normal((units, len(root), size)))


@pytest.mark.parametrize("width", [0.5, 1.2])
def test_transfer_width_from_errors_is_that_of_the_squared_correlation(width):
    levels = Levels.log_uniform(0.002, 80.0, 24)
    logs = np.log(levels.sigma)
    correlation = np.exp(-(((logs[:, None] - logs) / (2 * width)) ** 2))  # its square has standard deviation `width`
    found = TransferKernel.from_errors(ErrorGram.from_fields(random_fields(correlation, 20, 800), levels))
    assert abs(found.width - width) < 3 * found.standard_error + 0.005
    assert found.standard_error < 0.02
    assert found.misfit < 0.02


def test_transfer_width_from_errors_is_that_of_the_teaching_shares():
    """Posterior errors A_l z, z ~ N(0, M^-1), of a linear model whose features spread over log sigma."""
    levels = Levels.log_uniform(0.01, 100.0, 20)
    logs, centres = np.log(levels.sigma), np.linspace(-6.0, 6.0, 40)
    features = np.exp(-0.5 * ((logs[:, None] - centres) / 0.8) ** 2)[:, None, :]
    features /= np.linalg.norm(features, axis=2, keepdims=True)
    term = InformationError(features, np.eye(40), sigma=levels.sigma, prior=np.eye(40), residual_variance=np.ones(20))
    examples = 1e-3 * levels.log_width  # little: the posterior is the prior, shares fall as the squared overlap
    shares = teaching_shares(term, examples)
    draws = np.random.default_rng(1).standard_normal((20, 40, 1000))
    errors = ErrorGram.from_fields(np.einsum("lp,ups->uls", features[:, 0], draws), levels)
    found = TransferKernel.from_errors(errors)
    assert shares.sum(axis=1).max() < 0.1  # the prior holds the rest
    assert found.width == pytest.approx(0.8, abs=3 * found.standard_error + 0.005)
    assert np.abs(shares / shares.sum(axis=1, keepdims=True) - found.matrix(levels)).max() < 0.01


def test_checkpoint_errors_of_linear_denoisers_correlate_as_their_weights():
    """Errors (w(s) - w'(s)) x with x = x0 + s z: the correlation of levels has a closed form."""
    levels = Levels.log_uniform(0.1, 10.0, 6)
    images = gaussian_images(8_192, [1.0] * 4)
    first = LinearDenoiser([1.0] * 4)
    found = checkpoint_errors(first, LinearDenoiser([1.2] * 4), images, levels, images=8_000).correlation
    s = levels.sigma
    truth = (1 + s[:, None] * s) / np.sqrt((1 + s**2) * (1 + s[:, None] ** 2))
    assert np.abs(found - truth).max() < 0.02
    with pytest.raises(ValueError, match="8192 images for 9000 groups"):
        checkpoint_errors(first, first, images, levels, images=10_000, groups=9_000)


@pytest.fixture(scope="module")
def pilot():
    levels = Levels.log_uniform(0.002, 80.0, 24)
    gram_levels = Levels.log_uniform(0.002, 80.0, 12)
    logs, at = np.log(levels.sigma), np.log(gram_levels.sigma)
    bump = np.exp(-0.5 * (at / 2) ** 2)
    zero = np.zeros(24)
    return PilotMeasurement(
        levels=levels, density=LogNormal(-0.5, 2.0), examples=10_000, left=np.exp(-0.1 * logs**2), left_error=zero,
        logged=np.exp(-0.2 * logs**2), logged_error=zero, logged_seen=zero == 0, gain=np.full(24, 0.3), gain_error=zero,
        gram_levels=gram_levels, gram=np.outer(bump, bump) * np.exp(-np.abs(at[:, None] - at)), length=2.0,
        spectrum=Spectrum.power_law(4, exponent=1.0), transfer=0.9, transfer_error=0.1,
    )  # fmt: skip


def test_each_rule_predicts_the_pilots_own_error_at_its_own_density(pilot):
    whole = pilot.length * float(pilot.levels.log_width @ (pilot.left * pilot.gain))
    for name in ("plain", "transfer 0.6", "transfer"):
        assert pilot.predicted(RULES[name], [pilot.density])[0] == pytest.approx(whole, rel=0.02)
    assert pilot.predicted(RULES["coherent"], [pilot.density])[0] == pytest.approx(pilot.gram.sum(), rel=1e-9)


@pytest.mark.cases(3)
@pytest.mark.parametrize("name", list(RULES))
def test_the_plan_of_a_rule_is_certified_and_better_than_any_lognormal_by_that_rule(name, pilot):
    plan = pilot.plan(RULES[name])
    assert plan.certificate.optimal
    assert plan.examples.sum() == pytest.approx(pilot.examples)
    others = [LogNormal(mean, std) for mean in (-2.0, -1.0, 0.0, 1.0) for std in (1.0, 1.5, 2.0, 2.5)]
    values = pilot.predicted(RULES[name], [plan.training_density, *others])
    assert values[0] <= 1.01 * values[1:].min()  # smoothing may cost one per cent


@pytest.mark.slow
def test_the_lognormal_of_a_rule_is_the_best_of_a_search_over_its_two_numbers(pilot):
    found = pilot.planned(RULES["log-normal"])
    others = [LogNormal(mean, std) for mean in np.linspace(-2, 2, 21) for std in np.geomspace(0.3, 3.0, 15)]
    values = pilot.predicted(RULES["transfer"], [found, *others])
    assert values[0] <= 1.0001 * values[1:].min()
    assert np.array_equal(pilot.predicted(RULES["log-normal"], others), values[1:])


def test_kappa1_of_the_log_is_the_error_left_times_what_served_where_the_log_has_losses(pilot):
    """A log that agrees with the checkpoints gives the checkpoints' prediction."""
    alone = pilot.density.on_levels(pilot.levels) / pilot.levels.log_width * pilot.examples * pilot.length
    same = replace(pilot, logged=pilot.left * alone)
    others = [LogNormal(-1.0, 1.0), LogNormal(0.0, 1.5)]
    rules = [RULES[name] for name in ("log-normal", "log-normal, log")]
    first, second = (same.predicted(rule, others) for rule in rules)
    np.testing.assert_allclose(first, second, rtol=1e-12)


def test_the_lognormals_are_found_by_name():
    assert len(lognormals()) == 15
    assert lognormals(["lognormal -0.2 1.2"]) == {"lognormal -0.2 1.2": LogNormal(-0.2, 1.2)}
    with pytest.raises(ValueError, match="lognormals: name is 'lognormal 0 1'"):
        lognormals(["lognormal 0 1"])


def test_half_of_the_square_root_density_is_kept_on_every_level(pilot):
    plain, kept = (pilot.plan(RULES[name]).examples for name in ("plain", "kept half"))
    assert np.all(kept >= 0.5 * plain * (1 - 1e-6))


def test_the_majorised_plan_beats_random_densities_by_the_coherent_sum_of_what_neighbours_teach(pilot):
    """The truth is the sum written out, with the kernel's matrix from elsewhere."""
    levels, width = pilot.gram_levels, pilot.gram_levels.log_width
    kernel = TransferKernel(pilot.transfer).matrix(levels)

    def error(share):
        root = np.sqrt((kernel @ (pilot.density.on_levels(levels) / width)) / (kernel @ (share / width)))
        return root @ pilot.gram @ root

    plan = pilot.plan(RULES["both"])
    own = plan.examples / plan.examples.sum()
    assert pilot.predicted(RULES["both"], [plan.training_density])[0] == pytest.approx(error(own), rel=1e-3)
    rng = np.random.default_rng(0)
    near = [np.maximum(own * np.exp(0.3 * rng.standard_normal(12)), 1e-6) for _ in range(300)]
    far = [rng.dirichlet(np.ones(12)) for _ in range(300)]
    assert error(own) <= 1.01 * min(error(share / share.sum()) for share in near + far)


def test_a_wider_transfer_concentrates_the_plan(pilot):
    spread = []
    for width in (0.3, 0.9, 1.5):
        plan = replace(pilot, transfer=width).plan(RULES["transfer"])
        share, logs = plan.examples / plan.examples.sum(), np.log(plan.levels.sigma)
        spread.append(float(share @ logs**2 - (share @ logs) ** 2))
    assert spread[0] > spread[1] > spread[2]


@pytest.mark.slow
@pytest.mark.usefixtures("unarranged")
def test_comparison_keeps_its_runs_and_writes_table_and_figure(tmp_path, monkeypatch):
    pytest.importorskip("skimage")
    pytest.importorskip("matplotlib")
    small = {
        "iterations": 6,
        "batch": 32,
        "longer": 2,
        "width": 16,
        "layers": 1,
        "draws": 16,
        "steps": 8,
        "levels": 8,
        "side": 4,
    }
    said = []
    few = {"narrow": LogNormal(-1.0, 0.8), "wide": LogNormal(-0.5, 1.6)}
    first = compare_densities(
        DensityExperiment(folder=tmp_path / "runs", progress=said.append, **small), seeds=2, first_seed=3, densities=few
    )
    assert sum(line.startswith("trained") for line in said) == 2 * (2 + len(RULES))
    table, picture = first.save(tmp_path / "out")
    with table.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["density"] for row in rows] == [*few, *(f"planned: {name}" for name in RULES)]
    assert float(rows[0]["realised"]) == pytest.approx(first.mean[0], rel=1e-4)
    assert picture.stat().st_size > 10_000
    assert "of the best" in str(first)

    def refuse(*arguments, **options):
        raise AssertionError("trained again")

    monkeypatch.setattr(DensityExperiment, "trained", refuse)
    again = compare_densities(
        DensityExperiment(folder=tmp_path / "runs", **small), seeds=2, first_seed=3, densities=few
    )
    assert again.seeds == (3, 4)
    assert np.array_equal(first.realised, again.realised)
    fixed = replace(again, fixed="wide")
    for rule in RULES:
        assert fixed.ratio(rule, "narrow")[0] * again.mean[0] == pytest.approx(
            again.ratio(rule)[0] * again.mean[:2].min()
        )
    assert "of wide, the best of earlier seeds" in str(fixed)
    with pytest.raises(ValueError, match="pilot_seed is 100, one of the seeds 99 to 101"):
        compare_densities(DensityExperiment(**small), seeds=3, first_seed=99)
    with pytest.raises(ValueError, match="fixed is 'middle'"):
        compare_densities(DensityExperiment(**small), densities=few, fixed="middle")
    with pytest.raises(ValueError, match="width"):
        DensityExperiment(folder=tmp_path / "runs", **{**small, "width": 8}).ledger  # noqa: B018
