"""Misuse of peers, comparisons and exports: every message names the field, the amount and the remedy."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest

import codesign_opt as co
from codesign_opt import peers
from codesign_opt.planning import stopping_points as sweep

MODEL = co.GaussianModel(co.Spectrum.power_law(8, exponent=1.5))
EVIDENCE = peers.Evidence(sigma_min=0.01, sigma_max=50.0)
EULER = {"samplers": ["euler"], "plan": False}


@dataclass(frozen=True)
class Nameless(peers.Schedule):
    """A user's schedule that forgot its name."""

    nodes: object = None
    needs = ()

    def _nodes(self, count, evidence):
        return evidence.sigma_max * 0.5 ** np.arange(count) if self.nodes is None else self.nodes


def test_a_schedule_without_a_name_goes_by_its_class_and_is_not_listed():
    found = co.compare(MODEL, [Nameless()], [5], **EULER)
    assert found.rows[0].peer == "Nameless(nodes=None)"
    assert "Nameless" not in peers.names()


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        ("abc", "dtype <U3"),
        ([[1.0], [2.0, 3.0]], "rectangular"),
        ([3.0, np.nan, 1.0], "nan at index 1"),
        ([3.0, 1.0], "2 entries; 3 are needed"),
        ([1.0, 2.0, 3.0], "descending"),
        ([3.0, 1.0, -1.0], "-1 at index 2"),
        (np.array([3j, 2j, 1j]), "dtype complex128"),
    ],
)
def test_nodes_of_a_users_schedule_that_are_no_levels_are_named(nodes, said):
    with pytest.raises(ValueError, match=rf"Nameless._nodes .*{said}.*Nameless must give 3 descending"):
        Nameless(nodes).sigmas(3, EVIDENCE)


@pytest.mark.parametrize("needs", ["risk", ("nope",)])
def test_needs_that_are_no_fields_of_evidence_are_named(needs):
    kind = type("Needy", (Nameless,), {"needs": needs})
    with pytest.raises(ValueError, match=r"needs holds .*(risk|nope).*names of Evidence's fields"):
        kind().sigmas(4, EVIDENCE)


@pytest.mark.parametrize("evidence", [None, MODEL])
def test_a_schedule_asks_for_evidence_by_name(evidence):
    with pytest.raises(ValueError, match=r"edm: evidence is (NoneType|GaussianModel); give an Evidence"):
        peers.schedule("edm").sigmas(4, evidence)


def test_evidence_of_something_else_is_refused():
    with pytest.raises(ValueError, match=r"Evidence.of: model is int; give a GaussianModel"):
        peers.Evidence.of(3)
    with pytest.raises(ValueError, match=r"squared is 1 at \(0, 1\) and 2 at \(1, 0\); it must be symmetric"):
        peers.DenoiserGaps(np.array([1.0, 2.0]), np.array([[0.0, 1.0], [2.0, 0.0]]))
    with pytest.raises(ValueError, match=r"select: evidence is GaussianModel; give an Evidence"):
        peers.select(MODEL, 5)


def test_loss_logs_and_levels_of_the_wrong_kind_are_named():
    levels = co.Levels(np.array([0.1, 1.0, 10.0]))
    for log in (None, {"sigma": [1.0]}):
        with pytest.raises(ValueError, match=r"log must be a path, or a dict with the columns sigma and loss"):
            peers.loss_second_moment(log, levels)
    with pytest.raises(ValueError, match=r"loss_second_moment.levels is 3; a Levels"):
        peers.loss_second_moment({"sigma": [1.0], "loss": [1.0]}, 3)
    with pytest.raises(ValueError, match=r"OnLevels.levels is 3; a Levels"):
        peers.OnLevels(3, [1.0])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"peers": 3}, r"peers is 3; a list is needed"),
        ({"peers": [peers.EDMRho]}, r"peers holds EDMRho; give a name, a Schedule value"),
        ({"peers": [None]}, r"peers holds None; give a name"),
        ({"peers": []}, r"peers is empty and plan is off"),
        ({"samplers": "heun"}, r"samplers is 'heun'; a list is needed"),
        ({"samplers": co.Heun()}, r"samplers is .*Heun.*; a list is needed"),
        ({"samplers": [["heun"]]}, r"samplers\[0\] is \['heun'\]"),
        ({"evidence": MODEL}, r"evidence is GaussianModel; give an Evidence"),
        ({"evaluations": [1]}, r"1 evaluations are too few for 2 steps of euler.*; allow at least 2"),
        ({"evaluations": [10, 2], "samplers": ["heun"]}, r"2 evaluations are too few for 2 steps of heun"),
    ],
)
def test_arguments_of_a_comparison_are_named(options, said):
    with pytest.raises(ValueError, match=said):
        co.compare(MODEL, **{"peers": ["edm"], "evaluations": [10], **EULER, **options})


def test_one_evaluation_is_enough_for_one_rescaled_step_and_not_for_heuns():
    model = co.GaussianModel(MODEL.spectrum, terminal="rescale")
    assert co.compare(model, ["edm"], 1, seeds=3, **EULER).rows[0].steps == 1
    with pytest.raises(ValueError, match=r"1 step of heun.*'rescale'; allow at least 2"):
        co.compare(model, ["edm"], 1, samplers=["heun"], plan=False)


def test_a_comparison_where_no_grid_fits_says_so_when_drawn():
    found = co.compare(MODEL, {"mine": np.array([80.0, 1.0, 0.0])}, [10], **EULER)
    assert "mine is left out of euler with 10 evaluations" in found.notes[0]
    with pytest.raises(ValueError, match=r"no schedule to draw: mine is left out"):
        found.plot()


def test_an_interrupted_comparison_goes_on_to_the_same_rows_without_measuring_twice(tmp_path, monkeypatch):
    from codesign_opt.comparison import compare as comparing

    kind, calls = comparing.ModelWorld, []
    measured = kind.measured

    def counted(self, sampler, sigmas, seed):
        calls.append(sigmas)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return measured(self, sampler, sigmas, seed)

    monkeypatch.setattr(kind, "measured", counted)
    names = ["edm", "log_snr", "cosine"]
    with pytest.raises(KeyboardInterrupt):
        co.compare(MODEL, names, [10], folder=tmp_path, **EULER)
    again = co.compare(MODEL, names, [10], folder=tmp_path, **EULER)
    assert len(calls) == 4  # one finished, one interrupted, then the two that were missing
    monkeypatch.undo()
    assert str(again) == str(co.compare(MODEL, names, [10], **EULER))
    other = co.GaussianModel(co.Spectrum.power_law(9, exponent=1.5))
    with pytest.raises(ValueError, match=r"folder"):
        co.compare(other, names, [10], folder=tmp_path, **EULER)


def test_stopping_points_without_a_certificate_leave_the_search_finite_and_near_the_best(monkeypatch):
    """A failed solve gave scipy's parabola inf - inf; now only the failures far from the best are tried and left."""
    tried = []

    def solve(study, sigma, near):
        tried.append(sigma)
        solved = sigma in (1.0, 0.1, 0.01) or abs(np.log(sigma / 0.1)) < 0.2
        error = 1.0 + np.log(sigma / 0.1) ** 2 if solved else np.inf
        failure = None if solved else co.NotCertifiedError("Not certified.")
        return sweep.Stop(sigma, error, {}, np.empty(0), np.empty(0), failure=failure)

    monkeypatch.setattr(sweep, "_solve", solve)
    study = SimpleNamespace(tables=lambda sigmas: None)
    monkeypatch.setattr(sweep.np, "geomspace", lambda *args: np.array([1.0, 0.1, 0.01]))
    stops = sweep.sweep(study, 0.01, 1.0, 3, lambda text: None)
    assert sum(s.failure is not None for s in stops) >= 2
    assert abs(np.log(tried[-1] / 0.1)) < 0.2  # came back to where there are certificates


def test_an_unknown_mixture_is_named():
    from problems.studies.worlds import mixture_world

    with pytest.raises(ValueError, match=r"mixture_world is 'nope'; it must be one of 'circle8', 'grid8'"):
        mixture_world("nope")


@pytest.mark.parametrize("target", ["comfyui", "k-diffusion"])
def test_levels_that_a_target_cannot_hold_are_refused(target):
    with pytest.raises(
        ValueError, match=r"level 0 is 1e\+300; float32 ends at|flow times 0 and 1 .*one number in double"
    ):
        co.export([1e300, 1e299, 0.0], target, flow=target == "comfyui")


def test_a_schedulers_class_and_a_shift_it_does_not_have_are_refused():
    diffusers = pytest.importorskip("diffusers")
    kind, levels = diffusers.EulerDiscreteScheduler, [14.0, 1.0, 0.0]
    with pytest.raises(ValueError, match=r"scheduler is the class EulerDiscreteScheduler; give .*object"):
        co.export(levels, "diffusers", kind)
    with pytest.raises(ValueError, match=r"export.mu is 1, but EulerDiscreteScheduler has no dynamic shift"):
        co.export(levels, "diffusers", kind(), mu=1.0)


def test_a_schedule_cannot_take_the_name_of_another():
    with pytest.raises(ValueError, match="name is 'edm', which is taken by EDMRho"):

        class Mine(peers.Schedule):
            name = "edm"

            def _nodes(self, count, evidence):
                return evidence.fine(count)[::-1]

    assert peers.schedule("edm") == peers.EDMRho()
