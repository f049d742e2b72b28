"""evidence(): what the schedules of the literature may know, measured on any denoiser and its data."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..basics.checks import AT_ONCE, Array, as_path, choice, integer, takes
from ..basics.devices import device_of
from ..basics.ledger import Ledger
from ..basics.progress import Progress, teller
from ..ingredients.grids import edm_grid
from ..ingredients.process import EDM, Process
from ..models.evidence import DenoiserGaps, Evidence, RiskCurve, ScoreCost, Trajectories
from ..samplers.members import Euler, Sampler
from .denoisers.denoiser import Denoise, Denoiser
from .denoisers.same_denoiser import check_same_denoiser, shared_range
from .draws.data_fingerprint import data_fingerprint
from .draws.reservoir import Reservoir
from .draws.statistics import Estimate, Moments
from .draws.streams import batches, first_of, my_share, normal, seeded, sum_over_processes
from .score_costs import score_slope
from .spectra.measure import spectrum

__all__ = ["EvidenceMeasurement", "evidence"]

_NUDGE = 0.05  # in log sigma, of the differences of the score: their error is of the second order


@dataclass(frozen=True, eq=False)
class EvidenceMeasurement:
    """What evidence is measured on, in which portions and where.

    Args:
        draws: examples, each with a path of noise of its own, at least 2; 256 give a risk good to a tenth.
        levels: of the curves, uniform in log sigma over the range, at least 3.
        teachers, teacher_steps: trajectories, and their steps (60, as in GITS, at least 2).
        chunk: states in one call of the denoiser; more where states are small.
        device: of the states; the data's unless given.
        progress: True, False, None (in a terminal or notebook, after 2 s), or a function of (done, total, text).

    Raises:
        ValueError: a number out of range.

    >>> EvidenceMeasurement(draws=400, levels=16).calls(400)
    {'paths': 19200, 'trajectories': 3872}
    """

    draws: int = 256
    levels: int = 64
    teachers: int = 32
    teacher_steps: int = 60
    chunk: int = 64
    device: Any = None
    progress: Progress = None

    def __post_init__(self) -> None:
        for name, least in (("draws", 2), ("levels", 3), ("teachers", 1), ("teacher_steps", 2), ("chunk", 1)):
            value = integer(getattr(self, name), f"EvidenceMeasurement.{name}", minimum=least, maximum=AT_ONCE)
            object.__setattr__(self, name, value)
        object.__setattr__(self, "device", device_of(self.device, "EvidenceMeasurement.device"))

    def calls(self, examples: int) -> dict[str, int]:
        """States denoised, part by part, where the data give so many examples."""
        examples = integer(examples, "EvidenceMeasurement.calls: examples", minimum=1)
        return {"paths": 3 * self.levels * examples, "trajectories": (2 * self.teacher_steps + 1) * self.teachers}


@takes(measurement=EvidenceMeasurement, process=Process, sampler=Sampler)
def evidence(
    denoiser: Denoise,
    data: Any,
    *,
    process: Process | None = None,
    sampler: Sampler | None = None,
    terminal: str = "denoise",
    measurement: EvidenceMeasurement | None = None,
    seed: int = 0,
    folder: str | Path | None = None,
) -> Evidence:
    """Spectrum, risk, gaps, score cost and fine trajectories of a denoiser, for `peers` and `co.compare`.

    With examples x0 and one path of noise each, x_i = x_j + sqrt(sigma_i^2 - sigma_j^2) z upwards:

        risk        E |x0 - D(x_i, sigma_i)|^2                     (peers.RiskCurve)
        gaps        E |D(x_j, sigma_j) - D(x_i, sigma_i)|^2        (peers.DenoiserGaps)
        score cost  sigma^2 E |d score / d sigma|^2 at fixed x     (peers.ScoreCost), with score = (D - x) / sigma^2,
                    by differences over 10 % of sigma,
                    one-sided at the ends of what the network was trained on

    three calls of the denoiser for each level and `chunk` draws. The trajectories are Heun's on EDM's grid from
    N(0, sigma_max^2 I).

    Args:
        denoiser: callable (x, sigma) -> x0 in the rescaled state; see `estimate.adapters` for others.
        data: tensor, array, Dataset, DataLoader or iterable of batches; a uniform sample of so many draws is taken.
        process: forward process; EDM unless given. A network's own range of noise levels cuts it.
        sampler, terminal: what the evidence is for; Euler and "denoise" unless given.
        measurement: draws, levels and trajectories, states per call, device and progress.
        seed: of all draws.
        folder: where finished items are kept: the same call goes on.

    Returns:
        peers.Evidence; `provenance` has the evaluations, part by part, and "standard_errors" of the score
        cost (L,) and of the gaps (L, L).

    Raises:
        ValueError: a malformed argument, or a folder of another denoiser or question.
        DenoiserError: a denoiser that fails at some noise level; what was finished stays in `folder`.

    >>> x = torch.randn(500, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    >>> linear, few = lambda x, sigma: x / (1 + sigma[:, None] ** 2), EvidenceMeasurement(draws=400, levels=16)
    >>> found = evidence(linear, x, measurement=few)
    >>> bool(abs(found.risk(np.array([1.0]))[0] - 1.0) < 0.2)
    True
    """
    size = EvidenceMeasurement() if measurement is None else measurement
    choice(terminal, "terminal", ("denoise", "rescale"))
    tell = teller(size.progress)
    first, data = first_of(data)
    work = _Work.prepared(denoiser, first, process, size, seed, folder)
    found = spectrum(data, seed=seed, folder=work.place("spectrum"))
    tell(f"spectrum: {found.spectrum!r}")
    examples = _sample(data, size.draws, seed).to(work.like.device)
    calls = size.calls(int(examples.shape[0]))
    paths = work.paths(examples)
    tell(f"paths: {calls['paths']:,} evaluations")
    teacher = work.teacher(size.teachers, size.teacher_steps)
    tell(f"trajectories: {calls['trajectories']:,} evaluations")
    return Evidence(
        sigma_min=float(work.sigma[0]),
        sigma_max=float(work.sigma[-1]),
        sampler=Euler() if sampler is None else sampler,
        terminal=terminal,
        spectrum=found.spectrum,
        risk=RiskCurve(work.sigma, paths["risk"].value, paths["risk"].standard_error),
        score_cost=ScoreCost(work.sigma, paths["cost"].value, paths["cost"].standard_error),
        gaps=DenoiserGaps(work.sigma, paths["gaps"].value),
        trajectories=teacher,
        provenance={
            "source": "measured", "denoiser": work.denoiser.name, "draws": int(examples.shape[0]), "seed": seed,
            "evaluations": calls,
            "standard_errors": {"score_cost": paths["cost"].standard_error, "gaps": paths["gaps"].standard_error},
        },
    )  # fmt: skip


def _sample(data: Any, count: int, seed: int) -> torch.Tensor:
    """A uniform sample of the examples in random order, all of them where there are no more."""
    first, data = first_of(data)
    kept = Reservoir(count, first[0].numel(), seed=seed, like=first)
    for number, part in enumerate(batches(data)):
        kept.add(number, part.flatten(1))
    order = torch.randperm(kept.rows.shape[0], generator=seeded(seed, "evidence", "order"))
    return kept.rows[order.to(kept.rows.device)].reshape(-1, *first.shape[1:])


@dataclass(frozen=True, eq=False)
class _Work:
    """What is measured with, and where items are kept."""

    denoiser: Denoiser
    shape: tuple[int, ...]
    like: torch.Tensor
    sigma: Array
    chunk: int
    seed: int
    folder: Path | None

    @classmethod
    def prepared(
        cls,
        denoiser: Denoise,
        first: torch.Tensor,
        process: Process | None,
        measurement: EvidenceMeasurement,
        seed: int,
        folder: Any,
    ) -> _Work:
        wrapped, process = Denoiser.of(denoiser), process or EDM()
        low, high = shared_range(process, wrapped)
        sigma = np.geomspace(low, high, measurement.levels)
        sigma[0], sigma[-1] = low, high
        device = first.device if measurement.device is None else torch.device(measurement.device)
        like = torch.zeros((), dtype=first.dtype, device=device)
        place = None if folder is None else as_path(folder, "folder")
        work = cls(wrapped, tuple(first.shape[1:]), like, sigma, measurement.chunk, integer(seed, "seed"), place)
        work._check_same()
        return work

    def place(self, name: str) -> Path | None:
        return None if self.folder is None else self.folder / name

    def _check_same(self) -> None:
        states = normal(self.seed, "check", shape=(2, *self.shape), like=self.like)
        levels = [float(s) for s in self.sigma[:: max(1, self.sigma.size // 8)]]
        question = {"levels": levels, "seed": self.seed, "shape": self.shape}
        check_same_denoiser(self.denoiser, levels, states, self.place("answers"), question, within=self.folder)

    def paths(self, examples: torch.Tensor) -> dict[str, Estimate]:
        """Risk (L,), score cost (L,) and gaps (L, L) over all examples, with standard errors."""
        size, count = self.sigma.size, int(examples.shape[0])
        total = {"risk": Moments((size,)), "cost": Moments((size,)), "gaps": Moments((size, size))}
        ledger = Ledger(self.place("paths"), self._question(examples))
        for chunk in my_share(-(-count // self.chunk)):
            part = examples[chunk * self.chunk : (chunk + 1) * self.chunk]
            item = ledger.item(f"chunk{chunk}", partial(self._path, part, chunk))
            for name, moments in total.items():
                state = {key: item[f"{name}.{key}"] for key in ("count", "mean", "squares")}
                total[name] = moments.merged(Moments.from_state(state))
        return {name: moments.reduced().estimate() for name, moments in total.items()}

    @torch.no_grad()
    def _path(self, part: torch.Tensor, chunk: int) -> dict[str, Any]:
        """One path of noise for every example of a chunk, from the lowest level up."""
        clean, x, before = part.to(self.like), part.to(self.like), 0.0
        errors, costs = [], []
        for number, sigma in enumerate(self.sigma):
            noise = normal(self.seed, "evidence", chunk, number, shape=tuple(clean.shape), like=self.like)
            x, before = x + float(np.sqrt(sigma**2 - before**2)) * noise, float(sigma)
            found = self.denoiser(x, before)
            slope = score_slope(self.denoiser, x, before, _NUDGE, self.denoiser.sigma_range, found)
            costs.append(slope.flatten(1).square().sum(dim=1))
            errors.append((found - clean).double().flatten(1))
        away = torch.stack(errors, dim=1).cpu()  # (n, L, d), D - x0: small where D's differences are
        risk = away.square().sum(dim=2)
        gaps = risk[:, :, None] + risk[:, None, :] - 2 * away @ away.transpose(1, 2)
        gaps = torch.where(torch.eye(self.sigma.size, dtype=torch.bool), 0.0, gaps).clamp(min=0.0)
        item: dict[str, Any] = {}
        for name, values in (("risk", risk), ("cost", torch.stack(costs, dim=1).cpu()), ("gaps", gaps)):
            moments = Moments(tuple(values.shape[1:]))
            moments.add(values)
            item |= {f"{name}.{key}": value for key, value in moments.state().items()}
        return item

    def teacher(self, count: int, steps: int) -> Trajectories:
        """Heun's method on EDM's grid down to sigma_min: states and slopes at every node."""
        grid = edm_grid(steps, float(self.sigma[0]), float(self.sigma[-1]), terminal="rescale")
        question = {
            "what": "trajectories",
            "count": count,
            "chunk": self.chunk,
            "grid": grid.tolist(),
            "seed": self.seed,
        }
        ledger = Ledger(self.place("trajectories"), question)
        states = np.zeros((grid.size, count, int(np.prod(self.shape))))
        slopes = np.zeros_like(states)
        for chunk in my_share(-(-count // self.chunk)):
            rows = slice(chunk * self.chunk, min((chunk + 1) * self.chunk, count))
            item = ledger.item(f"chunk{chunk}", partial(self._fine, grid, chunk, rows.stop - rows.start))
            states[:, rows], slopes[:, rows] = item["states"], item["slopes"]
        both = sum_over_processes(torch.as_tensor(np.stack([states, slopes]))).numpy()
        return Trajectories(grid, both[0], both[1])

    @torch.no_grad()
    def _fine(self, grid: Array, chunk: int, count: int) -> dict[str, Any]:
        x = float(grid[0]) * normal(self.seed, "teacher", chunk, shape=(count, *self.shape), like=self.like)
        slope = (x - self.denoiser(x, float(grid[0]))) / float(grid[0])
        states, slopes = [x], [slope]
        for high, low in pairwise(grid.tolist()):
            there = x + (low - high) * slope
            x = x + (low - high) * 0.5 * (slope + (there - self.denoiser(there, low)) / low)
            slope = (x - self.denoiser(x, low)) / low
            states.append(x)
            slopes.append(slope)
        return {
            name: torch.stack(values).flatten(2).cpu().double().numpy()
            for name, values in (("states", states), ("slopes", slopes))
        }

    def _question(self, examples: torch.Tensor) -> dict[str, Any]:
        return {
            "what": "evidence", "levels": self.sigma.tolist(), "seed": self.seed,
            "examples": list(examples.shape), "chunk": self.chunk, "dtype": str(self.like.dtype),
            "data": data_fingerprint(examples, examples[:1]),
        }  # fmt: skip
