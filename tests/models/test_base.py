"""Model: what the public functions ask of a model, and the errors that name what is missing."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

import codesign_opt as co

PRICES = co.Prices(3.0, 1.0, 100)
SPECTRUM = co.Spectrum.power_law(8, exponent=1.5)
KNOWN = co.GaussianModel(SPECTRUM, co.EDM(0.01, 20.0), co.Euler(), start="marginal")
RUN = co.TrainingRun(co.LogNormal(-1.2, 1.2), 100, 64)
GRID = co.edm_grid(9, 0.02, 15.0)


class TablesAlone:
    def coefficients(self, stopping_sigma=None, levels=200):
        return KNOWN.coefficients(stopping_sigma, levels)


class Fixed(co.Model):
    """Only the two required methods, nothing can be changed."""

    spectrum = SPECTRUM
    process = KNOWN.process
    sampler = co.Euler()

    def coefficients(self, stopping_sigma=None, levels=200):
        return KNOWN.coefficients(stopping_sigma, levels)

    def settled(self, sigmas, levels=200, *, smooth=False):
        return KNOWN.settled(sigmas, levels, smooth=smooth)


@dataclass(frozen=True)
class Leading(co.Model):
    """The Gaussian's tables, with grids settled to leading order."""

    spectrum: co.Spectrum
    process: co.Process
    sampler: co.Sampler

    def coefficients(self, stopping_sigma=None, levels=200):
        inner = replace(KNOWN, process=self.process, sampler=self.sampler)
        return inner.coefficients(stopping_sigma, levels)

    def settled(self, sigmas, levels=200, *, smooth=False):
        return self.leading_order(sigmas, levels)


@pytest.mark.parametrize(
    ("name", "ask"),
    [
        ("codesign", lambda model: co.codesign(model, PRICES, 1e5)),
        ("codesign", lambda model: co.codesign(model, steps=10, samplers=[co.Euler()])),
        ("audit", lambda model: co.audit(model, PRICES, sigmas=GRID, run=RUN)),
        ("frontier", lambda model: co.frontier(model, PRICES, [1e4, 1e5])),
        ("compare", lambda model: co.compare(model, ["edm"], [10])),
    ],
)
@pytest.mark.parametrize("model", [TablesAlone(), None, 3])
def test_what_is_no_model_is_refused_with_the_two_methods_to_write(name, ask, model):
    with pytest.raises(ValueError, match=rf"^{name}: model is .*coefficients\(.*settled\("):
        ask(model)


def test_a_model_without_one_of_the_two_methods_cannot_be_made():
    class Half(co.Model):
        def coefficients(self, stopping_sigma=None, levels=200):
            return KNOWN.coefficients(stopping_sigma, levels)

    with pytest.raises(TypeError, match="settled"):
        Half()


def test_a_missing_part_is_named():
    class NoSpectrum(Fixed):
        spectrum = None

    class NoSampler(Fixed):
        sampler = "euler"

    with pytest.raises(ValueError, match=r"NoSpectrum\.spectrum is None; a Spectrum is needed"):
        co.codesign(NoSpectrum(), PRICES, 1e5)
    with pytest.raises(ValueError, match=r"NoSampler\.sampler is 'euler'; a Sampler is needed"):
        co.codesign(NoSampler(), PRICES, 1e5)


def test_two_methods_are_enough_for_a_plan_and_what_needs_a_change_says_how():
    options = {"levels": 40, "points": 4, "polish": False}
    plan, known = co.codesign(Fixed(), PRICES, 1e5, **options), co.codesign(KNOWN, PRICES, 1e5, **options)
    assert plan.error == pytest.approx(known.error, rel=1e-4)
    assert plan.outer["status"].startswith("best of")
    assert known.outer["status"] == "optimal"
    with pytest.raises(TypeError, match=r"Fixed can't change its sampler: .* field sampler, or override with_sampler"):
        co.codesign(Fixed(), PRICES, 1e5, samplers=[co.Heun()], **options)
    with pytest.raises(TypeError, match=r"Fixed can't change its process"):
        co.audit(Fixed(), PRICES, sigmas=GRID, run=RUN, **options)


@pytest.mark.parametrize("sampler", [co.Euler(), co.Heun()], ids=repr)
def test_leading_order_of_a_long_grid_is_the_exact_discretization_and_score(sampler):
    model, grid = Leading(SPECTRUM, KNOWN.process, sampler), co.log_snr_grid(400, 0.02, 15.0)
    known = replace(KNOWN, process=co.EDM(0.01, 15.0), sampler=sampler)
    exact, found = known.settled(grid, 200), model.settled(grid, 200)
    assert found.truncation - known.truncation(0.02) == pytest.approx(known.discretization(grid), rel=0.03)
    density = found.levels.log_width
    assert found.score @ density == pytest.approx(exact.score @ density, rel=0.02)
    assert found.truncation == model.bias(grid)
    assert model.measures(grid) is False


def test_a_grid_of_the_other_terminal_map_is_refused():
    with pytest.raises(ValueError, match="terminal='rescale', but the model's terminal is 'denoise'"):
        Leading(SPECTRUM, KNOWN.process, co.Euler()).settled(GRID[:-1])


def test_samplers_are_compared_on_a_model_of_ones_own():
    model = Leading(SPECTRUM, KNOWN.process, co.Euler())
    plan = co.codesign(model, steps=12, samplers=[co.Euler(), co.Heun()], levels=40, points=4)
    table = plan.outer["samplers"]
    assert [table[name]["evaluations"] for name in ("Euler()", "Heun()")] == [12, 11]
    found = co.compare(model, ["edm"], [12], samplers=["euler", "heun"])
    assert {row.sampler for row in found.rows} == {"euler", "heun"}


def test_kept_parts_of_a_comparison_belong_to_one_model(tmp_path):
    model = Leading(SPECTRUM, KNOWN.process, co.Euler())
    first = co.compare(model, ["edm"], [10], folder=tmp_path)
    assert str(co.compare(model, ["edm"], [10], folder=tmp_path)) == str(first)
    with pytest.raises(ValueError, match="folder"):
        co.compare(model.with_process(co.EDM(0.02, 20.0)), ["edm"], [10], folder=tmp_path)


def test_evidence_of_a_model_is_what_it_knows():
    known, own = co.peers.Evidence.of(KNOWN), co.peers.Evidence.of(Fixed())
    assert (own.spectrum, own.sigma_max, own.risk) == (SPECTRUM, 20.0, None)
    risk = (SPECTRUM.eigenvalues / (SPECTRUM.eigenvalues + 1.0)).sum()
    assert known.risk(np.array([1.0]))[0] == pytest.approx(risk, rel=1e-4)


def test_a_model_with_residuals_and_nothing_else_is_told_what_to_write():
    class Residuals(Fixed):
        exact_residuals = KNOWN.exact_residuals

    with pytest.raises(
        NotImplementedError, match=r"^Residuals writes `exact_residuals` and not `node_errors`; write both\.$"
    ):
        co.codesign(Residuals(), PRICES, 1e5, levels=20, points=4)
    with pytest.raises(NotImplementedError, match="not `node_errors_slope`"):
        Residuals().node_errors_slope(GRID, None)
