"""Training densities out to trainers: what they draw by their own law, what it costs, and the way back."""

import os

import numpy as np
import pytest
from scipy.stats import norm

import codesign_opt as co
from codesign_opt import peers
from tests.helpers import trainers
from tests.helpers.trainers import TRAINERS

FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"
PRICES = co.Prices(example=3.0, evaluation=1.0, images=1_000)
DRAWS = 200_000
SAME = 0.005  # of Kolmogorov's distance; 200,000 draws of the law itself stay within .0043 in all but one of 1000


def ten_plans():
    """Spectra, training laws, budgets and processes of many kinds; a run already made among them."""
    prior = {"training": co.AveragedSGD(prior=None)}
    run = co.TrainingRun(co.LogNormal(-2.0, 0.8), 60, 64)
    kinds = [
        ({"exponent": 1.5}, {}, 1e5, {}),
        ({"exponent": 1.0}, {}, 1e6, {}),
        ({"exponent": 2.5}, prior, 3e4, {}),
        ({"exponent": 0.5}, {"sampler": co.Euler()}, 1e5, {}),
        ({"exponent": 1.5}, {"process": co.FlowMatching()}, 1e5, {}),
        ({"exponent": 1.5}, {"process": co.VP()}, 1e5, {}),
        ({"exponent": 1.5}, {"training": co.ConstantStepSGD(1e-3, 64)}, 1e5, {}),
        ({"exponent": 1.5}, {}, 3e5, {"run": run}),
        ({"exponent": 1.5}, {"process": co.EDM(0.05, 14.0)}, 1e5, {"stopping_sigma": 0.06}),
        ({"exponent": 3.0}, prior, 1e5, {}),
    ]
    for spectrum, options, budget, more in kinds if FULL else kinds[:1]:
        model = co.GaussianModel(co.Spectrum.power_law(24, **spectrum), **options)
        yield co.codesign(model, PRICES, budget, levels=60, points=5, polish=False, **more)


@pytest.fixture(scope="module")
def plans():
    return list(ten_plans())


def distance(sigma, law):
    """Kolmogorov's distance of draws from a density; draws of pure noise are infinite."""
    at, count = np.unique(sigma[np.isfinite(sigma)], return_counts=True)
    above = np.cumsum(count) / sigma.size
    below = law.tails(at * (1 - 1e-12))[0], law.tails(at * (1 + 1e-12))[0]
    return max(np.max(np.abs(below[1] - above)), np.max(np.abs(below[0] - (above - count / sigma.size))))


@pytest.mark.cases(5)
@pytest.mark.parametrize("name", TRAINERS)
def test_a_trainer_draws_what_the_export_says_and_its_settings_read_back_as_that(name, plans):
    target, options, law, known = TRAINERS[name]
    for i, plan in enumerate(plans):
        export = plan.export_training(target, **options)
        sigma = law(export.settings, DRAWS, np.random.default_rng(i))
        # whole timesteps are atoms, half of which lies on either side of where the density puts them
        atoms = np.unique(sigma, return_counts=True)[1].max() / DRAWS
        assert distance(sigma, export.density) <= SAME + (0.51 * atoms if atoms > 1e-4 else 0.0), (i, export.settings)
        back = co.read_training(export.text, **known)
        assert back.distance(export.density) <= 1e-6
        own = plan.training_density
        assert export.distance == pytest.approx(own.distance(export.density), abs=1e-9)
        if name in ("SimpleTuner, exact", "json", "csv"):
            assert distance(sigma, own) <= SAME
            assert export.loss < 1e-3


def test_what_a_form_costs_is_the_score_error_at_equal_price(plans):
    plan = plans[0]
    export = plan.export_training("sd-scripts")
    edges, weights = plan.levels.edges, plan.tables["score_weight"]
    mean, std = np.log(export.settings["discrete_flow_shift"]), export.settings["sigmoid_scale"]
    price = plan.tables["example_price"]
    below = norm.cdf((np.log(edges) - mean) / std)
    paid = price @ np.diff(below) + price[0] * below[0] + price[-1] * (1 - below[-1])
    bought = np.diff(below) * (price @ plan.new_examples) / paid

    def error(examples):
        near = plan.final_score / (plan.tables["final_window"] @ examples + plan.final_prior)
        return float((weights / (examples + plan.tables["prior_examples"])).sum() + near)

    assert export.loss == pytest.approx(error(bought) / error(plan.examples) - 1, rel=1e-6)
    # no other log-normal costs less, and a split one does
    for m, s in ((mean + 0.05, std), (mean - 0.05, std), (mean, 1.05 * std), (mean, std / 1.05)):
        assert plan.training_density.loss_of(co.LogNormal(m, s)) > export.loss
    assert 0 < plan.export_training("k-diffusion").loss < export.loss
    assert "of the plan's score error" in str(export)
    assert "trains nothing outside" in str(export)


def test_typing_a_plans_mean_into_a_flow_trainer_trains_elsewhere():
    """The sign trap: for P_mean -.238, +.24 without a shift and +1.34 with SD3's."""
    wanted = co.LogNormal(-0.238, 1.0)
    typed = {"logit_mean": wanted.mean, "logit_std": wanted.std}
    rng = np.random.default_rng(0)
    for shift, mean in ((1.0, 0.24), (3.0, 1.34)):
        wrong = np.log(trainers.diffusers(typed, DRAWS, rng, shift))
        assert np.median(wrong) == pytest.approx(mean, abs=0.01)
        read = co.read_training({"weighting_scheme": "logit_normal", **typed}, shift=shift)
        assert np.log(read.quantile(0.5)) == pytest.approx(mean, abs=0.01)
        settings = co.export_training(wanted, "diffusers", shift=shift).settings
        right = np.log(trainers.diffusers(settings, DRAWS, rng, shift))
        assert np.median(right) == pytest.approx(-0.238, abs=0.01)
        assert settings["logit_mean"] == pytest.approx(np.log(shift) + 0.238, abs=1e-5)
    # sd-scripts' SD3 script runs from data to noise, with the same names of options
    same_names = np.log(trainers.sd3_of_kohya({**typed, "training_shift": 1.0}, DRAWS, rng))
    assert np.median(same_names) == pytest.approx(-0.238, abs=0.01)
    settings = co.export_training(wanted, "sd-scripts", model="sd3").settings
    assert settings["logit_mean"] == wanted.mean


@pytest.mark.skipif(not FULL, reason="importing diffusers' training utilities takes half a minute")
def test_diffusers_own_functions_draw_what_the_export_says():
    torch = pytest.importorskip("torch")
    training_utils = pytest.importorskip("diffusers.training_utils", reason="diffusers is not installed")
    from diffusers import FlowMatchEulerDiscreteScheduler

    export = co.export_training(co.LogNormal(-0.7, 1.3), "diffusers", shift=3.0)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    u = training_utils.compute_density_for_timestep_sampling(
        "logit_normal", DRAWS, export.settings["logit_mean"], export.settings["logit_std"],
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    times = scheduler.sigmas[(u * 1000).long().clamp(max=999)].double().numpy()
    assert distance(trainers.of_time(times), export.density) <= SAME
    atom = np.unique(times, return_counts=True)[1].max() / DRAWS
    assert distance(trainers.of_time(times), co.LogNormal(-0.7, 1.3)) <= SAME + 0.51 * atom


def test_a_table_that_does_not_reach_the_plans_levels_is_said_to_leave_them_untrained():
    own = co.LogNormal(-1.0, 1.0).between(0.03, 14.0)
    inside = co.export_training(own, "timesteps")
    assert inside.loss < 0.01
    assert "untrained" not in str(inside)
    share = np.array(inside.settings["probability"])
    said = f"{np.mean((share * 1000) ** 2):.3g} times the second moment"
    assert said in inside.notes[0]
    beyond = co.export_training(co.LogNormal(-2.0, 1.0).between(0.001, 80.0), "timesteps")
    assert np.isinf(beyond.loss)
    assert "costs more than all of the error" in str(beyond)
    assert "noise levels stay untrained" in str(beyond)
    assert "lies below the table's levels" in str(beyond)


def test_a_density_that_is_no_plans_costs_its_chi_squared():
    own = peers.training_density("laplace", scale=1.0)
    export = co.export_training(own, "edm2")
    at = np.linspace(-18, 18, 200_001)
    p = np.exp(-np.abs(at) / 0.5)
    q = norm.pdf(at, export.settings["P_mean"], export.settings["P_std"])
    inside = p > p.max() * 2e-9  # the comparison leaves a billionth on either side
    p, q = p[inside] / np.trapezoid(p[inside], at[inside]), q[inside]
    assert export.loss == pytest.approx(np.trapezoid(p**2 / q, at[inside]) - 1, rel=2e-2)
    assert co.export_training(co.LogNormal(0.1, 0.9), "edm2").loss == 0.0
    assert "nothing" in str(co.export_training(peers.training_density("logit_normal", shift=2.0), "musubi-tuner"))


def test_what_cannot_be_exported_is_refused_by_name():
    model = co.GaussianModel(co.Spectrum.power_law(8, exponent=1.5))
    sampler = co.codesign(model, steps=5, stopping_sigma=0.05, levels=24, polish=False)
    for call, words in (
        (lambda: sampler.export_training("edm"), "trains no examples"),
        (lambda: co.export_training(co.LogNormal(), "edm3"), "did you mean 'edm"),
        (lambda: co.export_training(co.LogNormal(), "edm", shift=3.0), r"export_training\.shift has no meaning"),
        (lambda: co.export_training(3.0, "edm"), "a Plan or a SigmaDensity"),
        (lambda: co.export_training(co.LogNormal(), "sd-scripts", model="sd9"), "must be one of 'flow'"),
        (lambda: co.export_training(co.LogNormal(), "diffusers", shift=0.0), "must be > 0"),
    ):
        with pytest.raises(ValueError, match=words):
            call()


def test_a_target_of_ones_own_is_known_and_read():
    from codesign_opt.exports.training import TrainingTarget, Written, add_training_target

    def write(density):
        normal = density.nearest_lognormal()
        said = {"my_middle": normal.mean}
        return Written(said, f"--my_middle {normal.mean}", co.LogNormal(normal.mean, 1.0))

    add_training_target(
        TrainingTarget(
            "mine", (), write, lambda s: "my_middle" in s, lambda s, _: co.LogNormal(s.number("my_middle"), 1.0)
        )
    )
    export = co.export_training(co.LogNormal(0.5, 1.0), "mine")
    assert co.read_training(export.text) == co.LogNormal(0.5, 1.0)
