"""The usual mistakes: other readings of a network's answers, each with the words that name it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from ...ingredients.process import VP, Cosine, FlowMatching, Process
from .reading import PREDICTIONS, InnerReading, Levels, Reading

__all__ = ["Mistake", "other_inputs", "other_outputs"]

# data that a network may live in instead of x: factor x + shift
_DATA = (
    (2.0, -1.0, "the network's data are 2 x - 1: it was trained on data in [-1, 1], these are in [0, 1]"),
    (0.5, 0.5, "the network's data are (x + 1) / 2: it was trained on data in [0, 1], these are in [-1, 1]"),
    (2.0, 0.0, "the network's data are 2 x: these are half as large as those that it was trained on"),
    (0.5, 0.0, "the network's data are x / 2: these are twice as large as those that it was trained on"),
    (0.18215, 0.0, "the network's data are 0.18 x (such as latents times 0.18215 or 0.13025): multiply by the scale "
     "factor of the autoencoder"),
    (1 / 0.18215, 0.0, "the network's data are 5.5 x (such as 1 / 0.18215 or 1 / 0.13025): the scale factor of the "
     "autoencoder is applied once too often"),
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Mistake:
    """What a user may have told wrongly, and how the network is read where that is put right.

    Args:
        said: what is the matter, as the end of "... explains it".
        reading: of the network, put right.
        outputs: whether other predictions are worth asking for too.
        time: whether it is another unit or direction of a time that the network is told.
    """

    said: str
    reading: Reading
    outputs: bool = True
    time: bool = False


def other_outputs(reading: Reading) -> Iterator[Mistake]:
    """Every other prediction, and the opposite sign; the network's answers are the same, so they cost nothing.

    >>> [m.said for m in other_outputs(Reading(lambda x, t: x))][:2]
    ['the network predicts epsilon, not x0', 'the network predicts v, not x0']
    """
    told = "F of EDM's preconditioning" if reading.prediction == "preconditioned" else reading.prediction
    if reading.prediction != "x0":
        said = f"the network predicts the opposite sign of {told}"
        yield Mistake(said, replace(reading, sign=-reading.sign))
    for prediction in PREDICTIONS:
        if prediction != reading.prediction:
            said = f"the network predicts {prediction}, not {told}"
            yield Mistake(said, replace(reading, prediction=prediction))


def other_inputs(reading: Reading, spread: float) -> Iterator[Mistake]:
    """Other times, states and scales of the data; each costs evaluations.

    Args:
        reading: as told.
        spread: standard deviation of a coordinate of the data.
    """
    yield from _raw_inputs(reading, spread) if reading.raw else _told_inputs(reading)
    for factor, shift, said in _DATA:
        yield Mistake(said, replace(reading, factor=factor, shift=shift), outputs=False)


def _told_inputs(reading: Reading) -> Iterator[Mistake]:
    """For a network with its time by an adapter: units, direction, another quantity, and the state."""
    top, time = reading.top, reading.time
    if top is not None:
        other = 1000.0 if top == 1.0 else 1.0
        of = f"times from 0 to {other:g} and is told 0 to {top:g}"
        unit = _timed(reading, lambda s: other / top * time(s))
        yield Mistake(f"the network wants {of}", unit, time=True)
        back = _timed(reading, lambda s: top - time(s))
        yield Mistake(f"time runs backwards: the network wants {top:g} - t", back, time=True)
        both = _timed(reading, lambda s: other - other / top * time(s))
        yield Mistake(f"time runs backwards, and the network wants {of}", both, time=True)
    level = torch.ones(1, dtype=torch.float64)
    if abs(float(reading.scale(level)) - 1) > 1e-6:
        yield Mistake("the network wants x itself, not s x", replace(reading, scale=torch.ones_like))
    for process in _others(reading):
        along = f"the network was trained along {process.name}, in times from 0 to {top or 1.0:g}"
        yield Mistake(along, _along(reading, process, top or 1.0))
    yield Mistake("the network wants log(sigma) / 4 as its time", _timed(reading, lambda s: torch.log(s) / 4))
    if top is not None:
        yield Mistake("the network wants sigma itself as its time", _timed(reading, lambda s: s))


def _raw_inputs(reading: Reading, spread: float) -> Iterator[Mistake]:
    """For a callable that was given as D(x, sigma): what the networks of the literature want instead."""
    yield Mistake("the function wants log(sigma) / 4, not sigma", _timed(reading, lambda s: torch.log(s) / 4))
    yield Mistake("the function wants log(sigma), not sigma", _timed(reading, torch.log))
    yield Mistake(
        "the function is EDM's inner network F(c_in x, log(sigma) / 4) without its preconditioning",
        InnerReading(reading.network, spread=spread), outputs=False,
    )  # fmt: skip
    scaled = {
        "x / sqrt(1 + sigma^2)": lambda s: (1 + s**2) ** -0.5,
        "x / (1 + sigma)": lambda s: 1 / (1 + s),
        f"x / sqrt({spread:.3g}^2 + sigma^2)": lambda s: (spread**2 + s**2) ** -0.5,
    }
    for state, scale in scaled.items():
        yield Mistake(f"the function wants {state}, not x", replace(reading, scale=scale))
    for process in (VP(), FlowMatching()):
        for top in (1.0, 1000.0):
            along = f"the function wants s x and the time of {process.name} from 0 to {top:g}: see from_prediction"
            yield Mistake(along, _along(reading, process, top))


def _timed(reading: Reading, time: Levels) -> Reading:
    return replace(reading, time=time)


def _along(reading: Reading, process: Process, top: float) -> Reading:
    """The reading in another process's time and scale; levels outside it are those of its ends."""

    def inside(sigma: torch.Tensor) -> np.ndarray:
        return np.asarray(process.time(np.clip(sigma.cpu().numpy(), process.sigma_min, process.sigma_max)))

    def time(sigma: torch.Tensor) -> torch.Tensor:
        return top * torch.as_tensor(inside(sigma)).to(sigma.device)

    def scale(sigma: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(np.asarray(process.scale(inside(sigma)))).to(sigma.device)

    return replace(reading, time=time, scale=scale, top=top)


def _others(reading: Reading) -> list[Process]:
    """Processes whose time or scale at sigma = 1 is another one."""
    one = torch.ones(1, dtype=torch.float64)
    here = float(reading.time(one)), float(reading.scale(one))
    there = [(process, _along(reading, process, reading.top or 1.0)) for process in (VP(), Cosine(), FlowMatching())]
    return [p for p, r in there if not np.allclose((float(r.time(one)), float(r.scale(one))), here, rtol=0.02)]
