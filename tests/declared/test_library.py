"""Declared problems: every name builds, quick ones reach their references, and files of users are read or refused."""

import subprocess
import sys

import numpy as np
import pytest

import codesign_opt as co
from codesign_opt import problems
from codesign_opt.declared import library

NAMES = problems.names()
SMALL = {"levels": 60, "points": 5, "polish": False}


@pytest.fixture
def write(tmp_path):
    """A function that writes a user's problem file and returns its path."""

    def write(text, name="mine.py"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize("name", NAMES)
def test_every_name_builds_and_says_where_its_data_come_from(name, monkeypatch, tmp_path):
    monkeypatch.setenv("CODESIGN_OPT_CACHE", str(tmp_path))  # measuring a trained network takes minutes
    try:
        declared = problems.load(name)
    except FileNotFoundError as absent:  # Fashion-MNIST comes from the system's package manager, networks from training
        pytest.skip(str(absent))
    assert declared.name == name
    assert declared.title == problems.title(name)
    assert declared.provenance.endswith(".")
    assert problems.reference(name)["error"] > 0
    assert 0 < problems.reference(name)["rtol"] <= 1e-3
    assert name in repr(declared)


def test_listing_imports_no_problem_and_nothing_heavy():
    code = (
        "import sys; from codesign_opt import problems; [problems.title(n) for n in problems.names()];"
        "heavy = {'cvxpy', 'scipy', 'sklearn', 'skimage', 'matplotlib', 'codesign_opt.problems.digits'};"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.cases(1)
@pytest.mark.usefixtures("undescended")
@pytest.mark.parametrize("name", ["power_law_64", "clipped_allocation", "custom_constraint", "shared_parameters"])
def test_quick_problems_reach_their_reference(name):
    plan = problems.load(name).solve()
    expected = problems.reference(name)
    assert plan.certificate.optimal
    assert plan.error == pytest.approx(expected["error"], rel=expected["rtol"])


def test_clipped_allocation_is_the_closed_form_between_its_floor_and_cap():
    plan = problems.load("clipped_allocation").solve()
    table = problems.load("clipped_allocation").problem.table
    width = table.levels.log_width
    exact = co.waterfill(table.example_error, 3.0, 1e6, low=5_000 * width, high=60_000 * width)
    assert problems.reference("clipped_allocation")["error"] == pytest.approx(exact.value, rel=1e-9)
    np.testing.assert_allclose(plan.examples, exact.examples, rtol=1e-4)
    assert plan.shadow_prices["budget"] == pytest.approx(-exact.multiplier, rel=1e-4)
    density = exact.examples / width
    assert np.isclose(density, 5_000).any()
    assert np.isclose(density, 60_000).any()


def test_shared_parameters_lies_between_a_design_found_by_multiplication_and_its_lower_bound():
    term = problems.load("shared_parameters").problem.objective
    share, price, budget = np.full(200, 1 / 200), 3.0, 1e6
    for _ in range(4_000):  # optimal design without any solver: shares grow with the root of their gain
        roots = term.roots[:, 0] * np.sqrt(budget * share / price)[:, None]
        solution = np.linalg.solve(roots.T @ roots, term.response)
        value = np.sum(term.response * solution)
        gain = ((term.roots[:, 0] @ solution) ** 2).sum(axis=1) * budget / price / value
        share = share * np.sqrt(gain) / np.sum(share * np.sqrt(gain))
    expected = problems.reference("shared_parameters")["error"]
    assert value / gain.max() < expected < value * (1 + 1e-9)
    assert gain.max() < 1 + 2e-4


def test_shared_parameters_response_is_what_a_gain_does_to_the_sampler():
    """Against Euler steps through the denoiser with one gain moved, 4,000 of them."""
    from codesign_opt.problems.shared_parameters import hats, information

    spectrum = co.Spectrum.from_bands([1.0, 0.05], [1, 3])
    levels = co.Levels.log_uniform(0.01, 50.0, 400)
    knots = np.geomspace(0.01, 50.0, 5)
    _, response, _ = information(spectrum, levels, knots)
    grid = np.geomspace(50.0, 0.01, 4_001)

    def spread(gains):
        std = np.sqrt(spectrum.eigenvalues + 50.0**2)
        middle = np.sqrt(grid[:-1] * grid[1:])
        for sigma, bump, log_step in zip(middle, gains @ hats(middle, knots), np.diff(np.log(grid)), strict=True):
            std = std * np.exp(log_step * (1 - spectrum.eigenvalues / (spectrum.eigenvalues + sigma**2) * (1 + bump)))
        return std * np.sqrt(spectrum.counts)

    for p in range(5):
        moved = 1e-4 * np.eye(5)[p]
        slope = (spread(moved) - spread(-moved)) / 2e-4
        np.testing.assert_allclose(response[p], slope, rtol=2e-3, atol=1e-6)


def test_custom_constraint_meets_its_floor_its_share_and_its_steps():
    plan = problems.load("custom_constraint").solve(polish=False)
    below = plan.levels.overlap(1e-12, 0.1) / plan.levels.log_width
    middle = plan.levels.overlap(0.3, 3.0) / plan.levels.log_width
    continuous = plan.tables["continuous_examples"]
    assert below @ continuous >= 80_000 * (1 - 1e-6)
    assert middle @ continuous <= 0.2 * continuous.sum() * (1 + 1e-6)
    assert plan.number_of_steps == 18
    assert plan.shadow_prices["low-noise floor"] > 0


def test_custom_cost_charges_guidance_and_crowding():
    plan = problems.load("custom_cost").solve(stopping_sigma=0.005, levels=100, polish=False)
    free = problems.load("custom_cost", price=0.0).solve(stopping_sigma=0.005, levels=100, polish=False)
    assert plan.breakdown["Congestion"] > 0
    assert (plan.examples / plan.levels.log_width).max() < (free.examples / free.levels.log_width).max()
    inside = (plan.levels.sigma > 0.35) & (plan.levels.sigma < 4.5)
    assert plan.tables["step_price"][inside] == pytest.approx(2 * plan.tables["step_price"][0])


def test_overrides_reach_the_data_the_prices_and_the_planner():
    declared = problems.load("power_law_64", exponent=2.0, budget=5e5, images=100, steps=12, **SMALL)
    assert declared.model.spectrum.smallest_positive == pytest.approx(64.0**-2)
    assert declared.title == "Power-law spectrum, exponent 2, 64 dimensions"
    plan = declared.solve()
    assert plan.number_of_steps == 12
    assert plan.costs["budget: limit"] == 5e5
    assert declared.solve(budget=1e6).costs["budget: limit"] == 1e6


@pytest.mark.parametrize("elsewhere", [False, True])
def test_digits_are_the_scaled_images(elsewhere, monkeypatch):
    from sklearn.datasets import load_digits

    if elsewhere:  # a scikit-learn that keeps its file somewhere else is asked for it
        monkeypatch.setattr("problems.digits.find_spec", lambda name: None)
    images, classes = load_digits().data / 8.0 - 1.0, load_digits().target
    spectrum = problems.load("digits").model.spectrum
    assert spectrum.dimension == 64
    assert spectrum.trace == pytest.approx(images.var(axis=0, ddof=1).sum())
    within = sum(((images[classes == k] - images[classes == k].mean(axis=0)) ** 2).sum() for k in range(10))
    assert problems.load("digits", pooled=True).model.spectrum.trace == pytest.approx(within / (len(images) - 10))


def test_photo_patches_need_no_download_and_depend_on_the_seed_alone():
    first, again = (problems.load("photo_patches", patches=500).model.spectrum for _ in range(2))
    other = problems.load("photo_patches", patches=500, seed=1).model.spectrum
    np.testing.assert_array_equal(first.eigenvalues, again.eigenvalues)
    assert first.dimension == 256
    assert first.trace != other.trace


@pytest.mark.parametrize(("name", "package"), [("digits", "sklearn"), ("photo_patches", "skimage")])
def test_a_missing_data_package_is_named_with_the_pip_command(monkeypatch, name, package):
    for module in [m for m in sys.modules if m == package or m.startswith(f"{package}.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=r'pip install "codesign_opt\[data\]"'):
        problems.load(name)


@pytest.fixture
def tiny_network(monkeypatch, tmp_path):
    """The trained network's recipe, made small: weights are kept in a cache of the test's own."""
    torch = pytest.importorskip("torch")
    from codesign_opt.testbed import MLP, Optimisation, Records
    from codesign_opt.testbed.networks import recipes as networks

    def data():
        return torch.randn((400, 4), generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 0.5, 0.2, 0.1])

    recipe = networks.Recipe(
        "tiny network", data, lambda: MLP(4, sigma_data=0.6, width=8, layers=1), 40,
        Optimisation(batch=32), Records(keep=10),
    )  # fmt: skip
    monkeypatch.setitem(networks.RECIPES, "fashion_mnist", recipe)
    monkeypatch.setenv("CODESIGN_OPT_CACHE", str(tmp_path))
    return networks


def test_the_network_is_never_trained_by_loading_it_and_the_command_is_said(tiny_network, monkeypatch, tmp_path):
    def refuse(*arguments, **options):
        raise AssertionError("trained")

    monkeypatch.setattr(tiny_network, "train", refuse)
    with pytest.raises(FileNotFoundError, match=r"train it first.* `python -m codesign_opt\.testbed fashion_mnist`"):
        problems.load("fashion_mnist_network")
    with pytest.raises(FileNotFoundError, match=rf"fashion_mnist --cache {tmp_path / 'other'}`"):
        problems.load("fashion_mnist_network", cache=tmp_path / "other")
    with pytest.raises(ValueError, match="give training=True"):
        problems.load("fashion_mnist_network", budget=1e5)


@pytest.mark.slow
def test_the_network_is_planned_with_as_it_was_measured_and_loaded_again_from_the_cache(tiny_network, monkeypatch):
    weights, calls = tiny_network.trained("fashion_mnist"), []
    forward = type(weights.model).forward

    def counted(*arguments):
        calls.append(1)
        return forward(*arguments)

    monkeypatch.setattr(type(weights.model), "forward", counted)
    declared = problems.load("fashion_mnist_network", draws=8, steps=6)
    first = len(calls)
    again = problems.load("fashion_mnist_network", draws=8, steps=6)
    assert len(calls) - first < first / 2  # the checks and the fine solution's own accuracy
    np.testing.assert_array_equal(declared.model.responses, again.model.responses)
    assert declared.title == problems.title("fashion_mnist_network")
    assert problems.reference("fashion_mnist_network") == {}
    assert declared.model.spectrum.dimension == 4
    plan = declared.solve(points=3, levels=30, polish=False)
    assert plan.number_of_steps == 6
    assert plan.certificate.optimal


@pytest.mark.slow
def test_the_networks_training_is_planned_from_its_checkpoints(tiny_network):
    tiny_network.trained("fashion_mnist")
    declared = problems.load("fashion_mnist_network", training=True, draws=8, steps=6, budget=1e5)
    assert (declared.budget, declared.prices.images) == (1e5, 10_000)
    assert declared.model.trained
    assert declared.solve(stopping_sigma=0.01, levels=30, polish=False).costs["training"] > 0


def test_unknown_names_get_the_list_and_the_nearest():
    with pytest.raises(ValueError, match=r"'powerlaw_64' is unknown; did you mean 'power_law_64'\? Known are .*digits"):
        problems.load("powerlaw_64")
    with pytest.raises(ValueError, match=r"'zzz' is unknown; Known are"):
        problems.load("zzz")


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("clipped_allocation", {"images": 5}, "finished problem; build.. decides on images"),
        ("banded_64", {"dimension": 40}, "multiple of 16"),
        ("photo_patches", {"patches": 10**9}, "photo_patches.patches"),
        ("power_law_64", {"images": -1}, "Prices.images is -1"),
        ("power_law_64", {"exponent": float("nan")}, "exponent is nan"),
        ("custom_cost", {"price": -1.0}, "custom_cost.price"),
    ],
)
def test_overrides_out_of_range_are_refused_by_name(name, overrides, message):
    with pytest.raises(ValueError, match=message):
        problems.load(name, **overrides)


@pytest.mark.slow
def test_a_users_file_may_return_a_tuple_a_problem_or_a_declared_problem(write):
    head = '"""My data."""\nimport codesign_opt as co\nfrom dataclasses import dataclass\n'
    model = "co.GaussianModel(co.Spectrum.power_law(8, exponent=1.0), sampler=co.Euler())"
    parts = write(head + f"def build():\n    return {model}, co.Prices(1.0, 1.0, 10), 1e4\n")
    declared = problems.load(parts, images=20, budget=2e4)
    assert (declared.title, declared.prices.images, declared.budget) == ("My data.", 20, 2e4)
    assert declared.solve(stopping_sigma=0.05, levels=40).certificate.optimal
    finished = write(
        head + "def build(steps=5):\n"
        f"    c = {model}.coefficients(0.05, levels=40)\n"
        "    return co.Problem(co.Discretization(c), [co.Steps() <= steps], examples=[1.0] * len(c.levels))\n",
        "finished.py",
    )
    assert problems.load(str(finished), steps=7).solve().number_of_steps == 7
    whole = write(
        head + "from co_helper import NAME\nfrom codesign_opt.problems import DeclaredProblem\n"
        f"def build():\n    return DeclaredProblem(NAME, 'T', 'P', model={model}, options={{'steps': 4}})\n",
        "whole.py",
    )
    write("NAME = 'helped'\n", "co_helper.py")
    assert problems.load(whole).name == "helped"
    with pytest.raises(ValueError, match="helped has no prices, so that budget can't be set"):
        problems.load(whole, budget=1.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n", r"defines no build\(\)"),
        ("def build(:\n", "line 1: SyntaxError"),
        ("\nimport nothing_of_this_name\n", "line 2: ModuleNotFoundError"),
        ("def build():\n    return 1 / 0\n", "line 2: ZeroDivisionError"),
        ("def build():\n    return 3\n", r"build\(\) returned int"),
        ("def build(needed):\n    return needed\n", "TypeError: .*needed"),
    ],
)
def test_a_users_file_that_fails_is_blamed_with_its_line(write, text, message):
    with pytest.raises(ValueError, match=message):
        problems.load(write(text))


def test_a_missing_file_is_said_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        problems.load(tmp_path / "absent.py")


def test_a_declared_problem_needs_either_a_model_or_a_problem():
    with pytest.raises(ValueError, match="neither of model and problem"):
        problems.DeclaredProblem("n", "t", "p")


@pytest.fixture
def listed(monkeypatch, tmp_path):
    """A function that makes a folder of problem files the one that is listed."""

    def listed(**files):
        folder = tmp_path / "other_problems"
        folder.mkdir()
        for name, text in {"__init__": "", **files}.items():
            (folder / f"{name}.py").write_text(text)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setattr(library, "_PACKAGE", folder.name)
        library._entries.cache_clear()

    yield listed
    monkeypatch.undo()
    library._entries.cache_clear()
    for name in [m for m in sys.modules if m.split(".")[0] == "other_problems"]:
        del sys.modules[name]


PARTS = (
    "import codesign_opt as co\n"
    "def build(dimension=8):\n"
    "    model = co.GaussianModel(co.Spectrum.power_law(dimension, exponent=1.0))\n"
    "    return model, co.Prices(1.0, 1.0, 10), 1e4\n"
)


def test_a_file_in_the_folder_is_listed_and_a_family_by_its_variants(listed):
    listed(
        one=f'TITLE = "One"\n{PARTS}',
        many='TITLE = "{dimension} directions"\nVARIANTS = {"dimension": (16, 4)}\n'
        f'REFERENCE = {{4: {{"error": 1.0}}}}\n{PARTS}',
        _shared="1 / 0\n",
    )
    assert problems.names() == ["many_16", "many_4", "one"]
    assert [problems.title(name) for name in problems.names()] == ["16 directions", "4 directions", "One"]
    assert problems.load("many_4").model.spectrum.dimension == 4
    assert problems.load("many_4", dimension=5).model.spectrum.dimension == 5
    assert problems.load("many_16").title == "16 directions"
    assert problems.load("many_16").name == "many_16"
    assert problems.reference("many_4") == {"error": 1.0}
    assert problems.reference("many_16") == problems.reference("one") == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n", r"one\.py states no TITLE"),
        ("TITLE = 3\n", r"one\.py states no TITLE"),
        ("TITLE = (\n", r"one\.py, line 1: '\(' was never closed"),
        ('TITLE = "One"\nVARIANTS = (1, 2)\n', r"VARIANTS is \(1, 2\); one argument and its values"),
        ('TITLE = "One"\n', r"one defines no build\(\)"),
    ],
)
def test_a_file_in_the_folder_that_declares_nothing_is_named(listed, text, message):
    listed(one=text)
    with pytest.raises(ValueError, match=message):
        assert problems.title("one") != problems.load("one")
