"""compare(): schedules of the literature and our own plan at equal numbers of evaluations, on any model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..basics.checks import AT_ONCE, Array, boolean, entries, integer, ndim, shown
from ..basics.jobs import each_of
from ..basics.progress import Progress, Teller, teller
from ..basics.spelling import spelled
from ..basics.user_code import named
from ..ingredients.evaluations import evaluations as evaluations_of
from ..ingredients.evaluations import least_steps, steps_within
from ..ingredients.grids import check_grid
from ..models.base import check_model
from ..peers import Evidence, Schedule, names, schedule
from ..results.plan import Plan
from ..samplers.fitted_sampler import FittedSampler
from ..samplers.members import Sampler
from .model_world import ModelWorld
from .table import Comparison, ComparisonRow, rows_of_cell
from .world import ChecksFolder, Prepares, World

__all__ = ["compare"]


@spelled
def compare(
    model: Any,
    peers: Iterable[Any] | Mapping[str, Any] | None = None,
    evaluations: Sequence[int] = (10, 20, 40),
    *,
    samplers: Sequence[Sampler | str] | None = None,
    seeds: Sequence[int] = (0,),
    plan: bool = True,
    evidence: Evidence | None = None,
    draws: int = 256,
    folder: str | Path | None = None,
    progress: Progress = None,
    n_jobs: int = 1,
    backend: str | None = None,
) -> Comparison:
    """Schedules against the co-designed plan at equal evaluations per image, sampler by sampler.

    Every schedule gets the largest number of steps whose evaluations do not exceed those allowed: under
    "denoise" K steps of Heun take 2 K - 1, of a one-evaluation sampler K; a guided denoiser takes two
    evaluations at noise levels inside its interval, whatever grid has nodes there.

    Args:
        model: GaussianModel: the exact squared Wasserstein distance, no noise. EstimatedModel with a live
            denoiser: mean squared distance of outputs to a fine solution under the same noise, on draws
            that no plan has seen. A Model of your own: the errors that it predicts. Or a `World`, such as
            the testbed's.
        peers: names of `peers.names()`, Schedule values, Plans, grids as arrays, samplers fitted with their levels
            (`FittedSampler`, such as `estimate.rivals` find; a LinearMultistep), or a dict of them by label; all
            known schedules unless given. A Plan or an array takes part in the cells whose evaluations pay for it
            and for no step more; a fitted sampler, that of a Plan too, takes part with its own steps in every
            sampler's cells, and the column `fitting` has the calls that its fit made.
        evaluations: allowed per image, one or more numbers.
        samplers: Sampler values or names such as "euler", "heun", "dpmpp_2m"; the model's own unless given.
        seeds: of the draws; those of all seeds are put together.
        plan: whether the co-designed plan takes part, as "plan".
        evidence: what schedules may know, such as `estimate.evidence(denoiser, data)`; the model's own
            unless given. Its sampler is set to the one compared.
        draws: for an EstimatedModel, draws per seed.
        folder: where finished parts of cells are kept: the same call goes on.
        progress: True, False, None (in a terminal or notebook, after 2 s), or a function of (done, total, text).
        n_jobs, backend: as in joblib.Parallel: schedules of cells at a time (-1: one per core), and what runs them
            ("loky" processes unless given, "threading", "dask" or "ray" where they are installed). The numbers, and
            the files in `folder`, are the same.

    Returns:
        Comparison. Schedules that lack evidence or fail are left out with a note.

    Raises:
        ValueError: a malformed argument; a schedule asked for by name that needs evidence nobody gave, with
            the field's name; a model without errors to compare; too few evaluations for one step.

    >>> import codesign_opt as co
    >>> model = co.GaussianModel(co.Spectrum.power_law(8, exponent=1.5))
    >>> found = compare(model, peers=["edm"], evaluations=[9], samplers=["euler", "heun"])
    >>> [(row.sampler, row.peer, row.steps) for row in found.rows][2:]
    [('heun', 'plan', 5), ('heun', 'edm', 5)]
    """
    world = _world_of(model, draws)
    wanted, strict = _wanted(peers)
    limits = [integer(count, "evaluations", minimum=1) for count in _several(evaluations, "evaluations")]
    chosen = _samplers(samplers, world)
    seeds, plan = _several(seeds, "seeds"), boolean(plan, "compare: plan")
    n_jobs = integer(n_jobs, "n_jobs")
    if not chosen or not limits or not seeds:
        raise ValueError("compare: samplers, evaluations and seeds must not be empty.")
    if not wanted and not plan:
        raise ValueError("compare: peers is empty and plan is off; nothing is left to compare.")
    if not (evidence is None or isinstance(evidence, Evidence)):
        raise ValueError(
            f"compare: evidence is {type(evidence).__name__}; give an Evidence, such as Evidence.of(model) or "
            "estimate.evidence(denoiser, data)."
        )
    cache = _Cache.of(folder, world, tuple(int(integer(seed, "seeds")) for seed in seeds))
    cells: list[_Cell] = []
    for sampler in chosen:
        known = replace(world.evidence(sampler) if evidence is None else evidence, sampler=sampler)
        if known.terminal != world.terminal:
            raise ValueError(
                f"compare: evidence is for terminal {known.terminal!r}, the model's is {shown(world.terminal)}."
            )
        notes: dict[str, None] = {}
        makers = _makers(wanted, known, notes, strict=strict)
        _enough(min(limits), sampler, world.terminal)
        if plan:
            makers = {"plan": _planner(world, sampler, cache), **makers}
        cells += [_Cell(world, sampler, limit, makers, tuple(notes)) for limit in limits]
    if n_jobs != 1 and isinstance(world, Prepares):
        world.prepare(chosen, cache.seeds)
    asked = ((cell.of(label), label, cache) for cell in cells for label in cell.makers)
    with teller(progress) as tell:
        return _gathered(world, cells, each_of(_entry, asked, n_jobs=n_jobs, backend=backend), tell)


def _gathered(world: World, cells: list[_Cell], entries: Iterator[_Entry | str], tell: Teller) -> Comparison:
    """The table, from the cells' entries as they come: in the order of the cells and of their schedules."""
    rows: list[ComparisonRow] = []
    notes: dict[str, None] = {}
    for k, cell in enumerate(cells):
        found = {label: next(entries) for label in cell.makers}
        notes |= dict.fromkeys([*cell.notes, *(said for said in found.values() if isinstance(said, str))])
        own = cell.rows({label: entry for label, entry in found.items() if not isinstance(entry, str)})
        rows += own
        best = own[0].peer if own else "none"
        tell(f"{world.title}, {cell.sampler.name} {cell.limit}: best {best} of {len(own)}", k + 1, len(cells))
    return Comparison(tuple(rows), world.measure, world.title, tuple(notes))


@dataclass(frozen=True, eq=False)
class _Maker:
    """From a number of steps to a grid; the sampler that it is for, the cell's unless given; what its fit took."""

    grid: Callable[[int], Array]
    sampler: Sampler | None = None
    fitting: float = 0.0


class _Given(ValueError):
    """A grid is given, and has another number of steps than was asked for."""

    def __init__(self, sigmas: Array) -> None:
        super().__init__(f"it has {_steps(sigmas.size - 1)}")
        self.sigmas = sigmas


def _wanted(peers: Iterable[Any] | Mapping[str, Any] | None) -> tuple[dict[str, Any], bool]:
    """Schedules by label, and whether the user chose them."""
    if peers is None:
        return {name: schedule(name) for name in names() if not _needs_parameters(name)}, False
    if isinstance(peers, (str, bytes)):
        raise ValueError(f"compare: peers is {shown(peers)}; a list is needed, such as [{peers!r}].")
    if not isinstance(peers, Iterable):
        raise ValueError(f"compare: peers is {shown(peers)}; a list is needed, such as [{peers!r}].")
    if isinstance(peers, Mapping):
        pairs = [(str(label), value) for label, value in peers.items()]
    else:
        pairs = [(_label(value, number), value) for number, value in enumerate(entries(peers, "compare: peers"))]
    found: dict[str, Any] = {}
    for label, value in pairs:
        if label == "plan" and isinstance(value, str):
            continue  # it takes part by `plan`
        if label in found or label == "plan":
            raise ValueError(f"compare: peers holds {shown(label)} twice; give a dict with a label for each.")
        found[label] = schedule(value) if isinstance(value, str) else _checked(value)
    return found, True


def _needs_parameters(name: str) -> bool:
    try:
        schedule(name)
    except Exception:  # the user's own may fail in any way; where nobody asked for it, it stays out
        return True
    return False


def _label(value: Any, number: int) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Schedule):
        listed = value.name in names() and not _needs_parameters(value.name)
        return value.name if listed and value == schedule(value.name) else repr(value)
    return f"{'plan' if isinstance(value, Plan) else 'grid'} {number}"


def _checked(value: Any) -> Any:
    if isinstance(value, Schedule):
        return value
    if isinstance(value, Plan):
        if value.sigmas is None:
            raise ValueError("compare: peers holds a plan without a sampler's grid.")
        if value.solver is not None:
            return FittedSampler(value.solver, value.sigmas, value.fits.get("solver", {}).get("evaluations", 0.0))
        return np.array(value.sigmas)
    if isinstance(value, FittedSampler):
        return value
    if isinstance(value, Sampler) and value.own_levels is not None:
        return FittedSampler(value, value.own_levels)
    if value is None or isinstance(value, type):
        said = value.__name__ if isinstance(value, type) else value
        raise ValueError(f"compare: peers holds {said}; give a name, a Schedule value, a Plan or noise levels.")
    return np.array(check_grid(value).sigmas)


def _makers(wanted: Mapping[str, Any], known: Evidence, notes: dict[str, None], *, strict: bool) -> dict[str, _Maker]:
    """From a number of steps to a grid, by label; schedules without evidence are refused or noted."""
    makers: dict[str, _Maker] = {}
    for label, value in wanted.items():
        if isinstance(value, Schedule):
            missing = [name for name in value.needs if getattr(known, name) is None]
            if missing and strict:
                raise ValueError(
                    f"compare: {label} needs Evidence.{missing[0]}, which the model does not know; give "
                    "evidence=estimate.evidence(denoiser, data), or leave it out."
                )
            if missing:
                notes[f"{label} is left out: Evidence.{missing[0]} is not known"] = None
            else:
                makers[label] = _Maker(partial(_of_schedule, value, known, strict))
        else:
            fitted = value if isinstance(value, FittedSampler) else None
            grid = value if fitted is None else fitted.sigmas
            if check_grid(grid, label).terminal != known.terminal:
                raise ValueError(
                    f"compare: {label} ends with {grid[-1]:g}, but the model's terminal is {shown(known.terminal)}."
                )
            own = () if fitted is None else (fitted.sampler, fitted.fitting)
            makers[label] = _Maker(partial(_given, grid), *own)
    return makers


def _of_schedule(value: Schedule, known: Evidence, strict: bool, steps: int) -> Array:
    try:
        return value.sigmas(steps, known)
    except Exception as error:
        if strict or isinstance(error, ValueError):
            raise
        raise ValueError(named(error)) from error  # one that nobody asked for gets a note


def _given(grid: Array, steps: int) -> Array:
    if grid.size - 1 != steps:
        raise _Given(grid)
    return grid


def _planned(world: World, sampler: Sampler, cache: _Cache, steps: int) -> Array:
    found: Array
    found = cache.item(f"plan/{sampler.tag}-{steps}", lambda: {"sigmas": world.plan(sampler, steps)})["sigmas"]
    return found


def _planner(world: World, sampler: Sampler, cache: _Cache) -> _Maker:
    if sampler.own_levels is not None:
        return _Maker(partial(_given, sampler.own_levels))
    return _Maker(partial(_planned, world, sampler, cache))


def _samplers(samplers: Sequence[Sampler | str] | None, world: World) -> list[Sampler]:
    if samplers is None:
        return [world.sampler]
    if isinstance(samplers, str) or not isinstance(samplers, Iterable):
        raise ValueError(f"compare: samplers is {shown(samplers)}; a list is needed, such as [{samplers!r}].")
    return [
        Sampler.named(one, f"compare: samplers[{k}]") for k, one in enumerate(entries(samplers, "compare: samplers"))
    ]


def _enough(limit: int, sampler: Sampler, terminal: str) -> None:
    """Refuse evaluations that do not pay for the fewest steps that any grid can have."""
    least = least_steps(terminal)
    needed = evaluations_of(least, sampler.evaluations_per_step, terminal)
    if limit < needed:
        raise ValueError(
            f"compare: {limit} evaluations are too few for {_steps(least)} of {sampler.name}, the fewest "
            f"under terminal {terminal!r}; allow at least {needed}."
        )


@dataclass(frozen=True, eq=False)
class _Cache:
    """Finished parts of cells: plans, and errors of grids by what the grid is."""

    ledger: Any
    seeds: tuple[int, ...]

    @classmethod
    def of(cls, folder: str | Path | None, world: World, seeds: tuple[int, ...]) -> _Cache:
        from ..basics.ledger import Ledger  # no torch in it

        ledger = Ledger(folder, {"what": "comparison", **world.describe()})
        if ledger.folder is not None and isinstance(world, ChecksFolder):
            world.check_folder(ledger.folder)
        return cls(ledger, seeds)

    def item(self, name: str, compute: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = self.ledger.item(name, compute)
        return found

    def measured(self, world: World, sampler: Sampler, sigmas: Array) -> dict[str, Any]:
        """Errors of all seeds together; of secondary measures the mean over the seeds."""
        digest = hashlib.blake2b(np.ascontiguousarray(sigmas, dtype=np.float64).tobytes(), digest_size=8).hexdigest()

        def part(seed: int) -> dict[str, Any]:
            return self.item(f"errors/{sampler.tag}-{digest}-{seed}", lambda: world.measured(sampler, sigmas, seed))

        parts = [part(seed) for seed in self.seeds]
        found = {"errors": np.concatenate([part["errors"] for part in parts])}
        for name in parts[0].keys() - {"errors"}:
            values = np.stack([part[name] for part in parts])
            found[name] = np.array([values[:, 0].mean(), np.sqrt((values[:, 1] ** 2).sum()) / len(parts)])
        return found


class _Entry(NamedTuple):
    """One schedule in one cell: its grid, the evaluations that it uses, and its errors."""

    sigmas: Array
    used: float
    measured: dict[str, Any]


@dataclass(frozen=True, eq=False)
class _Cell:
    """One sampler and one number of evaluations: who takes part, and who was left out before."""

    world: World
    sampler: Sampler
    limit: int
    makers: Mapping[str, _Maker]
    notes: tuple[str, ...] = ()

    def of(self, label: str) -> _Cell:
        """The same with one schedule alone, which is all that a worker needs."""
        return replace(self, makers={label: self.makers[label]}, notes=())

    def rows(self, entries: Mapping[str, _Entry]) -> list[ComparisonRow]:
        """The rows of those who have an entry, best first."""
        measured = {label: entry.measured for label, entry in entries.items()}
        grids = {label: (entry.sigmas, entry.used) for label, entry in entries.items()}
        found = rows_of_cell(self.sampler.name, self.limit, measured, grids)
        return [replace(row, fitting=self.makers[row.peer].fitting) for row in found]

    def largest(self, make: Callable[[int], Array]) -> tuple[Array, float]:
        """The grid with most steps that the evaluations pay for; by halving, since costs rise with the steps."""
        least = least_steps(self.world.terminal)
        most = steps_within(self.limit, self.sampler.evaluations_per_step, self.world.terminal)
        few = f"{self.limit} evaluations are too few for {_steps(least)} of {self.sampler.name}"
        if most < least:
            raise ValueError(few)
        try:
            sigmas = make(most)
        except _Given as given:
            return self._fitting(given.sigmas)
        used = self.world.cost(self.sampler, sigmas)
        if used <= self.limit:
            return sigmas, used
        best: tuple[Array, float] | None = None
        low, high = least, most - 1
        while low <= high:
            middle = (low + high + 1) // 2
            try:
                sigmas = make(middle)
            except _Given as given:
                return self._fitting(given.sigmas)
            used = self.world.cost(self.sampler, sigmas)
            if used <= self.limit:
                best, low = (sigmas, used), middle + 1
            else:
                high = middle - 1
        if best is None:
            raise ValueError(few)
        return best

    def _fitting(self, sigmas: Array) -> tuple[Array, float]:
        """A given grid that the evaluations pay for, and one step more, at what its dearest step costs, not."""
        used, each = self.world.cost(self.sampler, sigmas), self.sampler.evaluations_per_step
        guided = used > evaluations_of(sigmas.size - 1, each, self.world.terminal)
        if not used <= self.limit < used + each * (2 if guided else 1):
            raise ValueError(f"it has {_steps(sigmas.size - 1)}, which take {used:g}")
        return sigmas, used


def _entry(cell: _Cell, label: str, cache: _Cache) -> _Entry | str:
    """What a schedule leaves in a cell, or why it is left out."""
    maker = cell.makers[label]
    own = cell if maker.sampler is None else replace(cell, sampler=maker.sampler)
    try:
        sigmas, used = own.largest(maker.grid)
        own.sampler.check_levels(sigmas)
    except ValueError as error:
        if label == "plan":
            raise
        return f"{label} is left out of {cell.sampler.name} with {cell.limit} evaluations: {error}"
    return _Entry(sigmas, used, cache.measured(cell.world, own.sampler, sigmas))


def _steps(count: int) -> str:
    return f"{count} step{'s' if count > 1 else ''}"


def _several(value: Any, name: str) -> list[Any]:
    """One or several of them, as a list."""
    return [value] if ndim(value) == 0 and not hasattr(value, "__next__") else list(entries(value, name))


def _world_of(model: Any, draws: int) -> World:
    if isinstance(model, World):
        return model
    known = check_model(model, "compare", " or a World")
    if known.probe is None:
        return ModelWorld(known)
    from .measured_world import MeasuredWorld  # torch

    return MeasuredWorld(known, integer(draws, "draws", minimum=2, maximum=AT_ONCE))
