"""Plans of version 0.1.0 load, print and answer as they did; no plan reads its provenance back."""

import json
import os
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from scipy.special import ndtr

import codesign_opt as co
from codesign_opt.results.record import SCHEMA_VERSION
from tests.results.saved_0_1_0.make import answers, words

FOLDER = Path(__file__).parent / "saved_0_1_0"
NAMES = sorted(path.stem for path in FOLDER.glob("*.txt"))
DRAWN = ("gaussian", "shared_parameters")  # with a sampler and without one
FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"
PRICES = co.Prices(3.0, 1.0, 1000)


def old(name):
    """What that version would have shown: it knew no files without a checksum, of which the proof says so."""
    return replace(co.Plan.load(FOLDER / f"{name}.json"), stated=False)


def printed(plan):
    return f"{plan}\n\n{plan.table()}\n\n{plan!r}\n"


def agree(ours, truth, where=""):
    """Equal words and shapes; numbers to the accuracy that other versions of NumPy and SciPy leave."""
    if isinstance(truth, dict):
        assert list(ours) == list(truth), where
        for key in truth:
            agree(ours[key], truth[key], f"{where}.{key}")
    elif isinstance(truth, (list, tuple)):
        assert len(ours) == len(truth), where
        for i, (a, b) in enumerate(zip(ours, truth, strict=True)):
            agree(a, b, f"{where}[{i}]")
    elif isinstance(truth, float):
        assert ours == pytest.approx(truth, rel=1e-6, abs=1e-12, nan_ok=True), where
    else:
        assert ours == truth, where


def told(plan, *, drawn):
    """What the plan's methods give, and every word of its page, which is drawn or only made."""
    page = plan.plot()
    page.set_layout_engine("none")  # where the panels lie is asked of the page in test_panels.py
    if not drawn:
        page.canvas.draw = lambda: None
    said = words(page)
    for panel in said["axes"]:  # since then a ring stands where the star stood, and the star where the title says
        if plan.program_stopping_sigma is not None and "program" in (panel.get("legend") or []):
            panel["legend"].remove("program")
            panel["lines"].pop()
    plt.close("all")
    return {**answers(plan), "page": said}


@pytest.mark.parametrize("name", NAMES)
def test_a_plan_of_version_0_1_0_prints_what_it_printed(name):
    plan = old(name)
    assert type(plan) is co.Plan
    assert printed(plan) == (FOLDER / f"{name}.txt").read_text(encoding="utf-8")


@pytest.mark.cases(3)
@pytest.mark.parametrize("name", NAMES)
def test_a_plan_of_version_0_1_0_answers_and_draws_what_it_did_without_its_provenance_too(name):
    plan = old(name)
    bare = replace(plan, provenance={})
    assert printed(bare) == printed(plan)
    agree(answers(plan), answers(bare))
    ours = told(bare, drawn=FULL or name in DRAWN)
    if np.any(plan.examples > plan.new_examples):  # 0.1.0 drew those of the run already made once more
        total = answers(replace(bare, new_examples=plan.examples))
        ours |= {key: total[key] for key in ("samples", "density", "lognormal")}
    truth = json.loads((FOLDER / f"{name}.answers.json").read_text(encoding="utf-8"))
    agree(ours, truth)


@pytest.mark.parametrize("name", NAMES)
def test_a_plan_of_version_0_1_0_saved_anew_is_the_same_plan(name, tmp_path):
    plan = old(name)
    again = co.Plan.load(plan.save(tmp_path / "plan.json"))
    assert json.loads((tmp_path / "plan.json").read_text())["schema_version"] == SCHEMA_VERSION > 1
    again.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_text() == (tmp_path / "plan.json").read_text()
    assert printed(again) == printed(plan)


@pytest.mark.parametrize("name", NAMES[:2])
def test_the_proof_of_a_file_without_a_checksum_is_as_stated_there(name):
    text = str(co.Plan.load(FOLDER / f"{name}.json"))
    assert "as stated in the file" in " ".join(text.split())


def test_the_saved_plans_are_of_every_kind():
    plans = {name: co.Plan.load(FOLDER / f"{name}.json") for name in NAMES}
    assert all(json.loads((FOLDER / f"{name}.json").read_text())["schema_version"] == 1 for name in NAMES)
    assert plans["gaussian"].sigmas is not None
    assert plans["gaussian"].final_score > 0
    assert plans["training_only"].sampler["eta"] == 0.5
    assert plans["sampler_only"].evaluations_per_step == 2
    assert plans["transfer"].tables["pooling"].ndim == 2
    assert plans["shared_parameters"].sigmas is None
    assert plans["measured"].bias == "measured"
    assert plans["measured"].estimation.plan_evaluations > 0
    assert len(plans["measured"].estimation.training_notes) > 1
    assert plans["measured_sampler"].program_stopping_sigma > plans["measured_sampler"].stopping_sigma
    assert plans["predicted"].bias == "predicted"
    assert any(np.isinf(plan.tables["examples_high"]).any() for plan in plans.values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("provenance"), "lacks the field 'provenance'"),
        (lambda d: d.update(provenance=[1, 2]), "malformed"),
        (lambda d: d["provenance"].update(final_score="much"), "malformed"),
        (lambda d: d["provenance"].update(bias="guessed"), r"Plan\.bias is 'guessed'"),
        (lambda d: d.pop("steps"), "lacks the field 'steps'"),
    ],
)
def test_a_malformed_file_of_version_0_1_0_says_what_is_wrong(change, message, tmp_path):
    data = json.loads((FOLDER / "gaussian.json").read_text())
    change(data)
    (tmp_path / "plan.json").write_text(json.dumps(data))
    with pytest.raises(ValueError, match=message):
        co.Plan.load(tmp_path / "plan.json")


# provenance


def fresh():
    """Plans of today: everything, the training alone, the sampler alone, one program, shared parameters."""
    model = co.GaussianModel(co.Spectrum.power_law(16, exponent=1.5))
    yield co.codesign(model, PRICES, budget=3e4, levels=30, points=3)
    yield co.codesign(model, PRICES, budget=3e4, sigmas=co.edm_grid(12, 0.01, 80.0), levels=30)
    yield co.codesign(model, steps=6, levels=30, stopping_sigma=0.05)
    table = model.coefficients(0.02, 30)
    yield co.Problem(co.ScoreError(table) + co.Discretization(table), [co.Compute(PRICES) <= 1e5]).solve()


def test_nothing_is_computed_or_printed_from_the_provenance():
    for plan in fresh():
        bare = replace(plan, provenance={})
        assert plan.provenance
        assert printed(bare) == printed(plan)
        agree(answers(bare), answers(plan))


def test_the_lognormal_of_a_plan_without_provenance_is_the_same():
    spectrum = co.Spectrum.power_law(16, exponent=1.5)
    model = co.GaussianModel(spectrum, training=co.AveragedSGD(prior=None))
    plan = co.codesign(model, PRICES, budget=3e4, levels=60, points=5, polish=False)
    bare = replace(plan, provenance={})
    assert bare.training_density.lognormal() == plan.training_density.lognormal()
    given = {"levels": 60, "stopping_sigma": plan.stopping_sigma, "polish": False}
    with_terms = co.codesign(model, PRICES, budget=3e4, terms=[0.0 * co.Steps()], **given)
    for each in (plan, with_terms, replace(with_terms, final_score=0.0)):
        assert each.training_density.lognormal().P_mean == pytest.approx(brute_force(each), abs=2e-3)
    assert with_terms.final_score > 0
    assert plan.final_score == 0  # where errors are added in windows, that of the final call is among them


def brute_force(plan):
    """P_mean of the log-normal that leaves least, tried one by one, ever finer."""
    edges, near = np.log(plan.levels.edges), np.asarray(plan.tables["final_window"])
    weight, money = np.asarray(plan.tables["score_weight"]), plan.examples.sum()

    def left(mean, std):
        share = np.diff(ndtr((edges - mean) / std))
        each = money * share / share.sum()
        last = plan.final_score / (near @ each + plan.final_prior) if plan.final_score > 0 else 0.0
        used = weight > 0
        return (weight[used] / each[used]).sum() + last

    best, width = (0.0, 1.5), 1.5
    while width > 1e-4:
        tried = [(best[0] + width * i, best[1] + 0.5 * width * k) for i in (-1, 0, 1) for k in (-1, 0, 1)]
        found = min((each for each in tried if each[1] > 0.1), key=lambda each: left(*each))
        width, best = (width / 2 if found == best else width), found
    return best[0]


def test_coefficients_without_provenance_make_the_same_plan():
    table = co.GaussianModel(co.Spectrum.power_law(16, exponent=1.5)).coefficients(0.02, 30)
    plans = [
        co.Problem(co.ScoreError(c) + co.Discretization(c), [co.Compute(PRICES) <= 1e5]).solve()
        for c in (table, replace(table, provenance={}))
    ]
    assert printed(plans[0]) == printed(plans[1])
    agree(*(told(plan, drawn=FULL) for plan in plans))
    assert plans[0].trace == pytest.approx(co.Spectrum.power_law(16, exponent=1.5).trace)
