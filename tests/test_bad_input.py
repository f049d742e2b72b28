"""Bad input is refused by name: every public constructor and function against what people pass by mistake."""

from dataclasses import dataclass

import cvxpy as cp
import numpy as np
import pytest

import codesign_opt as co

NAN, INF = float("nan"), float("inf")
LEVELS = co.Levels.log_uniform(0.01, 10.0, 8)
PRICES = co.Prices(example=3.0, evaluation=1.0, images=100)
ONES = np.ones(8)
BAD_NUMBERS = [NAN, INF, -INF, -1.0, True, "1", None, [1.0]]
BAD_VECTORS = [[], [NAN] * 8, [INF] * 8, [-1.0] * 8, ONES[:7], np.ones((8, 1)), ["a"] * 8, ONES > 0, None, 1j * ONES]


def coefficients(**changes):
    settings = {"score": ONES, "floor": np.zeros(8), "response": np.ones((2, 8)), "order": 2}
    return co.Coefficients(LEVELS, **{**settings, **changes})


MODEL = co.GaussianModel(co.Spectrum.power_law(8, exponent=1.5))
TABLE = MODEL.coefficients(0.02, 20)


def refused(call, *names):
    with pytest.raises((ValueError, TypeError)) as caught:
        call()
    assert any(name in str(caught.value) for name in names), f"{caught.value} names none of {names}"


@pytest.mark.parametrize(
    "edges",
    [
        [],
        [1.0],
        [1.0, 1.0],
        [2.0, 1.0],
        [0.0, 1.0],
        [-1.0, 1.0],
        [1.0, NAN],
        [1.0, INF],
        [[1.0, 2.0]],
        "ab",
        None,
        [True, False],
    ],
)
def test_levels(edges):
    refused(lambda: co.Levels(edges), "Levels.edges")


@pytest.mark.parametrize("value", BAD_NUMBERS)
def test_log_uniform_levels(value):
    refused(lambda: co.Levels.log_uniform(value, 10.0, 8), "Levels.sigma_min")
    refused(lambda: co.Levels.log_uniform(0.01, value, 8), "Levels.sigma_max")
    refused(lambda: co.Levels.log_uniform(0.01, 10.0, value), "levels")
    if value is not None:
        refused(lambda: co.Levels.log_uniform(0.01, 10.0, 8, stopping_sigma=value), "stopping_sigma")
    refused(lambda: co.Levels.log_uniform(10.0, 0.01, 8), "sigma_min")
    refused(lambda: co.Levels.log_uniform(0.01, 10.0, 8, stopping_sigma=10.0), "stopping_sigma")


@pytest.mark.parametrize("value", BAD_VECTORS)
def test_coefficient_rows(value):
    for name in ("score", "floor"):
        refused(lambda name=name: coefficients(**{name: value}), f"Coefficients.{name}")
    if value is not None:
        refused(lambda: coefficients(variance_ratio=value), "Coefficients.variance_ratio")


@pytest.mark.parametrize("value", [np.full((2, 8), NAN), np.ones((2, 7)), np.ones(8), np.full((1, 8), INF), "r", None])
def test_coefficient_response(value):
    refused(lambda: coefficients(response=value), "Coefficients.response")


@pytest.mark.parametrize("value", BAD_NUMBERS)
def test_coefficient_numbers(value):
    for name in ("truncation", "initial", "final_score", "final_floor", "positivity", "order", "evaluations_per_step"):
        refused(lambda name=name: coefficients(**{name: value}), f"Coefficients.{name}")
    if value is not None:
        refused(lambda: coefficients(trace=value), "Coefficients.trace")


def test_coefficient_kinds():
    refused(lambda: coefficients(sampler="heun"), "Coefficients.sampler")
    refused(lambda: coefficients(estimation={"draws": 64}), "Coefficients.estimation")
    refused(lambda: coefficients(band_variances=[1.0, -1.0]), "Coefficients.band_variances")
    refused(lambda: coefficients(order=1.5), "Coefficients.order")
    refused(lambda: coefficients(order=0), "Coefficients.order")
    refused(lambda: coefficients(coupling=2.7), "Coefficients.coupling")
    refused(lambda: coefficients(terminal="stop"), "Coefficients.terminal")
    refused(lambda: co.Coefficients([1.0, 2.0], ONES, ONES, np.ones((1, 8))), "Coefficients.levels")


@pytest.mark.parametrize("value", [*BAD_NUMBERS[:-1], 0.0, -ONES, [], [NAN, 1.0], [True]])
def test_prices(value):
    refused(lambda: co.Prices(example=value, evaluation=1.0, images=10), "Prices.example")
    refused(lambda: co.Prices(example=1.0, evaluation=value, images=10), "Prices.evaluation")
    if np.ndim(value) or value != 0.0:
        refused(lambda: co.Prices(example=1.0, evaluation=1.0, images=value), "Prices.images")


@pytest.mark.parametrize(
    "function",
    [
        lambda s: s > 0.0,
        lambda s: 0.0 * s,
        lambda s: s * NAN,
        lambda s: -s,
        lambda s: s[:2],
        lambda s: "dear",
        lambda s: None,
        lambda s: s + 1j,
    ],
)
def test_price_functions(function):
    refused(lambda: co.Prices(function, 1.0, 10).example_price(LEVELS), "Prices.example")
    refused(lambda: co.Prices(1.0, function, 10).evaluation_price(LEVELS), "Prices.evaluation")


def test_price_arrays_of_another_length_and_throughputs():
    refused(lambda: co.Prices(np.ones(5), 1.0, 10).example_price(LEVELS), "Prices.example")
    for name in ("examples_per_second", "evaluations_per_second", "images"):
        settings = {"examples_per_second": 1.0, "evaluations_per_second": 1.0, "images": 10, name: -1.0}
        refused(lambda settings=settings: co.Prices.from_throughput(**settings), name)


@pytest.mark.parametrize("value", [*BAD_NUMBERS, 0.0])
def test_couplings(value):
    refused(lambda: co.Local(value), "Local.log_width")
    refused(lambda: co.PerStep(value), "PerStep.log_width")
    refused(lambda: co.Local(2.7, form=value), "Local.form")


@pytest.mark.parametrize(
    "function", [lambda s: -s, lambda s: s[:3], lambda s: s * NAN, lambda s: s > 1, lambda s: "wide"]
)
def test_coupling_functions(function):
    refused(lambda: co.Local(function).lengths(LEVELS), "Local.log_width")
    refused(lambda: co.PerStep(function).lengths(LEVELS), "PerStep.log_width")


@pytest.mark.parametrize("edges", [[], [1.0], [2.0, 1.0], [-1.0, 1.0], [1.0, NAN], None])
def test_block_edges(edges):
    refused(lambda: co.PerLevel(edges), "PerLevel.edges")


def test_blocks_must_cover_the_levels():
    refused(lambda: co.PerLevel([0.1, 1.0]).lengths(LEVELS), "PerLevel.edges")


@pytest.mark.parametrize("value", BAD_NUMBERS)
def test_lognormal(value):
    if value != -1.0:
        refused(lambda: co.LogNormal(value, 1.0), "LogNormal.mean")
    refused(lambda: co.LogNormal(0.0, value), "LogNormal.std")


def test_lognormal_without_mass_on_the_levels():
    refused(lambda: co.LogNormal(300.0, 0.1).on_levels(LEVELS), "no mass")


@pytest.mark.parametrize("value", [*BAD_NUMBERS, 0, 2.5])
def test_training_run(value):
    refused(lambda: co.TrainingRun(co.LogNormal(), value, 10), "TrainingRun.iterations")
    refused(lambda: co.TrainingRun(co.LogNormal(), 10, value), "TrainingRun.batch")


@pytest.mark.parametrize("density", ["edm", None, True, b"edm"])
def test_training_run_density(density):
    refused(lambda: co.TrainingRun(density, 10, 10), "TrainingRun.density")


@pytest.mark.parametrize("name", ["spectrum", "process", "sampler", "training", "coupling", "terminal", "start"])
@pytest.mark.parametrize("value", ["edn", 3.0, None, co.Heun])
def test_gaussian_model(name, value):
    settings = {"spectrum": co.Spectrum.power_law(4, exponent=1.0), name: value}
    refused(lambda: co.GaussianModel(**settings), f"GaussianModel.{name}")


@pytest.mark.parametrize("value", [NAN, INF, -1.0, 0.0, True, "1", [0.1], 80.0, 100.0])
def test_stopping_points(value):
    refused(lambda: MODEL.coefficients(value), "stopping_sigma")


@pytest.mark.parametrize("value", [0, 1, 2.5, NAN, True, None, "many"])
def test_number_of_levels(value):
    refused(lambda: MODEL.coefficients(0.01, value), "levels")
    refused(lambda: co.codesign(MODEL, steps=5, levels=value), "levels")


@pytest.mark.parametrize(
    "grid", [[], [1.0], [1.0, 2.0], [1.0, 0.0, 0.0], [1.0, -1.0], [NAN, 0.0], "ab", [INF, 1.0], [[2.0, 1.0]]]
)
def test_grids(grid):
    for method in (MODEL.settled, MODEL.band_errors, MODEL.kl_divergence, MODEL.discretization):
        refused(lambda method=method: method(grid), "sigmas")
    refused(lambda: co.codesign(MODEL, PRICES, 1e4, sigmas=grid), "sigmas")


@pytest.mark.parametrize("value", [*BAD_NUMBERS, 0])
def test_named_grids(value):
    for family in (co.edm_grid, co.log_snr_grid):
        refused(lambda family=family: family(value, 0.01, 80.0), "steps")
        refused(lambda family=family: family(8, value, 80.0), "sigma_min")
        refused(lambda family=family: family(8, 0.01, value), "sigma_max")
        refused(lambda family=family: family(8, 80.0, 0.01), "sigma_min")
        refused(lambda family=family: family(8, 0.01, 80.0, terminal="none"), "terminal")
    refused(lambda: co.edm_grid(8, 0.01, 80.0, rho=value), "rho")


@pytest.mark.parametrize("kind", [co.Floor, co.Cap])
def test_level_bounds(kind):
    for value in (NAN, -1.0, True, "1", None, [], -ONES, [NAN] * 8):
        refused(lambda value=value: kind(value), f"{kind.__name__}.value")
    refused(lambda: kind(1.0, "examples per level"), f"{kind.__name__}.quantity")
    for low, high in ((-1.0, 2.0), (NAN, 2.0), (2.0, 1.0), (1.0, NAN), (1.0, 1.0), (0.0, True), ("a", 1.0)):
        refused(lambda low=low, high=high: kind(1.0, low=low, high=high), f"{kind.__name__}.")


def test_a_floor_on_step_sizes_is_restated():
    refused(lambda: co.Floor(0.1, "step_size"), "step_density")


def solve(*constraints, terms=(), **options):
    objective = co.ScoreError(TABLE) + co.Discretization(TABLE)
    for term in terms:
        objective = objective + term
    return co.Problem(objective, [co.Compute(PRICES) <= 1e4, *constraints], **options)


def test_an_empty_mask_is_refused_by_name():
    refused(lambda: solve(co.Floor(1.0, low=0.0201, high=0.0202)), "Floor(density)", "Floor")
    refused(lambda: solve(co.named("mine", lambda d: cp.sum(d.examples[d.sigma > 1e9]) >= 1)), "mine")


@pytest.mark.parametrize(
    ("at_most", "low", "high"),
    [
        (-0.1, 0.1, 1.0),
        (1.1, 0.1, 1.0),
        (0.5, 1.0, 0.1),
        (0.5, 0.0, 1.0),
        (NAN, 0.1, 1.0),
        (0.5, 0.1, INF),
        (True, 0.1, 1.0),
    ],
)
def test_share(at_most, low, high):
    refused(lambda: co.Share(at_most, low, high), "Share.")


def test_other_constraints():
    refused(lambda: co.Share(0.5, 0.1, 1.0, "error"), "Share.quantity")
    refused(lambda: co.Monotone("up"), "Monotone.direction")
    refused(lambda: co.Monotone("increasing", "steps"), "Monotone.quantity")
    refused(lambda: co.Smooth("examples"), "Smooth.quantity")
    for weight in (0.0, -1.0, NAN, True):
        refused(lambda weight=weight: co.Smooth("density", weight), "Smooth.weight")
        refused(lambda weight=weight: co.TrustCap(TABLE, weight), "TrustCap.kappa")
    refused(lambda: co.TrustCap(coefficients()), "TrustCap")
    refused(lambda: co.Compute("cheap"), "Compute.prices")
    refused(lambda: co.Compute(PRICES, part="testing"), "Compute.part")
    refused(lambda: co.ScoreError("table"), "ScoreError.table")
    refused(lambda: co.Discretization(None), "Discretization.table")
    refused(lambda: co.SeparableDiscretization(TABLE, -np.ones(20)), "SeparableDiscretization.reference_steps")
    refused(lambda: co.named("", co.Steps() <= 3), "named")
    refused(lambda: co.named("x", 3.0), "named")


def test_algebra_that_would_drop_a_half_or_turn_concave():
    refused(lambda: 1 <= co.Steps() <= 2, "Steps")
    refused(lambda: bool(co.Steps()), "Steps")
    refused(lambda: bool(co.Steps() <= 2), "Steps")
    refused(lambda: bool(co.named("x", co.Steps() <= 2)), "x")
    refused(lambda: co.Steps() >= 2, "Steps")
    refused(lambda: -1 * co.ScoreError(TABLE), "ScoreError")
    refused(lambda: co.ScoreError(TABLE) * NAN, "ScoreError")
    for constant in (NAN, INF, True, "1", None):
        refused(lambda constant=constant: co.ScoreError(TABLE) + constant, "ScoreError")
        refused(lambda constant=constant: constant + co.ScoreError(TABLE), "ScoreError")
    refused(lambda: 1.0 - co.ScoreError(TABLE), "ScoreError")
    for limit in (NAN, INF, True, "18", None):
        refused(lambda limit=limit: co.Steps() <= limit, "Steps")


@dataclass(frozen=True, eq=False)
class Mine(co.Term):
    kind: str

    def expression(self, design):
        return {
            "concave": lambda: cp.sum(cp.sqrt(design.examples)),
            "ratio": lambda: cp.sum(design.examples) / cp.sum(design.steps),
            "vector": lambda: design.examples,
            "bool": lambda: True,
            "number": lambda: 3.0,
            "whole numbers": lambda: cp.sum(cp.Variable(3, boolean=True)),
            "none": lambda: None,
        }[self.kind]()


@pytest.mark.parametrize("kind", ["concave", "ratio", "vector", "bool", "number", "whole numbers", "none"])
def test_a_users_term_that_is_not_convex_is_blamed_by_name(kind):
    refused(lambda: solve(terms=[Mine(kind)]), "Mine")
    refused(lambda: solve(Mine(kind) <= 3.0), "Mine")


@pytest.mark.parametrize(
    "function",
    [
        lambda d: cp.sum(cp.square(d.examples)) >= 1,
        lambda d: cp.sum(cp.log(d.steps)) <= 1,
        lambda d: True,
        lambda d: None,
        lambda d: [True],
        lambda d: "x",
        lambda d: 3.0,
        lambda d: cp.sum(cp.Variable(3, integer=True)) <= 1,
        lambda d: cp.sum(d.examples),
    ],
)
def test_a_users_constraint_that_cannot_be_used_is_blamed_by_name(function):
    refused(lambda: solve(co.named("my row", function)), "my row")


def test_problems():
    refused(lambda: co.Problem("error", []), "Problem.objective")
    refused(lambda: co.Problem(co.ScoreError(TABLE), co.Compute(PRICES) <= 1.0), "Problem.constraints")
    refused(lambda: solve(co.Steps()), "Steps")
    refused(lambda: solve(True), "constraint")
    refused(lambda: solve("cheap"), "constraint")
    refused(lambda: co.Problem(co.Steps(), []), "levels")
    other = MODEL.coefficients(0.02, 30)
    refused(lambda: co.Problem(co.ScoreError(TABLE) + co.Discretization(other), []), "levels")
    for name in ("examples", "steps", "spent"):
        for value in ([1.0], [NAN] * 20, [-1.0] * 20, "many"):
            refused(lambda name=name, value=value: solve(**{name: value}), f"Problem.{name}")
    refused(lambda: co.Problem(co.ScoreError(TABLE), []), "examples")
    refused(lambda: co.Problem(co.ScoreError(TABLE), [co.Compute(PRICES, part="training") <= 1e4]), "steps")
    free = co.Prices(1.0, 1.0, images=0)
    refused(lambda: co.Problem(co.ScoreError(TABLE) + co.Discretization(TABLE), [co.Compute(free) <= 1e4]), "images")
    for tolerance in (0.0, NAN, -1.0, True):
        refused(lambda tolerance=tolerance: solve().solve(tolerance=tolerance), "tolerance")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("features", np.ones((3, 2))),
        ("features", np.full((3, 2, 4), NAN)),
        ("response", np.ones(4)),
        ("response", np.full((4, 1), INF)),
        ("sigma", [1.0, 0.5, 2.0]),
        ("sigma", [0.0, 1.0, 2.0]),
        ("sigma", []),
        ("prior", -np.eye(4)),
        ("prior", np.ones((3, 3))),
        ("prior", np.triu(np.ones((4, 4)))),
        ("residual_variance", 0.0),
        ("residual_variance", [1.0, NAN, 1.0]),
        ("residual_variance", True),
        ("residual_variance", [1.0]),
    ],
)
def test_information_error(name, value):
    rng = np.random.default_rng(0)
    settings = {"features": rng.normal(size=(3, 2, 4)), "response": rng.normal(size=(4, 1)), "sigma": [0.1, 1.0, 2.0]}
    refused(lambda: co.InformationError(**{**settings, name: value}), f"InformationError.{name}")


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"prices": PRICES}, ["budget"]),
        ({"budget": 1e4}, ["prices"]),
        ({}, ["limits"]),
        ({"steps": 1}, ["steps"]),
        ({"steps": 2.5}, ["steps"]),
        ({"steps": True}, ["steps"]),
        ({"steps": NAN}, ["steps"]),
        ({"prices": 3.0, "budget": 1e4}, ["prices"]),
        ({"prices": PRICES, "budget": -1.0}, ["budget"]),
        ({"prices": PRICES, "budget": NAN}, ["budget"]),
        ({"prices": PRICES, "budget": True}, ["budget"]),
        ({"prices": PRICES, "budget": 0}, ["budget"]),
        ({"prices": PRICES, "budget": [1e4]}, ["budget"]),
        ({"steps": 5, "search": (1.0, 0.1)}, ["search"]),
        ({"steps": 5, "search": (0.1,)}, ["search"]),
        ({"steps": 5, "search": (0.1, 1e3)}, ["search"]),
        ({"steps": 5, "search": (NAN, 1.0)}, ["search"]),
        ({"steps": 5, "points": 2}, ["points"]),
        ({"steps": 5, "points": True}, ["points"]),
        ({"steps": 5, "tolerance": 0.0}, ["tolerance"]),
        ({"steps": 5, "outer_tolerance": -1.0}, ["outer_tolerance"]),
        ({"steps": 5, "stopping_sigma": 0.0}, ["stopping_sigma"]),
        ({"steps": 5, "stopping_sigma": 100.0}, ["stopping_sigma"]),
        ({"steps": 5, "constraints": co.Steps() <= 3}, ["constraints"]),
        ({"steps": 5, "constraints": [True]}, ["constraint"]),
        ({"steps": 5, "constraints": None}, ["constraints"]),
        ({"steps": 5, "terms": [3.0]}, ["terms"]),
        ({"steps": 5, "terms": co.Steps()}, ["terms"]),
        ({"steps": 5, "run": "yesterday"}, ["run"]),
        ({"steps": 5, "samplers": []}, ["samplers"]),
        ({"steps": 5, "samplers": co.Heun()}, ["samplers"]),
        ({"steps": 5, "samplers": ["huen"]}, ["samplers[0]"]),
        ({"sigmas": [80.0, 1.0, 0.0]}, ["prices"]),
        ({"sigmas": [80.0, 1.0, 0.0], "steps": 5}, ["steps"]),
    ],
)
def test_codesign(options, names):
    options = {"levels": 20, "points": 3, "outer_tolerance": 1.0, **options}
    refused(lambda: co.codesign(MODEL, **options), *names)


def test_codesign_model():
    refused(lambda: co.codesign("digits", steps=5), "model")
    refused(lambda: co.audit(MODEL, PRICES, sigmas=co.edm_grid(5, 0.01, 80.0), run=None), "run")
    refused(lambda: co.codesign(MODEL, PRICES, 1e4, sigmas=co.edm_grid(5, 0.01, 80.0, terminal="rescale")), "terminal")


@dataclass(frozen=True, eq=False)
class AtLeast(co.Term):
    "Homogeneous wherever anyone looks, except below a constant."

    price: float
    least: float

    def expression(self, design):
        return self.price * cp.maximum(cp.sum(design.examples), self.least)


def test_a_constant_inside_a_users_term_is_never_rescaled_into_a_wrong_optimum():
    table = co.GaussianModel(co.Spectrum.power_law(24, exponent=1.5)).coefficients(0.01, 60)
    prices = co.Prices(example=3.0, evaluation=1.0, images=1_000)

    def optimum(least):
        terms = co.ScoreError(table) + co.Discretization(table) + AtLeast(1e-6, least)
        return co.Problem(terms, [co.Compute(prices) <= 1e5]).solve()

    free = optimum(1e-30)
    for least in (1e-3, 0.969, 1.0, 30.0, free.examples.sum() / 2):  # below the optimum: it changes nothing
        assert optimum(least).error == pytest.approx(free.error, rel=1e-6)
