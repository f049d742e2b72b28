"""Adapters: one linear denoiser in every prediction and process is the same denoiser."""

import numpy as np
import pytest
import torch

import codesign_opt as co
from codesign_opt.estimate import from_diffusers, from_edm, from_prediction, guided

LAM = torch.tensor([2.0, 0.3, 0.0], dtype=torch.float64)
PROCESSES = [co.VP(), co.VE(), co.EDM(), co.Cosine(), co.FlowMatching()]


def truth(x, sigma):
    return x * LAM / (LAM + sigma[:, None] ** 2)


def network(prediction, process, time=lambda t: t):
    """The exact network of N(0, diag LAM) in this prediction, from x_t and its time, by the definitions."""

    def predict(x_t, t):
        times = np.clip(time(t.detach().double().numpy()), process.t_min, process.t_max)
        s = torch.as_tensor(np.asarray(process.scale(times)))[:, None]
        level = torch.as_tensor(np.asarray(process.sigma(times)))[:, None]
        marginal = s**2 * (LAM + level**2)
        clean = s * LAM / marginal * x_t  # E[x0 | x_t]
        noise = (x_t - s * clean) / (s * level)  # E[z | x_t]
        return {
            "x0": clean, "epsilon": noise, "v": s * noise - s * level * clean,
            "score": -x_t / marginal, "flow": noise - clean,
        }[prediction]  # fmt: skip

    return predict


def cases():
    for process in PROCESSES:
        for prediction in ("x0", "epsilon", "v", "score", "flow"):
            if prediction == "v" and not isinstance(process, (co.VP, co.Cosine)):
                continue
            if prediction == "flow" and not isinstance(process, co.FlowMatching):
                continue
            yield pytest.param(prediction, process, id=f"{prediction}-{process.name}")


@pytest.mark.parametrize(("prediction", "process"), list(cases()))
def test_every_prediction_gives_the_same_denoiser(prediction, process):
    sigma = torch.as_tensor(np.geomspace(max(process.sigma_min, 0.01), min(process.sigma_max, 50.0), 7))
    x = torch.linspace(-3, 3, 21, dtype=torch.float64).reshape(7, 3)
    denoiser = from_prediction(network(prediction, process), prediction, process)
    torch.testing.assert_close(denoiser(x, sigma), truth(x, sigma), rtol=1e-6, atol=1e-8)


def test_a_network_with_its_own_time_is_told_how_to_find_it():
    process = co.VP()
    own = from_prediction(network("epsilon", process, lambda t: t / 1000), "epsilon", process, time=lambda t: 1000 * t)
    x, sigma = torch.ones(2, 3, dtype=torch.float64), torch.tensor([0.1, 5.0], dtype=torch.float64)
    torch.testing.assert_close(own(x, sigma), truth(x, sigma), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("process", [co.VP(), co.FlowMatching()], ids=lambda p: p.name)
def test_gradient_through_the_time_of_the_process(process):
    def net(x_t, t):
        return x_t * torch.sin(3 * t)[:, None]

    denoiser = from_prediction(net, "x0", process)
    sigma = torch.tensor([0.7], dtype=torch.float64, requires_grad=True)
    x = torch.ones(1, 3, dtype=torch.float64)
    (slope,) = torch.autograd.grad(denoiser(x, sigma).sum(), sigma)
    step = 1e-6
    numeric = (denoiser(x, sigma.detach() + step) - denoiser(x, sigma.detach() - step)).sum() / (2 * step)
    assert slope.item() == pytest.approx(numeric.item(), rel=1e-5)


def test_guidance_mixes_inside_its_interval_and_counts_what_it_costs():
    calls = guided(lambda x, s: 2 * x, lambda x, s: x, 3.0, interval=(0.3, 5.0))
    x = torch.ones(3, 2)
    out = calls(x, torch.tensor([0.1, 1.0, 10.0]))
    assert out[:, 0].tolist() == [2.0, 4.0, 2.0]
    assert calls.evaluations == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("velocity", co.VP()), "one of 'x0', 'epsilon'"),
        (("v", co.EDM()), "variance-preserving"),
        (("flow", co.VP()), "needs co.FlowMatching"),
        (("epsilon", "pv"), "a Process is needed, or one of the names 'cosine'"),
    ],
)
def test_bad_adapters_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        from_prediction(lambda x, t: x, *arguments)


def test_noise_levels_outside_the_process_are_named():
    denoiser = from_prediction(lambda x, t: x, "epsilon", co.VP())
    with pytest.raises(ValueError, match="sigma = 500 lies outside the range"):
        denoiser(torch.ones(1, 2), 500.0)
    with pytest.raises(ValueError, match="ascending"):
        guided(lambda x, s: x, lambda x, s: x, 2.0, interval=(3.0, 1.0))


class _Net(torch.nn.Module):
    """The exact network of N(0, diag LAM) behind the interface of diffusers."""

    def __init__(self, kept, prediction):
        super().__init__()
        self.kept, self.prediction = kept, prediction

    def forward(self, x_t, timestep, shift):
        if self.kept is None:
            t = (timestep / 1000)[:, None]
            s, level = 1 - t, t / (1 - t)
        else:
            logs = torch.log((1 - self.kept) / self.kept) / 2
            level = torch.exp(torch.as_tensor(np.interp(timestep.numpy(), np.arange(logs.numel()), logs.numpy())))[
                :, None
            ]
            s = (1 + level**2) ** -0.5
        clean = s * LAM / (s**2 * (LAM + level**2)) * x_t + shift
        noise = (x_t - s * clean) / (s * level)
        out = {"epsilon": noise, "v_prediction": s * noise - s * level * clean, "sample": clean, "flow": noise - clean}
        from types import SimpleNamespace

        return SimpleNamespace(sample=out[self.prediction])


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample", "flow"])
def test_schedulers_of_diffusers_give_time_and_prediction(prediction):
    diffusers = pytest.importorskip("diffusers")
    if prediction == "flow":
        scheduler, kept = diffusers.FlowMatchEulerDiscreteScheduler(), None
    else:
        scheduler = diffusers.DDPMScheduler(prediction_type=prediction)
        kept = scheduler.alphas_cumprod.double()
    denoiser = from_diffusers(_Net(kept, prediction), scheduler, shift=torch.zeros(1, 3, dtype=torch.float64))
    sigma = torch.tensor([0.05, 1.3, 40.0], dtype=torch.float64)
    x = torch.linspace(-3, 3, 9, dtype=torch.float64).reshape(3, 3)
    torch.testing.assert_close(denoiser(x, sigma), truth(x, sigma), rtol=1e-8, atol=1e-10)
    low, high = denoiser.sigma_range
    assert low < 0.05
    assert high > 100


def test_a_small_unet_of_diffusers_runs_as_a_denoiser():
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    net = diffusers.UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8, 8), norm_num_groups=4, layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "UpBlock2D"),
    ).eval()  # fmt: skip
    scheduler = diffusers.DDPMScheduler()
    denoiser = from_diffusers(net, scheduler)
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    kept = scheduler.alphas_cumprod[300].double()
    sigma = ((1 - kept) / kept).sqrt()
    with torch.no_grad():
        eps = net(kept.sqrt().float() * x, torch.tensor([300.0, 300.0])).sample
        torch.testing.assert_close(denoiser(x, sigma.float()), x - sigma.float() * eps, rtol=1e-3, atol=1e-3)


def test_edm_networks_get_their_conditions():
    denoiser = from_edm(lambda x, sigma, scale: scale * x, scale=3.0)
    assert denoiser(torch.ones(1, 1), 1.0).item() == 3.0
