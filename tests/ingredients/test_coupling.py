"""Couplings as plain values: what is written reads back, and what a file cannot hold is named."""

import json
from dataclasses import dataclass

import numpy as np
import pytest

import codesign_opt as co
from codesign_opt.ingredients.coupling import Coupling, Settled
from codesign_opt.ingredients.sigma_table import SigmaTable

SIGMA = np.geomspace(0.01, 50.0, 30)


def there_and_back(coupling):
    return Coupling.from_dict(json.loads(json.dumps(coupling.to_dict(SIGMA))))


@pytest.mark.parametrize("coupling", [co.Local(1.5, "p4"), co.PerStep(0.3), co.Local()], ids=repr)
def test_numbers_and_texts_read_back_equal(coupling):
    assert there_and_back(coupling) == coupling


def test_arrays_read_back_every_digit():
    edges, matrix = np.geomspace(0.01, 50.0, 5), np.random.default_rng(0).dirichlet(np.ones(4), 4)
    np.testing.assert_array_equal(there_and_back(co.PerLevel(edges)).edges, edges)
    np.testing.assert_array_equal(there_and_back(co.Transfer(matrix)).transfer, matrix)
    settled = there_and_back(Settled(edges, np.eye(5)))
    np.testing.assert_array_equal(settled.correlation, edges)
    np.testing.assert_array_equal(settled.pool, np.eye(5))


def test_functions_of_sigma_read_back_as_tables_linear_in_log_sigma():
    again = there_and_back(co.Local(lambda sigma: 3.0 + np.log(sigma) / 2)).log_width
    between = np.sqrt(SIGMA[1:] * SIGMA[:-1])
    np.testing.assert_allclose(again(between), 3.0 + np.log(between) / 2, rtol=1e-12)
    np.testing.assert_allclose(again(np.array([1e-5, 1e5])), again(SIGMA[[0, -1]]))


def test_a_table_is_written_as_it_is_at_whatever_levels():
    table = SigmaTable([1.0, 2.0], [0.5, 0.7])
    assert co.PerStep(table).to_dict(SIGMA)["log_width"] == {"sigma": [1.0, 2.0], "value": [0.5, 0.7]}


def test_without_levels_functions_are_only_named():
    assert co.Local(lambda sigma: sigma).to_dict() == {
        "kind": "Local", "log_width": "function of sigma", "form": "max",
    }  # fmt: skip


def test_a_field_that_a_file_cannot_hold_is_named():
    @dataclass(frozen=True)
    class Odd(co.PerStep):
        extra: object = None

    with pytest.raises(ValueError, match=r"Odd\.extra is <object .*which a file cannot hold"):
        Odd(1.0, extra=object()).to_dict(SIGMA)


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (lambda: co.PerStep(lambda sigma: -sigma).to_dict(SIGMA), r"PerStep\.log_width\(sigma\) is -0.01 at index 0"),
        (lambda: Coupling.from_dict({"kind": "Locale"}), r"Coupling\.kind is 'Locale'.*did you mean 'Local'\?"),
        (lambda: Coupling.from_dict({"kind": "PerStep"}), "Coupling PerStep needs log_width"),
        (lambda: Coupling.from_dict({"kind": "PerStep", "width": 1.0}), "no parameter width; it has log_width"),
        (lambda: Coupling.from_dict({"kind": "PerStep", "log_width": {"sigma": [1.0]}}), r"log_width has the keys"),
        (lambda: Coupling.from_dict([1]), "needs a mapping, not list"),
        (lambda: Settled([1.0, -1.0]), r"Settled\.correlation is -1 at index 1"),
        (lambda: Settled([1.0, 1.0], np.eye(3)), r"Settled\.pool has shape \(3, 3\)"),
    ],
)
def test_what_cannot_be_written_or_read_is_named(act, said):
    with pytest.raises(ValueError, match=said):
        act()
