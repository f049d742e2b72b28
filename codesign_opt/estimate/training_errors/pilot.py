"""A pilot run, measured for where to train next: the one route from a run to a density (docs/theory.md section 6.3)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ...basics.checks import Array, choice, integer, number, takes
from ...curves.errors_left import smooth_errors_left
from ...curves.estimation import learning_curves
from ...ingredients.densities import SigmaDensity
from ...ingredients.levels import Levels
from ...ingredients.process import EDM, Process
from ...ingredients.spectrum import Spectrum
from ...ingredients.training_run import TrainingRun
from ...models.pilot import PilotEvidence, spread_of, widest_shown
from ...samplers.base import Sampler
from ...samplers.members import Heun
from ..denoisers.denoiser import Denoiser
from ..draws.streams import first_of, normal, rademacher
from ..runs.fine_solution import Draws, Reference
from ..training_history import TrainingHistory
from .checkpoint_curve import checkpoint_errors, error_left
from .checkpoint_pair import sampled_images
from .correlation import ErrorGram
from .sensitivity import Direction, difference_of, sensitivity
from .slope_errors import examples_within
from .transfer import TransferKernel

__all__ = ["PilotSampling", "as_shown", "distance_of", "pilot", "trained_at"]

_LENGTH = 2.7
_LEAST_SHARE = 0.01  # of the examples within one correlation length: where a run trained less it extrapolates
_USUAL_WIDTH = 0.7  # of the pilot's standard deviation, where nothing tells it: measured are 0.5 to 1.0
_GROWTH = (1.5, 4.0)
_WIDTH_IMAGES = 1024
_FREEDOM_IMAGES = 512
_UNKNOWN = 10.0  # times the largest error left: where a log tells nothing


@dataclass(frozen=True)
class PilotSampling:
    """How finely a pilot is measured.

    Args:
        levels: noise levels over the range of the process, >= 8.
        images: of the data, on which checkpoints are compared.
        draws: of the sampler, for what an error does to its output.
        steps: of the sampler.

    Raises:
        ValueError: a number out of range.

    >>> PilotSampling().levels
    24
    """

    levels: int = 24
    images: int = 4096
    draws: int = 64
    steps: int = 18

    def __post_init__(self) -> None:
        for name, least in (("levels", 8), ("images", 64), ("draws", 8), ("steps", 4)):
            object.__setattr__(self, name, integer(getattr(self, name), f"PilotSampling.{name}", minimum=least))


@takes(process=Process, sampler=Sampler, sampling=PilotSampling)
def pilot(
    denoiser: Any,
    data: Any,
    history: Any,
    *,
    weights: str,
    ema: float | None = None,
    process: Process | None = None,
    sampler: Sampler | None = None,
    sampling: PilotSampling | None = None,
    seed: int = 0,
) -> PilotEvidence:
    """What a pilot run tells about where to train; `co.pilot_density` makes a density of it.

    Of the levels at which the run trained, those with a hundredth of its examples within a correlation length:

    * the error left: with an earlier checkpoint what the loss fell by between the two, on common images and noise; else
      a fit to the log (docs/theory.md sections 5.5 and 6.3);
    * g^2, what an error does to samples: along the difference of the checkpoints, else along errors that are spread
      over the directions of the data as those of least squares, lambda sigma^2 / v;
    * the transfer width: from the squared correlation of the checkpoints' difference, at most what a pilot of its
      density can show (`widest_shown`); else a width of the size that was measured on such networks.

    Args:
        denoiser: the network at the end of the run, callable (x, sigma) -> x0.
        data: images; a tensor, a Dataset, a DataLoader or a function that returns an iterator.
        history: TrainingRun with a log, or `TrainingHistory(run, other=earlier, growth=2.0)` with an earlier
            checkpoint; the run states its density.
        weights: "raw" (the last iterate) or "ema" (an exponential average of the iterates). Take the kind that will be
            sampled with, and both checkpoints of the same kind. An average is as old as its window: the two must not
            share iterates, or their difference is that of the new ones alone.
        ema: decay per iteration of the average, for "ema"; an average of constant relative length needs none.
        process: its range of noise levels is planned over; EDM's unless given.
        sampler: Heun unless given.
        sampling: how finely; see `PilotSampling`.
        seed: of images and draws.

    Raises:
        ValueError: weights of another name; averages whose windows overlap, by how much; checkpoints too near or too
            far apart; a run without a density; a log of averaged losses; nothing that fell.
        DenoiserError: see Denoiser.
    """
    asked, past = sampling or PilotSampling(), TrainingHistory.of(history)
    path, run = process or EDM(), _run_of(past)
    _check_weights(weights, ema, past, run)
    first, data = first_of(data)
    images = sampled_images(data, asked.images, seed=seed, like=first)
    spectrum = Spectrum.from_samples(images.flatten(1).double().cpu().numpy())
    table = Levels.log_uniform(path.sigma_min, path.sigma_max, asked.levels)
    kept = trained_at(run, table)
    own = Denoiser.of(denoiser)
    draws = Draws(tuple(first.shape[1:]), asked.draws, path.sigma_max, seed=seed, like=first)
    fine = Reference(own, sampler or Heun(), draws, path.sigma_min, steps=asked.steps)
    direction = _spread_by_data(spectrum, images, seed) if past.other is None else difference_of(own, past.other)
    if past.other is None:
        value, error = _from_log(run, table, kept)
        found = None
    else:
        found = checkpoint_errors(past.other, own, images, kept, images=min(len(images), _WIDTH_IMAGES), seed=seed)
        value, error = _from_checkpoints(past, own, images, kept, seed)
    left, spread = smooth_errors_left(kept.sigma, value, error, spectrum.sigma_data)
    width, measured, told = _width(found, run)
    gain = np.maximum(sensitivity(fine, kept.sigma, direction=direction).gain.value, 0.0)
    return PilotEvidence(
        kept.sigma,
        left,
        left * spread,
        gain,
        run,
        width,
        spectrum,
        measured_width=measured,
        process=path,
        weights=f"{weights} weights, {'the log alone' if found is None else 'two checkpoints'}",
        notes=tuple(told),
    )


def _run_of(history: TrainingHistory) -> TrainingRun:
    run = history.source
    if not isinstance(run, TrainingRun) or not isinstance(run.density, SigmaDensity):
        raise ValueError(
            "pilot: the history needs the run with its density: TrainingRun(density=co.LogNormal(-1.2, 1.2), "
            "iterations=…, batch=…, log=…)."
        )
    if history.other is not None and history.growth is None:
        raise ValueError("pilot: an earlier checkpoint needs the growth of the examples: TrainingHistory(growth=2.0).")
    return run


def _check_weights(weights: str, ema: float | None, history: TrainingHistory, run: TrainingRun) -> None:
    """Refuses averages whose windows overlap between the checkpoints, and checkpoints that are no pair."""
    choice(weights, "pilot: weights", ("raw", "ema"))
    growth = history.growth
    if growth is not None and not _GROWTH[0] <= growth <= _GROWTH[1]:
        raise ValueError(
            f"pilot: growth is {growth:g}; between {_GROWTH[0]:g} and {_GROWTH[1]:g} the loss gained stands for the "
            "error left: nearer checkpoints differ by noise, farther ones by what training did at its beginning."
        )
    if ema is None:
        return
    if weights == "raw":
        raise ValueError("pilot: ema is the decay of averaged weights; leave it out for raw ones.")
    decay = number(ema, "pilot: ema", nonnegative=True)
    if decay >= 1:
        raise ValueError(f"pilot: ema is {decay:g}; a decay per iteration is < 1.")
    window = 1 / (1 - decay)  # iterations: an average of constant decay is about as old
    if growth is not None and window > run.iterations * (1 - 1 / growth):
        raise ValueError(
            f"pilot: an average of decay {decay:g} remembers {window:,.0f} iterations, and the checkpoints are only "
            f"{run.iterations * (1 - 1 / growth):,.0f} apart: they share iterates, and their difference is no error. "
            'Give raw weights (weights="raw"), or checkpoints that are further apart.'
        )


def trained_at(run: TrainingRun, table: Levels) -> Levels:
    """The levels at which the run trained, neighbours of each other."""
    seen = np.flatnonzero(examples_within(run, table.sigma, _LENGTH) >= _LEAST_SHARE * run.examples)
    if seen.size < 4:
        raise ValueError(
            f"the run trained at {seen.size} of {len(table)} noise levels, too few to say where to train; give a pilot "
            "a density that covers the range, such as co.LogNormal(-1.2, 1.2)."
        )
    return Levels(table.edges[seen[0] : seen[-1] + 2])


def _from_log(run: TrainingRun, table: Levels, kept: Levels) -> tuple[Array, Array]:
    """(L,) error left by the log, kappa1 over the examples of each level's own density, and its standard error."""
    if run.log is None:
        raise ValueError("pilot: neither a log nor an earlier checkpoint tells what training left; give one of them.")
    law = learning_curves(run, levels=table, log_width=_LENGTH).law()
    if any("moving average" in note for note in law.notes):
        raise ValueError(
            "pilot: the log holds losses of a moving average, which stops falling once its window is full: kappa1 is "
            "not told by them. Log the losses of the iterates, as a training loop has them, or give two checkpoints."
        )
    within = examples_within(run, law.sigma, _LENGTH)
    place = np.searchsorted(kept.edges, law.sigma) - 1
    known = (place >= 0) & (place < len(kept)) & (law.reducible_error > 0)
    value, error = np.zeros(len(kept)), np.full(len(kept), _UNKNOWN * float(np.max(law.reducible / within)))
    value[place[known]] = (law.reducible / within)[known]
    error[place[known]] = (law.reducible_error / within)[known]
    return value, error


def _from_checkpoints(
    history: TrainingHistory, final: Denoiser, images: torch.Tensor, kept: Levels, seed: int
) -> tuple[Array, Array]:
    """(L,) loss that the pair gained, on common images and noise, and its standard error.

    One pair is one draw of the errors of training. As independent errors, each half of the squared distance d of the
    two, they differ in size by d / sqrt(k), k their degrees of freedom (a chi^2 of k has a relative variance of 2 / k):
    that is added to the scatter over images, which all share the draw (docs/theory.md section 6.3).
    """
    assert history.growth is not None
    found = error_left(history.other, final, images, kept.sigma, growth=history.growth, seed=seed)
    distance, freedom = distance_of(Denoiser.of(history.other), final, images[:_FREEDOM_IMAGES], kept.sigma, seed)
    return found.value, np.hypot(found.standard_error, distance / np.sqrt(freedom) / (history.growth - 1))


@torch.no_grad()
def distance_of(
    earlier: Denoiser, final: Denoiser, images: torch.Tensor, sigma: Array, seed: int
) -> tuple[Array, Array]:
    """(L,) mean squared distance of two denoisers, and the participation ratio of their difference over images.

    (tr K)^2 / tr K^2 of K_ij, the products of the differences at images i and j: 1 for the same shift at all images, as
    many as there are images where each errs its own way.
    """
    noise = normal(seed, "pilot", shape=tuple(images.shape), like=images)
    found = []
    for level in sigma:
        noisy = images + float(level) * noise
        apart = (earlier(noisy, float(level)) - final(noisy, float(level))).double().flatten(1)
        products = apart @ apart.T
        total, squared = float(products.trace()), float(products.square().sum())
        found.append((total / len(images), total**2 / max(squared, 1e-300)))
    distance, freedom = np.array(found).T
    return distance, np.maximum(freedom, 1.0)


def _width(pair: ErrorGram | None, run: TrainingRun) -> tuple[float, float | None, list[str]]:
    """Transfer width for the plan, as it was measured, and what to say of it."""
    spread = spread_of(run.density)
    if pair is None:
        usual = _USUAL_WIDTH * spread
        return usual, None, [f"the transfer width is taken as {usual:.2g}; an earlier checkpoint would tell it."]
    found = TransferKernel.from_errors(pair)
    shown, told = as_shown(found, run)
    return shown.width, found.width, told


def as_shown(kernel: TransferKernel, run: TrainingRun) -> tuple[TransferKernel, list[str]]:
    """A measured kernel, no wider than a pilot of this density can show (`widest_shown`), and what to say of it."""
    if not isinstance(run.density, SigmaDensity):
        return kernel, []
    spread = spread_of(run.density)
    most = widest_shown(spread)
    if kernel.width <= most:
        return kernel, []
    told = (
        f"the transfer width came out as {kernel.width:.2f}, wider than a pilot whose density has a standard deviation "
        f"of {spread:.2g} can tell from any other: taken as {most:.2f}."
    )
    return replace(kernel, width=most), [told]


def _spread_by_data(spectrum: Spectrum, images: torch.Tensor, seed: int) -> Direction:
    """Errors spread over the directions of the data like those of least squares: variance lambda sigma^2 / v."""
    clean = images.flatten(1).double()
    away = clean - clean.mean(0)
    values, axes = torch.linalg.eigh(away.T @ away / len(clean))
    values = values.clamp(min=0.0)

    def direction(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        level = float(sigma.reshape(-1)[0])
        sign = rademacher(seed, "spread", f"{level:.6g}", shape=(len(x), len(values)), like=axes.to(x.device))
        size = (values * level**2 / (values + level**2)).sqrt().to(x.device)
        return ((sign * size) @ axes.T.to(x.device)).reshape(x.shape).to(x.dtype)

    return direction
