"""from_diffusers where users meet it: conditions, explicit rows, refusals by name, half precision, pipelines' loops."""

import functools
import os

import pytest
import torch

import codesign_opt as co
from codesign_opt.estimate import DenoiserError, ModelFamily, check_denoiser, from_diffusers, from_edm, from_prediction
from tests.helpers.schedulers import OWN_WARNINGS, diffusers
from tests.helpers.tiny_networks import TINY, TRAINED_WITH

FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"
pytestmark = [pytest.mark.filterwarnings(words) for words in OWN_WARNINGS]


def built(name, **settings):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return getattr(diffusers, name)(**{**TINY[name][0], **settings}).eval()


def flow(**settings):
    return diffusers.FlowMatchEulerDiscreteScheduler(**settings)


@torch.no_grad()
def test_the_time_goes_by_name_and_conditions_of_one_state_are_repeated():
    net, condition = built("SD3Transformer2DModel"), TINY["SD3Transformer2DModel"][2]
    denoiser = from_diffusers(net, flow(shift=3.0), **condition)
    x = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    velocity = net(
        0.5 * x, timestep=torch.full((3,), 500.0), **{k: v.expand(3, *v.shape[1:]) for k, v in condition.items()}
    )
    torch.testing.assert_close(denoiser(x, 1.0), 0.5 * x - 0.5 * velocity.sample, rtol=1e-5, atol=1e-5)


def test_the_check_names_a_wrong_unit_of_a_network_that_is_told_shares():
    """A network of one's own that wants t / 1000, called as diffusers calls it: the reading is there to be asked."""
    lam = torch.linspace(0.2, 3.0, 6)

    def velocity(state, timestep):
        t = timestep[:, None]
        gain = (1 - t) * lam / ((1 - t) ** 2 * lam + t**2)
        clean = gain * state
        return (state - clean) / t.clamp(min=1e-3)

    data = torch.randn(256, 6, generator=torch.Generator().manual_seed(1)) * lam.sqrt()
    assert check_denoiser(from_diffusers(velocity, flow()), data).cause == (
        "the network wants times from 0 to 1 and is told 0 to 1000"
    )
    few = from_diffusers(velocity, flow(num_train_timesteps=250))
    assert check_denoiser(few, data).cause == "the network wants times from 0 to 1 and is told 0 to 250"
    row = ModelFamily(time="timestep", clock="unit")
    assert check_denoiser(from_diffusers(velocity, flow(), family=row), data).verdict == "right"
    back = from_diffusers(
        lambda x, timestep: -velocity(x, 1 - timestep), flow(), family=ModelFamily(clock="reversed", sign=-1.0)
    )
    assert check_denoiser(back, data).verdict == "right"


def test_the_check_names_the_wrong_prediction_of_an_edm_scheduler():
    lam = torch.linspace(0.2, 3.0, 6)

    def inner(state, timestep):
        sigma = torch.exp(4 * timestep)[:, None]
        x = state * (sigma**2 + 0.25).sqrt()
        rest = lam / (lam + sigma**2) * x - 0.25 / (sigma**2 + 0.25) * x
        return rest * (sigma**2 + 0.25).sqrt() / (0.5 * sigma)

    data = torch.randn(256, 6, generator=torch.Generator().manual_seed(1)) * lam.sqrt()
    right = from_diffusers(inner, diffusers.EDMEulerScheduler())
    assert check_denoiser(right, data).verdict == "right"
    found = check_denoiser(from_diffusers(inner, diffusers.EDMEulerScheduler(prediction_type="v_prediction")), data)
    assert found.cause == "the network predicts the opposite sign of F of EDM's preconditioning"
    noise = from_diffusers(lambda x, timestep: -inner(x, timestep), diffusers.EDMEulerScheduler())
    assert not check_denoiser(noise, data).passed


def test_a_learned_variance_is_left_out_and_said():
    denoiser = from_diffusers(built("UNet2DModel"), diffusers.DDPMScheduler(variance_type="learned_range"))
    with torch.no_grad():
        assert denoiser(torch.randn(2, 3, 8, 8), 0.5).shape == (2, 3, 8, 8)
    assert denoiser.notes == ["the first 3 of 6 channels count, the others are a learned variance"]


def test_what_the_adapter_found_out_stands_with_the_check():
    """Noise of N(0, 1) data, beside a variance."""

    def noise(state, timestep):
        kept = table.alphas_cumprod[timestep.round().long()][:, None]
        return torch.cat([(1 - kept).sqrt() * state, state], 1)

    table = diffusers.DDIMScheduler()
    data = torch.randn(400, 6, generator=torch.Generator().manual_seed(0))
    few = co.estimate.Measurement(levels=6, draws=32, fine_steps=12, evaluations=1_500)
    process = co.EDM(sigma_min=0.05, sigma_max=20.0)
    model = co.estimate.network(from_diffusers(noise, table), data, process=process, measurement=few)
    said = "denoiser: the first 6 of 12 channels count, the others are a learned variance"
    assert said in model.provenance["denoiser_check"]


@torch.no_grad()
def test_other_channels_than_a_variance_are_refused_by_name():
    denoiser = from_diffusers(built("UNet2DModel", out_channels=4), diffusers.DDPMScheduler())
    with pytest.raises(
        DenoiserError, match="UNet2DModel answers 4 channels to states of 3; give what its pipeline joins"
    ):
        denoiser(torch.randn(2, 3, 8, 8), 0.5)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_an_edm_scheduler_applies_its_preconditioning(kind):
    net, scheduler = (
        built("UNet2DModel", out_channels=3),
        diffusers.EDMEulerScheduler(prediction_type=kind, sigma_data=0.7),
    )
    x = 3 * torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor(2.5)
    out = net(scheduler.precondition_inputs(x, sigma), scheduler.precondition_noise(sigma)).sample
    expected = scheduler.precondition_outputs(x, out, sigma)
    denoiser = from_diffusers(net, scheduler)
    torch.testing.assert_close(denoiser(x, 2.5), expected, rtol=1e-5, atol=1e-5)
    assert denoiser.sigma_range == (0.002, 80.0)


@torch.no_grad()
def test_cosmos_is_told_the_time_of_an_edm_scheduler_as_it_is_and_flux_is_refused():
    name = "CosmosTransformer3DModel"
    net, scheduler = built(name), diffusers.EDMEulerScheduler(sigma_data=1.0)
    denoiser = from_diffusers(net, scheduler, **TINY[name][2])
    assert denoiser.reading.time(torch.tensor([2.0])).item() == pytest.approx(
        0.25 * torch.log(torch.tensor(2.0)).item()
    )
    assert denoiser(torch.ones(2, *TINY[name][1]), 2.0).shape == (2, *TINY[name][1])
    with pytest.raises(
        ValueError, match="FluxTransformer2DModel is told a share of a range of times, but EDMEulerScheduler"
    ):
        from_diffusers(built("FluxTransformer2DModel"), scheduler, **TINY["FluxTransformer2DModel"][2])


@torch.no_grad()
def test_cosmos_2_is_read_as_its_pipeline_preconditions():
    name, sigma = "CosmosTransformer3DModel", 3.0
    net, text = built(name), TINY[name][2]["encoder_hidden_states"].repeat(2, 1, 1)
    x = 3 * torch.randn(2, *TINY[name][1], generator=torch.Generator().manual_seed(0))
    share = sigma / (1 + sigma)
    out = net((1 - share) * x, timestep=torch.full((2,), share), encoder_hidden_states=text).sample
    denoiser = from_diffusers(net, flow(use_karras_sigmas=True), **TINY[name][2])
    torch.testing.assert_close(denoiser(x, sigma), (1 - share) * x - share * out, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_sana_sprint_is_read_as_its_pipeline_loops():
    name, s = "SanaTransformer2DModel", diffusers.SCMScheduler()
    net = built(name, timestep_scale=1.0)
    s.set_timesteps(2)
    t = s.timesteps[1]  # 1.3
    sigma, spread = float(torch.tan(t)), s.config.sigma_data
    x = 3 * torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    latents = x * torch.cos(t) * spread  # sigma_data (cos x0 + sin z)
    share = torch.sin(t) / (torch.cos(t) + torch.sin(t))
    ready = latents / spread * (share**2 + (1 - share) ** 2).sqrt()
    text = TINY[name][2]["encoder_hidden_states"].repeat(2, 1, 1)
    out = net(ready, encoder_hidden_states=text, timestep=share.repeat(2)).sample
    out = ((1 - 2 * share) * ready + (1 - 2 * share + 2 * share**2) * out) / (share**2 + (1 - share) ** 2).sqrt()
    _, clean = s.step(out * spread, t, latents, return_dict=False)
    denoiser = from_diffusers(built(name), s, **TINY[name][2])  # its timestep_scale does not apply here
    torch.testing.assert_close(denoiser(x, sigma), clean / spread, rtol=1e-4, atol=2e-5)
    with pytest.raises(
        ValueError, match="SCMScheduler is known with SanaTransformer2DModel alone, not with UNet2DModel"
    ):
        from_diffusers(built("UNet2DModel"), s)


class _Mine(diffusers.ModelMixin, diffusers.ConfigMixin):
    """A network of one's own: the time is the second argument under a name of its own, or is called timestep."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 3)

    def forward(self, x, when):
        return (self.layer(x) + when[:, None],)


class _Named(_Mine):
    def forward(self, x, text, timestep):
        return (self.layer(x) + timestep[:, None] + text,)


@torch.no_grad()
def test_networks_of_ones_own_are_called_by_position_or_by_name():
    x = torch.ones(2, 3)
    for net, condition in ((_Mine(), {}), (_Named(), {"text": torch.zeros(1, 3)})):
        expected = 0.5 * x - 0.5 * (net.layer(0.5 * x) + 500.0)
        torch.testing.assert_close(from_diffusers(net, flow(), **condition)(x, 1.0), expected)


def test_a_subclass_is_called_like_its_parent_and_a_new_class_is_refused():
    kind = diffusers.Lumina2Transformer2DModel
    sub = type("Tuned", (kind,), {})(**TINY["Lumina2Transformer2DModel"][0]).eval()
    reading = from_diffusers(sub, flow(), **TINY["Lumina2Transformer2DModel"][2]).reading
    assert (reading.sign, reading.time(torch.tensor([1.0])).item()) == (-1.0, 0.5)
    new = type("NewTransformer", (_Mine,), {"__module__": "diffusers.models.transformers.new"})()
    with pytest.raises(
        ValueError, match=r"NewTransformer is a class of diffusers that is not known here .*from_prediction"
    ):
        from_diffusers(new, flow())
    assert from_diffusers(new, flow(), family=ModelFamily(time="when"))(torch.ones(2, 3), 1.0).shape == (2, 3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # of torch.compile itself
@torch.no_grad()
def test_wrapped_networks_are_known_by_what_is_inside():
    name = "FluxTransformer2DModel"
    net, condition, x = built(name), TINY[name][2], torch.ones(2, *TINY[name][1])
    expected = from_diffusers(net, flow(), **condition)(x, 1.0)
    wrapped = torch.nn.DataParallel(net), net.forward, functools.partial(net, joint_attention_kwargs=None)
    for one in wrapped:
        torch.testing.assert_close(from_diffusers(one, flow(), **condition)(x, 1.0), expected)
    assert from_diffusers(torch.compile(net), flow(), **condition).reading.top == 1.0


@pytest.mark.parametrize(
    ("name", "settings", "scheduler", "condition", "said"),
    [
        ("FluxTransformer2DModel", {}, {}, ("guidance",), "FluxTransformer2DModel needs guidance"),
        (
            "WanTransformer3DModel",
            {},
            {},
            ("encoder_hidden_states",),
            "WanTransformer3DModel needs encoder_hidden_states",
        ),
        ("MochiTransformer3DModel", {}, {}, (), "MochiTransformer3DModel is told times that run backwards"),
        (
            "SD3Transformer2DModel",
            {},
            {"invert_sigmas": True},
            (),
            "SD3Transformer2DModel is told times that run forwards",
        ),
        ("PRXTransformer2DModel", {"in_channels": 3}, {}, (), "predicts the clean image"),
    ],
)
def test_what_does_not_belong_together_is_refused_by_name(name, settings, scheduler, condition, said):
    given = {k: v for k, v in TINY[name][2].items() if k not in condition}
    with pytest.raises(ValueError, match=said):
        from_diffusers(built(name, **settings), flow(**scheduler), **given)


def test_classes_that_denoise_no_single_state_say_why():
    net = diffusers.TransformerTemporalModel(
        num_attention_heads=2, attention_head_dim=4, in_channels=4, norm_num_groups=1
    )
    with pytest.raises(ValueError, match="TransformerTemporalModel is part of a network"):
        from_diffusers(net, flow())


def test_a_row_of_ones_own_is_checked():
    with pytest.raises(ValueError, match=r"ModelFamily.clock is 'seconds'"):
        ModelFamily(clock="seconds")
    with pytest.raises(ValueError, match=r"ModelFamily.sign is 2"):
        ModelFamily(sign=2.0)


# half precision


@torch.no_grad()
@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_the_network_alone_is_cast(half):
    seen = []

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(3, 3)

        def forward(self, x, t):
            seen.append((x.dtype, t.dtype))
            return self.layer(x)

    net = Net().to(half)
    table = diffusers.DDIMScheduler()
    adapted = from_edm(net), from_prediction(net, "epsilon", co.VP()), from_diffusers(net, table)
    for denoiser in (*adapted, co.estimate.Denoiser(net)):
        for dtype in (torch.float32, torch.float64, half):
            out = denoiser(torch.ones(2, 3, dtype=dtype), 0.7)
            assert out.dtype == dtype
            at_least = torch.float64 if dtype == torch.float64 else torch.float32
            assert seen[-1] == (half, at_least)


@torch.no_grad()
def test_a_function_around_a_half_network_is_told_to_cast():
    net = torch.nn.Linear(3, 3).to(torch.bfloat16)
    with pytest.raises(DenoiserError, match=r"States and levels are torch.float32.*x.to\(its dtype\)"):
        co.estimate.Denoiser(lambda x, sigma: net(x))(torch.ones(2, 3), 1.0)
    assert co.estimate.Denoiser(lambda x, sigma: net(x.bfloat16()))(torch.ones(2, 3), 1.0).dtype == torch.float32


@torch.no_grad()
@pytest.mark.parametrize(
    "name", list(TINY) if FULL else ["UNet2DConditionModel", "SD3Transformer2DModel", "FluxTransformer2DModel"]
)
def test_a_half_network_answers_as_the_full_one_to_its_rounding(name):
    scheduler = flow(**TRAINED_WITH.get(name, {}))
    if name == "StableCascadeUNet":
        scheduler = diffusers.DDPMWuerstchenScheduler()
    condition = TINY[name][2]
    x = torch.randn(2, *TINY[name][1], generator=torch.Generator().manual_seed(0))
    exact = from_diffusers(built(name), scheduler, **condition)(x, 0.8)
    keep = (
        "ids",
        "_pos",
        "position",
        "rotary",
        "guidance",
        "sizes",
        "size",
        "coords",
        "indices",
    )  # as their pipelines do

    def halved(key, value):
        if isinstance(value, list):
            return [halved(key, one) for one in value]
        cast = torch.is_tensor(value) and value.is_floating_point() and not any(word in key for word in keep)
        return value.to(torch.bfloat16) if cast else value

    net = built(name).to(torch.bfloat16)
    for words in getattr(net, "_keep_in_fp32_modules", None) or ():  # as from_pretrained does
        for label, module in net.named_modules():
            if words in label.split("."):
                module.float()
    found = from_diffusers(net, scheduler, **{key: halved(key, value) for key, value in condition.items()})(x, 0.8)
    rounds_its_time = name in ("StableCascadeUNet", "Flux3Transformer2DModel", "ChromaTransformer2DModel",
                               "NucleusMoEImageTransformer2DModel")  # fmt: skip
    assert float((found - exact).norm() / exact.norm()) < (0.25 if rounds_its_time else 0.05)
