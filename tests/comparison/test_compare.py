"""co.compare: equal evaluations, exact errors on Gaussian data, measured ones with paired standard errors."""

import csv
from dataclasses import dataclass, replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

import codesign_opt as co
from codesign_opt import peers
from codesign_opt.comparison.compare import compare
from codesign_opt.comparison.table import read_rows, rows_of_cell
from codesign_opt.comparison.world import calls_of
from codesign_opt.estimate.denoisers.adapters import guided
from codesign_opt.estimate.denoisers.denoiser import Denoiser
from codesign_opt.estimate.measurement import Measurement
from codesign_opt.estimate.network_model import network
from codesign_opt.estimate.runs.run import run
from codesign_opt.estimate.solver_fit.rows import two_step_rows
from codesign_opt.testbed.data.mixtures import Mixture
from codesign_opt.testbed.networks.linear import LinearDenoiser
from tests.helpers.gaussian_truth import wasserstein2

LAM = np.array([1.0, 0.2, 0.01])
SAMPLERS = [co.Euler(), co.Heun(), co.DPMpp2M()]


def gaussian(sampler=None, **options):
    return co.GaussianModel(co.Spectrum.from_eigenvalues(LAM), sampler=sampler or co.Euler(), **options)


@pytest.fixture(scope="module")
def table():
    return compare(gaussian(), peers=["edm", "log_snr"], evaluations=[7], samplers=["euler", "heun", "dpmpp_2m"])


def test_errors_on_gaussian_data_are_the_exact_squared_distance(table):
    for row in table.rows:
        assert row.standard_error == 0
        assert row.error == pytest.approx(wasserstein2(row.sampler, row.sigmas, LAM, np.ones(3)), rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
@pytest.mark.parametrize("terminal", ["denoise", "rescale"])
def test_every_schedule_gets_the_most_steps_that_the_evaluations_pay_for(sampler, terminal):
    counted = Denoiser(LinearDenoiser(LAM))
    for limit in (5, 8, 10):
        found = compare(gaussian(sampler, terminal=terminal), ["edm"], limit, plan=False).rows[0]
        for steps, fits in ((found.steps, True), (found.steps + 1, False)):
            before = counted.evaluations
            grid = co.edm_grid(steps, 0.002, 80.0, terminal=terminal)
            run(counted, sampler, grid, torch.ones(1, 3, dtype=torch.float64))
            used = counted.evaluations - before
            assert (used <= limit) == fits
            assert used == calls_of(sampler, grid).size
        assert found.used == calls_of(sampler, found.sigmas).size


def test_ranks_order_the_errors_and_the_best_has_no_excess(table):
    for cell in table.cells:
        rows = table.cell(*cell)
        assert [row.rank for row in rows] == [1, 2, 3]
        assert np.all(np.diff([row.error for row in rows]) >= 0)
        assert rows[0].excess == 0
        assert rows[2].excess == pytest.approx(rows[2].error - rows[0].error)
    assert table.ranks()["plan"] == [1] * 3
    assert table.share_level() == 1
    assert table.losses() == []
    assert len(table.losses("edm")) == 3


def test_excess_has_the_standard_error_of_paired_draws():
    errors = np.random.default_rng(0).lognormal(sigma=2, size=400)
    grid = np.array([2.0, 1.0, 0.0])
    measured = {"a": {"errors": errors}, "b": {"errors": errors + 0.1}, "c": {"errors": 1.2 * errors[::-1]}}
    rows = rows_of_cell("euler", 2, measured, dict.fromkeys(measured, (grid, 2.0)))
    assert [row.peer for row in rows] == ["a", "b", "c"]
    assert rows[1].excess == pytest.approx(0.1)
    assert rows[1].excess_error < 1e-12
    assert not rows[1].level
    assert rows[2].level  # 0.2 of a mean that is known to a third
    assert rows[2].excess_error == pytest.approx((1.2 * errors[::-1] - errors).std(ddof=1) / 20)


@dataclass(frozen=True)
class Needy(peers.Schedule):
    """A schedule that cannot be made of a spectrum alone."""

    name = "needy_for_the_test"
    needs = ("trajectories",)

    def _nodes(self, count, evidence):
        return np.geomspace(evidence.sigma_max, evidence.sigma_min, count)


def test_a_named_schedule_without_evidence_is_refused_and_an_unnamed_one_noted():
    model = gaussian()
    bare = peers.Evidence(sigma_min=0.002, sigma_max=80.0)
    with pytest.raises(ValueError, match=r"needy_for_the_test needs Evidence\.trajectories"):
        compare(model, ["needy_for_the_test"], 4, evidence=bare, plan=False)
    found = compare(model, None, 4, evidence=bare, plan=False)
    assert any("needy_for_the_test is left out: Evidence.trajectories" in note for note in found.notes)
    assert {"edm", "log_snr"} <= set(found.peers)
    whole = compare(model, None, 4, plan=False)
    assert "needy_for_the_test" in whole.peers


def test_plans_arrays_and_labelled_schedules_take_part():
    model = gaussian()
    plan = co.codesign(model, steps=6)
    grid = co.edm_grid(6, 0.05, 80.0)
    others = {"mine": plan, "stopped": grid, "rho 5": peers.EDMRho(5.0), "edm": "edm"}
    found = compare(model, others, [6, 7], plan=False)
    assert set(found.peers) == set(others)
    assert found.row("mine", "euler", 6).rank == 1
    assert found.row("mine", "euler", 7) is None
    assert any("mine is left out of euler with 7 evaluations: it has 6 steps" in note for note in found.notes)
    np.testing.assert_array_equal(found.row("stopped", "euler", 6).sigmas, grid)
    assert "EDMRho(rho=5.0)" in compare(model, [peers.EDMRho(5.0), "edm"], 6, plan=False).peers


def test_the_call_of_the_design_runs():
    wanted = [name for name in ("edm", "log_snr", "tangent", "las", "score_optimal") if name in peers.names()]
    found = compare(gaussian(co.Heun()), peers=wanted, evaluations=[6, 10])
    assert set(found.peers) == {"plan", *wanted}
    assert found.share_level() == 1


def test_table_markdown_csv_and_figure_have_every_row(table, tmp_path):
    text = str(table)
    assert "exact squared Wasserstein-2" in text
    assert text.count("log_snr") == 3
    assert "best or within one standard error of the best in 100%" in text
    lines = table.markdown().splitlines()
    assert [line.split("|")[1].strip() for line in lines[3:]] == table.peers
    assert "**1.000**" in lines[3]
    with table.to_csv(tmp_path / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(table.rows)
    assert float(rows[0]["error"]) == pytest.approx(table.rows[0].error, rel=1e-5)
    assert float(rows[0]["sigmas"].split()[0]) == 80.0
    axes = table.plot()
    assert [ax.get_title(loc="left") for ax in axes] == ["euler", "heun", "dpmpp_2m"]
    drawn = {line.get_label(): line.get_ydata() for line in axes[0].get_lines()}
    ratio = table.row("edm", "euler", 7).error / table.row("plan", "euler", 7).error
    assert drawn["edm"][0] == pytest.approx(ratio)
    plt.close(axes[0].figure)


# measured models


def mixture(centre=None):
    means = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -0.5]])
    return Mixture(means if centre is None else means[centre], np.full(4 if centre is None else len(centre), 0.3),
                   np.ones(4 if centre is None else len(centre)))  # fmt: skip


@pytest.fixture(scope="module")
def estimated():
    world = mixture()
    data = world.sample(500, dtype=torch.float64)
    return network(
        world,
        data,
        process=co.EDM(0.01, 20.0),
        sampler=co.Euler(),
        measurement=Measurement(levels=6, draws=16, fine_steps=16, evaluations=1500),
    )


@pytest.mark.slow
def test_measured_errors_are_those_of_single_draws_that_no_plan_has_seen(estimated):
    found = compare(estimated, ["edm", "log_snr"], [5], draws=200, seeds=[0, 1])
    row = found.row("edm", "euler", 5)
    start = torch.randn(4000, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64) * 20
    fine = run(mixture(), co.Heun(), co.edm_grid(200, 0.01, 20.0), start)
    own = (run(mixture(), co.Euler(), row.sigmas, start) - fine).square().sum(1).numpy()
    error = np.hypot(row.standard_error, own.std() / np.sqrt(own.size))
    assert abs(row.error - own.mean()) < 3 * error
    assert row.standard_error == pytest.approx(own.std() / 20, rel=0.5)  # 400 draws of two seeds
    assert 0 < row.geometric_mean < row.error
    assert found.row("plan", "euler", 5).rank == 1


def test_a_finished_comparison_is_read_without_the_denoiser(estimated, tmp_path):
    first = compare(estimated, ["edm"], [5], draws=50, folder=tmp_path)
    denoiser = estimated.probe.reference.denoiser
    before = denoiser.calls
    again = compare(estimated, ["edm"], [5], draws=50, folder=tmp_path)
    assert denoiser.calls - before <= 2 * 5 + 4  # evaluations of two grids, counted on one draw; is it the same, asked
    assert [row.error for row in again.rows] == [row.error for row in first.rows]
    with pytest.raises(ValueError, match="test draws"):
        compare(estimated, ["edm"], [5], draws=60, folder=tmp_path)


def test_a_measured_model_has_no_plan_for_another_sampler(estimated):
    with pytest.raises(ValueError, match="measured with Euler"):
        compare(estimated, ["edm"], [5], samplers=["heun"])
    found = compare(estimated, ["edm", "log_snr"], [5], samplers=["heun"], plan=False, draws=50)
    assert {row.used for row in found.rows} == {5.0}


@pytest.mark.slow
def test_guidance_costs_two_evaluations_inside_its_interval():
    low, high = 0.2, 2.0
    class_of_it = mixture([0, 1])
    denoiser = guided(class_of_it, mixture(), 2.0, interval=(low, high))
    data = class_of_it.sample(500, dtype=torch.float64)
    options = {
        "process": co.EDM(0.01, 20.0),
        "sampler": co.Euler(),
        "measurement": Measurement(levels=6, draws=16, fine_steps=16, evaluations=1600),
    }
    model = network(denoiser, data, **options)
    found = compare(model, ["edm", "log_snr"], [4], draws=100)
    for row in found.rows:
        levels = calls_of(co.Euler(), row.sigmas)
        inside = (levels >= low) & (levels <= high)
        assert row.used == levels.size + inside.sum() <= 4
        assert row.steps < 4  # what an unguided denoiser would have
    assert found.row("plan", "euler", 4).level
    held = {f"{steps} steps": co.edm_grid(steps, 0.01, 20.0) for steps in (2, 3, 4, 5)}
    beside = compare(model, held, [4, 6], draws=20, plan=False)
    taken = {(row.peer, row.evaluations) for row in beside.rows}
    for name, grid in held.items():
        levels = calls_of(co.Euler(), grid)
        inside = int(((levels >= low) & (levels <= high)).sum())
        used = levels.size + inside
        for limit in (4, 6):  # it is paid for, and one step more, at what its dearest takes, is not
            assert ((name, limit) in taken) == (used <= limit < used + (2 if inside else 1))
    assert len(taken) >= 2
    assert any("which take" in note for note in beside.notes)


def test_a_model_from_a_file_is_refused(estimated, tmp_path):
    with pytest.raises(ValueError, match="read from a file"):
        compare(co.EstimatedModel.load(estimated.save(tmp_path / "model.npz")), ["edm"], [5])


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        (("edm", 5), {}, "a list is needed"),
        ((["edmm"], 5), {}, "schedule is 'edmm'"),
        ((["edm", "edm"], 5), {}, "'edm' twice"),
        ((["edm"], 0), {}, "evaluations is 0"),
        ((["edm"], 2.5), {}, "evaluations is 2.5"),
        ((["edm"], 5), {"samplers": ["magic"]}, "samplers.0. is 'magic'"),
        ((["edm"], 5), {"samplers": []}, "must not be empty"),
        (([np.array([1.0, 2.0])], 5), {}, "descend"),
        (([np.array([2.0, 1.0])], 1), {}, "terminal is 'denoise'"),
        ((["edm"], 1), {}, "too few for 2 steps"),
    ],
)
def test_bad_arguments_are_named(arguments, options, words):
    with pytest.raises(ValueError, match=words):
        compare(gaussian(), *arguments, **options)


def test_an_object_that_is_no_model_is_refused():
    with pytest.raises(ValueError, match="GaussianModel, an EstimatedModel or a World"):
        compare(3, ["edm"], 5)


def test_ratios_above_a_million_are_drawn_at_the_top_and_the_axis_says_so():
    model = co.GaussianModel(co.Spectrum.power_law(8, exponent=1.5), sampler=co.Euler())
    near = compare(model, peers=["edm"], evaluations=[6])
    far = replace(near, rows=(near.rows[0], replace(near.rows[1], error=1e9 * near.rows[0].error)))
    for found, beyond in ((near, False), (far, True)):
        (ax,) = found.plot()
        assert ("at the top" in ax.get_ylabel()) == beyond
        assert max(line.get_ydata().max() for line in ax.get_lines()) <= 1e6
        plt.close(ax.figure)


def test_fitted_samplers_take_part_with_their_own_steps_and_what_their_fit_took(tmp_path):
    grid = co.edm_grid(6, 0.01, 80.0)
    rows = two_step_rows(grid, 2)
    own = co.LinearMultistep(grid, rows.a, rows.c)
    model = co.GaussianModel(co.Spectrum.power_law(8, exponent=1.5), sampler=co.DPMpp2M())
    fitted = co.FittedSampler(own, grid, fitting=250)
    wanted = {"edm": peers.EDMRho(), "fitted": fitted, "bare": own, "grid": grid}
    found = co.compare(model, wanted, [6, 8], samplers=["euler", "dpmpp_2m"], plan=False)
    for sampler in ("euler", "dpmpp_2m"):
        row = found.row("fitted", sampler, 6)
        assert (row.steps, row.fitting, found.row("bare", sampler, 6).fitting) == (6, 250, 0)
        assert row.error == pytest.approx(found.row("grid", "dpmpp_2m", 6).error, rel=1e-9)
        assert found.row("fitted", sampler, 8) is None
    assert "fitting" in found.table().splitlines()[0]
    path = found.to_csv(tmp_path / "rows.csv")
    with path.open(encoding="utf-8") as file:
        back = read_rows(file)
    assert {row.peer: row.fitting for row in back}["fitted"] == 250
    plain = co.compare(model, ["edm"], [6], samplers=["euler"], plan=False)
    assert "fitting" not in plain.to_csv(tmp_path / "plain.csv").read_text()
