"""Which parts share their tables between stopping points: they say so, and a part with laws of its own does not."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

import codesign_opt as co
from codesign_opt.training.optimisers import AveragedSGD, ConstantStepSGD

MODEL = co.GaussianModel(co.Spectrum.power_law(8, exponent=1.5), sampler=co.Euler())
STOPS = np.array([0.01, 0.05])


@dataclass(frozen=True)
class Named(co.Local):
    """A subclass that changes nothing."""


@dataclass(frozen=True)
class Growing(co.Local):
    """Lengths that depend on where sampling stops."""

    def lengths(self, levels):
        return np.full(len(levels), 1 + levels.edges[0])


@dataclass(frozen=True)
class Forgetful(co.Euler):
    """A local error that is no product of level and stopping point."""

    name = "forgetful"

    def local_error(self, eigenvalues, sigma, stopping_sigma):
        return super().local_error(eigenvalues, np.asarray(sigma) + stopping_sigma, stopping_sigma)


@pytest.mark.parametrize(
    ("change", "shared"),
    [
        ({"coupling": co.Local(lambda s: 1 + s, "p4")}, True),
        ({"coupling": co.PerStep(0.5)}, True),
        ({"coupling": Named(1.5)}, True),
        ({"coupling": Growing()}, False),
        ({"coupling": co.PerLevel(np.geomspace(0.002, 80.0, 9))}, False),
        ({"coupling": co.Transfer(0.5)}, False),
        ({"sampler": Forgetful()}, False),
    ],
    ids=lambda value: (
        "".join(type(part).__name__ for part in value.values()) if isinstance(value, dict) else str(value)
    ),
)
def test_tables_are_shared_only_where_every_stopping_point_has_the_same_laws(change, shared):
    model = replace(MODEL, **change)
    batch = model.coefficient_batch(STOPS, 40)
    assert (batch is not None) is shared
    for r in range(2 * shared):
        single, on = model.coefficients(float(STOPS[r]), 40), batch.levels.used[r]
        np.testing.assert_allclose(batch.kappa[r][on], single.kappa, rtol=1e-12)
        np.testing.assert_allclose(batch.example_error[r][on], single.example_error, rtol=1e-12)


class Ripple(AveragedSGD):
    """A floor of its own, highest between the ends of an interval; whether it is monotone is not said."""

    def _stationary(self, eigenvalues, counts, sigma):
        bump = ConstantStepSGD(0.01, 4, weight=lambda s: np.exp(-(np.log(s / 0.03) ** 2)) / (1 + s))
        return bump._stationary(eigenvalues, counts, sigma)


def test_the_floor_of_the_last_evaluation_bounds_an_interval_only_where_it_is_known_to_be_monotone():
    noises = {
        AveragedSGD(): 0,
        ConstantStepSGD(0.01, 4): 1,
        ConstantStepSGD(0.01, 4, weight=lambda s: 1 + s): 0,
        Ripple(): 0,
    }
    for training, known in noises.items():
        model = replace(MODEL, training=training)
        batch = model.interval_batch(STOPS[:1], STOPS[1:], 40)
        ends = [model.coefficients(float(stop), 40).final_floor for stop in STOPS]
        assert batch.final_floor[0] == pytest.approx(min(ends) if known else 0.0, rel=1e-12)
        assert model.interval_coefficients(*STOPS, 40).final_floor == pytest.approx(batch.final_floor[0], rel=1e-12)


def test_a_local_error_that_changes_sign_within_the_cut_level_is_bounded_by_zero():
    """DPM-Solver++(2M) has none at sigma^2 = 1.5 lambda: seven places of a level that is cut anywhere miss that."""
    edges = co.Levels.log_uniform(0.002, 80.0, 15).edges[8:10]
    low, high = float(1.05 * edges[0]), float(0.95 * edges[1])
    inside = np.sqrt(np.sqrt(low * high) * edges[1])  # where the cut level's representative comes to lie
    model = co.GaussianModel(co.Spectrum(np.array([1.0, 0.2]) * inside**2 / 1.5, [1, 3]), sampler=co.DPMpp2M())
    batch = model.interval_batch(np.array([low]), np.array([high]), 15)
    bound = batch.step_response[0][:, batch.levels.used[0]]
    for stop in np.linspace(low, high, 200):
        table = model.coefficients(float(stop), 15)
        assert np.all(bound <= table.step_response[:, -bound.shape[1] :] * (1 + 1e-12))
    assert bound[0, 0] == 0
    assert bound[1, 0] > 0
    np.testing.assert_allclose(model.interval_coefficients(low, high, 15).step_response, bound, rtol=1e-12)
