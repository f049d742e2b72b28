"""from_diffusers against what diffusers' own pipelines do: their loops are run on tiny random networks.

Neither the time that a network is told nor the sign or scale of its answer is written down here: the loop tells the
network, and hands the scheduler's step what it takes the answer for. The clean data are those of the scheduler's step.
"""

import os

import numpy as np
import pytest
import torch

import codesign_opt as co
from codesign_opt.estimate import from_diffusers
from codesign_opt.estimate.denoisers.model_families import FAMILIES
from tests.helpers.image_rows import FROM_IMAGES
from tests.helpers.pipeline_rows import RUNS
from tests.helpers.run_pipelines import looped
from tests.helpers.schedulers import OWN_WARNINGS, diffusers
from tests.helpers.tiny_networks import TINY

FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"
pytestmark = [pytest.mark.filterwarnings(words) for words in OWN_WARNINGS]

# of every clock, sign and form one, and of the schedulers that precondition; the others with CODESIGN_OPT_FULL=1
FEW = (
    "UNet2DConditionModel", "UNetSpatioTemporalConditionModel", "StableCascadeUNet", "SD3Transformer2DModel",
    "SanaTransformer2DModel", "OmniGenTransformer2DModel", "GlmImageTransformer2DModel", "FluxTransformer2DModel",
    "NucleusMoEImageTransformer2DModel", "Lumina2Transformer2DModel", "ZImageTransformer2DModel",
    "Ideogram4Transformer2DModel", "CogVideoXTransformer3DModel", "MochiTransformer3DModel", "WanTransformer3DModel",
    "AnyFlowTransformer3DModel", "CosmosTransformer3DModel", "MiniMaxMusic3Transformer1DModel",
    "AceStepTransformer1DModel",
)  # fmt: skip
# of every way to begin in the middle one, the others with CODESIGN_OPT_FULL=1
BEGUN = ("UNet2DConditionModel", "FluxTransformer2DModel", "ZImageTransformer2DModel", "WanTransformer3DModel")
MIDDLES = {
    f"{one.name}-{one.scheduler}": (name, one)
    for name in FROM_IMAGES if FULL or name in BEGUN for one in FROM_IMAGES[name]
}  # fmt: skip
CASES = {f"{one.name}-{one.scheduler}": (name, one) for name in RUNS if FULL or name in FEW for one in RUNS[name]}


def built(name, settings):
    """The network with random weights everywhere: some start with zeros where their answers come from."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = getattr(diffusers, name)(**{**TINY[name][0], **settings}).eval()
        with torch.no_grad():
            for one in made.parameters():
                one.add_(0.1 * torch.randn_like(one))
    return made


def check_loop(name, run, monkeypatch):
    """The recorded steps, each with the clean data that from_diffusers makes of it; and the scheduler."""
    network, scheduler = built(name, run.network), getattr(diffusers, run.scheduler)(**run.settings)
    steps = looped(run, network, scheduler, monkeypatch)
    finite = [one for one in steps if one.sigma < float("inf")]
    assert len(finite) >= 2
    for one in finite:
        x, clean = run.view(one.x), run.view(one.clean)
        denoiser = from_diffusers(network, scheduler, **one.condition(run))
        told = denoiser.reading.time(torch.tensor([one.sigma], dtype=torch.float64))
        torch.testing.assert_close(told.float(), one.asked[0].time.flatten()[:1].float(), rtol=1e-5, atol=1e-5)
        largest = max(1.0, float(x.abs().max()))
        torch.testing.assert_close(denoiser(x, one.sigma), clean, rtol=0, atol=1e-5 * largest)
    return steps, scheduler


@pytest.mark.cases(7)
@torch.no_grad()
@pytest.mark.parametrize(("name", "run"), CASES.values(), ids=CASES)
def test_the_clean_data_are_those_that_the_pipelines_own_loop_takes(name, run, monkeypatch):
    check_loop(name, run, monkeypatch)


@pytest.mark.cases(3)
@torch.no_grad()
@pytest.mark.parametrize(("name", "run"), MIDDLES.values(), ids=MIDDLES)
def test_loops_that_begin_with_an_image_are_read_from_where_they_begin(name, run, monkeypatch):
    """Strength .75 leaves out one of four steps: the schedule that is read starts at the first that is run."""
    steps, scheduler = check_loop(name, run, monkeypatch)
    assert len(steps) == 3
    if getattr(scheduler, "begin_index", None) and hasattr(scheduler, "sigmas"):  # others find their place by the time
        levels = co.read_schedule(scheduler)
        found = [float(levels[i]) for i in range(3)]
        np.testing.assert_allclose(found, [one.sigma for one in steps], rtol=1e-5)


def test_every_class_that_is_read_has_a_pipeline_here():
    assert set(RUNS) == {name for row in FAMILIES for name in row.classes}
