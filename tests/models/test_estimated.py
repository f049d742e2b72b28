"""EstimatedModel: fed with the closed forms of a Gaussian, it plans as the GaussianModel does."""

import json
from dataclasses import replace

import numpy as np
import pytest

import codesign_opt as co
from codesign_opt.basics.registry import temporarily
from codesign_opt.ingredients.coupling import Settled

SPECTRUM = co.Spectrum.power_law(24, exponent=1.5)
NODES = np.geomspace(0.002, 80.0, 64)


def closed_form(sampler, *, rows=True):
    """What a perfect measurement of a diagonal Gaussian would report, for a process that stops at 0.002."""
    lam, stop = SPECTRUM.eigenvalues, 0.002
    v = lam[:, None] + NODES**2
    at_end = lam**2 / (lam + stop**2)
    local = sampler.local_error(lam, NODES, stop) * NODES ** (sampler.order + 1)
    gain = (at_end[:, None] / v * lam[:, None] * NODES**2 / v).sum(0) / (lam[:, None] * NODES**2 / v).sum(0)
    return co.EstimatedModel(
        NODES,
        np.sqrt(at_end)[:, None] * local,
        np.array([co.GaussianModel(SPECTRUM, start="marginal").truncation(s) for s in NODES]),
        SPECTRUM,
        sampler=sampler,
        sensitivity=gain,
        error_variance=(lam[:, None] * NODES**2 / v).sum(0),
    )


def gaussian(sampler):
    return co.GaussianModel(SPECTRUM, sampler=sampler, start="marginal")


@pytest.mark.parametrize("sampler", [co.Euler(), co.Heun()], ids=repr)
def test_tables_from_closed_forms_agree_with_the_gaussian_model(sampler):
    measured, exact = closed_form(sampler).coefficients(0.002), gaussian(sampler).coefficients(0.002)
    np.testing.assert_allclose(measured.score, exact.score, rtol=2e-2)
    np.testing.assert_allclose(measured.response, exact.response, atol=2e-2 * np.abs(exact.response).max())
    assert measured.truncation == pytest.approx(exact.truncation, rel=1e-6)
    assert measured.final_score == pytest.approx(exact.final_score, rel=1e-2)


@pytest.mark.parametrize("sampler", [co.Euler(), co.Heun()], ids=repr)
def test_sampler_plans_agree_with_the_gaussian_model(sampler):
    options = {"steps": 14, "stopping_sigma": 0.004, "polish": False, "levels": 100}
    measured, exact = (co.codesign(m, **options) for m in (closed_form(sampler), gaussian(sampler)))
    assert measured.error == pytest.approx(exact.error, rel=2e-2)
    np.testing.assert_allclose(np.log(measured.sigmas[:-1]), np.log(exact.sigmas[:-1]), atol=0.03)


def test_joint_plans_agree_with_the_gaussian_model():
    prices = co.Prices(example=3.0, evaluation=1.0, images=10_000)
    options = {"prices": prices, "budget": 3e6, "stopping_sigma": 0.01, "levels": 60, "polish": False}
    measured, exact = (co.codesign(m, **options) for m in (closed_form(co.Euler()), gaussian(co.Euler())))
    assert measured.error == pytest.approx(exact.error, rel=3e-2)
    assert measured.costs["training"] == pytest.approx(exact.costs["training"], rel=5e-2)
    assert measured.certificate.optimal


def shrunk_input():
    """(M,) squared error at the nodes of c_skip x, EDM's denoiser before training, against the posterior mean."""
    lam, spread = SPECTRUM.eigenvalues[:, None], SPECTRUM.sigma_data
    v = lam + NODES**2
    return (v * (spread**2 / (spread**2 + NODES**2) - lam / v) ** 2).sum(0)


@pytest.mark.parametrize(
    "density", [co.LogNormal(-0.4, 1.0), co.LogNormal(1.5, 0.4), co.LogNormal(-1.2, 1.2)], ids=repr
)
def test_levels_without_examples_leave_what_is_known_of_them(density):
    """Against a Gaussian model whose untrained denoiser is EDM's, by the programs' law with a prior in every band."""
    one, grid = closed_form(co.Heun()), co.edm_grid(20, 0.002, 80.0)
    known = replace(one, untrained=shrunk_input())
    truth = co.AveragedSGD(parameterization="edm", sigma_data=SPECTRUM.sigma_data)
    exact = replace(gaussian(co.Heun()), training=truth).predict(grid, 3e4, density=density)
    left = exact.program - exact.parts["bias"]
    told, alone = (m.predict(grid, 3e4, density=density) for m in (known, one))
    told, alone = (each.total - each.parts["bias"] for each in (told, alone))
    assert 0.45 * left < told < 1.3 * left
    assert alone > 1.5 * told  # one example for none: nothing that was seen
    # programs count on no more than that: a plan leaves no level out for it
    np.testing.assert_array_equal(known.coefficients(0.01).prior_examples, one.coefficients(0.01).prior_examples)


def test_nothing_is_left_beyond_the_untrained_error_however_few_the_examples():
    model, grid = replace(closed_form(co.Heun()), untrained=shrunk_input()), co.edm_grid(12, 0.01, 80.0)
    table = model.settled(grid)
    rows = (
        np.exp(np.interp(np.log(table.sigma), np.log(NODES), np.log(row)))
        for row in (model.sensitivity, model.untrained)
    )
    most = float((table.log_width * table.coupling.lengths(table.levels) * np.prod(list(rows), axis=0)).sum())
    found = [model.predict(grid, count, density=co.LogNormal(-1.0, 1.0)).parts["score"] for count in (1e-9, 1.0, 1e3)]
    assert found[0] == pytest.approx(most, rel=1e-6)
    assert found[0] > found[1] > found[2]


def test_predicted_bias_of_a_fine_grid_matches_the_leading_order():
    model, grid = closed_form(co.Euler()), co.log_snr_grid(200, 0.01, 80.0)
    leading = gaussian(co.Euler()).sharp_discretization(grid)
    assert model.predicted_bias(grid) - model.truncation_at(0.01) == pytest.approx(leading, rel=2e-2)


def test_a_saved_model_plans_the_same(tmp_path):
    model = replace(closed_form(co.Heun()), coupling=co.Local(lambda s: 1.0 + 0.1 * np.log1p(s)))
    model = replace(model, standard_errors={"sensitivity": 0.1 * model.sensitivity}, provenance={"seed": 3})
    model = replace(model, untrained=shrunk_input())
    again = co.EstimatedModel.load(model.save(tmp_path / "model.npz"))
    np.testing.assert_array_equal(again.standard_errors["sensitivity"], model.standard_errors["sensitivity"])
    assert again.provenance == {"seed": 3}
    np.testing.assert_array_equal(again.untrained, model.untrained)
    one, two = model.coefficients(0.01), again.coefficients(0.01)
    np.testing.assert_allclose(one.kappa, two.kappa, rtol=1e-3)
    np.testing.assert_array_equal(one.score, two.score)
    whole = (tmp_path / "model.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="not a whole file"):
        co.EstimatedModel.load(tmp_path / "cut.npz")


SAID = {"denoiser": "unet", "draws": 64, "fine_accuracy": 1e-6, "evaluations": {"truncation": 7, "responses": 35}}


def saved_as_by_0_1_0(model, path):
    """That version's file: what is said of the estimation lies in the provenance alone."""
    with np.load(replace(model, provenance={**SAID, "training_notes": ["no floor"]}).save(path)) as archive:
        arrays = dict(archive)
    record = json.loads(str(arrays.pop("record")))
    del record["estimation"]
    np.savez(path, record=np.array(json.dumps(record)), **arrays)


def test_how_a_model_was_estimated_is_a_field_that_files_of_0_1_0_give_too(tmp_path):
    model, path = closed_form(co.Euler()), tmp_path / "model.npz"
    saved_as_by_0_1_0(model, path)
    old = co.EstimatedModel.load(path)
    assert (old.estimation.draws, old.estimation.denoiser, old.fine_accuracy) == (64, "unet", 1e-6)
    assert old.estimation.model_evaluations == 42
    assert old.estimation.training_notes == ("no floor",)
    again = co.EstimatedModel.load(replace(old, provenance={}).save(path))
    assert again.estimation == old.estimation == again.coefficients(0.1).estimation
    with pytest.raises(ValueError, match=r"EstimatedModel\.estimation is \{'draws': 3\}"):
        replace(model, estimation={"draws": 3})


WIDTH = lambda sigma: 1.0 + 0.1 * np.log1p(sigma)  # noqa: E731


@pytest.mark.parametrize(
    "coupling",
    [
        co.Local(1.5, form="p4"),
        co.PerStep(WIDTH),
        co.PerLevel(np.geomspace(0.002, 80.0, 9)),
        co.Transfer(0.4, WIDTH, "p4"),
        co.Transfer(np.full((20, 20), 0.05), 2.0),
        Settled(np.linspace(0.5, 1.0, 20), np.full((20, 20), 0.1)),
        Settled(np.ones(20)),
    ],
    ids=lambda c: type(c).__name__,
)
def test_every_coupling_comes_back_from_a_file(coupling, tmp_path):
    model = replace(closed_form(co.Euler()), coupling=coupling)
    again = co.EstimatedModel.load(model.save(tmp_path / "model.npz"))
    assert type(again.coupling) is type(coupling)
    one, two = model.coefficients(0.002, 20), again.coefficients(0.002, 20)
    np.testing.assert_allclose(one.kappa, two.kappa, rtol=1e-3)
    pools = [table.coupling.pooling(table.levels) for table in (one, two)]
    assert (pools[0] is None) == (pools[1] is None)
    if pools[0] is not None:
        np.testing.assert_allclose(pools[0], pools[1], rtol=1e-12)
    x = np.array([0.2, 1.0, 3.0])
    np.testing.assert_array_equal(one.coupling.factor(x), two.coupling.factor(x))
    twice = co.EstimatedModel.load(again.save(tmp_path / "again.npz"))
    assert twice.coupling.to_dict(NODES) == again.coupling.to_dict(NODES)


@pytest.mark.parametrize(
    "coupling", [co.Local(WIDTH), co.Transfer(0.4, WIDTH), co.PerStep(2.0)], ids=lambda c: type(c).__name__
)
def test_a_file_of_version_0_1_0_is_read(coupling, tmp_path):
    model = replace(closed_form(co.Euler()), coupling=coupling)
    with np.load(model.save(tmp_path / "model.npz")) as archive:
        data = dict(archive)
    record = json.loads(str(data.pop("record")))
    record["coupling"] = coupling.to_dict()  # in words, and the lengths beside it
    record["correlation_length"] = coupling.lengths_at(NODES, NODES[0], NODES[-1]).tolist()
    np.savez(tmp_path / "old.npz", record=np.array(json.dumps(record)), **data)
    again = co.EstimatedModel.load(tmp_path / "old.npz")
    np.testing.assert_allclose(model.coefficients(0.01).kappa, again.coefficients(0.01).kappa, rtol=1e-3)


def test_a_coupling_whose_class_is_not_defined_is_named(tmp_path):
    with temporarily():

        class Mine(co.PerStep):
            pass

        path = replace(closed_form(co.Euler()), coupling=Mine(2.0)).save(tmp_path / "model.npz")
    with pytest.raises(ValueError, match=r"Coupling\.kind is 'Mine'; it must be one of 'Local'"):
        co.EstimatedModel.load(path)


def test_without_training_only_the_sampler_is_planned():
    model = replace(closed_form(co.Euler()), error_variance=None)
    with pytest.raises(ValueError, match="estimated without training"):
        co.codesign(model, co.Prices(example=1.0, evaluation=1.0, images=10), 1e6)
    assert co.codesign(model, steps=8, stopping_sigma=0.01, levels=40).number_of_steps == 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sensitivity": np.full(64, -1.0)}, "EstimatedModel.sensitivity is -1 at index 0"),
        ({"truncation": np.ones(3)}, "EstimatedModel.truncation has 3 entries; 64"),
        ({"responses": np.full((2, 64), np.nan)}, "EstimatedModel.responses is nan"),
        ({"sigma": NODES[::-1]}, "strictly ascending"),
        ({"sensitivity": None}, "sensitivity is missing"),
        ({"sampler": "huen"}, "a Sampler is needed, or one of the names .* did you mean 'heun'"),
    ],
)
def test_malformed_measurements_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        replace(closed_form(co.Euler()), **change)
