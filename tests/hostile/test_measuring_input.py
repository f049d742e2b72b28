"""What measures networks, and the testbed: arguments of a wrong kind or size are refused by name before any work."""

from __future__ import annotations

import itertools
from dataclasses import replace

import cvxpy as cp
import numpy as np
import pytest
import torch

import codesign_opt as co
from codesign_opt.basics.jobs import each_of
from codesign_opt.basics.ledger import Ledger
from codesign_opt.estimate.draws.streams import batches
from codesign_opt.estimate.steps.held_out import GridTest
from tests.hostile.instances import errors, grid_errors
from tests.hostile.plausible import (
    GRID,
    LEVELS,
    PRICES,
    data,
    denoiser,
    draws,
    information,
    model,
    net,
    plan,
    reference,
    run,
    trained,
)

META = torch.empty(3, device="meta")
GRAM = np.ones((8, 2, 8, 2))
EIGHT = np.ones(8)


def path_of_noise(*more, **named):
    return co.estimate.BrownianPath(*more, **named)


def history(rule=None):
    return co.estimate.StepRule.relative(0.5) if rule is None else co.estimate.StepRule(lambda s: 0.5 * s, rule)


RESULTS = [
    (lambda: co.estimate.GridErrors([[1.0]]), r"GridErrors\.errors has shape \(1, 1\)"),
    (lambda: co.estimate.GridErrors([-1.0]), r"GridErrors\.errors is -1"),
    (lambda: grid_errors().ratio(None), r"GridErrors\.ratio: other is None; a GridErrors"),
    (lambda: grid_errors().difference(co.estimate.GridErrors([1.0])), r"other has 1 errors.*same 3 draws"),
    (lambda: grid_errors().ratio(co.estimate.GridErrors(np.zeros(3))), "other has errors of zero alone"),
    (lambda: grid_errors().share_of_largest({}), r"share_of_largest: count is \{\}"),
    (lambda: co.estimate.Estimate("many", np.ones(2), 3), r"Estimate\.value"),
    (lambda: co.estimate.Estimate(np.ones(2), np.ones(3), 3), r"Estimate\.standard_error has shape \(3,\)"),
    (lambda: co.estimate.Estimate(1.0, 0.1, 3).interval(10**400), r"interval: z is a whole number"),
    (lambda: co.estimate.TangentGram(LEVELS.sigma, GRAM[:3], True), r"TangentGram\.gram has shape.*axis 0"),
    (lambda: co.estimate.TangentGram(LEVELS.sigma, np.nan * GRAM, True), r"TangentGram\.gram is nan"),
    (lambda: co.estimate.TangentGram(LEVELS.sigma, GRAM, 1), r"TangentGram\.exact is 1; True or False"),
    (lambda: co.estimate.Decoupling("1", 1.0, 1.0, EIGHT, EIGHT), r"Decoupling\.ratio is '1'"),
    (lambda: co.estimate.Decoupling(1.0, 1.0, 1.0, EIGHT, EIGHT[1:]), r"Decoupling\.optimum has shape \(7,\)"),
    (lambda: co.estimate.OutputSensitivity(EIGHT, None, EIGHT, 3), r"OutputSensitivity\.gain is None; a Estimate"),
    (lambda: co.estimate.DescendedGrid(GRID, GRID, None, None, None, 1, 1, ""), r"DescendedGrid\.held_out is None"),
    (lambda: co.estimate.FittedSolver(None, GRID, None, None, 1, 1, 0.0, ""), r"FittedSolver\.solver is None"),
    (lambda: co.estimate.FittedRival(co.Euler(), GRID, name="a", held_out=1), r"FittedRival\.held_out is 1"),
    (lambda: co.estimate.DenoiserCheck("a", range(10**12), [1], [1], [1], [1], 1.0, "right"), r"DenoiserCheck\.sigma"),
    (lambda: co.estimate.TransferKernel(1.0, "many"), r"TransferKernel\.standard_error is 'many'"),
    (lambda: co.testbed.TrainedDenoiser(None, net(), None, 1, 1), r"TrainedDenoiser\.model is None"),
]
SIZES = [
    (lambda: co.estimate.Moments((10**9,)), r"Moments\.shape is 1,000,000,000"),
    (lambda: co.estimate.Moments((10**5, 10**5)), r"Moments\.shape asks for 10,000,000,000 numbers"),
    (lambda: co.estimate.Moments("many"), r"Moments\.shape is 'many'"),
    (lambda: co.estimate.ErrorLaw([1.0], [1.0], notes=itertools.repeat("a")), r"ErrorLaw\.notes has more than 100,000"),
    (lambda: co.testbed.UNet(sigma_data=0.5, widths=(8, 8, 8 * 10**8)), r"UNet\.widths .* make .* weights"),
    (lambda: co.testbed.UNet(sigma_data=0.5, widths=3), r"UNet\.widths is 3"),
    (lambda: co.testbed.UNet(sigma_data=0.5, widths=(8, 8)), r"UNet\.widths has 2 entries"),
    (lambda: co.testbed.MLP(2, sigma_data=0.5, width=10**18), r"MLP\.dimension 2, width .* make"),
    (lambda: co.testbed.MLP(2, sigma_data=0.5, layers=10**9), r"MLP\.dimension 2, .*layers 1000000000 make"),
    (lambda: co.testbed.photo_patches(side=10**9), r"side is 1000000000; the photograph"),
    (lambda: co.testbed.photo_patches(side=200, stride=1), r"side 200 and stride 1 make patches of"),
    (lambda: co.estimate.EvidenceMeasurement(levels=10**9), r"EvidenceMeasurement\.levels is 1,000,000,000"),
    (lambda: co.estimate.Bespoke().fit(reference(), draws(), [GRID], budget=10**18), "budget is 1,000,0"),
]
KINDS = [
    (lambda: co.estimate.run(denoiser(), [], GRID, torch.ones(2, 4)), r"run: sampler is \[\]"),
    (lambda: co.estimate.run(denoiser(), co.Heun, GRID, torch.ones(2, 4)), r"run: sampler is .*Heun"),
    (lambda: co.estimate.run(denoiser(), co.Heun(), GRID, torch.ones(2, 4), place=1), r"place is 1; a Place"),
    (lambda: co.estimate.run(denoiser(), co.Heun(), GRID, torch.ones(2, 4), before=[1]), r"before has 1; \(sigma"),
    (lambda: co.estimate.run(denoiser(), co.Heun(), [1.0, np.nan], torch.ones(2, 4)), r"sigmas must be"),
    (lambda: co.estimate.run(denoiser(), co.Heun(), GRID, torch.ones(2, 4), 3), r"run: noise is 3; a BrownianPath"),
    (lambda: path_of_noise(0, "noise", 80.0, 0.1), r"BrownianPath\.names is 'noise'"),
    (lambda: path_of_noise(0, ("noise",), 0.1, 80.0), r"BrownianPath\.sigma_min is 80"),
    (lambda: co.estimate.Draws(4, 8, 80.0), r"Draws\.shape is 4"),
    (lambda: co.estimate.Draws((4,), 8, 80.0, seed="one"), r"Draws\.seed is 'one'"),
    (lambda: co.estimate.Draws((4,), 8, 80.0, like=META), r"Draws\.like is"),
    (lambda: co.estimate.Draws((4,), 8, 80.0, mean=[1.0, 2.0]), r"Draws\.mean has shape \(2,\)"),
    (lambda: draws().start("many"), r"Draws: chunk is 'many'"),
    (lambda: draws().rows(7), r"Draws: chunk is 7; it must be <= 0"),
    (lambda: co.estimate.Starts(0.5), r"Starts\.shape is 0\.5"),
    (lambda: reference().path("many"), "levels"),
    (lambda: reference().path([1.0], [1.0, 0.5, 0.1]), "coarse has 3 entries; pairs"),
    (lambda: reference().accuracy(chunks=[]), r"Reference\.accuracy: chunks is \[\]"),
    (lambda: reference().items_in(None, "many"), "question is 'many'"),
    (lambda: reference().check_same(denoiser(), "a", 3), "folder is 3"),
    (lambda: co.estimate.StepRule("many", None), r"StepRule\.next is 'many'"),
    (lambda: history().history(1.0, "many", 2), r"StepRule\.history: start is 'many'"),
    (
        lambda: history(lambda s, top: 0.5 * s).history(1.0, 2.0, 9),
        r"StepRule\.previous\(level, start\) is 0.5 at level 1",
    ),
    (lambda: GridTest(denoiser(), draws(), 0.05).ends("heun"), r"GridTest\.ends: sampler is 'heun'"),
    (lambda: co.estimate.GridTest(denoiser(), None, 0.05), r"GridTest\.draws is None"),
    (lambda: co.estimate.S4S().fit(None, draws(), [GRID]), r"fit: reference is None"),
    (lambda: co.estimate.S4S().fit(reference(), 0.5, [GRID]), r"fit: held_out is 0\.5"),
    (lambda: co.estimate.descend_grid(reference(), draws(), 3), "starts is 3"),
    (lambda: co.estimate.DescentRules().autograd(None), r"DescentRules\.autograd: reference is None"),
    (lambda: co.estimate.guided(denoiser(), denoiser(), 2.0, interval=3), r"guided\.interval is 3; \(low, high\)"),
    (lambda: co.estimate.Denoiser(denoiser(), name=EIGHT), r"Denoiser\.name is array"),
    (lambda: co.estimate.mixed(3), "mixed: denoisers is 3"),
    (lambda: co.estimate.ModelFamily(classes="UNet"), r"ModelFamily\.classes is 'UNet'"),
    (lambda: co.estimate.ModelFamily().told("now", 1000.0), r"ModelFamily\.told: t"),
    (lambda: co.estimate.check_denoiser(denoiser(), data(), spectrum={}), r"check_denoiser\.spectrum is \{\}"),
    (lambda: co.estimate.phase_space(lambda x, s: None, data(), [1.0], examples=8), r"bayes\(x, sigma\) returned None"),
    (lambda: co.estimate.phase_space(lambda x: x, data(), [1.0], examples=8), r"in bayes\(x, sigma\)"),
    (lambda: co.estimate.phase_space(denoiser(), META, [1.0]), "data is a tensor of torch.float32 on meta"),
    (lambda: co.estimate.run(denoiser(), "heun", [1.0, 0.5], META), "x is tensor.*states of floats are needed"),
    (lambda: co.estimate.phase_space(denoiser(), np.array(["a"]), [1.0]), "data is an array of dtype"),
    (lambda: co.estimate.sensitivity(reference(), [1.0], direction=3), "direction is 3; a function"),
    (
        lambda: co.estimate.sensitivity(reference(), [1.0], direction=lambda x, s: 1.0),
        r"direction\(x, sigma\) returned",
    ),
    (lambda: co.estimate.linear_degradation([1.0], [1.0], weight={}), r"linear_degradation\.weight is \{\}"),
    (lambda: co.estimate.linear_degradation([1.0], [1.0], beta="a"), r"linear_degradation\.beta is 'a'"),
    (lambda: co.estimate.ModelFamily().told(10**400, 1.0), r"ModelFamily\.told: t is a whole number beyond"),
    (lambda: co.estimate.decoupling(information(), examples=np.zeros(8)), "decoupling: the density is 0"),
    (lambda: co.estimate.TrainingPath().levels(4, "rng"), r"TrainingPath\.levels: rng is 'rng'"),
    (lambda: co.estimate.TransferKernel.from_pilots(np.ones((2, 4)), np.ones((2, 4)), 3), "from_pilots: levels is 3"),
    (lambda: co.estimate.TransferKernel.from_errors(None), "from_errors: errors is None"),
    (lambda: Ledger(None, "many"), "question is 'many'"),
    (lambda: Ledger(None, {}).item("a", META), "compute is .*; a function"),
    (lambda: Ledger(None, {}).put([], value=1.0), r"name is \[\]"),
    (lambda: list(each_of(pow, [(2, 3)], n_jobs=2, backend=[None])), r"backend is \[None\]"),
    (lambda: list(each_of(pow, [(2, 3)], n_jobs=2, backend="fast")), "backend is 'fast'"),
    (lambda: co.testbed.circle8(width=META), "width is"),
    (lambda: co.testbed.circle8().sample(3, seed="one"), "seed is 'one'"),
    (lambda: co.testbed.circle8().sample(3, dtype=float), "dtype is .*torch's floats"),
    (lambda: co.testbed.cache_folder(3), "folder is 3"),
    (lambda: co.testbed.fashion_mnist(folder=3), "folder is 3"),
    (lambda: co.testbed.train(net(), [1.0], iterations=1), r"train: data is \[1\.0\]"),
    (lambda: co.testbed.train(net(), data(), iterations=1e12), "iterations is 1,000,000,000,000"),
    (lambda: co.testbed.train(net(), torch.ones(3), iterations=1), r"data is a tensor \(3,\)"),
    (lambda: co.testbed.Optimisation(density=3), r"Optimisation\.density is 3"),
    (lambda: co.testbed.Recipe("a", None, net, 1), r"Recipe\.data is None"),
    (lambda: co.PilotEvidence.model(None, 1.0, 1e9), r"PilotEvidence\.model: beyond is 1e\+09"),
    (lambda: co.compare(model(), range(10**12), (5,)), "compare: peers has more than 100,000"),
    (lambda: co.estimate.network(denoiser(), data(), check=GRID), "network: check is array"),
    (lambda: co.compare(model(), ["edm"], (5,), plan="yes"), "compare: plan is 'yes'"),
    (lambda: co.audit(model(), PRICES, sigmas=GRID, run=run(), levels="all"), "audit: levels is 'all'"),
]


@pytest.mark.parametrize(("call", "message"), [*RESULTS, *SIZES, *KINDS])
def test_refused_by_name(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()


def test_results_keep_the_arrays_that_they_are_given():
    squared = np.array([1.0, 4.0])
    assert co.estimate.GridErrors(squared).errors is squared
    assert co.estimate.GridErrors([1.0, 4.0]).mean.value == 2.5
    found = co.estimate.TangentGram(LEVELS.sigma, GRAM, True)
    assert found.gram is GRAM
    assert replace(found, gram=GRAM.tolist()).gram.shape == GRAM.shape


def test_statistics_of_errors_without_end_warn_of_nothing():
    for squared in ([1.0, np.inf, 2.0], [1e308, 1e308, 1.0]):
        assert "GridErrors(mean" in repr(co.estimate.GridErrors(squared))


def test_the_search_for_a_rate_ends_where_every_rate_errs_without_end():
    best = co.best_learning_rate(trained(), plan(), tolerance=1.0)  # of another model: levels without examples
    assert best.error == np.inf
    assert best.relative_gap == np.inf


def test_arrays_that_run_backwards_are_read():
    backwards = data().numpy()[::-1]
    found = co.estimate.phase_space(denoiser(), backwards, [1.0], examples=8)
    assert np.isfinite(found.contamination("x0")).all()
    assert errors().levels is LEVELS


def test_examples_without_numbers_and_solvers_that_remember_millions_of_outputs_are_refused():
    with pytest.raises(ValueError, match=r"examples of shape \(0,\) hold no numbers"):
        next(batches(np.zeros((3, 0))))
    with pytest.raises(ValueError, match="history is 1,000,000,000; it must be <= 1,000"):
        co.codesign(co.GaussianModel(co.Spectrum.power_law(4, 1.5)), steps=4, solver="fit", history=10**9)


@pytest.mark.parametrize("labels", [torch.zeros(8).to_sparse(), torch.zeros(8, device="meta")])
def test_labels_without_storage_are_refused(labels):
    network = net()
    with pytest.raises(ValueError, match=r"feature_collapse\.labels"):
        co.estimate.feature_collapse(network, network.layers[0], data(), [1.0], labels=labels, examples=8)


def test_a_kernel_of_any_width_is_one():
    for width in (1e-9, 1e9, 1e18):
        kernel = co.Transfer(width).kernel(LEVELS)
        np.testing.assert_allclose(kernel.sum(axis=1), 1.0)
    np.testing.assert_allclose(
        kernel, np.broadcast_to(LEVELS.log_width / LEVELS.log_width.sum(), kernel.shape), rtol=1e-6
    )
    with pytest.raises(ValueError, match=r"Transfer\.transfer is 1e\+70; it must lie between"):
        co.Transfer(1e70)


def test_a_fit_says_which_of_its_grids_and_histories_are_none():
    with pytest.raises(ValueError, match="sigmas holds no grid"):
        co.estimate.fit_solver(denoiser(), data(), np.zeros((0, 4)))
    with pytest.raises(ValueError, match="history is"):
        co.estimate.fit_solver(denoiser(), data(), GRID, history=cp.Parameter(3))


def test_data_of_one_number_are_no_examples():
    for one in (np.array(1.0), torch.tensor(1.0)):
        with pytest.raises(ValueError, match=r"data has shape \(\)"):
            co.estimate.replicated_runs(lambda seed: net(), one, [1.0])
