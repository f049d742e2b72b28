"""Noise levels out and in: files, lists, tensors; tables of timesteps; what is refused. Diffusers has its own file."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import codesign_opt as co
from codesign_opt.estimate.runs.run import run
from codesign_opt.exports import export, read_schedule
from codesign_opt.schedulers.noise_table import FlowShift, NoiseTable, flow_time, sigma_of_flow_time
from codesign_opt.testbed import circle8

GRIDS = {
    "denoise": co.edm_grid(9, 0.03, 14.0),
    "rescale": co.log_snr_grid(7, 0.01, 50.0, terminal="rescale"),
    "two nodes": np.array([1.0, 0.0]),
}


@pytest.fixture(scope="module")
def plan():
    model = co.GaussianModel(co.Spectrum.power_law(24, exponent=1.5), sampler=co.Heun())
    return co.codesign(model, steps=6, levels=40, stopping_sigma=0.05)


# round trips


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize(
    ("target", "flow"),
    [("json", False), ("csv", False), *((name, flow) for name in ("comfyui", "k-diffusion") for flow in (False, True))],
)
def test_every_file_reads_back_every_digit(grid, target, flow, tmp_path):
    path = tmp_path / f"grid.{target if target in ('json', 'csv') else 'txt'}"
    export(grid, target, path=path, flow=flow)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    again = read_schedule(path, flow=flow)
    np.testing.assert_allclose(again, grid, rtol=1e-13 if flow else 0, atol=0)


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_lists_and_tensors_read_back(grid):
    np.testing.assert_array_equal(read_schedule(export(grid, "comfyui")), grid)
    tensor = export(grid, "k-diffusion")
    assert tensor.dtype == torch.float32
    np.testing.assert_array_equal(read_schedule(tensor), grid.astype(np.float32).astype(np.float64))
    np.testing.assert_array_equal(read_schedule(torch.tensor(grid)), grid)


def test_a_plan_and_its_file_read_back(plan, tmp_path):
    np.testing.assert_array_equal(read_schedule(plan), plan.sigmas)
    np.testing.assert_array_equal(read_schedule(plan.save(tmp_path / "plan.json")), plan.sigmas)
    text = plan.export("json", path=tmp_path / "grid.json")
    assert (tmp_path / "grid.json").read_text() == text
    np.testing.assert_array_equal(read_schedule(tmp_path / "grid.json"), plan.sigmas)


def test_an_audit_takes_what_was_read(tmp_path):
    model = co.GaussianModel(co.Spectrum.power_law(24, exponent=1.5))
    prices = co.Prices(example=1.0, evaluation=1.0, images=100)
    run_made = co.TrainingRun(co.LogNormal(-1.2, 1.2), 50, 64)
    grid = co.edm_grid(6, 0.05, 80.0)
    export(grid, "csv", path=tmp_path / "today.csv")
    today = read_schedule(tmp_path / "today.csv")
    report = co.audit(model, prices, sigmas=today, run=run_made, levels=24, points=3, polish=False)
    np.testing.assert_array_equal(report.sigmas, grid)
    assert report.ratio > 1


# what other programs do with the values


def kdiffusion_samplers():
    """k-diffusion's own functions where installed, else its loops (sampling.py: sample_euler, _heun, _dpmpp_2m)."""
    try:
        from k_diffusion import sampling
    except ImportError:
        return {"euler": loop_euler, "heun": loop_heun, "dpmpp_2m": loop_2m}
    quiet = {"disable": True}
    return {
        "euler": lambda model, x, s: sampling.sample_euler(model, x, s, **quiet),
        "heun": lambda model, x, s: sampling.sample_heun(model, x, s, **quiet),
        "dpmpp_2m": lambda model, x, s: sampling.sample_dpmpp_2m(model, x, s, **quiet),
    }


def loop_euler(model, x, sigmas):
    s_in = x.new_ones([x.shape[0]])
    for i in range(len(sigmas) - 1):
        d = (x - model(x, sigmas[i] * s_in)) / sigmas[i]
        x = x + d * (sigmas[i + 1] - sigmas[i])
    return x


def loop_heun(model, x, sigmas):
    s_in = x.new_ones([x.shape[0]])
    for i in range(len(sigmas) - 1):
        d = (x - model(x, sigmas[i] * s_in)) / sigmas[i]
        dt = sigmas[i + 1] - sigmas[i]
        if sigmas[i + 1] == 0:
            x = x + d * dt
        else:
            x_2 = x + d * dt
            d_2 = (x_2 - model(x_2, sigmas[i + 1] * s_in)) / sigmas[i + 1]
            x = x + (d + d_2) / 2 * dt
    return x


def loop_2m(model, x, sigmas):
    s_in, old = x.new_ones([x.shape[0]]), None
    for i in range(len(sigmas) - 1):
        denoised = model(x, sigmas[i] * s_in)
        t, t_next = -sigmas[i].log(), -sigmas[i + 1].log()
        h = t_next - t
        if old is None or sigmas[i + 1] == 0:
            x = (sigmas[i + 1] / sigmas[i]) * x - (-h).expm1() * denoised
        else:
            r = (t + sigmas[i - 1].log()) / h
            x = (sigmas[i + 1] / sigmas[i]) * x - (-h).expm1() * ((1 + 1 / (2 * r)) * denoised - 1 / (2 * r) * old)
        old = denoised
    return x


@pytest.mark.parametrize("sampler", [co.Euler(), co.Heun(), co.DPMpp2M()], ids=lambda s: s.name)
@pytest.mark.parametrize("grid", [GRIDS["denoise"], GRIDS["rescale"]], ids=["denoise", "rescale"])
def test_k_diffusion_samples_are_ours(sampler, grid):
    world = circle8()
    noise = torch.randn(64, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sigmas = export(grid, "k-diffusion")
    x = float(sigmas[0]) * noise
    theirs = kdiffusion_samplers()[sampler.name](world, x, sigmas.to(torch.float64))
    ours = run(world, sampler, read_schedule(sigmas), x)
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-12 * float(grid[0]))
    in_single = kdiffusion_samplers()[sampler.name](world, x.float(), sigmas)
    unit = torch.finfo(torch.float32).eps * float(x.abs().max())  # rounding of the first states
    torch.testing.assert_close(in_single.double(), ours, rtol=0, atol=4 * unit)


def test_comfyui_text_is_numbers_between_commas(tmp_path):
    path = tmp_path / "sigmas.txt"
    export([14.6, 2.5, 0.3, 0.0], "comfyui", path=path)
    assert [float(word) for word in path.read_text().split(",")] == [14.6, 2.5, 0.3, 0.0]


def test_csv_and_json_say_steps_and_terminal_map():
    rows = list(csv.DictReader(export(GRIDS["denoise"], "csv").splitlines()))
    assert [int(row["steps_left"]) for row in rows] == list(range(9, -1, -1))
    record = json.loads(export(GRIDS["rescale"], "json"))
    assert record["terminal"] == "rescale"
    assert record["steps"] == 7


# reading what others wrote


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", "[14.6, 2.5, 0.3, 0.0]"),
        ("a.json", '{"sigmas": [14.6, 2.5, 0.3, 0]}'),
        ("a.csv", "14.6,2.5,0.3,0.0\n"),
        ("a.csv", "14.6\n2.5\n0.3\n0\n"),
        ("a.csv", "# ours\nt,Sigma\n9,14.6\n8,2.5\n7,0.3\n0,0\n"),
        ("a.txt", "tensor 14.6"),
        ("a.txt", "[14.6, 2.5,\n 0.3, 0.0]"),
        ("a.sigmas", "14.6; 2.5; 0.3; 0"),
    ],
)
def test_plain_lists_and_tables_are_read(name, text, tmp_path):
    path = tmp_path / name
    path.write_text(text)
    if "tensor" in text:
        with pytest.raises(ValueError, match="entry 0 is 'tensor', not a number"):
            read_schedule(path)
        return
    assert read_schedule(path).tolist() == [14.6, 2.5, 0.3, 0.0]


@pytest.mark.parametrize("target", ["json", "csv"])
def test_no_cut_of_a_file_passes(target, tmp_path):
    text = export(GRIDS["denoise"], target)
    path = tmp_path / f"cut.{target}"
    for length in range(0, len(text.rstrip()), 2):
        path.write_text(text[:length])
        with pytest.raises(ValueError):
            read_schedule(path)
    path.write_text(text.rstrip())
    np.testing.assert_array_equal(read_schedule(path), GRIDS["denoise"])


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.json", "", "is empty"),
        ("a.json", '{"levels": [2, 1]}', "has no 'sigmas'"),
        ("a.json", '"14.6"', "holds str"),
        ("a.json", "[2, true, 0]", "entry 1 is True, not a number"),
        ("a.json", "[2, null, 0]", "entry 1 is None, not a number"),
        ("a.json", "[2, NaN, 0]", "nan at index 1"),
        ("a.json", "[2.0]", "1 noise levels; at least 2"),
        ("a.json", '{"kind": "codesign_opt.schedule", "schema_version": 9, "sigmas": [1, 0]}', "schema version 9"),
        ("a.json", '{"steps": 3, "sigmas": [2, 1, 0]}', "states 3 steps but has 3 noise levels"),
        ("a.csv", "step,level\n0,2\n", "no column 'sigma'"),
        ("a.csv", "sigma,steps_left\n2,2\n0,0\n", "rows are missing"),
        ("a.csv", "step,sigma\n0,2\n1\n", "row 3 has fewer than 2 columns"),
        ("a.txt", "0, 1, 2", "ascends from 0 to 2"),
        ("a.txt", "2, 1, 1.5, 0", "strictly descending"),
        ("a.txt", "2, 1, -1", "must be >= 0"),
        ("a.txt", "inf 1 0", "sigma_max="),
    ],
)
def test_a_broken_file_is_named_with_its_fault(name, text, said, tmp_path):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ValueError, match=said) as found:
        read_schedule(path)
    assert str(path) in str(found.value) or "sigma_max" in said


def test_binary_and_absent_files_are_refused(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not a text file"):
        read_schedule(tmp_path / "a.txt")
    with pytest.raises(FileNotFoundError):
        read_schedule(tmp_path / "absent.json")


@pytest.mark.parametrize(
    ("source", "options", "said"),
    [
        ([2.0, np.nan, 0.0], {}, "nan at index 1"),
        ([0.0, 1.0], {}, "ascends"),
        ([1.0], {}, "at least 2"),
        (np.ones((2, 2)), {}, r"shape \(2, 2\)"),
        (3.0, {}, "shape"),
        (None, {}, "no sampler's noise levels"),
        ({"a": 1}, {}, "dict; give a scheduler"),
        ([1.2, 0.0], {"flow": True}, "flow time 1.2"),
        ([1.0, 0.5, 0.0], {"flow": True}, "pure noise"),
        ([1.0, 0.5, 0.0], {"flow": True, "sigma_max": 0.5}, "strictly descending"),
        ([1.0, 0.5, 0.0], {"flow": True, "sigma_max": -1.0}, "sigma_max is -1"),
    ],
)
def test_bad_lists_are_refused(source, options, said):
    with pytest.raises(ValueError, match=said):
        read_schedule(source, **options)


# what export refuses


def test_options_of_another_target_are_refused():
    grid = GRIDS["denoise"]
    for target, options in [
        ("json", {"flow": True}),
        ("csv", {"clip": True}),
        ("comfyui", {"mu": 1.0}),
        ("k-diffusion", {"scheduler": object()}),
        ("diffusers", {"flow": True}),
    ]:
        with pytest.raises(ValueError, match=f"{next(iter(options))} has no meaning for the target '{target}'"):
            export(grid, target, **options)
    with pytest.raises(ValueError, match="must be one of 'diffusers', 'k-diffusion'"):
        export(grid, "a1111")
    with pytest.raises(ValueError, match="needs scheduler="):
        export(grid, "diffusers")
    with pytest.raises(ValueError, match="scheduler is str"):
        export(grid, "diffusers", "EulerDiscreteScheduler")
    with pytest.raises(ValueError, match=r"export\.schedule must be strictly descending"):
        export([1.0, 2.0, 0.0], "json")


def test_a_plan_without_a_sampler_has_nothing_to_export(plan):
    training_alone = replace(plan, sigmas=None)
    for act in (lambda: training_alone.export("json"), lambda: read_schedule(training_alone)):
        with pytest.raises(ValueError, match="no sampler's noise levels"):
            act()


def test_float32_that_merges_levels_is_refused():
    with pytest.raises(ValueError, match=r"levels 0 and 1 .* are one number in float32"):
        export([1.0 + 1e-9, 1.0, 0.0], "k-diffusion")


# tables and shifts


def test_the_table_inverts_itself_on_both_scales():
    table = NoiseTable(np.geomspace(0.01, 150.0, 1000) * np.linspace(1.0, 1.1, 1000))
    steps = np.random.default_rng(0).uniform(0, 999, 200)
    for scale in ("log", "linear"):
        np.testing.assert_allclose(table.timestep(table.sigma(steps, scale), scale), steps, atol=1e-9)


def test_the_nearest_timestep_is_nearest_in_log_sigma():
    table = NoiseTable(np.sort(np.random.default_rng(1).lognormal(size=50)))
    sigma = np.random.default_rng(2).lognormal(size=300)
    brute = np.abs(np.log(sigma)[:, None] - np.log(table.sigmas)[None]).argmin(1)
    np.testing.assert_array_equal(table.nearest(sigma), brute)


def test_a_shift_multiplies_sigma_and_is_undone():
    sigma = np.geomspace(50.0, 0.01, 20)
    times = flow_time(sigma)
    for factor in (0.5, 1.0, 3.0, np.exp(1.15)):
        shift = FlowShift(factor)
        np.testing.assert_allclose(sigma_of_flow_time(shift.apply(times)), factor * sigma, rtol=1e-12)
        np.testing.assert_allclose(shift.apply(shift.undo(times)), times, rtol=1e-13)
    ends = FlowShift(2.0, terminal=float(times[-1]))
    np.testing.assert_allclose(ends.apply(ends.undo(times)), times, rtol=1e-12)


@pytest.mark.parametrize(
    ("table", "said"), [([1.0, 1.0], "ascending"), ([0.0, 1.0], "> 0"), ([1.0], "at least 2"), ([1, np.inf], "finite")]
)
def test_bad_tables_are_refused(table, said):
    with pytest.raises(ValueError, match=said):
        NoiseTable(table)
