"""fit_solver on any denoiser: the user's call, conditions and guidance weights in turn, half precision, all outputs."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

import codesign_opt as co
from codesign_opt.estimate import Draws, Measurement, Reference, conditioned, fit_solver, guided, mixed, run
from codesign_opt.estimate.steps.grid_error import GridErrors
from codesign_opt.testbed import MLP, Mixture, circle8

FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"
GRID = co.edm_grid(5, 0.02, 20.0)
WHOLE = circle8()
DATA = WHOLE.sample(8, dtype=torch.float64)
FEW = Measurement(draws=12, fine_steps=16, fit_evaluations=700)


def ratio(denoiser, solver, grid, *, count=256, objective="mean"):
    """Error of a solver over that of DPM-Solver++(2M) on a grid, on draws that neither has seen."""
    draws = Draws((2,), count, 20.0, name="unseen", chunk=256, like=DATA[:1])
    fine, errors = Reference(denoiser, co.Euler(), draws, 0.02, steps=48), []
    ends = [fine.terminal_states(chunk) for chunk in range(draws.chunks)]
    for sampler, levels in ((solver, solver.levels), (co.DPMpp2M(), grid)):
        outputs = [run(denoiser, sampler, levels, draws.start(chunk)) for chunk in range(draws.chunks)]
        both = zip(outputs, ends, strict=True)
        errors.append(GridErrors(torch.cat([(x - end).square().sum(1) for x, end in both]).numpy()))
    return errors[0].ratio(errors[1], objective)


# ---- the user's call ----


def test_a_fit_gains_on_unseen_draws_and_says_so(tmp_path):
    lines = []
    few = Measurement(draws=16, fine_steps=24, fit_evaluations=800, progress=lines.append)
    found = fit_solver(WHOLE, DATA, GRID, objective="geometric", measurement=few, folder=tmp_path)
    assert float(ratio(WHOLE, found.solver, GRID, objective="geometric").value) < 0.7
    assert found.batches <= 800
    assert found.solver.levels[0] == GRID[0]
    assert found.solver.levels[-2] >= 0.02 * (1 - 1e-9)
    text = " ".join(repr(found).split())
    for said in ("5 multistep steps", f"{found.numbers} numbers", "+-", "proved to", "sequence local"):
        assert said in text
    assert lines == [repr(found)]
    # nothing is computed twice: the folder answers
    calls = [0]

    def counted(x, sigma):
        calls[0] += 1
        return WHOLE(x, sigma)

    again = fit_solver(counted, DATA, GRID, objective="geometric", measurement=few, folder=tmp_path)
    assert again.solver == found.solver
    assert calls[0] < 0.1 * found.batches


def test_better_starts_are_found_among_the_usual_ones():
    poor = np.array([20.0, 19.0, 18.0, 17.0, 0.02, 0.0])
    alone, several = (
        fit_solver(WHOLE, DATA, grids, moves="coefficients", measurement=FEW) for grids in (poor, [poor, GRID])
    )
    assert not np.array_equal(alone.solver.levels, poor)
    assert float(ratio(WHOLE, several.solver, poor).value) < 0.1


def test_a_solver_that_ends_at_its_last_level_keeps_it():
    grid = co.edm_grid(4, 0.1, 20.0, terminal="rescale")
    found = fit_solver(WHOLE, DATA, grid, measurement=FEW)
    assert found.solver.levels[-1] == pytest.approx(0.1, rel=1e-12)
    assert found.gain < 1


@pytest.mark.parametrize("moves", [pytest.param("both", marks=pytest.mark.slow), "coefficients"])
def test_every_output_is_taken_at_last_only_where_held_out_draws_gain(moves):
    first, polished = (fit_solver(WHOLE, DATA, GRID, history=h, moves=moves, measurement=FEW) for h in (3, "all"))
    assert polished.solver.c.shape[1] == 5
    assert polished.solver.a.size == first.solver.a.size
    assert polished.held_out.mean.value <= polished.held_out_before.mean.value
    assert polished.batches <= 700
    assert np.abs(polished.solver.a + polished.solver.c.sum(axis=1) - 1).max() < 1e-12


def test_what_cannot_be_fitted_is_refused_by_name():
    for options, said in (
        ({"history": "some"}, "history"),
        ({"history": 0}, "history is 0"),
        ({"moves": "all"}, "moves"),
        ({"objective": "median"}, "objective"),
        ({"stopping_sigma": -1.0}, "stopping_sigma"),
        ({"measurement": Measurement(fit_evaluations=5)}, "budget is 5"),
    ):
        with pytest.raises(ValueError, match=said):
            fit_solver(WHOLE, DATA, GRID, **options)
    with pytest.raises(ValueError, match="one number of steps"):
        fit_solver(WHOLE, DATA, [GRID, co.edm_grid(4, 0.02, 20.0)])


# ---- conditions and guidance ----


def of_class(x, sigma, label, weight):
    """Exact guided denoiser of the class of component `label` and its neighbour, row by row."""
    logs, away, variance = WHOLE._logs(x, sigma)
    number = torch.arange(8)
    member = (number == label[:, None]) | (number == (label[:, None] + 1) % 8)

    def mean(values):
        share, shrink = values.softmax(1), torch.from_numpy(WHOLE.widths**2).to(x) / variance
        return (share[:, :, None] * (torch.tensor(WHOLE.means).to(x) + shrink[:, :, None] * away)).sum(1)

    plain = mean(logs)
    return plain + weight[:, None] * (mean(logs.masked_fill(~member, -np.inf)) - plain)


def guided_classes(labels, weights):
    pairs = torch.cartesian_prod(torch.tensor(labels, dtype=torch.float64), torch.tensor(weights, dtype=torch.float64))
    return conditioned(of_class, label=pairs[:, 0].long(), weight=pairs[:, 1])


def test_conditions_in_turn_are_the_denoisers_of_each():
    labels, weights = (0, 3), (1.0, 2.5)
    parts = []
    for label in labels:
        members = [label, (label + 1) % 8]
        alone = Mixture(WHOLE.means[members], WHOLE.widths[members], WHOLE.weights[members])
        parts += [guided(alone, WHOLE, weight) for weight in weights]
    both, rows = mixed(parts), guided_classes(labels, weights)
    x = 3 * torch.randn(7, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(both(x, 0.7), rows(x, 0.7), rtol=1e-10, atol=1e-12)
    for i in range(7):
        torch.testing.assert_close(both(x, 0.7)[i : i + 1], parts[i % 4](x[i : i + 1], 0.7), rtol=1e-12, atol=1e-12)
    assert (both.conditions, rows.conditions) == (4, 4)


def test_guidance_counts_twice_among_several():
    both = mixed([guided(WHOLE, WHOLE, 2.0), WHOLE])
    both(DATA, 1.0)
    assert both.evaluations == 12


def test_draws_hold_every_condition():
    many = guided_classes(range(8), (1.0, 2.0))
    with pytest.raises(ValueError, match="16 conditions"):
        fit_solver(many, DATA, GRID, measurement=Measurement(draws=4))
    own = conditioned(of_class, label=torch.tensor([0, 0]), weight=torch.tensor([1.0, 3.0]))
    narrow = fit_solver(own, DATA, GRID, measurement=Measurement(draws=2, fine_steps=8, fit_evaluations=900))
    assert (narrow.between, narrow.left_out) == (0, 1)
    assert "without 1 conditions between those given" in repr(narrow)
    with pytest.raises(ValueError, match="as many rows"):
        conditioned(of_class, label=torch.arange(3), weight=torch.ones(2))
    with pytest.raises(ValueError, match="empty"):
        mixed([])


def seen_on_others(weights, steps, count, budget, told, draws):
    """Error over the plan's, on other labels and weights, of a fit on the labels 0, 2 and 5 with some weights."""
    own = guided_classes((0, 2, 5), weights)
    both = [Draws((2,), count, 20.0, name=name, like=DATA[:1]) for name in ("descent", "held out")]
    solution = Reference(own, co.DPMpp2M(), both[0], 0.02, steps=24)
    starts = [co.edm_grid(steps, stop, 20.0) for stop in (0.02, 0.1)]
    plan = co.estimate.descend_grid(solution, both[1], starts, budget=3 * budget // 4).sigmas
    few = Measurement(draws=count, fine_steps=24, fit_evaluations=budget)
    found = fit_solver(own, DATA, plan, stopping_sigma=0.02, measurement=few)
    assert found.between == 3
    assert "with 3 conditions between those given" in repr(found)
    for labels, others in told:
        seen = ratio(guided_classes(labels, others), found.solver, plan, count=draws)
        print(steps, weights, labels, others, f"{float(seen.value):.3f} +- {float(seen.standard_error):.3f}")
        yield seen


def test_a_fit_on_some_conditions_and_weights_holds_for_others():
    """Never worse than the grid descended for DPM-Solver++(2M) on the same mixture, beyond two standard errors."""
    for seen in seen_on_others((1.0, 3.0), 5, 24, 700, [((0, 2, 5), (2.0,)), ((3, 7), (1.5, 4.0))], 256):
        assert float(seen.value) < 1 + 2 * float(seen.standard_error)


@pytest.mark.slow
@pytest.mark.parametrize("steps", [5, 8] if FULL else [5])
@pytest.mark.parametrize("weights", [(1.0, 3.0), (1.0, 5.0)])
def test_a_close_fit_on_distant_weights_holds_between_them(weights, steps):
    """On 1 and 5 alone a fit at five evaluations leaves 5.5 of the plan's error at 2; 2.7 on 1 and 3, other draws."""
    far = (*weights, *(1 + part * (weights[1] - 1) for part in (0.125, 0.25, 0.5, 0.75)))
    told = [((0, 2, 5), (weight,)) for weight in far] + [((1, 6), weights), ((3, 7), (1.5, 4.0))]
    for seen in seen_on_others(weights, steps, 64, 4000, told, 2048 if FULL else 1024):
        assert float(seen.value) < 1 + 2 * float(seen.standard_error)


class _OfClass(torch.nn.Module):
    """A perceptron on 8 x 8 digits that is told the class, or 10 for none, beside EDM's preconditioned state."""

    spread = 0.752  # of all pixels

    def __init__(self) -> None:
        super().__init__()
        self.inner = torch.nn.Sequential(
            *(torch.nn.Linear(64 + 11 + 16, 192), torch.nn.SiLU(), torch.nn.Linear(192, 192), torch.nn.SiLU()),
            *(torch.nn.Linear(192, 192), torch.nn.SiLU(), torch.nn.Linear(192, 64)),
        )

    def forward(self, x, sigma, label):
        level = sigma[:, None]
        total = (level**2 + self.spread**2).sqrt()
        angles = level.log() * torch.logspace(-1.5, 0.3, 8)
        told = torch.nn.functional.one_hot(label, 11).to(x.dtype)
        raw = self.inner(torch.cat([x / total, told, angles.sin(), angles.cos()], dim=1))
        return (self.spread / total) ** 2 * x + level * self.spread / total * raw

    def guided(self, x, sigma, label, weight):
        """D(none) + weight (D(label) - D(none)), row by row."""
        plain = self(x, sigma, torch.full_like(label, 10))
        return plain + weight[:, None].to(x.dtype) * (self(x, sigma, label) - plain)


def _taught() -> _OfClass:
    """Three thousand iterations on scikit-learn's digits, the class left out of every fifth."""
    library = pytest.importorskip("sklearn.datasets").load_digits()
    images, labels = torch.tensor(library.images / 8 - 1).flatten(1).float(), torch.tensor(library.target)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = _OfClass()
        optimiser = torch.optim.Adam(network.parameters(), 2e-3)
        rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 3000)
        for _ in range(3000):
            rows = torch.randint(len(images), (256,))
            sigma = (1.4 * torch.randn(256) - 0.6).exp()
            label = torch.where(torch.rand(256) < 0.2, 10, labels[rows])
            noisy = images[rows] + sigma[:, None] * torch.randn(256, 64)
            weight = (sigma**2 + 0.752**2) / (0.752 * sigma) ** 2
            loss = (weight * (network(noisy, sigma, label) - images[rows]).square().sum(1)).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            rate.step()
    return network.eval().requires_grad_(requires_grad=False)


@pytest.mark.skipif(not FULL, reason="trains a conditional network; CODESIGN_OPT_FULL=1 runs it")
def test_a_fit_on_some_classes_and_weights_of_a_network_holds_for_others():
    """Never worse than the grid descended for DPM-Solver++(2M) on the same mixture, beyond two standard errors."""
    network = _taught()

    def classes(labels, weights):
        pairs = torch.cartesian_prod(torch.tensor(labels).float(), torch.tensor(weights))
        return conditioned(network.guided, label=pairs[:, 0].long(), weight=pairs[:, 1])

    own, like = classes(range(5), (1.0, 2.0)), torch.zeros(1, 64)
    draws = [Draws((64,), 60, 80.0, name=name, chunk=60, like=like) for name in ("descent", "held out")]
    others = [(range(5), (1.0, 2.0)), (range(5, 10), (1.0, 2.0)), (range(5), (1.5, 3.0)), (range(5, 10), (1.5, 3.0))]
    for steps in (5, 8):
        starts = [co.edm_grid(steps, stop, 80.0) for stop in (0.01, 0.03, 0.06)]
        plan = co.estimate.descend_grid(Reference(own, co.DPMpp2M(), draws[0], 0.002), draws[1], starts, budget=3000)
        few = Measurement(draws=60, chunk=60)
        found = fit_solver(own, torch.zeros(2, 64), plan.sigmas, stopping_sigma=0.002, measurement=few)
        for labels, weights in others:
            denoiser, errors = classes(labels, weights), []
            unseen = Draws((64,), 1000, 80.0, name="unseen", chunk=500, like=like)
            fine = Reference(denoiser, co.Euler(), unseen, 0.002)
            ends = [fine.terminal_states(chunk) for chunk in range(2)]
            for solver, levels in ((found.solver, found.solver.levels), (co.DPMpp2M(), plan.sigmas)):
                outputs = [run(denoiser, solver, levels, unseen.start(chunk)) for chunk in range(2)]
                away = [(x - end).double().square().sum(1) for x, end in zip(outputs, ends, strict=True)]
                errors.append(GridErrors(torch.cat(away).numpy()))
            seen = errors[0].ratio(errors[1])
            print(steps, tuple(labels), weights, f"{float(seen.value):.3f} +- {float(seen.standard_error):.3f}")
            assert float(seen.value) < 1 + 2 * float(seen.standard_error)


# ---- half precision, and a network's own derivatives ----


@pytest.mark.parametrize("dtype", [torch.bfloat16] if FULL else [])
def test_a_network_in_half_precision_is_fitted_as_in_single(dtype):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = MLP(2, sigma_data=1.4, width=64)
    whole = fit_solver(network, DATA.float(), GRID, measurement=Measurement(draws=32))
    half = fit_solver(network.to(dtype), DATA.float(), GRID, measurement=Measurement(draws=32))
    assert half.gain < 1.5 * whole.gain + 0.05
