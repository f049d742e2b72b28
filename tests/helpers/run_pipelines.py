"""The loops of diffusers' own pipelines, run on tiny random networks and watched at the network and the scheduler.

Nothing here says what a network is told or what its answers stand for: what a loop hands to the network and to the
scheduler's step is recorded, and the clean data are those that the scheduler's own step makes of it.
"""

import copy
import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace

import torch

from tests.helpers.own_clean_data import KEPT, PLAIN_X, STRAIGHT, by_last_step, by_velocity, level
from tests.helpers.own_clean_data import ROWS as OWN
from tests.helpers.pipelines import load

TIMES = ("timestep", "timesteps", "t", "timestep_ratio", "r_timestep", "timestep_r")
STEPS = 3


@dataclass(frozen=True, eq=False)
class Run:
    """How a pipeline is built and called so that its loop runs; what is not given is absent, or its default.

    Args:
        path, name: the file in the package, and the class in it.
        call: arguments of its call.
        scheduler, settings: the scheduler that it is built with.
        network: entries of the network's config that are not those of its tiny instance.
        part: name of the network among the components.
        parts: other components that it looks at.
        methods: its methods that are answered for, such as an encoder's.
        globals: names in its module that packages are missing for.
        plain: its scheduler's sigmas are sigma itself, whatever their class.
        view: from the states of its scheduler to those of its network.
        padded: the network is given tokens of text before the states.
    """

    path: str
    name: str
    call: Mapping = field(default_factory=dict)
    scheduler: str = "FlowMatchEulerDiscreteScheduler"
    settings: Mapping = field(default_factory=dict)
    network: Mapping = field(default_factory=dict)
    part: str = "transformer"
    parts: Mapping = field(default_factory=dict)
    methods: Mapping = field(default_factory=dict)
    globals: Mapping = field(default_factory=dict)
    plain: bool = False
    view: Callable = lambda state: state
    padded: bool = False


@dataclass
class Asked:
    """One call of the network: the states, the time, and all else by name."""

    state: object
    time: torch.Tensor
    condition: dict


@dataclass
class Step:
    """One step of the scheduler: x and sigma where it starts, the clean data that it took, what was asked for it."""

    x: torch.Tensor
    sigma: float
    clean: torch.Tensor
    asked: list

    def condition(self, run):
        """What from_diffusers is given: all that the loop gave the network, what it joined to the states `beside`."""
        asked, x = self.asked[0], run.view(self.x)
        found = {key: value for key, value in asked.condition.items() if value is not None}
        given = asked.state
        if not torch.is_tensor(given) or given.shape == x.shape or run.padded:
            return found
        if len(given) == 2 * len(x):  # guidance between two equal conditions
            found = {key: _half(value) for key, value in found.items()}
        axis = next((k for k in range(1, x.ndim) if given.shape[k] != x.shape[k]), None)
        if axis is not None:
            tail = given.narrow(axis, x.shape[axis], given.shape[axis] - x.shape[axis])
            found["beside"] = tail[: len(x)]
        return found


class Enough(Exception):
    """The loop is over; what comes after it needs a decoder."""


class Loop:
    """Records every call of a network, and every step of a scheduler's class; `patch` is a pytest.MonkeyPatch."""

    def __init__(self, network, scheduler, patch, plain=False):
        self.steps, self.plain = [], plain
        self._asked, self._inside, self._begun = [], False, 0
        self._names = inspect.signature(network.forward)
        self._hook = network.register_forward_pre_hook(self._called, with_kwargs=True)
        patch.setattr(type(scheduler), "step", self._watched(type(scheduler).step))

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._hook.remove()
        return error[0] is Enough

    def _called(self, network, given, named):
        known = dict(self._names.bind(*given, **named).arguments)
        known |= known.pop("kwargs", {})
        state = known.pop(next(iter(known)))
        time = next(known[name] for name in TIMES if name in known)
        condition = {key: _kept(value) for key, value in known.items() if key not in (*TIMES, "return_dict")}
        self._asked.append(Asked(_kept(state), _kept(time), condition))

    def _watched(self, step):
        names = list(inspect.signature(step).parameters)[1:]

        @functools.wraps(step)
        def watched(scheduler, *given, **named):
            if not self._inside and self._asked:  # some loops step twice for one question
                self._inside = True
                known = dict(zip(names, given, strict=False)) | named
                started = self._started(scheduler, known["model_output"], known["timestep"], known["sample"])
                self.steps.append(Step(*started, self._asked))
                self._asked, self._inside = [], False
                if len(self.steps) == STEPS:
                    raise Enough
            return step(scheduler, *given, **named)

        return watched

    def _started(self, scheduler, out, t, sample):
        """x, sigma and the clean data of a step about to be made, by the scheduler's own tables and step."""
        name = type(scheduler).__name__
        if not self.steps:  # a loop that begins with an image begins in the middle
            told = torch.as_tensor(scheduler.timesteps).double() == torch.as_tensor(t).double().flatten()[0]
            self._begun = int(told.long().argmax())
        i = self._begun + len(self.steps)
        other = copy.deepcopy(scheduler)
        if name == "SCMScheduler":  # its states are sigma_data (cos(t) x0 + sin(t) z)
            spread, t = scheduler.config.sigma_data, t.double().flatten()[0]
            clean = other.step(out, t.float(), sample).pred_original_sample
            return sample / (spread * float(torch.cos(t))), float(torch.tan(t)), clean / spread
        state, own = OWN[name][2:]
        state = PLAIN_X if self.plain else STRAIGHT if _setting(scheduler, "use_flow_sigmas") else state
        if state is STRAIGHT and float(scheduler.sigmas[i]) == 1 - _end(scheduler):
            return sample.clone(), float("inf"), sample.clone()
        other._begin_index, other.ets = None, []  # it finds its place by the time, and remembers no earlier step
        if own in (by_last_step, by_velocity):  # as if it were its last step
            other.sigmas = other.sigmas.clone()
            other.sigmas[i + 1 :] = _end(scheduler)
        sigma = level(scheduler, i, t, state)
        scale = {KEPT: (1 + sigma**2) ** -0.5, STRAIGHT: 1 / (1 + sigma)}.get(state, 1.0)
        return sample / scale, sigma, own(other, out, t, sample.clone()).clone()


def _setting(scheduler, name):
    return getattr(scheduler.config, name, None)


def _end(scheduler):
    """The level that its last step goes to: no noise, or that from which consistency models are the identity."""
    if type(scheduler).__name__ == "CMStochasticIterativeScheduler":
        return scheduler.config.sigma_min
    return float(bool(_setting(scheduler, "invert_sigmas")))


def _kept(value):
    """A copy of the tensors in it."""
    if torch.is_tensor(value):
        return value.clone()
    return type(value)(_kept(one) for one in value) if isinstance(value, (list, tuple)) else value


def _half(value):
    if torch.is_tensor(value):
        return value[1:] if value.ndim and len(value) == 2 else value
    return {key: _half(one) for key, one in value.items()} if isinstance(value, dict) else value


def looped(run, network, scheduler, patch):
    """The recorded loop of a pipeline of three steps without guidance, or of a block of a modular one."""
    kind = load(run.path, run.name, patch)
    for key, value in run.globals.items():
        patch.setattr(sys.modules[kind.__module__], key, value, raising=False)
    with torch.no_grad(), Loop(network, scheduler, patch, run.plain) as loop:
        if run.path.startswith("modular"):
            _block(run, kind, network, scheduler)
        else:
            _pipeline(run, kind, network, scheduler)
    return loop.steps


def _pipeline(run, kind, network, scheduler):
    needs = list(inspect.signature(kind.__init__).parameters.values())[1:]
    absent = {one.name: None for one in needs if one.default is one.empty}
    pipe = kind(**{**absent, run.part: network, "scheduler": scheduler, **run.parts})
    pipe.set_progress_bar_config(disable=True)
    for key, value in run.methods.items():
        setattr(pipe, key, value)
    takes = inspect.signature(kind.__call__).parameters
    usual = {"num_inference_steps": STEPS, "guidance_scale": 1.0, "output_type": "latent", "height": 64, "width": 64,
             "generator": torch.Generator().manual_seed(0)}  # fmt: skip
    pipe(**{key: value for key, value in usual.items() if key in takes} | dict(run.call))


def _block(run, kind, network, scheduler):
    from diffusers.guiders import ClassifierFreeGuidance

    scheduler.set_timesteps(**run.call["set_timesteps"])
    parts = SimpleNamespace(transformer=network, scheduler=scheduler, guider=ClassifierFreeGuidance(guidance_scale=1.0))
    run.call["block"](kind(), parts, scheduler.timesteps)
