"""A network by from_diffusers in what else there is: several processes, comparisons, plans over budgets from a log."""

import os
from dataclasses import replace

import numpy as np
import pytest
import torch

import codesign_opt as co
from codesign_opt.estimate import Measurement, from_diffusers, guided, network
from tests.helpers.processes import of_two
from tests.helpers.schedulers import OWN_WARNINGS, diffusers

FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"
pytestmark = [pytest.mark.filterwarnings(words) for words in OWN_WARNINGS]
LAM, PROCESS = torch.linspace(0.2, 3.0, 6), co.FlowMatching(t_min=0.02, t_max=0.95)
FEW = {"levels": 6, "draws": 16, "chunk": 8, "fine_steps": 8, "evaluations": 3_000}


class Velocity(torch.nn.Module):
    """The exact velocity of N(0, diag LAM), told the scheduler's own time and a text that says nothing."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(6, 6, bias=False)
        with torch.no_grad():
            self.layer.weight.copy_(torch.eye(6))

    def forward(self, state, timestep, text):
        share = timestep[:, None] / 1000
        gain = (share - (1 - share) * LAM) / ((1 - share) ** 2 * LAM + share**2)
        return (self.layer(state) * gain.to(state.dtype) + 0 * text,)


def of(kind):
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    return from_diffusers(Velocity().to(kind), scheduler, text=torch.zeros(1, 6, dtype=kind))


def data():
    return torch.randn(500, 6, generator=torch.Generator().manual_seed(0)) * LAM.sqrt()


def measured(kind=torch.float32, **more):
    return network(of(kind), data().to(kind), process=PROCESS, measurement=Measurement(**FEW), seed=1, **more)


def planned(kind):
    plan = co.codesign(measured(kind), steps=4, points=4, levels=40)
    return plan.sigmas, plan.handed_out["total"]


@pytest.mark.skipif(not FULL, reason="two interpreters; each part that two processes share has a test of its own")
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_two_processes_plan_for_a_network_as_one(kind, tmp_path):
    truth = planned(kind)
    for sigmas, total in of_two(planned, tmp_path, kind):
        np.testing.assert_allclose(sigmas, truth[0], rtol=1e-6)
        assert total == pytest.approx(truth[1], rel=1e-6)


PRICES = co.Prices(3, 1, 1000)
COARSE = {"points": 4, "levels": 40}


@pytest.fixture(scope="module")
def trained():
    """The measured network with training errors of a known law beside."""
    model = measured()
    errors = 16 * model.sigma**2 / (0.25 + model.sigma**2)
    return replace(model, error_variance=errors, sensitivity=np.full(model.sigma.size, 0.8))


@pytest.mark.parametrize("live", [False, *([True] if FULL else [])])
def test_a_list_of_the_networks_own_sampler_beside_a_budget_changes_nothing(trained, live):
    model = trained if live else replace(trained, probe=None)
    plan = co.codesign(model, PRICES, 1e5, steps=9, samplers=[model.sampler], **COARSE)  # nine evaluations
    alone = co.codesign(model, PRICES, 1e5, steps=5, **COARSE)
    np.testing.assert_array_equal(plan.sigmas, alone.sigmas)
    assert plan.handed_out == alone.handed_out
    assert plan.outer["samplers"][repr(model.sampler)]["evaluations"] == 9
    with pytest.raises(ValueError, match="measured with Heun"):
        co.codesign(model, PRICES, 1e5, samplers=[model.sampler, co.Euler()], **COARSE)


@pytest.mark.skipif(not FULL, reason="six plans of a network with a budget each: half a minute")
def test_a_frontier_of_a_network_is_the_plan_at_every_budget(trained):
    budgets = [3e4, 1e5, 1e6]
    found = co.frontier(trained, PRICES, budgets, **COARSE)
    assert np.all(np.diff(found.errors) < 0)
    for budget, plan in zip(budgets, found.plans, strict=True):
        np.testing.assert_array_equal(plan.sigmas, co.codesign(trained, PRICES, budget, **COARSE).sigmas)


def test_a_held_scheduler_is_compared_under_guidance_where_its_evaluations_fit():
    one = of(torch.float32)
    model = network(
        guided(one, one, 2.0, interval=(0.2, 2.0)), data(), process=PROCESS, sampler=co.Euler(), seed=1, check=False,
        measurement=Measurement(**FEW),
    )  # fmt: skip
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(4)
    held = co.read_schedule(scheduler, sigma_max=19.0)
    inside = int(((held >= 0.2) & (held <= 2.0)).sum())
    assert inside > 0
    found = co.compare(model, {"held": held, "edm": "edm"}, [4 + inside], draws=20, plan=False)
    assert {row.peer for row in found.rows} == {"held", "edm"}
    assert found.row("held", "euler", 4 + inside).used == 4 + inside
