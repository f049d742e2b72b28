"""Variables of a design: made when they are asked for, the same for all its copies."""

import inspect
from dataclasses import replace

import cvxpy as cp
import numpy as np
import pytest

import codesign_opt as co
from codesign_opt.modeling.design import Design, Point


@pytest.fixture
def made(monkeypatch):
    """Names of the variables that were made, in the order in which they were."""
    names, variable = [], cp.Variable

    def noted(*shape, **options):
        names.append(options["name"])
        return variable(*shape, **options)

    monkeypatch.setattr(cp, "Variable", noted)
    return names


def _declared(**options):
    return Design.declare(
        co.Levels.log_uniform(0.01, 10.0, 5), reference=Point(np.full(5, 2.0), np.zeros(5), np.full(5, 3.0)), **options
    )


def test_variables_are_made_when_they_are_asked_for(made):
    design = _declared(fixed_steps=True)
    assert (design.fixed_examples, design.fixed_steps, len(design), made) == (False, True, 5, [])
    bounded = design.with_least_steps(np.ones(5))
    assert (design.steps_low, list(bounded.steps_low), made) == (None, [1.0] * 5, [])
    assert bounded.examples.variables() == [bounded.new_variable]
    assert made == ["design.examples"]
    assert "new_variable" in dict(inspect.getmembers(Design))  # who documents the class makes none
    np.testing.assert_array_equal(bounded.step_variable.value, np.ones(5))
    assert (bounded.fixed_examples, bounded.fixed_steps) == (False, True)


def test_copies_have_the_same_variables(made):
    design = _declared()
    copies = [design.with_least_steps(np.ones(5)), design.in_units(2.0, 1.0), replace(design, final_steps=1)]
    for each in copies:
        assert each.new_variable is design.new_variable
        assert each.step_variable is design.step_variable
    assert design.above(2).examples.variables() == design.variables[:1]
    assert made == ["design.examples", "design.steps"]
