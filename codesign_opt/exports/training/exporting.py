"""export_training: a training density in the settings of a trainer, and what that form costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...basics.wording import percent
from ...ingredients.densities import SigmaDensity
from ..schedule_files import write_text
from . import (  # noqa: F401  they enter their targets
    diffusers_scripts,
    diffusion_pipe,
    edm,
    k_diffusion,
    kohya,
    one_trainer,
    simple_tuner,
    tables,
)
from .targets import TRAINING_TARGETS

__all__ = ["TrainingExport", "export_training"]

_UNTRAINED, _NO_BOUND = 10.0, 1e12  # losses that tell of levels without examples


@dataclass(frozen=True, eq=False)
class TrainingExport:
    """A training density in a trainer's settings.

    Attributes:
        target: the trainer.
        settings: by the trainer's names.
        text: as they are typed.
        density: what the trainer draws with them, by its own law; `TrainingRun(density=...)` takes it.
        loss: relative excess of the score error over that of the exported density at the same price: of a plan by its
            certified program (examples outside its levels are paid for and count for nothing), of another density by
            `SigmaDensity.loss_of`, were it the best for its errors. Infinite where levels that count get no examples.
        distance: largest difference between the two shares of examples below a noise level (Kolmogorov's).
        planned: whether the density was a plan's.
        notes: what a reader should know.
    """

    target: str
    settings: Mapping[str, Any]
    text: str
    density: SigmaDensity
    loss: float
    distance: float
    planned: bool
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        shown = self.text if len(self.text) < 2_000 else self.text[:200] + " …"
        whose = "the plan's score error" if self.planned else "the error that this density is the best for"
        # what another form costs is known to the accuracy of the search, which is finer than a millionth
        cost = "nothing" if abs(self.loss) < 1e-6 else percent(self.loss)
        notes = list(self.notes)
        if self.loss > _UNTRAINED:
            cost = "more than all" if np.isinf(self.loss) else f"{self.loss:.3g} times as much"
            notes.insert(0, "noise levels stay untrained that the density counts on: plan for the range of the network")
        lines = [shown, f"costs {cost} of {whose}; shares of examples differ by at most {percent(self.distance)}"]
        return "\n".join([*lines, *notes])


def export_training(density: Any, target: str, *, path: str | Path | None = None, **options: Any) -> TrainingExport:
    """A plan's training density, or any other, in the settings of a trainer; `read_training` is the way back.

        edm, edm2         P_mean, P_std
        k-diffusion       sigma_sample_density; form: "split-lognormal" or "lognormal"
        sd-scripts        --timestep_sampling shift …; model: "flow", "sd3" or "sdxl"
        musubi-tuner      --timestep_sampling shift …; sampling: "shift" or "logsnr"
        diffusion-pipe    timestep_sample_method, sigmoid_scale, shift
        simpletuner       flow_sigmoid_scale, flow_schedule_shift; exact=True: flow_custom_timesteps
        onetrainer        LOGIT_NORMAL, noising_bias, noising_weight
        diffusers         --weighting_scheme logit_normal …; shift: that of the scheduler
        diffusers-sdxl    --timestep_bias_…; table
        timesteps         probability of every timestep of a table; table
        json, csv         exact quantiles; count

    Where to train is said; the loss weight of the trainer stays as it is.

    Args:
        density: a Plan (its new examples) or a SigmaDensity.
        target: one of the above, or a name of one's own (`add_training_target`).
        path: file to write the text to as well.
        options: those of the target.

    Raises:
        ValueError: an unknown target, options of another, a plan that trains nothing or whose log-normal is a spike.

    >>> from codesign_opt import LogNormal
    >>> print(export_training(LogNormal(-0.4, 1.0), "diffusers", shift=3.0).text)
    --weighting_scheme logit_normal --logit_mean 1.49861 --logit_std 1.0
    """
    wanted = TRAINING_TARGETS.find(target)
    planned = hasattr(density, "training_density")
    given = density.training_density if planned else density
    if not isinstance(given, SigmaDensity):
        raise ValueError(f"export_training: density is {type(given).__name__}; a Plan or a SigmaDensity is needed.")
    _check_options(wanted.name, wanted.options, options)
    given.quantile(np.array([0.5]))  # a plan that trains nothing says so
    written = wanted.write(given, **options)
    if path is not None:
        write_text(path, written.text)
    loss, distance = given.loss_of(written.density), given.distance(written.density)
    loss = loss if loss < _NO_BOUND else np.inf  # a level with the smallest number of examples that float64 has
    notes = written.notes + (_range_note(given) if planned else ())
    return TrainingExport(wanted.name, written.settings, written.text, written.density, loss, distance, planned, notes)


def _check_options(name: str, known: tuple[str, ...], options: Mapping[str, Any]) -> None:
    for option in options:
        if option not in known:
            takes = f"it takes {', '.join(known)}" if known else "it takes no options"
            raise ValueError(f"export_training.{option} has no meaning for the target {name!r} ({takes}).")


def _range_note(density: SigmaDensity) -> tuple[str, ...]:
    low, high = density.quantile(np.array([0.0, 1.0]))
    return (
        f"the plan trains nothing outside sigma {low:.3g} to {high:.3g}: for another number of steps later, export "
        "plan.training_density.with_floor(0.05, sigma_min, sigma_max)",
    )
