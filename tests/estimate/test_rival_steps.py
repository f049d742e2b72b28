"""PAS: by loops in NumPy and full decompositions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import codesign_opt as co
from codesign_opt.basics.ledger import Ledger
from codesign_opt.estimate.rivals.base import Ground
from codesign_opt.estimate.runs.run import run

PAS, PASSteps = co.estimate.PAS, co.estimate.PASSteps
STOP, TOP = 0.02, 20.0
CENTRES = torch.tensor([[1.0, 0.0, 0.5], [-0.5, 1.0, 0.0], [0.2, -1.0, -0.8]], dtype=torch.float64)


def mixture(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """The exact denoiser of three bumps of variance 0.04: paths curve, and turn out of planes."""
    level = sigma.reshape(-1, 1) ** 2 + 0.04
    weight = torch.softmax(-(x[:, None] - CENTRES).square().sum(2) / (2 * level), dim=1)
    return x * 0.04 / level + (weight @ CENTRES) * sigma.reshape(-1, 1) ** 2 / level


def draws(name: str, count: int = 16) -> co.estimate.Draws:
    return co.estimate.Draws((3,), count, TOP, name=name, chunk=8, like=CENTRES)


def ground(grids: list[np.ndarray], budget: int = 5000) -> Ground:
    reference = co.estimate.Reference(mixture, co.DPMpp2M(), draws("fit"), STOP, steps=8)
    return Ground(reference, draws("held out"), grids, budget, Ledger(None, {}))


def decomposed(path: list[np.ndarray], grid: np.ndarray, direction: np.ndarray, count: int) -> np.ndarray:
    """(count, d) of one sample: singular vectors of what it has seen, QR in their order."""
    taken = [(b - a) / (low - high) for a, b, high, low in zip(path[:-1], path[1:], grid[:-1], grid[1:], strict=False)]
    rows = np.array([path[0], *taken, direction])
    vectors = np.linalg.svd(rows - rows.mean(0))[2][: min(count - 1, len(rows) - 1, rows.shape[1] - 1)]
    q = np.linalg.qr(np.array([direction, *vectors]).T)[0].T
    q[0] *= np.sign(q[0] @ direction)
    way = path[-1] - path[0] if len(path) > 1 else path[0]
    q[1:] *= np.sign(q[1:] @ way)[:, None]
    return np.vstack([q, np.zeros((count - len(q), q.shape[1]))])


@pytest.mark.parametrize("solver", ["euler", "ipndm"])
def test_pas_steps_are_those_of_a_full_decomposition(solver):
    grid, rng = co.edm_grid(5, STOP, TOP), np.random.default_rng(0)
    coordinates = rng.normal(size=(5, 3)) + np.array([2.0, 0, 0])
    coordinates[2] = 0.0  # a step of the solver's own
    x = draws("any", 4).start(0)
    found = run(mixture, PASSteps(grid, coordinates, solver), grid, x).numpy()
    for sample, end in zip(x.numpy(), found, strict=True):
        path, slopes = [sample], []
        for k in range(5):
            clean = mixture(torch.as_tensor(path[-1][None]), torch.tensor([grid[k]])).numpy()[0]
            slopes.append((path[-1] - clean) / grid[k])
            weights = {1: [1], 2: [1.5, -0.5], 3: [23 / 12, -16 / 12, 5 / 12]}[
                min(k + 1, 3) if solver == "ipndm" else 1
            ]
            direction = np.array(weights) @ np.array(slopes[::-1][: len(weights)])
            if k != 2:
                direction = coordinates[k] @ decomposed(path, grid, direction, 3)
            path.append(path[-1] + (grid[k + 1] - grid[k]) * direction)
        np.testing.assert_allclose(end, path[-1], rtol=1e-7, atol=1e-7)


def test_pas_coordinates_are_least_squares_on_its_own_states_where_they_help():
    grid = co.edm_grid(4, STOP, TOP)
    own = ground([grid])
    path = own.reference.path(grid[1:-1])
    found = PAS(components=3, tolerance=0.0)._of(own, grid, path)["euler"]
    states = [path.states(chunk) for chunk in range(own.draws.chunks)]
    targets = [np.concatenate([s[k].numpy() for s, _ in states]) for k in range(3)]
    targets.append(np.concatenate([end.numpy() for _, end in states]))
    helped: list[bool] = []
    paths = [[x] for chunk in range(own.draws.chunks) for x in own.start(chunk).numpy()]
    for k in range(4):
        bases, wanted, norms = [], [], []
        for sample, target in zip(paths, targets[k], strict=True):
            clean = mixture(torch.as_tensor(sample[-1][None]), torch.tensor([grid[k]])).numpy()[0]
            slope = (sample[-1] - clean) / grid[k]
            bases.append(decomposed(sample, grid, slope, 3).T)
            norms.append(np.linalg.norm(slope))
            wanted.append((target - sample[-1]) / (grid[k + 1] - grid[k]))
        solved = np.linalg.lstsq(np.vstack(bases), np.concatenate(wanted), rcond=1e-9)[0]
        slopes = [basis[:, 0] * norm for basis, norm in zip(bases, norms, strict=True)]
        plain = np.square(np.array(slopes) - np.array(wanted)).sum()
        corrected = np.square(np.array(bases) @ solved - np.array(wanted)).sum()
        helped.append(corrected < plain)
        np.testing.assert_allclose(found[k], solved if helped[-1] else 0.0, rtol=1e-6, atol=1e-7)
        for sample, basis, slope in zip(paths, bases, slopes, strict=True):
            sample.append(sample[-1] + (grid[k + 1] - grid[k]) * (basis @ solved if helped[-1] else slope))
    assert 0 < sum(helped) < 4  # what samples share in length, steps can take; at the top their lengths differ


def test_pas_lowers_the_error_of_unseen_draws_within_its_budget():
    reference = co.estimate.Reference(mixture, co.DPMpp2M(), draws("fit"), STOP, steps=8)
    grids, unseen = [co.edm_grid(5, STOP, TOP), co.log_snr_grid(5, STOP, TOP)], draws("unseen", 64)
    found = PAS().fit(reference, draws("held out"), grids, budget=900)
    assert found.fitting <= 900
    ends = [reference.with_draws(unseen).terminal_states(chunk) for chunk in range(unseen.chunks)]

    def error(sampler: co.Sampler, sigmas: np.ndarray) -> float:
        parts = [
            (run(mixture, sampler, sigmas, unseen.start(c)) - ends[c]).square().sum() for c in range(unseen.chunks)
        ]
        return float(sum(parts))

    plain = [error(sampler, grid) for sampler in (co.Euler(), co.IPNDM(3)) for grid in grids]
    assert error(found.sampler, found.sigmas) < 0.9 * min(plain)
    assert co.Sampler.from_dict(found.sampler.to_dict()) == found.sampler


def test_what_they_refuse_is_named():
    grid = [2.0, 1.0, 0.0]
    for call, words in (
        (lambda: PASSteps(grid, np.zeros((3, 2))), "PASSteps.coordinates"),
        (lambda: PASSteps(grid, np.zeros((2, 2)), "heun"), "PASSteps.solver"),
        (lambda: PASSteps(grid, np.zeros((2, 2))).terminal_law(grid, [1.0]), "no exact law"),
        (lambda: PASSteps(grid, np.zeros((2, 2))).local_error([1.0], [1.0], 0.1), "no order in the step"),
        (lambda: PAS(components=0), "PAS.components"),
        (lambda: PAS(tolerance=2.0), "PAS.tolerance"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
