"""Training of small denoisers: EDM's loss under any density of noise levels, resumable to the bit."""

from __future__ import annotations

import copy
import math
import os
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...basics.checks import AT_ONCE, as_path, function, integer, number, shown, takes
from ...basics.fields import holds
from ...basics.files import replacing
from ...basics.progress import Progress, teller
from ...curves.recording import LevelStatistics
from ...estimate.draws.streams import check_dense, seeded
from ...ingredients.densities import LogNormal
from ...ingredients.levels import Levels
from .first_logs import is_first_log, read_first_log

__all__ = ["Optimisation", "Records", "TrainedDenoiser", "edm_weight", "finished", "train"]

Density = Any  # SigmaDensity, anything with quantile(u), or a function (batch, generator) -> sigma
Weight = Callable[[Tensor], Tensor]
EDM_DENSITY = LogNormal(-1.2, 1.2)
LOG_LEVELS = Levels(np.logspace(-4.0, 4.0, 41))  # five per decade: a loss is even across a factor of 1.6 in sigma
_MOST = 100_000_000  # iterations that anybody trains a small network for
_CHECKPOINT, _LOG = "checkpoint.pt", "loss.csv"


@dataclass(frozen=True, eq=False)
class Optimisation:
    """What decides the trained weights beside data, initial weights and seed: Adam at a constant rate, averaged.

    Args:
        density: of noise levels: LogNormal (EDM's P_mean = -1.2, P_std = 1.2), TrainingDensity, an object with
            quantile(u), or a function (batch, torch.Generator) -> sigma or (sigma, importance weight).
        batch: examples per iteration.
        learning_rate: Adam's; 1e-3 is what small networks stand.
        ema: decay of the average per iteration, in [0, 1); in the first iterations n it is at most n / (n + 9).
            0.999 averages over a thousand iterations, a sixth of the testbed's trainings; 0 keeps the last iterate.
        weight: function of sigma; EDM's (sigma^2 + s^2) / (sigma s)^2 with the model's sigma_data unless given.

    Raises:
        ValueError: a field out of its range.

    >>> Optimisation(batch=64).learning_rate
    0.001
    """

    density: Density = EDM_DENSITY
    batch: int = 128
    learning_rate: float = 1e-3
    ema: float = 0.999
    weight: Weight | None = None

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "batch", integer(self.batch, "Optimisation.batch", minimum=1, maximum=AT_ONCE))
        put(self, "learning_rate", number(self.learning_rate, "Optimisation.learning_rate", positive=True))
        put(self, "ema", number(self.ema, "Optimisation.ema", nonnegative=True))
        if self.ema >= 1:
            raise ValueError(f"Optimisation.ema is {self.ema:g}; it must be < 1 (0 keeps the last iterate).")
        if isinstance(self.density, type) or not (hasattr(self.density, "quantile") or callable(self.density)):
            raise ValueError(
                f"Optimisation.density is {shown(self.density)}; a density with quantile(u) is needed, or a function "
                "(batch, generator) -> sigma."
            )
        if self.weight is not None:
            function(self.weight, "Optimisation.weight")

    def question(self, seed: int) -> dict[str, Any]:
        """The numbers that two trainings of one folder must have in common."""
        return {"batch": self.batch, "learning_rate": self.learning_rate, "ema": self.ema, "seed": seed}


@dataclass(frozen=True, eq=False)
class Records:
    """What a training keeps on the way; it does not change the weights.

    Args:
        every: iterations between checkpoints: what a kill costs at most.
        keep: iterations between files of the averaged weights that stay, or None.
        levels: Levels or edges by which losses are logged; five per decade unless given.
        tell: iterations between calls of `progress`.

    Raises:
        ValueError: a field out of its range.

    >>> Records(keep=500).every
    200
    """

    every: int = 200
    keep: int | None = None
    levels: Any = LOG_LEVELS
    tell: int = 50

    def __post_init__(self) -> None:
        put = object.__setattr__
        for name in ("every", "tell"):
            put(self, name, integer(getattr(self, name), f"Records.{name}", minimum=1))
        if self.keep is not None:
            put(self, "keep", integer(self.keep, "Records.keep", minimum=1))
        put(self, "levels", self.levels if isinstance(self.levels, Levels) else Levels(self.levels))


@dataclass(frozen=True, eq=False)
class TrainedDenoiser:
    """A trained denoiser: call it as D(x, sigma); its weights are the exponential average of the iterates.

    Attributes:
        model: the averaged network, in evaluation mode.
        last: the last iterate.
        log: losses by noise level; `log.save(path)` writes what `co.TrainingRun(log=...)` reads.
        iterations, batch: length of the training.
        folder: where its files lie, or None.
    """

    model: nn.Module
    last: nn.Module
    log: LevelStatistics
    iterations: int
    batch: int
    folder: Path | None = None

    def __post_init__(self) -> None:
        holds(
            self, model=nn.Module, last=nn.Module, log=LevelStatistics, iterations=int, batch=int, folder=(Path, None)
        )

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self.model(x, sigma)

    def snapshots(self) -> dict[int, Path]:
        """Files of the averaged weights kept on the way, by iteration."""
        found = sorted(self.folder.glob("average_*.pt")) if self.folder else []
        return {int(path.stem.split("_")[1]): path for path in found}

    def at(self, iteration: int) -> nn.Module:
        """The averaged network as it was after `iteration` iterations, one of `snapshots()`."""
        files = self.snapshots()
        if iteration not in files:
            raise ValueError(f"no weights were kept at iteration {iteration}; kept are {', '.join(map(str, files))}.")
        model = copy.deepcopy(self.model)
        model.load_state_dict(torch.load(files[iteration], weights_only=True))
        return model


@takes(model=nn.Module, data=Tensor, optimisation=Optimisation, records=Records)
def train(
    model: nn.Module,
    data: Tensor,
    *,
    iterations: int,
    optimisation: Optimisation | None = None,
    records: Records | None = None,
    seed: int = 0,
    folder: str | os.PathLike[str] | None = None,
    progress: Progress = None,
) -> TrainedDenoiser:
    """Train a denoiser by denoising score matching with Adam at a constant rate and an average of the iterates.

    Minimises the mean of weight(sigma) |D(x0 + sigma z, sigma) - x0|^2 / d over data, noise and the density of
    noise levels (Karras et al. 2022, equations 2 and 8). Images are drawn independently with replacement, levels
    stratified through the density's quantiles. Every iteration draws from a generator of its own, seeded by
    (seed, iteration): a run that was killed at any moment and is called again gives the same bits as a run
    that was not, and a finished run can be continued by a larger `iterations`.

    Args:
        model: called as model(x, sigma) with x (N, *shape), sigma (N,); it is copied, not changed.
        data: (N, *shape), on the device and in the dtype of the model.
        iterations: number of batches in total, those of earlier calls on the same folder included.
        optimisation: density and weight of the noise levels, batch, learning rate and average.
        records: checkpoints, kept weights and levels of the log.
        seed: of everything drawn here; the model's initial weights are the caller's.
        folder: where checkpoint.pt and loss.csv go, written atomically; None keeps nothing.
        progress: every `records.tell` iterations: True, False, None (in a terminal or notebook, after 2 s), or a
            function of (iteration, iterations, text), whose text has the mean weighted loss.

    Returns:
        TrainedDenoiser.

    Raises:
        ValueError: an option out of range, data that are not finite, a folder of another training (the differing
            option is named), a loss that stops being finite.
    """
    total, seed = integer(iterations, "iterations", minimum=1, maximum=_MOST), integer(seed, "seed")
    how, kept = optimisation or Optimisation(), records or Records()
    _check_data(data)
    state = _State(model, how, kept.levels)
    weight = how.weight or edm_weight(model)
    home = as_path(folder, "folder") if folder is not None else None
    question = _question(model, data, how, weight, seed)
    if home is not None:
        home.mkdir(parents=True, exist_ok=True)
        state.resume(home / _CHECKPOINT, question)
        state.check_log(kept.levels, home)
    if state.iteration > total:
        raise ValueError(
            f"{home} holds {state.iteration:,} iterations, more than iterations = {total:,}; ask for as many, or "
            "take weights kept on the way."
        )
    tell = teller(progress)
    while state.iteration < total:
        loss = state.step(data, weight, seeded(seed, "train", state.iteration))
        if kept.keep and home is not None and state.iteration % kept.keep == 0:
            _save(state.average.state_dict(), home / f"average_{state.iteration:07d}.pt")
        if home is not None and (state.iteration % kept.every == 0 or state.iteration == total):
            state.save(home, question)
        if state.iteration % kept.tell == 0:
            tell(f"loss {loss:.4f}", state.iteration, total)
    tell.close()
    return state.result(home)


def _check_data(data: Tensor) -> None:
    check_dense(data)
    if data.ndim < 2 or not data.is_floating_point() or not data.numel():
        raise ValueError(f"data is a tensor {tuple(data.shape)} of {data.dtype}; (N, *shape) floats are needed.")
    if not bool(torch.isfinite(data).all()):
        raise ValueError("data has entries that are not finite.")


def _question(model: nn.Module, data: Tensor, how: Optimisation, weight: Weight, seed: int) -> dict[str, Any]:
    """What the weights depend on; functions and tensors by checksums."""
    return {
        **how.question(seed),
        "density": shown_density(how.density),
        "weight": f"{zlib.crc32(weight(torch.logspace(-3, 2, 64)).numpy().tobytes()):08x}",
        "data": f"{tuple(data.shape)} {data.dtype} {zlib.crc32(data.detach().cpu().contiguous().numpy().data):08x}",
        "initial weights": _initial(model),
    }


def edm_weight(model: nn.Module) -> Weight:
    """EDM's weight (sigma^2 + s^2) / (sigma s)^2, with s = sigma_data of the model (1 where it has none)."""
    s = float(getattr(model, "sigma_data", 1.0))
    return lambda sigma: (sigma**2 + s**2) / (sigma * s) ** 2


class _State:
    """Everything a training carries from one iteration to the next."""

    def __init__(self, model: nn.Module, how: Optimisation, levels: Levels) -> None:
        self.how = how
        self.model, self.average = copy.deepcopy(model).train(), copy.deepcopy(model).eval().requires_grad_(False)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=how.learning_rate)
        self.log = LevelStatistics(levels, learning_rate=how.learning_rate, batch=how.batch)
        self.iteration = 0

    def step(self, data: Tensor, weight: Weight, generator: torch.Generator) -> float:
        batch = self.how.batch
        index = torch.randint(len(data), (batch,), generator=generator)
        sigma, importance = (part.to(data) for part in draw_levels(self.how.density, batch, generator))
        noise = torch.randn((batch, *data.shape[1:]), generator=generator, dtype=data.dtype).to(data.device)
        clean = data[index.to(data.device)]
        noisy = clean + sigma.reshape(-1, *[1] * (data.dim() - 1)) * noise
        squares = (self.model(noisy, sigma) - clean).square().flatten(1).sum(1)
        loss = (importance * weight(sigma) * squares).mean() / clean[0].numel()
        shown = float(loss.detach())
        if not math.isfinite(shown):
            raise ValueError(
                f"the loss is {shown} at iteration {self.iteration}; lower learning_rate, or look at the data."
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.iteration += 1
        self._average(min(self.how.ema, self.iteration / (self.iteration + 9.0)))
        self.log.record(sigma, squares.detach())
        return shown

    @torch.no_grad()
    def _average(self, decay: float) -> None:
        for mean, last in zip(self.average.parameters(), self.model.parameters(), strict=True):
            mean.lerp_(last, 1.0 - decay)

    def result(self, folder: Path | None) -> TrainedDenoiser:
        for model in (self.average, self.model):
            model.eval().requires_grad_(False)
        return TrainedDenoiser(self.average, self.model, self.log, self.iteration, self.how.batch, folder)

    def save(self, folder: Path, question: Mapping[str, Any]) -> None:
        content: dict[str, Any] = {
            "question": dict(question),
            "iteration": self.iteration,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "log": self.log.state(),
        }
        # a copy is written: counting what is pending here would group the sums by checkpoints, other bits
        fresh = folder / f".{_LOG}.{os.getpid()}"
        LevelStatistics.from_state(content["log"]).save(fresh)
        os.replace(fresh, folder / _LOG)
        _save(content, folder / _CHECKPOINT)

    def resume(self, path: Path, question: Mapping[str, Any]) -> None:
        if not path.exists():
            return
        content = torch.load(path, weights_only=True, map_location="cpu")
        for name, value in question.items():
            if content["question"].get(name) != value:
                raise ValueError(
                    f"{path} belongs to another training: its {name} is {content['question'].get(name)}, this one's is "
                    f"{value}; give another folder or remove it."
                )
        self.iteration = content["iteration"]
        self.model.load_state_dict(content["model"])
        self.average.load_state_dict(content["average"])
        self.optimizer.load_state_dict(content["optimizer"])
        log = content["log"]
        self.log = LevelStatistics.from_state(read_first_log(log, self.log.state()) if is_first_log(log) else log)

    def check_log(self, levels: Levels, folder: Path) -> None:
        """A log goes on with the levels that it was begun with."""
        if not np.array_equal(self.log.levels.edges, levels.edges):
            raise ValueError(
                f"{folder} holds a log with other levels: {len(self.log.levels)} from {self.log.levels.edges[0]:.3g} "
                f"to {self.log.levels.edges[-1]:.3g}; give these as Records.levels, or another folder."
            )


def draw_levels(density: Density, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(batch,) noise levels of a density, stratified where it has quantiles, and their importance weights."""
    if hasattr(density, "quantile"):
        uniform = torch.rand(batch, generator=generator, dtype=torch.float64)
        order = torch.randperm(batch, generator=generator)
        strata = ((torch.arange(batch, dtype=torch.float64) + uniform) / batch)[order]
        sigma = torch.as_tensor(np.asarray(density.quantile(strata.numpy())))
        return sigma, torch.ones_like(sigma)
    drawn = density(batch, generator)
    sigma, importance = drawn if isinstance(drawn, tuple) else (drawn, None)
    sigma = torch.as_tensor(sigma)
    if sigma.shape != (batch,) or not bool((sigma > 0).all()):
        raise ValueError(f"density returned levels of shape {tuple(sigma.shape)}; ({batch},) levels > 0 are needed.")
    return sigma, torch.ones_like(sigma) if importance is None else torch.as_tensor(importance)


def finished(
    model: nn.Module,
    folder: str | os.PathLike[str],
    *,
    iterations: int,
    optimisation: Optimisation | None = None,
    seed: int = 0,
) -> TrainedDenoiser | None:
    """A training that has reached `iterations`, loaded without its data; None where there is none yet.

    Args:
        model: the untrained network, as given to `train`.
        folder, iterations, optimisation, seed: as in `train`; density and weight are not compared.

    Raises:
        ValueError: the folder belongs to another training.
    """
    home = as_path(folder, "folder")
    path = home / _CHECKPOINT
    if not path.exists():
        return None
    how = optimisation or Optimisation()
    state = _State(model, how, LOG_LEVELS)
    state.resume(path, {**how.question(seed), "initial weights": _initial(model)})
    return state.result(home) if state.iteration == iterations else None


def shown_density(density: Density) -> str:
    """A density as something that can be compared: its name and a checksum of its quantiles."""
    if not hasattr(density, "quantile"):
        return str(getattr(density, "__name__", type(density).__name__))
    middle = np.asarray(density.quantile((np.arange(256) + 0.5) / 256), dtype=np.float64)
    return f"{type(density).__name__} {zlib.crc32(middle.tobytes()):08x}"


def _initial(model: nn.Module) -> str:
    return f"{zlib.crc32(b''.join(p.detach().cpu().numpy().tobytes() for p in model.state_dict().values())):08x}"


def _save(content: Any, path: Path) -> None:
    """Write completely or not at all."""
    with replacing(path) as file:
        torch.save(content, file)
