"""from_diffusers against every scheduler's own clean data: what it is given, its time, and what its answer stands for.

The network is any function; the truth is `step(...).pred_original_sample` of the scheduler, or what follows from its
own step where it gives none. No class of the installed diffusers may be silent.
"""

import types

import pytest
import torch

from codesign_opt.estimate import from_diffusers
from tests.helpers.own_clean_data import FLOW_SIGMAS, KEPT, PLAIN_X, ROWS, STRAIGHT, V, cases, level, prepared
from tests.helpers.schedulers import OWN_WARNINGS, diffusers

pytestmark = [pytest.mark.filterwarnings(words) for words in OWN_WARNINGS]
CASES = dict(cases())


def network(state, t):
    """A bounded function of the state and, smoothly, of the time."""
    time = torch.as_tensor(t, dtype=torch.float32).reshape(-1)[:, None]
    return torch.tanh(state * torch.tensor([0.7, -0.3, 1.1]) + torch.sin(0.01 * time))


@pytest.mark.cases(30)
@pytest.mark.parametrize(("name", "settings", "state", "own"), CASES.values(), ids=CASES)
def test_the_clean_data_are_those_of_the_schedulers_own_step(name, settings, state, own, monkeypatch):
    scheduler, i = prepared(name, settings, monkeypatch)
    t = scheduler.timesteps[i]
    sigma = level(scheduler, i, t, state)
    x = sigma * torch.randn(5, 3, generator=torch.Generator().manual_seed(1)) + torch.ones(5, 3)
    sample = x * {KEPT: (1 + sigma**2) ** -0.5, PLAIN_X: 1.0, STRAIGHT: 1 / (1 + sigma)}[state]
    seen = []

    def recorded(given, time):
        seen.append((given, time))
        return network(given, time)

    found = from_diffusers(recorded, scheduler)(x, sigma)
    ready = scheduler.scale_model_input(sample, t) if hasattr(scheduler, "scale_model_input") else sample
    told = torch.tensor(sigma) if name == "ScoreSdeVeScheduler" else t  # its pipeline tells sigma
    torch.testing.assert_close(seen[0][0], ready, rtol=1e-5, atol=1e-6)
    cut = state is STRAIGHT or "use_karras_sigmas" in settings  # some tell such times cut or rounded to whole ones
    cut = (cut and not torch.is_floating_point(t)) or "KDPM2" in name
    assert abs(float(seen[0][1][0]) - float(told)) <= (1.0 if cut else 2e-5 * max(1.0, float(told)))
    theirs = own(scheduler, network(seen[0][0], seen[0][1]), t, sample)
    torch.testing.assert_close(found, theirs.to(found.dtype), rtol=0, atol=1e-5 * max(1.0, float(x.abs().max())))


REFUSED = {
    "AmusedScheduler": "works on tokens",
    "BlockRefinementScheduler": "works on tokens",
    "DiscreteDDIMScheduler": "works on tokens",
    "EntropyBoundScheduler": "works on tokens",
    "VQDiffusionScheduler": "works on tokens",
    "DDIMInverseScheduler": "DDIMScheduler.from_config",
    "DPMSolverMultistepInverseScheduler": "DPMSolverMultistepScheduler.from_config",
    "PiflowScheduler": "a policy of many velocities",
    "RFD4ProteinaScheduler": "a time of its own",
    "SCMScheduler": "SanaTransformer2DModel alone",  # with other networks; tests of networks have that one
}


def made(name):
    """A scheduler as its class makes it, where it needs no arguments that matter here."""
    needs = {
        "VQDiffusionScheduler": {"num_vec_classes": 8},
        "AmusedScheduler": {"mask_token_id": 1},
        "RFD4ProteinaScheduler": {"schedule_mode": "log", "noise_mode": "1/t", "tsr_k": 1.0, "tsr_sigma": 1.0},
    }
    return getattr(diffusers, name)(**needs.get(name, {}))


@pytest.mark.parametrize(("name", "said"), REFUSED.items(), ids=list(REFUSED))
def test_what_has_no_clean_data_is_refused_by_its_name(name, said):
    with pytest.raises(ValueError, match=f"{name} .*{said}"):
        from_diffusers(network, made(name))


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("UniPCMultistepScheduler", {"prediction_type": "flow_prediction"}, "use_flow_sigmas=True"),
        ("DPMSolverMultistepScheduler", {"prediction_type": "flow_prediction"}, "use_flow_sigmas=True"),
        ("UniPCMultistepScheduler", {**FLOW_SIGMAS, **V}, "'flow_prediction' is a flow's velocity"),
        ("HeliosScheduler", {}, "3 stages .*stages=1"),
        ("EulerDiscreteScheduler", {"interpolation_type": "log_linear"}, "interpolation_type='linear'"),
        ("DDIMScheduler", {"prediction_type": "velocity"}, "DDIMScheduler.prediction_type is 'velocity'"),
        ("EDMEulerScheduler", {"prediction_type": "sample"}, "EDMEulerScheduler.prediction_type is 'sample'"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(name, settings, said):
    with pytest.raises(ValueError, match=said):
        from_diffusers(network, getattr(diffusers, name)(**settings))


def test_every_installed_scheduler_is_read_or_refused_by_name():
    mixin = diffusers.SchedulerMixin
    found = {
        name for name in dir(diffusers)
        if isinstance(kind := getattr(diffusers, name, None), type) and issubclass(kind, mixin) and kind is not mixin
    }  # fmt: skip
    new = found - set(ROWS) - set(REFUSED)
    assert not new, f"new in this version of diffusers: {sorted(new)}; read their code, then add them to SCHEDULERS"


def test_a_scheduler_of_ones_own_is_read_by_its_table_and_another_is_refused():
    class Mine(types.SimpleNamespace): ...

    given = diffusers.DDPMScheduler()
    mine = Mine(config=given.config, alphas_cumprod=given.alphas_cumprod)
    x = torch.ones(2, 3)
    torch.testing.assert_close(from_diffusers(network, mine)(x, 1.3), from_diffusers(network, given)(x, 1.3))
    with pytest.raises(ValueError, match="Mine is not known"):
        from_diffusers(network, Mine(config=given.config))
