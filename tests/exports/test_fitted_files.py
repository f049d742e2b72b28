"""Fitted solvers for ComfyUI and k-diffusion, and read back from every file."""

import ast
import importlib.util
import json
import sys
import types

import numpy as np
import pytest
import torch

import codesign_opt as co
from codesign_opt.estimate import run
from codesign_opt.exports import export
from codesign_opt.testbed import circle8
from codesign_opt.testbed.scheduler_loop import run_scheduler
from tests.helpers.fitted import GRID, solver
from tests.helpers.schedulers import make

SOLVERS = {
    "consistent": solver(),
    "with a mean": solver(consistent=False, mean=0.3),
    "with a mean of a state": solver(consistent=False, mean=[0.3, -0.2]),
    "above zero": solver(GRID[:-1], history=2, seed=1),
    "every output": solver(history=6, seed=2),
}


def module_at(path):
    spec = importlib.util.spec_from_file_location("written_" + path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Model:
    """Called as k-diffusion calls its models; sigma has one entry for each state. A flow's state is (1 - t) x."""

    def __init__(self, flow=False):
        self.flow, self.told = flow, []

    def __call__(self, x, sigma, cond=None):
        assert cond == "a cat"
        assert sigma.shape == (len(x),)
        self.told.append(float(sigma[0]))
        if self.flow:
            return circle8()(x / (1 - sigma[:, None]), sigma / (1 - sigma))
        return circle8()(x, sigma)


@pytest.fixture
def comfy(monkeypatch):
    """What of ComfyUI the node touches: KSAMPLER calls its function with noise times the first sigma."""

    class KSAMPLER:
        def __init__(self, sampler_function, extra_options=None, inpaint_options=None):
            self.sampler_function, self.extra_options = sampler_function, extra_options

        def sample(self, model, sigmas, extra_args, callback, noise):
            return self.sampler_function(
                model, sigmas[0] * noise, sigmas, extra_args=extra_args, callback=callback, disable=True,
                **self.extra_options,
            )  # fmt: skip

    package, samplers = types.ModuleType("comfy"), types.ModuleType("comfy.samplers")
    samplers.KSAMPLER = KSAMPLER
    monkeypatch.setitem(sys.modules, "comfy", package)
    monkeypatch.setitem(sys.modules, "comfy.samplers", samplers)
    package.samplers = samplers


@pytest.mark.parametrize("flow", [False, True])
@pytest.mark.parametrize("ours", SOLVERS.values(), ids=SOLVERS)
def test_the_node_of_comfyui_makes_our_samples(ours, flow, tmp_path, comfy):
    export(ours, "comfyui", flow=flow, path=tmp_path / "six.json")
    (tmp_path / "workflow.json").write_text("[1]")
    assert sorted(path.name for path in tmp_path.glob("*.py")) == ["comfyui_fitted_solvers.py"]
    module = module_at(tmp_path / "comfyui_fitted_solvers.py")
    (node,) = module.NODE_CLASS_MAPPINGS.values()
    assert node.INPUT_TYPES() == {"required": {"solver": (["six.json"],)}}
    assert node.IS_CHANGED("six.json") > 0
    sampler, sigmas = getattr(node(), node.FUNCTION)("six.json")
    noise = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    model, seen = Model(flow), []
    found = sampler.sample(model, sigmas, {"cond": "a cat"}, lambda said: seen.append(said["i"]), noise)
    first = GRID[0] * noise.double()
    expected = run(circle8(), ours, ours.levels, first)
    assert float(expected.std()) > 0.1
    end = 1.0 if ours.levels[-1] == 0 or not flow else 1 / (1 + ours.levels[-1])
    torch.testing.assert_close(found.double(), end * expected, rtol=1e-5, atol=1e-5)
    assert seen == list(range(ours.a.size))
    np.testing.assert_allclose(model.told, sigmas[:-1], rtol=1e-6)


@pytest.mark.parametrize("ours", SOLVERS.values(), ids=SOLVERS)
def test_the_module_for_k_diffusion_makes_our_samples(ours, tmp_path):
    text = export(ours, "k-diffusion", path=tmp_path / "fitted.py")
    assert (tmp_path / "fitted.py").read_text() == text
    assert "comfy" not in text.lower()
    module = module_at(tmp_path / "fitted.py")
    x = GRID[0] * torch.randn(5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sigmas = torch.tensor(module.SOLVER["sigmas"], dtype=torch.float64)
    found = module.sample_fitted(Model(), x, sigmas, extra_args={"cond": "a cat"}, disable=True)
    torch.testing.assert_close(found, run(circle8(), ours, ours.levels, x), rtol=1e-10, atol=1e-10)


def test_a_beginning_of_its_levels_runs_and_others_are_refused(tmp_path):
    ours = solver()
    export(ours, "k-diffusion", path=tmp_path / "fitted.py")
    sample = module_at(tmp_path / "fitted.py").sample_fitted
    x, asked = GRID[0] * torch.randn(5, 2, dtype=torch.float64), {"extra_args": {"cond": "a cat"}, "disable": True}
    levels = torch.tensor(GRID)
    beginning = co.LinearMultistep(GRID[:4], ours.a[:3], ours.c[:3])
    expected = run(circle8(), beginning, GRID[:4], x)
    torch.testing.assert_close(sample(Model(), x, levels[:4], **asked), expected, rtol=1e-10, atol=1e-10)
    for other in (levels[3:], levels.flip(0), 1.01 * levels, torch.cat([levels, levels[-1:]])):
        with pytest.raises(ValueError, match="runs on its own noise levels"):
            sample(Model(), x, other, **asked)


def test_the_files_need_torch_and_tqdm_alone(tmp_path):
    export(solver(), "comfyui", path=tmp_path / "six.json")
    export(solver(), "k-diffusion", path=tmp_path / "fitted.py")
    for name in ("comfyui_fitted_solvers.py", "fitted.py"):
        tree = ast.parse((tmp_path / name).read_text())
        froms = [node.module for node in tree.body if isinstance(node, ast.ImportFrom)]
        names = [alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names]
        assert {word.split(".")[0] for word in froms + names} - set(sys.stdlib_module_names) == {"torch", "tqdm"}
    assert json.loads((tmp_path / "six.json").read_text())["kind"] == "codesign_opt.fitted_solver"


# read back


SCHEDULER = {False: "DDPMScheduler", True: "FlowMatchEulerDiscreteScheduler"}
FILES = {"json": "a.json", "comfyui": "a.json", "python": "a.py", "k-diffusion": "a.py", "diffusers": "a.json"}


@pytest.mark.parametrize("flow", [False, True])
@pytest.mark.parametrize("ours", SOLVERS.values(), ids=SOLVERS)
@pytest.mark.parametrize("target", FILES)
def test_every_file_reads_back_bit_for_bit(target, ours, flow, tmp_path):
    path, options = tmp_path / FILES[target], {"flow": flow} if target in ("comfyui", "k-diffusion") else {}
    if target == "diffusers":
        options = {"scheduler": make(SCHEDULER[flow])}
    if target == "python" and np.any(ours.mean):
        with pytest.raises(ValueError, match="rows of this solver do not sum to one"):
            export(ours, target)
        return
    value = export(ours, target, path=path, **options)
    assert co.read_solver(path) == ours
    if target == "diffusers":
        assert co.read_solver(value) == ours
        value.save_pretrained(tmp_path / "scheduler")
        assert co.read_solver(tmp_path) == co.read_solver(tmp_path / "scheduler") == ours
    if path.suffix == ".json":
        np.testing.assert_array_equal(co.read_schedule(path), ours.levels)


def test_a_mean_that_cancels_is_read_back_too(tmp_path):
    for mean in (0.25, [0.1, -0.7]):
        ours = solver(mean=mean)
        export(ours, "python", path=tmp_path / "loop.py")
        assert co.read_solver(tmp_path / "loop.py") == ours


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.json", '{"sigmas": [2, 1, 0]}', r"a.json has no fitted solver .*read_schedule"),
        ("a.json", "[2, 1, 0]", "has no fitted solver"),
        ("a.json", '{"_class_name": "DDPMScheduler"}', "has no fitted solver"),
        ("a.json", '{"kind": "codesign_opt.fitted_solver", "schema_version": 9}', "schema version 9"),
        ("a.json", '{"kind": "codesign_opt.plan", "sampler": {"name": "heun"}}', "has no fitted solver"),
        ("a.json", '{"solver": {"levels": [2, 1], "a": [0.5], "c": [[0.5, 0.1]]}}', r"a.json: .*before step 0"),
        ("a.json", '{"solver": {"levels": [2, 1], "a": [0.5, 1], "c": [[0.5]]}}', r"a.json: LinearMultistep.a"),
        ("a.json", '{"solver": {"levels": [2, 1], "a": "x", "c": [[0.5]]}}', r"a.json: "),
        ("a.py", "import os\n", "has no fitted solver"),
        ("a.py", "sigmas = [1, 0]\na = [", "not a whole module"),
        ("a.py", "SOLVER = open('x')", "not a whole module"),
        ("a.py", "", "is empty"),
    ],
)
def test_other_files_are_refused_by_name(name, text, said, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=said):
        co.read_solver(tmp_path / name)


def test_what_holds_no_solver_is_refused(tmp_path):
    for source, said in [
        (make("DDPMScheduler"), "DDPMScheduler has no fitted solver"),
        ([2.0, 1.0, 0.0], "list has no fitted solver"),
        (tmp_path, "has no scheduler_config.json"),
    ]:
        with pytest.raises(ValueError, match=said):
            co.read_solver(source)


def test_no_cut_of_a_file_passes(tmp_path):
    for target in ("comfyui", "json", "python", "k-diffusion"):
        text, path = export(solver(history=1), target), tmp_path / FILES[target]
        whole = text.index("def sample") if path.suffix == ".py" else len(text.rstrip())
        for length in range(0, whole - 2, 31):
            path.write_text(text[:length])
            try:
                found = co.read_solver(path)
            except ValueError:
                continue
            assert found == solver(history=1)  # the numbers were whole


@pytest.mark.parametrize("sampler", [co.Euler(), co.DPMpp2M(), co.UniPC(3), co.DEIS(3), co.IPNDM(4)], ids=repr)
def test_a_stock_samplers_plan_is_a_loop_and_a_scheduler(sampler, tmp_path):
    plan = types.SimpleNamespace(number_of_steps=6, sigmas=GRID, sampler=sampler.to_dict())
    export(plan, "python", path=tmp_path / "loop.py")
    x = GRID[0] * torch.randn(5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = run(circle8(), sampler, GRID, x)
    found = module_at(tmp_path / "loop.py").sample(circle8(), x)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    rows = co.LinearMultistep.of(sampler, GRID)
    scheduler = export(rows, "diffusers", make("DDIMScheduler", prediction_type="sample"))
    torch.testing.assert_close(run_scheduler(scheduler, circle8(), x), expected, rtol=1e-5, atol=1e-5)
