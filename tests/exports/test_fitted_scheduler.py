"""Fitted solvers inside pipelines of diffusers: the same samples as our own loop, saved and loaded."""

import ast
import copy
import json
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch

from codesign_opt.estimate import from_diffusers, run
from codesign_opt.exports import export, read_schedule
from codesign_opt.exports.standalone.linear_multistep_scheduler import LinearMultistepScheduler
from tests.helpers.fitted import GRID, solver
from tests.helpers.pipelines import load, seeded
from tests.helpers.schedulers import CONVERSIONS, FLOW, OWN_WARNINGS, SD, diffusers, make
from tests.helpers.tiny_networks import CROSS, TINY, UNET

pytestmark = [CONVERSIONS, *(pytest.mark.filterwarnings(said) for said in OWN_WARNINGS)]

NETWORKS = {
    "epsilon": ("DDPMScheduler", {}, {}),
    "sample": ("DDIMScheduler", {"prediction_type": "sample"}, {}),
    "v": ("DPMSolverMultistepScheduler", {**SD, "prediction_type": "v_prediction"}, {}),
    "epsilon, interpolated in sigma": ("EulerDiscreteScheduler", SD, {}),
    "v, continuous": ("EulerDiscreteScheduler", {"timestep_type": "continuous", "prediction_type": "v_prediction"}, {}),
    "flow": ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}, {}),
    "flow, UniPC": ("UniPCMultistepScheduler", {**FLOW, "flow_shift": 3.0}, {}),
    "EDM": ("EDMEulerScheduler", {}, {}),
    "EDM, v": ("EDMDPMSolverMultistepScheduler", {"prediction_type": "v_prediction", "sigma_data": 1.4}, {}),
}


def network(x, timestep, return_dict=False):
    """Anything smooth in both, of a network's shape."""
    t = torch.as_tensor(timestep, dtype=x.dtype).reshape(-1, *[1] * (x.ndim - 1)) / 1000
    return (torch.tanh(x.roll(1, -1) - 0.3 * x) + 0.2 * torch.sin(3 * t + x),)


@pytest.mark.cases(9)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("end", ["to zero", "above zero"])
@pytest.mark.parametrize(("name", "settings", "options"), NETWORKS.values(), ids=NETWORKS)
def test_a_pipelines_loop_makes_our_samples(name, settings, options, end, dtype):
    ours = solver(GRID if end == "to zero" else GRID[:-1], consistent=False, mean=0.3)
    given = make(name, **settings)
    scheduler = export(ours, "diffusers", given, **options)
    noise = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(0), dtype=dtype)
    scheduler.set_timesteps(ours.a.size)
    latents = noise * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        out = network(scheduler.scale_model_input(latents, t), t)[0]
        latents = scheduler.step(out, t, latents, return_dict=False)[0]
    assert latents.dtype == dtype
    expected = run(from_diffusers(network, given), ours, GRID[: ours.levels.size], GRID[0] * noise)
    assert float(expected.std()) > 0.1
    torch.testing.assert_close(latents, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(read_schedule(scheduler), ours.levels, rtol=2e-5)


# in pipelines, saved and loaded


@pytest.fixture
def no_cache(monkeypatch, tmp_path):
    """Diffusers copies a scheduler's file to its cache: one of this test."""
    for module in ("diffusers.utils.dynamic_modules_utils", "diffusers.utils.constants"):
        monkeypatch.setattr(f"{module}.HF_MODULES_CACHE", str(tmp_path / "cache"))


def unconditional():
    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(
        in_channels=3, out_channels=3, down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"), **UNET,
    )  # fmt: skip
    return unet.eval()


def test_a_saved_pipeline_makes_our_samples_and_is_saved_again(tmp_path, no_cache):
    unet, given, ours = unconditional(), make("DDPMScheduler", prediction_type="sample"), solver()
    pipe = diffusers.DDPMPipeline(unet, export(ours, "diffusers", given))
    pipe.set_progress_bar_config(disable=True)
    noise = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        clean = run(from_diffusers(unet, given), ours, GRID, noise * float(np.hypot(1, GRID[0])))
    expected = (clean / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
    assert float(((expected > 0) & (expected < 1)).float().mean()) > 0.5
    for round_trip in ("first", "second"):
        asked = {"batch_size": 2, "num_inference_steps": 6, "output_type": "np"}
        found = pipe(generator=torch.Generator().manual_seed(5), **asked).images
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
        pipe.save_pretrained(tmp_path / round_trip)
        written = sorted(path.name for path in (tmp_path / round_trip / "scheduler").iterdir())
        assert written == ["linear_multistep_scheduler.py", "scheduler_config.json"]
        pipe = diffusers.DiffusionPipeline.from_pretrained(tmp_path / round_trip, trust_remote_code=True)
        pipe.set_progress_bar_config(disable=True)
        kept = pipe.scheduler.config
        assert (kept.levels, kept.a, kept.c) == (ours.levels.tolist(), ours.a.tolist(), ours.c.tolist())


@pytest.mark.skipif(os.environ.get("CODESIGN_OPT_FULL") != "1", reason="imports diffusers anew: CODESIGN_OPT_FULL=1")
def test_a_saved_pipeline_loads_where_the_package_is_not(tmp_path):
    pipe = diffusers.DDPMPipeline(unconditional(), export(solver(), "diffusers", make("DDPMScheduler")))
    pipe.save_pretrained(tmp_path / "saved")
    code = (
        "import sys; sys.modules['codesign_opt'] = None\n"
        "import diffusers\n"
        f"pipe = diffusers.DiffusionPipeline.from_pretrained({str(tmp_path / 'saved')!r}, trust_remote_code=True)\n"
        "pipe(num_inference_steps=6, output_type='np'); print(pipe.scheduler.step_index)"
    )
    environment = {"HF_HOME": str(tmp_path / "home"), "PATH": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "6"


def test_a_text_pipeline_of_latents_makes_our_samples(monkeypatch):
    kind = load("pipelines/stable_diffusion/pipeline_stable_diffusion", "StableDiffusionPipeline", monkeypatch)
    torch.manual_seed(0)
    unet = diffusers.UNet2DConditionModel(
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), **CROSS,
    ).eval()  # fmt: skip
    given, ours, words = make("EulerDiscreteScheduler", **SD, prediction_type="v_prediction"), solver(), seeded(1, 5, 8)
    vae = diffusers.AutoencoderKL(block_out_channels=(4,), norm_num_groups=2)
    pipe = kind(vae, None, None, unet, export(ours, "diffusers", given), None, None, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    found = pipe(
        prompt_embeds=words, latents=noise, num_inference_steps=6, guidance_scale=1.0, output_type="latent"
    ).images
    with torch.no_grad():
        expected = run(from_diffusers(unet, given, encoder_hidden_states=words), ours, GRID, GRID[0] * noise)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_pipeline_of_a_flow_makes_our_samples(monkeypatch, tmp_path, no_cache):
    kind = load("pipelines/flux/pipeline_flux", "FluxPipeline", monkeypatch)
    settings, *_ = TINY["FluxTransformer2DModel"]
    torch.manual_seed(0)
    network = diffusers.FluxTransformer2DModel(**settings).eval()
    given, ours = make("FlowMatchEulerDiscreteScheduler", use_dynamic_shifting=True), solver()
    pipe = kind(export(ours, "diffusers", given), None, None, None, None, None, network)
    words, pooled, noise = seeded(1, 6, 32), seeded(1, 32), seeded(1, 16, 4)
    asked = {"prompt_embeds": words, "pooled_prompt_embeds": pooled, "height": 64, "width": 64, "latents": noise}
    pipe.set_progress_bar_config(disable=True)
    found = pipe(**asked, num_inference_steps=6, output_type="latent").images
    places = {"txt_ids": torch.zeros(6, 3), "img_ids": kind._prepare_latent_image_ids(1, 4, 4, "cpu", torch.float32)}
    told = {"encoder_hidden_states": words, "pooled_projections": pooled, **places}
    if network.config.guidance_embeds:
        told["guidance"] = torch.full((1,), 3.5)
    with torch.no_grad():
        denoiser = from_diffusers(network, given, **told)
        expected = run(denoiser, ours, GRID, noise * (1 + GRID[0]))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert pipe.scheduler.config.use_flow_sigmas


def test_the_file_of_the_class_needs_torch_and_diffusers_alone(tmp_path):
    export(solver(), "diffusers", make("DDPMScheduler"), path=tmp_path / "scheduler_config.json")
    tree = ast.parse((tmp_path / "linear_multistep_scheduler.py").read_text())
    froms = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    packages = {name.split(".")[0] for name in froms + names} - set(sys.stdlib_module_names)
    assert packages == {"torch", "diffusers"}
    assert json.loads((tmp_path / "scheduler_config.json").read_text())["a"] == solver().a.tolist()


def test_the_scheduler_of_before_is_made_from_its_settings(tmp_path):
    for name, settings, _ in NETWORKS.values():
        given = make(name, **settings)
        export(solver(), "diffusers", given).save_pretrained(tmp_path)
        held = LinearMultistepScheduler.from_pretrained(tmp_path)
        assert held.config.levels == GRID.tolist()
        again = type(given).from_config(held.config)
        kept = {key: value for key, value in given.config.items() if not key.startswith("_")}
        assert {key: again.config[key] for key in kept} == kept


def test_copies_and_pickles_take_the_same_steps():
    scheduler = export(solver(), "diffusers", make("DDPMScheduler"))
    x, out = torch.randn(2, 3), torch.randn(2, 3)
    steps = []
    for held in (scheduler, copy.deepcopy(scheduler), pickle.loads(pickle.dumps(scheduler))):
        held.set_timesteps(6, device="cpu")
        steps.append(held.step(out, held.timesteps[0], x).prev_sample)
    assert torch.equal(steps[0], steps[1])
    assert torch.equal(steps[0], steps[2])


def test_a_learned_variance_is_left_out_and_half_precision_is_kept():
    scheduler = export(solver(), "diffusers", make("DDPMScheduler"))
    x, out = torch.randn(2, 3, 4, 4), torch.randn(2, 6, 4, 4)
    expected = scheduler.step(out[:, :3], scheduler.timesteps[0], x).prev_sample
    scheduler.set_timesteps(6)
    torch.testing.assert_close(scheduler.step(out, scheduler.timesteps[0], x).prev_sample, expected)
    scheduler.set_timesteps(6)
    half = scheduler.step(out.half(), scheduler.timesteps[0], x.half()).prev_sample
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.float(), expected, rtol=3e-3, atol=3e-3)


def test_noise_is_added_at_its_own_timesteps():
    scheduler = export(solver(), "diffusers", make("FlowMatchEulerDiscreteScheduler"))
    x, noise = torch.randn(2, 3), torch.randn(2, 3)
    times = GRID[[1, 4]] / (1 + GRID[[1, 4]])
    expected = torch.stack([(1 - t) * d + t * n for t, d, n in zip(times, x, noise, strict=True)])
    torch.testing.assert_close(scheduler.scale_noise(x, scheduler.timesteps[[1, 4]], noise), expected.float())
    with pytest.raises(ValueError, match="timestep 3 is none of its own"):
        scheduler.add_noise(x, noise, torch.tensor([3.0, 3.0]))


def test_what_a_fitted_solver_cannot_do_is_refused_by_name():
    scheduler = export(solver(), "diffusers", make("DDPMScheduler"))
    with pytest.raises(ValueError, match=r"has 6 steps, and 50 are asked for.*num_inference_steps=6"):
        scheduler.set_timesteps(50)
    scheduler.set_timesteps(6)
    scheduler.set_begin_index(3)
    with pytest.raises(ValueError, match="step 3 uses the outputs of 2 steps before it"):
        scheduler.step(torch.zeros(1, 2), scheduler.timesteps[3], torch.zeros(1, 2))
    for name, settings, options, said in [
        ("DDPMScheduler", {"beta_end": 1e-3}, {}, "lies outside the levels"),
        ("DDPMScheduler", {}, {"clip": True}, "clip has no meaning"),
        ("FlowMatchEulerDiscreteScheduler", {}, {"mu": 1.0}, "mu has no meaning"),
        ("FlowMatchEulerDiscreteScheduler", {"invert_sigmas": True}, {}, "does not know"),
        ("LCMScheduler", {}, {}, "does not know"),
        ("UniPCMultistepScheduler", {"prediction_type": "flow_prediction"}, {}, "use_flow_sigmas=True"),
        ("ScoreSdeVeScheduler", {}, {}, "has no alphas_cumprod"),
    ]:
        with pytest.raises(ValueError, match=said):
            export(solver(), "diffusers", make(name, **settings), **options)
    with pytest.raises(ValueError, match="the scheduler that the network came with"):
        export(solver(), "diffusers", scheduler)
    with pytest.raises(ValueError, match="needs scheduler="):
        export(solver(), "diffusers")
    with pytest.raises(ValueError, match="prediction_type is 'v_prediction'"):
        type(scheduler).from_config(scheduler.config, use_flow_sigmas=True, prediction_type="v_prediction")
    with pytest.raises(ValueError, match="made by the export"):
        LinearMultistepScheduler.from_config(make("DDPMScheduler").config)
    with pytest.raises(ValueError, match="7 levels make 6 steps, but there are 5 entries in a"):
        type(scheduler).from_config(scheduler.config, a=[0.0] * 5)
