"""Rivals that are fitted: gradients against differences, dynamic programming against enumeration, kills, budgets."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest
import torch

import codesign_opt as co
from codesign_opt.basics.ledger import Ledger
from codesign_opt.estimate.rivals.base import Ground
from codesign_opt.estimate.rivals.unrolled import FreeGrid, unrolled
from codesign_opt.estimate.runs.run import run
from codesign_opt.estimate.solver_fit.rows import two_step_rows

LAM = torch.tensor([1.0, 0.05], dtype=torch.float64)
GRIDS = [co.edm_grid(4, 0.02, 20.0), co.log_snr_grid(4, 0.02, 20.0)]
S4S, LD3, Bespoke, OptimalSteps = (getattr(co.estimate, name) for name in ("S4S", "LD3", "Bespoke", "OptimalSteps"))
LEARNED = [S4S(), S4S(rounds=2), Bespoke(), LD3()]


def gaussian(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    return x * LAM / (LAM + sigma[:, None] ** 2)


def draws(name: str, count: int = 16) -> co.estimate.Draws:
    return co.estimate.Draws((2,), count, 20.0, name=name, chunk=8, like=LAM)


def reference(sampler: co.Sampler | None = None, denoiser=gaussian, **options: object) -> co.estimate.Reference:
    return co.estimate.Reference(denoiser, sampler or co.DPMpp2M(), draws("fit"), 0.02, steps=8, **options)


def ground(budget: int = 5000, **options: object) -> Ground:
    return Ground(reference(**options), draws("held out"), GRIDS, budget, Ledger(None, {}))


@pytest.mark.parametrize("rival", LEARNED, ids=lambda rival: rival.name)
def test_without_iterations_a_rival_is_its_best_start_under_2m(rival):
    least = ground().batches + 2 * 2 * 4 + 2 * 4  # the starts, and the unknowns at theirs
    found = rival.fit(reference(), draws("held out"), GRIDS, budget=least)
    errors = {id(grid): co.estimate.measured_error(reference().with_draws(draws("held out")), grid) for grid in GRIDS}
    best = min(GRIDS, key=lambda grid: float(errors[id(grid)].mean.value))
    assert found.iterations == 0
    np.testing.assert_allclose(found.sigmas, best, rtol=1e-12)
    np.testing.assert_allclose(found.held_out.errors, errors[id(best)].errors, rtol=1e-9)


@pytest.mark.parametrize("rival", LEARNED, ids=lambda rival: rival.name)
def test_gradients_are_those_of_differences(rival):
    own, start = ground(), GRIDS[0]
    unknowns = {k: v.double().requires_grad_(True) for k, v in rival._begun(start, own).items()}
    if "steps" in unknowns:  # a grid as long as its range has a kink: it can be shortened alone
        unknowns["steps"].data -= 0.02
    x, end = own.start(0), own.end(own.draws, 0)

    def loss() -> torch.Tensor:
        return rival._loss(rival._output(unknowns, start, own, x) - end)

    names = [name for name in unknowns if name != "steps" or getattr(rival, "rounds", 1)]
    slopes = torch.autograd.grad(loss(), [unknowns[name] for name in names])
    rng = np.random.default_rng(0)
    for name, slope in zip(names, slopes, strict=True):
        way = torch.as_tensor(rng.normal(size=tuple(slope.shape)))
        with torch.no_grad():
            ends = []
            for side in (1, -1):
                unknowns[name].data += side * 1e-6 * way
                ends.append(float(loss()))
                unknowns[name].data -= side * 1e-6 * way
        assert float((slope * way).sum()) == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-5, abs=1e-8)


@pytest.mark.cases(1)
@pytest.mark.parametrize("rival", LEARNED, ids=lambda rival: rival.name)
def test_a_fit_lowers_the_error_of_unseen_draws_within_its_budget(rival):
    calls, budget = [0], 1000

    def counted(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        calls[0] += 1
        return gaussian(x, sigma)

    found = rival.fit(reference(denoiser=counted), draws("held out"), GRIDS, budget=budget)
    asked = calls[0]
    unseen = draws("unseen", 64)
    ends = [reference().with_draws(unseen).terminal_states(chunk) for chunk in range(unseen.chunks)]
    errors = [
        float(sum((run(gaussian, s, g, unseen.start(c)) - ends[c]).square().sum() for c in range(unseen.chunks)))
        for s, g in ((found.sampler, found.sigmas), *((co.DPMpp2M(), grid) for grid in GRIDS))
    ]
    assert errors[0] < (0.9 if rival.name == "s4s" else 0.7) * min(errors[1:])
    assert asked <= found.fitting <= budget  # the way back is priced beside the calls


def test_a_killed_fit_goes_on_to_the_same_result(tmp_path, monkeypatch):
    rival, whole = S4S(rounds=2), S4S(rounds=2).fit(reference(), draws("held out"), GRIDS, budget=800)
    put, count = Ledger.put, [0]

    def dying(self: Ledger, name: str, **arrays: object) -> None:
        put(self, name, **arrays)
        count[0] += name.startswith("block")
        if count[0] == 7:
            raise KeyboardInterrupt

    monkeypatch.setattr(Ledger, "put", dying)
    with pytest.raises(KeyboardInterrupt):
        rival.fit(reference(), draws("held out"), GRIDS, budget=800, folder=tmp_path)
    monkeypatch.setattr(Ledger, "put", put)
    again = rival.fit(reference(), draws("held out"), GRIDS, budget=800, folder=tmp_path)
    assert again.sampler == whole.sampler
    assert again.fitting == whole.fitting


def test_soft_starts_stay_in_their_ball():
    rival = LD3(radius=0.5)
    from codesign_opt.estimate.rivals.gradient_fit import _Descent

    descent = _Descent(rival, ground(), GRIDS[0])
    now = descent._begun()
    for number in range(9):
        descent._iteration(now, number, 10)
    norms = now.soft[0].norm(dim=1)
    assert float(norms.max()) == pytest.approx(0.5 * 2 / 16 * 20.0, rel=1e-9)
    assert float(norms.min()) > 0


def test_optimal_steps_are_those_of_enumeration():
    # a linear denoiser and one draw: the student's states are numbers, every path is run by itself
    own = ground(sampler=co.Euler())
    teacher = co.edm_grid(8, 0.02, 20.0)
    starts = torch.cat([own.start(chunk) for chunk in range(own.draws.chunks)])
    ahead = [run(gaussian, co.Euler(), teacher[: j + 1], starts) if j else starts for j in range(9)]
    lam = LAM.numpy()

    def away(path: tuple[int, ...]) -> float:
        factor = np.ones(2)
        for i, j in pairwise(path):
            factor *= (lam + teacher[j] * teacher[i]) / (lam + teacher[i] ** 2)
        return float((torch.as_tensor(factor) * starts - ahead[path[-1]]).square().mean())

    for steps in (2, 3, 4):
        best: dict[int, tuple[int, ...]] = {0: (0,)}
        for k in range(1, steps + 1):
            ends = [8] if k == steps else range(k, 9 - (steps - k))
            best = {j: min(((*p, j) for i, p in best.items() if i < j), key=away) for j in ends}
        rule = OptimalSteps(teacher_steps=8)
        own.starts[:] = [co.edm_grid(steps, 0.02, 20.0)]
        found = rule._searched(own, teacher)["path"].tolist()
        assert found == list(best[8])
        if steps == 2:  # one inner node: the recursion is enumeration
            assert found == list(min(((0, i, 8) for i in range(1, 8)), key=away))
        every = [away((0, *inner, 8)) for inner in combinations(range(1, 8), steps - 1)]
        assert away(tuple(found)) <= np.quantile(every, 0.1) + 1e-15


def test_optimal_steps_take_the_budget_that_they_are_given():
    found = OptimalSteps().fit(reference(), draws("held out"), GRIDS, budget=500)
    assert found.fitting <= 500
    assert found.sigmas.size == 5
    with pytest.raises(ValueError, match="budget is 160 batches"):
        OptimalSteps().fit(reference(), draws("held out"), GRIDS, budget=160)


def test_unrolled_is_the_sampler_and_free_grids_keep_their_range():
    rows = two_step_rows(GRIDS[0], 2)
    tensors = (torch.as_tensor(part) for part in (rows.levels, rows.a, rows.c))
    x, own = ground().start(0), ground()
    expected = run(gaussian, co.DPMpp2M(), GRIDS[0], x)
    torch.testing.assert_close(unrolled(own.output, *tensors, x), expected, rtol=1e-12, atol=1e-12)
    for grid in (GRIDS[0], co.edm_grid(4, 0.02, 20.0, terminal="rescale")):
        family, numbers = FreeGrid.of(grid, 0.02)
        np.testing.assert_allclose(family.levels(torch.as_tensor(numbers)).numpy(), grid, rtol=1e-12)
        far = family.levels(torch.as_tensor(numbers + 3.0)).numpy()
        assert np.all(np.diff(far) < 0)
        assert far[far > 0][-1] == pytest.approx(0.02, rel=1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"starts": []}, "at least one grid"),
        ({"held_out": draws("fit")}, "another name"),
        ({"budget": 10}, "budget is 10 batches"),
        ({"reference": reference(co.Ancestral())}, "draws noise"),
        ({"reference": reference(denoiser=lambda x, sigma: gaussian(x, sigma).detach())}, "takes gradients"),
    ],
)
def test_refusals_name_the_remedy(options, message):
    given = {"reference": reference(), "held_out": draws("held out"), "starts": GRIDS, "budget": 900} | options
    with pytest.raises(ValueError, match=message):
        LD3().fit(**given)
