"""from_diffusers on a tiny random instance of every class that it knows, against the scheduler's own clean data.

The time that each class is told and the sign of its answer are transcribed from its pipeline (tests/helpers), and every
state is asked by itself, with its conditions as they are given for one.
"""

import contextlib
import inspect
import os

import pytest
import torch

from codesign_opt.estimate import from_diffusers
from codesign_opt.estimate.denoisers.model_families import FAMILIES, REFUSED
from tests.helpers.own_clean_data import KEPT, STRAIGHT, by_velocity, cases, level, prepared
from tests.helpers.schedulers import OWN_WARNINGS, diffusers
from tests.helpers.tiny_networks import TINY, TRAINED_WITH

FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"
pytestmark = [pytest.mark.filterwarnings(words) for words in OWN_WARNINGS]
BUILT = {}


def built(name):
    """The network with random weights everywhere: some start with zeros where their answers come from."""
    if name not in BUILT:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            made = getattr(diffusers, name)(**TINY[name][0]).eval()
            with torch.no_grad():
                for one in made.parameters():
                    one.add_(0.1 * torch.randn_like(one))
        BUILT[name] = made
    return BUILT[name]


def answer(name, model, state, told):
    """What the pipeline gets from the network for one state (1, *shape), told one time (1,)."""
    condition = dict(TINY[name][2])
    beside = condition.pop("beside", None)
    axis = {"Kandinsky5Transformer3DModel": -1, "DreamLiteUNetModel": 3, "UNetSpatioTemporalConditionModel": 2}
    given = state if beside is None else torch.cat([state, beside], dim=axis.get(name, 1))
    if name == "ZImageTransformer2DModel":
        return model([state[0][:, None]], told, **condition).sample[0][:, 0][None]
    if name == "Ideogram4Transformer2DModel":
        return model(torch.cat([torch.zeros(1, 3, 4), state], 1), timestep=told, **condition).sample[:, 3:]
    if name == "UNetMotionModel":  # one text for every frame
        condition["encoder_hidden_states"] = condition["encoder_hidden_states"].repeat_interleave(2, 0)
    if name == "AnyFlowTransformer3DModel":
        told = told[:, None].repeat(1, 2)
        condition["r_timestep"] = told
    if name == "AceStepTransformer1DModel":
        condition["timestep_r"] = told
    names = {"HiDreamImageTransformer2DModel": "timesteps", "StableCascadeUNet": "timestep_ratio"}
    out = model(given, **{names.get(name, "timestep"): told}, **condition, return_dict=False)
    out = out if torch.is_tensor(out) else out[0]
    if name == "QwenImage21Transformer2DModel":
        out = out[:, -state.shape[1] :]
    if name == "DreamLiteUNetModel":
        return out[..., : state.shape[-1]]
    channels = 2 if name.startswith(("CogVideoX", "ConsisID", "UNetSpatio", "AnyFlow")) else 1
    return out.chunk(2, channels)[0] if out.shape[channels] == 2 * state.shape[channels] else out


def states(name, sigma):
    shape = (2, *TINY[name][1])
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)) * (1 + sigma**2) ** 0.5


def karras(scheduler):
    return getattr(scheduler.config, "use_karras_sigmas", False)


def check(name, scheduler, i, state, own, of_time):
    """D of a batch of two against the scheduler's own x0 of each; `of_time` is what the pipeline tells at time t."""
    model, t = built(name), scheduler.timesteps[i]
    sigma = level(scheduler, i, t, state)
    x = states(name, sigma)
    denoiser = from_diffusers(model, scheduler, **TINY[name][2])
    told = denoiser.reading.time(torch.tensor([sigma], dtype=torch.float64))  # whole timesteps are tested elsewhere
    whole = 1.0 if not t.is_floating_point() and (state is STRAIGHT or karras(scheduler)) else 0.0  # cut or rounded
    scale = abs(float(of_time(t.double() + 1) - of_time(t.double())))
    assert float(told) == pytest.approx(float(of_time(t.double())), abs=max(whole, 2e-3) * scale)
    scale = {KEPT: (1 + sigma**2) ** -0.5, STRAIGHT: 1 / (1 + sigma)}.get(state, 1.0)
    with torch.no_grad():
        found = denoiser(x, sigma)
        ready = scale * x
        if hasattr(scheduler, "scale_model_input"):
            ready = scheduler.scale_model_input(ready, t)
        each = [answer(name, model, ready[k : k + 1], told.float()) for k in range(2)]
        out = TINY[name][4] * torch.cat(each)
        theirs = own(scheduler, out, t, scale * x)
        shaken = [answer(name, model, (1 + 5e-7) * ready[k : k + 1], (1 + 2e-7) * told.float()) for k in range(2)]
        later = torch.cat([answer(name, model, ready[k : k + 1], 0.3 * told.float()) for k in range(2)])
    size = max(1.0, float(x.abs().max()), sigma * float(out.abs().max()))
    rounding = sigma * float((torch.cat(shaken) - torch.cat(each)).abs().max())  # random networks may amplify it
    torch.testing.assert_close(found, theirs.to(found.dtype), rtol=0, atol=1e-5 * size + rounding)
    assert float((later - each[0]).abs().max()) > 1e-4 * float(out.abs().max()), "the network does not look at its time"


def by_flow(scheduler, out, t, x):
    return x - scheduler.sigmas[scheduler.timesteps.tolist().index(float(t))] * out


def ready_made(name):
    """The scheduler that its pipeline is built with, and one of its times."""
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(**TRAINED_WITH.get(name, {}))
    scheduler.set_timesteps(sigmas=[0.9, 0.6, 0.3])
    return scheduler


@pytest.mark.cases(18)
@pytest.mark.parametrize("name", [name for name in TINY if name != "StableCascadeUNet"])
def test_every_known_class_is_told_its_time_and_read_as_its_pipeline_does(name):
    scheduler, told = ready_made(name), TINY[name][3]
    check(name, scheduler, 1, STRAIGHT, by_velocity, lambda t: told(1000 * t / scheduler.config.num_train_timesteps))


def test_stable_cascade_is_told_the_ratio_of_its_own_scheduler(monkeypatch):
    scheduler, i = prepared("DDPMWuerstchenScheduler", {}, monkeypatch)
    own = dict(cases())["DDPMWuerstchenScheduler-own"][3]
    check("StableCascadeUNet", scheduler, i, KEPT, own, lambda t: t)
    with pytest.raises(ValueError, match="StableCascadeUNet is known with DDPMWuerstchenScheduler, not with DDIM"):
        from_diffusers(built("StableCascadeUNet"), diffusers.DDIMScheduler(), **TINY["StableCascadeUNet"][2])


def test_every_installed_class_with_a_time_is_read_or_refused_by_name():
    known = {name for row in FAMILIES for name in row.classes}
    new = set()
    for name in dir(diffusers):
        kind = getattr(diffusers, name, None)
        if not isinstance(kind, type) or not issubclass(kind, diffusers.ModelMixin) or "forward" not in vars(kind):
            continue
        words = ("timestep", "timesteps", "t", "sigma", "noise_level", "timestep_ratio", "decoder_noise_time")
        timed = any(one in words or one.endswith("_timesteps") for one in inspect.signature(kind.forward).parameters)
        if timed and name not in known | set(REFUSED):
            new.add(name)
    assert not new, f"new in this version of diffusers: {sorted(new)}; read their pipelines, then add rows to FAMILIES"
    assert not known & set(REFUSED)
    untested = known - set(TINY)
    assert not untested, f"no tiny instance of {sorted(untested)}"


def pipelines_time(network, name, scheduler, i, state):
    """From the scheduler's time to what the pipeline tells: shares are of N, or of 1 where times end there."""
    told = TINY[network][3]
    if name == "ScoreSdeVeScheduler":
        sigma = level(scheduler, i, scheduler.timesteps[i], state)
        return lambda t: torch.tensor(sigma if told(500.0) == 0.5 else told(sigma))
    shares = getattr(scheduler.config, "timestep_type", "") != "continuous" and not name.startswith(
        ("EDM", "Cosine", "CM")
    )
    if network == "CosmosTransformer3DModel" and not shares:
        return lambda t: t
    if told(500.0) == 0.5:  # a share, forwards or backwards
        top = 1.0 if scheduler.timesteps.max() <= 1 else float(scheduler.config.num_train_timesteps)
        return lambda t: told(1000 * t / top)
    return told


@pytest.mark.skipif(not FULL, reason="every scheduler, prediction and setting with every class: some minutes")
@pytest.mark.parametrize("label", [label for label, _ in cases()])
def test_every_scheduler_with_every_class_is_right_or_refused_by_name(label, monkeypatch):
    name, settings, state, own = dict(cases())[label]
    if name == "HeliosDMDScheduler":  # its own function is for videos alone
        own = by_flow
    right, refused = 0, 0
    for network in TINY:
        scheduler, i = prepared(name, settings, monkeypatch)
        with contextlib.suppress(ValueError):
            from_diffusers(built(network), scheduler, **TINY[network][2])
            check(network, scheduler, i, state, own, pipelines_time(network, name, scheduler, i, state))
            right += 1
            continue
        with pytest.raises(ValueError, match=network):
            from_diffusers(built(network), scheduler, **TINY[network][2])
        refused += 1
    print(f"{label}: {right} right, {refused} refused")
    assert right or name == "MiniMaxH3Scheduler"  # of a class that is refused
