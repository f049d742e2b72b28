"""A denoiser D(x, sigma) under a scheduler of diffusers: the pipeline's loop in the scheduler's own coordinates."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ..schedulers.noise_table import NoiseTable
from ..schedulers.scheduler_reading import class_names, is_flow, noise_levels, setting

__all__ = ["run_scheduler"]

Denoise = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def run_scheduler(scheduler: Any, denoiser: Denoise, x: torch.Tensor, **step_options: Any) -> torch.Tensor:
    """What the scheduler makes of states `x` at its first node, after its set_timesteps.

    The network of a pipeline is played by `denoiser`: its input is scaled and its output turned into the
    prediction that the scheduler expects (noise, v, data, flow velocity z - x0, EDM's raw output), all at the
    scheduler's own noise level: of its `sigmas`, or where it has none of its timesteps.

    Args:
        scheduler: a diffusers scheduler after set_timesteps.
        denoiser: (x, sigma) -> x0 with x = (data + sigma z), sigma of shape (N,).
        x: (N, *shape) states x_t / s_t at the first node.
        step_options: passed to scheduler.step, such as generator or eta.

    Returns:
        (N, *shape): the last state over its scale s.

    Raises:
        ValueError: a prediction type that is not known here.
    """
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)
    table = NoiseTable.of(scheduler)
    scaled = any(name.startswith(("Euler", "Heun", "EDM")) for name in class_names(scheduler))
    state = x if scaled else _scale(scheduler, _level(scheduler, table, 0)) * x
    for i, t in enumerate(scheduler.timesteps):
        sigma = _level(scheduler, table, i)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # numpy's, of diffusers' own array conversions
            given = scheduler.scale_model_input(state, t) if scaled else state
            clean_input = state if scaled else state / _scale(scheduler, sigma)
            _check_input(given, clean_input, scheduler, sigma)
            level = torch.full((x.shape[0],), sigma, dtype=x.dtype, device=x.device)
            out = _prediction(scheduler, denoiser(clean_input.to(x.dtype), level), clean_input, sigma)
            state = scheduler.step(out, t, state, return_dict=False, **step_options)[0]
    return state if scaled else state / _scale(scheduler, float(noise_levels(scheduler)[-1]))


def _level(scheduler: Any, table: NoiseTable | None, step: int) -> float:
    """sigma of the network's call number `step`."""
    sigmas = getattr(scheduler, "sigmas", None)
    if sigmas is None and table is not None:
        return float(table.sigmas[int(scheduler.timesteps[step])])
    listed = float(scheduler.sigmas[step])
    return listed / (1.0 - listed) if is_flow(scheduler) else listed


def _scale(scheduler: Any, sigma: float) -> float:
    """s of the scheduler's state x_t = s (x0 + sigma z)."""
    return 1.0 / (1.0 + sigma) if is_flow(scheduler) else float((1.0 + sigma**2) ** -0.5)


def _check_input(given: torch.Tensor, x: torch.Tensor, scheduler: Any, sigma: float) -> None:
    """The scheduler's scaled input must be what a network trained with its table expects."""
    data = setting(scheduler, "sigma_data")
    wanted = x * _scale(scheduler, sigma) if data is None else x / float(np.hypot(sigma, data))
    if not torch.allclose(given.to(wanted.dtype), wanted, rtol=1e-4, atol=1e-5):
        raise ValueError(f"{type(scheduler).__name__} scales its input at sigma {sigma:.4g} in a way not known here.")


def _prediction(scheduler: Any, clean: torch.Tensor, x: torch.Tensor, sigma: float) -> torch.Tensor:
    """The network's output whose estimate of the data is `clean`."""
    noise = (x - clean) / sigma
    if is_flow(scheduler):
        return noise - clean
    kind, data = setting(scheduler, "prediction_type"), setting(scheduler, "sigma_data")
    if data is not None:  # EDM: clean = c_skip x + c_out F
        spread = sigma**2 + data**2
        sign = -1.0 if kind == "v_prediction" else 1.0
        return sign * (clean - data**2 / spread * x) * spread**0.5 / (sigma * data)
    if kind == "epsilon":
        return noise
    if kind == "v_prediction":
        return _scale(scheduler, sigma) * (noise - sigma * clean)
    if kind == "sample":
        return clean
    raise ValueError(f"{type(scheduler).__name__}.prediction_type is {kind!r}; epsilon, v_prediction or sample.")
