"""PAS: directions of a solver corrected in a basis of principal components of every sample's own path."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import torch

from ...basics.checks import Array, choice, integer, matrix, number
from ...ingredients.grids import check_grid
from ...samplers.affine_steps import AffineSteps, Numbers
from ...samplers.network_step import DenoiserCall, NoisePath, Remembered, SigmaStep
from ...samplers.own_levels import OnOwnLevels
from ..draws.statistics import squares
from ..steps.grid_error import GridErrors
from .base import FittedRival, Ground, Rival

__all__ = ["PAS", "PASSteps"]

_BEFORE = {"euler": 0, "ipndm": 2}  # former slopes that a direction takes
_ADAMS = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12))
_NOTHING = 1e-10  # of a unit vector left by orthogonalisation


@dataclass(frozen=True, eq=False, repr=False)
class PASSteps(OnOwnLevels):
    """x_{k+1} = x_k + (sigma_{k+1} - sigma_k) sum_j c_kj u_kj(x), with u_k a basis of the sample's own path.

    u_k1 is the solver's direction d_k, the others principal components of x_0, the directions taken before and d_k (the
    mean of these removed), largest first, made orthonormal in this order; u points the way that the sample has come,
    <x_k - x_0, u> > 0 (x_0 itself at the first step). A row of zeros is a step of the solver. It is not linear in
    the state: no exact law on Gaussian data. docs/theory.md section 11.5.

    Args:
        levels: (K+1,) noise levels, the only ones it runs on, the step to zero its own.
        coordinates: (K, B) c, data units over noise level.
        solver: "euler", d_k the slope (x_k - D_k) / sigma_k; "ipndm", Adams-Bashforth's of up to three slopes.

    Raises:
        ValueError: a field of a wrong shape, not finite, or an unknown solver.

    >>> plain = PASSteps([2.0, 1.0, 0.0], np.zeros((2, 4)))
    >>> plain.memory, PASSteps.from_dict(plain.to_dict()) == plain
    (1, True)
    """

    levels: Array
    coordinates: Array
    solver: str = "euler"
    name: ClassVar[str] = "pas"

    def __post_init__(self) -> None:
        levels = check_grid(self.levels, "PASSteps.levels").sigmas
        coordinates = matrix(self.coordinates, "PASSteps.coordinates", shape=(levels.size - 1, None))
        choice(self.solver, "PASSteps.solver", tuple(_BEFORE))
        self._keep(levels=levels, coordinates=coordinates)

    def __repr__(self) -> str:
        corrected = int(np.any(self.coordinates, axis=1).sum())
        return f"PASSteps({self.solver}, {self.levels.size - 1} steps, {corrected} of them corrected)"

    @property
    def memory(self) -> int:  # type: ignore[override]
        """All steps before."""
        return self.levels.size - 2

    def affine_steps(self, sigma: Numbers, weights: Numbers) -> AffineSteps:
        """Refused: its steps are not linear in the state.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"{self!r} has no exact law on Gaussian data: its basis is of every sample's own path.")

    def step(
        self,
        denoiser: DenoiserCall,
        x: torch.Tensor,
        levels: SigmaStep,
        memory: Sequence[Remembered],
        noise: NoisePath | None,
    ) -> torch.Tensor:
        """The solver's direction, or the one with the step's coordinates in the basis."""
        at, row = x.double(), self.coordinates[len(memory)]
        direction = self.direction(at, denoiser(x, levels.high), float(levels.high), memory)
        if np.any(row):
            basis = own_basis(at, direction, memory, row.size)
            direction = torch.einsum("j,nj...->n...", x.new_tensor(row, dtype=torch.float64), basis)
        return (at + (levels.low - levels.high) * direction).to(x.dtype)

    def direction(
        self, x: torch.Tensor, output: torch.Tensor, sigma: float, memory: Sequence[Remembered]
    ) -> torch.Tensor:
        """(N, *shape) the solver's own direction, float64."""
        before = list(memory)[len(memory) - min(len(memory), _BEFORE[self.solver]) :]
        slopes = [(x - output) / sigma]
        slopes += [(past.state.double() - past.output) / float(past.step.high) for past in reversed(before)]
        return torch.stack([weight * slope for weight, slope in zip(_ADAMS[len(before)], slopes, strict=True)]).sum(0)


def own_basis(x: torch.Tensor, direction: torch.Tensor, memory: Sequence[Remembered], count: int) -> torch.Tensor:
    """(N, count, *shape) the basis of `PASSteps`; what the path does not span is zero.

    >>> x = torch.tensor([[3.0, 0.0]], dtype=torch.float64)
    >>> own_basis(x, torch.tensor([[0.0, 2.0]], dtype=torch.float64), [], 3)[0].round(decimals=9).tolist()
    [[0.0, 1.0], [1.0, 0.0], [0.0, 0.0]]
    """
    states = [*(past.state.double() for past in memory), x]
    start, flat = states[0].flatten(1), direction.flatten(1)
    widths = [float(past.step.low) - float(past.step.high) for past in memory]
    taken = [(b - a).flatten(1) / width for (a, b), width in zip(pairwise(states), widths, strict=True)]
    rows = torch.stack([start, *taken, flat], dim=1)
    rows = rows - rows.mean(dim=1, keepdim=True)
    values, vectors = torch.linalg.eigh(rows @ rows.transpose(1, 2))  # few rows: their components by their products
    way = (x.flatten(1) - start) if memory else start
    basis = [_unit(flat)]
    for j in range(1, count):
        if j >= rows.shape[1]:
            basis.append(torch.zeros_like(flat))
            continue
        spanned = (values[:, -j] > 1e-12 * values[:, -1])[:, None]
        part = _unit((vectors[:, :, -j, None] * rows).sum(1)) * spanned
        for _ in range(2):  # twice: once leaves rounding of what it took away
            part = part - sum(((part * u).sum(1, keepdim=True) * u for u in basis), torch.zeros_like(part))
        part = _unit(part) * (part.norm(dim=1, keepdim=True) > _NOTHING)
        basis.append(torch.where((way * part).sum(1, keepdim=True) < 0, -part, part))
    return torch.stack(basis, dim=1).reshape(x.shape[0], count, *x.shape[1:])


def _unit(flat: torch.Tensor) -> torch.Tensor:
    return flat / flat.norm(dim=1, keepdim=True).clamp(min=1e-300)


@dataclass(frozen=True)
class PAS(Rival):
    """A solver's directions corrected by a few coordinates in a basis of every sample's own path, step after step.

    Forward over the steps on the solver's own, already corrected states: coordinates shared by all samples take
    the step to the teacher's state; a step that this helps too little stays as it is ("adaptive search"). Wang, Peng,
    Li, Chen, Cai, Su 2025 (PAS, arXiv 2411.06503).

    The paper leaves to choose, or we chose: the squared distance, one of its losses, whose minimum in an orthonormal
    basis is a mean of projections and takes no descent; DDIM and iPNDM of order 3, on every start, held-out draws
    deciding; a step is corrected where that takes the share `tolerance` of its squared distance, as their
    tolerance is in units of their data; x_0 among what is decomposed; components that the path does not span yet are
    left out.

    Args:
        components: B, directions of a basis, the solver's own one of them.
        tolerance: in [0, 1].

    Raises:
        ValueError: a field out of its range; from `fit`, a budget that does not pay for one start.

    >>> PAS().name
    'pas'
    """

    components: int = 4
    tolerance: float = 0.01
    name: ClassVar[str] = "pas"
    title: ClassVar[str] = "PAS: directions in a basis of the sample's own"

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "components", integer(self.components, "PAS.components", minimum=1))
        put(self, "tolerance", number(self.tolerance, "PAS.tolerance", nonnegative=True, maximum=1.0))

    def _fitted(self, ground: Ground) -> FittedRival:
        tried: list[tuple[PASSteps, Array, GridErrors]] = []
        for place, grid in enumerate(ground.starts):
            levels = grid[1:][grid[1:] > 0]
            path = ground.reference.path(levels[:-1] if grid[-1] > 0 else levels)
            price = ground.draws.chunks * (path.calls() + 2 * ground.steps) + 2 * ground.held_out.chunks * ground.steps
            if tried and ground.batches + price > ground.budget:
                break
            ground.check(price)
            found = ground.ledger.item(f"coordinates/{place}", partial(self._of, ground, grid, path))
            ground.batches += ground.draws.chunks * (path.calls() + 2 * ground.steps)
            for solver, coordinates in found.items():
                sampler = PASSteps(grid, coordinates, solver)
                tried.append((sampler, grid, ground.held_out_errors(sampler, grid)))
        sampler, grid, errors = min(tried, key=lambda entry: float(entry[2].mean.value))
        return ground.result(self.name, sampler, grid, errors, reason=repr(sampler))

    @torch.no_grad()
    def _of(self, ground: Ground, grid: Array, path: Any) -> dict[str, Array]:
        """Coordinates of both solvers on one grid."""
        chunks = [path.states(chunk) for chunk in range(ground.draws.chunks)]
        targets = [torch.cat([states[k].double() for states, _ in chunks]) for k in range(len(chunks[0][0]))]
        targets.append(torch.cat([end.double() for _, end in chunks]))
        return {solver: self._searched(ground, grid, targets, solver) for solver in _BEFORE}

    def _searched(self, ground: Ground, grid: Array, targets: list[torch.Tensor], solver: str) -> Array:
        coordinates = np.zeros((grid.size - 1, self.components))
        x = torch.cat([ground.start(chunk) for chunk in range(ground.draws.chunks)])
        memory: list[Remembered] = []
        for k, target in enumerate(targets):
            high, low = (x.new_tensor(level) for level in grid[k : k + 2])
            output = torch.cat([ground.output(part, high) for part in x.split(ground.draws.chunk)])
            plain = PASSteps(grid, coordinates, solver).direction(x, output, float(high), memory)
            basis, wanted = own_basis(x, plain, memory, self.components), (target - x) / (low - high)
            sums = torch.stack(
                [(basis * wanted[:, None]).flatten(2).sum((0, 2)), basis.square().flatten(2).sum((0, 2))]
            )
            row = torch.where(sums[1] > 0, sums[0] / sums[1].clamp(min=1e-300), 0.0)
            moved = torch.einsum("j,nj...->n...", row, basis)
            before, after = (float(squares(d - wanted).mean()) for d in (plain, moved))
            helps = after < (1 - self.tolerance) * before
            coordinates[k] = row.cpu().numpy() if helps else 0.0
            memory.append(Remembered(SigmaStep(high, low), output, x))
            x = x + (low - high) * (moved if helps else plain)
        return coordinates
