"""StatedErrors: what is said of grids, on draws that chose nothing, against a fine solution refined until it may be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...basics.checks import Array
from ...basics.ledger import Ledger
from ...ingredients.grids import check_grid
from ...ingredients.measured_error import MeasuredError
from ...samplers.base import Sampler
from ..draws.statistics import Estimate, squares
from ..draws.streams import agreed, my_share
from ..runs.fine_solution import Draws, Reference, gathered, mean_of_draws
from ..runs.run import run
from .grid_error import GridErrors, batches_of_run, starting_at

__all__ = ["ENOUGH", "HEAVY", "StatedErrors"]

ENOUGH = 0.03  # of an error, that may be the fine solution's own
HEAVY = 0.1  # relative standard error from which on more draws are taken
_CHECKED = 4  # one chunk of draws in so many is held against finer and coarser solutions too
_FALLS, _OWN_FALLS = 1 / 4, 1 / 2  # to what share the error's changes fall per doubling at least, also where draws part
_DOUBLINGS = 3


@dataclass(frozen=True, eq=False)
class StatedErrors:
    """Errors of grids on draws of their own: the numbers that are quoted (docs/theory.md section 3.5).

    On every draw a grid is held against the fine solution of `reference.steps` steps; on a quarter of the first draws
    against those of half as many and, while their difference tells, of twice, four times, eight times as many: the
    difference of the statistic between the last and the first of them is added to its value.

    Args:
        reference: the fine solution, on the least number of draws.
        folder: where fine solutions are kept; None for memory.
    """

    reference: Reference
    folder: Path | None = None
    _ends: dict[tuple[int, int, int], torch.Tensor] = field(default_factory=dict, repr=False)
    _kept: dict[tuple[int, int], Ledger] = field(default_factory=dict, repr=False)

    @property
    def checked(self) -> int:
        """Chunks of the first draws that are held against finer and coarser solutions too."""
        return max(1, self.reference.draws.chunks // _CHECKED)

    # costs, in batches

    def cost_of_ends(self) -> int:
        """Of the fine solutions that are there from the start."""
        half = self._solution(0, self.reference.steps // 2)
        return self.reference.draws.chunks * self.reference.path().calls() + self.checked * half.path().calls()

    def cost(self, sigmas: Array, grids: int) -> int:
        """Of stating the errors of so many grids of as many steps, on the least number of draws."""
        return self.reference.draws.chunks * grids * self._calls(sigmas)

    def reserve(self, sigmas: Array, grids: int, objective: str, *, heavy: bool) -> int:
        """Of finer solutions, one at least, that a grid with a fourth of this error asks for; more draws if heavy."""
        levels = [self.reference.steps // 2, self.reference.steps]
        share = 2 * self._measured(self._runs(sigmas), levels, 0).fine_share(objective)
        finer, price = 2 * levels[-1], self.checked * self._solution(0, 2 * levels[-1]).path().calls()
        while share * _FALLS > ENOUGH and finer < levels[-1] * 2**_DOUBLINGS:
            finer, share = 2 * finer, share * _FALLS
            price += self.checked * self._solution(0, finer).path().calls()
        return price + heavy * self._cost_of_set(sigmas, grids)

    def _cost_of_set(self, sigmas: Array, grids: int) -> int:
        """Of as many draws more."""
        return self.reference.draws.chunks * (self.reference.path().calls() + grids * self._calls(sigmas))

    # what is measured

    def samples(self) -> torch.Tensor:
        """(N, dimensions) outputs of the fine solution, in float64 on the CPU."""
        draws = self.reference.draws
        parts = {chunk: self._end(0, self.reference.steps, chunk).flatten(1) for chunk in my_share(draws.chunks)}
        return torch.as_tensor(gathered(draws, parts, (int(np.prod(draws.shape)),)))

    def accuracy(self) -> Estimate:
        """Mean squared distance of the fine solution to that of half its steps."""
        steps, draws = self.reference.steps, self.reference.draws
        parts = {
            chunk: squares(self._end(0, steps, chunk) - self._end(0, steps // 2, chunk))
            for chunk in my_share(self.checked)
        }
        return mean_of_draws(gathered(draws, parts)[: draws.rows(self.checked - 1).stop])

    def state(
        self, grids: Mapping[str, Array], objective: str, budget: int, samplers: Mapping[str, Sampler] | None = None
    ) -> dict[str, MeasuredError]:
        """The errors of grids, the first one's deciding how finely and on how many draws.

        Args:
            grids: by name; each starts where the draws do.
            objective: what is said of the draws.
            budget: batches for finer fine solutions, then for more draws where the tail is heavy.
            samplers: of the grids that another sampler than the reference's runs on; none unless given.
        """
        samplers = {} if samplers is None else samplers
        name, plan = next(iter(grids.items()))
        runs = self._runs(plan, samplers.get(name))
        levels, budget = self._refined(runs, objective, budget)
        sets = self._needed(runs, objective, levels, budget, len(grids))
        first = self._measured(runs, levels, sets)
        found = {name: first.said(first, objective)}
        for name, grid in list(grids.items())[1:]:
            found[name] = self._measured(self._runs(grid, samplers.get(name)), levels, sets).said(first, objective)
        return found

    def _refined(self, runs: _Runs, objective: str, budget: int) -> tuple[list[int], int]:
        """Steps of the fine solutions, the last fine enough for this grid or as fine as the budget allows."""
        levels = [self.reference.steps // 2, self.reference.steps]
        for _ in range(_DOUBLINGS):
            price = self.checked * self._solution(0, 2 * levels[-1]).path().calls()
            if self._measured(runs, levels).fine_share(objective) <= ENOUGH or price > budget:
                break
            levels, budget = [*levels, 2 * levels[-1]], budget - price
        return levels, budget

    def _needed(self, runs: _Runs, objective: str, levels: list[int], budget: int, grids: int) -> int:
        """How many sets of draws: 1, 2 or 4, as the tail asks for and the budget allows."""
        price, sets = self._cost_of_set(runs.grid, grids), 1
        while sets < 4:
            found = self._measured(runs, levels, sets).corrected(objective)
            if float(found.standard_error) <= HEAVY * float(found.value) or sets * price > budget:
                break
            sets, budget = 2 * sets, budget - sets * price
        return sets

    def _measured(self, runs: _Runs, levels: list[int], sets: int = 1) -> _Measured:
        """Squared distances to the fine solution on sets of draws (0: the first), to all `levels` on the first."""
        base, draws = self.reference.steps, self.reference.draws
        whole: list[Array] = []
        parts: dict[int, dict[int, torch.Tensor]] = {level: {} for level in levels}
        for number in range(max(sets, 1)):
            own: dict[int, torch.Tensor] = {}
            for chunk in my_share(draws.chunks if sets else self.checked):
                output = runs.output(self._solution(number, base).draws, chunk)
                own[chunk] = squares(output - self._end(number, base, chunk))
                for level in levels if number == 0 and chunk < self.checked else []:
                    parts[level][chunk] = squares(output - self._end(0, level, chunk))
            whole.append(gathered(draws, own))
        some = draws.rows(self.checked - 1).stop
        checked = {level: GridErrors(gathered(draws, part)[:some]) for level, part in parts.items()}
        whole = whole if sets else [checked[base].errors]
        falls = _OWN_FALLS if self.reference.sampler.stochastic else _FALLS
        return _Measured(GridErrors(np.concatenate(whole)), base, checked, falls / (1 - falls))

    def _runs(self, sigmas: Array, sampler: Sampler | None = None) -> _Runs:
        return _Runs(self.reference, starting_at(agreed(sigmas), self.reference), sampler or self.reference.sampler)

    def _calls(self, sigmas: Array) -> int:
        return batches_of_run(self.reference.sampler, sigmas.size - 1, check_grid(sigmas).terminal)

    def _end(self, number: int, steps: int, chunk: int) -> torch.Tensor:
        key = (number, steps, chunk)
        if key not in self._ends:
            solution, ledger = self._solution(number, steps), self._ledger(number, steps)

            def compute() -> dict[str, Any]:
                return {"end": solution.terminal_states(chunk).cpu().numpy()}

            self._ends[key] = torch.as_tensor(ledger.item(f"chunk{chunk}", compute)["end"])
        return self._ends[key]

    def _ledger(self, number: int, steps: int) -> Ledger:
        """Where a fine solution is kept; its denoiser is asked once whether it is the one that was there."""
        if (number, steps) not in self._kept:
            solution = self._solution(number, steps)
            place = None if self.folder is None else self.folder / f"{solution.draws.name}, {steps} steps"
            self._kept[number, steps] = solution.items_in(place, {"what": "fine solution of stated errors"})
        return self._kept[number, steps]

    def _solution(self, number: int, steps: int) -> Reference:
        """The fine solution of so many steps on one set of draws."""
        draws = self.reference.draws
        draws = draws if number == 0 else replace(draws, name=f"{draws.name} {number}")
        return replace(self.reference, steps=max(steps, 2), draws=draws)


@dataclass(frozen=True, eq=False)
class _Runs:
    """Outputs of one grid, each run made once."""

    reference: Reference
    grid: Array
    sampler: Sampler
    _made: dict[tuple[str, int], torch.Tensor] = field(default_factory=dict, repr=False)

    @torch.no_grad()
    def output(self, draws: Draws, chunk: int) -> torch.Tensor:
        """(n, *shape) on the CPU."""
        key, known = (draws.name, chunk), self.reference
        if key not in self._made:
            noise = draws.noise(chunk, known.stopping_sigma)
            self._made[key] = run(known.denoiser, self.sampler, self.grid, draws.start(chunk), noise).cpu()
        return self._made[key]


@dataclass(frozen=True, eq=False)
class _Measured:
    """Errors of one grid: on all draws against the fine solution of `base` steps, on some against each of several."""

    every: GridErrors
    base: int
    checked: Mapping[int, GridErrors]
    remains: float

    def corrected(self, objective: str) -> Estimate:
        """The statistic on all draws, with what the finest solution changes of it on some; or on these alone."""
        found, finest = self.every.of(objective), max(self.checked)
        if finest == self.base:
            return found
        shift, alone = self.checked[finest].difference(self.checked[self.base], objective), self.checked[finest]
        error = np.hypot(found.standard_error, shift.standard_error)
        if self._alone(objective):
            return alone.of(objective)
        return Estimate(found.value + shift.value, error, found.count)

    def _alone(self, objective: str) -> bool:
        """Whether so much changes that the draws of the finest solution alone know more than all with a correction."""
        finest = self.checked[max(self.checked)]
        shift = finest.difference(self.checked[self.base], objective).standard_error
        error = np.hypot(self.every.of(objective).standard_error, shift)
        return bool(finest.of(objective).standard_error <= error) and max(self.checked) != self.base

    def fine_share(self, objective: str) -> float:
        """What share of the statistic the finest solution's own error can be: what remains of its last doubling.

        With two standard errors of that, since signs may cancel.
        """
        before, finest = sorted(self.checked)[-2:]
        change = self.checked[finest].difference(self.checked[before], objective)
        value = float(self.corrected(objective).value)
        size = self.remains * (abs(float(change.value)) + 2 * float(change.standard_error))
        return size / value if value > 0 else np.inf if size > 0 else 0.0

    def said(self, first: _Measured, objective: str) -> MeasuredError:
        """In numbers, beside the errors that ratios are to."""
        value, mean = (self.corrected(name) for name in (objective, "mean"))
        own, theirs = (
            each.checked[max(each.checked)] if first._alone(objective) else each.every for each in (self, first)
        )
        largest, base = max(1, round(own.errors.size / 100)), float(first.corrected(objective).value)
        return MeasuredError(
            value=max(float(value.value), 0.0),
            standard_error=float(value.standard_error),
            draws=own.errors.size,
            objective=objective,
            mean=max(float(mean.value), 0.0),
            mean_standard_error=float(mean.standard_error),
            largest=largest,
            largest_share=own.share_of_largest(largest),
            fine_steps=max(self.checked),
            fine_share=self.fine_share(objective),
            ratio=max(float(value.value), 0.0) / base if base > 0 else 1.0,
            ratio_standard_error=float(own.ratio(theirs, objective).standard_error) if base > 0 else 0.0,
        )
