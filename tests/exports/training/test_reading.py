"""Settings of trainers as people write them, wrong ones included: the right density, or an error that names it."""

import numpy as np
import pytest

import codesign_opt as co
from codesign_opt import peers
from tests.exports.training.test_trainers import distance
from tests.helpers import trainers

SD_SCRIPTS_TOML = """
pretrained_model_name_or_path = "flux1-dev.safetensors"
[network_arguments]
network_dim = 16
[training_arguments]
max_train_steps = 4000
timestep_sampling = "shift"
discrete_flow_shift = 3.1582
sigmoid_scale = 1.2
model_prediction_type = "raw"
"""
MUSUBI_SH = r"""#!/bin/bash
# a LoRA
accelerate launch --num_cpu_threads_per_process 1 --mixed_precision bf16 src/musubi_tuner/wan_train_network.py \\
    --task t2v-14B --timestep_sampling logsnr --logit_mean -6.0 \\
    --logit_std=2.0 --learning_rate 2e-4
"""
DIFFUSION_PIPE_TOML = """
epochs = 1000
[model]
type = 'wan'
dtype = 'bfloat16'
timestep_sample_method = 'logit_normal'
sigmoid_scale = 1.3
shift = 5
[optimizer]
type = 'adamw_optimi'
lr = 2e-5
"""
SIMPLE_TUNER_JSON = """{"--model_family": "flux", "--flow_schedule_shift": "3", "--flow_sigmoid_scale": 1.0,
 "--learning_rate": "1e-4", "--flow_schedule_auto_shift": false}"""
ONE_TRAINER_JSON = """{"model_type": "FLUX_DEV_1", "timestep_distribution": "LOGIT_NORMAL", "noising_weight": 0.2,
 "noising_bias": -0.5, "timestep_shift": 1.0, "min_noising_strength": 0.0, "max_noising_strength": 1.0}"""
K_DIFFUSION_JSON = """{"model": {"type": "image_transformer_v2", "sigma_data": 0.5, "sigma_min": 0.01, "sigma_max": 80,
 "sigma_sample_density": {"type": "lognormal", "mean": -1.2, "std": 1.2}}}"""
DIFFUSERS_SH = """accelerate launch train_dreambooth_lora_sd3.py --weighting_scheme="logit_normal" --logit_mean 0.4
 --logit_std 0.9 --learning_rate=1e-5"""
EDM2_YAML = """
outdir: runs/00000
preset: edm2-img64-s
P_std: 1.4
batch: 2048
"""


def test_settings_as_people_write_them_read_as_the_density_that_their_trainer_draws(tmp_path):
    rng = np.random.default_rng(0)
    flow = trainers.kohya(
        {"timestep_sampling": "shift", "discrete_flow_shift": 3.1582, "sigmoid_scale": 1.2}, 200_000, rng
    )
    video = trainers.kohya({"timestep_sampling": "logsnr", "logit_mean": -6.0, "logit_std": 2.0}, 200_000, rng)
    pipe = trainers.diffusion_pipe({"sigmoid_scale": 1.3, "shift": 5}, 200_000, rng)
    simple = trainers.simple_tuner({"flow_schedule_shift": 3.0, "flow_sigmoid_scale": 1.0}, 200_000, rng)
    one = trainers.one_trainer({"noising_weight": 0.2, "noising_bias": -0.5, "timestep_shift": 1.0}, 200_000, rng)
    old = trainers.edm({"P_mean": -1.2, "P_std": 1.2}, 200_000, rng)
    sd3 = trainers.diffusers({"logit_mean": 0.4, "logit_std": 0.9}, 200_000, rng, 3.0)
    new = trainers.edm({"P_mean": -0.8, "P_std": 1.4}, 200_000, rng)
    files = [
        ("flux.toml", SD_SCRIPTS_TOML, flow, {}), ("train.sh", MUSUBI_SH, video, {}),
        ("wan.toml", DIFFUSION_PIPE_TOML, pipe, {}), ("config.json", SIMPLE_TUNER_JSON, simple, {}),
        ("one.json", ONE_TRAINER_JSON, one, {}), ("k.json", K_DIFFUSION_JSON, old, {}),
        ("sd3.sh", DIFFUSERS_SH, sd3, {"shift": 3.0}),
    ]  # fmt: skip
    try:
        import yaml  # noqa: F401

        files.append(("options.yaml", EDM2_YAML, new, {}))
    except ImportError:
        pass
    for name, text, sigma, known in files:
        (tmp_path / name).write_text(text, encoding="utf-8")
        read = co.read_training(tmp_path / name, **known)
        atom = 0.0025 if name in ("one.json", "sd3.sh") else 0.0
        assert distance(sigma, read) <= 0.005 + atom, name
        for source in (str(tmp_path / name), text):
            assert read.distance(co.read_training(source, **known)) == 0


def test_settings_that_are_wrong_or_say_too_little_are_refused_by_name():
    cases = [
        (DIFFUSERS_SH, {}, "the shift is the scheduler's"),
        (SD_SCRIPTS_TOML.replace('"shift"', '"flux_shift"'), {}, "shifts by the size of an image"),
        (SD_SCRIPTS_TOML.replace('"shift"', '"shfit"'), {}, "timestep_sampling is 'shfit'; it must be one of"),
        (SD_SCRIPTS_TOML.replace("1.2", "-1.2"), {}, "sigmoid_scale is -1.2; it must be > 0"),
        (SD_SCRIPTS_TOML.replace("1.2", '"wide"'), {}, "sigmoid_scale is 'wide'; a number is needed"),
        (SD_SCRIPTS_TOML.replace("sigmoid_scale =", "sigmoid_scale"), {}, "cannot be read"),
        (MUSUBI_SH.replace("logsnr", "qwen_shift"), {}, "size of an image"),
        (MUSUBI_SH.replace("--logit_std=2.0", "--logit_std=2.0 --min_timestep 500"), {}, "squeeze the whole density"),
        (MUSUBI_SH.replace("logsnr", "qinglong_flux"), {}, "must be one of"),
        (DIFFUSION_PIPE_TOML.replace("'logit_normal'", "'gauss'"), {}, "timestep_sample_method is 'gauss'"),
        (DIFFUSION_PIPE_TOML.replace("shift = 5", "flux_shift = true"), {}, "flux_shift goes by the size"),
        (SIMPLE_TUNER_JSON[:-2], {}, "cannot be read"),
        (SIMPLE_TUNER_JSON.replace("}", ', "--flow_custom_timesteps": "low,high"}'), {}, "is no list of times"),
        (ONE_TRAINER_JSON.replace("0.2", "-1.5"), {}, "LOGIT_NORMAL needs more than -1"),
        (ONE_TRAINER_JSON.replace('"timestep_shift": 1.0', '"dynamic_timestep_shifting": true'), {}, "give shift="),
        (K_DIFFUSION_JSON.replace('"lognormal"', '"cosine-interpolated"'), {}, "which is not read"),
        (K_DIFFUSION_JSON.replace('"std": 1.2', '"std": 0'), {}, "std is 0; it must be > 0"),
        (K_DIFFUSION_JSON.replace('"std": 1.2', '"sd": 1'), {}, "scale is None; one number is needed"),
        ('{"learning_rate": 1e-4, "epochs": 3}', {}, "no setting of a known trainer .*found: learning_rate, epochs"),
        ('{"a": {"P_mean": -1.2}, "b": {"P_mean": 0.3}}', {}, "p_mean is said several times"),
        ("train.py fast", {}, "cannot be read|no options|no table"),
        (3.0, {}, "give a path, a text"),
        (EDM2_YAML, {"target": "edm3"}, "did you mean 'edm"),
    ]
    for text, known, words in cases:
        with pytest.raises(ValueError, match=words):
            co.read_training(text, **known)
    with pytest.raises(FileNotFoundError):
        co.read_training("nowhere/config.toml")


def test_what_settings_leave_out_is_the_trainers_default():
    read = co.read_training
    shift3 = peers.training_density("flow_timesteps", shift=3.0)
    assert read("flux_train_network.py --network_dim 4", target="sd-scripts").distance(shift3) < 1e-9
    assert read("flux_train.py --timestep_sampling shift") == co.LogNormal(np.log(3.0), 1.0)
    plain = peers.training_density("flow_timesteps")
    # musubi-tuner's own scheduler shifts in set_timesteps alone, so that "sigma" is not shifted
    musubi = "musubi_tuner/hv_train_network.py --timestep_sampling sigma --discrete_flow_shift 7"
    assert read(musubi).distance(plain) < 1e-9
    assert read("hv_train_network.py --timestep_sampling shift").distance(co.LogNormal(0.0, 1.0)) == 0
    assert read({"preset": "edm2-img512-xl"}) == co.LogNormal(-0.4, 1.0)
    assert read({"loss_kwargs": {"class_name": "training.loss.EDMLoss"}}) == co.LogNormal(-1.2, 1.2)
    assert read({"flow_use_uniform_schedule": True}).distance(peers.LogLogistic(np.log(3.0), 1.0)) == 0
    assert read("t.py --timestep_bias_strategy none").distance(peers.timesteps()) == 0
    uniform = np.random.default_rng(0).integers(200, 700, 200_000)
    ranged = read("sdxl_train.py --min_timestep 200 --max_timestep 700")
    assert distance(trainers.stable_diffusion()[uniform], ranged) <= 0.005
    later = read("t.py --timestep_bias_strategy later --timestep_bias_portion 0.5 --timestep_bias_multiplier 3")
    assert later.tails(np.array([peers.beta_table().sigma(499.5)]))[0][0] == pytest.approx(0.25, abs=1e-3)
    beta = read({"flow_use_beta_schedule": True, "flow_schedule_shift": 1.0, "flow_beta_schedule_alpha": 3.0})
    drawn = np.random.default_rng(1).beta(3.0, 2.0, 200_000)
    assert distance(drawn / (1 - drawn), beta) <= 0.005
    cut = read("hv_train.py --timestep_sampling sigmoid --min_timestep 300 --max_timestep 800 "
               "--preserve_distribution_shape")  # fmt: skip
    t = 1 / (1 + np.exp(-np.random.default_rng(2).standard_normal(400_000)))
    kept = t[(t > 0.3) & (t < 0.8)]
    assert distance(kept / (1 - kept), cut) <= 0.005


@pytest.mark.parametrize("kind", ["UNIFORM", "HEAVY_TAIL", "COS_MAP", "SIGMOID", "INVERTED_PARABOLA", "BETA"])
def test_every_distribution_of_one_trainer_is_read(kind):
    said = {"timestep_distribution": kind, "noising_weight": 0.7, "noising_bias": 0.1, "timestep_shift": 2.0}
    rng, shift, count = np.random.default_rng(0), 2.0, 200_000
    if kind in ("COS_MAP", "SIGMOID", "INVERTED_PARABOLA"):
        line = np.linspace(0, 1, 1000)
        moved, slope = line / (shift - shift * line + line), shift / (shift + line - line * shift) ** 2
        weights = {
            "COS_MAP": 2 / (np.pi - 2 * np.pi * moved + 2 * np.pi * moved**2),
            "SIGMOID": 1 / (1 + np.exp(-0.7 * (moved / (shift - shift * moved + moved) - 0.6))),
            "INVERTED_PARABOLA": np.maximum(-0.7 * (moved - 0.6) ** 2 + 2, 0),
        }[kind] * slope  # fmt: skip
        steps = rng.choice(1000, count, p=weights / weights.sum())
    else:
        v = rng.random(count)
        u = {
            "UNIFORM": v, "HEAVY_TAIL": 1 - v - 0.7 * (np.cos(np.pi / 2 * v) ** 2 - 1 + v),
            "BETA": rng.beta(0.7, 0.1, count),
        }[kind]  # fmt: skip
        steps = (1000 * shift * (1000 * u) / ((shift - 1) * 1000 * u + 1000)).astype(int).clip(0, 999)
    sigma = trainers.of_time((steps + 1) / 1000)
    atom = np.unique(steps, return_counts=True)[1].max() / count
    assert distance(sigma, co.read_training(said)) <= 0.005 + 0.51 * atom
    table = co.read_training({**said, "model_type": "STABLE_DIFFUSION_XL_10_BASE"})
    assert distance(trainers.stable_diffusion()[steps], table) <= 0.005 + 0.51 * atom


@pytest.mark.usefixtures("undescended")
def test_an_audit_takes_what_is_read():
    model = co.GaussianModel(co.Spectrum.power_law(8, exponent=1.5))
    run = co.TrainingRun(co.read_training(SD_SCRIPTS_TOML), iterations=100, batch=64)
    grid = co.edm_grid(5, 0.01, 80.0)
    report = co.audit(model, co.Prices(3.0, 1.0, images=100), sigmas=grid, run=run, levels=24, points=3, polish=False)
    assert report.ratio > 1
    assert report.gap["training density"] > 0
