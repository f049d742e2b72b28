"""Arrays, numbers and logs that are none, or that no float holds: refused by name."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import cache

import cvxpy as cp
import numpy as np
import pytest
import torch

import codesign_opt as co
from codesign_opt.basics.checks import number, vector
from codesign_opt.comparison.table import rows_of_cell
from codesign_opt.estimate.draws.streams import batches
from codesign_opt.ingredients.log_file import log_rows

MODEL = co.GaussianModel(co.Spectrum.power_law(4, exponent=1.5))
EVIDENCE = co.peers.Evidence(0.002, 80.0, spectrum=MODEL.spectrum, sampler=co.Euler())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: co.Spectrum.from_samples(np.ma.masked_greater(np.eye(4) * 1e9, 1e8)), "masked"),
        (lambda: vector(np.ma.masked_greater([1.0, 1e9], 1e8), "mine"), "mine is a masked"),
        (lambda: co.read_schedule([True, False]), "dtype bool"),
        (lambda: co.read_schedule(np.array([80.0, 1j, 0.0])), "dtype complex"),
        (lambda: co.read_schedule(np.ma.masked_less([80.0, 1.0, 0.0], 0.5)), "masked"),
        (lambda: number(10**400, "mine"), "mine is a whole number beyond"),
        (lambda: number([[1.0], [1.0, 2.0]], "mine"), "mine is"),
        (lambda: vector([[1.0], [1.0, 2.0]], "mine"), "mine is not a rectangular"),
        (lambda: co.Prices(3e300, 1.0, 10), r"Prices\.example is 3e\+300"),
        (lambda: co.Prices(3.0, 1e-300, 10), r"Prices\.evaluation is 1e-300"),
        (lambda: co.codesign(MODEL, co.Prices(3.0, 1.0, 10), 1e160), r"budget is 1e\+160"),
        (lambda: co.peers.select(EVIDENCE, "many"), "select: steps is 'many'"),
        (lambda: co.EDM(1e-150, 1e150), r"EDM\.sigma_min.*decades"),
        (lambda: co.Measured([1.0], [50.0], source=np.ones(3)), r"Measured\.source is array.*a str is needed"),
        (lambda: replace(plan(), new_examples=cp.Parameter(8)), r"Plan\.new_examples has another shape"),
    ],
)
def test_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_tensors_that_numpy_does_not_read_count_as_their_numbers():
    for tensor in (torch.ones(2, requires_grad=True), torch.ones(2, dtype=torch.bfloat16)):
        assert vector(tensor, "mine").tolist() == [1.0, 1.0]
        assert number(tensor[0], "mine") == 1.0


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("l.csv", b"examples,sigma,loss\n1,1.0," + b"9" * 200_000),
        ("l.csv", b"examples,sigma,loss\n1,1.0,\xff"),
        ("l.jsonl", b'{"examples": ' + b"[" * 100_000),
        ("l.jsonl", b'{"examples": ' + b"9" * 5_000 + b"}"),
    ],
)
def test_logs_are_refused_by_name(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=str(tmp_path / name)):
        log_rows(tmp_path / name)


def data(count=64):
    return torch.randn(count, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def failing(*given):
    raise LookupError("mine")


class Unread:
    """Data that fail before their first batch."""

    def __iter__(self):
        raise LookupError("mine")


def in_place(s):
    s *= 0.0
    s += 2.0
    return s


@cache
def plan():
    return co.codesign(MODEL, co.Prices(3.0, 1.0, 100), 1e4, levels=8, points=3, stopping_sigma=0.05, polish=False)


def named_row(row):
    table = MODEL.coefficients(0.05, 8)
    terms, budget = co.ScoreError(table) + co.Discretization(table), co.Compute(co.Prices(3.0, 1.0, 100)) <= 1e4
    return co.Problem(terms, [budget, co.named("mine", row)]).solve()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plan().sample(4, np.random.default_rng(0), base=3), "base is 3; a SigmaDensity"),
        (lambda: plan().sample(10**12, np.random.default_rng(0)), "batch is 1,000,000,000,000"),
        (lambda: co.frontier(MODEL, co.Prices(3.0, 1.0, 10), 1e4, images=5), "images is 5; several"),
        (lambda: co.frontier(MODEL, co.Prices(3.0, 1.0, 10), 1e4, images=itertools.count(1)), "images has more than"),
        (lambda: co.Cap(1.0, high=None), "Cap.high is None"),
        (lambda: co.Cap(1.0, high=1j), "Cap.high is 1j"),
        (lambda: MODEL.wasserstein2(0.5), "sigmas is 0.5"),
        (lambda: MODEL.wasserstein2([1.0, 0.1, 0.0], "mine"), "spectrum is 'mine'"),
        (lambda: named_row(lambda d: cp.sum(d.examples) >= cp.Parameter(name="least")), "'mine': the parameter least"),
        (lambda: MODEL.coefficients(0.05, 10**6), "levels is 1,000,000"),
        (lambda: co.codesign(MODEL, steps=5, points=10**9), "points is 1,000,000,000"),
        (lambda: co.edm_grid(10**9, 0.1, 1.0), "steps is 1,000,000,000"),
        (lambda: co.Spectrum.power_law(10**9, exponent=1.0), "dimension is 1,000,000,000"),
        (lambda: co.estimate.Measurement(device="cuda:99"), "Measurement.device is 'cuda:99'"),
        (lambda: co.estimate.Stream(device=torch.device("meta")), "Stream.device"),
        (lambda: co.Plan.load(3), "path is 3"),
        (lambda: co.peers.euler_kl([1.0, 0.1], 3.0), "euler_kl: spectrum is 3.0; a Spectrum"),
        (lambda: co.TrainingRun(failing, 10, 10).examples_on(co.Levels([0.1, 1.0])), r"TrainingRun.density\(sigma\)"),
        (lambda: co.peers.allocation(failing, [1.0], co.LogNormal()), r"in weight\(sigma\): LookupError: mine"),
        (lambda: co.GaussianModel(MODEL.spectrum, coupling=co.Local(failing)).settled([1.0, 0.1, 0.0], 8), "Local"),
        (lambda: co.estimate.Denoiser(failing)(data(2), 0.5), "denoiser 'failing' fails .*LookupError"),
        (lambda: co.estimate.spectrum(map(failing, range(3))), "in data: LookupError"),
        (lambda: co.Spectrum.from_samples(Unread()), "in Spectrum.samples: LookupError"),
        (lambda: co.Comparison.read(Unread()), "in Comparison.read: file: LookupError"),
        (lambda: co.Spectrum.from_samples(torch.eye(4).to_sparse()), "layout torch.sparse_coo; give a dense one"),
        (lambda: co.estimate.spectrum(torch.eye(4).to_sparse()), "layout torch.sparse_coo; give a dense one"),
        (lambda: co.estimate.spectrum([torch.eye(4).to_sparse()]), "layout torch.sparse_coo; give a dense one"),
        (lambda: co.LevelStatistics([0.1, 1.0]).record_flow([0.5, 0.6], []), "2 noise levels but 0 losses"),
        (lambda: next(batches(torch.eye(4).to_sparse())), "layout torch.sparse_coo"),
        (lambda: co.export(co.Heun, "k-diffusion"), "export.schedule is the class Heun"),
    ],
)
def test_the_wrong_kind_and_errors_inside_functions_are_told_by_name(call, message):
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        call()
    if "LookupError" in message:
        assert isinstance(caught.value.__cause__, LookupError)


def test_functions_that_work_in_place_change_nothing():
    levels = co.Levels.log_uniform(0.1, 10.0, 4)
    before = levels.edges.copy()
    for function in (in_place, lambda s: np.full(s.shape, 2.0)):
        found = [
            co.Prices(function, function, 10).example_price(levels),
            co.Local(function).lengths(levels),
            co.TrainingRun(function, 10, 10).examples_on(levels) / np.diff(levels.edges),
            co.peers.allocation(function, levels.sigma, co.LogNormal()) / co.LogNormal().per_log_snr(levels.sigma),
        ]
        for values in found:
            np.testing.assert_allclose(values, values[0], rtol=1e-6)
    np.testing.assert_array_equal(levels.edges, before)


def test_endless_data_are_read_to_a_number_of_examples_that_is_told():
    draws = torch.Generator().manual_seed(0)
    endless = (torch.randn(65_536, 2, generator=draws, dtype=torch.float64) for _ in itertools.count())
    found = co.estimate.spectrum(endless)
    assert found.count == 262_144
    assert "262,144 examples of data without a length" in repr(found)
    assert found.spectrum.trace == pytest.approx(2.0, abs=5 * (4.0 / found.count) ** 0.5)
    assert co.estimate.spectrum(endless, stream=co.estimate.Stream(examples=1000)).count == 1000
    with pytest.raises(ValueError, match=r"Measurement\.examples is 1"):
        co.estimate.Measurement(examples=1)


@pytest.mark.parametrize("text", ["14.6, 2.5, 0.", "14.6, 2.5,", "[14.6, 2.5, 0.3", "14.6, 2.5, 1e-"])
def test_a_list_that_is_cut_off_is_refused(tmp_path, text):
    path = tmp_path / "sigmas.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"cut off|not a number"):
        co.read_schedule(path)
    path.write_text("80., 1., 0.")  # numpy's way of writing whole numbers
    assert co.read_schedule(path).tolist() == [80.0, 1.0, 0.0]


def test_errors_that_are_no_number_have_the_last_rank():
    grid = (np.array([1.0, 0.1, 0.0]), 2.0)
    measured = {name: {"errors": [value]} for name, value in (("a", np.nan), ("b", 2.0), ("c", np.nan), ("d", 1.0))}
    rows = rows_of_cell("euler", 2, measured, dict.fromkeys(measured, grid))
    assert [(row.peer, row.rank) for row in rows] == [("d", 1), ("b", 2), ("a", 3), ("c", 3)]


def test_ends_of_the_floats_leave_no_warning():
    """Warnings are errors here."""
    levels = co.Levels.log_uniform(0.01, 10.0, 8)
    assert co.peers.VDiffusion().tails(np.array([1e-320, 1.0]))[1][0] == pytest.approx(1.0)
    assert co.peers.infonoise(lambda sigma: sigma**2 / (1 + sigma**2), levels, power=1e308).share.sum() > 0
    for none in ([0.0], [1e-200, 1e-200]):
        assert co.AveragedSGD().warnings_for([0.1, 1.0], none, [1e3, 1e3]) == []
    lam = np.array([1.0, 0.1])
    huge = co.AveragedSGD().untrained(10 * lam, np.array([1.0, 1e308]), np.array([0.1, 1.0]), 0.05)
    assert huge is not None
    assert (huge > 1e300).any()


def test_widths_from_tensors_are_their_numbers():
    rng, levels = np.random.default_rng(0), co.Levels.log_uniform(0.1, 10.0, 4)
    log = co.LevelStatistics(levels)
    for k in range(40):
        sigma = np.exp(rng.uniform(np.log(0.1), np.log(10.0), 64))
        log.record(sigma, (0.1 + 1 / (k + 1)) * rng.chisquare(8, 64))
    wide = torch.tensor(0.5, requires_grad=True)
    both = [co.learning_curves(log, levels=levels, transfer=width).reducible for width in (0.5, wide)]
    np.testing.assert_array_equal(*both)
    found = [
        co.learning_curves(log, levels=levels, log_width=w) for w in (1.0, torch.tensor(1.0, dtype=torch.bfloat16))
    ]
    np.testing.assert_array_equal(found[0].reducible, found[1].reducible)
