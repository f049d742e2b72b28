"""What a scheduler of diffusers says of a network: its prediction, its time and its state at every noise level.

Facts as of diffusers 0.42, held against the schedulers' own steps in tests/estimate/test_diffusers_schedulers.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ...schedulers.scheduler_reading import class_names, setting
from .reading import Levels

__all__ = ["REFUSED_SCHEDULERS", "SCHEDULERS", "SchedulerClock", "scheduler_clock"]

_KINDS = {"epsilon": "epsilon", "v_prediction": "v", "sample": "x0", "original_sample": "x0"}
_FLOW_KINDS = {"flow_prediction": "flow", "epsilon": "epsilon", "sample": "x0"}
_FINEST = 1000.0  # times that a flow is resolved to where its scheduler counts fewer


@dataclass(frozen=True, eq=False)
class SchedulerClock:
    """What a scheduler says of the network that it was made for.

    Args:
        prediction: "x0", "epsilon", "v", "score" or "flow"; "preconditioned" where `skip` and `gain` read it.
        time: (N,) noise levels to the scheduler's times, in float64.
        scale: (N,) noise levels to s: the network is given s x.
        sigma_range: noise levels that its times cover.
        top: its time of pure noise; None where times are no share of a range, such as log(sigma) / 4.
        sign: -1 where it takes the opposite of the prediction.
        inverted: whether its times run backwards.
        unscaled: whether a network's own factor on times does not apply.
        skip, gain: (N,) noise levels to the coefficients of D = skip x + gain F.
    """

    prediction: str
    time: Levels
    scale: Levels
    sigma_range: tuple[float, float]
    top: float | None = None
    sign: float = 1.0
    inverted: bool = False
    unscaled: bool = False
    skip: Levels | None = None
    gain: Levels | None = None


def scheduler_clock(scheduler: Any) -> SchedulerClock:
    """The clock of a scheduler.

    Raises:
        ValueError: a class that is not known, or settings under which its network's answers have no meaning.

    >>> from types import SimpleNamespace
    >>> config = SimpleNamespace(num_train_timesteps=1000)
    >>> class FlowMatchEulerDiscreteScheduler(SimpleNamespace): ...
    >>> clock = scheduler_clock(FlowMatchEulerDiscreteScheduler(config=config))
    >>> clock.prediction, clock.time(torch.ones(1)).item(), clock.sigma_range
    ('flow', 500.0, (0.001001001001001001, 999.0))
    """
    for name in class_names(scheduler):
        if name in REFUSED_SCHEDULERS:
            raise ValueError(f"{type(scheduler).__name__} {REFUSED_SCHEDULERS[name]}.")
        if name in SCHEDULERS:
            return SCHEDULERS[name](scheduler)
    if getattr(scheduler, "alphas_cumprod", None) is not None and not type(scheduler).__module__.startswith(
        "diffusers."
    ):
        return _table(scheduler)  # a scheduler of one's own
    raise ValueError(
        f"{type(scheduler).__name__} is not known: it has no alphas_cumprod and matches no flow, or is newer than "
        "this library. Say what the network predicts with from_prediction or from_edm."
    )


# one function for each kind of scheduler


def _table(scheduler: Any, scale: str = "log") -> SchedulerClock:
    """Timesteps of a table of alphas_cumprod; the state keeps its variance."""
    if setting(scheduler, "use_flow_sigmas", False):
        return _flow(scheduler)
    said = setting(scheduler, "prediction_type", "epsilon")
    if said == "flow_prediction":
        name = type(scheduler).__name__
        raise ValueError(
            f"{name}.prediction_type is 'flow_prediction' without use_flow_sigmas=True: its steps mix noise levels of "
            f"a table with a flow's. Use {name}.from_config(scheduler.config, use_flow_sigmas=True)."
        )
    table = _levels(scheduler)
    places = torch.log(table) if scale == "log" else table

    def time(sigma: torch.Tensor) -> torch.Tensor:
        level = torch.log(sigma) if scale == "log" else sigma
        return _position(level.to(torch.float64), places.to(sigma.device))

    ends = float(table[0]), float(table[-1])
    steps = float(setting(scheduler, "num_train_timesteps", table.numel()))
    return SchedulerClock(_kind(scheduler, said, _KINDS), time, _kept, ends, steps)


def _linear(scheduler: Any) -> SchedulerClock:
    """A table that the scheduler interpolates in sigma, unless it makes its levels by a formula."""
    formulas = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")
    logs = any(setting(scheduler, name, False) for name in formulas)
    if setting(scheduler, "interpolation_type") == "log_linear" and not logs:
        name = type(scheduler).__name__
        raise ValueError(
            f"{name}.interpolation_type is 'log_linear', whose noise levels are not those of its timesteps; use "
            f"{name}.from_config(scheduler.config, interpolation_type='linear'), or use_karras_sigmas=True."
        )
    return _table(scheduler, "log" if logs else "linear")


def _euler(scheduler: Any) -> SchedulerClock:
    """A table, or log(sigma) / 4 where its timesteps are continuous (Stable Video Diffusion)."""
    if setting(scheduler, "timestep_type") != "continuous":
        return _linear(scheduler)
    table = _levels(scheduler)
    low, high = setting(scheduler, "sigma_min"), setting(scheduler, "sigma_max")
    ends = float(table[0]) if low is None else float(low), float(table[-1]) if high is None else float(high)
    kind = _kind(scheduler, setting(scheduler, "prediction_type", "epsilon"), _KINDS)
    if kind == "v":  # other predictions keep whole timesteps there
        return SchedulerClock(kind, _quarter_log, _kept, ends)
    return _linear(scheduler)


def _lcm(scheduler: Any) -> SchedulerClock:
    """A table, with the boundary condition of consistency models put on the clean data."""
    plain = _table(scheduler)
    stretch, spread = float(setting(scheduler, "timestep_scaling", 10.0)), 0.5

    def weights(sigma: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        moved = stretch * plain.time(sigma)
        return spread**2 / (moved**2 + spread**2), moved / (moved**2 + spread**2) ** 0.5

    def skip(sigma: torch.Tensor) -> torch.Tensor:
        state, clean = weights(sigma)
        return state * _kept(sigma) + clean * _of_state(plain.prediction, sigma)

    def gain(sigma: torch.Tensor) -> torch.Tensor:
        return weights(sigma)[1] * _of_answer(plain.prediction, sigma)

    return SchedulerClock("preconditioned", plain.time, _kept, plain.sigma_range, plain.top, skip=skip, gain=gain)


def _of_state(kind: str, sigma: torch.Tensor) -> torch.Tensor:
    return {"x0": 0 * sigma, "epsilon": 1 + 0 * sigma, "v": 1 / (1 + sigma**2)}[kind]


def _of_answer(kind: str, sigma: torch.Tensor) -> torch.Tensor:
    return {"x0": 1 + 0 * sigma, "epsilon": -sigma, "v": -sigma / (1 + sigma**2) ** 0.5}[kind]


def _flow(scheduler: Any) -> SchedulerClock:
    """Flow times u = sigma / (1 + sigma), told as N u, or N (1 - u) where they are inverted."""
    steps = float(setting(scheduler, "num_train_timesteps", 1000))
    said = setting(scheduler, "prediction_type", "flow_prediction")
    if said == "v_prediction":
        raise ValueError(
            f"{type(scheduler).__name__}.prediction_type is 'v_prediction' with use_flow_sigmas=True, but v belongs to "
            "states that keep their variance; 'flow_prediction' is a flow's velocity."
        )
    if int(setting(scheduler, "stages", 1)) > 1:
        raise ValueError(
            f"{type(scheduler).__name__} has {scheduler.config.stages} stages of growing images, each with levels of "
            "its own; one stage is read: from_config(scheduler.config, stages=1)."
        )
    finest = max(steps, _FINEST)
    ends = 1 / (finest - 1), finest - 1
    back = bool(setting(scheduler, "invert_sigmas", False))

    def time(sigma: torch.Tensor) -> torch.Tensor:
        level = sigma.to(torch.float64)
        return steps / (1 + level) if back else steps * level / (1 + level)

    kind = _kind(scheduler, said, _FLOW_KINDS)
    return SchedulerClock(kind, time, _straight, ends, steps, -1.0 if back else 1.0, back)


def _minimax(scheduler: Any) -> SchedulerClock:
    """Flow times 1 - u, and the velocity x0 - z."""
    ends = 1 / (_FINEST - 1), _FINEST - 1
    return SchedulerClock("flow", lambda sigma: 1 / (1 + sigma.to(torch.float64)), _straight, ends, 1.0, -1.0, True)


def _scm(scheduler: Any) -> SchedulerClock:
    """TrigFlow of Sana-Sprint: its pipeline tells the network the flow time, and reads its velocity."""
    ends = 1 / (_FINEST - 1), _FINEST - 1
    return SchedulerClock(
        "flow", lambda sigma: sigma.to(torch.float64) / (1 + sigma), _straight, ends, 1.0, unscaled=True
    )


def _edm(scheduler: Any) -> SchedulerClock:
    """EDM's preconditioning (Karras et al. 2022, table 1), with the opposite sign for v_prediction."""
    spread = float(setting(scheduler, "sigma_data", 0.5))
    said = setting(scheduler, "prediction_type", "epsilon")
    kinds = {"epsilon": 1.0, "v_prediction": -1.0}
    if said not in kinds:
        raise ValueError(f"{type(scheduler).__name__}.prediction_type is {said!r}; one of {list(kinds)} is needed.")
    cosine = "CosineDPMSolverMultistepScheduler" in class_names(scheduler)
    return SchedulerClock(
        "preconditioned", _angle if cosine else _quarter_log, lambda sigma: (sigma**2 + spread**2) ** -0.5,
        (float(setting(scheduler, "sigma_min")), float(setting(scheduler, "sigma_max"))),
        skip=lambda sigma: spread**2 / (sigma**2 + spread**2),
        gain=lambda sigma: kinds[said] * sigma * spread * (sigma**2 + spread**2) ** -0.5,
    )  # fmt: skip


def _consistency(scheduler: Any) -> SchedulerClock:
    """Consistency models (Song et al. 2023): the identity at sigma_min, and 250 log(sigma) as the time."""
    spread, low = float(setting(scheduler, "sigma_data", 0.5)), float(setting(scheduler, "sigma_min"))
    return SchedulerClock(
        "preconditioned", lambda sigma: 250 * torch.log(sigma.to(torch.float64)),
        lambda sigma: (sigma**2 + spread**2) ** -0.5, (low, float(setting(scheduler, "sigma_max"))),
        skip=lambda sigma: spread**2 / ((sigma - low) ** 2 + spread**2),
        gain=lambda sigma: (sigma - low) * spread * (sigma**2 + spread**2) ** -0.5,
    )  # fmt: skip


def _variance_exploding(scheduler: Any) -> SchedulerClock:
    """Score networks of Song et al. 2021 that are told sigma itself."""
    ends = float(setting(scheduler, "sigma_min")), float(setting(scheduler, "sigma_max"))
    return SchedulerClock("score", lambda sigma: sigma.to(torch.float64), torch.ones_like, ends)


def _ipndm(scheduler: Any) -> SchedulerClock:
    """v of states that keep their variance, told the angle atan(sigma) in quarter turns (Dance Diffusion)."""
    ends = math.tan(0.5 * math.pi / _FINEST), math.tan(0.5 * math.pi * (1 - 1 / _FINEST))
    return SchedulerClock("v", _angle, _kept, ends, 1.0)


def _wuerstchen(scheduler: Any) -> SchedulerClock:
    """The cosine schedule of Wuerstchen and Stable Cascade, in times from 0 to 1."""
    shift, scaler = float(scheduler.config.s), float(scheduler.config.scaler)
    start = math.cos(shift / (1 + shift) * math.pi / 2) ** 2

    def time(sigma: torch.Tensor) -> torch.Tensor:
        share = (start / (1 + sigma.to(torch.float64) ** 2)).clamp(0, 1)
        t = ((1 + shift) * torch.acos(share.sqrt()) * 2 / math.pi - shift).clamp(min=0)
        if scaler > 1:
            t = 1 - (1 - t) ** (1 / scaler)
        elif scaler < 1:
            t = t ** (1 / scaler)
        return torch.where(share <= (1 + 1e-9) * start * 1e-4, 1.0, t)  # its first time, at the level that it clamps to

    def level(kept: float) -> float:
        return math.sqrt((1 - kept) / kept)

    return SchedulerClock("epsilon", time, _kept, (level(0.9999), level(0.0001)), 1.0)


# what they share


def _kind(scheduler: Any, said: Any, kinds: dict[str, str]) -> str:
    if said not in kinds:
        raise ValueError(f"{type(scheduler).__name__}.prediction_type is {said!r}; one of {list(kinds)} is needed.")
    return kinds[said]


def _levels(scheduler: Any) -> torch.Tensor:
    """The finite noise levels of its table, in float64; a last entry of pure noise is left out."""
    kept = torch.as_tensor(scheduler.alphas_cumprod).to("cpu", torch.float64)
    kept = kept[(kept > 0) & (kept < 1)]
    return torch.sqrt((1 - kept) / kept)


def _position(levels: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """Fractional index in an ascending table, piecewise linear; ends are kept."""
    high = torch.searchsorted(table, levels.detach().contiguous()).clamp(1, table.numel() - 1)
    left, right = table[high - 1], table[high]
    return high - 1 + ((levels - left) / (right - left)).clamp(0, 1)


def _kept(sigma: torch.Tensor) -> torch.Tensor:
    """Scale of states that keep their variance."""
    return (1 + sigma**2) ** -0.5


def _straight(sigma: torch.Tensor) -> torch.Tensor:
    """Scale 1 - u of a flow."""
    return 1 / (1 + sigma)


def _quarter_log(sigma: torch.Tensor) -> torch.Tensor:
    return torch.log(sigma.to(torch.float64)) / 4


def _angle(sigma: torch.Tensor) -> torch.Tensor:
    return torch.atan(sigma.to(torch.float64)) * 2 / math.pi


Read = Callable[[Any], SchedulerClock]

SCHEDULERS: dict[str, Read] = {
    **dict.fromkeys(
        ("DDIMScheduler", "DDIMParallelScheduler", "DDPMScheduler", "DDPMParallelScheduler", "PNDMScheduler",
         "TCDScheduler", "UnCLIPScheduler", "RePaintScheduler", "CogVideoXDDIMScheduler", "CogVideoXDPMScheduler",
         "DEISMultistepScheduler", "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "SASolverScheduler",
         "UniPCMultistepScheduler"), _table),
    **dict.fromkeys(
        ("EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler", "KDPM2DiscreteScheduler",
         "KDPM2AncestralDiscreteScheduler", "LMSDiscreteScheduler", "DPMSolverSDEScheduler"), _linear),
    **dict.fromkeys(
        ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler", "FlowMatchLCMScheduler",
         "FlowMapEulerDiscreteScheduler", "LTXEulerAncestralRFScheduler", "HeliosScheduler", "HeliosDMDScheduler"),
        _flow),
    **dict.fromkeys(
        ("EDMEulerScheduler", "EDMDPMSolverMultistepScheduler", "CosineDPMSolverMultistepScheduler"), _edm),
    "EulerDiscreteScheduler": _euler,
    "LCMScheduler": _lcm,
    "MiniMaxH3Scheduler": _minimax,
    "SCMScheduler": _scm,
    "CMStochasticIterativeScheduler": _consistency,
    "ScoreSdeVeScheduler": _variance_exploding,
    "IPNDMScheduler": _ipndm,
    "DDPMWuerstchenScheduler": _wuerstchen,
}  # fmt: skip

_TOKENS = "works on tokens, which have no noise level sigma"
REFUSED_SCHEDULERS = {
    **dict.fromkeys(("AmusedScheduler", "BlockRefinementScheduler", "DiscreteDDIMScheduler", "EntropyBoundScheduler",
                     "VQDiffusionScheduler"), _TOKENS),
    "DDIMInverseScheduler": "inverts a sampler, and tells the network the time of the step's other end; give the "
    "scheduler that samples, DDIMScheduler.from_config(scheduler.config)",
    "DPMSolverMultistepInverseScheduler": "inverts a sampler, from data to noise; give the scheduler that samples, "
    "DPMSolverMultistepScheduler.from_config(scheduler.config)",
    "PiflowScheduler": "takes a policy of many velocities from the network, not one clean image",
    "RFD4ProteinaScheduler": "moves a backbone and latents together, each with a time of its own",
    "KarrasVeScheduler": "gives the network (x + 1) / 2 and sigma / 2: use from_edm around them",
    "ScoreSdeVpScheduler": "says nothing of its network's time: use from_prediction(network, 'epsilon', co.VP())",
    "ConsistencyDecoderScheduler": "belongs to an autoencoder's decoder",
}  # fmt: skip
