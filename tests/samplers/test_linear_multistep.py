"""A sampler of given coefficients: every stock sampler written as one, its law, gradients, refusals and uses."""

import json
import math

import numpy as np
import pytest
import torch

import codesign_opt as co
from codesign_opt.estimate import Draws, Reference, measured_error, network, run
from codesign_opt.estimate.runs.run import trajectory
from codesign_opt.testbed import circle8
from tests.helpers.literal_samplers import edm_grid

GRID = edm_grid(6, sigma_max=20.0, sigma_min=0.05)
LAM = np.array([4.0, 0.25, 1e-3])


def drawn(seed=0, grid=GRID, history=3, mean=0.0, consistent=True):
    """Coefficients near Euler's with some of every former output."""
    rng, steps = np.random.default_rng(seed), grid.size - 1
    a = grid[1:] / grid[:-1] + 0.05 * rng.standard_normal(steps)
    c = 0.1 * np.tril(rng.standard_normal((steps, history)))
    if consistent:
        c[:, 0] += 1 - a - c.sum(axis=1)
    return co.LinearMultistep(grid, a, c, mean)


def matrices(sampler, weights):
    """The law by products of matrices on (x_k, ..., x_{k-h}, 0, ...), one band at a time."""
    steps, size = sampler.a.size, sampler.c.shape[1] + 1
    state = np.zeros(size)
    state[0] = 1.0
    for k in range(steps):
        step = np.eye(size, k=-1)
        for j in range(min(k, size - 2) + 1):
            step[0, j] = sampler.c[k, j] * weights[k - j] + (sampler.a[k] if j == 0 else 0.0)
        state = step @ state
    return state[0]


@pytest.mark.parametrize("terminal", ["denoise", "rescale"])
@pytest.mark.parametrize("history", [1, 2, 4])
def test_law_and_gradients_are_those_of_matrices(history, terminal):
    grid = GRID if terminal == "denoise" else GRID[:-1]
    sampler = drawn(1, grid, history)
    weights = np.where(grid[:, None] > 0, LAM / (LAM + grid[:, None] ** 2), 1.0)
    start = LAM + 400.0
    law = sampler.terminal_law(grid, LAM)
    exact = np.array([matrices(sampler, weights[:, b]) for b in range(3)])
    np.testing.assert_allclose(law.amplitude, exact, rtol=1e-12)
    np.testing.assert_allclose(law.std, np.abs(exact) * np.sqrt(start), rtol=1e-12)
    by_state, by_output = sampler.coefficient_gradient(LAM)
    by_weight = sampler.weight_sensitivity(grid, LAM)

    def std(moved, b, w=weights):
        return abs(matrices(moved, w[:, b])) * math.sqrt(start[b])

    rng = np.random.default_rng(2)
    for k in rng.permutation(grid.size - 1)[:3]:
        for b in range(3):
            h = 1e-6
            unit = np.eye(sampler.a.size)[k]
            moved = [std(co.LinearMultistep(grid, sampler.a + s * unit, sampler.c), b) for s in (h, -h)]
            assert by_state[k, b] == pytest.approx((moved[0] - moved[1]) / (2 * h), rel=1e-6, abs=1e-8)
            j = int(rng.integers(min(k + 1, history)))
            both = np.zeros_like(sampler.c)
            both[k, j] = h
            moved = [std(co.LinearMultistep(grid, sampler.a, sampler.c + s * both), b) for s in (1, -1)]
            assert by_output[k, j, b] == pytest.approx((moved[0] - moved[1]) / (2 * h), rel=1e-6, abs=1e-8)
            nudge = np.zeros_like(weights)
            nudge[k, b] = h
            moved = [std(sampler, b, weights + s * nudge) for s in (1, -1)]
            assert by_weight[k, b] == pytest.approx((moved[0] - moved[1]) / (2 * h), rel=1e-6, abs=1e-8)
    np.testing.assert_array_equal(by_output[0, 1:], 0.0)


@pytest.mark.parametrize("stock", [co.Euler(), co.DPMpp2M(), co.DPMpp3M(), co.UniPC(2), co.UniPC(3), co.IPNDM(4, "x0")])
def test_every_multistep_sampler_of_outputs_is_one_on_fixed_levels(stock):
    """Coefficients read off a network whose outputs are independent directions."""
    steps = GRID.size - 1
    asked = []

    def unit(x, sigma):
        asked.append(len(asked))
        return torch.eye(steps + 1, dtype=torch.float64)[[asked[-1] + 1]]

    start = torch.eye(steps + 1, dtype=torch.float64)[[0]]
    states = [s[0].numpy() for s in trajectory(unit, stock, GRID, start)]
    a = np.array([0.0 if k == steps - 1 else GRID[k + 1] / GRID[k] for k in range(steps)])
    c = np.zeros((steps, steps))
    for k in range(steps):
        rest = states[k + 1] - a[k] * states[k]
        c[k, : k + 1] = rest[1 : k + 2][::-1]
    fixed = co.LinearMultistep(GRID, a, c)
    np.testing.assert_allclose(fixed.a + fixed.c.sum(axis=1), 1.0, rtol=1e-12)
    np.testing.assert_allclose(fixed.terminal_law(GRID, LAM).std, stock.terminal_law(GRID, LAM).std, rtol=1e-10)
    x = 20 * torch.randn(3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def curved(x, sigma):
        return torch.tanh(x / (1 + sigma[:, None] ** 2).sqrt())

    torch.testing.assert_close(run(curved, fixed, GRID, x), run(curved, stock, GRID, x), rtol=1e-10, atol=1e-12)


def test_a_run_on_a_network_has_the_law_about_the_mean_of_the_data():
    mean = np.array([3.0, -1.0, 0.5])
    sampler = drawn(3, mean=mean, consistent=False)
    lam, centre = torch.as_tensor(LAM), torch.as_tensor(mean)

    def linear(x, sigma):
        return centre + (x - centre) * lam / (lam + sigma[:, None] ** 2)

    x = centre + torch.ones(1, 3, dtype=torch.float64)
    out = run(linear, sampler, GRID, x)
    np.testing.assert_allclose((out - centre)[0], sampler.terminal_law(GRID, LAM).amplitude, rtol=1e-11)


@pytest.mark.slow
def test_its_error_on_a_network_is_measured_on_its_own_levels():
    sampler, spread = drawn(9, mean=0.0), torch.as_tensor(LAM)
    like = torch.zeros((), dtype=torch.float64)

    def linear(x, sigma):
        return x * spread / (spread + sigma[:, None] ** 2)

    reference = Reference(linear, sampler, Draws((3,), 400, 20.0, like=like), 0.05, steps=400)
    found = measured_error(reference, GRID).mean
    fine = LAM / np.sqrt((LAM + 0.05**2) * (LAM + 400.0))
    exact = float(((sampler.terminal_law(GRID, LAM).amplitude - fine) ** 2).sum() * 400.0)
    assert abs(float(found.value) - exact) < 4 * float(found.standard_error)


def test_numbers_survive_json_exactly_and_make_equal_samplers():
    sampler = drawn(4, mean=np.array([0.1, 0.2]))
    again = co.Sampler.from_dict(json.loads(json.dumps(sampler.to_dict())))
    assert again == sampler
    assert hash(again) == hash(sampler)
    assert again.tag == sampler.tag
    assert drawn(5) != drawn(6)
    assert drawn(5).tag != drawn(6).tag
    assert drawn(5) != co.Euler()


def test_malformed_coefficients_are_refused_by_name():
    fine = {"levels": [2.0, 1.0, 0.0], "a": [0.5, 0.0], "c": [[0.5, 0.0], [0.5, 0.5]]}
    for name, value, words in [
        ("levels", [1.0, 2.0, 0.0], "LinearMultistep.levels"),
        ("a", [0.5], "LinearMultistep.a"),
        ("a", [0.5, math.nan], "LinearMultistep.a"),
        ("c", [[0.5, 0.1], [0.5, 0.5]], r"c is 0.1 at index \(0, 1\), of an output 1 before step 0"),
        ("c", [[0.5]], "LinearMultistep.c"),
        ("mean", [math.inf], "mean is inf at index 0; it must be finite"),
    ]:
        with pytest.raises(ValueError, match=words):
            co.LinearMultistep(**{**fine, name: value})


def test_other_levels_are_refused_by_the_first_that_differs_with_the_remedy():
    sampler, moved = drawn(7), GRID.copy()
    moved[2] *= 1.01
    x = torch.ones(1, 1, dtype=torch.float64)
    for call in (
        lambda g: sampler.terminal_law(g, LAM),
        lambda g: sampler.weight_sensitivity(g, LAM),
        lambda g: run(lambda x, s: x, sampler, g, x),
        lambda g: model(sampler).bias(g),
    ):
        with pytest.raises(ValueError, match=rf"sigmas is {moved[2]:.3g}.* at index 2.*give sigmas=sampler.levels"):
            call(moved)
    with pytest.raises(ValueError, match="sigmas has 6 levels, the sampler 7"):
        sampler.terminal_law(GRID[:-1], LAM)
    with pytest.raises(ValueError, match=r"uses outputs at 2 levels before and 0 are remembered"):
        run(lambda x, s: x, sampler, GRID[3:], x)


def model(sampler, **options):
    spectrum = co.Spectrum.power_law(8, exponent=1.5)
    return co.GaussianModel(spectrum, process=co.EDM(0.05, 20.0), sampler=sampler, **options)


def test_programs_that_need_a_local_error_refuse_it_with_what_to_do_instead():
    own = model(drawn(8))
    for call in (
        lambda: own.coefficients(),
        lambda: co.codesign(own, steps=6),
        lambda: own.sampler.local_error([1.0], [1.0], 0.1),
        lambda: network(lambda x, s: 1 / 0, torch.ones(9, 4), sampler=drawn(8)),
        lambda: co.codesign(model(co.Euler()), steps=6, samplers=[drawn(8)]),
    ):
        with pytest.raises(ValueError, match=r"has no order in the step.*plan the grid with a stock sampler"):
            call()


@pytest.mark.slow
def test_training_is_planned_audited_and_compared_on_its_own_grid(tmp_path):
    stock, prices = model(co.Euler()), co.Prices(example=3.0, evaluation=1.0, images=100)
    kept = GRID[1:] / GRID[:-1]
    euler = co.LinearMultistep(GRID, kept, 1 - kept[:, None])
    own = stock.with_sampler(euler)
    ours, theirs = (co.codesign(m, prices, 1e4, sigmas=GRID) for m in (own, stock))
    assert ours.error == pytest.approx(theirs.error, rel=1e-9)
    np.testing.assert_array_equal(ours.sigmas, GRID)
    floor = [co.named("low", lambda design: design.examples[:40].sum() >= 900.0), co.Steps() <= 8]
    ours, theirs = (co.codesign(m, prices, 1e4, sigmas=GRID, constraints=floor, levels=80) for m in (own, stock))
    assert ours.error == pytest.approx(theirs.error, rel=1e-6)
    assert co.Sampler.from_dict(co.Plan.load(ours.save(tmp_path / "plan.json")).sampler) == euler
    run_made = co.TrainingRun(density=co.LogNormal(-1.2, 1.2), iterations=100, batch=16)
    audits = [co.audit(m, prices, sigmas=GRID, run=run_made, levels=60) for m in (own, stock)]
    assert audits[0].current["total"] == pytest.approx(audits[1].current["total"], rel=1e-9)
    assert list(audits[0].gap) == ["training density"]
    assert str(audits[0])
    found = co.compare(own, ["log_snr", GRID], [6])
    assert next(row.peer for row in found.rows) == "plan"
    assert found.rows[0].error == pytest.approx(own.bias(GRID))
    assert any("log_snr is left out" in note for note in found.notes)


STOCK = [
    co.Euler(), co.Ancestral(eta=0.0), co.DPMpp2M(), co.UniPC(2, "bh1"), co.UniPC(3), co.DPMpp3M(), co.DEIS(2),
    co.DEIS(3), co.IPNDM(3), co.IPNDM(4), co.IPNDM(4, "x0"), co.AdamsBashforth(2), co.AdamsBashforth(4),
]  # fmt: skip


@pytest.mark.cases(7)
@pytest.mark.parametrize("terminal", ["denoise", "rescale"])
@pytest.mark.parametrize("sampler", STOCK, ids=repr)
def test_a_stock_samplers_steps_are_rows(sampler, terminal):
    grid = co.edm_grid(9, 0.05, 12.0, terminal=terminal)
    rows = co.LinearMultistep.of(sampler, grid)
    x = 12 * torch.randn(16, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = run(circle8(), sampler, grid, x)
    torch.testing.assert_close(run(circle8(), rows, grid, x), expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(rows.a + rows.c.sum(1), 1, atol=1e-9)


def test_rows_of_few_steps_and_of_what_is_none():
    assert co.LinearMultistep.of(co.IPNDM(), [2.0, 0.0]).c.tolist() == [[1.0]]
    for sampler, said in [(co.Heun(), "asks twice"), (co.DPMpp2S(), "asks twice"), (co.Ancestral(1.0), "adds noise")]:
        with pytest.raises(ValueError, match=said):
            co.LinearMultistep.of(sampler, [2.0, 1.0, 0.0])
