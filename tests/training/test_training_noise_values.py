"""Training noise as values: parameterisations, saving, fields and arrays refused by name."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pytest

from codesign_opt.ingredients.parameterization import (
    PARAMETERIZATIONS,
    Parameterization,
    TabulatedWeight,
    unchecked_skip,
)
from codesign_opt.training.constant_step import check_stable
from codesign_opt.training.optimisers import (
    AveragedSGD,
    ConstantStepSGD,
    TrainingNoise,
    WeightNoise,
    average_step_factor,
    burn_in_bias,
    constant_step_variance,
    ema_variance,
    finite_dataset_variance,
    largest_stable_rate,
    least_squares_variance,
)
from codesign_opt.training.sensitivity_kernel import diagonal_kernel
from codesign_opt.training.shared import SharedTraining
from tests.helpers.training_noise import COUNTS, LAM, SIGMA, STOP

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("name", list(PARAMETERIZATIONS))
def test_parameterisation_table_is_the_closed_form_of_each_rate(name):
    s = np.array([0.1, 1.0, 7.0])
    rate = {
        "x0": 1 + 0 * s,
        "eps": 1 + 0 * s,
        "eps_vp": 1 / (1 + s**2),
        "v": 1 / (1 + s**2),
        "flow": 1 / (1 + s) ** 2,
        "score": 1 + 0 * s,
        "score_weighted": s**2,
        "edm": 1 / (s**2 + 0.3**2),
    }[name]
    form = Parameterization(name, sigma_data=0.3)
    np.testing.assert_allclose(form.rate_factor(s), rate, rtol=1e-14)
    omega = form.output_weight(s, weight=lambda x: 1 / x)
    np.testing.assert_allclose(omega, form.c_out(s) ** 2 / s, rtol=1e-14)


def test_v_and_flow_networks_predict_what_their_names_say():
    # D(x) must be x0 when the network outputs its target: v = (z - sigma x0) / sqrt(1 + sigma^2), z - x0, ...
    x0, z, s = 0.7, -1.3, np.array([0.4, 2.0])
    x = x0 + s * z
    v = (z - s * x0) / np.hypot(1, s)
    for name, output in (("v", v), ("flow", z - x0), ("eps", z), ("score", -z / s)):
        form = Parameterization(name)
        np.testing.assert_allclose(form.c_skip(s) * x + form.c_out(s) * output, x0, rtol=1e-12)


def test_training_noise_survives_json_and_tabulates_functions():
    weight = lambda s: 1 / s**2 + 4.0  # noqa: E731
    for noise in (
        AveragedSGD("full", True, 10, False),
        ConstantStepSGD(0.1, 8, weight=3.0, finite_step=False),
    ):
        assert TrainingNoise.from_dict(json.loads(json.dumps(noise.to_dict()))) == noise
    sgd = ConstantStepSGD(0.001, 8, weight=weight)
    with pytest.raises(ValueError, match=r"ConstantStepSGD\.weight is a function"):
        sgd.to_dict()
    back = TrainingNoise.from_dict(json.loads(json.dumps(sgd.to_dict(SIGMA))))
    np.testing.assert_allclose(back.rate_factors(SIGMA), sgd.rate_factors(SIGMA), rtol=1e-12)
    assert back.to_dict() == sgd.to_dict(SIGMA)
    table = TabulatedWeight([0.1, 1.0, 10.0], [1.0, 10.0, 10.0])
    np.testing.assert_allclose(table([0.01, 0.5, 100.0]), [0.1, 5.0, 10.0])
    np.testing.assert_allclose(TabulatedWeight([1.0], [3.0])([2.0]), [3.0])


def test_from_dict_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match=r"TrainingNoise\.type"):
        TrainingNoise.from_dict({"type": "Lion"})
    with pytest.raises(ValueError, match="no field 'momentum'"):
        TrainingNoise.from_dict({"type": "AveragedSGD", "momentum": 0.9})
    with pytest.raises(ValueError, match="lacks 'learning_rate', 'batch'"):
        TrainingNoise.from_dict({"type": "ConstantStepSGD"})
    with pytest.raises(ValueError, match="weight has the keys"):
        TrainingNoise.from_dict({"type": "ConstantStepSGD", "weight": {"sigma": [1.0]}})
    with pytest.raises(ValueError, match="mapping"):
        TrainingNoise.from_dict([1])


def test_a_training_noise_of_ones_own_needs_one_method_and_is_saved_by_name():
    @dataclass(frozen=True)
    class Floor(TrainingNoise):
        level: float = 0.1
        matrix: str = "diagonal"
        intercept: bool = False
        dataset_size: int | None = None
        replacement: bool = True

        def _stationary(self, eigenvalues, counts, sigma):
            flat = np.full((eigenvalues.size, sigma.size), self.level)
            return WeightNoise(np.ones_like(flat), flat, 0 * flat)

    own = Floor(0.2)
    assert TrainingNoise.from_dict(own.to_dict()) == own
    want = COUNTS @ diagonal_kernel(LAM, SIGMA, STOP) * 0.2 / SIGMA**4
    np.testing.assert_allclose(own.floor(LAM, COUNTS, SIGMA, STOP), want)


BAD_NUMBER = [NAN, INF, -1.0, True, None, "a", [1.0]]
BAD_VECTOR = [[], [[1.0]], 1.0, [NAN], [INF], [-1.0], [True], ["a"], None]


@pytest.mark.parametrize("kind", [AveragedSGD, lambda **o: ConstantStepSGD(**({"learning_rate": 0.1, "batch": 1} | o))])
def test_common_fields_are_checked_by_name(kind):
    for field in ("intercept", "replacement"):
        for bad in (1, None, "yes", NAN):
            with pytest.raises(ValueError, match=rf"SGD\.{field}"):
                kind(**{field: bad})
    for bad in ("other", None, True, 3):
        with pytest.raises(ValueError, match=r"SGD\.matrix"):
            kind(matrix=bad)
    for bad in (NAN, INF, -1, 0, 1.5, True, "a", [3]):
        with pytest.raises(ValueError, match=r"SGD\.dataset_size"):
            kind(dataset_size=bad)


@pytest.mark.parametrize("field", ["learning_rate", "batch", "weight", "sigma_data", "parameterization", "finite_step"])
def test_constant_step_fields_are_checked_by_name(field):
    bad_values = {
        "batch": [*BAD_NUMBER, 0, 1.5],
        "weight": [NAN, INF, -1.0, 0.0, True, "a", [1.0]],
        "parameterization": ["other", None, True, 1.0],
        "finite_step": [1, None, "yes", NAN],
    }.get(field, [*BAD_NUMBER, 0.0])
    for bad in bad_values:
        with pytest.raises(ValueError, match=rf"ConstantStepSGD\.{field}"):
            ConstantStepSGD(**({"learning_rate": 0.1, "batch": 8} | {field: bad}))


def test_a_weight_function_is_checked_where_it_is_used():
    for bad in (lambda s: -s, lambda s: s * NAN, lambda s: s[:1], lambda s: True, lambda s: 0.0):
        with pytest.raises(ValueError, match=r"ConstantStepSGD\.weight"):
            ConstantStepSGD(0.1, 8, weight=bad).rate_factors(SIGMA)
    same = ConstantStepSGD(0.1, 8, weight=lambda s: 2.0).rate_factors(SIGMA)
    np.testing.assert_allclose(same, ConstantStepSGD(0.1, 8, weight=2.0).rate_factors(SIGMA))


@pytest.mark.parametrize("noise", [AveragedSGD(), ConstantStepSGD(1e-3, 8, matrix="full")])
def test_methods_refuse_bad_arrays_by_name(noise):
    for bad in BAD_VECTOR:
        for method in (noise.reducible, noise.floor):
            with pytest.raises(ValueError, match="eigenvalues"):
                method(bad, [1.0], [1.0], STOP)
            with pytest.raises(ValueError, match="counts"):
                method([1.0], bad, [1.0], STOP)
            with pytest.raises(ValueError, match="sigma"):
                method([1.0], [1.0], bad, STOP)
        with pytest.raises(ValueError, match="eigenvalues"):
            noise.weight_variance(bad, [1.0])
        with pytest.raises(ValueError, match="sigma"):
            noise.intercept_variance([1.0], bad)
        with pytest.raises(ValueError, match="counts"):
            noise.last_evaluation([1.0], bad, STOP)
    for bad in [*BAD_NUMBER, 0.0]:
        for method in (noise.reducible, noise.floor):
            with pytest.raises(ValueError, match="stopping_sigma"):
                method([1.0], [1.0], [1.0], bad)
        with pytest.raises(ValueError, match="stopping_sigma"):
            noise.last_evaluation([1.0], [1.0], bad)
    for bad in BAD_NUMBER:
        with pytest.raises(ValueError, match="eta"):
            noise.floor([1.0], [1.0], [1.0], STOP, eta=bad)
    with pytest.raises(ValueError, match="terminal"):
        noise.floor([1.0], [1.0], [1.0], STOP, terminal="other")
    if isinstance(noise, ConstantStepSGD):
        for bad in BAD_VECTOR:
            with pytest.raises(ValueError, match="examples"):
                noise.warnings_for([1.0], [1.0], bad)


def test_formula_functions_refuse_bad_numbers_by_name():
    for bad in [*BAD_NUMBER, 0.0]:
        for name, call in {
            "examples": lambda x: least_squares_variance([1.0], [1.0], x),
            "learning_rate": lambda x: constant_step_variance([1.0], [1.0], x, 1),
            "batch": lambda x: constant_step_variance([1.0], [1.0], 0.1, x),
            "curvature": lambda x: average_step_factor(0.1, x, 1),
            "dataset_size": lambda x: finite_dataset_variance([1.0], [1.0], x, 10),
        }.items():
            with pytest.raises(ValueError, match=name):
                call(bad)
        with pytest.raises(ValueError, match="sigma_data"):
            Parameterization("edm", bad)
    for bad in BAD_NUMBER:
        with pytest.raises(ValueError, match="decay"):
            ema_variance(1.0, 0.1, 1.0, 1, bad)
    for bad in (NAN, INF, -1.0, True, None, "a"):
        with pytest.raises(ValueError, match="stationary"):
            ema_variance(bad, 0.1, 1.0, 1, 0.5)
    with pytest.raises(ValueError, match="decay is 1"):
        ema_variance(1.0, 0.1, 1.0, 1, 1.0)
    with pytest.raises(ValueError, match="largest stable rate"):
        burn_in_bias(1.0, 1.0, 1.0, 1, 10)
    with pytest.raises(ValueError, match="more than 4"):
        least_squares_variance([1.0], [1.0], 4, regressors=3)
    with pytest.raises(ValueError, match="rate_factor"):
        largest_stable_rate([1.0], [1.0], 1, rate_factor=[0.0])
    with pytest.raises(ValueError, match="learning_rate is 5"):
        check_stable(np.array([1.0]), np.array([1.0]), 5.0, 1)
    for bad in ([2.0, 1.0], [1.0, NAN], [0.0, 1.0], [True, True], [1.0]):
        with pytest.raises(ValueError, match=r"TabulatedWeight\."):
            TabulatedWeight(bad, [1.0, 1.0])


def test_every_training_says_in_one_phrase_what_it_speaks_of():
    # a plan prints it behind "holds for": no capital, no full stop, and training by another law says another thing
    said = [training.speaks_of for training in (AveragedSGD(), ConstantStepSGD(1e-3, 64), SharedTraining())]
    assert len(set(said)) == len(said)
    assert all(phrase[0].islower() and not phrase.endswith(".") and "\n" not in phrase for phrase in said)


@pytest.mark.parametrize("name", PARAMETERIZATIONS)
def test_skips_that_are_not_checked_are_those_of_the_parameterization(name):
    levels = np.geomspace(1e-8, 1e8, 41)  # some are stated as one number for all levels
    found = unchecked_skip(name, 0.7, levels)
    np.testing.assert_allclose(found, Parameterization(name, 0.7).c_skip(levels), rtol=1e-14, atol=1e-300)
