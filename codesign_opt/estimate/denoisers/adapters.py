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

from ...basics.checks import choice, number
from ...ingredients.process import FlowMatching, Process
from .denoiser import Denoiser
from .reading import PREDICTIONS, Reading, clean, wide

__all__ = ["from_diffusers", "from_edm", "from_prediction", "guided"]

Network = Callable[..., torch.Tensor]


def from_edm(network: Network, **condition: Any) -> Denoiser:
    """A network that is D(x, sigma) already, such as EDM's with its preconditioning; keywords are passed on.

    >>> from_edm(lambda x, sigma, label: x * label, label=0.5)(torch.ones(1, 2), 1.0).tolist()
    [[0.5, 0.5]]
    """

    def denoise(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return network(x, sigma, **condition)

    result = Denoiser(denoise, name=_name(network))
    result.reading = Reading(denoise)
    return result


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
    if not isinstance(process, Process):
        raise ValueError(f"from_prediction.process is {process!r}; a Process is needed, such as co.VP().")
    _check_process(prediction, process)

    def predict(state: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return network(state, t, **condition)

    def denoise(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        t = _Time.apply(sigma, process)
        s = _scale(process, sigma, t, x)
        moved = t.to(x.dtype) if time is None else time(t).to(x.dtype)
        return clean(prediction, predict(s * x, moved), x, wide(sigma, x), s)

    result = Denoiser(denoise, name=_name(network))
    result.sigma_range = (process.sigma_min, process.sigma_max)
    result.reading = _reading(predict, prediction, process, time)
    return result


def _reading(predict: Network, prediction: str, process: Process, time: Network | None) -> Reading:
    """What `from_prediction` was told, for readings that change one thing; levels outside are those of the ends."""

    def inside(sigma: torch.Tensor) -> Any:
        return np.asarray(process.time(np.clip(sigma.cpu().numpy(), process.sigma_min, process.sigma_max)))

    def told(sigma: torch.Tensor) -> torch.Tensor:
        t = torch.as_tensor(inside(sigma)).to(sigma.device)
        return t if time is None else time(t).to(torch.float64)

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
    conditional: Denoiser | Any,
    unconditional: Denoiser | Any,
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
    low, high = (0.0, np.inf) if interval is None else interval
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
    result.parts = (given, plain)
    ranges = [one.sigma_range for one in (given, plain) if one.sigma_range is not None]
    if ranges:
        result.sigma_range = (max(low for low, _ in ranges), min(high for _, high in ranges))
    return result


def from_diffusers(model: Any, scheduler: Any, **condition: Any) -> Denoiser:
    """A diffusers UNet or Transformer with the scheduler it was trained for, as a denoiser.

    Noise levels come from the scheduler's table (alphas_cumprod), interpolated in log sigma to a
    fractional timestep; flow-matching schedulers use t = sigma / (1 + sigma) directly. The prediction
    type is the scheduler's; keywords (encoder_hidden_states, class_labels, …) are passed on, given for
    one image or for the whole batch.

    Args:
        model: called as model(x_t, timestep, **condition), with a `.sample` or a tuple as its result.
        scheduler: a diffusers scheduler with alphas_cumprod, or a flow-matching one.

    Returns:
        Denoiser whose `sigma_range` is the range of noise levels in the scheduler's table.

    Raises:
        ValueError: a scheduler with neither, or with an unknown prediction type.
    """
    config = scheduler.config
    steps = float(config.num_train_timesteps)
    if getattr(scheduler, "alphas_cumprod", None) is None:
        if "FlowMatch" not in type(scheduler).__name__:
            raise ValueError(f"{type(scheduler).__name__} has no alphas_cumprod and does not match flows.")
        return _diffusers_flow(model, steps, condition)
    kinds = {"epsilon": "epsilon", "v_prediction": "v", "sample": "x0"}
    said = config.prediction_type
    if said not in kinds:
        raise ValueError(f"{type(scheduler).__name__}.prediction_type is {said!r}; one of {list(kinds)} is needed.")
    kept = scheduler.alphas_cumprod.to("cpu", torch.float64).clamp(min=1e-12)
    table = torch.log((1 - kept) / kept) / 2

    def denoise(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        t = _position(torch.log(sigma.to(torch.float64)), table.to(sigma.device))
        s = wide((1 + sigma**2) ** -0.5, x)
        out = _sample(model(s * x, t.to(x.dtype), **_expanded(condition, x)))
        return clean(kinds[said], out, x, wide(sigma, x), s)

    result = Denoiser(denoise, name=type(model).__name__)
    result.sigma_range = (float(table[0].exp()), float(table[-1].exp()))
    result.reading = Reading(
        _predict(model, condition), kinds[said], lambda sigma: _position(torch.log(sigma), table.to(sigma.device)),
        lambda sigma: (1 + sigma**2) ** -0.5, steps,
    )  # fmt: skip
    return result


def _diffusers_flow(model: Any, steps: float, condition: dict[str, Any]) -> Denoiser:
    def denoise(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        t = sigma / (1 + sigma)
        out = _sample(model(wide(1 - t, x) * x, (steps * t).to(x.dtype), **_expanded(condition, x)))
        return clean("flow", out, x, wide(sigma, x), wide(1 - t, x))

    result = Denoiser(denoise, name=type(model).__name__)
    result.sigma_range = (1.0 / (steps - 1.0), steps - 1.0)
    result.reading = Reading(
        _predict(model, condition), "flow", lambda sigma: steps * sigma / (1 + sigma), lambda sigma: 1 / (1 + sigma),
        steps,
    )  # fmt: skip
    return result


def _predict(model: Any, condition: dict[str, Any]) -> Network:
    def predict(state: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return _sample(model(state, t, **_expanded(condition, state)))

    return predict


def _position(logs: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """Fractional index of log sigma in an ascending table, piecewise linear; ends are kept."""
    high = torch.searchsorted(table, logs.detach().contiguous()).clamp(1, table.numel() - 1)
    left, right = table[high - 1], table[high]
    return (high - 1 + ((logs - left) / (right - left)).clamp(0, 1)).to(torch.float64)


def _sample(out: Any) -> torch.Tensor:
    if torch.is_tensor(out):
        return out
    return out.sample if hasattr(out, "sample") else out[0]


def _expanded(condition: dict[str, Any], x: torch.Tensor) -> dict[str, Any]:
    """Conditions of one image repeated for the batch; those of a batch as they are."""

    def fit(value: Any) -> Any:
        if torch.is_tensor(value) and value.ndim and value.shape[0] == 1 and x.shape[0] != 1:
            return value.expand(x.shape[0], *value.shape[1:])
        return value

    return {name: fit(value) for name, value in condition.items()}


def _name(network: Any) -> str:
    return getattr(network, "__name__", type(network).__name__)
