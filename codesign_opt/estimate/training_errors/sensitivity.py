"""Sensitivity of the sampler's output to an error of the state at a noise level, through the rest of the sampler."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...basics.checks import AT_ONCE, Array, choice, integer, noise_levels, number, shown, takes
from ...basics.fields import holds
from ...basics.ledger import Ledger
from ...basics.user_code import told_in
from ..denoisers.denoiser import Denoiser
from ..draws.statistics import Estimate, squares
from ..draws.streams import my_share, rademacher
from ..runs.fine_solution import FinePath, Reference, gathered
from ..runs.run import run

__all__ = ["Direction", "OutputSensitivity", "calls_of_pairs", "difference_of", "ratio_of_means", "sensitivity"]

_SAME_DIRECTION = 0.2  # relative distance of one direction's answers; different ones are of the size of 1
Direction = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True, eq=False)
class OutputSensitivity:
    """g^2(sigma) = E|J e|^2 / E|e|^2, J = d(terminal) / d(state at sigma), on (M,) levels.

    The score coefficients of section 4 are (1 + eta^2)^2 g^2 kappa / sigma^2.

    Attributes:
        sigma: (M,) levels, as they were asked for.
        gain: g^2 with its standard error over draws.
        nonlinearity: (M,) relative change of g^2 when the perturbation doubles, on the first batch;
            nan for the adjoint, which has none. Above some 10 % take smaller perturbations.
        calls: batches that the denoiser was asked for by this process.
    """

    sigma: Array
    gain: Estimate
    nonlinearity: Array
    calls: int

    def __post_init__(self) -> None:
        holds(self, sigma="level", gain=Estimate, nonlinearity="level", calls=int)


def difference_of(first: Any, second: Any) -> Direction:
    """Direction of the error between two denoisers: two checkpoints, or a network and its average (EMA)."""
    one, other = Denoiser.of(first), Denoiser.of(second)
    return lambda x, sigma: one(x, sigma) - other(x, sigma)


@takes(reference=Reference, direction=callable)
def sensitivity(
    reference: Reference,
    levels: Any,
    *,
    direction: Direction | None = None,
    method: str = "pairs",
    relative: float = 0.05,
    probes: int = 1,
    folder: str | Path | None = None,
) -> OutputSensitivity:
    """g^2 = E|J e|^2 / E|e|^2 through the rest of the fine sampler, docs/theory.md section 4.

    "pairs" runs the rest from x + p and x - p, p along e: two passes per level and probe, no
    gradients. "adjoint" takes vector-Jacobian products with random signs z on the output: one pass
    forward and one back serve all levels, |J^T z|^2 for isotropic errors and (z^T J e)^2 for directed
    ones (unbiased, noisier). Isotropic errors are wrong where the spectrum is not flat: give a direction.

    Args:
        reference: the sampler's fine solution.
        levels: (M,) noise levels in any order, between its ends.
        direction: (x, sigma) -> e like the denoiser's error there, at the fine state; random signs
            in every entry by default. Its size cancels.
        relative: root mean square of the perturbation p, in units of sigma.
        probes: random directions per draw ("pairs") or cotangents ("adjoint").
        folder: where finished levels are kept, so that a killed run goes on.

    Raises:
        ValueError: a malformed argument, or a direction that is zero at all draws of a level.
        DenoiserError: see Denoiser.

    >>> from codesign_opt import Euler
    >>> from codesign_opt.estimate.runs.fine_solution import Draws
    >>> linear = lambda x, sigma: x / (1 + sigma[:, None] ** 2)
    >>> draws = Draws((1,), 4, 20.0, like=torch.zeros((), dtype=torch.float64))
    >>> found = sensitivity(Reference(linear, Euler(), draws, 0.01), [1.0])
    >>> round(float(found.gain.value[0]), 3)  # P / v = 1 / (1 + 1)
    0.5
    """
    wanted = noise_levels(levels, "levels")
    choice(method, "method", ("pairs", "adjoint"))
    size, count = number(relative, "relative", positive=True), integer(probes, "probes", minimum=1, maximum=AT_ONCE)
    question = {"what": "sensitivity", "levels": wanted.tolist(), "method": method, "relative": size, "probes": count}
    ledger = reference.items_in(folder, question | {"direction": "isotropic" if direction is None else "given"})
    if direction is not None and ledger.folder is not None:  # differences of two networks have few digits
        reference.check_same(Denoiser.of(direction), "direction", ledger.folder, most=_SAME_DIRECTION)
    work = _Work(reference, reference.path(wanted), direction, size, count, ledger)
    before = reference.denoiser.calls
    position = [work.path.index(sigma) for sigma in wanted]
    measure = work.pairs if method == "pairs" else work.adjoint
    parts = {chunk: measure(chunk) for chunk in my_share(reference.draws.chunks)}
    table = gathered(reference.draws, parts, (work.path.levels.size, 3))[:, position]
    total = table.sum(axis=0)
    if np.any(total[:, 1] <= 0):
        raise ValueError(f"direction is zero at sigma = {wanted[np.argmin(total[:, 1])]:g} for every draw.")
    doubled = table[reference.draws.rows(0)].sum(axis=0)
    bend = doubled[:, 2] / np.where(doubled[:, 0] > 0, doubled[:, 0], 1.0) - 1 if method == "pairs" else np.nan
    calls = reference.denoiser.calls - before
    return OutputSensitivity(wanted, ratio_of_means(table[..., 0], table[..., 1]), bend + np.zeros(wanted.size), calls)


def calls_of_pairs(reference: Reference, levels: Any) -> int:
    """Calls of the denoiser that `sensitivity` makes by pairs with one probe, directions not counted."""
    path, chunks = reference.path(levels), reference.draws.chunks
    rest = sum(path.calls(level) for level in range(path.levels.size))
    return chunks * (path.calls() + 2 * rest) + 2 * rest  # the first chunk at twice the perturbation too


def ratio_of_means(top: Array, base: Array) -> Estimate:
    """mean(top) / mean(base) over the first axis, with the standard error of the ratio (first order)."""
    count = top.shape[0]
    ratio = top.mean(axis=0) / base.mean(axis=0)
    rest = top - ratio * base
    spread = np.sqrt((rest**2).sum(axis=0) / (count - 1)) if count > 1 else np.full(ratio.shape, np.inf)
    return Estimate(ratio, spread / np.sqrt(count) / base.mean(axis=0), count)


@dataclass(frozen=True, eq=False)
class _Work:
    """One chunk's (n, M, 3) table: |J e|^2, |e|^2 and |J e|^2 at twice the perturbation, per draw."""

    reference: Reference
    path: FinePath
    direction: Direction | None
    relative: float
    probes: int
    ledger: Ledger

    def pairs(self, chunk: int) -> torch.Tensor:
        states: list[torch.Tensor] = []  # made when the first level is missing
        columns = []
        for level in range(self.path.levels.size):

            def compute(level: int = level) -> dict[str, Array]:
                if not states:
                    states.extend(self.path.states(chunk)[0])
                return {"table": self._pairs_at(chunk, level, states[level])}

            columns.append(torch.as_tensor(self.ledger.item(f"chunk{chunk}/level{level}", compute)["table"]))
        return torch.stack(columns, dim=1)

    @torch.no_grad()
    def _pairs_at(self, chunk: int, level: int, x: torch.Tensor) -> Array:
        total = torch.zeros((x.shape[0], 3), dtype=torch.float64)
        for probe in range(self.probes):
            error = self._error(chunk, level, x, probe)
            scale = squares(error).mean().div(error[0].numel()).sqrt()
            if float(scale) == 0:
                continue
            step = self.relative * float(self.path.levels[level]) / float(scale)
            total[:, 0] += self._response(chunk, level, x, step * error) / step**2
            total[:, 1] += squares(error)
            if chunk == 0:
                total[:, 2] += self._response(chunk, level, x, 2 * step * error) / (2 * step) ** 2
        return (total / self.probes).numpy()

    def _response(self, chunk: int, level: int, x: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        ends = [self.path.finish(chunk, level, x + sign * shift) for sign in (1.0, -1.0)]
        return squares(0.5 * (ends[0] - ends[1]))

    def _error(self, chunk: int, level: int, x: torch.Tensor, probe: int) -> torch.Tensor:
        sigma = float(self.path.levels[level])
        if self.direction is not None:
            with told_in("direction(x, sigma)"):
                error = self.direction(x, torch.full((x.shape[0],), sigma, dtype=x.dtype, device=x.device))
            if not torch.is_tensor(error) or error.shape != x.shape or not error.is_floating_point():
                raise ValueError(
                    f"direction(x, sigma) returned {shown(error)}; a tensor of the states' shape is needed."
                )
            return error
        draws = self.reference.draws
        return rademacher(draws.seed, draws.name, "probe", chunk, level, probe, shape=tuple(x.shape), like=x)

    def adjoint(self, chunk: int) -> torch.Tensor:
        states: list[torch.Tensor] = []
        total: Any = 0.0
        for probe in range(self.probes):

            def compute(probe: int = probe) -> dict[str, Array]:
                if not states:
                    states.extend(self.path.states(chunk)[0])
                return {"table": self._adjoint_of(chunk, states, probe).numpy()}

            total = total + torch.as_tensor(self.ledger.item(f"chunk{chunk}/probe{probe}", compute)["table"])
        return total / self.probes

    def _adjoint_of(self, chunk: int, states: list[torch.Tensor], probe: int) -> torch.Tensor:
        draws = self.reference.draws
        shape = tuple(states[0].shape)
        cotangent = rademacher(draws.seed, draws.name, "cotangent", chunk, probe, shape=shape, like=states[0])
        columns = []
        for level in reversed(range(len(states))):
            cotangent = self._pull_back(chunk, level, states, cotangent)
            if self.direction is None:
                dims = float(cotangent[0].numel())
                pair = (squares(cotangent), torch.full((shape[0],), dims, dtype=torch.float64))
            else:
                error = self._error(chunk, level, states[level], 0).detach()
                pair = ((cotangent * error).double().flatten(1).sum(dim=1).square().cpu(), squares(error))
            columns.append(torch.stack([*pair, torch.zeros(shape[0], dtype=torch.float64)], dim=1))
        return torch.stack(columns[::-1], dim=1)

    def _pull_back(self, chunk: int, level: int, states: list[torch.Tensor], cotangent: torch.Tensor) -> torch.Tensor:
        """J^T z from the level below (from the output for the last) to this one, node by node: little memory."""
        draws, path = self.reference.draws, self.path
        nodes = path.grid(level) if level == len(states) - 1 else path.leg(level + 1)
        noise = draws.noise(chunk, self.reference.stopping_sigma)
        act = (self.reference.denoiser, self.reference.fine)
        with torch.no_grad():
            inside = [states[level]]
            for k in range(nodes.size - 2):
                inside.append(run(*act, nodes[k : k + 2], inside[-1], noise, place=path.place))
        for k in reversed(range(nodes.size - 1)):
            leaf = inside[k].detach().requires_grad_(True)
            end = run(*act, nodes[k : k + 2], leaf, noise, place=path.place)
            (cotangent,) = torch.autograd.grad(end, leaf, cotangent)
        return cotangent
