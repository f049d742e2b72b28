"""from_diffusers(): a network of diffusers with the scheduler it was trained for, as a denoiser D(x, sigma)."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from types import MethodType
from typing import Any

import torch

from ...basics.checks import takes
from ...schedulers.scheduler_reading import class_names, told_alike, told_beyond
from ..draws.precision import full, network_dtype, of_dtype
from .denoiser import Denoiser, DenoiserError
from .model_families import REFUSED, ModelFamily, family_of, own_family
from .reading import PreconditionedReading, Reading
from .scheduler_clock import SchedulerClock, scheduler_clock

__all__ = ["from_diffusers"]

_EXPLICIT = (
    "Wrap it in a function of (x, t) and say what it predicts: from_prediction, from_edm, or family=ModelFamily(…)."
)


# where wrappers that change nothing keep the network
_INSIDE = {
    "OptimizedModule": "_orig_mod", "DataParallel": "module", "DistributedDataParallel": "module",
    "FullyShardedDataParallel": "module", "partial": "func", "method": "__self__",
}  # fmt: skip


@takes(family=ModelFamily)
def from_diffusers(
    model: Any,
    scheduler: Any,
    *,
    family: ModelFamily | None = None,
    beside: torch.Tensor | None = None,
    **condition: Any,
) -> Denoiser:
    """A network of diffusers with the scheduler it was trained for, as a denoiser.

    The scheduler says what the network predicts and what its time means; the network's class says how it is
    told (docs/networks.md: the time by name, t, t / 1000 or 1 - t / 1000, and the sign of its answer). Levels
    between two timesteps of a table go to a fractional timestep, as the scheduler interpolates. Where a network
    answers with a learned variance, the first half of its channels counts, and `notes` say so.

    Args:
        model: a network of diffusers, or one's own, called as model(x_t, t, **condition), whose result is a tensor,
            a tuple or has `.sample`.
        scheduler: a scheduler of diffusers; its number of steps does not matter.
        family: how the network is called, where its class is not known or is used in another way.
        beside: what the pipeline joins to the states: latents of an image along the channels, tokens of an
            image to be edited; for one state or for the whole batch.
        condition: passed on by name, such as encoder_hidden_states, class_labels, guidance; for one state
            (repeated) or for the whole batch, in the network's dtype.

    A scheduler whose set_timesteps was called is looked at, too: `notes`, which plans print, say where it tells the
    network one timestep at several of its levels, or leaves the range of EDM's preconditioning.

    Returns:
        Denoiser whose `sigma_range` is the range of noise levels that the scheduler's times cover.

    Raises:
        ValueError: a class of networks or a scheduler that is not known, by its name and with what to use instead;
            settings that contradict each other; a condition that the network needs and was not given.

    >>> from types import SimpleNamespace
    >>> class FlowMatchEulerDiscreteScheduler(SimpleNamespace): ...  # that of diffusers, where it is installed
    >>> scheduler = FlowMatchEulerDiscreteScheduler(config=SimpleNamespace(num_train_timesteps=1000))
    >>> still = from_diffusers(lambda x, timestep: (0 * x,), scheduler)
    >>> still(torch.full((1, 2), 4.0), 3.0).tolist()  # no velocity: the state x / (1 + sigma) is clean
    [[1.0, 1.0]]
    """
    clock, network = scheduler_clock(scheduler), _unwrapped(model)
    row = _family(network) if family is None else family
    if family is None:
        _check_pair(network, scheduler, clock, row)
    _check_conditions(network, row, condition)
    call = NetworkCall(model, row, condition, beside)
    result = Denoiser(_reading(network, call, clock, row), name=type(network).__name__)
    result.reading = result.function  # type: ignore[assignment]
    result.sigma_range = clock.sigma_range
    result.notes.extend(_of_schedule(scheduler))
    call.notes = result.notes
    return result


def _of_schedule(scheduler: Any) -> list[str]:
    """What a scheduler whose set_timesteps was called tells the network wrongly on its own levels."""
    if getattr(scheduler, "num_inference_steps", None) is None or getattr(scheduler, "timesteps", None) is None:
        return []
    return [note for note in (told_alike(scheduler), told_beyond(scheduler)) if note]


def _reading(model: Any, call: NetworkCall, clock: SchedulerClock, row: ModelFamily) -> Reading:
    """What the network's answers are taken for: the scheduler's clock seen through the family's."""
    factor = 1.0 if clock.unscaled or not row.scaled_by else float(getattr(model.config, row.scaled_by, 1.0))

    def told(sigma: torch.Tensor) -> torch.Tensor:
        t = clock.time(sigma)
        if clock.top is None and row.clock != "timestep":
            return t  # no share of a range: as it is
        return factor * row.told(t, clock.top or 1.0)

    top = None if clock.top is None else 1.0 if row.clock != "timestep" else factor * clock.top
    shared = (call, clock.prediction, told, clock.scale, top)
    sign = row.sign * clock.sign
    if clock.skip is not None and clock.gain is not None:
        return PreconditionedReading(*shared, sign=sign, skip=clock.skip, gain=clock.gain)
    return Reading(*shared, sign=sign)


def _unwrapped(model: Any) -> Any:
    """The network inside what torch.compile, data parallelism, a bound method or a partial make of it."""
    inside = {kind.__name__: _INSIDE[kind.__name__] for kind in type(model).__mro__ if kind.__name__ in _INSIDE}
    if not inside or (isinstance(model, MethodType) and model.__name__ not in ("forward", "__call__")):
        return model
    return _unwrapped(getattr(model, next(iter(inside.values()))))


def _family(model: Any) -> ModelFamily:
    """The row of its class or of its nearest parent that has one."""
    for kind in type(model).__mro__:
        row = family_of(kind.__name__)
        if row is not None:
            return row
        if kind.__name__ in REFUSED:
            raise ValueError(
                f"{type(model).__name__} {REFUSED[kind.__name__]}: it is no denoiser of one state. {_EXPLICIT}"
            )
        if kind.__name__ in ("ModelMixin", "Module"):
            break
        if kind.__module__.startswith("diffusers.") and any(one.__name__ == "ModelMixin" for one in kind.__mro__):
            raise ValueError(
                f"{type(model).__name__} is a class of diffusers that is not known here (docs/networks.md): how it is "
                f"told its time and what it predicts would be a guess. {_EXPLICIT}"
            )
    return own_family(model)


def _check_pair(model: Any, scheduler: Any, clock: SchedulerClock, row: ModelFamily) -> None:
    """Refuses what was not made for each other."""
    network, name = type(model).__name__, type(scheduler).__name__
    if row.known and "MiniMaxH3Scheduler" in class_names(scheduler):
        raise ValueError(f"{name} is that of MiniMaxH3Transformer3DModel, not of {network}. {_EXPLICIT}")
    if row.needs and not set(row.needs) & set(class_names(scheduler)):
        raise ValueError(f"{network} is known with {' or '.join(row.needs)}, not with {name}. {_EXPLICIT}")
    if "SCMScheduler" in class_names(scheduler) and "SanaTransformer2DModel" not in row.classes:
        raise ValueError(f"{name} is known with SanaTransformer2DModel alone, not with {network}. {_EXPLICIT}")
    if clock.top is None and row.clock != "timestep" and not row.sigma_times:
        raise ValueError(
            f"{network} is told a share of a range of times, but {name} tells no share of one. {_EXPLICIT}"
        )
    if row.known and clock.top is not None and row.inverted != clock.inverted:
        back = "backwards" if row.inverted else "forwards"
        raise ValueError(
            f"{network} is told times that run {back}, which {name} with invert_sigmas={not row.inverted} does not "
            f"tell: give FlowMatchEulerDiscreteScheduler(invert_sigmas={row.inverted}, …). {_EXPLICIT}"
        )
    if "PRXTransformer2DModel" in row.classes and model.config.in_channels == 3:
        raise ValueError(
            "PRXTransformer2DModel on pixels (in_channels=3) predicts the clean image, not the scheduler's velocity: "
            "use from_prediction(network, 'x0', co.FlowMatching())."
        )


def _check_conditions(model: Any, row: ModelFamily, condition: dict[str, Any]) -> None:
    """Names what the network needs and was not given."""
    if not row.known:
        return
    parameters = list(inspect.signature(model.forward).parameters.values())[1:]
    given = {row.time, *row.also, *condition}
    missing = [
        p.name for p in parameters if p.default is p.empty and p.name not in given and p.kind == p.POSITIONAL_OR_KEYWORD
    ]
    if getattr(model.config, "guidance_embeds", False) and "guidance" not in condition:
        missing.append("guidance")  # its default None fails deep inside
    if missing:
        raise ValueError(
            f"{type(model).__name__} needs {', '.join(missing)}: pass by name, for one state or for the batch."
        )


@dataclass(eq=False)
class NetworkCall:
    """network(state, time), called as its family is and with its conditions bound.

    Args:
        model: the network.
        row: its family.
        condition: by name.
        beside: joined to the states, or None.
        notes: what a user should know of its answers; filled at the first call.
    """

    model: Any
    row: ModelFamily
    condition: dict[str, Any]
    beside: torch.Tensor | None = None
    notes: list[str] = field(default_factory=list)
    rounded: bool = False  # times in half precision, where the network takes no others

    def __call__(self, state: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Its answer at (N, *shape) states and (N,) times, in the states' shape and dtype."""
        dtype = network_dtype(self.model, state)
        x, count, row = of_dtype(state, dtype), state.shape[0], self.row
        frames = x.shape[row.frame_times] if row.frame_times is not None else 1
        time = t if row.frame_times is None else t[:, None].expand(-1, frames)
        keywords = {name: self._fit(name, value, count, state) for name, value in self.condition.items()}
        given = self._given(x, keywords)
        try:
            out = self._told(given, time.to(dtype) if self.rounded else time, keywords)
        except RuntimeError as error:
            if self.rounded or full(x).dtype == dtype or "dtype" not in str(error):
                raise
            out = self._told(given, time.to(dtype), keywords)
            self.rounded = True
            self.notes.append(f"times are told in {dtype}: the network takes no others")
        return self._answer(out, state).to(state.dtype)

    def _told(self, given: Any, time: torch.Tensor, keywords: dict[str, Any]) -> Any:
        """The network's own result, its time by name where the family knows it."""
        if not self.row.time:
            return self.model(given, time, **keywords)
        return self.model(given, **keywords, **dict.fromkeys((self.row.time, *self.row.also), time))

    def _given(self, x: torch.Tensor, keywords: dict[str, Any]) -> Any:
        if self.beside is not None:
            joined = of_dtype(_repeated(self.beside, x.shape[0]), x.dtype).to(x.device)
            parts = [joined, x] if self.row.form == "last tokens" else [x, joined]
            x = torch.cat(parts, dim=self.row.channels)
        if self.row.form == "list":
            return list((x if x.ndim > 4 else x[:, :, None]).unbind(0))
        if self.row.form == "text first":
            text = keywords["encoder_hidden_states"].shape[1] - x.shape[1]
            return torch.cat([x.new_zeros(x.shape[0], text, x.shape[2]), x], dim=1)
        return x

    def _answer(self, out: Any, state: torch.Tensor) -> torch.Tensor:
        out = _sample(out)
        if self.row.form == "list":
            out = torch.stack(list(out))
            out = out if state.ndim > 4 else out[:, :, 0]
        if self.row.form in ("text first", "last tokens"):
            out = out[:, -state.shape[1] :]
        axis = self.row.channels
        if out.ndim == state.ndim and out.shape[axis] != state.shape[axis]:
            out = self._narrowed(out, state, axis)
        return out

    def _narrowed(self, out: torch.Tensor, state: torch.Tensor, axis: int) -> torch.Tensor:
        """The first entries along the channels: the rest is a learned variance, or belongs to what was joined."""
        count, said = state.shape[axis], out.shape[axis]
        if self.beside is None:
            if said != 2 * count:
                raise DenoiserError(
                    f"{type(self.model).__name__} answers {said} channels to states of {count}; give what its pipeline "
                    "joins to the latents as beside=…, or wrap it."
                )
            note = f"the first {count} of {said} channels count, the others are a learned variance"
            if note not in self.notes:
                self.notes.append(note)
        return out.narrow(axis, 0, count)

    def _fit(self, name: str, value: Any, count: int, state: torch.Tensor) -> Any:
        value = _fitted(value, count, self.row.batch_axes.get(name, 0), self.row.form == "list")
        if name in self.row.per_frame and torch.is_tensor(value) and value.shape[0] == count:
            return value.repeat_interleave(state.shape[2], dim=0)
        return value


def _fitted(value: Any, count: int, axis: int, states: bool) -> Any:
    """Conditions of one state repeated for the batch; those of a batch as they are."""
    if torch.is_tensor(value):
        return _repeated(value, count, axis)
    if isinstance(value, dict):
        return {name: _fitted(one, count, axis, states) for name, one in value.items()}
    if isinstance(value, list) and len(value) == 1 and (states or not torch.is_tensor(value[0])):
        return value * count
    if isinstance(value, list) and not states:
        return [_fitted(one, count, axis, states) if torch.is_tensor(one) else one for one in value]
    return value


def _repeated(value: torch.Tensor, count: int, axis: int = 0) -> torch.Tensor:
    if value.ndim > axis and value.shape[axis] == 1 and count != 1:
        return value.expand(*value.shape[:axis], count, *value.shape[axis + 1 :]).contiguous()  # some are viewed
    return value


def _sample(out: Any) -> Any:
    if torch.is_tensor(out) or isinstance(out, list):
        return out
    return out.sample if hasattr(out, "sample") else out[0]
