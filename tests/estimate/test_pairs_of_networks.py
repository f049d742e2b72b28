"""A network by from_diffusers in what else there is: several processes, comparisons, plans over budgets from a log."""

import os

import numpy as np
import pytest
import torch

import codesign_opt as co
from codesign_opt.estimate import Measurement, from_diffusers, network
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
