"""What an export tells diffusers' schedulers: levels, settings and refusals."""

import logging

import numpy as np
import pytest
import torch

import codesign_opt as co
from codesign_opt.exports import DiffusersExport, export, read_schedule
from tests.helpers.schedulers import CONVERSIONS, FLOW, GRID, LINEAR, SD, diffusers, make, read_ddpm_levels

pytestmark = CONVERSIONS


# what is exported


def test_euler_gets_sigmas_with_the_trailing_zero():
    scheduler = make("EulerDiscreteScheduler")
    given = export(GRID, "diffusers", scheduler)
    assert given.arguments == {"sigmas": GRID.tolist()}
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
    assert set(given.arguments) == {"sigmas", "mu"}
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


@pytest.mark.cases(3)
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
        ("DPMSolverMultistepScheduler", {"prediction_type": "flow_prediction"}, "use_flow_sigmas=True\\)"),
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
    assert given.arguments == {"sigmas": GRID.tolist()}
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
