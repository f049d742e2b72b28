"""Adapters: networks that predict noise, velocity or score, in their own time, as denoisers D(x, sigma).

The library works in the rescaled state x / s and sigma = sigma_t / s_t, where every process is the
same path (docs/theory.md section 1). An adapter scales the state, finds the network's time, and turns
its prediction into an estimate of the clean data. All are differentiable in the state and in sigma.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ...basics.checks import choice, number, numbers, shown, takes
from ...basics.user_code import told_in
from ...ingredients.process import FlowMatching, Process
from ..draws.precision import asked
from .denoiser import Denoise, Denoiser, Guidance
from .reading import PREDICTIONS, Reading, clean, wide

__all__ = ["from_edm", "from_prediction", "guided"]

Network = Callable[..., torch.Tensor]


def from_edm(network: Network, **condition: Any) -> Denoiser:
    """A network that is D(x, sigma) already, such as EDM's with its preconditioning; keywords are passed on.

    >>> from_edm(lambda x, sigma, label: x * label, label=0.5)(torch.ones(1, 2), 1.0).tolist()
    [[0.5, 0.5]]
    """

    def denoise(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return asked(network, x, sigma, **condition)

    result = Denoiser(denoise, name=_name(network))
    result.reading = Reading(denoise)
    return result


@takes(time=callable, process=Process)
def from_prediction(
    network: Network,
    prediction: str,
    process: Process,
    *,
    time: Callable[[torch.Tensor], torch.Tensor] | None = None,
    **condition: Any,
) -> Denoiser:
    """A network(x_t, t) that predicts `prediction`, trained along `process`.

    With the state x_t = s x0 + sigma_t z, s and sigma_t = s sigma at time t:

        x0       the clean data itself
        epsilon  the noise z:                 x0 = x_t / s - sigma z
        v        s z - sigma_t x0 with s^2 + sigma_t^2 = 1:  x0 = s x_t - sigma_t v
        score    gradient of log p_t(x_t):    x0 = (x_t + sigma_t^2 score) / s
        flow     velocity z - x0, s = 1 - t:  x0 = x_t - t u

    Args:
        network: takes (N, *shape) states x_t and (N,) times, gives the prediction; keywords are passed on.
        prediction: "x0", "epsilon", "v", "score" or "flow".
        process: gives the scale s(t) and the time of a noise level.
        time: from the process's time to what the network takes, such as lambda t: 1000 * t.

    Raises:
        ValueError: an unknown prediction; "v" for a process that is not variance-preserving; "flow" for
            another process than flow matching.

    >>> from codesign_opt import FlowMatching
    >>> flow = from_prediction(lambda x, t: torch.zeros_like(x), "flow", FlowMatching())
    >>> flow(torch.full((1, 2), 3.0), 2.0).round(decimals=4).tolist()  # x_t = s x with s = 1/3
    [[1.0, 1.0]]
    """
    choice(prediction, "from_prediction.prediction", PREDICTIONS)
    told = time

    def time_of(t: torch.Tensor) -> torch.Tensor:
        if told is None:
            return t
        with told_in("time(t)"):
            moved = told(t)
        if not torch.is_tensor(moved):
            raise ValueError(f"from_prediction: time(t) returned {shown(moved)}; a tensor is needed.")
        return moved

    _check_process(prediction, process)

    def predict(state: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return asked(network, state, t, **condition)

    def denoise(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        t = _Time.apply(sigma, process)
        s = _scale(process, sigma, t, x)
        return clean(prediction, predict(s * x, time_of(t).to(x.dtype)), x, wide(sigma, x), s)

    result = Denoiser(denoise, name=_name(network))
    result.sigma_range = (process.sigma_min, process.sigma_max)
    result.reading = _reading(predict, prediction, process, time_of)
    return result


def _reading(predict: Network, prediction: str, process: Process, time: Network) -> Reading:
    """What `from_prediction` was told, for readings that change one thing; levels outside are those of the ends."""

    def inside(sigma: torch.Tensor) -> Any:
        return np.asarray(process.time(np.clip(sigma.cpu().numpy(), process.sigma_min, process.sigma_max)))

    def told(sigma: torch.Tensor) -> torch.Tensor:
        t = torch.as_tensor(inside(sigma)).to(sigma.device)
        return time(t).to(torch.float64)

    def scale(sigma: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(np.asarray(process.scale(inside(sigma)))).to(sigma.device)

    return Reading(predict, prediction, told, scale, top_of(told, process.sigma_min, process.sigma_max))


def top_of(told: Callable[[torch.Tensor], torch.Tensor], lowest: float, highest: float) -> float | None:
    """1 or 1000 where the time at one end of the levels is within 5 % of it, else None.

    >>> top_of(lambda sigma: 1000 * sigma / (1 + sigma), 0.002, 82.0)
    1000.0
    """
    last = float(told(torch.tensor([lowest, highest], dtype=torch.float64)).max())  # the lowest where time runs back
    return next((top for top in (1.0, 1000.0) if abs(last - top) < 0.05 * top), None)


def _check_process(prediction: str, process: Process) -> None:
    middle = 0.5 * (process.t_min + process.t_max)
    kept = float(process.scale(middle)) ** 2 * (1 + float(process.sigma(middle)) ** 2)
    if prediction == "v" and abs(kept - 1) > 1e-6:
        raise ValueError(
            f"prediction 'v' needs a variance-preserving process (s^2 + sigma_t^2 = 1), but {process!r} has "
            f"{kept:.4g} at t = {middle:g}; use co.VP, co.Cosine or the network's own table with from_diffusers."
        )
    if prediction == "flow" and not isinstance(process, FlowMatching):
        raise ValueError(f"prediction 'flow' needs co.FlowMatching(...), not {process!r}.")


class _Time(torch.autograd.Function):
    """t(sigma) of a process, with its derivative 1 / (d sigma / d t)."""

    @staticmethod
    def forward(ctx: Any, sigma: torch.Tensor, process: Process) -> torch.Tensor:
        levels = sigma.detach().to("cpu", torch.float64).numpy()
        inside = np.clip(levels, process.sigma_min, process.sigma_max)
        if np.any(np.abs(inside - levels) > 1e-5 * levels):
            bad = float(levels[np.abs(inside - levels) > 1e-5 * levels][0])
            raise ValueError(
                f"sigma = {bad:.4g} lies outside the range {process.sigma_min:.4g} to {process.sigma_max:.4g} that "
                "the network was trained on; plan with that process."
            )
        t = np.asarray(process.time(inside))
        slope = torch.as_tensor(1.0 / np.asarray(process.dsigma_dt(t)))
        ctx.save_for_backward(slope.to(sigma.device, sigma.dtype))
        return torch.as_tensor(t).to(sigma.device, torch.float64)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        (slope,) = ctx.saved_tensors
        return gradients[0].to(slope.dtype) * slope, None


def _scale(process: Process, sigma: torch.Tensor, t: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """s at every image: by its formula in sigma where there is one, so that it is differentiable."""
    if isinstance(process, FlowMatching):
        s = 1 / (1 + sigma)
    else:
        values = np.asarray(process.scale(t.detach().cpu().numpy()))
        if np.allclose(values, 1.0, atol=1e-12):
            s = torch.ones_like(sigma)
        else:  # variance-preserving
            s = (1 + sigma**2) ** -0.5
            if not np.allclose(values, s.detach().cpu().numpy(), rtol=1e-4):
                s = torch.as_tensor(values).to(sigma.device, sigma.dtype)
    return wide(s, x)


def guided(
    conditional: Denoise,
    unconditional: Denoise,
    weight: float,
    *,
    interval: tuple[float, float] | None = None,
) -> Denoiser:
    """Classifier-free guidance D = D_u + weight (D_c - D_u), inside an interval of noise levels D_c outside.

    Every call inside the interval counts two evaluations per image: state that in
    co.Prices(evaluation=lambda sigma: 1.0 + (inside the interval)).

    Args:
        conditional, unconditional: denoisers; the unconditional one may be a worse network (autoguidance).
        weight: 1 is the conditional denoiser.
        interval: (low, high) in sigma, None for everywhere.

    Raises:
        ValueError: a weight that is not finite, an interval that is not ascending.

    >>> half = guided(lambda x, s: x, lambda x, s: 0 * x, 1.5, interval=(0.1, 1.0))
    >>> half(torch.ones(2, 1), torch.tensor([0.5, 2.0])).flatten().tolist(), half.evaluations
    ([1.5, 1.0], 3)
    """
    strength = number(weight, "guided.weight")
    ends = np.array([0.0, np.inf]) if interval is None else numbers(interval, "guided.interval")
    if ends.shape != (2,):
        raise ValueError(f"guided.interval is {shown(interval)}; (low, high) in sigma is needed.")
    low, high = ends.tolist()
    if not 0 <= low < high:
        raise ValueError(f"guided.interval is ({low}, {high}); it must be ascending and nonnegative.")
    given, plain = Denoiser.of(conditional), Denoiser.of(unconditional)

    def mix(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        clean = given(x, sigma)
        inside = (sigma >= low) & (sigma <= high)
        if not bool(inside.any()):
            return clean
        rows = inside.nonzero().flatten()
        extra = plain(x[rows], sigma[rows])
        result.evaluations += int(extra.shape[0])
        return clean.index_copy(0, rows, extra + strength * (clean[rows] - extra))

    result = Denoiser(mix, name=f"guided({given.name}, {strength:g})")
    result.parts, result.conditions = (given, plain), given.conditions
    result.guidance = Guidance((given, plain), strength, (float(low), float(high)))
    ranges = [one.sigma_range for one in (given, plain) if one.sigma_range is not None]
    if ranges:
        result.sigma_range = (max(low for low, _ in ranges), min(high for _, high in ranges))
    return result


def _name(network: Any) -> str:
    return getattr(network, "__name__", type(network).__name__)
