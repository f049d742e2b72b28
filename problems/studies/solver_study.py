"""Solvers of one denoiser at equal evaluations: the plan's, the one fitted from it on, and what the literature has."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from time import process_time
from typing import Any

import torch

import codesign_opt as co
from codesign_opt.basics.checks import Array
from codesign_opt.estimate.draws.statistics import squares
from codesign_opt.estimate.steps.grid_descent import usual_grids
from codesign_opt.estimate.steps.grid_error import GridErrors

from .worlds import DenoiserWorld

__all__ = ["BUDGETS", "GRIDS", "METHODS", "PLAIN", "RIVALS", "STOCK", "SolverStudy", "draw"]

RIVALS: dict[str, co.estimate.Rival] = {
    "s4s": co.estimate.S4S(),
    "s4s_alt": co.estimate.S4S(rounds=4),
    "bespoke": co.estimate.Bespoke(),
    "ld3": co.estimate.LD3(),
    "oss": co.estimate.OptimalSteps(),
    "pas": co.estimate.PAS(),
}
GRIDS: dict[str, co.peers.Schedule] = {
    "dmn": co.peers.OptimizedSteps(),
    "entropic": co.peers.EntropicTime(rescaled=False),
    "entropic_rescaled": co.peers.EntropicTime(),
    "gits": co.peers.GITS(),
    "ays": co.peers.AlignYourSteps(),
}
STOCK: dict[str, tuple[co.Sampler, Callable[..., Array]]] = {  # what users take without a plan
    "edm": (co.DPMpp2M(), co.edm_grid),
    "log_snr": (co.DPMpp2M(), co.log_snr_grid),
    "unipc on edm": (co.UniPC(), co.edm_grid),
    "unipc on log_snr": (co.UniPC(), co.log_snr_grid),
    "ipndm on edm": (co.IPNDM(), co.edm_grid),
}
PLAIN = ("edm", "log_snr")  # the same sampler as the plan
METHODS = (*RIVALS, *GRIDS, *STOCK)
BUDGETS = (5_000, 12_000)
_FEW = 8  # steps of the first budget at most


@dataclass(frozen=True, eq=False)
class _Entrant:
    """A solver on its levels, what finding it took, and of a fit its numbers and its largest gap."""

    found: co.FittedSampler
    seconds: float
    iterations: int = 0
    numbers: int = 0
    gap: float = 0.0

    def packed(self) -> dict[str, Any]:
        sampler = json.dumps(self.found.sampler.to_dict())
        kept = {"sampler": sampler, "sigmas": self.found.sigmas, "fitting": self.found.fitting}
        return {**kept, "seconds": self.seconds, "iterations": self.iterations}

    @classmethod
    def unpacked(cls, kept: Mapping[str, Any]) -> _Entrant:
        sampler = co.Sampler.from_dict(json.loads(str(kept["sampler"])))
        found = co.FittedSampler(sampler, kept["sigmas"], float(kept["fitting"]))
        return cls(found, float(kept["seconds"]), int(kept["iterations"]))


@dataclass(frozen=True, eq=False)
class SolverStudy:
    """Rows of a comparison of solvers on one denoiser; everything finished is kept in the worlds' folders.

    Every method gets the same draws, fine solution, starts (the plan's grid and two usual ones) and calls of the
    denoiser as `codesign(..., solver="fit")`; grids run DPM-Solver++(2M). Errors are squared distances to a fine
    solution on draws that nobody has seen, "ratio" the mean over that of the plan for DPM-Solver++(2M); beside them
    the world's measures of the samples, and those of the fine solution: the floor below which only the network errs.

    Args:
        label: of the denoiser, in the rows.
        world_of: the world with so many batches for a fit; all of them have one denoiser and one test.
        budgets: batches for a fit of at most 8 steps, and of more.
        few_draws: the first so many draws of the test alone, without measures of samples, for methods not in `whole`;
            None for all.
        whole: methods that run from all draws whatever `few_draws` says, beside the plan and the fitted solver.
        history: outputs that a step of the fitted solver takes.
        progress: called with a line per result.
    """

    label: str
    world_of: Callable[[int], DenoiserWorld]
    budgets: Sequence[int] = BUDGETS
    few_draws: int | None = None
    whole: Sequence[str] = ()
    history: int = 3
    progress: Callable[[str], None] = print
    _worlds: dict[int, DenoiserWorld] = field(default_factory=dict, repr=False)

    def rows(self, steps: int, methods: Sequence[str]) -> list[dict[str, Any]]:
        """The fine solution, the plan, the fitted solver, then the others, all of so many evaluations."""
        cell = _Cell(self, self.world(steps), steps)
        return [cell.floor(), cell.row("plan"), cell.row("fitted"), *(cell.row(name) for name in methods)]

    def budget(self, steps: int) -> int:
        """Batches for a fit of so many steps."""
        return self.budgets[steps > _FEW]

    def world(self, steps: int) -> DenoiserWorld:
        """The world of that budget."""
        budget = self.budget(steps)
        if budget not in self._worlds:
            self._worlds[budget] = self.world_of(budget)
        return self._worlds[budget]


@dataclass(frozen=True, eq=False)
class _Cell:
    """One denoiser and one number of evaluations."""

    study: SolverStudy
    world: DenoiserWorld
    steps: int

    def row(self, name: str) -> dict[str, Any]:
        """Errors of a method over those of the plan, what it took, and the measures of its samples."""
        entrant = self.entrant(name)
        measured = self._measured(name, entrant)
        errors = GridErrors(measured["errors"])
        base = GridErrors(self.plan_errors[: errors.errors.size])
        ratio = errors.ratio(base)
        row = self._named(name) | {
            "error": float(errors.mean.value), "error_se": float(errors.mean.standard_error),
            "ratio": float(ratio.value), "ratio_se": float(ratio.standard_error),
            "ratio_of_geometric_means": float(errors.geometric_mean.value / base.geometric_mean.value),
            "fitting": entrant.found.fitting, "iterations": entrant.iterations, "seconds": round(entrant.seconds, 1),
            "numbers": entrant.numbers or "", "gap": entrant.gap or "",
        }  # fmt: skip
        for metric in self.world.metrics:
            value, error = (float(part) for part in measured[metric]) if metric in measured else ("", "")
            row |= {metric: value, f"{metric}_se": error}
        self.study.progress(
            f"{self.study.label} {self.steps} {name}: {row['ratio']:.3g} +- {row['ratio_se']:.2g} of the plan's error"
        )
        return row

    def floor(self) -> dict[str, Any]:
        """The measures of the fine solution's own samples."""
        outputs = torch.cat(self.world.test(0).ends(co.Euler()))
        row = self._named("fine") | dict.fromkeys(
            ("error", "error_se", "ratio", "ratio_se", "ratio_of_geometric_means", "fitting", "iterations", "seconds"),
            0,
        )
        row |= {"numbers": "", "gap": ""}
        for name, metric in self.world.metrics.items():
            kept = self._ledger().item(f"floor/{name}", lambda metric=metric: _packed(metric(outputs)))  # type: ignore[misc]
            row[name], row[f"{name}_se"] = float(kept["value"]), float(kept["error"])
        return row

    @cached_property
    def plan_errors(self) -> Array:
        """The plan's squared errors of all test draws."""
        return self._measured("plan", self.entrant("plan"))["errors"]

    def entrant(self, name: str) -> _Entrant:
        """What a method found, and what that took."""
        if name in ("plan", "fitted"):
            return self._planned(fitted=name == "fitted")

        def timed() -> dict[str, Any]:
            begun = process_time()
            found, iterations = self._found(name)
            return _Entrant(found, process_time() - begun, iterations).packed()

        return _Entrant.unpacked(self._ledger().item(f"{name.replace(' ', '-')}-{self.steps}", timed))

    def _planned(self, *, fitted: bool) -> _Entrant:
        path = self._folder / f"{'fitted' if fitted else 'plan'}-{self.steps}.json"
        clock = path.with_suffix(".seconds")
        if not path.exists():
            begun = process_time()
            asked: dict[str, Any] = {"solver": "fit", "history": self.study.history} if fitted else {}
            plan = co.codesign(self.world.model(co.DPMpp2M()), steps=self.steps, **asked)
            clock.write_text(f"{process_time() - begun:.1f}", encoding="utf-8")
            plan.save(path)
        plan, seconds = co.Plan.load(path), float(clock.read_text(encoding="utf-8"))
        assert plan.sigmas is not None
        if plan.solver is None:
            batches = co.estimate.Measurement(**self.world.plan_options).evaluations
            return _Entrant(co.FittedSampler(co.DPMpp2M(), plan.sigmas, batches), seconds)
        fit = plan.fits["solver"]
        found = co.FittedSampler(plan.solver, plan.solver.levels, fit["evaluations"])
        return _Entrant(found, seconds, 0, int(fit["numbers"]), float(fit["gap"]))

    def _found(self, name: str) -> tuple[co.FittedSampler, int]:
        sampler, plan = co.DPMpp2M(), self.entrant("plan").found.sigmas
        if name in STOCK:
            stock, grid = STOCK[name]
            process = self.world.process
            return co.FittedSampler(stock, grid(self.steps, process.sigma_min, process.sigma_max)), 0
        if name in GRIDS:
            evidence = self.world.evidence(sampler)
            sigmas = GRIDS[name].sigmas(self.steps, evidence)
            needs = {"trajectories" if part == "trajectories" else "paths" for part in GRIDS[name].needs}
            calls = sum(evidence.provenance["evaluations"][part] for part in needs)
            return co.FittedSampler(sampler, sigmas, calls / self.world.plan_options.get("chunk", 64)), 0
        probe = self.world.model(sampler).probe
        draws, positive = probe.reference.draws, plan[plan > 0]
        reference = probe.reference.with_draws(replace(draws, count=2 * draws.count, name="fit"))
        starts = [plan, *usual_grids(plan.size - 1, float(positive[0]), stops=[float(positive[-1])])]
        budget, folder = self.study.budget(self.steps), self._folder / "fits" / f"{name}-{self.steps}"
        found = RIVALS[name].fit(reference, probe.held_out, starts, budget=budget, folder=folder)
        return co.FittedSampler(found.sampler, found.sigmas, found.fitting), found.iterations

    def _measured(self, name: str, entrant: _Entrant) -> dict[str, Any]:
        sampler, sigmas, few = entrant.found.sampler, entrant.found.sigmas, self.study.few_draws
        key = f"errors/{sampler.tag}-{blake2b(sigmas.tobytes(), digest_size=8).hexdigest()}"
        if few is None or name in ("plan", "fitted", *self.study.whole):
            found = self._ledger().item(key, lambda: self.world.measured(sampler, sigmas, 0))
            if set(self.world.metrics) <= set(found):
                return found
            key = f"{key}-{'-'.join(sorted(self.world.metrics))}"  # kept before a measure was added
            return self._ledger().item(key, lambda: self.world.measured(sampler, sigmas, 0))

        def errors() -> dict[str, Any]:
            test = self.world.test(0)
            part = test.on(replace(test.draws, count=few))
            ends = torch.cat(test.ends(co.Euler()))[:few]
            return {"errors": squares(part.outputs(sampler, sigmas) - ends).numpy()}

        return self._ledger().item(f"{key}-{few}", errors)

    def _named(self, method: str) -> dict[str, Any]:
        budget = self.study.budget(self.steps)
        return {"world": self.study.label, "steps": self.steps, "method": method, "budget": budget}

    def _ledger(self) -> co.estimate.Ledger:
        question = {"budget": self.study.budget(self.steps), "draws": self.world.draws}
        return co.estimate.Ledger(self._folder / f"cells-{question['budget']}", question)

    @property
    def _folder(self) -> Path:
        assert self.world.folder is not None
        self.world.folder.mkdir(parents=True, exist_ok=True)
        return self.world.folder


def _packed(value: co.estimate.Estimate) -> dict[str, Any]:
    return {"value": value.value, "error": value.standard_error}


def draw(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Mean squared distance to the fine solution against evaluations: fitted solver, plan and stock samplers."""
    import matplotlib.pyplot as plt

    from codesign_opt.results.style import BLUE, GREY, LEGEND, ORANGE

    looks = {
        "fitted": (BLUE, "o", "-", "fitted solver"),
        "plan": (ORANGE, "s", "-", "plan, 2M"),
        "edm": (GREY, "^", "-", "2M, EDM's levels"),
        "unipc on edm": (GREY, "v", "--", "UniPC, EDM's levels"),
        "unipc on log_snr": (GREY, "D", ":", "UniPC, log-SNR"),
        "ipndm on edm": (GREY, "x", "-.", "iPNDM, EDM's levels"),
    }
    figure, ax = plt.subplots(figsize=(5.2, 3.4))
    for name, (colour, marker, line, label) in looks.items():
        own = [row for row in rows if row["method"] == name]
        if own:
            counts, errors = [row["steps"] for row in own], [row["error"] for row in own]
            ax.errorbar(
                counts, errors, [row["error_se"] for row in own],
                color=colour, marker=marker, linestyle=line, label=label,
            )  # fmt: skip
    counts = sorted({row["steps"] for row in rows})
    ax.set(xscale="log", yscale="log", xlabel="evaluations of the network")
    ax.set_ylabel("squared distance to the\nfine solution")
    ax.set_xticks(counts, [str(count) for count in counts])
    ax.minorticks_off()
    ax.legend(**LEGEND)
    figure.savefig(path, dpi=150, bbox_inches="tight")
    plt.close(figure)
