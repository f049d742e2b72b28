"""Plots draw the plan's own numbers, name their units, and leave out what is not there."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.patches import StepPatch

import codesign_opt as co
from codesign_opt.planning.audit_figure import audit_plot
from codesign_opt.planning.frontier_figure import frontier_plot
from codesign_opt.results import panels

PRICES = co.Prices(example=3.0, evaluation=1.0, images=10_000)
STOP = 0.002
EIGENVALUES = np.arange(1, 33) ** -1.5


def coefficients(stop: float = STOP, levels: int = 40) -> co.Coefficients:
    grid = co.Levels.log_uniform(STOP, 80.0, levels, stopping_sigma=stop)
    sigma, lam = grid.sigma, EIGENVALUES[:, None]
    variance, weight = lam + sigma**2, EIGENVALUES**2 / (EIGENVALUES + stop**2)
    score = (weight[:, None] * lam / variance**2).sum(axis=0) * sigma**2
    return co.Coefficients(
        grid,
        score=score,
        floor=1e-7 * score,
        response=np.sqrt(weight)[:, None] * lam / (2 * variance**2) * sigma**2,
        final_score=stop**2 * float((EIGENVALUES / (EIGENVALUES + stop**2)).sum()),
        truncation=float((EIGENVALUES * (1 - np.sqrt(EIGENVALUES / (EIGENVALUES + stop**2))) ** 2).sum()),
        trace=float(EIGENVALUES.sum()),
        band_variances=EIGENVALUES,
    )


def solve(*constraints: object, stop: float = STOP) -> co.Plan:
    c = coefficients(stop)
    terms = co.ScoreError(c) + co.Discretization(c) + co.Truncation(c)
    return co.Problem(terms, [co.Compute(PRICES) <= 1e6, *constraints]).solve()


@pytest.fixture(scope="module")
def plan() -> co.Plan:
    return solve()


@pytest.fixture(scope="module")
def boxed() -> co.Plan:
    floor, cap = co.Floor(2000.0, "density", high=0.05), co.Cap(5000.0, "density", low=0.3, high=1.0)
    return solve(floor, cap, co.Cap(9.0, "step_density", low=0.5, high=5.0))


@pytest.fixture(scope="module")
def full(plan: co.Plan) -> co.Plan:
    curve = []
    for stop in (0.002, 0.01, 0.05):
        other = plan if stop == STOP else solve(stop=stop)
        bound = other.certificate.lower_bound
        curve.append({"stopping_sigma": stop, "error": other.error, "lower_bound": bound, **other.breakdown})
    curve.append({"stopping_sigma": 0.1, "error": None, "status": "InfeasibleError"})
    handed = {"bias": 0.9 * plan.breakdown["discretization"], "score": 1.1 * plan.breakdown["score"]}
    return replace(
        plan,
        curve=tuple(curve),
        handed_out={**handed, "total": sum(handed.values())},
        peers={"edm": {"total": 2 * plan.error}},
        fits={"lognormal": plan.training_density.lognormal()._asdict(), "rho": {"rho": 7.0, "loss": 0.1}},
    )


@pytest.fixture(autouse=True)
def _close_figures() -> Iterator[None]:
    before = dict(mpl.rcParams)
    yield
    plt.close("all")
    assert dict(mpl.rcParams) == before


def outline(ax: Axes, label: str) -> np.ndarray:
    return next(p for p in ax.patches if isinstance(p, StepPatch) and p.get_label() == label).get_data().values


def line(ax: Axes, label: str) -> tuple[np.ndarray, np.ndarray]:
    found = next(item for item in ax.lines if str(item.get_label()).startswith(label))
    return np.asarray(found.get_xdata(), dtype=float), np.asarray(found.get_ydata(), dtype=float)


def labels(ax: Axes) -> list[str]:
    return ax.get_legend_handles_labels()[1]


def test_training_density_is_examples_per_unit_of_log_sigma(full: co.Plan) -> None:
    ax = panels.training_panel(full)
    assert outline(ax, "this plan") == pytest.approx(full.examples / full.levels.log_width)
    assert ax.get_xscale() == "log"
    assert "data units" in ax.get_xlabel()
    assert "per unit of ln σ" in ax.get_ylabel()


def test_training_peers_cost_what_the_plan_costs(full: co.Plan) -> None:
    ax = panels.training_panel(full)
    for label in ("log-normal fit", "EDM default"):
        _, density = line(ax, label)
        assert 3.0 * density @ full.levels.log_width == pytest.approx(full.costs["training"], rel=1e-6)
    styles = {item.get_linestyle() for item in ax.lines}
    assert len(styles) == 2


def test_only_given_peers_are_drawn(plan: co.Plan) -> None:
    assert labels(panels.training_panel(plan)) == ["this plan"]


def test_floors_and_caps_are_hatched_where_they_rule_out(boxed: co.Plan, plan: co.Plan) -> None:
    ax = panels.training_panel(boxed)
    hatched = [p for p in ax.patches if isinstance(p, StepPatch) and p.get_hatch()]
    floor = next(p for p in hatched if p.get_label() == "ruled out by a constraint").get_data().values
    assert floor == pytest.approx(boxed.tables["examples_low"] / boxed.levels.log_width)
    cap = hatched[1].get_data()
    finite = np.isfinite(boxed.tables["examples_high"])
    assert np.array_equal(np.isfinite(cap.values), finite)
    assert np.asarray(cap.baseline)[finite] == pytest.approx(5000.0)
    assert "ruled out by a constraint" in labels(panels.step_panel(boxed))
    assert "ruled out by a constraint" not in labels(panels.training_panel(plan))


def test_step_density_shows_every_node_of_the_grid(full: co.Plan) -> None:
    ax = panels.step_panel(full)
    assert outline(ax, "this plan") == pytest.approx(full.steps / full.levels.log_width)
    nodes, _ = line(ax, "the sampler's noise levels")
    assert nodes == pytest.approx(full.sigmas[full.sigmas > 0])
    assert "steps per unit of ln σ" in ax.get_ylabel()


def test_rho_curve_has_the_density_of_an_edm_grid(full: co.Plan) -> None:
    _, density = line(panels.step_panel(full), "EDM grid")
    grid = co.edm_grid(full.number_of_steps, STOP, 80.0)
    counted = full.levels.density_of_grid(grid[grid > 0])
    counted *= full.steps.sum() / counted.sum()
    assert density * full.levels.log_width == pytest.approx(counted, rel=0.02, abs=0.02)


def test_breakdown_bars_sum_to_the_error_and_the_handed_out_ones_to_its_own(full: co.Plan) -> None:
    ax = panels.breakdown_panel(full)
    bars = {kind: [p.get_width() for c in ax.containers if c.get_label() == kind for p in c]
            for kind in ("_plan", "_handed out")}  # fmt: skip
    assert sum(bars["_plan"]) == pytest.approx(full.error)
    assert sum(bars["_handed out"]) == pytest.approx(full.handed_out["total"])
    names = [text.get_text() for text in ax.get_yticklabels()]
    assert len(names) == len({*full.breakdown, *full.handed_out} - {"total", "initial"})
    assert "units²" in ax.get_xlabel()


def test_breakdown_states_values_and_shares(plan: co.Plan) -> None:
    texts = [text.get_text() for text in panels.breakdown_panel(plan).texts]
    assert len(texts) == sum(value != 0 for value in plan.breakdown.values())
    assert all("%" in text for text in texts)


def test_error_by_level_integrates_to_the_breakdown(plan: co.Plan) -> None:
    ax = panels.level_error_panel(plan)
    for label, cause in (("finite steps", "discretization"), ("few examples", "score")):
        total = outline(ax, label) @ plan.levels.log_width
        assert total == pytest.approx(plan.breakdown[cause])
    assert "per unit of ln σ" in ax.get_ylabel()


def test_curve_leaves_out_stopping_points_without_a_plan_and_marks_the_choice(full: co.Plan) -> None:
    ax = panels.stopping_panel(full)
    stops, total = line(ax, "total")
    assert stops.tolist() == [0.002, 0.01, 0.05]
    assert total == pytest.approx([record["error"] for record in full.curve[:3]])
    chosen = line(ax, "chosen")
    assert (chosen[0][0], chosen[1][0]) == (full.stopping_sigma, full.error)
    assert line(ax, "proved lower bound")[1] == pytest.approx([r["lower_bound"] for r in full.curve[:3]])
    assert {"finite steps", "few examples", "stopping early"} <= set(labels(ax))
    assert "units²" in ax.get_ylabel()


def test_marginal_gain_is_flat_at_the_shadow_price_on_the_active_set(boxed: co.Plan) -> None:
    ax = panels.gain_panel(boxed)
    sigma, gain = line(ax, "active")
    assert gain == pytest.approx(-boxed.shadow_prices["Compute"], rel=1e-4)
    assert line(ax, "shadow price")[1][0] == pytest.approx(-boxed.shadow_prices["Compute"])
    capped, above = line(ax, "at a cap")
    floored, below = line(ax, "at a floor")
    assert np.all(above > gain.max())
    assert np.all(below < gain.min() * (1 + 1e-6))
    assert len(sigma) + len(capped) + len(floored) == len(boxed.levels)


def test_idle_levels_are_told_apart(plan: co.Plan) -> None:
    new = plan.new_examples.copy()
    new[:5] = 0.0
    states = panels.level_states(replace(plan, new_examples=new))
    assert states[:5].tolist() == ["idle"] * 5
    assert set(states[5:]) == {"active"}


def test_bands_sum_to_the_discretization_error(plan: co.Plan) -> None:
    ax = panels.band_panel(plan)
    x, y = line(ax, "_child")
    assert x == pytest.approx(EIGENVALUES)
    assert y.sum() == pytest.approx(plan.breakdown["discretization"])
    assert "units²" in ax.get_xlabel()
    tables = {name: values for name, values in plan.tables.items() if name != "band_variances"}
    unknown = panels.band_panel(replace(plan, tables=tables))
    assert unknown.get_xlabel().startswith("band")


def test_frontier_shows_error_and_share() -> None:
    values = np.geomspace(1e4, 1e7, 4)
    share = np.array([0.1, np.nan, 0.4, 0.6])
    ax = frontier_plot("budget", values, 1 / values, share)
    twin = next(other for other in ax.figure.axes if other is not ax)
    assert line(ax, "error")[1] == pytest.approx(1 / values)
    assert line(twin, "training")[1] == pytest.approx(100 * share, nan_ok=True)
    assert "%" in twin.get_ylabel()
    assert "price" in ax.get_xlabel()
    assert "images" in frontier_plot("images", values, 1 / values, share).get_xlabel()


def test_audit_shows_excess_by_level_and_the_gap_by_change(plan: co.Plan) -> None:
    excess = plan.tables["score"] * np.cos(np.log(plan.levels.sigma))
    excess[3] = np.inf
    ax = audit_plot(plan.levels, excess, {"training density": 1e-4, "grid": 2e-3})
    finite = np.isfinite(excess)
    shown = outline(ax, "more error than the best density") + outline(ax, "less error than the best density")
    assert (shown * plan.levels.log_width)[finite] == pytest.approx(excess[finite])
    assert line(ax, "never trained")[0].tolist() == [plan.levels.sigma[3]]
    assert "better grid: error -2e-3" in labels(ax)


def titles(figure: plt.Figure) -> list[str]:
    return [ax.get_title(loc="left") for ax in figure.axes]


@pytest.fixture(scope="module")
def page(full: co.Plan) -> plt.Figure:
    """The drawn page of a plan with everything."""
    figure = full.plot()
    figure.canvas.draw()
    return figure


@pytest.mark.slow
def test_page_answers_in_its_title_and_holds_six_panels(full: co.Plan, page: plt.Figure) -> None:
    figure = page
    title = figure.get_suptitle()
    assert title.startswith("Spend ")
    assert f"sample in {full.number_of_steps} steps" in title
    assert "stop at σ = 0.002" in title
    assert "proved optimal" in figure.get_supxlabel()
    assert titles(figure)[:5] == [
        "Where to train",
        "Where to step",
        "What the error is made of",
        "Where to stop",
        "What one more example is worth",
    ]
    assert len(figure.axes) == 6
    assert figure.get_size_inches().tolist() == pytest.approx([14.1, 8.4])


@pytest.mark.slow
def test_page_panels_do_not_overlap(page: plt.Figure) -> None:
    figure = page
    boxes = [ax.get_tightbbox() for ax in figure.axes]
    for i, a in enumerate(boxes):
        for b in boxes[i + 1 :]:
            width = min(a.x1, b.x1) - max(a.x0, b.x0)
            height = min(a.y1, b.y1) - max(a.y0, b.y0)
            assert width < 3 or height < 3  # pixels
        assert a.x0 >= 0
        assert a.x1 <= figure.bbox.x1


def test_page_of_a_plan_without_a_curve_has_no_stopping_panel(plan: co.Plan) -> None:
    assert "Where to stop" not in titles(plan.plot())


def test_page_of_a_sampler_plan_has_no_training_panel() -> None:
    sampler = co.Problem(co.Discretization(coefficients()), [co.Steps() <= 9]).solve()
    figure = sampler.plot()
    assert "Where to train" not in titles(figure)
    assert figure.get_suptitle().startswith("Sample in 9 steps")


def test_page_of_shared_parameters_has_no_sampler_panel() -> None:
    rng = np.random.default_rng(0)
    features, response = rng.standard_normal((12, 2, 5)), rng.standard_normal((5, 1))
    term = co.InformationError(features, response, sigma=np.geomspace(0.01, 50, 12), prior=np.eye(5))
    training = co.Compute(PRICES, part="training") <= 1e4
    trained = co.Problem(term, [training]).solve(tolerance=1e-5)
    figure = trained.plot()
    figure.canvas.draw()
    assert titles(figure) == ["Where to train", "What the error is made of", "What one more example is worth"]
    assert figure.get_suptitle().startswith("Train on 3,333 examples over 12 noise levels")


def test_given_axes_and_figures_are_used(plan: co.Plan) -> None:
    figure, ax = plt.subplots()
    assert panels.training_panel(plan, ax) is ax
    other = plt.figure()
    assert plan.plot(other) is other
    assert plt.get_fignums() == [figure.number, other.number]
    small = plan.plot(plt.figure(figsize=(3, 2)))
    assert all(min(ax.get_position().bounds) > 0 and max(ax.get_position().max) < 1 for ax in small.axes)


@pytest.mark.skipif(os.environ.get("CODESIGN_OPT_FULL") != "1", reason="tests/test_imports.py asks the same")
def test_importing_the_library_does_not_load_matplotlib() -> None:
    code = "import sys, codesign_opt as co; co.Plan; co.report if 0 else 0; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
