"""Plausible arguments of every public callable: small, quick, made anew for every call."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch

import codesign_opt as co


@cache
def spectrum() -> co.Spectrum:
    return co.Spectrum.power_law(4, exponent=1.5)


@cache
def model() -> co.GaussianModel:
    return co.GaussianModel(spectrum())


@cache
def table() -> co.Coefficients:
    return model().coefficients(0.05, 8)


@cache
def plan() -> co.Plan:
    return co.codesign(model(), PRICES, 1e4, levels=8, points=3, stopping_sigma=0.05, polish=False)


PRICES = co.Prices(3.0, 1.0, 1000)
GRID = co.edm_grid(5, 0.05, 80.0)
LEVELS = co.Levels.log_uniform(0.05, 80.0, 8)


@cache
def data() -> torch.Tensor:
    return torch.randn(64, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@cache
def denoiser() -> Any:
    return co.testbed.LinearDenoiser([1.0, 0.5, 0.2, 0.1])


@cache
def draws() -> Any:
    return co.estimate.Draws((4,), 8, 80.0, like=torch.zeros((), dtype=torch.float64))


@cache
def reference() -> Any:
    return co.estimate.Reference(co.estimate.Denoiser(denoiser()), co.Heun(), draws(), 0.05, steps=4)


@cache
def scheduler() -> Any:
    import diffusers

    return diffusers.EulerDiscreteScheduler()


@cache
def network() -> Any:
    return net()


def net() -> Any:
    torch.manual_seed(0)
    return co.testbed.MLP(4, sigma_data=0.5, width=8, layers=1)


@cache
def run() -> co.TrainingRun:
    return co.TrainingRun(co.LogNormal(), 100, 10)


@cache
def estimated() -> co.EstimatedModel:
    few = co.estimate.Measurement(levels=4, draws=8, fine_steps=4, rest_steps=4, evaluations=600, chunk=8)
    return co.estimate.network(denoiser(), data(), measurement=few, check=False)


@cache
def trained() -> co.GaussianModel:
    run = co.SGD(co.LearningRate(1e-3), batch=8, iterations=50)
    return co.GaussianModel(spectrum(), training=run)


@cache
def evidence() -> Any:
    return co.peers.Evidence.of(model())


@cache
def pilot() -> Any:
    few = co.estimate.PilotSampling(levels=8, images=64, draws=8, steps=4)
    history = co.estimate.TrainingHistory(run(), other=lambda x, s: 0.9 * denoiser()(x, s), growth=2.0)
    return co.estimate.pilot(denoiser(), data(), history, weights="raw", sampling=few)


def problem() -> co.Problem:
    return co.Problem(co.ScoreError(table()) + co.Discretization(table()), [co.Compute(PRICES) <= 1e4])


def ones(s: Any) -> Any:
    return 1.0 + 0.0 * s


RNG = np.random.default_rng(0)
FEATURES, RESPONSE = RNG.normal(size=(8, 2, 3)), RNG.normal(size=(3, 2))


@cache
def information() -> co.InformationError:
    return co.InformationError(FEATURES, RESPONSE, sigma=LEVELS.sigma)


def errors() -> Any:
    return co.estimate.ErrorGram(LEVELS, np.abs(RNG.normal(size=(6, 8, 8))) + np.eye(8))
