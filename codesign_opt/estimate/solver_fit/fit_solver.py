"""fit_solver: a multistep solver for a denoiser at hand, from the noise levels that it is sampled on today."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from numpy.typing import ArrayLike

from ...basics.checks import Array, ndim, number, takes
from ...basics.progress import teller
from ...ingredients.fit_rules import FitRules
from ...ingredients.grids import check_grid
from ...samplers.members import Euler
from ..denoisers.denoiser import Denoise, Denoiser
from ..draws.streams import first_of
from ..measurement import Measurement
from ..runs.fine_solution import Draws, Reference
from ..steps.grid_descent import USUAL_STOPS, usual_grids
from .fit_rows import FittedSolver, fit_rows

__all__ = ["fit_solver"]


@takes(measurement=Measurement)
def fit_solver(
    denoiser: Denoise,
    data: Any,
    sigmas: ArrayLike,
    *,
    history: int | str = 3,
    moves: str = "both",
    objective: str = "mean",
    stopping_sigma: float | None = None,
    measurement: Measurement | None = None,
    seed: int = 0,
    folder: str | Path | None = None,
) -> FittedSolver:
    """Multistep solver x_{k+1} = a_k x_k + sum_j c_kj D_{k-j} nearest to the fine solution of a denoiser.

    For the best of the given grids and the usual ones of as many steps, each row by ridge regression on the solver's
    own states, then Gauss-Newton in all coefficients and levels at once: quadratic programs, each solved with its
    certificate; draws held out decide, and the start is kept where they do not gain. One call of the denoiser a step.
    docs/theory.md section 7.11.

    Args:
        denoiser: callable (x, sigma) -> x0 in the rescaled state, a module, or a `Denoiser`; a guided one, several
            conditions or weights at once (`guided`, `conditioned`, `mixed`).
        data: tensor, array, Dataset, DataLoader or iterable of batches; the shape, dtype and device of the states.
        sigmas: (K+1,) descending noise levels that it is sampled on, data units, or a list of such grids of as many
            steps; the last may be 0.
        history: outputs of the denoiser that a step takes, h >= 1; "all": three, then, as a last polish that is kept
            where held-out draws gain, every one before it.
        moves: "both", "coefficients" or "levels" (of steps of DPM-Solver++(2M), or of Euler for a history of 1).
        objective: the "mean", "trimmed" or "geometric" mean of the squared distances of draws.
        stopping_sigma: where the fine solution stops, and levels may go down to; the lowest level of the grids unless
            given. Under a last 0 the error of stopping at the grid's own lowest level counts, if this is lower.
        measurement: twice its `draws` are fitted and as many held out, `fit_evaluations` is the most batches (calls of
            the denoiser) that a fit may take; `fine_steps`, `chunk`, `device` and `progress` too.
        seed: of all draws.
        folder: where finished parts are kept, so that the same call after a kill goes on to the same result.

    Returns:
        FittedSolver; its `solver` is a `Sampler` on its own levels: `estimate.run(denoiser, found.solver,
        found.solver.levels, x)` samples with it.

    Raises:
        ValueError: a malformed argument, grids of different starts, lengths or ends, or a budget below the fixed part.
        DenoiserError: a denoiser whose answers cannot be used.

    >>> import codesign_opt as co
    >>> lam = torch.tensor([1.0, 0.1], dtype=torch.float64)
    >>> found = fit_solver(
    ...     lambda x, sigma: x * lam / (lam + sigma[:, None] ** 2), torch.zeros(2, 2, dtype=torch.float64),
    ...     co.edm_grid(4, 0.01, 10.0), measurement=Measurement(draws=8),
    ... )
    >>> found.gain < 0.01, co.estimate.run(lambda x, sigma: 0 * x, found.solver, found.solver.levels, lam[None]).shape
    (True, torch.Size([1, 2]))
    """
    rules = FitRules(history, moves, objective)
    asked = Measurement() if measurement is None else measurement
    grids, function = _grids(sigmas), Denoiser.of(denoiser)
    first, _ = first_of(data)
    high, low = float(grids[0][0]), min(float(grid[grid > 0][-1]) for grid in grids)
    stop = low if stopping_sigma is None else min(low, number(stopping_sigma, "stopping_sigma", positive=True))
    terminal, steps = "denoise" if grids[0][-1] == 0 else "rescale", grids[0].size - 1
    rules = replace(rules, free_stop=terminal == "denoise")  # a state at the last level is what is asked for otherwise
    device = first.device if asked.device is None else torch.device(asked.device)
    like = torch.zeros((), dtype=first.dtype, device=device)
    draws = Draws(tuple(first.shape[1:]), 2 * asked.draws, high, seed, "fit", chunk=asked.chunk, like=like)
    reference = Reference(function, Euler(), draws, stop, terminal, asked.fine_steps)
    stops = sorted({low, *(s for s in USUAL_STOPS if terminal == "denoise" and low < s < 0.1 * high)})
    found = fit_rows(
        reference,
        replace(draws, count=asked.draws, name="held out"),
        [*grids, *usual_grids(steps, high, stops=stops, terminal=terminal)],
        rules=rules,
        budget=asked.fit_evaluations,
        folder=folder,
    )
    teller(asked.progress)(repr(found))
    return found


def _grids(sigmas: Any) -> list[Array]:
    """One grid or several."""
    several = isinstance(sigmas, Sequence) and len(sigmas) > 0 and ndim(sigmas[0]) > 0
    found = [check_grid(grid).sigmas for grid in (sigmas if several or ndim(sigmas) == 2 else [sigmas])]
    if not found:
        raise ValueError("fit_solver: sigmas holds no grid; give the noise levels that the fit begins with.")
    return found
