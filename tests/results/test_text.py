"""What print(plan) says: every part, sums that agree, units, and what is not proved."""

from __future__ import annotations

import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import codesign_opt as co
from codesign_opt.basics.wording import percent, quantity, signed
from codesign_opt.planning.audit import audit_text
from codesign_opt.results.level_table import level_table
from codesign_opt.results.text import plan_text

PRICES = co.Prices(example=3.0, evaluation=1.0, images=10_000)
STOP = 0.002
EIGENVALUES = np.arange(1, 65) ** -1.5


def coefficients(levels: int = 60, order: int = 1) -> co.Coefficients:
    grid = co.Levels.log_uniform(STOP, 80.0, levels)
    sigma, lam = grid.sigma, EIGENVALUES[:, None]
    variance, weight = lam + sigma**2, EIGENVALUES**2 / (EIGENVALUES + STOP**2)
    score = (weight[:, None] * lam / variance**2).sum(axis=0) * sigma**2
    local = lam / (2 * variance**2) if order == 1 else lam * sigma / (2 * variance**3)
    return co.Coefficients(
        grid,
        score=score,
        floor=1e-7 * score,
        response=np.sqrt(weight)[:, None] * local * sigma ** (order + 1),
        order=order,
        evaluations_per_step=order,
        final_score=STOP**2 * float((EIGENVALUES / (EIGENVALUES + STOP**2)).sum()),
        truncation=3e-6,
        trace=float(EIGENVALUES.sum()),
        band_variances=EIGENVALUES,
    )


def solve(*constraints: object, order: int = 1, **options: object) -> co.Plan:
    c = coefficients(order=order)
    terms = co.ScoreError(c) + co.Discretization(c) + co.Truncation(c)
    return co.Problem(terms, [co.Compute(PRICES) <= 1e6, *constraints], **options).solve()


@pytest.fixture(scope="module")
def plan() -> co.Plan:
    return solve(co.Steps() <= 18, co.Cap(9000.0, "density", low=0.3, high=1.0), order=2)


@pytest.fixture(scope="module")
def full(plan: co.Plan) -> co.Plan:
    handed = {"bias": 0.9 * plan.breakdown["discretization"], "score": 1.1 * plan.breakdown["score"]}
    return replace(
        plan,
        handed_out={**handed, "total": sum(handed.values()), "cross term at most": 1e-9},
        outer={"status": "best of 24", "points": 24, "relative_gap": 0.0134, "at_end": True, "low": STOP, "high": 0.5},
        peers={"edm": {"error": 2 * plan.error, "ratio": 2.0}, "log_snr": {"total": 3 * sum(handed.values())}},
        fits={
            "lognormal": {"P_mean": -0.8, "P_std": 1.7, "loss": 0.012},
            "rho": {"rho": 5.43, "loss": 0.031},
        },
        notes=("burn-in is not over below sigma 0.01, " + "where the formula is optimistic, " * 4,),
    )


def numbers_of(text: str, name: str) -> list[float]:
    line = next(line for line in text.splitlines() if line.startswith(f"  {name}"))
    return [float(token.replace(",", "")) for token in re.findall(r"(?<=\s)-?[\d,]*\.?\d+(?:e-?\d+)?(?=\s|$)", line)]


def test_causes_are_all_listed_and_sum_to_the_error(plan: co.Plan) -> None:
    text = str(plan)
    causes = [name for name, value in plan.breakdown.items() if value]
    assert {"score", "floor", "discretization", "truncation", "last evaluation"} == set(causes)
    printed = sum(numbers_of(text, name)[0] for name in causes)
    assert printed == pytest.approx(plan.error, rel=1e-3)
    assert numbers_of(text, "total")[0] == pytest.approx(plan.error, rel=1e-3)
    assert "none from initial" in text


def test_shares_of_the_causes_sum_to_one_hundred_per_cent(plan: co.Plan) -> None:
    causes = str(plan).split("Error by cause")[1].split("total")[0]
    assert sum(float(x) for x in re.findall(r"([\d.]+) %", causes)) == pytest.approx(100.0, abs=0.1)


def test_headline_states_steps_stopping_point_and_error_relative_to_the_data(plan: co.Plan) -> None:
    lines = str(plan).splitlines()
    assert lines[0] == "Plan: 18 sampler steps, sigma 80 to 0.002, the last one to zero noise"
    relative = plan.error / EIGENVALUES.sum()
    assert f"{percent(relative)} of the data's total variance" in lines[2]
    assert f"RMS {percent(relative**0.5)}" in lines[2]


def test_budget_counts_thirty_five_evaluations_for_eighteen_heun_steps(plan: co.Plan) -> None:
    text = str(plan)
    assert "18 steps, 35 evaluations per image" in text
    spent = numbers_of(text, "training")[0] + numbers_of(text, "sampling")[0]
    assert spent == pytest.approx(1e6, abs=2)
    assert f"{quantity(plan.new_examples.sum())} examples at 3 each" in text


def test_shadow_prices_come_with_units_and_elasticity(plan: co.Plan) -> None:
    text = str(plan)
    assert f"{signed(plan.shadow_prices['Steps'])}  step" in text
    assert f"{signed(plan.shadow_prices['Compute'])}  unit of price" in text
    assert signed(plan.elasticities["Steps"], "%") in text
    assert " bind" in next(line for line in text.splitlines() if "Cap(density" in line)


def test_slack_constraints_are_called_so() -> None:
    text = str(solve(co.Steps() <= 500, co.Cap(1e9, "density")))
    assert "not binding" in next(line for line in text.splitlines() if line.startswith("  Steps"))
    assert "binds nowhere" in next(line for line in text.splitlines() if line.startswith("  Cap(density)"))


def test_a_proved_plan_says_to_what_gap_and_an_unproved_one_is_not_certified(plan: co.Plan) -> None:
    assert re.search(r"proved optimal at this stopping point to \de-\d+ \(lower bound", str(plan))
    failed = replace(plan, certificate=replace(plan.certificate, relative_gap=2.5e-4))
    assert "NOT CERTIFIED: relative gap 0.00025 (tolerance 1e-06)" in str(failed)
    assert "proved" not in str(failed)


def test_statement_over_stopping_points(plan: co.Plan, full: co.Plan) -> None:
    assert "best of 24 stopping points; another could be at most 1.34 % better" in str(full)
    assert "at the low end of the searched range" in " ".join(str(full).split())
    best = replace(plan, outer={"status": "optimal", "points": 31, "relative_gap": 1e-3, "at_end": False})
    assert "optimal over stopping points to 0.1 % (31 tried)" in str(best)
    unbounded = replace(plan, outer={"status": "best of 3", "points": 3, "relative_gap": float("inf")})
    assert "best of 3 stopping points\n" in str(unbounded)
    assert "stopping points" not in str(replace(plan, outer={"status": "given", "points": 1}))


def test_everything_optional_is_printed_where_it_is_there_and_only_there(plan: co.Plan, full: co.Plan) -> None:
    text, short = str(full), str(plan)
    for words in ("whole steps", "other schedules", "P_mean -0.800, P_std 1.700", "rho 5.43", "Note: burn-in"):
        assert words in text
        assert words not in short
    assert "score error +1.2 %" in text
    assert "bias +3.1 %" in text
    assert numbers_of(text, "total")[-1] == pytest.approx(full.handed_out["total"], rel=1e-3)
    assert numbers_of(text, "bias")[-1] == pytest.approx(full.handed_out["bias"], rel=1e-3)
    assert numbers_of(text, "edm")[-1] == 2.0
    assert numbers_of(text, "log_snr")[-1] == 3.0
    assert text.index("log_snr") < text.index("  edm") or full.peers["edm"]["error"] < full.peers["log_snr"]["total"]


def test_a_full_plan_fits_the_page(plan: co.Plan, full: co.Plan) -> None:
    many = {f"constraint {i} with a very long name that nobody should choose": -1e-9 for i in range(12)}
    crowded = replace(
        full,
        shadow_prices={**full.shadow_prices, **many},
        peers={f"peer {i}": {"error": full.error * (1 + i)} for i in range(12)},
        notes=full.notes * 9,
        sigmas=np.concatenate([np.geomspace(80, STOP, 400), [0.0]]),
    )
    for candidate, most in ((plan, 30), (full, 42), (crowded, 48)):
        lines = str(candidate).splitlines()
        assert len(lines) <= most
        assert max(map(len, lines)) <= 88
        assert all(line == line.rstrip() for line in lines)
    assert "… and 7 worse ones in plan.peers" in str(crowded)


def test_sigmas_are_printed_whole_where_they_fit(plan: co.Plan) -> None:
    text = str(plan).split("Sigmas")[1]
    assert [float(token) for token in text.split()] == pytest.approx(plan.sigmas.tolist(), rel=1e-3)


def test_a_fit_cheaper_than_a_constrained_plan_is_explained(full: co.Plan) -> None:
    loose = replace(full, fits={"lognormal": {"P_mean": -1.0, "P_std": 1.9, "loss": -0.4}})
    assert "need not meet the plan's constraints" in str(loose)


def test_a_sampler_plan_says_nothing_of_examples() -> None:
    c = coefficients()
    sampler = co.Problem(co.Discretization(c), [co.Steps() <= 9]).solve()
    text = str(sampler)
    assert "examples" not in text
    assert "9 steps, 9 evaluations per image" in text
    assert "examples" not in level_table(sampler)


def test_a_plan_of_shared_parameters_says_that_no_sampler_was_planned() -> None:
    rng = np.random.default_rng(0)
    features, response = rng.standard_normal((12, 2, 5)), rng.standard_normal((5, 1))
    term = co.InformationError(features, response, sigma=np.geomspace(0.01, 50, 12), prior=np.eye(5))
    training = co.Compute(PRICES, part="training") <= 1e4
    trained = co.Problem(term, [training]).solve(tolerance=1e-5)
    text = str(trained)
    assert "no sampler planned" in text.splitlines()[0]
    assert "evaluations" not in text
    assert "stopping" not in text
    assert "Sigmas" not in text
    assert numbers_of(text, "total")[0] == pytest.approx(trained.error, rel=1e-3)
    assert "sandwich" in text
    assert "steps" not in level_table(trained)


def test_a_custom_term_keeps_its_name(plan: co.Plan) -> None:
    changed = {**plan.breakdown, "Congestion": 0.5 * plan.error}
    text = str(replace(plan, breakdown=changed, error=1.5 * plan.error))
    assert re.search(r"  Congestion +term of this problem +\S+ +33.3 %", text)


def table_columns(text: str) -> dict[str, list[str]]:
    lines = text.splitlines()
    head = re.split(r"\s{2,}", lines[0].strip())
    body = [re.split(r"\s{2,}", line.strip()) for line in lines[1:]]
    assert all(len(row) == len(head) for row in body[:-1])
    return {name: [row[i] for row in body[:-1]] for i, name in enumerate(head)}


@pytest.mark.parametrize("rows", [1, 5, None, 60, 1000])
def test_level_table_sums_extensive_quantities(plan: co.Plan, rows: int | None) -> None:
    columns = table_columns(plan.table(rows))
    expected = min(12 if rows is None else rows, len(plan.levels))
    assert len(columns["sigma"]) == expected
    read = {name: sum(float(x.replace(",", "")) for x in cells) for name, cells in columns.items() if name in SUMS}
    for name, total in SUMS.items():
        assert read[name] == pytest.approx(total(plan), rel=5e-3)
    assert sum(float(x.split()[0].strip("<>")) for x in columns["share"]) == pytest.approx(100, abs=0.5)


SUMS = {
    "examples": lambda plan: plan.examples.sum(),
    "steps": lambda plan: plan.steps.sum(),
    "score": lambda plan: plan.tables["score"].sum(),
    "floor": lambda plan: plan.tables["floor"].sum(),
    "discret.": lambda plan: plan.tables["discretization"].sum(),
}


def test_level_table_density_is_examples_over_extent_in_log_sigma(plan: co.Plan) -> None:
    columns = table_columns(plan.table(60))
    density = [float(x.replace(",", "")) for x in columns["per ln sigma"]]
    assert density == pytest.approx((plan.examples / plan.levels.log_width).tolist(), rel=6e-3)
    step = [float(x.replace(",", "")) for x in columns["step size"]]
    assert step == pytest.approx((plan.levels.width / plan.steps).tolist(), rel=6e-3)


def test_level_table_refuses_rows_below_one(plan: co.Plan) -> None:
    for bad in (0, -3, True, 2.5):
        with pytest.raises(ValueError, match="rows"):
            plan.table(bad)  # type: ignore[arg-type]


def test_examples_already_spent_are_told_apart() -> None:
    spent = np.full(60, 500.0)
    text = str(solve(spent=spent))
    assert "beside 30,000 already spent" in text


def test_audit_text_lists_causes_gap_and_proof(plan: co.Plan, full: co.Plan) -> None:
    current = {"bias": 2e-3, "score": 5e-4, "floor": 0.0, "total": 2.5e-3}
    gap = {"training density": 1e-4, "grid": 1e-3, "stopping point and split": 4e-4}
    audit = SimpleNamespace(
        levels=plan.levels, sigmas=plan.sigmas, examples=plan.examples, current=current, optimum=full,
        ratio=2.5, gap=gap, excess_by_level=plan.tables["score"], budget=1e6, within=plan.examples,
    )  # fmt: skip
    text = audit_text(audit)
    assert text.startswith("Audit: today's schedule makes 2.5 times the error")
    for name in ("bias", "score", *gap):
        assert f"  {name}" in text
    assert "66.7 %" in text
    assert "proved optimal" in text
    assert max(map(len, text.splitlines())) <= 88


def test_plan_text_is_what_print_shows(plan: co.Plan) -> None:
    assert plan_text(plan) == str(plan)
