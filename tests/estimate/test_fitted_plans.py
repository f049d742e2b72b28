"""Plans with a fitted solver: what is said of them on unseen draws, saved, exported, refused."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import codesign_opt as co
from codesign_opt.estimate.runs.fine_solution import Draws, Reference
from codesign_opt.estimate.runs.run import run
from codesign_opt.ingredients.fit_rules import FitRules
from codesign_opt.testbed import circle8

FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"
MIXTURE, PROCESS = circle8(), co.EDM(0.02, 20.0)
MEASUREMENT = co.estimate.Measurement(levels=6, draws=24, evaluations=1500, fit_evaluations=1200)


def measured(sampler: co.Sampler) -> co.EstimatedModel:
    data = MIXTURE.sample(2_000, dtype=torch.float64)
    return co.estimate.network(MIXTURE, data, process=PROCESS, sampler=sampler, measurement=MEASUREMENT)


@pytest.fixture(scope="module")
def model() -> co.EstimatedModel:
    return measured(co.DPMpp2M())


@pytest.fixture(scope="module")
def plan(model: co.EstimatedModel) -> co.Plan:
    return co.codesign(model, steps=6, solver="fit", objective="geometric", levels=40, points=3)


@pytest.mark.slow
def test_the_error_is_that_of_the_solver_on_draws_of_one_s_own(plan: co.Plan) -> None:
    draws = Draws((2,), 2_000, 20.0, name="fresh", chunk=500, like=torch.zeros((), dtype=torch.float64))
    fine = Reference(MIXTURE, co.Euler(), draws, 0.02, steps=128)
    errors = []
    for chunk in range(draws.chunks):
        outputs = run(MIXTURE, plan.solver, plan.sigmas, draws.start(chunk))
        errors.append((outputs - fine.terminal_states(chunk)).square().sum(1).numpy())
    logs = np.log(np.concatenate(errors))  # few draws decide the mean, between the modes
    truth, spread = np.exp(logs.mean()), np.exp(logs.mean()) * logs.std() / np.sqrt(logs.size)
    assert abs(plan.handed_out["total"] - truth) < 4 * np.hypot(spread, plan.measured.standard_error)
    # and far below its own start, which is printed beside it
    before = plan.peers["dpmpp_2m, its own plan"]
    assert plan.handed_out["total"] < 0.5 * before["total"]
    assert plan.evaluations_per_step == 1
    assert plan.sigmas[-2] == pytest.approx(plan.stopping_sigma)


def test_it_says_what_was_fitted_and_what_is_proved(plan: co.Plan) -> None:
    text = str(plan)
    assert text.startswith(f"Plan: {plan.number_of_steps} fitted multistep steps")
    said = " ".join(text.split())
    assert "numbers fitted, 3 outputs a step" in said
    assert "(certified), their sequence is local" in said
    assert "dpmpp_2m, its own plan" in said
    assert [line for line in text.splitlines() if len(line) > 88] == []


def test_it_is_saved_and_loaded_whole(plan: co.Plan, tmp_path: Path) -> None:
    again = co.Plan.load(plan.save(tmp_path / "plan.json"))
    assert again.solver == plan.solver
    assert str(again) == str(plan)


def test_the_loop_without_the_package_makes_the_same_samples(plan: co.Plan, tmp_path: Path) -> None:
    text = plan.export("python", path=tmp_path / "loop.py")
    assert (tmp_path / "loop.py").read_text() == text
    names: dict[str, object] = {}
    exec(compile(text, "loop.py", "exec"), names)
    x = 20 * torch.randn(16, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for states, ask in ((x, MIXTURE), (x.numpy(), lambda x, sigma: MIXTURE(torch.from_numpy(x), sigma).numpy())):
        found = torch.as_tensor(names["sample"](ask, states))
        torch.testing.assert_close(found, run(MIXTURE, plan.solver, plan.sigmas, x), rtol=1e-10, atol=1e-10)
    kept = json.loads(plan.export("json"))
    assert co.Sampler.from_dict(kept["solver"]) == plan.solver


def test_programs_that_take_levels_alone_are_refused(plan: co.Plan) -> None:
    with pytest.raises(ValueError, match=r"fitted to its denoiser.*'comfyui', 'diffusers', 'json', .*'python'"):
        plan.export("csv")


def test_the_plans_solver_is_read_from_its_file_and_its_exports(plan: co.Plan, tmp_path: Path) -> None:
    plan.export("comfyui", path=tmp_path / "six.json")
    for source in (plan, plan.save(tmp_path / "plan.json"), tmp_path / "six.json"):
        assert co.read_solver(source) == plan.solver


def test_euler_s_steps_are_a_loop_too_and_heun_s_are_none() -> None:
    text = co.exports.export([4.0, 1.0, 0.0], "python")
    names: dict[str, object] = {}
    exec(compile(text, "loop.py", "exec"), names)
    assert names["sample"](lambda x, sigma: x / (1 + sigma**2), np.array([17.0]))[0] == pytest.approx(2.5)
    heun = co.GaussianModel(co.Spectrum([1.0, 0.1], [1.0, 3.0]), process=co.EDM(0.02, 20.0), sampler=co.Heun())
    with pytest.raises(ValueError, match="not heun"):
        co.codesign(heun, steps=4, levels=20, points=3, stopping_sigma=0.1).export("python")


def test_the_last_level_moves_where_no_stop_is_given(plan: co.Plan, model: co.EstimatedModel) -> None:
    assert plan.stopping_sigma == plan.sigmas[plan.sigmas > 0][-1]
    assert plan.stopping_sigma >= 0.02 * (1 - 1e-9)
    held = co.codesign(model, steps=4, stopping_sigma=0.05, solver="fit", levels=40, points=3, history="all")
    assert held.sigmas[-2] == pytest.approx(0.05, rel=1e-9)
    assert held.solver.c.shape[1] == 4


@pytest.mark.skipif(not FULL, reason="some minutes; CODESIGN_OPT_FULL=1 runs it")
@pytest.mark.parametrize("kills", [(0.2, 0.6), (0.9, 0.95)])
def test_a_plan_killed_in_its_fit_goes_on_to_the_same(tmp_path: Path, kills: tuple[float, ...]) -> None:
    calls, limit = [0], [10**9]

    def denoiser(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        calls[0] += 1
        if calls[0] > limit[0]:
            raise KeyboardInterrupt
        return MIXTURE(x, sigma)

    def planned(folder: str) -> co.Plan:
        data = MIXTURE.sample(2_000, dtype=torch.float64)
        found = co.estimate.network(
            denoiser, data, process=PROCESS, sampler=co.DPMpp2M(), measurement=MEASUREMENT, folder=tmp_path / folder
        )
        return co.codesign(found, steps=5, solver="fit", history="all", levels=40, points=3)

    whole, needed = planned("whole"), calls[0]
    for share in kills:
        limit[0] = calls[0] + int(share * needed)
        try:
            planned("killed")
        except KeyboardInterrupt:
            continue
        break  # what was kept made the rest shorter
    limit[0] = 10**9
    again = planned("killed")
    assert again.solver == whole.solver
    assert again.fits["solver"] == whole.fits["solver"]
    assert again.measured == whole.measured


@pytest.mark.skipif(not FULL, reason="some minutes; CODESIGN_OPT_FULL=1 runs it")
def test_a_guided_denoiser_of_several_weights_is_planned_and_fitted(tmp_path: Path) -> None:
    """Guidance of an exact denoiser towards half of its components, three weights in turn."""
    few = co.testbed.Mixture(MIXTURE.means[:4], MIXTURE.widths[:4], MIXTURE.weights[:4])
    both = co.estimate.mixed([co.estimate.guided(few, MIXTURE, weight) for weight in (1.0, 1.5, 2.5)])
    data = few.sample(2_000, dtype=torch.float64)
    options = {"process": PROCESS, "sampler": co.DPMpp2M(), "measurement": MEASUREMENT, "check": False}
    found = co.codesign(co.estimate.network(both, data, **options), steps=6, solver="fit", levels=40, points=3)
    before = found.peers["dpmpp_2m, its own plan"]
    assert found.handed_out["total"] < before["total"] + 2 * found.measured.standard_error
    assert found.fits["solver"]["between"] == 2
    path = tmp_path / "plan.json"
    found.save(path)
    for plan in (found, co.Plan.load(path)):
        assert "with 2 conditions between those given" in " ".join(str(plan).split())


@pytest.mark.slow
def test_a_budget_beside_it_pays_for_its_evaluations(model: co.EstimatedModel) -> None:
    rows = np.ones(model.sigma.size)
    trained = replace(model, sensitivity=rows, error_variance=1e-2 * rows)
    found = co.codesign(trained, co.Prices(3.0, 1.0, 1_000), 2e4, steps=6, solver="fit", levels=40, points=3)
    assert found.solver is not None
    assert found.costs["sampling"] <= 1_000 * found.number_of_steps * (1 + 1e-9)
    total = sum(value for name, value in found.handed_out.items() if name in ("bias", "score", "last evaluation"))
    assert found.handed_out["total"] == pytest.approx(total)
    assert found.handed_out["bias"] == found.measured.value


def test_what_cannot_be_fitted_is_refused_by_name(model: co.EstimatedModel) -> None:
    gaussian = co.GaussianModel(co.Spectrum([1.0], [2.0]), sampler=co.Euler())
    for options, said in [
        ({"solver": "fitted"}, "solver"),
        ({"solver": "fit", "history": 0}, "history"),
        ({"solver": "fit", "constraints": [co.Floor(1.0, "steps")]}, "constraints is given too"),
        ({"solver": "fit"}, "needs a live denoiser"),
    ]:
        with pytest.raises(ValueError, match=said):
            co.codesign(gaussian, steps=4, levels=20, points=3, stopping_sigma=0.1, **options)
    with pytest.raises(ValueError, match="one call of the denoiser a step"):
        replace(model, sampler=co.Heun()).fitted(co.edm_grid(4, 0.02, 20.0), FitRules())
