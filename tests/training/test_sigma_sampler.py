"""The sampler of training loops: its law, its strata over processes, its state, and what it leaves alone."""

import os
import time

import numpy as np
import pytest
from scipy.stats import chi2, kstest

import codesign_opt as co
from codesign_opt import peers

torch = pytest.importorskip("torch")
FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"
SigmaSampler = co.training.SigmaSampler


@pytest.fixture(scope="module")
def plan():
    model = co.GaussianModel(co.Spectrum.power_law(24, exponent=1.5))
    run = co.TrainingRun(co.LogNormal(-2.4, 0.7), 300, 64)
    return co.codesign(model, co.Prices(3.0, 1.0, 1_000), 3e5, run=run, levels=40, points=4, polish=False)


def test_draws_follow_the_plans_density(plan):
    sampler = SigmaSampler(plan, seed=1)
    alone = np.concatenate([sampler.levels(1) for _ in range(1_500)])  # one draw a step: nothing is stratified
    assert kstest(alone, lambda sigma: plan.training_density.tails(sigma)[0]).pvalue > 1e-3
    number = 1_000_000 if FULL else 200_000
    sigma = np.concatenate([sampler.levels(4_000) for _ in range(number // 4_000)])
    share = plan.new_examples / plan.new_examples.sum()
    seen = np.histogram(sigma, plan.levels.edges)[0]
    used = share > 0
    assert seen[~used].sum() == 0
    chi = float((((seen - share * number) ** 2)[used] / (share * number)[used]).sum())
    assert chi < chi2(used.sum() - 1).isf(1e-3)
    assert kstest(sigma, lambda s: plan.training_density.tails(s)[0]).statistic < 1e-3, "strata: far below 1e-3"


def test_processes_share_out_the_strata_of_a_step(plan):
    samplers = [SigmaSampler(plan, seed=7, rank=rank, ranks=4) for rank in range(4)]
    for _ in range(3):
        parts = [sampler.levels(16) for sampler in samplers]
        below = plan.training_density.tails(np.concatenate(parts))[0]
        strata = np.floor(below * 64 + 1e-9).astype(int)
        assert sorted(strata.tolist()) == list(range(64))
    assert len({float(part[0]) for part in parts}) == 4


def test_a_resumed_sampler_goes_on_to_the_same_bits_and_touches_no_global_generator(plan):
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002  the state that must not change
    whole = SigmaSampler(plan, seed=3, rank=1, ranks=2, gives="time", base=co.LogNormal())
    for _ in range(5):
        whole(32)
    saved = {name: torch.tensor(value) for name, value in whole.state_dict().items()}  # as a checkpoint may hold it
    fresh = SigmaSampler(plan, rank=1, ranks=2, gives="time", base=co.LogNormal())
    fresh.load_state_dict({name: int(value) for name, value in saved.items()})
    for _ in range(3):
        for a, b in zip(whole(32), fresh(32), strict=True):
            assert torch.equal(a, b)
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002
    assert not torch.equal(SigmaSampler(plan, seed=3)(32).value, SigmaSampler(plan, seed=4)(32).value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("device", ["cpu", "meta", *(["cuda"] if torch.cuda.is_available() else [])])
def test_tensors_have_the_callers_dtype_and_device(plan, dtype, device):
    drawn = SigmaSampler(plan, gives="time")(8, device=device, dtype=dtype)
    assert {tensor.dtype for tensor in drawn} == {dtype}
    assert {tensor.device.type for tensor in drawn} == {device}
    assert all(tensor.shape == (8,) for tensor in drawn)


def test_times_and_timesteps_are_those_of_the_drawn_levels(plan):
    wide = {"device": "cpu", "dtype": torch.float64}
    sigma, weight, same = SigmaSampler(plan, seed=5)(256, **wide)
    time_, _, level = SigmaSampler(plan, seed=5, gives="time")(256, **wide)
    assert torch.equal(sigma, same)
    assert torch.equal(level, sigma)
    assert torch.allclose(time_, sigma / (1 + sigma), rtol=1e-12)
    assert torch.all(weight == 1)
    levels = peers.beta_table().sigmas
    step, _, level = SigmaSampler(plan, seed=5, gives="timestep", table=levels)(256, **wide)
    assert step.dtype == torch.int64
    assert torch.equal(level, torch.from_numpy(levels.copy())[step])
    nearest = np.abs(np.log(levels)[None] - np.log(sigma.numpy())[:, None]).argmin(axis=1)
    assert np.array_equal(step.numpy(), nearest)


def test_weights_keep_the_expected_loss_of_the_density_in_use_with_its_own_loss_weight():
    model = co.GaussianModel(co.Spectrum.power_law(24, exponent=1.5))
    plan = co.codesign(model, co.Prices(3.0, 1.0, 1_000), 3e5, levels=40, points=4, polish=False)
    own = plan.training_density.with_floor(0.05, 1e-4, 1e4)  # what a plan leaves out, weights cannot bring back
    base = co.LogNormal(-0.9, 1.1)
    for options, truth in (
        ({"base": base}, -0.9),
        ({"base": base, "weight": lambda sigma: sigma}, np.exp(-0.9 + 1.1**2 / 2) * (-0.9 + 1.1**2)),
    ):
        sampler = SigmaSampler(own, seed=2, **options)
        sigma, weight, _ = sampler(10_000, dtype=torch.float64)
        assert float((weight * torch.log(sigma)).mean()) == pytest.approx(truth, rel=5e-3)
    uniform = peers.timesteps()
    step, weight, _ = SigmaSampler(own, seed=2, gives="timestep", table=peers.beta_table(), base=uniform)(
        10_000, dtype=torch.float64
    )
    assert float((weight * step).mean()) == pytest.approx(499.5, rel=5e-3)
    assert float(weight.mean()) == pytest.approx(1.0, rel=5e-3)


def test_a_draw_costs_less_than_a_hundredth_of_a_small_networks_step(plan):
    sampler = SigmaSampler(plan)
    sampler(256)
    start = time.process_time()
    for _ in range(50):
        sampler(256)
    assert (time.process_time() - start) / 50 < 1.5e-3  # a U-Net's step of 256 images takes at least .15 s


def test_what_a_sampler_cannot_do_is_refused_by_name(plan):
    model = co.GaussianModel(co.Spectrum.power_law(8, exponent=1.5))
    alone = co.codesign(model, steps=5, stopping_sigma=0.05, levels=24, polish=False)
    for call, words in (
        (lambda: SigmaSampler(alone), "trains no examples"),
        (lambda: SigmaSampler("plan"), "a Plan or a SigmaDensity"),
        (lambda: SigmaSampler(plan, rank=2, ranks=2), "must be < ranks = 2"),
        (lambda: SigmaSampler(plan, gives="t"), "must be one of 'sigma'"),
        (lambda: SigmaSampler(plan, gives="timestep"), "table is None"),
        (lambda: SigmaSampler(plan, seed=-1), "seed is -1"),
        (lambda: SigmaSampler(plan)(0), "batch is 0"),
        (lambda: SigmaSampler(plan).load_state_dict({"seed": 1}), "are needed"),
        (lambda: SigmaSampler(plan).load_state_dict({"seed": 1, "ranks": 2, "batches": 0}), "of 2 processes"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
