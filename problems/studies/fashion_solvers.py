"""Solvers for the Fashion-MNIST network: distances to its fine solution, and of their samples to images."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

import codesign_opt as co
from codesign_opt.basics.checks import Array
from codesign_opt.estimate.draws.statistics import squares
from codesign_opt.estimate.steps.grid_error import GridErrors
from codesign_opt.testbed.metrics import energy_distance, sliced_wasserstein2
from codesign_opt.testbed.networks.classifier import feature_distance, trained_classifier

from .rivals import GRIDS, RIVALS, begun_with, on_grid

__all__ = ["STEPS", "FashionSolvers", "draw"]

STEPS = (5, 8, 12, 18)
_STOP, _TOP, _CHUNK = 0.002, 80.0, 64
_FEW, _EVALUATIONS = 8, (5_000, 12_000)  # batch evaluations of a fit, of so many steps at most and of more
Solver = tuple[co.Sampler, Array]
# what users take without a plan, beside 2M on EDM's grid
_STOCK: dict[str, tuple[co.Sampler, Callable[..., Array]]] = {
    "dpmpp_2m on log_snr": (co.DPMpp2M(), co.log_snr_grid),
    "unipc on edm": (co.UniPC(), co.edm_grid),
    "unipc on log_snr": (co.UniPC(), co.log_snr_grid),
    "ipndm on edm": (co.IPNDM(), co.edm_grid),
}


@dataclass(frozen=True, eq=False)
class FashionSolvers:
    """The plan for DPM-Solver++(2M), the solver fitted from it on, and what users take without either.

    Everything finished is kept, so that a killed run goes on.

    Args:
        folder: cache of weights and results.
        draws: unseen starts that every solver is run from; measures of samples are biased by their number.
        fine_steps: of the solution that they are held against, of order 4.
        rivals: of `RIVALS` and `GRIDS`, fitted with the evaluations of the fitted solver. They and the stock samplers
            run from the first `rival_draws` starts alone: no measures of their samples.
        history: outputs that a step of the fitted solver takes.
        progress: called with a line per step of the work.
    """

    folder: Path
    draws: int = 4096
    fine_steps: int = 32
    rivals: Sequence[str] = ()
    rival_draws: int = 1024
    history: int = 3
    progress: Callable[[str], None] = print

    def rows(self, steps: Sequence[int] = STEPS) -> Iterator[dict[str, Any]]:
        """One row for every number of evaluations and solver, and one for the fine solution; as they are ready."""
        yield self._row("fine solution", 0, torch.cat(self.test.ends(co.Euler())), {})
        for count in steps:
            errors: dict[str, GridErrors] = {}
            for name, (sampler, sigmas), spent in self.solvers(count):
                outputs = self._outputs(f"{name}-{count}", sampler, sigmas)
                errors[name] = GridErrors(self.test.errors(sampler, sigmas, outputs))
                row = self._row(name, count, outputs, spent, errors[name], errors["plan"])
                self.progress(f"{name} {count}: {row['ratio']:.3g} +- {row['ratio_error']:.2g} of the plan's error")
                yield row
            for name in (*_STOCK, *self.rivals):
                yield self._against(name, count, errors["plan"])

    def solvers(self, count: int) -> Iterator[tuple[str, Solver, dict[str, Any]]]:
        """Solvers of so many evaluations, and what each cost to find; the plan is the first."""
        plan, seconds = self.plan(count)
        assert plan.sigmas is not None
        yield "plan", (co.DPMpp2M(), plan.sigmas), {"batches": self.plan_batches, "seconds": seconds}
        fitted, seconds = self.plan(count, fitted=True)
        assert fitted.solver is not None
        fit = fitted.fits["solver"]
        spent = {"batches": int(fit["evaluations"]), "seconds": seconds, "numbers": int(fit["numbers"])}
        yield "fitted", (fitted.solver, fitted.solver.levels), spent | {"gap": float(fit["gap"])}
        yield "dpmpp_2m on edm", (co.DPMpp2M(), co.edm_grid(count, _STOP, _TOP)), {"batches": 0, "seconds": 0.0}

    def _against(self, name: str, count: int, plan: GridErrors) -> dict[str, Any]:
        """The row of a rival."""
        found, seconds = self._rival(name, count)
        test, ends = self.test, torch.cat(self.test.ends(co.Euler()))[: self.rival_draws]
        few = test.on(replace(test.draws, count=self.rival_draws))
        question = {"draws": few.draws.describe(), "sampler": found.sampler.to_dict(), "sigmas": found.sigmas.tolist()}
        ledger = co.estimate.Ledger(self.place / "outputs" / f"{name}-{count}-{self.rival_draws}", question)
        outputs = ledger.item("outputs", lambda: {"x": few.outputs(found.sampler, found.sigmas).numpy()})["x"]
        errors = GridErrors(squares(torch.as_tensor(outputs) - ends).numpy())
        spent = {"batches": int(found.fitting), "seconds": seconds}
        row = self._row(name, count, None, spent, errors, GridErrors(plan.errors[: self.rival_draws]))
        self.progress(f"{name} {count}: {row['ratio']:.3g} +- {row['ratio_error']:.2g} of the plan's error")
        return row

    def _rival(self, name: str, count: int) -> tuple[co.FittedSampler, float]:
        """What a rival found with the evaluations of the fitted solver, and the wall time of its fit."""

        def find() -> dict[str, Any]:
            begun = perf_counter()
            if name in _STOCK:
                stock, grid = _STOCK[name]
                found = co.FittedSampler(stock, grid(count, _STOP, _TOP), 0.0)
            elif name in GRIDS:
                found = on_grid(name, count, self.evidence, _CHUNK)
            else:
                reference, held_out, starts = begun_with(self._model(count).probe, self._grid(count))
                budget = _EVALUATIONS[count > _FEW]
                folder = self.place / "rivals" / f"{name}-{count}"
                fitted = RIVALS[name].fit(reference, held_out, starts, budget=budget, folder=folder)
                found = co.FittedSampler(fitted.sampler, fitted.sigmas, fitted.fitting)
            sampler = json.dumps(found.sampler.to_dict())
            kept = {"sampler": sampler, "sigmas": found.sigmas, "fitting": found.fitting}
            return kept | {"seconds": perf_counter() - begun}

        kept = co.estimate.Ledger(self.place / "rivals" / "found", {"draws": 64}).item(f"{name}-{count}", find)
        sampler = co.Sampler.from_dict(json.loads(str(kept["sampler"])))
        return co.FittedSampler(sampler, kept["sigmas"], float(kept["fitting"])), float(kept["seconds"])

    @cached_property
    def evidence(self) -> co.peers.Evidence:
        """What grids of the literature are made from."""
        measurement = co.estimate.EvidenceMeasurement(draws=128, progress=self.progress)
        found = co.estimate.evidence(
            self.denoiser, self.images, process=co.EDM(_STOP, _TOP), measurement=measurement,
            folder=self.place / "evidence",
        )  # fmt: skip
        return replace(found, sampler=co.DPMpp2M())

    def _grid(self, count: int) -> Array:
        sigmas = self.plan(count)[0].sigmas
        assert sigmas is not None
        return sigmas

    def plan(self, count: int, *, fitted: bool = False) -> tuple[co.Plan, float]:
        """The plan, and its wall time when it was made."""
        path = self.place / f"{'fitted' if fitted else 'plan'}-{count}.json"
        clock = path.with_suffix(".seconds")
        if not path.exists():
            begun = perf_counter()
            asked: dict[str, Any] = {"solver": "fit", "history": self.history} if fitted else {}
            found = co.codesign(self._model(count), steps=count, **asked)
            clock.write_text(f"{perf_counter() - begun:.1f}", encoding="utf-8")
            found.save(path)
        return co.Plan.load(path), float(clock.read_text(encoding="utf-8"))

    def _model(self, count: int) -> co.EstimatedModel:
        measurement = co.estimate.Measurement(
            fit_evaluations=_EVALUATIONS[count > _FEW], chunk=_CHUNK, progress=self.progress
        )
        return co.estimate.network(
            self.denoiser, self.images, sampler=co.DPMpp2M(), measurement=measurement, folder=self.place / "model"
        )

    @property
    def plan_batches(self) -> int:
        """Batch evaluations that one plan may take."""
        return co.estimate.Measurement().evaluations

    @property
    def place(self) -> Path:
        """Where results are kept."""
        found = self.folder / "fashion_solvers"
        found.mkdir(parents=True, exist_ok=True)
        return found

    @cached_property
    def denoiser(self) -> co.estimate.Denoiser:
        """The network, trained first where it is not."""
        return co.estimate.Denoiser.of(co.testbed.trained("fashion_mnist", folder=self.folder))

    @cached_property
    def images(self) -> torch.Tensor:
        """The training images."""
        return torch.as_tensor(co.testbed.fashion_mnist("train")[0])

    @cached_property
    def test(self) -> co.estimate.GridTest:
        """Unseen starts and their fine solution."""
        draws = co.estimate.Draws((1, 28, 28), self.draws, _TOP, seed=7, name="unseen", chunk=_CHUNK)
        place = self.place / f"test-{self.draws}-{self.fine_steps}"
        return co.estimate.GridTest(self.denoiser, draws, _STOP, steps=self.fine_steps, folder=place)

    @cached_property
    def measures(self) -> Mapping[str, Callable[[torch.Tensor], co.estimate.Estimate]]:
        """Distances of samples to the test images: Fréchet in features of a small classifier, and two of pixels."""
        held_out = torch.as_tensor(co.testbed.fashion_mnist("test")[0])
        classifier = trained_classifier(folder=self.folder, progress=self.progress)
        return {
            "frechet": feature_distance(classifier, held_out),
            "sliced_w2": partial(sliced_wasserstein2, others=held_out),
            "energy": partial(energy_distance, others=held_out[: self.draws]),
        }

    def _outputs(self, name: str, sampler: co.Sampler, sigmas: Array) -> torch.Tensor:
        question = {"draws": self.test.draws.describe(), "sampler": sampler.to_dict(), "sigmas": sigmas.tolist()}
        ledger = co.estimate.Ledger(self.place / "outputs" / f"{name.replace(' ', '-')}-{self.draws}", question)
        found = ledger.item("outputs", lambda: {"x": self.test.outputs(sampler, sigmas).numpy()})
        return torch.as_tensor(found["x"])

    def _row(
        self, name: str, count: int, outputs: torch.Tensor | None, spent: Mapping[str, Any],
        errors: GridErrors | None = None, plan: GridErrors | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        row: dict[str, Any] = {"evaluations": count, "solver": name}
        if errors is not None and plan is not None:
            ratio = errors.ratio(plan)
            row |= {
                "error": float(errors.mean.value), "standard_error": float(errors.mean.standard_error),
                "ratio": float(ratio.value), "ratio_error": float(ratio.standard_error),
                "ratio_of_geometric_means": float(errors.geometric_mean.value / plan.geometric_mean.value),
            }  # fmt: skip
        else:
            row |= dict.fromkeys(("error", "standard_error", "ratio", "ratio_error", "ratio_of_geometric_means"), 0.0)
        for measure, of in self.measures.items():
            value = None if outputs is None else of(outputs)
            row |= {measure: "", f"{measure}_error": ""}
            if value is not None:
                row |= {measure: float(value.value), f"{measure}_error": float(value.standard_error)}
        return row | {key: spent.get(key, "") for key in ("batches", "seconds", "numbers", "gap")}


def draw(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Mean squared distance to the fine solution against evaluations: fitted solver, plan and stock samplers."""
    import matplotlib.pyplot as plt

    from codesign_opt.results.style import BLUE, GREY, LEGEND, ORANGE

    looks = {
        "fitted": (BLUE, "o", "-", "fitted solver"),
        "plan": (ORANGE, "s", "-", "plan, 2M"),
        "dpmpp_2m on edm": (GREY, "^", "-", "2M, EDM's levels"),
        "unipc on edm": (GREY, "v", "--", "UniPC, EDM's levels"),
        "unipc on log_snr": (GREY, "D", ":", "UniPC, log-SNR"),
        "ipndm on edm": (GREY, "x", "-.", "iPNDM, EDM's levels"),
    }
    figure, ax = plt.subplots(figsize=(5.2, 3.4))
    for name, (colour, marker, line, label) in looks.items():
        own = [row for row in rows if row["solver"] == name]
        if own:
            counts, errors = [row["evaluations"] for row in own], [row["error"] for row in own]
            ax.errorbar(
                counts, errors, [row["standard_error"] for row in own],
                color=colour, marker=marker, linestyle=line, label=label,
            )  # fmt: skip
    counts = sorted({row["evaluations"] for row in rows} - {0})
    ax.set(xscale="log", yscale="log", xlabel="evaluations of the network")
    ax.set_ylabel("squared distance to the\nfine solution")
    ax.set_xticks(counts, [str(count) for count in counts])
    ax.minorticks_off()
    ax.legend(**LEGEND)
    figure.savefig(path, dpi=150, bbox_inches="tight")
    plt.close(figure)
