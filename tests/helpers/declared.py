"""Budgets, couplings and shared parameters for tests of the declared programs."""

from __future__ import annotations

import numpy as np

import codesign_opt as co

COUPLINGS = [co.Local(1.2), co.Local(1.2, form="p4"), co.PerStep(1.2)]


def named_budget(prices, limit, part=None):
    return co.named("budget", co.Compute(prices, part=part) <= limit)


def shared(seed, *, levels=7, outputs=2, parameters=5, responses=2, prior=False):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(levels, outputs, parameters)) * 10 ** rng.uniform(-1, 1, (levels, 1, 1))
    response = rng.normal(size=(parameters, responses))
    root = rng.normal(size=(parameters, parameters))
    return co.InformationError(
        features,
        response,
        sigma=np.logspace(-2, 1, levels),
        prior=0.3 * root @ root.T if prior else None,
        residual_variance=10 ** rng.uniform(-1, 1, levels),
    ), 10 ** rng.uniform(-0.5, 0.5, levels)
