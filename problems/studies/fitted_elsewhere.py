"""Fitted solvers elsewhere: at earlier weights of a run, from half the draws, and with all outputs at last."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import codesign_opt as co
from codesign_opt.basics.checks import Array
from codesign_opt.estimate import FittedSolver, Measurement
from codesign_opt.estimate.draws.statistics import squares
from codesign_opt.estimate.runs.fine_solution import Draws, Reference
from codesign_opt.estimate.runs.run import run
from codesign_opt.estimate.steps.grid_error import GridErrors

from .fitted_solvers import DATA

__all__ = ["EARLIER", "fitted_elsewhere"]

EARLIER = (5_000, 3_000, 1_000)  # of 6,000 iterations
_STOP, _TOP, _TEST, _CHUNK = 0.002, 80.0, 1024, 256


def fitted_elsewhere(
    *,
    data: Sequence[str] = tuple(DATA),
    steps: Sequence[int] = (5, 8),
    earlier: Sequence[int] = EARLIER,
    cache: str | Path | None = None,
    progress: Callable[[str], None] = print,
) -> Iterator[dict[str, Any]]:
    """One row for every network, number of steps and place: errors of the fitted solver, and of the plan's grid there.

    The plan is for DPM-Solver++(2M) on the last weights, and so are the fits from its grid on: as they are by default,
    on half the draws, and with all outputs at last. The first is tried at earlier weights too. Errors are mean squared
    distances to each network's own fine solution on 1,024 draws that nothing was chosen on.

    Args:
        data: networks of the testbed, trained first where they are not.
        steps: of the plans.
        earlier: iterations at which averaged weights were kept.
        cache: folder of trained weights.
        progress: called with a line per row.
    """
    for name in data:
        trained, examples = co.testbed.trained(name, folder=cache), DATA[name]()
        places = {"last": _place(trained, examples)}
        places |= {f"at {k:,}": _place(trained.at(k), examples) for k in earlier}
        for count in steps:
            model = co.estimate.network(trained, examples, sampler=co.DPMpp2M())
            grid = co.codesign(model, steps=count).sigmas
            assert grid is not None
            fits = {
                kind: _fitted(trained, examples, grid, kind) for kind in ("default", "half the draws", "all outputs")
            }
            tries = [("default", place) for place in places] + [(kind, "last") for kind in tuple(fits)[1:]]
            for kind, place in tries:
                row = {"network": name, "steps": count, "fit": kind, "weights": place}
                row |= _compared(*places[place], fits[kind], grid)
                progress(f"{name} {count} {kind} {place}: {row['ratio']:.3g} +- {row['ratio_error']:.2g} of the plan's")
                yield row


def _fitted(denoiser: Any, examples: torch.Tensor, grid: Array, kind: str) -> FittedSolver:
    measurement = Measurement()
    if kind == "half the draws":
        measurement = replace(measurement, draws=measurement.draws // 2)
    history: int | str = "all" if kind == "all outputs" else 3
    return co.estimate.fit_solver(
        denoiser, examples, grid, history=history, stopping_sigma=_STOP, measurement=measurement
    )


def _place(denoiser: Any, examples: torch.Tensor) -> tuple[Reference, list[torch.Tensor]]:
    """A network's fine solution on the test draws."""
    draws = Draws(tuple(examples.shape[1:]), _TEST, _TOP, seed=7, name="unseen", chunk=_CHUNK, like=examples[:1])
    fine = Reference(denoiser, co.Euler(), draws, _STOP, steps=64)
    return fine, [fine.terminal_states(chunk) for chunk in range(draws.chunks)]


def _compared(fine: Reference, ends: list[torch.Tensor], found: FittedSolver, grid: Array) -> dict[str, Any]:
    before, after = _errors(fine, co.DPMpp2M(), grid, ends), _errors(fine, found.solver, found.solver.levels, ends)
    ratio = after.ratio(before)
    return {
        "plan": float(before.mean.value), "fitted": float(after.mean.value),
        "ratio": float(ratio.value), "ratio_error": float(ratio.standard_error),
        "ratio_of_geometric_means": float(after.geometric_mean.value / before.geometric_mean.value),
        "fit_evaluations": found.batches, "numbers": found.numbers, "gap": found.gap,
    }  # fmt: skip


@torch.no_grad()
def _errors(fine: Reference, sampler: co.Sampler, sigmas: Array, ends: list[torch.Tensor]) -> GridErrors:
    starts = [fine.draws.start(chunk) for chunk in range(fine.draws.chunks)]
    found = [squares(run(fine.denoiser, sampler, sigmas, x) - end) for x, end in zip(starts, ends, strict=True)]
    return GridErrors(np.concatenate([part.numpy() for part in found]))
