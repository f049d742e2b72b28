"""What an export proposes for a pipeline: held against every installed pipeline, and against what real ones run."""

import inspect
import pickle

import numpy as np
import pytest
import torch

from codesign_opt.exports import export, read_schedule
from tests.helpers.pipelines import Watched, load_all, seeded
from tests.helpers.schedulers import CONVERSIONS, FLOW, GRID, OWN_WARNINGS, diffusers, make
from tests.helpers.tiny_networks import TINY

pytestmark = [CONVERSIONS, *(pytest.mark.filterwarnings(said) for said in OWN_WARNINGS)]

SCHEDULERS = {
    "Euler": ("EulerDiscreteScheduler", {}),
    "DPM++": ("DPMSolverMultistepScheduler", {}),
    "flow Euler": ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}),
    "flow UniPC": ("UniPCMultistepScheduler", {**FLOW, "flow_shift": 3.0}),
    "flow DPM++": ("DPMSolverMultistepScheduler", {**FLOW, "flow_shift": 3.0}),
}
TIMES = GRID[:-1] / (1 + GRID[:-1])


@pytest.fixture(scope="module")
def pipelines():
    with pytest.MonkeyPatch.context() as patch:
        yield load_all(patch)


@pytest.fixture(scope="module")
def exports():
    made = {key: make(name, **settings) for key, (name, settings) in SCHEDULERS.items()}
    return {key: (export(GRID, "diffusers", scheduler), scheduler) for key, scheduler in made.items()}


@pytest.mark.slow
def test_every_installed_pipeline_is_proposed_only_what_its_call_takes(pipelines, exports):
    assert len(pipelines) > 150
    proposed = 0
    for kind in pipelines.values():
        if "scheduler" not in inspect.signature(kind.__init__).parameters:
            with pytest.raises(ValueError, match="no component `scheduler`"):
                exports["Euler"][0].in_pipeline(kind, exports["Euler"][1])
            continue
        takes = inspect.signature(kind.__call__).parameters
        for given, scheduler in exports.values():
            call = given.in_pipeline(kind, scheduler).pipeline
            levels = set(call.arguments) - {"num_inference_steps"}
            assert levels <= set(takes), (kind.__name__, levels)
            assert call.holds == (not levels)
            assert levels <= set(given.arguments)
            assert ("holding" in call.lines[0]) == call.holds
            proposed += len(levels)
    assert proposed > 100  # those that can be used are


@pytest.mark.cases(6)
@pytest.mark.parametrize(
    ("name", "key", "levels"),
    [
        ("WanPipeline", "flow Euler", None),
        ("WanPipeline", "flow UniPC", None),
        ("WanVideoToVideoPipeline", "flow Euler", None),  # timesteps alone
        ("LTXPipeline", "flow Euler", None),  # timesteps alone
        ("MochiPipeline", "flow Euler", None),  # timesteps alone
        ("MochiPipeline", "DPM++", None),  # gives a list of sigmas beside, which is an error
        ("CogView4Pipeline", "flow Euler", None),  # would tell the network evenly spaced timesteps
        ("FluxPipeline", "flow Euler", "sigmas"),
        ("Flux2Pipeline", "flow UniPC", None),  # sets them to None
        ("StableDiffusion3Pipeline", "flow Euler", "sigmas"),
        ("HunyuanVideoPipeline", "flow UniPC", "sigmas"),
        ("QwenImagePipeline", "flow UniPC", "sigmas"),  # gives a mu, which UniPC passes over
        ("QwenImagePipeline", "Euler", None),  # gives a mu, which Euler's set_timesteps has no argument for
        ("StableDiffusion3Pipeline", "flow DPM++", None),
        ("QwenImagePipeline", "flow Euler", "sigmas"),
        ("ZImagePipeline", "flow Euler", "sigmas"),
        ("LTX2Pipeline", "flow Euler", "sigmas"),
        ("SanaPipeline", "DPM++", "timesteps"),
        ("PixArtSigmaPipeline", "DPM++", "timesteps"),
        ("StableDiffusionXLPipeline", "Euler", "sigmas"),
        ("StableDiffusionXLPipeline", "DPM++", "timesteps"),
        ("LattePipeline", "Euler", None),
        ("AudioLDM2Pipeline", "DPM++", None),
    ],
)
def test_named_pipelines(pipelines, exports, name, key, levels):
    given, scheduler = exports[key]
    call = given.in_pipeline(pipelines[name], scheduler).pipeline
    assert set(call.arguments) - {"num_inference_steps"} == ({levels} if levels else set()), call
    assert call.arguments["num_inference_steps"] == 8
    assert name in str(given.in_pipeline(pipelines[name], scheduler))


def wan(pipelines, scheduler):
    settings, *_ = TINY["WanTransformer3DModel"]
    torch.manual_seed(0)
    network = diffusers.WanTransformer3DModel(**settings).eval()
    pipe = pipelines["WanPipeline"](None, None, None, scheduler, network)
    given = {"prompt_embeds": seeded(1, 6, 16), "height": 64, "width": 64, "num_frames": 5, "guidance_scale": 1.0}
    return pipe, network, given


def flux(pipelines, scheduler):
    settings, *_ = TINY["FluxTransformer2DModel"]
    torch.manual_seed(0)
    network = diffusers.FluxTransformer2DModel(**settings).eval()
    pipe = pipelines["FluxPipeline"](scheduler, None, None, None, None, None, network)
    given = {"prompt_embeds": seeded(1, 6, 32), "pooled_prompt_embeds": seeded(1, 32), "height": 64, "width": 64,
             "latents": seeded(1, 16, 4)}  # fmt: skip
    return pipe, network, given


def run_in(pipe, network, given, arguments):
    pipe.set_progress_bar_config(disable=True)
    watched = Watched(network)
    with torch.no_grad():
        pipe(**given, **arguments, output_type="latent", callback_on_step_end=watched.stepped)
    return watched


@pytest.mark.parametrize("key", ["flow Euler", "flow UniPC", "flow DPM++"])
def test_wan_runs_the_levels_of_the_plan(pipelines, exports, key):
    given, scheduler = exports[key]
    pipe, network, inputs = wan(pipelines, scheduler)
    given = export(GRID, "diffusers", pipeline=pipe)
    pipe.scheduler = given.holding(pipe.scheduler)
    watched = run_in(pipe, network, inputs, given.pipeline.arguments)
    told = 1000 * TIMES
    np.testing.assert_allclose(watched.times, told if key == "flow Euler" else np.floor(told), rtol=1e-5)
    np.testing.assert_allclose(read_schedule(pipe.scheduler), GRID, rtol=1e-5)
    assert len(watched.states) == 8
    if key == "flow Euler":  # what the states have really moved by
        np.testing.assert_allclose(watched.lengths(), np.diff(np.append(TIMES, 0.0))[1:], rtol=1e-4)


def test_flux_runs_the_levels_of_the_plan_by_its_argument_and_by_its_scheduler(pipelines):
    for settings in ({"shift": 3.0}, {"use_dynamic_shifting": True}):
        pipe, network, inputs = flux(pipelines, make("FlowMatchEulerDiscreteScheduler", **settings))
        given = export(GRID, "diffusers", pipeline=pipe)
        assert not given.pipeline.holds
        ours = pipe.scheduler
        for scheduler, arguments in [
            (given.configured(ours), given.pipeline.arguments),
            (given.holding(ours), {"num_inference_steps": 8}),
        ]:
            pipe.scheduler = scheduler
            watched = run_in(pipe, network, inputs, arguments)
            np.testing.assert_allclose(watched.times, TIMES, rtol=1e-5)
            np.testing.assert_allclose(watched.lengths(), np.diff(np.append(TIMES, 0.0))[1:], rtol=1e-4)


def test_a_held_schedule_survives_copies_and_gives_way_to_the_next_plan(exports):
    import copy

    for given, scheduler in exports.values():
        held = copy.deepcopy(given.holding(scheduler))
        held.set_timesteps(50, device="cpu")
        np.testing.assert_allclose(read_schedule(held), given.used, rtol=1e-5)
        assert type(held).__name__ == type(scheduler).__name__
        assert isinstance(held, type(scheduler))
        assert held.config == scheduler.config
        shorter = export(GRID[2:], "diffusers", held)
        again = shorter.holding(held)
        again.set_timesteps(timesteps=[5, 3])
        np.testing.assert_allclose(read_schedule(again), shorter.used, rtol=1e-5)
        np.testing.assert_allclose(read_schedule(shorter.apply(shorter.configured(held))), shorter.used, rtol=1e-5)


def test_a_held_schedule_survives_a_pickle_and_says_that_diffusers_saves_its_settings_alone(exports, tmp_path):
    for given, scheduler in exports.values():
        held = given.holding(scheduler)
        read = pickle.loads(pickle.dumps(held))
        read.set_timesteps(3)
        np.testing.assert_allclose(read_schedule(read), given.used, rtol=1e-5)
        with pytest.warns(UserWarning, match="saved without the levels that it holds"):
            held.save_pretrained(tmp_path)
        loaded = type(scheduler).from_pretrained(tmp_path)
        loaded.set_timesteps(50)
        assert len(loaded.timesteps) == 50
        again = given.holding(loaded)
        again.set_timesteps(50)
        np.testing.assert_allclose(read_schedule(again), given.used, rtol=1e-5)


def test_equal_first_timesteps_skip_no_node():
    crowded = np.array([5000.0, 2000.0, 3.0, 0.5, 0.0])  # 999.8 and 999.5 of 1000
    given = export(crowded, "diffusers", make("UniPCMultistepScheduler", **FLOW))
    assert "the same timestep at several levels: 999 at 2 levels from 5000 to 2000" in str(given)
    held = given.holding(make("UniPCMultistepScheduler", **FLOW))
    held.set_timesteps(4)
    x = torch.zeros(1, 2, dtype=torch.float64)
    visited = []
    for t in held.timesteps:
        x = held.step(torch.ones_like(x), t, x).prev_sample
        visited.append(held.step_index)
    assert visited == [1, 2, 3, 4]


def test_what_is_no_pipeline_is_refused_by_name(exports):
    given, scheduler = exports["Euler"]
    for wrong, said in [
        ("NoSuchPipeline", "which the installed diffusers does not have"),
        (scheduler, "give a pipeline of diffusers"),
    ]:
        with pytest.raises(ValueError, match=said):
            given.in_pipeline(wrong, scheduler)
    with pytest.raises(ValueError, match="exported for EulerDiscreteScheduler, not for DDPMScheduler"):
        given.holding(make("DDPMScheduler"))
