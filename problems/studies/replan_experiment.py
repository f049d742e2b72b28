"""Training that is planned again along its run, against fixed densities: equal examples, what counts is the samples.

The data sets, networks and reference of the experiment on pilots. A run that is planned again knows the spectrum of its
data and its own losses; it begins at EDM's default in units of the data's spread, or at the spectrum's own density.
It is compared with EDM's default, with the best of fifteen log-normals, as runs of other seeds have it, and with what
one pilot at EDM's default plans.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

import codesign_opt as co
from codesign_opt.basics.checks import Array, integer

from .pilot_experiment import DEFAULT, PilotExperiment
from .pilot_report import plan_of

__all__ = ["PILOT", "PLANNED", "ReplanExperiment", "Run", "overhead", "rows_of", "standard_error", "unet_step"]

PILOT = 100
PLANNED = "planned along the run"
_KEPT = 2  # of the fifteen, trained at the seeds that are compared: the best of them is one of these


@dataclass(frozen=True, eq=False)
class Run:
    """One run that was planned again.

    Attributes:
        error: squared distance of the samples to the reference's.
        shares: (P + 1, L) its densities, the first and that of every plan.
        examples: (P,) when they were planned.
        bought: fall of the score error by the run's own log, relative to its first density.
        seconds: processor time of one plan, mean.
    """

    error: float
    shares: Array
    examples: Array
    bought: float
    seconds: float


@dataclass(frozen=True)
class ReplanExperiment:
    """Runs on one set of small images; finished ones are kept in the folder of `base`.

    Args:
        base: data, networks, sampler and reference.
        rules: of the plans.
        start: first density, as `Replanner` takes it: EDM's, or "spectrum".
        chosen_on: seeds of the runs on which the best of the fifteen log-normals are chosen.

    >>> ReplanExperiment(PilotExperiment("digits")).rules.at
    (0.05, 0.1, 0.2, 0.4, 0.7)
    """

    base: PilotExperiment
    rules: co.training.ReplanRules = field(default_factory=co.training.ReplanRules)
    start: str | None = None
    chosen_on: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        for seed in self.chosen_on:
            integer(seed, "ReplanExperiment.chosen_on", minimum=0)

    @cached_property
    def spectrum(self) -> co.Spectrum:
        return co.Spectrum.from_samples(self.base.images.double().numpy())

    def replanner(self) -> co.training.Replanner:
        """A run at its beginning: what is known is the spectrum."""
        return co.training.Replanner(self.spectrum, self.base.examples, start=self.start, rules=self.rules)

    @cached_property
    def finalists(self) -> tuple[co.LogNormal, ...]:
        """The best of the fifteen on the seeds to choose on, best first."""
        compared = self.base.compared()
        found = np.mean([self.base.errors(compared, seed)["ema"] for seed in self.chosen_on], axis=0)
        return tuple(compared[i] for i in np.argsort(found)[:_KEPT])

    @cached_property
    def piloted(self) -> co.LogNormal:
        """What one pilot at EDM's default plans, from its log alone."""

        def compute() -> dict[str, Array]:
            found = plan_of(self.base, PILOT, "ema", "log").lognormal
            return {"lognormal": np.array([found.mean, found.std])}

        mean, std = self.base.ledger.item(f"pilots/{PILOT}-planned", compute)["lognormal"]
        return co.LogNormal(round(float(mean), 6), round(float(std), 6))

    @cached_property
    def fixed(self) -> dict[str, co.LogNormal]:
        """Name -> density of the default, of the finalists and of the pilot's plan."""
        best = {f"log-normal {density.mean:g} {density.std:g}": density for density in self.finalists}
        return {"default": DEFAULT, **best, "pilot": self.piloted}

    def errors(self, seeds: Iterable[int]) -> dict[str, Array]:
        """Name -> (S,) errors of the fixed densities at seeds; missing runs are made."""
        used = tuple(seeds)
        self.runs(used)
        found = np.array([self.base.errors(list(self.fixed.values()), seed)["ema"] for seed in used])
        return dict(zip(self.fixed, found.T, strict=True))

    def runs(self, seeds: Iterable[int]) -> list[Run]:
        """Runs that are planned again; missing ones are made, and with each the fixed densities of its seed."""
        return [self._run(seed) for seed in seeds]

    def _run(self, seed: int) -> Run:
        rules = self.rules
        first = self.start or "edm"
        key = (
            f"{first}-{rules.trust:g}-{rules.caution:g}-{rules.floor:g}-{rules.transfer:g}-"
            f"{'-'.join(f'{share:g}' for share in rules.at)}"
        )
        found = self.base.ledger.item(f"replanned/{key}-seed{seed}", lambda: self._trained(seed))
        return Run(
            float(found["error"]), found["shares"], found["examples"], float(found["bought"]), float(found["seconds"])
        )

    def _trained(self, seed: int) -> dict[str, Array]:
        """One run that is planned again, side by side with the fixed densities that its seed has not seen yet."""
        base, run = self.base, self.replanner()
        todo = base.missing(list(self.fixed.values()), seed)
        errors = base.trained([*todo, run], seed)
        for density, one in zip(todo, errors[:-1], strict=True):
            base.keep(density, seed, one)
        shares = np.stack([run.start, *(plan.share for plan in run.plans)])
        return {
            "error": errors[-1]["ema"], "bought": np.array(run.report().bought), "shares": shares,
            "examples": np.array([plan.examples for plan in run.plans]), "seconds": np.array(_seconds(run)),
        }  # fmt: skip


def _seconds(run: co.training.Replanner) -> float:
    """Processor time of a plan from the whole log: the last and dearest."""
    again = co.training.Replanner(run.model, 2 * run.examples, rules=run.rules)
    again.load_state_dict({**run.state_dict(), "question": again.state_dict()["question"]})
    start = time.process_time()
    again._plan()
    return time.process_time() - start


def unet_step(iterations: int = 3) -> float:
    """Processor time of a training step of a small U-Net, 64 images of 28 x 28, on this machine."""
    import torch

    network = co.testbed.UNet(sigma_data=0.5)
    images = torch.zeros((64, 1, 28, 28))
    optimizer = torch.optim.Adam(network.parameters())
    seconds = []
    for _ in range(iterations):
        start = time.process_time()
        optimizer.zero_grad()
        (network(images, torch.ones(64)) - images).square().mean().backward()
        optimizer.step()
        seconds.append(time.process_time() - start)
    return min(seconds)


def overhead(iterations: int = 1000, batch: int = 64) -> float:
    """Processor time of a run that plans itself beside its training: drawing, recording, and the plans of its rules."""
    import torch

    run = co.training.Replanner(co.Spectrum.power_law(784, exponent=1.5), examples=iterations * batch)
    sampler, noise = co.training.SigmaSampler(run, seed=0), torch.Generator().manual_seed(0)
    start = time.process_time()
    for step in range(iterations):
        sigma, _, _ = sampler(batch)
        falling = 784 * sigma**2 / (1 + sigma**2) * (1 + 300 / (step + 1))
        run.record(sigma, falling * torch.rand(batch, generator=noise))
    return time.process_time() - start


def standard_error(own: Array, other: Array) -> float:
    """Standard error of the ratio of means over seeds, in pairs."""
    rest = own - own.mean() / other.mean() * other
    return float(rest.std(ddof=1) / np.sqrt(own.size) / other.mean()) if own.size > 1 else float("nan")


def rows_of(experiment: ReplanExperiment, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """One row per method: its error, over that of the default and over that of the best log-normal."""
    fixed, runs = experiment.errors(seeds), experiment.runs(seeds)
    other = replace(experiment, start="spectrum").runs(seeds)
    best = min((name for name in fixed if name.startswith("log-normal")), key=lambda name: float(fixed[name].mean()))
    along = {PLANNED: runs, f"{PLANNED}, from the spectrum": other}
    told = {**fixed, **{name: np.array([run.error for run in each]) for name, each in along.items()}}
    return [
        {
            "data": experiment.base.data, "density": name, "best": int(name == best), "seeds": len(seeds),
            "error": float(error.mean()), "to_default": float(error.mean() / fixed["default"].mean()),
            "to_default_error": standard_error(error, fixed["default"]),
            "to_best": float(error.mean() / fixed[best].mean()), "to_best_error": standard_error(error, fixed[best]),
            "bought_by_its_log": float(np.mean([run.bought for run in along[name]])) if name in along else "",
            "plan_seconds": float(np.mean([run.seconds for run in along[name]])) if name in along else "",
        }
        for name, error in told.items()
    ]  # fmt: skip
