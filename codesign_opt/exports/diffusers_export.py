"""A grid for a scheduler of diffusers: what to pass, what it becomes there, and a check on the real object."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..basics.checks import Array, boolean, instance, number, vector
from ..basics.wording import aligned
from ..ingredients.grids import check_grid
from ..schedulers.scheduler_reading import class_names, is_flow, is_scheduler, setting, told_alike
from .fitted_scheduler import fitted_scheduler
from .pipeline_calls import PipelineCall, pipeline_call
from .scheduler_rules import rule_for
from .scheduler_settings import accepted, refusal
from .scheduler_trials import call, check_same, inside_range, quiet, released, that_holds, tried, with_changes
from .standalone import source_of
from .stock_rules import SCHEDULER_OF, nodes_for, stock_rule
from .targets import PlannedLevels, Target, add_target

__all__ = ["DiffusersExport", "for_diffusers"]


@dataclass(frozen=True, eq=False)
class DiffusersExport:
    """Noise levels as one scheduler of diffusers takes them.

    Attributes:
        scheduler: name of the scheduler's class.
        sigmas: (K+1,) levels that were wanted, sigma_t / s_t, descending.
        becomes: (K+1,) level that each of them becomes in the scheduler; equal neighbours are one node there.
        arguments: keyword arguments of scheduler.set_timesteps.
        listed: (K'+1,) what `scheduler.sigmas` is set to after set_timesteps, for schedulers that take no levels
            there; None for the others.
        changes: settings that the scheduler must have; `configured` makes such a scheduler.
        sampler: name of the library's sampler whose steps the scheduler takes under `same_steps`, or None.
        same_steps: the settings for that.
        sampler_settings: the sampler's own: `Sampler.from_dict({"name": sampler, **sampler_settings})` is it.
        notes: what a user should know.
        pipeline: what to write for the pipeline that was named, or None.

    Raises:
        ValueError: levels that do not descend, another number of levels than wanted.

    >>> steps = {"timesteps": [999, 500]}
    >>> given = DiffusersExport("DDPMScheduler", [10.0, 1.0, 0.98, 0.0], [10.1, 1.02, 1.02, 0.0], steps)
    >>> given.used.tolist(), given.dropped, given.num_inference_steps, round(given.largest_error, 3)
    ([10.1, 1.02, 0.0], (2,), 2, 0.041)
    """

    scheduler: str
    sigmas: Array
    becomes: Array
    arguments: Mapping[str, Any]
    changes: Mapping[str, Any] = field(default_factory=dict)
    sampler: str | None = None
    same_steps: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    listed: Array | None = None
    pipeline: PipelineCall | None = None
    sampler_settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sigmas", check_grid(self.sigmas, "DiffusersExport.sigmas").sigmas)
        object.__setattr__(self, "becomes", vector(self.becomes, "DiffusersExport.becomes", nonnegative=True))
        check_grid(self.used, "DiffusersExport.used")
        if self.becomes.shape != self.sigmas.shape:
            raise ValueError(f"DiffusersExport.becomes has shape {self.becomes.shape}, sigmas {self.sigmas.shape}.")

    @property
    def used(self) -> Array:
        """(K'+1,) levels that the scheduler uses, duplicates removed."""
        return np.asarray(self.becomes[np.append(True, np.diff(self.becomes) != 0)])

    @property
    def dropped(self) -> tuple[int, ...]:
        """Indices of the wanted nodes that became the same as the node before them."""
        return tuple(int(i) + 1 for i in np.flatnonzero(np.diff(self.becomes) == 0))

    @property
    def num_inference_steps(self) -> int:
        """Steps that are taken."""
        return int(self.used.size - 1)

    @property
    def relative_errors(self) -> Array:
        """(K+1,) |becomes / wanted - 1| of every node; 0 at a wanted 0, whatever it becomes."""
        scale = np.where(self.sigmas > 0, self.sigmas, np.inf)
        return np.asarray(np.abs(self.becomes - self.sigmas) / scale)

    @property
    def largest_error(self) -> float:
        """The largest relative change of a noise level."""
        return float(self.relative_errors.max())

    def in_pipeline(self, pipeline: Any, scheduler: Any) -> DiffusersExport:
        """The same with what to write for a pipeline (itself, its class or the class's name) with this scheduler."""
        given = {} if self.listed is not None else self.arguments
        held = self.configured(scheduler)
        found = pipeline_call(pipeline, held, given, bool(self.changes), self.num_inference_steps)
        return replace(self, pipeline=found)

    def holding(self, scheduler: Any) -> Any:
        """A scheduler that runs these levels in any pipeline, whatever the pipeline asks of it.

        A copy of `configured(scheduler)` whose set_timesteps sets the levels of `used` and passes over the number of
        steps, timesteps, sigmas and mu that a pipeline computes. It is for pipelines whose call takes no levels:

            pipe.scheduler = export.holding(pipe.scheduler)
            pipe(..., num_inference_steps=export.num_inference_steps)

        Raises:
            ValueError: another class than this was exported for, or other levels than `used`.
        """
        self._check_class(scheduler)
        made = that_holds(self.configured(scheduler), self.arguments, self.listed)
        with quiet():
            made.set_timesteps(self.num_inference_steps)
        check_same(made, self.used)
        return made

    def configured(self, scheduler: Any) -> Any:
        """A scheduler with `changes`: the same class from the same config; the given one stays as it is."""
        return with_changes(scheduler, self.changes)

    def differences(self, scheduler: Any) -> dict[str, Any]:
        """Settings of `same_steps` that the scheduler does not have, with the value they need."""
        return {k: v for k, v in self.same_steps.items() if setting(scheduler, k, v) != v}

    def noted(self, note: str | None) -> DiffusersExport:
        """The same with one more note; unchanged for None."""
        return self if note is None else replace(self, notes=(*self.notes, note))

    def apply(self, scheduler: Any, device: Any = None) -> Any:
        """Call scheduler.set_timesteps and check that the scheduler's levels are those of `used`.

        Args:
            scheduler: one of the class this was exported for; it must have `changes` (see `configured`).
            device: passed to set_timesteps.

        Returns:
            The same scheduler, ready for its steps. Pipelines call set_timesteps anew: see `holding`.

        Raises:
            ValueError: another class, a setting of `changes` that it lacks, or other levels than `used`.
        """
        self._check_class(scheduler)
        lacking = {k: v for k, v in self.changes.items() if setting(scheduler, k, v) != v}
        if lacking:
            said = ", ".join(f"{k}={v!r}" for k, v in lacking.items())
            raise ValueError(
                f"{self.scheduler} takes these levels only with {said}; use export.configured(scheduler), which is "
                f"{self.scheduler}.from_config(scheduler.config, {said})."
            )
        call(scheduler, self.arguments, self.listed, device)
        check_same(scheduler, self.used)
        return scheduler

    def _said_of_pipelines(self) -> str:
        if self.pipeline is not None:
            return str(self.pipeline)
        steps = self.num_inference_steps
        return f"any pipeline: pipe.scheduler = export.holding(pipe.scheduler); pipe(..., num_inference_steps={steps})"

    def _check_class(self, scheduler: Any) -> None:
        if self.scheduler not in class_names(scheduler):
            raise ValueError(f"the levels were exported for {self.scheduler}, not for {type(scheduler).__name__}.")

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain lists and numbers; `read_schedule` reads its JSON back as `used`."""
        return {
            "kind": "codesign_opt.diffusers",
            "schema_version": 1,
            "scheduler": self.scheduler,
            "set_timesteps": {k: _plain(v) for k, v in self.arguments.items()},
            "scheduler_sigmas": None if self.listed is None else self.listed.tolist(),
            "changes": dict(self.changes),
            "steps": self.num_inference_steps,
            "used": self.used.tolist(),
            "sigmas": self.sigmas.tolist(),
            "largest_relative_error": self.largest_error,
            "dropped": list(self.dropped),
            "sampler": self.sampler,
            "sampler_settings": dict(self.sampler_settings),
            "same_steps": dict(self.same_steps),
            "notes": list(self.notes),
            "pipeline": None if self.pipeline is None else self.pipeline.to_dict(),
        }

    def json(self) -> str:
        """`to_dict` as JSON text."""
        return json.dumps(self.to_dict(), indent=1) + "\n"

    def __str__(self) -> str:
        given = ", ".join(f"{k}={_short(v)}" for k, v in self.arguments.items())
        lines = [f"{self.scheduler}: {self.num_inference_steps} steps", f"  scheduler.set_timesteps({given})"]
        if self.listed is not None:
            lines.append(
                f"  then scheduler.sigmas = {_short(self.listed)} and their timesteps: export.apply(scheduler)"
            )
        if self.changes:
            lines.append("  with " + ", ".join(f"{k}={v!r}" for k, v in self.changes.items()))
        if self.sampler:
            said = ", ".join(f"{k}={v!r}" for k, v in self.same_steps.items())
            own = ", ".join(f"{k}={v!r}" for k, v in self.sampler_settings.items())
            lines.append(
                f"  steps of {self.sampler}" + (f"({own})" if own else "") + (f" where {said}" if said else "")
            )
        merged = f", {len(self.dropped)} merged with the node before" if self.dropped else ""
        lines.append(f"  levels change by up to {self.largest_error:.2g} of themselves{merged}")
        rows = []
        for i, (want, got) in enumerate(zip(self.sigmas, self.becomes, strict=True)):
            change = "merged" if i in self.dropped else f"{self.relative_errors[i]:.2g}"
            change = "not zero" if want == 0 < got else change
            rows.append([str(i), f"{want:.6g}", f"{got:.6g}", change])
        lines.extend("  " + line for line in self._said_of_pipelines().split("\n"))
        shown = aligned(["  node", "sigma wanted", "sigma used", "change"], rows, left=())
        return "\n".join([*lines, *shown, *(f"  note: {note}" for note in self.notes)])


def for_diffusers(
    sigmas: Any,
    scheduler: Any,
    *,
    mu: float | None = None,
    clip: bool = False,
    outside: bool = False,
    pipeline: Any = None,
    sampler: Mapping[str, Any] | None = None,
) -> DiffusersExport:
    """The levels for one scheduler of diffusers, checked on a copy of it; the scheduler stays as it is.

    Args:
        sigmas: (K+1,) descending noise levels sigma_t / s_t; a last 0 is a step to zero noise.
        scheduler: the scheduler object, or an equal one.
        mu: the dynamic shift that the pipeline will compute, for flow schedulers with use_dynamic_shifting.
        clip: move levels outside the network's range to its ends, instead of refusing them.
        outside: keep them where the scheduler takes any sigma: the network is told a time at its end there.
        pipeline: the pipeline that will hold the scheduler, its class, or the name of its class: `pipeline` of the
            result says what to write for it.
        sampler: record of the sampler that the levels were planned for, `Sampler.to_dict`: `changes` are then the
            settings under which UniPC's, DEIS's, DPM-Solver's multistep and singlestep schedulers take its steps.

    Raises:
        ValueError: a scheduler that takes no custom levels (with an alternative), levels outside the network's
            range, a grid whose end the scheduler cannot have.
    """
    if isinstance(scheduler, type):
        raise ValueError(f"export: scheduler is the class {scheduler.__name__}; give the scheduler object to use.")
    if not is_scheduler(scheduler):
        raise ValueError(
            f"export: scheduler is {type(scheduler).__name__}; give the diffusers scheduler object to use."
        )
    if sampler is not None:
        instance(sampler, Mapping, "export.sampler", "Give Sampler.to_dict().")
    mu = None if mu is None else number(mu, "export.mu")
    clip, outside = boolean(clip, "export.clip"), boolean(outside, "export.outside")
    scheduler = released(scheduler)
    stock = stock_rule(sampler or {}, scheduler)
    wanted = nodes_for(check_grid(sigmas).sigmas, sampler or {}, scheduler)
    if stock is None and not accepted(scheduler):
        raise ValueError(refusal(scheduler, "takes neither timesteps nor sigmas"))
    if mu is not None and rule_for(scheduler) and not is_flow(scheduler):
        raise ValueError(f"export.mu is {mu:g}, but {type(scheduler).__name__} has no dynamic shift; leave it out.")
    inside = wanted if outside else inside_range(wanted, scheduler, clip)
    kept = np.append(True, np.diff(inside) != 0)
    rule = stock or rule_for(scheduler) or tried
    draft = rule(inside[kept], scheduler, mu)
    unknown = set(draft.arguments) - set(accepted(scheduler)) - {"mu", "num_inference_steps"}
    if unknown:  # another version of diffusers
        raise ValueError(
            f"{type(scheduler).__name__} takes no {unknown.pop()} in the version of diffusers that is installed; "
            "version 0.42 takes them."
        )
    trial = with_changes(scheduler, draft.changes)
    with quiet():
        call(trial, draft.arguments, draft.listed)
    node = np.cumsum(np.append(True, np.diff(draft.becomes) != 0)) - 1  # of the scheduler, for every level given
    becomes = check_same(trial, draft.becomes[np.append(True, np.diff(node) != 0)])[node]
    found = DiffusersExport(
        type(scheduler).__name__, wanted, becomes[np.cumsum(kept) - 1], draft.arguments, draft.changes,
        draft.sampler, draft.same_steps, draft.notes, draft.listed, None, draft.sampler_settings,
    ).noted(told_alike(trial) or None)  # fmt: skip
    return found if pipeline is None else found.in_pipeline(pipeline, scheduler)


def _diffusers(
    levels: PlannedLevels,
    scheduler: Any = None,
    mu: float | None = None,
    clip: bool = False,
    outside: bool = False,
    pipeline: Any = None,
) -> tuple[Any, str]:
    """Of the target "diffusers"; its file is JSON. A fitted solver becomes a scheduler, whose file is its settings."""
    if scheduler is None and not isinstance(pipeline, (str, type)):
        scheduler = getattr(pipeline, "scheduler", None)  # of a pipeline at hand
    if scheduler is None:
        raise ValueError('export: the target "diffusers" needs scheduler=, the scheduler that will be used.')
    if levels.own_steps:
        if clip or mu is not None:
            said = "clip" if clip else "mu"
            raise ValueError(
                f"export.{said} has no meaning for a fitted solver, whose levels are its own; leave it out."
            )
        made = fitted_scheduler(levels, scheduler, outside)
        return made, made.to_json_string()
    options: dict[str, Any] = {"mu": mu, "clip": clip, "outside": outside, "pipeline": pipeline}
    value = for_diffusers(levels.sigmas, scheduler, **options, sampler=levels.sampler)
    value = value.noted(_other_sampler(levels.sampler, value))
    return value, value.json()


def _beside(levels: PlannedLevels) -> dict[str, str]:
    """The file of the scheduler's class, which diffusers looks for where the settings are."""
    if not levels.own_steps:
        return {}
    name = "linear_multistep_scheduler.py"
    return {name: source_of(name)}


_OPTIONS = ("scheduler", "mu", "clip", "outside", "pipeline")
add_target(Target("diffusers", _OPTIONS, _diffusers, takes_solver=True, beside=_beside))


def _other_sampler(planned: Mapping[str, Any], export: DiffusersExport) -> str | None:
    """A note where the scheduler takes other steps than those the plan was made for."""
    name, eta, taken = planned.get("name"), planned.get("eta", 1.0), export.sampler
    # the ancestral schedulers are those with eta = 1; settings that the scheduler lacks are noted by its rule
    if name is None or (name == taken and eta == 1.0):
        return None
    said = name if eta == 1.0 else f"{name} (eta = {eta:g})"
    able = f", or use {SCHEDULER_OF[name]}" if name in SCHEDULER_OF else ""
    return (
        f"The plan was made for {said} steps; this scheduler takes {taken or 'others'}: plan for those it takes{able}."
    )


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value


def _short(value: Any) -> str:
    plain = _plain(value)
    if not isinstance(plain, list):
        return f"{plain:.6g}" if isinstance(plain, float) else str(plain)
    words = [f"{v:.6g}" for v in plain]
    return "[" + ", ".join(words if len(words) <= 8 else [*words[:5], "…", *words[-2:]]) + "]"
