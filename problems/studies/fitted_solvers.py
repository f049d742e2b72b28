"""Fitted multistep solvers against the plans that they begin with, on draws that neither has seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch

import codesign_opt as co
from codesign_opt.basics.checks import Array
from codesign_opt.estimate.draws.statistics import squares
from codesign_opt.estimate.runs.fine_solution import Reference
from codesign_opt.estimate.runs.run import run
from codesign_opt.estimate.steps.grid_error import GridErrors

__all__ = ["DATA", "STEPS", "fitted_solvers"]

DATA: dict[str, Callable[[], torch.Tensor]] = {
    "photo_patches": co.testbed.photo_patches,
    "digits": co.testbed.digits,
    "grid8": lambda: co.testbed.grid8().sample(50_000),
}
STEPS = (5, 8, 12)
_STOP, _TOP, _TEST = 0.002, 80.0, 1024
_FEW, _EVALUATIONS = 8, (5_000, 12_000)  # batch evaluations of a fit, of so many steps at most and of more


def fitted_solvers(
    *,
    data: Sequence[str] = tuple(DATA),
    steps: Sequence[int] = STEPS,
    history: int = 3,
    cache: str | Path | None = None,
    progress: Callable[[str], None] = print,
) -> Iterator[dict[str, Any]]:
    """One row for every network and number of steps: the plan for DPM-Solver++(2M), and the solver fitted from it on.

    Errors are mean squared distances of outputs to a fine solution (64 steps of order 4) under the same noise, on 1,024
    draws that are neither fitted nor chosen by. One row at a time.

    Args:
        data: networks of the testbed, trained first where they are not.
        steps: of the plans.
        history: outputs that a step of the fitted solver takes.
        cache: folder of trained weights.
        progress: called with a line per step of the work.
    """
    for name in data:
        denoiser, examples = co.testbed.trained(name, folder=cache), DATA[name]()
        draws = co.estimate.Draws(tuple(examples.shape[1:]), _TEST, _TOP, seed=7, name="unseen", like=examples[:1])
        fine = Reference(co.estimate.Denoiser.of(denoiser), co.Euler(), draws, _STOP, steps=64)
        ends = [fine.terminal_states(chunk) for chunk in range(draws.chunks)]
        for count in steps:
            budget = _EVALUATIONS[count > _FEW]
            measurement = co.estimate.Measurement(fit_evaluations=budget, progress=progress)
            model = co.estimate.network(denoiser, examples, sampler=co.DPMpp2M(), measurement=measurement)
            row = {"network": name, "steps": count, "history": history} | _compared(model, count, history, fine, ends)
            progress(f"{name} {count}: {row['ratio']:.3g} +- {row['ratio_error']:.2g} of the plan's error")
            yield row


def _compared(
    model: co.EstimatedModel, count: int, history: int, fine: Reference, ends: list[torch.Tensor]
) -> dict[str, Any]:
    """Errors of the plan and of the fitted solver, and what the fit took."""
    begun = perf_counter()
    plan = co.codesign(model, steps=count)
    planned = perf_counter()
    fitted = co.codesign(model, steps=count, solver="fit", history=history)
    done = perf_counter()
    assert plan.sigmas is not None
    assert fitted.sigmas is not None
    assert fitted.solver is not None
    assert fitted.measured is not None
    before, after = (
        _errors(fine, sampler, sigmas, ends)
        for sampler, sigmas in ((co.DPMpp2M(), plan.sigmas), (fitted.solver, fitted.sigmas))
    )
    ratio, fit = after.ratio(before), fitted.fits["solver"]
    return {
        "plan": float(before.mean.value), "plan_error": float(before.mean.standard_error),
        "fitted": float(after.mean.value), "fitted_error": float(after.mean.standard_error),
        "ratio": float(ratio.value), "ratio_error": float(ratio.standard_error),
        "ratio_of_geometric_means": float(after.geometric_mean.value / before.geometric_mean.value),
        "said": fitted.measured.value, "said_error": fitted.measured.standard_error,
        "fit_evaluations": int(fit["evaluations"]), "numbers": int(fit["numbers"]),
        "plan_seconds": round(planned - begun, 1), "seconds": round(done - planned, 1),
        "gap": float(fit["gap"]),
    }  # fmt: skip


@torch.no_grad()
def _errors(fine: Reference, sampler: co.Sampler, sigmas: Array, ends: list[torch.Tensor]) -> GridErrors:
    starts = [fine.draws.start(chunk) for chunk in range(fine.draws.chunks)]
    found = [squares(run(fine.denoiser, sampler, sigmas, x) - end) for x, end in zip(starts, ends, strict=True)]
    return GridErrors(np.concatenate([part.numpy() for part in found]))
