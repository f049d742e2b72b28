"""Fixtures for the tests of declared programs."""

import functools

import pytest

import codesign_opt as co


@pytest.fixture
def declared_programs_only(monkeypatch):
    """Problems are solved as cvxpy declares them; the structured solver is held to them in test_joint.py."""
    monkeypatch.setattr(co.Problem, "solve", functools.partialmethod(co.Problem.solve, method="declared"))
