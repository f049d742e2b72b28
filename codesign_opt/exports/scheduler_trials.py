"""Schedulers of diffusers tried on copies: settings changed, set_timesteps called, the levels checked."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..basics.checks import Array, shown
from ..basics.devices import device_of
from ..schedulers.noise_table import flow_time
from ..schedulers.scheduler_reading import is_flow, is_scheduler, noise_levels, setting
from .scheduler_rules import Draft
from .scheduler_settings import accepted, refusal, table_of, trained_range

__all__ = ["call", "check_same", "inside_range", "quiet", "released", "that_holds", "tried", "with_changes"]

_SLACK = 1e-2  # a level this little outside the network's range is rounding (0.029 of a published list for 0.02917)
_RELEASED = "class_without_held_levels"  # of the classes that `that_holds` makes: their parent
_SINGLE = 2e-5  # float32 sigmas after a shift or a power; relative, of sigma or of the flow time's complement


def inside_range(wanted: Array, scheduler: Any, clip: bool) -> Array:
    """The levels inside the network's range, or the reason why not."""
    known = trained_range(scheduler)
    if known is None:
        return wanted
    low, high = known
    positive = wanted[wanted > 0]
    outside = (positive > high * (1 + _SLACK)) | (positive < low * (1 - _SLACK))
    if not outside.any():
        return wanted
    if not clip:
        worst = float(positive[outside][0] if positive[0] > high * (1 + _SLACK) else positive[outside][-1])
        raise ValueError(
            f"sigma {worst:.4g} lies outside the levels {low:.4g} to {high:.4g} that the network of "
            f"{type(scheduler).__name__} knows; plan with a process of that range, or pass clip=True to move such "
            "nodes to its ends, or outside=True to keep them."
        )
    return np.append(np.clip(positive, low, high), wanted[positive.size :])


def tried(wanted: Array, scheduler: Any, mu: float | None) -> Draft:
    """A scheduler without a rule: the ways of other schedulers, one after the other, on a copy of it."""
    takes = accepted(scheduler)
    single = wanted.astype(np.float32).astype(np.float64)
    ways: list[tuple[dict[str, Any], Array]] = []
    if "sigmas" in takes and (is_flow(scheduler) or trained_range(scheduler)):  # else sigma could mean anything
        given_as = flow_time(wanted) if is_flow(scheduler) else wanted
        ways += [({"sigmas": given_as[:-1].tolist()}, single), ({"sigmas": given_as.tolist()}, single)]
    if "timesteps" in takes and getattr(scheduler, "alphas_cumprod", None) is not None and wanted[-1] == 0:
        noise = table_of(scheduler)
        steps = noise.nearest(wanted[:-1])
        kept = np.append(True, np.diff(steps) != 0)
        ways.append(({"timesteps": steps[kept].tolist()}, np.append(noise.sigmas[steps], 0.0)))
    note = f"{type(scheduler).__name__} is not one of the schedulers that were studied; this was tried on a copy of it."
    for arguments, used in ways:
        given = dict(arguments) if mu is None else {**arguments, "mu": mu}
        trial = copy.deepcopy(scheduler)
        try:
            with quiet():
                call(trial, given)
            nodes = used[np.append(True, np.diff(used) != 0)]
            check_same(trial, nodes)
            fits = len(trial.timesteps) == nodes.size - 1  # not where a second 0 was added
        except Exception:  # whatever an unknown scheduler raises, this way is not its way
            continue
        if fits:
            return Draft(given, used, notes=(note,))
    raise ValueError(refusal(scheduler, f"takes {' and '.join(takes)} with a meaning that is not known here"))


def with_changes(scheduler: Any, changes: Mapping[str, Any]) -> Any:
    """A copy with changed settings; a shift set by hand is kept."""
    if not is_scheduler(scheduler):
        raise ValueError(f"export: scheduler is {shown(scheduler)}; a scheduler of diffusers is needed.")
    scheduler = released(scheduler)
    if not changes:
        return copy.deepcopy(scheduler)
    made = type(scheduler).from_config(scheduler.config, **changes)
    if hasattr(made, "set_shift") and "shift" not in changes:
        made.set_shift(scheduler.shift)
    return made


@contextmanager
def quiet() -> Iterator[None]:
    """No log of a trial on a copy: the scheduler in use says the same when its turn comes."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        yield
    finally:
        logging.disable(before)


def call(
    scheduler: Any,
    arguments: Mapping[str, Any],
    listed: Array | None = None,
    device: Any = None,
    kind: Any = None,
) -> None:
    """set_timesteps, then `listed` in place of its sigmas; without numpy's warnings that are diffusers' own affair.

    Args:
        kind: the class whose set_timesteps is meant, that of the scheduler unless given.
    """
    where = {} if device is None else {"device": device_of(device, "export: device")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        (kind or type(scheduler)).set_timesteps(scheduler, **where, **arguments)
    if listed is not None:
        import torch

        if is_flow(scheduler):  # whole timesteps are cut off, as it does
            scheduler.sigmas = torch.tensor(listed, dtype=torch.float32)
            told = torch.tensor(listed[:-1] * float(setting(scheduler, "num_train_timesteps")))
            scheduler.timesteps = told.to(device=device, dtype=scheduler.timesteps.dtype)
        else:  # differences of their logarithms lose 1e-5 of a third-order step in float32
            scheduler.sigmas = torch.tensor(listed, dtype=torch.float64)
            told = torch.tensor(table_of(scheduler).timestep(listed[:-1]))
            scheduler.timesteps = told.to(device=device, dtype=torch.float32)


def that_holds(scheduler: Any, arguments: Mapping[str, Any], listed: Array | None) -> Any:
    """The scheduler, of a subclass whose set_timesteps sets these levels whatever it is called with.

    A class of its own, since pipelines copy their schedulers; named as its parent, since they look at that name.
    Copies and pickles hold the levels too; what diffusers saves does not, since it keeps the settings alone.
    """
    parent = type(scheduler)

    def set_timesteps(
        self: Any,
        num_inference_steps: Any = None,
        device: Any = None,
        timesteps: Any = None,
        sigmas: Any = None,
        mu: Any = None,
    ) -> None:
        call(self, arguments, listed, device, parent)
        steps = self.timesteps
        if len(steps) > 1 and steps[0] == steps[1] and hasattr(self, "set_begin_index"):
            self.set_begin_index(0)  # it looks for the first timestep's second place otherwise, and skips a node

    def save_pretrained(self: Any, *given: Any, **named: Any) -> Any:
        warnings.warn(
            f"{parent.__name__} is saved without the levels that it holds: diffusers keeps its settings alone. Save "
            "the plan beside it, and hold its levels again: pipe.scheduler = export.holding(pipe.scheduler).",
            stacklevel=2,
        )
        return parent.save_pretrained(self, *given, **named)

    def reduced(self: Any, protocol: Any) -> Any:
        return that_holds, (released(self), arguments, listed)

    said: dict[str, Any] = {"set_timesteps": set_timesteps, "save_pretrained": save_pretrained}
    said |= {"__reduce_ex__": reduced, "__module__": parent.__module__, "__doc__": parent.__doc__}
    scheduler.__class__ = type(parent.__name__, (parent,), {**said, _RELEASED: parent})
    return scheduler


def released(scheduler: Any) -> Any:
    """A scheduler whose set_timesteps is its class's own: a copy where it holds the levels of an export."""
    parent = getattr(scheduler, _RELEASED, None)
    if parent is None:
        return scheduler
    free = parent.__new__(parent)
    vars(free).update(copy.deepcopy(vars(scheduler)))
    return free


def check_same(scheduler: Any, used: Array) -> Array:
    """The scheduler's own levels, when they are `used` but for float32."""
    got = noise_levels(scheduler)
    name = type(scheduler).__name__
    if got.size != used.size:
        raise ValueError(f"{name} has {got.size} noise levels after set_timesteps; {used.size} were wanted.")
    slack = _SINGLE * used * (1.0 + used if is_flow(scheduler) else 1.0)
    bad = np.flatnonzero(~(np.abs(got - used) <= slack))
    if bad.size:
        i = int(bad[0])
        raise ValueError(f"{name} uses sigma {got[i]:.7g} at node {i}; {used[i]:.7g} was wanted.")
    return got
