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

from ...basics.checks import integer, number
from ...estimate.draws.streams import seeded
from ...ingredients.densities import LogNormal
from ..loss_log import LossLog

__all__ = ["TrainedDenoiser", "edm_weight", "finished", "train"]

Density = Any  # SigmaDensity, anything with quantile(u), or a function (batch, generator) -> sigma
Weight = Callable[[Tensor], Tensor]
EDM_DENSITY = LogNormal(-1.2, 1.2)
_CHECKPOINT, _LOG = "checkpoint.pt", "loss.csv"


@dataclass(frozen=True, eq=False)
class TrainedDenoiser:
    """A trained denoiser: call it as D(x, sigma); its weights are the exponential average of the iterates.

    Attributes:
        model: the averaged network, in evaluation mode.
        last: the last iterate.
        log: rows of (examples, sigma, loss); `log.save(path)` writes what `co.TrainingRun(log=...)` reads.
        iterations, batch: length of the training.
        folder: where its files lie, or None.
    """

    model: nn.Module
    last: nn.Module
    log: LossLog
    iterations: int
    batch: int
    folder: Path | None = None

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


def train(
    model: nn.Module,
    data: Tensor,
    *,
    iterations: int,
    density: Density = EDM_DENSITY,
    batch: int = 128,
    learning_rate: float = 1e-3,
    ema: float = 0.999,
    weight: Weight | None = None,
    seed: int = 0,
    folder: str | os.PathLike[str] | None = None,
    every: int = 200,
    keep: int | None = None,
    log_every: int = 50,
    record: Callable[[Tensor, Tensor], None] | None = None,
    progress: Callable[[int, int, float], None] | None = None,
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
        density: LogNormal (EDM's P_mean = -1.2, P_std = 1.2 unless given), TrainingDensity, an object with
            quantile(u), or a function (batch, torch.Generator) -> sigma or (sigma, importance weight).
        batch, learning_rate: examples per iteration; Adam's rate.
        ema: decay of the average per iteration, in [0, 1); in the first iterations n it is at most n / (n + 9).
        weight: function of sigma; EDM's (sigma^2 + s^2) / (sigma s)^2 with the model's sigma_data unless given.
        seed: of everything drawn here; the model's initial weights are the caller's.
        folder: where checkpoint.pt and loss.csv go, written atomically; None keeps nothing.
        every: iterations between checkpoints.
        keep: iterations between files of the averaged weights that stay, or None.
        log_every: iterations per row of the log.
        record: called with (sigma, |D - x0|^2) of every batch of this call, such as `LevelStatistics.record`.
        progress: called with (iteration, iterations, mean weighted loss) at every row of the log.

    Returns:
        TrainedDenoiser.

    Raises:
        ValueError: an option out of range, data that are not finite, a folder of another training (the differing
            option is named), a loss that stops being finite.
    """
    total, every = integer(iterations, "iterations", minimum=1), integer(every, "every", minimum=1)
    options = _options(batch, learning_rate, ema, seed, log_every)
    if not bool(torch.isfinite(data).all()):
        raise ValueError("data has entries that are not finite.")
    state = _State(model, options["learning_rate"], options["log_every"])
    weight = weight or edm_weight(model)
    home = Path(folder) if folder is not None else None
    question = {
        **options,
        "density": shown_density(density),
        "weight": f"{zlib.crc32(weight(torch.logspace(-3, 2, 64)).numpy().tobytes()):08x}",
        "data": f"{tuple(data.shape)} {data.dtype} {zlib.crc32(data.detach().cpu().contiguous().numpy().data):08x}",
        "initial weights": _initial(model),
    }
    if home is not None:
        home.mkdir(parents=True, exist_ok=True)
        state.resume(home / _CHECKPOINT, question)
    if state.iteration > total:
        raise ValueError(
            f"{home} holds {state.iteration:,} iterations, more than iterations = {total:,}; ask for as many, or "
            "take weights kept on the way."
        )
    while state.iteration < total:
        loss = state.step(
            data, density, options["batch"], weight, options["ema"], seeded(seed, "train", state.iteration), record
        )
        if keep and home is not None and state.iteration % keep == 0:
            _save(state.average.state_dict(), home / f"average_{state.iteration:07d}.pt")
        if home is not None and (state.iteration % every == 0 or state.iteration == total):
            state.save(home, question)
        if progress is not None and state.iteration % log_every == 0:
            progress(state.iteration, total, loss)
    return state.result(options["batch"], home)


def edm_weight(model: nn.Module) -> Weight:
    """EDM's weight (sigma^2 + s^2) / (sigma s)^2, with s = sigma_data of the model (1 where it has none)."""
    s = float(getattr(model, "sigma_data", 1.0))
    return lambda sigma: (sigma**2 + s**2) / (sigma * s) ** 2


class _State:
    """Everything a training carries from one iteration to the next."""

    def __init__(self, model: nn.Module, learning_rate: float, log_every: int) -> None:
        self.model, self.average = copy.deepcopy(model).train(), copy.deepcopy(model).eval().requires_grad_(False)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=learning_rate)
        self.log = LossLog(every=log_every)
        self.iteration = 0

    def step(
        self,
        data: Tensor,
        density: Density,
        batch: int,
        weight: Weight,
        ema: float,
        generator: torch.Generator,
        record: Callable[[Tensor, Tensor], None] | None,
    ) -> float:
        index = torch.randint(len(data), (batch,), generator=generator)
        sigma, importance = (part.to(data) for part in draw_levels(density, batch, generator))
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
        self._average(min(ema, self.iteration / (self.iteration + 9.0)))
        self.log.add(self.iteration * batch, sigma.cpu().numpy(), squares.detach().cpu().numpy())
        if record is not None:
            record(sigma, squares.detach())
        return shown

    @torch.no_grad()
    def _average(self, decay: float) -> None:
        for mean, last in zip(self.average.parameters(), self.model.parameters(), strict=True):
            mean.lerp_(last, 1.0 - decay)

    def result(self, batch: int, folder: Path | None) -> TrainedDenoiser:
        for model in (self.average, self.model):
            model.eval().requires_grad_(False)
        return TrainedDenoiser(self.average, self.model, self.log, self.iteration, batch, folder)

    def save(self, folder: Path, question: Mapping[str, Any]) -> None:
        content = {
            "question": dict(question),
            "iteration": self.iteration,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "log": self.log.state(),
        }
        self.log.save(folder / _LOG)
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
        self.log = LossLog.from_state(content["log"])


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
    model: nn.Module, folder: str | os.PathLike[str], *, iterations: int, **options: Any
) -> TrainedDenoiser | None:
    """A training that has reached `iterations`, loaded without its data; None where there is none yet.

    Args:
        model: the untrained network, as given to `train`.
        folder, iterations: as in `train`.
        options: batch, learning_rate, ema, seed, log_every where `train` was given them.

    Raises:
        ValueError: the folder belongs to another training.
    """
    path = Path(folder) / _CHECKPOINT
    if not path.exists():
        return None
    known = _options(**{name: options[name] for name in _OPTIONS if name in options})
    state = _State(model, known["learning_rate"], known["log_every"])
    state.resume(path, {**known, "initial weights": _initial(model)})
    return state.result(known["batch"], Path(folder)) if state.iteration == iterations else None


_OPTIONS = ("batch", "learning_rate", "ema", "seed", "log_every")


def _options(
    batch: int = 128, learning_rate: float = 1e-3, ema: float = 0.999, seed: int = 0, log_every: int = 50
) -> dict[str, Any]:
    """The checked options that decide the result; the defaults are those of `train`."""
    checked = {
        "batch": integer(batch, "batch", minimum=1),
        "learning_rate": number(learning_rate, "learning_rate", positive=True),
        "ema": number(ema, "ema", nonnegative=True),
        "seed": integer(seed, "seed"),
        "log_every": integer(log_every, "log_every", minimum=1),
    }
    if checked["ema"] >= 1:
        raise ValueError(f"ema is {ema:g}; it must be < 1 (0 keeps the last iterate).")
    return checked


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
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    torch.save(content, temporary)
    os.replace(temporary, path)
