"""Plans for the trained Fashion-MNIST network, held against the usual grids on draws that no plan has seen."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .._validate import Array
from ..estimate.denoiser import Denoiser
from ..estimate.grid_descent import descend_grid, usual_grids
from ..estimate.grid_error import GridErrors, residual
from ..estimate.ledger import Ledger
from ..estimate.pipeline import network
from ..estimate.reference import Draws, Reference
from ..estimate.sensitivity import squares
from ..grids import edm_grid, log_snr_grid
from ..outer import codesign
from ..samplers import DPMpp2M, Euler, Heun
from .fashion_mnist import fashion_mnist
from .networks import trained

__all__ = ["SAMPLERS", "STEPS", "network_limit", "network_plans", "write_rows", "write_table"]

SAMPLERS = {"euler": Euler(), "heun": Heun(), "dpmpp_2m": DPMpp2M()}
STEPS = (5, 8, 12, 18, 30)
_STOP, _TOP, _TEST = 0.002, 80.0, 1024


def network_plans(
    folder: str | Path,
    *,
    samplers: Sequence[str] = tuple(SAMPLERS),
    steps: Sequence[int] = STEPS,
    draws: int = 32,
    evaluations: int = 5000,
    progress: Callable[[str], None] = print,
) -> list[dict[str, Any]]:
    """One row for every sampler, number of steps and grid: the plan, EDM's rho = 7 and log-SNR.

    Errors are mean squared distances of the output to a fine solution (128 steps) under the same noise, on
    1,024 draws that are neither descended nor selected on: one draw in some hundred lies where paths part, and
    its error is a hundred times the others'. Finished parts are kept in `folder`.
    """
    place, denoiser = Path(folder), trained("fashion_mnist")
    images = torch.as_tensor(fashion_mnist("train")[0])
    rows = []
    for name in samplers:
        sampler, test = SAMPLERS[name], _Test(denoiser, SAMPLERS[name], place / f"test-{_TEST}")
        options: dict[str, Any] = {"draws": draws, "evaluations": evaluations, "folder": place / name}
        model = network(denoiser, images, sampler=sampler, progress=progress, **options)
        for count in steps:
            record = Ledger(place / "plans", {"draws": draws, "evaluations": evaluations}).item(
                f"{name}-{count}",
                lambda count=count, model=model: _planned(model, count, progress),  # type: ignore[misc]
            )
            families = {"edm": edm_grid, "log_snr": log_snr_grid}
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


def network_limit(
    folder: str | Path,
    *,
    samplers: Sequence[str] = tuple(SAMPLERS),
    steps: Sequence[int] = STEPS,
    draws: int = 64,
    times: int = 20,
    evaluations: int = 5000,
    progress: Callable[[str], None] = print,
) -> list[dict[str, Any]]:
    """The best grid that direct descent finds with `times` the evaluations of a plan, and the plan's excess over it.

    Descents from the plan and from the usual families at four stopping points, each on more draws than the
    plan had and until it converges or its share of the evaluations is spent; the best on held-out draws is
    compared with the plan on the test draws of `network_plans`.
    """
    place, denoiser, rows = Path(folder), trained("fashion_mnist"), []
    kept = Ledger(place / "plans", {"draws": 32, "evaluations": evaluations})
    for name in samplers:
        test = _Test(denoiser, SAMPLERS[name], place / f"test-{_TEST}")
        own = [Draws((1, 28, 28), draws, _TOP, 2, which) for which in ("descent", "held out")]
        reference = Reference(Denoiser.of(denoiser), SAMPLERS[name], own[0], _STOP)
        for count in steps:
            plan = kept.get(f"{name}-{count}")
            if plan is None:
                raise ValueError(f"{name} with {count} steps has no plan yet; run `plans` first.")
            starts = [plan["sigmas"], *usual_grids(count, _TOP)]
            share = times * evaluations // len(starts)
            found = []
            for number, start in enumerate(starts):
                where = place / "limit" / f"{name}-{count}-{number}"
                found.append(descend_grid(reference, own[1], [start], budget=share, folder=where))
                progress(f"{name} {count} start {number}: {found[-1]!r}")
            best = min(found, key=lambda result: float(result.held_out.mean.value))
            ratio = test.errors(plan["sigmas"]).ratio(test.errors(best.sigmas))
            rows.append({
                "sampler": name, "steps": count, "plan_over_limit": float(ratio.value),
                "standard_error": float(ratio.standard_error), "evaluations": sum(result.batches for result in found),
                "sigmas": " ".join(f"{sigma:.5g}" for sigma in best.sigmas),
            })  # fmt: skip
            progress(f"{name} {count}: plan over limit {ratio!r}")
    return rows


def _planned(model: Any, count: int, progress: Callable[[str], None]) -> dict[str, Any]:
    before = model.probe.calls
    plan = codesign(model, steps=count, points=8, levels=100)
    progress(f"{model.sampler.name} {count}: {'; '.join(plan.notes)}")
    spent = model.probe.calls - before + sum(model.provenance["evaluations"].values())
    return {"sigmas": plan.sigmas, "evaluations": np.array(spent)}


class _Test:
    """Fine solutions of the test draws, kept on disk, and errors of grids against them."""

    def __init__(self, denoiser: Any, sampler: Any, folder: Path) -> None:
        draws = Draws((1, 28, 28), _TEST, _TOP, 1, "test", chunk=32)
        self.reference = Reference(denoiser, sampler, draws, _STOP, steps=128)
        ledger = Ledger(folder, {"solution": "ODE", "draws": draws.describe()})
        self.ledger = Ledger(folder / sampler.name, {"draws": draws.describe()})
        self.ends = [
            torch.as_tensor(ledger.item(f"chunk{c}", lambda c=c: {"end": self._end(c)})["end"])  # type: ignore[misc]
            for c in range(draws.chunks)
        ]

    @torch.no_grad()
    def _end(self, chunk: int) -> Array:
        return self.reference.terminal_states(chunk).numpy()

    def errors(self, sigmas: Array) -> GridErrors:
        name = hashlib.blake2b(np.round(sigmas, 12).tobytes(), digest_size=8).hexdigest()
        return GridErrors(self.ledger.item(name, lambda: {"errors": self._measured(sigmas)})["errors"])

    @torch.no_grad()
    def _measured(self, sigmas: Array) -> Array:
        parts = [squares(residual(self.reference, sigmas, c, end)).numpy() for c, end in enumerate(self.ends)]
        return np.concatenate(parts)


def write_table(rows: list[dict[str, Any]], folder: str | Path) -> None:
    """network_plans.csv and, with matplotlib, network_plans.png: ratio to EDM against the number of steps."""
    write_rows(rows, Path(folder) / "network_plans.csv")
    _figure(rows, Path(folder) / "network_plans.png")


def write_rows(rows: list[dict[str, Any]], path: Path) -> None:
    """Rows as CSV, numbers in six digits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)


def _figure(rows: list[dict[str, Any]], path: Path) -> None:
    import matplotlib.pyplot as plt

    from ..plot_style import BLUE, GREY, LEGEND, ORANGE

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
