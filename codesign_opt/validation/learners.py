"""Linear denoisers trained on Gaussian data as a plan says: errors of their weights at every node of a grid.

Least squares by its sufficient statistics, which have the law of drawn examples: with m inputs of variance v, sum x^2
is v X with X chi-squared of m degrees, and sum x x0 is W sum x^2 + sqrt(S sum x^2) z. SGD update by update.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..basics.checks import Array, Indices, shown
from ..ingredients.coupling import PerStep
from ..ingredients.parameterization import Parameterization
from ..models.example_counts import ExampleCounts
from ..models.gaussian import GaussianModel
from ..models.node_sums import block_ends, score_parts
from ..training.optimiser_runs import SGD

__all__ = ["Nodes", "Taught", "taught", "trained_by_features", "trained_by_least_squares", "trained_by_sgd"]

_BINS = 8  # of a correlation length, in which examples of one network are taken together


@dataclass(frozen=True, eq=False)
class Nodes:
    """What a learner has to know of the data at the positive nodes of a grid.

    Args:
        sigmas: (P,) descending.
        eigenvalues: (d,) variances of the data, one for each direction.
        weights: (P, d) of the best denoiser, lambda / (lambda + sigma^2).
        noise: (P, d) variance of the weight times examples, lambda sigma^2 / v^2.
        lacking: (P, d) what the untrained denoiser's weight is off by; 0 without a prior.
        prior: (P,) examples that the untrained denoiser is worth.
    """

    sigmas: Array
    eigenvalues: Array
    weights: Array
    noise: Array
    lacking: Array
    prior: Array

    @classmethod
    def of(cls, model: GaussianModel, sigmas: Array) -> Nodes:
        """Of a model's data and untrained network."""
        positive = sigmas[sigmas > 0]
        lam = np.repeat(model.spectrum.eigenvalues, model.spectrum.counts.astype(int))
        v = lam + positive[:, None] ** 2
        weights = lam / v
        training = model.training
        lacking = np.zeros_like(weights)
        if training.prior is not None or isinstance(training, SGD):
            form = Parameterization(training.parameterization, training.sigma_data)
            lacking = form.c_skip(positive)[:, None] - weights
        noise = lam * positive[:, None] ** 2 / v**2
        return cls(positive, lam, weights, noise, lacking, model.node_terms(sigmas).prior)


@dataclass(frozen=True, eq=False)
class Taught:
    """Which examples teach which node in one training: (P,) block of each node, and whole examples of each block."""

    block: Indices
    examples: Array


def taught(model: GaussianModel, sigmas: Array, counts: ExampleCounts, rng: np.random.Generator) -> Taught:
    """Blocks of one correlation length at a random offset, or under `PerStep` one expert for each node.

    Numbers of examples are rounded up or down at random, so that they are right on average.
    """
    positive = sigmas[sigmas > 0]
    if isinstance(model.coupling, PerStep):
        block = np.arange(positive.size)
        examples = score_parts(model.node_terms(sigmas), counts, model.coupling).examples
    else:
        low, high = (ends[0] for ends in block_ends(model.coupling, counts, positive, rng.random(1)))
        _, first, block = np.unique(low, return_index=True, return_inverse=True)
        examples = counts.between(low[first], high[first])
    return Taught(block, np.floor(examples + rng.random(examples.size)))


def trained_by_least_squares(nodes: Nodes, who: Taught, rng: np.random.Generator) -> tuple[Array, Array]:
    """(P, d) errors of the weights of two trainings, shrunk towards the untrained denoiser by `nodes.prior` examples.

    The inputs are the same and the noise of the targets is opposite, so that what is odd in it is not seen as scatter.
    """
    shape = (who.examples.size, nodes.eigenvalues.size)
    power = rng.chisquare(np.maximum(who.examples, 1e-12)[:, None], shape)
    drawn = (np.sqrt(power) * rng.standard_normal(shape))[who.block]
    prior = nodes.prior[:, None]
    seen = np.maximum(power[who.block] + prior, 1e-300)
    noise, start = np.sqrt(nodes.noise) * drawn / seen, prior * nodes.lacking / seen
    return start + noise, start - noise


def trained_by_sgd(nodes: Nodes, who: Taught, training: SGD, rng: np.random.Generator) -> tuple[Array, Array]:
    """(P, d) errors of the weights after runs of SGD as it is, updates one by one, minibatches shared in a block.

    Two runs with opposite noise, as of least squares.
    """
    size, updates = nodes.eigenvalues.size, training.iterations
    form = Parameterization(training.parameterization, training.sigma_data)
    unit = form.output_weight(nodes.sigmas) * form.c_in(nodes.sigmas) ** 2
    step = unit[:, None] * (nodes.eigenvalues + nodes.sigmas[:, None] ** 2)
    batch = np.maximum(who.examples / updates, 1e-12)[:, None]
    rates = training.learning_rate.peak * training.learning_rate.factors(updates)
    decays, root = training.average.decays(updates), np.sqrt(nodes.noise)
    error = np.stack([nodes.lacking, nodes.lacking])
    momentum, average = np.zeros_like(error), error.copy()
    for rate, kept in zip(rates, decays, strict=True):
        power = rng.chisquare(batch, (batch.size, size)) / batch
        shock = np.sqrt(power / batch) * rng.standard_normal(power.shape)
        noise = root * shock[who.block]
        gradient = step * (power[who.block] * error - np.stack([noise, -noise]))
        momentum = training.momentum * momentum + gradient
        moved = gradient + training.momentum * momentum if training.nesterov else momentum
        error = error - rate * moved
        average = kept * average + (1 - kept) * error
    return average[0], average[1]


def trained_by_features(
    nodes: Nodes, model: GaussianModel, counts: ExampleCounts, rng: np.random.Generator
) -> tuple[Array, Array]:
    """(P, d) errors of one network, of two trainings: its weights are off by sqrt(A) times a broken line in log sigma.

    The line's knots lie one correlation length apart, at a random offset; fitted by weighted least squares to all
    examples, with the untrained denoiser's pseudo-examples. Its error has the two-sided correlation length of the
    coupling on average, and examples count over a length around each level.
    """
    low, high = (float(np.log(nodes.sigmas[i])) for i in (-1, 0))
    ends = counts.ends
    length = float(np.mean(model.coupling.lengths_at(nodes.sigmas, np.exp(low), np.exp(high))))
    low, high = min(low, max(low - length, ends[0])), max(high, min(high + length, ends[1]))
    knots = np.arange(low + length * rng.random(), high, length)
    knots = knots if knots.size else np.array([0.5 * (low + high)])
    edges = np.linspace(low, high, max(2, int(np.ceil((high - low) / length * _BINS))) + 1)
    middle = 0.5 * (edges[1:] + edges[:-1])
    examples = np.floor(counts.between(edges[:-1], edges[1:]) + rng.random(middle.size))
    d, lam = nodes.eigenvalues.size, nodes.eigenvalues
    power = rng.chisquare(np.maximum(examples, 1e-12)[:, None], (middle.size, d))
    drawn = np.sqrt(power) * rng.standard_normal(power.shape)
    sigma = np.exp(middle)[:, None]
    root = np.sqrt(lam) * sigma / (lam + sigma**2)
    order = np.argsort(nodes.sigmas)
    prior = np.interp(middle, np.log(nodes.sigmas[order]), nodes.prior[order]) * np.diff(edges) / length
    prior = np.maximum(prior, 1e-9)[:, None]
    lacking = np.zeros_like(root)
    if nodes.lacking.any():
        form = Parameterization(model.training.parameterization, model.training.sigma_data)
        lacking = form.c_skip(sigma[:, 0])[:, None] - lam / (lam + sigma**2)
    target = np.divide(lacking, root, out=np.zeros_like(root), where=root > 0)
    shape = _hats(middle, knots, length)
    information = np.einsum("gi,gj,gd->dij", shape, shape, power + prior, optimize=True)
    information += 1e-9 * np.eye(knots.size)
    right = np.stack([np.einsum("gi,gd->di", shape, part) for part in (drawn, prior * target)], axis=-1)
    line = np.linalg.solve(information, right)
    there = _hats(np.log(nodes.sigmas), knots, length)
    noise, start = (np.sqrt(nodes.noise) * (there @ line[..., i].T) for i in (0, 1))
    return start + noise, start - noise


def _hats(at: Array, knots: Array, length: float) -> Array:
    """(N, knots) broken lines that are 1 at one knot and 0 at the others, level beyond the outer ones."""
    inside = np.clip(at, knots[0], knots[-1])
    return np.maximum(0.0, 1 - np.abs(inside[:, None] - knots) / length)


def learner_of(model: GaussianModel, learner: str | None) -> str:
    """Which learner a model's training and coupling stand for.

    Raises:
        ValueError: a training that is not simulated here, or a learner that does not go with it.
    """
    training: Any = model.training
    kind = type(training).__name__
    if kind not in ("AveragedSGD", "SGD"):
        raise ValueError(
            f"validate: training is {kind}, which is not trained here; AveragedSGD (least squares) and SGD are."
        )
    if training.dataset_size is not None or training.intercept:
        raise ValueError("validate: finite data sets and learned intercepts are not trained here; leave them out.")
    usual = "experts" if isinstance(model.coupling, PerStep) else "blocks"
    named = isinstance(learner, str)
    if learner is None or (named and learner == usual):
        return usual
    if (
        not (named and learner == "shared")
        or usual == "experts"
        or kind != "AveragedSGD"
        or training.matrix != "diagonal"
    ):
        raise ValueError(
            f"validate: learner is {shown(learner)}; this model's coupling stands for {usual!r}, and 'shared' (one "
            "network) goes with least squares, a diagonal matrix and a coupling other than PerStep."
        )
    return "shared"
