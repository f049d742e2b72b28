"""The co-designed plan against every schedule of the literature at equal evaluations, on every world of the testbed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import codesign_opt as co
from codesign_opt.basics.checks import choice
from codesign_opt.comparison.table import read_rows, write_rows
from codesign_opt.testbed.networks.classifier import feature_distance, trained_classifier

from .worlds import DenoiserWorld, mixture_world

__all__ = ["EVALUATIONS", "SAMPLERS", "WORLDS", "compare_peers", "fashion_world", "gaussian_worlds", "write_comparison"]

EVALUATIONS = (5, 8, 10, 15, 20)
SAMPLERS = ("euler", "heun", "dpmpp_2m")
WORLDS = ("gaussian", "mixtures", "fashion_mnist")
_RANGE = (0.002, 80.0)  # EDM's


def gaussian_worlds() -> dict[str, co.GaussianModel]:
    """Three spectra: a power law as of images, four spikes over noise, and five variances over 2.6 decades.

    >>> [model.spectrum.dimension for model in gaussian_worlds().values()]
    [64, 64, 5]
    """
    spectra = {
        "power_law": co.Spectrum.power_law(64, exponent=1.5),
        "spiked": co.Spectrum.spiked(64, [4.0, 2.0, 1.0, 0.5], 0.01),
        "spread": co.Spectrum.from_eigenvalues([4.0, 1.0, 0.25, 0.05, 0.01]),
    }
    return {name: co.GaussianModel(spectrum, co.EDM(*_RANGE)) for name, spectrum in spectra.items()}


def fashion_world(
    cache: Path, *, draws: int = 256, progress: Any = None, plan_options: dict[str, Any] | None = None
) -> DenoiserWorld:
    """The trained Fashion-MNIST network; plans are those of `network_plans`, where it has made them.

    Beside the error: the Fréchet distance to the 10,000 test images in the features of the testbed's classifier.
    """
    denoiser = co.testbed.trained("fashion_mnist", folder=cache)
    images = torch.as_tensor(co.testbed.fashion_mnist("train")[0])
    held_out = torch.as_tensor(co.testbed.fashion_mnist("test")[0])
    distance = feature_distance(trained_classifier(folder=cache, progress=progress), held_out)
    return DenoiserWorld(
        "Fashion-MNIST network", denoiser, images, co.EDM(*_RANGE), draws, chunk=32, metrics={"frechet": distance},
        plan_options=plan_options or {"draws": 64, "evaluations": 5000}, evidence_options={"draws": 128},
        folder=cache / "plans" / "draws-64", progress=progress,
    )  # fmt: skip


def compare_peers(
    cache: Path,
    *,
    worlds: Sequence[str] = WORLDS,
    samplers: Sequence[str] = SAMPLERS,
    evaluations: Sequence[int] = EVALUATIONS,
    peers: Sequence[str] | None = None,
    draws: int | None = None,
    progress: Callable[[str], None] = print,
) -> dict[str, co.Comparison]:
    """One comparison per world, by name; everything finished is kept in `cache`.

    Args:
        worlds: of "gaussian" (three spectra), "mixtures" (circle8, grid8) and "fashion_mnist".
        peers: names of schedules; all that are known unless given.
        draws: test draws of the measured worlds, instead of 20,000 for mixtures and 256 for the network.
    """
    found = {}
    for name, world in _worlds(cache, [choice(w, "worlds", WORLDS) for w in worlds], draws, progress):
        test = "" if draws is None else f"-{draws}"
        place = None if isinstance(world, co.GaussianModel) else cache / "comparison" / f"{name}{test}"
        progress(f"{name}: {len(samplers)} samplers, evaluations {', '.join(map(str, evaluations))}")
        found[name] = co.compare(world, peers, evaluations, samplers=samplers, folder=place, progress=progress)
        progress(f"{name}: plan level with the best in {found[name].share_level():.0%} of its cells")
    return found


def _worlds(
    cache: Path, wanted: Sequence[str], draws: int | None, progress: Callable[[str], None]
) -> Iterator[tuple[str, Any]]:
    """Worlds one by one: a network is loaded when its turn comes."""
    many: dict[str, Any] = {} if draws is None else {"draws": draws}
    if "gaussian" in wanted:
        yield from gaussian_worlds().items()
    if "mixtures" in wanted:
        for name in ("circle8", "grid8"):
            yield name, mixture_world(name, folder=cache / "worlds" / name, progress=progress, **many)
    if "fashion_mnist" in wanted:
        yield "fashion_mnist", fashion_world(cache, progress=progress, **many)


def write_comparison(found: dict[str, co.Comparison], folder: Path, page: Path | None = None) -> list[Path]:
    """Tables and figures of the worlds, and the page of all worlds whose tables lie in the folder.

    Cells of other samplers or evaluations that a table has already stay in it, so that several runs fill it.

    Args:
        found: name of a world -> its comparison.
        folder: of peer_comparison_WORLD.csv and, with matplotlib, peer_comparison_WORLD.png.
        page: the markdown file; comparison.md in the folder's parent unless given.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, one in found.items():
        table = folder / f"peer_comparison_{name}.csv"
        whole = _with_earlier(one, table)
        with table.open("w", newline="", encoding="utf-8") as file:
            write_rows(file, whole.rows)
        written += [table, *([path] if (path := _figure(whole, table.with_suffix(".png"))) else [])]
    page = folder.parent / "comparison.md" if page is None else page
    page.write_text(_page(_tables(folder, found), folder.name), encoding="utf-8")
    return [*written, page]


def _with_earlier(one: co.Comparison, table: Path) -> co.Comparison:
    """The comparison with the cells that a table has and it has not, sampler by sampler."""
    if not table.exists():
        return one
    with table.open(newline="", encoding="utf-8") as file:
        earlier = [row for row in read_rows(file) if (row.sampler, row.evaluations) not in one.cells]
    order = {name: place for place, name in enumerate(SAMPLERS)}
    rows = sorted([*one.rows, *earlier], key=lambda row: (order.get(row.sampler, 9), row.evaluations, row.rank))
    return replace(one, rows=tuple(rows))


def _tables(folder: Path, found: dict[str, co.Comparison]) -> dict[str, co.Comparison]:
    """Every world whose table lies in the folder, in the order of `_ABOUT`, then others just compared."""
    tables = {}
    for name in [*_ABOUT, *(name for name in found if name not in _ABOUT)]:
        path = folder / f"peer_comparison_{name}.csv"
        if path.exists():
            with path.open(newline="", encoding="utf-8") as file:
                rows = tuple(read_rows(file))
            title, measure = _ABOUT[name] if name in _ABOUT else (found[name].title, found[name].measure)
            tables[name] = co.Comparison(rows, measure, title, found[name].notes if name in found else ())
    return tables


_EXACT = "exact squared Wasserstein-2 distance to the data"
_PATHWISE = "mean squared distance of the output to a fine solution under the same noise"
_ABOUT = {
    "power_law": ("Gaussian data of 64 dimensions, eigenvalues k^-1.5", _EXACT),
    "spiked": ("Gaussian data of 64 dimensions, eigenvalues 4, 2, 1, 0.5 and 60 of 0.01", _EXACT),
    "spread": ("Gaussian data with eigenvalues 4, 1, 0.25, 0.05, 0.01", _EXACT),
    "circle8": ("Mixture of eight components on a circle, exact denoiser", _PATHWISE),
    "grid8": ("Mixture of eight components on a grid, exact denoiser", _PATHWISE),
    "fashion_mnist": ("U-Net of 0.5 M parameters trained on Fashion-MNIST", _PATHWISE),
}


def _figure(one: co.Comparison, path: Path) -> Path | None:
    try:
        import matplotlib.pyplot as plt
        from matplotlib.figure import Figure
    except ImportError:
        return None
    page = one.plot()[0].figure
    assert isinstance(page, Figure)
    page.savefig(path, dpi=150)
    plt.close(page)
    return path


_INTRODUCTION = """# Every schedule of the literature at equal evaluations

Regenerated by `python -m problems.studies peers --out docs/figures`, or world by world with `--worlds`; all rows
with their grids are in `{folder}/peer_comparison_WORLD.csv`.

Each cell is one sampler and one number of evaluations of the denoiser per image. Every schedule takes the largest
number of steps that these pay for (Heun: K steps take 2 K - 1). `plan` is the co-designed grid of
`co.codesign(model, steps=K)`. Entries are errors over the smallest error of the cell, with the standard error of the
difference to it from the same draws; bold is the best, or within one standard error of it (within 1e-4 where errors
are exact).

Measures: on Gaussian data the exact squared Wasserstein-2 distance of the output to the data, without noise. On the
mixtures (exact denoisers, 20,000 draws) and the network (256 draws) the mean squared distance of the output to a fine
solution of the probability-flow ODE under the same start, on draws that nothing was planned on. These errors are heavy
tailed: the CSV has geometric means beside, and secondary measures of the samples (negative log likelihood under the
true mixture and sliced Wasserstein-2 to as many data; for the network the Fréchet distance to the test images in the 64
features of a small classifier trained here, which is not FID).

Two things to know when reading. Schedules of the literature run over the whole range of noise levels, down to 0.002, as
their authors define them; the plan also chooses where to stop. And the local errors of DPM-Solver++(2M) have both
signs: on Gaussian data, whose exact error a plan descends, its nodes make the errors of the bands cancel, on five
eigenvalues with eight nodes to rounding. Such ratios are the best case of a spectrum known exactly; those on mixtures
and on the network, where a plan descends measured errors and is tested on other draws, are what to expect.
"""


def _page(found: dict[str, co.Comparison], folder: str) -> str:
    rows = [row for one in found.values() for row in one.rows if row.peer == "plan"]
    level = sum(row.level for row in rows)
    parts = [_INTRODUCTION.format(folder=folder)]
    parts.append(
        f"The plan is best or within one standard error of the best in {level} of {len(rows)} cells "
        f"({level / len(rows):.0%}).\n"
    )
    for name, one in found.items():
        parts.append(f"## {name}\n\n{one.title}. {one.measure[:1].upper()}{one.measure[1:]}.\n\n{one.markdown()}\n")
        parts += [f"![{name}]({folder}/peer_comparison_{name}.png)\n", _losses(one), _secondary(one)]
        parts += [f"- {note}\n" for note in one.notes]
    return "\n".join(part for part in parts if part)


_LOST = """Cells where the plan is not level with the best. A plan's descent ends in a local minimum: it starts from the
program's grid and from EDM's and log-SNR's families, and a schedule outside these can lie in the basin of a better one.

"""


def _losses(one: co.Comparison) -> str:
    """Where the plan is beaten, by what and by how much."""
    lines = [
        f"- {own.sampler}, {own.evaluations} evaluations: {best.peer} is ahead by {own.excess / best.error:.2%} "
        f"± {own.excess_error / best.error:.2%}."
        for own, best in one.losses()
    ]
    return _LOST + "\n".join(lines) + "\n" if lines else ""


def _secondary(one: co.Comparison) -> str:
    """Per secondary measure: the plan's value, the best other schedule's, cell by cell."""
    names = list(one.rows[0].others) if one.rows else []
    parts = []
    for name in names:
        lines = [
            f"| {name} | " + " | ".join(f"{s} {n}" for s, n in one.cells) + " |",
            "|---|" + "---:|" * len(one.cells),
        ]
        for label, pick in (("plan", _plan_of), ("best other schedule", _best_other)):
            lines.append(f"| {label} | " + " | ".join(pick(one, cell, name) for cell in one.cells) + " |")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _plan_of(one: co.Comparison, cell: tuple[str, int], name: str) -> str:
    row = one.row("plan", *cell)
    return "–" if row is None else _value(*row.others[name])


def _best_other(one: co.Comparison, cell: tuple[str, int], name: str) -> str:
    others = [row for row in one.cell(*cell) if row.peer != "plan"]
    if not others:
        return "–"
    best = min(others, key=lambda row: row.others[name][0])
    return f"{_value(*best.others[name])} ({best.peer})"


def _value(value: float, error: float) -> str:
    return f"{value:.3g} ± {error:.1g}"
