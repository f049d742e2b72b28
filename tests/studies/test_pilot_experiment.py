"""Pilots to densities, trained and sampled: the networks side by side are single ones, and the experiment in small."""

import os

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import codesign_opt as co  # noqa: E402
from problems.studies.fleet import train_fleet  # noqa: E402
from problems.studies.pilot_experiment import DEFAULT, PilotExperiment  # noqa: E402
from problems.studies.pilot_report import compare_pilots  # noqa: E402

FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"
DENSITIES = [co.LogNormal(-1.2, 1.2), co.LogNormal(-0.5, 0.8)]


def fleet(densities):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = co.testbed.MLP(2, sigma_data=1.0, width=8, layers=1)
    how = co.testbed.Optimisation(batch=16, learning_rate=1e-2)
    return train_fleet(network, co.testbed.grid8().sample(64), densities, iterations=20, optimisation=how, seed=1)


def test_networks_side_by_side_are_those_trained_alone():
    both, alone = fleet(DENSITIES), [fleet([density]) for density in DENSITIES]
    start = 80 * torch.randn((5, 2), generator=torch.Generator().manual_seed(0))
    grid = co.edm_grid(4, 0.01, 80.0)
    for kind in ("average", "last"):
        made = both.samples(getattr(both, kind), grid, start)
        each = torch.cat([one.samples(getattr(one, kind), grid, start) for one in alone])
        torch.testing.assert_close(made, each, rtol=1e-3, atol=1e-4)
    assert (both.last["outward.weight"][0] - both.last["outward.weight"][1]).abs().max() > 1e-4


def test_a_run_that_is_planned_again_draws_its_own_levels_and_is_told_its_own_losses():
    data = co.Spectrum.from_eigenvalues([1.0, 1.0])
    run = co.training.Replanner(data, 320, start=DENSITIES[1], rules=co.training.ReplanRules(at=(), levels=24))
    both, alone = fleet([DENSITIES[0], run]), fleet([DENSITIES[0]])
    assert run.seen == 320
    columns = run.log.columns()
    seen = np.bincount(columns["level"].astype(int), columns["examples"], 24)
    assert np.abs(seen.cumsum() / 320 - run.start.cumsum()).max() < 0.02, "stratified draws of its own density"
    torch.testing.assert_close(both.last["outward.weight"][0], alone.last["outward.weight"][0], rtol=1e-3, atol=1e-4)
    assert (both.last["outward.weight"][0] - both.last["outward.weight"][1]).abs().max() > 1e-4


@pytest.mark.skipif(not FULL, reason="CODESIGN_OPT_FULL=1 trains networks for some minutes")
@pytest.mark.parametrize("data", ["photo_patches", "digits"])
def test_densities_planned_from_pilots_are_not_worse_than_the_default(data):
    report = compare_pilots([PilotExperiment(data)], seeds=range(2), pilots=(100, 101))
    assert np.all(report.column("P_std") >= 0.6)
    # the scatter of two seeds is about 2 % of the error
    assert report.worst < 1.06, str(report)
    assert np.median(report.column("to_default")) < 1.0, str(report)
    assert DEFAULT in PilotExperiment(data).compared()
