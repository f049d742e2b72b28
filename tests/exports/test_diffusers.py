"""Exports loaded into diffusers' own schedulers and run: samples equal to ours; schedules read from them; refusals.

Exact denoiser of a 2-D mixture throughout, and the trained Fashion-MNIST network where its weights are cached.
Diffusers keeps its levels, and most of its schedulers their states, in float32; tolerances are counted in
float32 roundings of the first state, whose size is sigma_max.
"""

import logging
import warnings

import numpy as np
import pytest
import torch

import codesign_opt as co
from codesign_opt.estimate import from_diffusers
from codesign_opt.estimate.runs.run import run
from codesign_opt.exports import DiffusersExport, export, read_schedule
from codesign_opt.samplers.members import Sampler
from codesign_opt.testbed import circle8
from codesign_opt.testbed.networks.recipes import RECIPES, cache_folder
from codesign_opt.testbed.scheduler_loop import run_scheduler

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")
pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # numpy's, about diffusers' conversions

GRID = co.edm_grid(8, 0.05, 12.0)
FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
LINEAR = {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}

# scheduler, its settings, options of its step
SAME_STEPS = {
    "Euler": ("EulerDiscreteScheduler", {}, {}),
    "Euler, v, Stable Diffusion": ("EulerDiscreteScheduler", {**SD, "prediction_type": "v_prediction"}, {}),
    "Euler, Karras flag": ("EulerDiscreteScheduler", {"use_karras_sigmas": True}, {}),
    "Heun": ("HeunDiscreteScheduler", LINEAR, {}),
    "Heun, v, Stable Diffusion": ("HeunDiscreteScheduler", {**SD, "prediction_type": "v_prediction"}, {}),
    "DPM++ 2M": ("DPMSolverMultistepScheduler", {}, {}),
    "DPM++ 2M, v, Stable Diffusion": ("DPMSolverMultistepScheduler", {**SD, "prediction_type": "v_prediction"}, {}),
    "DPM++ 2M, data": ("DPMSolverMultistepScheduler", {"prediction_type": "sample"}, {}),
    "DPM++ 1": ("DPMSolverMultistepScheduler", {"solver_order": 1}, {}),
    "DPM++ 1S": ("DPMSolverSinglestepScheduler", {"solver_order": 1, "lower_order_final": True}, {}),
    "TCD": ("TCDScheduler", {"clip_sample": False, **LINEAR}, {"eta": 0.0}),
    "flow Euler": ("FlowMatchEulerDiscreteScheduler", {}, {}),
    "flow Euler, shift": ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}, {}),
    "UniPC flow": ("UniPCMultistepScheduler", {**FLOW, "flow_shift": 3.0, "disable_corrector": list(range(8))}, {}),
    "EDM Euler": ("EDMEulerScheduler", {}, {}),
    "EDM Euler, v": ("EDMEulerScheduler", {"prediction_type": "v_prediction", "sigma_data": 1.4}, {}),
}


def make(name, **settings):
    return getattr(diffusers, name)(**settings)


def states(sigma, count=64, seed=0):
    noise = torch.randn(count, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return sigma * noise


def roundings(x, count=2):
    """`count` float32 roundings of the largest entry of the first state."""
    return count * torch.finfo(torch.float32).eps * float(x.abs().max())


def sampler_named(name):
    return Sampler.from_dict({"name": name})


# samples


@pytest.mark.parametrize(("name", "settings", "options"), SAME_STEPS.values(), ids=SAME_STEPS)
def test_samples_of_the_real_scheduler_are_ours(name, settings, options):
    scheduler = make(name, **settings)
    given = export(GRID, "diffusers", scheduler)
    assert given.differences(scheduler) == {}
    assert given.apply(scheduler) is scheduler
    x = states(given.used[0])
    theirs = run_scheduler(scheduler, circle8(), x, **options)
    ours = run(circle8(), sampler_named(given.sampler), given.used, x)
    torch.testing.assert_close(theirs, ours, rtol=0, atol=roundings(x))
    assert float((ours - circle8().sample(64, dtype=torch.float64)).std()) > 0.1  # samples, not one point


@pytest.mark.parametrize("steps", [3, 20])
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("EulerDiscreteScheduler", {"final_sigmas_type": "sigma_min"}),
        ("DPMSolverMultistepScheduler", {"final_sigmas_type": "sigma_min", "lower_order_final": False}),
        ("DPMSolverMultistepScheduler", {"final_sigmas_type": "sigma_min", "solver_order": 1}),
        ("EDMEulerScheduler", {"final_sigmas_type": "sigma_min"}),
    ],
)
def test_grids_that_end_above_zero_end_there(name, settings, steps):
    scheduler = make(name, **settings)
    # the multistep scheduler ends at its table's lowest level, sqrt(1e-4 / (1 - 1e-4)) but for float32
    end = 1e-2 / np.sqrt(1 - 1e-4) if "DPM" in name else 0.02
    grid = co.log_snr_grid(steps, end, 12.0, terminal="rescale")
    given = export(grid, "diffusers", scheduler)
    given.apply(scheduler)
    assert given.used[-1] == pytest.approx(end, rel=2e-4)
    x = states(given.used[0])
    theirs = run_scheduler(scheduler, circle8(), x)
    ours = run(circle8(), sampler_named(given.sampler), given.used, x)
    torch.testing.assert_close(theirs, ours, rtol=0, atol=roundings(x))


class Draws:
    """Normal draws of a seeded generator, in the order in which a scheduler takes them."""

    def __init__(self, seed):
        self.generator = torch.Generator().manual_seed(seed)

    def draw(self, high, low, like):
        return torch.randn(like.shape, generator=self.generator, dtype=like.dtype)


def test_ddpm_takes_our_ancestral_steps_with_the_same_noise():
    scheduler = make("DDPMScheduler", clip_sample=False)
    given = export(GRID, "diffusers", scheduler)
    given.apply(scheduler)
    x = states(given.used[0])
    theirs = run_scheduler(scheduler, circle8(), x, generator=torch.Generator().manual_seed(7))
    ours = run(circle8(), co.Ancestral(eta=1.0), given.used, x, noise=Draws(7))
    torch.testing.assert_close(theirs, ours, rtol=0, atol=roundings(x))


class Network:
    """What a pipeline holds: the exact denoiser as a network that is told the timestep alone."""

    def __init__(self, scheduler):
        kept = getattr(scheduler, "alphas_cumprod", None)
        self.levels = None if kept is None else ((1 - kept.double()) / kept.double()).sqrt().log().numpy()

    def __call__(self, x_t, timestep):
        t = torch.as_tensor(timestep, dtype=torch.float64).expand(x_t.shape[0])
        if self.levels is None:
            sigma = (t / 1000) / (1 - t / 1000)
            scale = 1 / (1 + sigma)
        else:
            sigma = torch.tensor(np.exp(np.interp(t.numpy(), np.arange(1000), self.levels)))
            scale = (1 + sigma**2) ** -0.5
        x = x_t / scale[:, None]
        clean = circle8()(x, sigma)
        noise = (x - clean) / sigma[:, None]
        return (noise - clean if self.levels is None else noise,)


@pytest.mark.parametrize(
    "key", ["Euler", "Euler, Karras flag", "DPM++ 2M", "DPM++ 1S", "flow Euler", "flow Euler, shift"]
)
def test_a_pipelines_loop_with_the_exported_arguments_makes_our_samples(key):
    name, settings, _ = SAME_STEPS[key]
    scheduler = make(name, **settings)
    given = export(GRID, "diffusers", scheduler)
    network = Network(scheduler)
    scheduler.set_timesteps(**given.pipeline)  # as retrieve_timesteps does
    noise = states(1.0)
    first = float(given.used[0])
    latents = noise * (getattr(scheduler, "init_noise_sigma", 1.0) if "Euler" in key else 1.0)
    if name.startswith("DPM"):
        latents = noise * first / (1 + first**2) ** 0.5
    elif name.startswith("Flow"):
        latents = noise * first / (1 + first)
    for t in scheduler.timesteps:
        entered = scheduler.scale_model_input(latents, t) if hasattr(scheduler, "scale_model_input") else latents
        latents = scheduler.step(network(entered, t)[0], t, latents, return_dict=False)[0]
    ours = run(from_diffusers(network, scheduler), sampler_named(given.sampler), given.used, first * noise)
    torch.testing.assert_close(latents, ours, rtol=0, atol=roundings(first * noise, 4))


def test_the_network_is_told_the_level_that_the_steps_use():
    for key in ("Euler", "DPM++ 2M", "TCD", "Heun, v, Stable Diffusion"):
        name, settings, _ = SAME_STEPS[key]
        scheduler = make(name, **settings)
        given = export(GRID, "diffusers", scheduler)
        given.apply(scheduler)
        table = np.log(read_ddpm_levels(scheduler, np.arange(1000)))
        told = np.exp(np.interp(np.unique(scheduler.timesteps.numpy())[::-1], np.arange(1000), table))
        slack = 2e-5 if "Heun" not in key else 2e-2
        np.testing.assert_allclose(told, given.used[:-1], rtol=slack)
        assert ("interpolated linearly" in str(given)) == (np.abs(np.log(told / given.used[:-1])).max() > 1e-3)
    scheduler = make("EDMEulerScheduler")
    export(GRID, "diffusers", scheduler).apply(scheduler)
    np.testing.assert_allclose(scheduler.timesteps.numpy(), 0.25 * np.log(GRID[:-1]), atol=1e-6)
    scheduler = make("UniPCMultistepScheduler", **FLOW)
    given = export(GRID, "diffusers", scheduler)
    given.apply(scheduler)
    behind = 1000 * GRID[:-1] / (1 + GRID[:-1]) - scheduler.timesteps.numpy()
    assert np.all((behind > 0) & (behind < 1))
    assert f"cut off by up to {behind.max():.2g} of 1000" in str(given)


def test_without_the_stated_settings_samples_differ():
    grid = co.edm_grid(6, 0.05, 12.0)
    for name, settings in [
        ("DPMSolverMultistepScheduler", {"solver_order": 3}),
        ("DPMSolverMultistepScheduler", {"solver_type": "heun"}),
        ("UniPCMultistepScheduler", FLOW),
        ("HeunDiscreteScheduler", {**LINEAR, "clip_sample": True}),
    ]:
        scheduler = make(name, **settings)
        given = export(grid, "diffusers", scheduler)
        assert given.differences(scheduler)
        given.apply(scheduler)
        x = states(given.used[0])
        theirs = run_scheduler(scheduler, circle8(), x)
        ours = run(circle8(), sampler_named(given.sampler), given.used, x)
        assert float((theirs - ours).abs().max()) > 1e-3


@pytest.fixture(scope="module")
def clothes():
    recipe = RECIPES["fashion_mnist"]
    home = cache_folder() / "testbed" / "fashion_mnist"
    found = recipe.finished(home)
    if found is None:
        pytest.skip(f"no trained network in {home}; python -m codesign_opt.testbed fashion_mnist trains it")
    return found


@pytest.mark.parametrize(("name", "settings", "options"), SAME_STEPS.values(), ids=SAME_STEPS)
def test_samples_of_the_trained_network_are_ours(clothes, name, settings, options):
    scheduler = make(name, **settings)
    given = export(co.edm_grid(8, 0.03, 14.0), "diffusers", scheduler)
    given.apply(scheduler)
    x = given.used[0] * torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        theirs = run_scheduler(scheduler, clothes, x, **options)
        ours = run(clothes, sampler_named(given.sampler), given.used, x)
    torch.testing.assert_close(theirs, ours, rtol=0, atol=roundings(x, 2))
    assert float(ours.std()) > 0.2


# what is exported


def test_euler_gets_sigmas_with_the_trailing_zero():
    scheduler = make("EulerDiscreteScheduler")
    given = export(GRID, "diffusers", scheduler)
    assert given.pipeline == {"sigmas": GRID.tolist()}
    assert given.num_inference_steps == 8
    assert given.largest_error < 1e-7
    given.apply(scheduler)
    assert float(scheduler.sigmas[-1]) == 0.0
    np.testing.assert_array_equal(scheduler.sigmas.numpy(), GRID.astype(np.float32))


def test_whole_timesteps_are_the_nearest_and_each_once():
    crowded = np.append(np.geomspace(12.0, 0.011, 60), 0.0)
    for name in ("DPMSolverMultistepScheduler", "DDPMScheduler", "DPMSolverSinglestepScheduler"):
        scheduler = make(name)
        given = export(crowded, "diffusers", scheduler)
        steps = given.arguments["timesteps"]
        table = np.sqrt((1 - scheduler.alphas_cumprod.double()) / scheduler.alphas_cumprod.double()).numpy()
        brute = [int(np.abs(np.log(table) - np.log(s)).argmin()) for s in crowded[:-1]]
        assert steps == list(dict.fromkeys(brute))
        assert all(type(step) is int for step in steps)
        assert len(given.dropped) == 60 - len(steps) > 0
        assert given.num_inference_steps == len(steps)
        np.testing.assert_allclose(given.becomes[:-1], table[brute], rtol=1e-6)
        errors = np.abs(table[brute] / crowded[:-1] - 1)
        assert given.largest_error == pytest.approx(errors.max(), abs=1e-6)
        assert f"{len(given.dropped)} merged" in str(given)


def test_flow_times_are_given_before_the_shift_and_without_zero():
    scheduler = make("FlowMatchEulerDiscreteScheduler", shift=3.0)
    given = export(GRID, "diffusers", scheduler)
    times = GRID[:-1] / (1 + GRID[:-1])
    np.testing.assert_allclose(given.arguments["sigmas"], times / (3 - 2 * times), rtol=1e-14)
    plain = make("FlowMatchEulerDiscreteScheduler")
    np.testing.assert_allclose(export(GRID, "diffusers", plain).arguments["sigmas"], times, rtol=1e-14)
    scheduler.set_shift(5.0)  # by hand, not in the config
    export(GRID, "diffusers", scheduler).apply(scheduler)
    np.testing.assert_allclose(scheduler.sigmas[:-1], times, rtol=1e-6)


@pytest.mark.parametrize("kind", ["exponential", "linear"])
@pytest.mark.parametrize(
    ("name", "more"), [("FlowMatchEulerDiscreteScheduler", {}), ("UniPCMultistepScheduler", {**FLOW})]
)
def test_dynamic_shifting_is_undone_for_the_stated_mu(name, more, kind):
    scheduler = make(name, use_dynamic_shifting=True, time_shift_type=kind, **more)
    given = export(GRID, "diffusers", scheduler, mu=1.15)
    assert given.arguments["mu"] == 1.15
    assert set(given.pipeline) == {"sigmas"}
    np.testing.assert_allclose(read_schedule(given.apply(scheduler)), GRID, rtol=1e-5)
    without = export(GRID, "diffusers", scheduler)
    assert without.changes["use_dynamic_shifting"] is False
    with pytest.raises(ValueError, match=r"only with use_dynamic_shifting=False.*from_config"):
        without.apply(scheduler)
    np.testing.assert_allclose(read_schedule(without.apply(without.configured(scheduler))), GRID, rtol=1e-5)
    with pytest.raises(ValueError, match="has use_dynamic_shifting=False"):
        export(GRID, "diffusers", make(name, **more), mu=1.0)


def test_a_stretched_end_is_kept_where_the_grid_has_it_and_turned_off_where_not():
    end = float(GRID[-2] / (1 + GRID[-2]))
    fits = make("FlowMatchEulerDiscreteScheduler", shift=2.0, shift_terminal=end)
    given = export(GRID, "diffusers", fits)
    assert not given.changes
    np.testing.assert_allclose(read_schedule(given.apply(fits)), GRID, rtol=1e-5)
    other = make("FlowMatchEulerDiscreteScheduler", shift_terminal=0.1)
    given = export(GRID, "diffusers", other)
    assert given.changes == {"shift_terminal": None}
    np.testing.assert_allclose(read_schedule(given.apply(given.configured(other))), GRID, rtol=1e-5)


def test_an_inverted_flow_gets_the_same_levels():
    scheduler = make("FlowMatchEulerDiscreteScheduler", invert_sigmas=True)
    export(GRID, "diffusers", scheduler).apply(scheduler)
    np.testing.assert_allclose(1 - scheduler.sigmas[:-1].numpy(), GRID[:-1] / (1 + GRID[:-1]), rtol=1e-5)


@pytest.mark.parametrize("flag", ["use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas"])
@pytest.mark.parametrize(
    "name", ["DPMSolverMultistepScheduler", "HeunDiscreteScheduler", "FlowMatchEulerDiscreteScheduler"]
)
def test_schedules_of_their_own_are_named_and_turned_off(name, flag):
    if flag == "use_lu_lambdas" and not name.startswith("DPM"):
        return  # that class has no such switch
    scheduler = make(name, **{flag: True})
    given = export(GRID, "diffusers", scheduler)
    assert given.changes == {flag: False}
    with pytest.raises(ValueError, match=f"only with {flag}=False"):
        given.apply(scheduler)
    mended = given.configured(scheduler)
    np.testing.assert_allclose(read_schedule(given.apply(mended)), given.used, rtol=1e-5)
    assert getattr(scheduler.config, flag) is True


def test_the_final_level_type_must_be_the_grids():
    scheduler = make("DPMSolverMultistepScheduler", final_sigmas_type="sigma_min")
    given = export(GRID, "diffusers", scheduler)
    assert given.changes == {"final_sigmas_type": "zero"}
    np.testing.assert_allclose(read_schedule(given.apply(given.configured(scheduler))), given.used, rtol=1e-6)
    with pytest.raises(ValueError, match=r"can end at its lowest level 0\.01 or at 0, but the grid ends at sigma 0\.5"):
        export([12.0, 3.0, 0.5], "diffusers", scheduler)
    for name in ("HeunDiscreteScheduler", "DDPMScheduler", "FlowMatchEulerDiscreteScheduler", "LCMScheduler"):
        with pytest.raises(ValueError, match=r'always takes a last step to zero noise.*terminal="denoise"'):
            export([12.0, 3.0, 0.5], "diffusers", make(name))


def test_tcd_and_lcm_say_what_they_do_with_the_grid():
    given = export(GRID, "diffusers", make("TCDScheduler"))
    assert given.used[-1] == pytest.approx(0.0291675, rel=1e-5)
    assert "never at zero noise" in str(given)
    assert "not zero" in str(given)
    assert given.largest_error < 0.02
    assert "distilled on" in str(export(GRID, "diffusers", make("LCMScheduler")))
    on_the_grid = np.append(read_ddpm_levels(make("LCMScheduler"), [999, 759, 499, 259, 19]), 0.0)
    assert export(on_the_grid, "diffusers", make("LCMScheduler")).notes == ()


def read_ddpm_levels(scheduler, steps):
    kept = scheduler.alphas_cumprod.double().numpy()[steps]
    return np.sqrt((1 - kept) / kept)


def test_a_plan_says_when_it_was_made_for_other_steps():
    model = co.GaussianModel(co.Spectrum.power_law(24, exponent=1.5), co.EDM(0.02, 12.0), co.Heun())
    plan = co.codesign(model, steps=6, levels=40, stopping_sigma=0.05)
    assert plan.export("diffusers", make("HeunDiscreteScheduler", **LINEAR)).sampler == "heun"
    assert "made for heun steps" not in str(plan.export("diffusers", make("HeunDiscreteScheduler", **SD), clip=True))
    assert "made for heun steps; this scheduler takes euler" in str(plan.export("diffusers", make("EDMEulerScheduler")))


def test_a_plan_for_less_noise_says_so():
    model = co.GaussianModel(co.Spectrum.power_law(24, exponent=1.5), co.EDM(0.02, 12.0), co.Ancestral(eta=0.5))
    plan = co.codesign(model, steps=6, levels=40, stopping_sigma=0.05)
    assert "made for euler_ancestral (eta = 0.5) steps" in str(plan.export("diffusers", make("DDPMScheduler")))


def test_random_grids_reach_every_scheduler_as_they_are():
    random = np.random.default_rng(3)
    for _ in range(12):
        grid = np.append(np.sort(np.exp(random.uniform(np.log(0.03), np.log(14.0), random.integers(2, 25))))[::-1], 0.0)
        for name, settings in [
            ("EulerDiscreteScheduler", SD),
            ("HeunDiscreteScheduler", SD),
            ("FlowMatchEulerDiscreteScheduler", {"shift": random.uniform(0.3, 6.0)}),
            ("EDMEulerScheduler", {"rho": random.uniform(2.0, 12.0)}),
            ("DPMSolverMultistepScheduler", SD),
        ]:
            scheduler = make(name, **settings)
            given = export(grid, "diffusers", scheduler)
            found = read_schedule(given.apply(scheduler))
            if not name.startswith("DPM"):
                np.testing.assert_allclose(found, grid, rtol=2e-5)
            else:  # within half a timestep of the table: 0.3 at its lower end, 0.006 at its upper
                np.testing.assert_array_equal(found, given.used)
                assert given.largest_error < 0.17
                assert np.all(given.relative_errors[grid > 1.0] < 0.005)


def test_the_json_of_an_export_reads_back_as_what_is_used(tmp_path):
    path = tmp_path / "dpm.json"
    given = export(GRID, "diffusers", make("DPMSolverMultistepScheduler"), path=path)
    np.testing.assert_array_equal(read_schedule(path), given.used)
    np.testing.assert_array_equal(read_schedule(given), given.used)
    for name in ("EDMEulerScheduler", "HeunDiscreteScheduler"):
        export(GRID, "diffusers", make(name, **({} if "EDM" in name else SD)), path=path)
        np.testing.assert_allclose(read_schedule(path), GRID, rtol=1e-6)


# what is refused


@pytest.mark.parametrize(
    ("name", "alternative"),
    [
        ("DDIMScheduler", "EulerDiscreteScheduler"),
        ("EulerAncestralDiscreteScheduler", "DDPMScheduler"),
        ("EDMDPMSolverMultistepScheduler", "EDMEulerScheduler"),
        ("PNDMScheduler", "DPMSolverMultistepScheduler"),
        ("LMSDiscreteScheduler", "DPMSolverMultistepScheduler"),
        ("DEISMultistepScheduler", "DPMSolverMultistepScheduler"),
        ("UniPCMultistepScheduler", "DPMSolverMultistepScheduler"),
        ("KDPM2DiscreteScheduler", "HeunDiscreteScheduler"),
        ("KDPM2AncestralDiscreteScheduler", "DDPMScheduler"),
        ("FlowMatchHeunDiscreteScheduler", "FlowMatchEulerDiscreteScheduler"),
    ],
)
def test_a_refusal_names_a_class_that_takes_the_grid(name, alternative):
    scheduler = make(name)
    with pytest.raises(ValueError, match=rf"{name} takes .*; use {alternative}\.from_config\(scheduler\.config\)"):
        export(GRID, "diffusers", scheduler)
    instead = getattr(diffusers, alternative).from_config(scheduler.config)
    given = export(GRID, "diffusers", instead)
    assert given.num_inference_steps == 8
    given.apply(given.configured(instead))


def test_other_refusals_say_why():
    for name, settings, said in [
        ("DDIMInverseScheduler", {}, "inverts a sampler"),
        ("UniPCMultistepScheduler", {"prediction_type": "flow_prediction"}, "use_flow_sigmas=True\\)"),
        ("DPMSolverMultistepScheduler", FLOW, "takes no custom levels"),
        ("CMStochasticIterativeScheduler", {}, "with a meaning that is not known here"),
    ]:
        with pytest.raises(ValueError, match=said):
            export(GRID, "diffusers", make(name, **settings))


def test_levels_outside_the_networks_range_are_refused_or_moved():
    wide = co.edm_grid(8, 0.002, 80.0)
    scheduler = make("EulerDiscreteScheduler", **SD)
    with pytest.raises(ValueError, match=r"sigma 80 lies outside the levels 0\.02917 to 14\.61 .*clip=True"):
        export(wide, "diffusers", scheduler)
    with pytest.raises(ValueError, match=r"sigma 0\.002 lies outside"):
        export(wide[3:], "diffusers", scheduler)
    moved = export(wide, "diffusers", scheduler, clip=True)
    assert moved.used[0] == pytest.approx(14.6146, rel=1e-5)
    assert moved.used[-2] == pytest.approx(0.0291675, rel=1e-5)
    assert len(moved.arguments["sigmas"]) == len(moved.used) == 9 - len(moved.dropped) < 9
    assert "merged" in str(moved)
    moved.apply(scheduler)
    video = make("EulerDiscreteScheduler", prediction_type="v_prediction", timestep_type="continuous")
    export(co.edm_grid(8, 0.002, 700.0), "diffusers", video).apply(video)  # continuous: any level


def test_apply_refuses_another_scheduler_and_levels_that_changed():
    given = export(GRID, "diffusers", make("EulerDiscreteScheduler"))
    with pytest.raises(ValueError, match="exported for EulerDiscreteScheduler, not for HeunDiscreteScheduler"):
        given.apply(make("HeunDiscreteScheduler"))
    shifted = export(GRID, "diffusers", make("FlowMatchEulerDiscreteScheduler", shift=3.0))
    with pytest.raises(ValueError, match=r"uses sigma 4 at node 0; 12\.0000\d* was wanted"):
        shifted.apply(make("FlowMatchEulerDiscreteScheduler"))
    with pytest.raises(ValueError, match=r"becomes has shape \(2,\), sigmas \(9,\)"):
        DiffusersExport("EulerDiscreteScheduler", GRID, np.array([1.0, 0.0]), {})


def test_a_users_subclass_and_an_unknown_class_are_handled():
    class Mine(diffusers.EulerDiscreteScheduler):
        pass

    given = export(GRID, "diffusers", Mine())
    assert given.pipeline == {"sigmas": GRID.tolist()}
    given.apply(Mine())

    class NewScheduler:  # takes sigma as EDM does, and a table
        def __init__(self):
            self.config = diffusers.EulerDiscreteScheduler().config
            self.alphas_cumprod = diffusers.EulerDiscreteScheduler().alphas_cumprod

        def set_timesteps(self, sigmas=None):
            self.sigmas = torch.tensor([*sigmas, 0.0])
            self.timesteps = torch.arange(len(sigmas))

    given = export(GRID, "diffusers", NewScheduler())
    assert given.arguments == {"sigmas": GRID[:-1].tolist()}
    assert "tried on a copy" in str(given)

    class StrangeScheduler(NewScheduler):
        def set_timesteps(self, sigmas=None):
            super().set_timesteps([2 * s for s in sigmas])

    with pytest.raises(ValueError, match="StrangeScheduler takes sigmas with a meaning that is not known here"):
        export(GRID, "diffusers", StrangeScheduler())


def test_an_older_signature_is_named():
    class Older(diffusers.EulerDiscreteScheduler):
        def set_timesteps(self, num_inference_steps=None, device=None, timesteps=None):
            super().set_timesteps(num_inference_steps, device, timesteps)

    with pytest.raises(ValueError, match=r"Older takes no sigmas in the version of diffusers that is installed"):
        export(GRID, "diffusers", Older())


def test_exporting_leaves_the_scheduler_and_the_log_alone(caplog):
    scheduler = make("LCMScheduler")
    before = scheduler.timesteps.clone()
    with caplog.at_level(logging.WARNING):
        export(GRID, "diffusers", scheduler)
    assert torch.equal(scheduler.timesteps, before)
    assert not caplog.records
    assert logging.root.manager.disable == logging.NOTSET


# what is read


def native(name, steps=9, settings=None, **options):
    scheduler = make(name, **(settings or {}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        scheduler.set_timesteps(steps, **options)
    return scheduler


READ = {
    "Euler": ("EulerDiscreteScheduler", {}, "euler", {}),
    "Euler, Karras": ("EulerDiscreteScheduler", {"use_karras_sigmas": True}, "euler", {}),
    "Heun": ("HeunDiscreteScheduler", {"beta_end": 0.02}, "heun", {}),
    "DPM++ 2M": ("DPMSolverMultistepScheduler", {}, "dpmpp_2m", {}),
    "DPM++ 2M, Karras": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}, "dpmpp_2m", {}),
    "DPM++ 2M, above zero": (
        "DPMSolverMultistepScheduler", {"final_sigmas_type": "sigma_min", "lower_order_final": False}, "dpmpp_2m", {}
    ),
    "DDIM, leading": ("DDIMScheduler", {"clip_sample": False}, "euler", {}),
    "DDIM, last alpha of the table": ("DDIMScheduler", {"clip_sample": False, "set_alpha_to_one": False,
                                                        "steps_offset": 1}, "euler", {}),
    "DDIM, trailing": ("DDIMScheduler", {"clip_sample": False, "timestep_spacing": "trailing"}, "euler", {}),
    "UniPC": ("UniPCMultistepScheduler", {"disable_corrector": list(range(20))}, "dpmpp_2m", {}),
    "EDM Euler": ("EDMEulerScheduler", {}, "euler", {}),
    "EDM DPM++ 2M": ("EDMDPMSolverMultistepScheduler", {}, "dpmpp_2m", {}),
    "EDM DPM++ 2M, exponential": ("EDMDPMSolverMultistepScheduler", {"sigma_schedule": "exponential"}, "dpmpp_2m", {}),
    "flow": ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}, "euler", {"sigmas": np.linspace(0.98, 0.1, 10)}),
}  # fmt: skip


@pytest.mark.parametrize(("name", "settings", "sampler", "options"), READ.values(), ids=READ)
def test_a_native_schedule_that_is_read_makes_the_same_samples(name, settings, sampler, options):
    scheduler = native(name, 10, settings, **options)
    grid = read_schedule(scheduler)
    assert grid.size == 11 if "above zero" not in name else grid.size in (10, 11)
    x = states(grid[0])
    theirs = run_scheduler(scheduler, circle8(), x)
    ours = run(circle8(), sampler_named(sampler), grid, x)
    torch.testing.assert_close(theirs, ours, rtol=0, atol=roundings(x))


def test_known_schedules_are_read_as_published():
    np.testing.assert_allclose(read_schedule(native("EDMEulerScheduler")), co.edm_grid(9, 0.002, 80.0), rtol=1e-6)
    np.testing.assert_allclose(
        read_schedule(native("EDMDPMSolverMultistepScheduler")), co.edm_grid(9, 0.002, 80.0), rtol=1e-6
    )
    timesteps = np.linspace(999, 0, 9)
    table = read_ddpm_levels(make("EulerDiscreteScheduler"), np.arange(1000))
    linear = np.append(np.interp(timesteps, np.arange(1000), table), 0.0)
    for name in ("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler"):
        np.testing.assert_allclose(read_schedule(native(name)), linear, rtol=1e-6)
    found = read_schedule(native("DDPMScheduler", settings={"timestep_spacing": "linspace"}))
    np.testing.assert_allclose(found, np.append(table[np.round(timesteps).astype(int)], 0.0), rtol=1e-6)
    # a scheduler that evaluates in the middle of a step has its end points read
    assert read_schedule(native("KDPM2DiscreteScheduler")).size == 10
    # pure noise has no finite sigma: the default flow schedule starts there
    flow = native("FlowMatchEulerDiscreteScheduler", 4)
    with pytest.raises(ValueError, match="starts from pure noise"):
        read_schedule(flow)
    times = np.linspace(1.0, 0.001, 4)[1:]
    np.testing.assert_allclose(read_schedule(flow, sigma_max=500.0), [500.0, *(times / (1 - times)), 0.0], rtol=1e-4)
    unipc = native("UniPCMultistepScheduler", 5, FLOW)
    assert read_schedule(unipc, sigma_max=500.0).size == 6


@pytest.mark.parametrize(("name", "settings", "options"), SAME_STEPS.values(), ids=SAME_STEPS)
def test_every_export_is_read_back_and_exported_again_as_itself(name, settings, options):
    scheduler = make(name, **settings)
    first = export(GRID, "diffusers", scheduler)
    first.apply(scheduler)
    grid = read_schedule(scheduler)
    np.testing.assert_array_equal(grid, first.used)
    if name == "TCDScheduler":
        return  # it ends above zero, where a grid to zero was wanted
    again = export(grid, "diffusers", make(name, **settings))
    assert again.used.size == grid.size
    np.testing.assert_allclose(again.used, grid, rtol=1e-5)
    if "timesteps" in first.arguments and name != "HeunDiscreteScheduler":
        assert again.arguments == first.arguments


@pytest.mark.parametrize(
    "name", ["DDIMScheduler", "DDPMScheduler", "DPMSolverMultistepScheduler", "EulerDiscreteScheduler",
             "EDMEulerScheduler", "FlowMatchEulerDiscreteScheduler", "UniPCMultistepScheduler"]
)  # fmt: skip
def test_a_scheduler_without_set_timesteps_is_told_to_call_it(name):
    with pytest.raises(ValueError, match="call its set_timesteps first"):
        read_schedule(make(name))
