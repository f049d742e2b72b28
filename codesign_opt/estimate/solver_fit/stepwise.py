"""Stepwise fit: each row of a solver by ridge regression on the solver's own states."""

from __future__ import annotations

import torch

from ...basics.checks import Array
from ..draws.streams import my_share
from .quadratic import QuadraticStep, damped_step
from .row_runs import Path, RowRuns, summed
from .rows import Rows

__all__ = ["stepwise_fit"]

_RIDGES = (1e-7, 1e-5, 1e-3, 1e-1)  # of the columns' own sizes


def stepwise_fit(runs: RowRuns, held_out: RowRuns, start: Rows) -> tuple[Rows, list[QuadraticStep]]:
    """Rows that bring the solver's own states to the fine solution's, step by step.

    Row k minimises sum_i |x_{i,k+1}(w) - x*_{i,k+1}|^2 + mu |w - w_start|^2_S over its free numbers w = (a_k, c_k1, …),
    a strictly convex quadratic, with the states that the rows before it made: states of the fine solution would hide
    what those leave (docs/theory.md section 7.11). mu is the one whose row does best on the held-out draws.

    Args:
        runs: draws that are fitted.
        held_out: independent draws.
        start: rows to start from.

    Returns:
        the rows, and the certified program behind each.
    """
    rows, proofs = start, []
    paths, targets = _begun(runs, start), _targets(runs, start)
    others, marks = _begun(held_out, start), _targets(held_out, start)
    for k in range(start.steps):
        _ask(runs, rows, k, paths)
        _ask(held_out, rows, k, others)
        gram, slope, _ = _normal_equations(rows, k, paths, targets)
        tests = _normal_equations(rows, k, others, marks)
        steps = [damped_step(gram, slope, ridge) for ridge in _RIDGES]
        kept = min(steps, key=lambda step: _lost(tests, step.move))
        if _lost(tests, kept.move) < 0:
            rows = rows.with_row(k, rows.free(k) + kept.move)
        proofs.append(kept)
        for path in (*paths.values(), *others.values()):
            path.states.append(_columns(rows, k, path)[0] + _shift(rows, k, path))
    return rows, proofs


def _begun(runs: RowRuns, rows: Rows) -> dict[int, Path]:
    return {chunk: Path([runs.draws.start(chunk).double()], []) for chunk in my_share(runs.draws.chunks)}


def _targets(runs: RowRuns, rows: Rows) -> dict[int, list[torch.Tensor]]:
    return {chunk: runs.targets(rows.levels, chunk) for chunk in my_share(runs.draws.chunks)}


@torch.no_grad()
def _ask(runs: RowRuns, rows: Rows, k: int, paths: dict[int, Path]) -> None:
    for path in paths.values():
        path.outputs.append(runs.output(path.states[k], float(rows.levels[k])))
    runs.batches += runs.draws.chunks


def _columns(rows: Rows, k: int, path: Path) -> list[torch.Tensor]:
    """D_k, then what the free numbers of row k multiply: x_k - D_k, D_{k-1} - D_k, …"""
    now = path.outputs[k]
    return [now, path.states[k] - now, *(path.outputs[k - j] - now for j in range(1, 1 + rows.reach(k)))]


def _shift(rows: Rows, k: int, path: Path) -> torch.Tensor:
    _, *columns = _columns(rows, k, path)
    return sum((float(w) * column for w, column in zip(rows.free(k), columns, strict=True)), torch.zeros(()).double())


def _normal_equations(
    rows: Rows, k: int, paths: dict[int, Path], targets: dict[int, list[torch.Tensor]]
) -> tuple[Array, Array, float]:
    """Gram matrix of the columns, slope at the present row, and squared residual there, over all draws."""
    parts, size = [], 1 + rows.reach(k)
    for chunk, path in paths.items():
        _, *columns = _columns(rows, k, path)
        rest = path.outputs[k] + _shift(rows, k, path) - targets[chunk][k]
        stacked = torch.stack([*(column.flatten() for column in columns), rest.flatten()])
        parts.append((stacked @ stacked.T).cpu().numpy())
    total = summed(parts, (size + 1, size + 1))
    return total[:-1, :-1], total[:-1, -1], float(total[-1, -1])


def _lost(equations: tuple[Array, Array, float], move: Array) -> float:
    """Change of half the squared residual by a move of the row."""
    gram, slope, _ = equations
    return float(slope @ move + 0.5 * move @ gram @ move)
