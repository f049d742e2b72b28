"""LinearMultistepScheduler: a multistep sampler of given levels and coefficients, for pipelines of diffusers.

The file needs torch and diffusers alone. `save_pretrained` writes it beside scheduler_config.json, so that a saved
pipeline loads without the package that made it: DiffusionPipeline.from_pretrained(folder, trust_remote_code=True).
"""

from __future__ import annotations

import math
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_utils import SchedulerMixin, SchedulerOutput

_MODULE = "linear_multistep_scheduler"
# model_index.json names the module of a scheduler's class, and diffusers looks for that file beside the settings
sys.modules.setdefault(_MODULE, sys.modules[__name__])

_PREDICTIONS = {
    "table": ("epsilon", "v_prediction", "sample"),
    "flow": ("flow_prediction", "epsilon", "sample"),
    "edm": ("epsilon", "v_prediction"),
}


class LinearMultistepScheduler(SchedulerMixin, ConfigMixin):
    """x_{k+1} - m = a_k (x_k - m) + sum_j c_kj (D_{k-j} - m), x the state over its scale and D the clean data.

    A pipeline's state is s x: s = 1/sqrt(1 + sigma^2), whose variance is kept; 1/(1 + sigma) for flows; 1 under EDM's
    preconditioning, whose input is divided by sqrt(sigma^2 + sigma_data^2). After the last step it is x itself.

    Args:
        levels: K+1 descending noise levels sigma, the last may be 0.
        a: K weights of the states.
        c: K rows of weights of the outputs D_k, D_{k-1}, ...
        timesteps: K times that the network is told at the levels.
        mean: m, the data's mean, a number or nested lists; it cancels where a row's weights sum to one.
        prediction_type: "epsilon", "v_prediction", "sample" or "flow_prediction".
        use_flow_sigmas: whether the network is a flow's.
        sigma_data: of EDM's preconditioning; None for others.
        num_train_timesteps: timesteps that the network was trained on; pipelines ask for it.

    Raises:
        ValueError: a prediction that such a network does not make, lists whose lengths do not match.
    """

    __module__ = _MODULE
    order = 1

    @register_to_config
    def __init__(
        self,
        levels: list[float] | None = None,
        a: list[float] | None = None,
        c: list[list[float]] | None = None,
        timesteps: list[float] | None = None,
        mean: Any = 0.0,
        prediction_type: str = "epsilon",
        use_flow_sigmas: bool = False,
        sigma_data: float | None = None,
        num_train_timesteps: int = 1000,
    ) -> None:
        steps = len(levels or []) - 1
        given = {"a": a, "c": c, "timesteps": timesteps}
        wrong = [f"{len(value or [])} entries in {name}" for name, value in given.items() if len(value or []) != steps]
        if steps < 1:
            raise ValueError("LinearMultistepScheduler has no levels; it is made by the export of a fitted solver.")
        if wrong:
            raise ValueError(f"{steps + 1} levels make {steps} steps, but there are {', '.join(wrong)}.")
        self._kind = "flow" if use_flow_sigmas else "table" if sigma_data is None else "edm"
        if prediction_type not in _PREDICTIONS[self._kind]:
            known = ", ".join(_PREDICTIONS[self._kind])
            raise ValueError(f"prediction_type is {prediction_type!r}; a network of this kind predicts one of {known}.")
        self.timesteps = torch.tensor(timesteps, dtype=torch.float32)
        shown = [level / (1 + level) if use_flow_sigmas else level for level in levels or []]
        self.sigmas = torch.tensor(shown, dtype=torch.float32)  # what pipelines call so
        self.init_noise_sigma = self._scale(0) * float((levels or [0.0])[0])
        self.num_inference_steps: int | None = None
        self._begin_index: int | None = None
        self._start()

    def _start(self) -> None:
        self._step_index: int | None = None
        self._outputs: list[torch.Tensor] = []  # of the denoiser, the latest first

    @property
    def step_index(self) -> int | None:
        """Number of the next step, once one was taken."""
        return self._step_index

    @property
    def begin_index(self) -> int | None:
        """Number of the first step."""
        return self._begin_index

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Say which step is the first, as pipelines do."""
        self._begin_index = begin_index

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: Any = None,
        timesteps: Any = None,
        sigmas: Any = None,
        mu: float | None = None,
    ) -> None:
        """Make ready for a run: its steps are its own, and lists and shifts that a pipeline computes are passed over.

        Raises:
            ValueError: another number of steps is asked for.
        """
        own = len(self.config.a)
        asked = next((len(given) for given in (timesteps, sigmas) if given is not None), num_inference_steps)
        if asked not in (None, own):
            raise ValueError(
                f"LinearMultistepScheduler has {own} steps, and {asked} are asked for; call the pipeline with "
                f"num_inference_steps={own}."
            )
        self.timesteps = torch.tensor(self.config.timesteps, dtype=torch.float32, device=device)
        self.num_inference_steps = own
        self._begin_index = None
        self._start()

    def scale_model_input(self, sample: torch.Tensor, timestep: Any = None) -> torch.Tensor:
        """What the network is given: the state itself, but for EDM's preconditioning."""
        if self._kind != "edm":
            return sample
        return sample / math.hypot(self.config.levels[self._index(timestep)], self.config.sigma_data)

    def step(
        self, model_output: torch.Tensor, timestep: Any, sample: torch.Tensor, return_dict: bool = True, **unused: Any
    ) -> SchedulerOutput | tuple[torch.Tensor]:
        """The state at the next level, from the network's output at this one.

        Raises:
            ValueError: a timestep that is none of its own, or a run that begins in the middle, where the outputs that
                its coefficients use are missing.
        """
        k = self._index(timestep)
        wide = torch.promote_types(sample.dtype, torch.float32)
        x = sample.to(wide) / self._scale(k)
        if model_output.ndim > 1 and model_output.shape[1] == 2 * sample.shape[1]:
            model_output = model_output[:, : sample.shape[1]]  # the other half is a learned variance
        self._outputs.insert(0, self._clean(model_output.to(wide), x, k))
        row = self.config.c[k]
        needed = max((j for j, weight in enumerate(row) if weight), default=0)
        if needed >= len(self._outputs):
            raise ValueError(
                f"step {k} uses the outputs of {needed} steps before it, and {len(self._outputs) - 1} were taken: a "
                "fitted solver starts at its first level (strength=1)."
            )
        moved = self.config.a[k] * x
        for weight, output in zip(row, self._outputs, strict=False):
            moved = moved + weight * output
        rest = 1 - self.config.a[k] - math.fsum(row)
        if abs(rest) > 1e-12:
            moved = moved + rest * torch.as_tensor(self.config.mean, dtype=wide, device=x.device)
        self._outputs = self._outputs[: len(row) - 1]
        self._step_index = k + 1
        state = (moved * self._scale(k + 1)).to(sample.dtype)
        return SchedulerOutput(prev_sample=state) if return_dict else (state,)

    def add_noise(self, original_samples: torch.Tensor, noise: torch.Tensor, timesteps: Any) -> torch.Tensor:
        """s (data + sigma noise) at timesteps of its own, one for each state."""
        places = [self._of_timestep(float(t)) for t in torch.as_tensor(timesteps).reshape(-1)]
        shape = (-1, *[1] * (original_samples.ndim - 1))
        scale = original_samples.new_tensor([self._scale(k) for k in places]).reshape(shape)
        level = original_samples.new_tensor([self.config.levels[k] for k in places]).reshape(shape)
        return scale * (original_samples + level * noise)

    def scale_noise(self, sample: torch.Tensor, timestep: Any, noise: torch.Tensor) -> torch.Tensor:
        """`add_noise` as pipelines of flows call it."""
        return self.add_noise(sample, noise, timestep)

    def save_pretrained(self, save_directory: Any, push_to_hub: bool = False, **kwargs: Any) -> None:
        """Write scheduler_config.json, and this file beside it."""
        super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)
        target = Path(save_directory) / f"{_MODULE}.py"
        if not target.exists() or not target.samefile(__file__):
            shutil.copyfile(__file__, target)

    def __len__(self) -> int:
        return int(self.config.num_train_timesteps)

    def _scale(self, k: int) -> float:
        """s of the state at a level; 1 at the end, where it is given away as it is."""
        level = self.config.levels[k]
        if self._kind == "edm" or k == len(self.config.a):
            return 1.0
        return 1 / (1 + level) if self._kind == "flow" else 1 / math.hypot(1.0, level)

    def _clean(self, output: torch.Tensor, x: torch.Tensor, k: int) -> torch.Tensor:
        """The clean data that the network's output stands for."""
        level, said = self.config.levels[k], self.config.prediction_type
        if self._kind == "edm":  # Karras et al. 2022, table 1; diffusers gives v the opposite sign
            data = self.config.sigma_data
            share, sign = data / math.hypot(level, data), -1 if said == "v_prediction" else 1
            return share**2 * x + sign * level * share * output
        if said == "sample":
            return output
        if said == "epsilon":
            return x - level * output
        scale = self._scale(k)
        if said == "flow_prediction":  # the velocity noise - data
            return scale * (x - level * output)
        return scale**2 * x - scale * level * output

    def _index(self, timestep: Any) -> int:
        """Which step comes: that after the last one, else the first of the run, else that of the timestep."""
        if self._step_index is not None:
            return self._step_index
        if self._begin_index is not None:
            return self._begin_index
        return self._of_timestep(float(timestep))

    def _of_timestep(self, timestep: float) -> int:
        own = self.config.timesteps
        k = min(range(len(own)), key=lambda i: abs(own[i] - timestep))
        if abs(own[k] - timestep) > 1e-5 * max(1.0, abs(own[k])):
            told = ", ".join(f"{t:g}" for t in own)
            raise ValueError(f"timestep {timestep:g} is none of its own, which are {told}.")
        return k
