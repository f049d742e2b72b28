"""Plans for the trained Fashion-MNIST network, held against the usual grids on draws that no plan has seen."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

import codesign_opt as co
from codesign_opt.basics.checks import Array
from codesign_opt.estimate.draws.statistics import squares
from codesign_opt.estimate.steps.grid_descent import usual_grids
from codesign_opt.estimate.steps.grid_error import GridErrors, residual

__all__ = ["SAMPLERS", "STEPS", "Descent", "network_limit", "network_plans", "read_rows", "write_rows", "write_table"]

SAMPLERS = {"euler": co.Euler(), "heun": co.Heun(), "dpmpp_2m": co.DPMpp2M()}
STEPS = (5, 8, 12, 18, 30)
_STOP, _TOP, _TEST = 0.002, 80.0, 1024
_RULES = co.estimate.DescentRules(patience=5)  # as the plan's own descent
_DRAWS = 64  # of a plan's descent, the default of `estimate.network`


def network_plans(
    folder: str | Path,
    *,
    samplers: Sequence[str] = tuple(SAMPLERS),
    steps: Sequence[int] = STEPS,
    draws: int = _DRAWS,
    evaluations: int = 5000,
    progress: Callable[[str], None] = print,
) -> list[dict[str, Any]]:
    """One row for every sampler, number of steps and grid: the plan, EDM's rho = 7 and log-SNR.

    Errors are mean squared distances of the output to a fine solution (128 steps) under the same noise, on
    1,024 draws that are neither descended nor selected on: one draw in some hundred lies where paths part, and
    its error is a hundred times the others'. Finished parts are kept in `folder`.
    """
    place, denoiser = Path(folder), co.testbed.trained("fashion_mnist")
    images = torch.as_tensor(co.testbed.fashion_mnist("train")[0])
    rows = []
    for name in samplers:
        sampler, test = SAMPLERS[name], _Test(denoiser, SAMPLERS[name], place / f"test-{_TEST}")
        measurement = co.estimate.Measurement(draws=draws, evaluations=evaluations, progress=progress)
        kept = _place(place, draws) / name
        model = co.estimate.network(denoiser, images, sampler=sampler, measurement=measurement, folder=kept)
        for count in steps:
            record = _kept_plans(place, draws, evaluations).item(
                f"{name}-{count}",
                lambda count=count, model=model: _planned(model, count, progress),  # type: ignore[misc]
            )
            families = {"edm": co.edm_grid, "log_snr": co.log_snr_grid}
            grids = {"plan": record["sigmas"], **{key: make(count, _STOP, _TOP) for key, make in families.items()}}
            errors = {key: test.errors(grid) for key, grid in grids.items()}
            for key, found in errors.items():
                ratio = found.ratio(errors["edm"])
                rows.append({
                    "sampler": name, "steps": count, "grid": key,
                    "error": float(found.mean.value), "standard_error": float(found.mean.standard_error),
                    "ratio_to_edm": float(ratio.value), "ratio_standard_error": float(ratio.standard_error),
                    "ratio_of_geometric_means": float(found.geometric_mean.value / errors["edm"].geometric_mean.value),
                    "sigmas": " ".join(f"{sigma:.5g}" for sigma in grids[key]),
                })  # fmt: skip
                progress(f"{name} {count} {key}: {found!r}, {ratio!r} of EDM")
    return rows


@dataclass(frozen=True)
class Descent:
    """How far direct descent may go.

    Args:
        draws: to descend on, and as many held out to choose by.
        times: evaluations, in those of a plan.
        tries: starts that share them: the plan, and the best of the usual grids.
    """

    draws: int = 64
    times: int = 20
    tries: int = 2


def network_limit(
    folder: str | Path,
    *,
    samplers: Sequence[str] = tuple(SAMPLERS),
    steps: Sequence[int] = STEPS,
    table: str | Path | None = None,
    descent: Descent = Descent(),
    evaluations: int = 5000,
    progress: Callable[[str], None] = print,
) -> Iterator[dict[str, Any]]:
    """The best grid that direct descent finds with many times the evaluations of a plan, and the plan's excess over it.

    Eight usual grids are screened; the plan and the best of them are descended on draws that the plan has not seen,
    each until it converges or its share of the evaluations is spent. The best on held-out draws is compared with the
    plan on the test draws of `network_plans`. One row at a time.

    Args:
        folder: of finished parts.
        samplers, steps: which cells.
        table: network_plans.csv, read where `folder` holds no plan of its own.
        descent: draws, starts and evaluations.
        evaluations: of a plan.
        progress: called with a line per descent.
    """
    place, denoiser = Path(folder), co.testbed.trained("fashion_mnist")
    plans = _Plans(place, evaluations, table)
    share = descent.times * evaluations // descent.tries
    for name in samplers:
        test = _Test(denoiser, SAMPLERS[name], place / f"test-{_TEST}")
        own, held_out = (
            co.estimate.Draws((1, 28, 28), descent.draws, _TOP, 2, which, chunk=32) for which in ("descent", "held out")
        )
        kept = co.estimate.Ledger(place / "limit" / "fine", {"draws": [own.describe(), held_out.describe()]})
        reference = _KeptReference(co.estimate.Denoiser.of(denoiser), SAMPLERS[name], own, _STOP, ledger=kept)
        for count in steps:
            plan, place_of = plans.sigmas(name, count), place / "limit" / f"{name}-{count}"
            others = _screened(reference, usual_grids(count, _TOP), place_of / "screened")
            found = []
            for start in [plan, *others[: descent.tries - 1]]:
                options: dict[str, Any] = {"rules": _RULES, "budget": share, "folder": place_of / _name(start)}
                found.append(co.estimate.descend_grid(reference, held_out, [start], **options))
                progress(f"{name} {count} start {len(found)}: {found[-1]!r}")
            row = {"sampler": name, "steps": count, **_limit_of(plan, found, test)}
            yield row
            progress(f"{name} {count}: plan over limit {row['plan_over_limit']:.4g} +- {row['standard_error']:.2g}")


def _limit_of(plan: Array, found: list[Any], test: _Test) -> dict[str, Any]:
    """The plan against the best descent on held-out draws, both on the test draws."""
    best = min(found, key=lambda result: float(result.held_out.mean.value))
    of_plan, of_best = test.errors(plan), test.errors(best.sigmas)
    ratio = of_plan.ratio(of_best)
    return {
        "plan_over_limit": float(ratio.value), "standard_error": float(ratio.standard_error),
        "ratio_of_geometric_means": float(of_plan.geometric_mean.value / of_best.geometric_mean.value),
        "error_of_limit": float(of_best.mean.value), "evaluations": sum(result.batches for result in found),
        "from": ["plan", "usual"][int(found.index(best) > 0)],
        "stopped": "; ".join(result.reason for result in found),
        "sigmas": " ".join(f"{sigma:.5g}" for sigma in best.sigmas),
    }  # fmt: skip


@dataclass(frozen=True, eq=False)
class _KeptReference(co.estimate.Reference):
    """A fine solution whose outputs are kept for all descents, since it depends on the draws alone."""

    ledger: co.estimate.Ledger = field(default_factory=lambda: co.estimate.Ledger(None, {}))

    def terminal_states(self, chunk: int) -> torch.Tensor:
        def compute() -> dict[str, Array]:
            return {"end": self.path().states(chunk)[1].numpy()}

        return torch.as_tensor(self.ledger.item(f"{self.draws.name}{chunk}", compute)["end"])


def _screened(reference: co.estimate.Reference, grids: list[Array], folder: Path) -> list[Array]:
    """Grids in the order of their errors on the first chunk of draws."""
    ledger = co.estimate.Ledger(folder, {"draws": reference.draws.describe(), "sampler": reference.sampler.to_dict()})

    def error(grid: Array) -> float:
        def compute() -> dict[str, Array]:
            return {"errors": squares(residual(reference, grid, 0, reference.terminal_states(0))).numpy()}

        return float(ledger.item(_name(grid), compute)["errors"].mean())

    return sorted(grids, key=error)


def _place(place: Path, draws: int) -> Path:
    """Where models and plans of so many draws are kept; `peer_comparison` reads them there."""
    return place / f"draws-{draws}"


def _kept_plans(place: Path, draws: int, evaluations: int) -> co.estimate.Ledger:
    return co.estimate.Ledger(_place(place, draws) / "plans", {"draws": draws, "evaluations": evaluations})


@dataclass(frozen=True)
class _Plans:
    """Grids of the plans: those made here, else those of a published table."""

    place: Path
    evaluations: int
    table: str | Path | None

    def sigmas(self, sampler: str, count: int) -> Array:
        kept = _kept_plans(self.place, _DRAWS, self.evaluations)
        if (plan := kept.get(f"{sampler}-{count}")) is not None:
            return np.asarray(plan["sigmas"])
        if self.table is not None and Path(self.table).exists():
            with Path(self.table).open(encoding="utf-8") as file:
                for row in csv.DictReader(file):
                    if (row["sampler"], int(row["steps"]), row["grid"]) == (sampler, count, "plan"):
                        return np.array([float(word) for word in row["sigmas"].split()])
        raise ValueError(f"{sampler} with {count} steps has no plan yet; run `plans` first.")


def _planned(model: Any, count: int, progress: Callable[[str], None]) -> dict[str, Any]:
    before = model.probe.calls
    plan = co.codesign(model, steps=count, points=8, levels=100)
    progress(f"{model.sampler.name} {count}: {'; '.join(plan.notes)}")
    spent = model.probe.calls - before + model.estimation.model_evaluations
    return {"sigmas": plan.sigmas, "evaluations": np.array(spent)}


class _Test:
    """Fine solutions of the test draws, kept on disk, and errors of grids against them."""

    def __init__(self, denoiser: Any, sampler: Any, folder: Path) -> None:
        draws = co.estimate.Draws((1, 28, 28), _TEST, _TOP, 1, "test", chunk=32)
        self.reference = co.estimate.Reference(denoiser, sampler, draws, _STOP, steps=64)
        ledger = co.estimate.Ledger(folder, {"solution": "ODE", "draws": draws.describe()})
        self.ledger = co.estimate.Ledger(folder / sampler.name, {"draws": draws.describe()})
        self.ends = [
            torch.as_tensor(ledger.item(f"chunk{c}", lambda c=c: {"end": self._end(c)})["end"])  # type: ignore[misc]
            for c in range(draws.chunks)
        ]

    @torch.no_grad()
    def _end(self, chunk: int) -> Array:
        return self.reference.terminal_states(chunk).numpy()

    def errors(self, sigmas: Array) -> GridErrors:
        return GridErrors(self.ledger.item(_name(sigmas), lambda: {"errors": self._measured(sigmas)})["errors"])

    @torch.no_grad()
    def _measured(self, sigmas: Array) -> Array:
        parts = [squares(residual(self.reference, sigmas, c, end)).numpy() for c, end in enumerate(self.ends)]
        return np.concatenate(parts)


def _name(sigmas: Array) -> str:
    return hashlib.blake2b(np.round(sigmas, 12).tobytes(), digest_size=8).hexdigest()


def write_table(rows: list[dict[str, Any]], folder: str | Path) -> None:
    """network_plans.csv and, with matplotlib, network_plans.png: ratio to EDM against the number of steps."""
    write_rows(rows, Path(folder) / "network_plans.csv")
    _figure(rows, Path(folder) / "network_plans.png")


def write_rows(rows: list[dict[str, Any]], path: Path) -> Path:
    """Rows as CSV, numbers in six digits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    return path


def read_rows(path: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Rows of a table by sampler and number of steps; empty where there is none."""
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        return {(row["sampler"], row["steps"]): dict(row) for row in csv.DictReader(file)}


def _figure(rows: list[dict[str, Any]], path: Path) -> None:
    import matplotlib.pyplot as plt

    from codesign_opt.results.style import BLUE, GREY, LEGEND, ORANGE

    names, counts = (list(dict.fromkeys(row[key] for row in rows)) for key in ("sampler", "steps"))
    figure, axes = plt.subplots(1, len(names), figsize=(3.4 * len(names), 3.2), sharey=True, squeeze=False)
    for ax, name in zip(axes[0], names, strict=True):
        for key, marker, colour in (("edm", "^", GREY), ("log_snr", "s", ORANGE), ("plan", "o", BLUE)):
            own = [row for row in rows if row["sampler"] == name and row["grid"] == key]
            ax.errorbar(
                [row["steps"] for row in own], [row["ratio_to_edm"] for row in own],
                [row["ratio_standard_error"] for row in own], marker=marker, color=colour, label=key.replace("_", "-"),
            )  # fmt: skip
        ax.set(title=name, xlabel="steps", xscale="log", yscale="log")
        ax.set_xticks(counts, [str(count) for count in counts])
        ax.minorticks_off()
    axes[0][0].set_ylabel("squared distance to the\nfine solution, over EDM's")
    axes[0][0].legend(**LEGEND)
    figure.savefig(path, dpi=150, bbox_inches="tight")
    plt.close(figure)
