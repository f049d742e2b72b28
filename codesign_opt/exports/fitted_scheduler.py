"""A fitted solver as a scheduler of diffusers: its numbers, and what a network is told at its levels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..basics.checks import Array, shown
from ..schedulers.noise_table import NoiseTable, flow_time
from ..schedulers.scheduler_reading import class_names, is_flow, is_scheduler, setting
from .scheduler_settings import refuse_flow_table
from .scheduler_trials import inside_range, released
from .targets import PlannedLevels

if TYPE_CHECKING:
    from .standalone.linear_multistep_scheduler import LinearMultistepScheduler

__all__ = ["fitted_scheduler"]

# Classes whose own levels between two timesteps are those of sigma, not of log sigma.
_LINEAR = (
    "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler", "KDPM2DiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler", "LMSDiscreteScheduler", "DPMSolverSDEScheduler",
)  # fmt: skip
_FORMULAS = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")
_EDM = ("EDMEulerScheduler", "EDMDPMSolverMultistepScheduler")
# Classes whose networks are told other times, or answer otherwise, than a table or a flow would have it.
_OTHER_TIMES = ("LCMScheduler", "MiniMaxH3Scheduler", "SCMScheduler", "CosineDPMSolverMultistepScheduler")


def fitted_scheduler(levels: PlannedLevels, scheduler: Any, outside: bool = False) -> LinearMultistepScheduler:
    """A scheduler that takes the steps of a fitted solver, for the network that `scheduler` belongs to.

    The network is told fractional timesteps between those that it was trained on, as `from_diffusers` tells it, or flow
    times, or log(sigma) / 4 under EDM's preconditioning. Nothing of the given scheduler's own steps is kept.

    Args:
        levels: the solver's levels and its record.
        scheduler: the scheduler that the network came with.
        outside: keep levels beyond those that the network was trained on; it is told the ends of its times there.

    Raises:
        ValueError: no scheduler, one whose network's times are not known here, levels outside the network's range.
    """
    if isinstance(scheduler, type) or not is_scheduler(scheduler):
        raise ValueError(
            f"export: scheduler is {shown(scheduler)}; give the diffusers scheduler object that the network came with."
        )
    from .standalone.linear_multistep_scheduler import LinearMultistepScheduler

    if "LinearMultistepScheduler" in class_names(scheduler):
        raise ValueError(
            "export: scheduler is a LinearMultistepScheduler, which knows the times of its own levels alone; give the "
            "scheduler that the network came with."
        )
    scheduler = released(scheduler)
    if not outside:
        inside_range(levels.sigmas, scheduler, clip=False)
    solver = levels.sampler
    found = {"use_flow_sigmas": False, "sigma_data": None, **_network(levels.sigmas[:-1], scheduler)}
    coefficients = {"levels": list(solver["levels"]), "a": list(solver["a"]), "c": [list(row) for row in solver["c"]]}
    trained = int(setting(scheduler, "num_train_timesteps", 1000))
    # the rest of the settings stays beside its own: from_config of another class finds the network's table again
    made: LinearMultistepScheduler = LinearMultistepScheduler.from_config(
        scheduler.config, **coefficients, mean=solver["mean"], num_train_timesteps=trained, **found
    )
    return made


def _network(sigma: Array, scheduler: Any) -> Mapping[str, Any]:
    """What the network is told at (K,) noise levels, and what its answers are."""
    names = class_names(scheduler)
    other = next((name for name in names if name in _OTHER_TIMES), None)
    if other or setting(scheduler, "invert_sigmas", False) or int(setting(scheduler, "stages", 1)) > 1:
        raise ValueError(
            f"export: networks of {type(scheduler).__name__} are told times, or give answers, that a fitted solver's "
            'scheduler does not know; export to "python" and call the network yourself.'
        )
    said = setting(scheduler, "prediction_type")
    if is_flow(scheduler):
        told = flow_time(sigma) * float(setting(scheduler, "num_train_timesteps", 1000))
        return {"timesteps": told.tolist(), "use_flow_sigmas": True, "prediction_type": said or "flow_prediction"}
    refuse_flow_table(scheduler)
    if any(name in _EDM for name in names):
        told = {"timesteps": (np.log(sigma) / 4).tolist(), "sigma_data": float(setting(scheduler, "sigma_data"))}
        return {**told, "prediction_type": said or "epsilon"}
    table = NoiseTable.of(scheduler)
    if table is None:
        raise ValueError(
            f"export: {type(scheduler).__name__} has no alphas_cumprod: its network's times are not known."
        )
    said = "sample" if said == "original_sample" else said or "epsilon"
    if setting(scheduler, "timestep_type") == "continuous" and said == "v_prediction":
        return {"timesteps": (np.log(sigma) / 4).tolist(), "prediction_type": said}
    linear = any(name in _LINEAR for name in names) and not any(setting(scheduler, word, False) for word in _FORMULAS)
    return {"timesteps": table.timestep(sigma, "linear" if linear else "log").tolist(), "prediction_type": said}
