"""Run the examples of README.md and the tutorials and write their outputs and figures into place.

The tables of docs/networks.md are those of the installed diffusers.

python docs/regenerate.py           rewrite README.md, docs/figures and the outputs in tutorials/
python docs/regenerate.py --check   exit 1 where an output is not what the code prints today

The tables of network plans come from docs/figures/network_plans.csv and network_limit.csv, which `python -m
problems.studies plans --out docs/figures` and `... limit --out docs/figures` measure (some hours on two cores);
those of docs/validation.md from `... gaussian_worlds`, `... validation_cases`, `... ablation` and `... stopping_law`
(minutes);
those of solvers from `... solvers`, `... fashion` and `... rivals` (minutes to hours); those of pilots and of measured
training laws from `... pilots` and `... measured` (some minutes each).
"""

from __future__ import annotations

import contextlib
import csv
import functools
import importlib.util
import inspect
import io
import itertools
import math
import os
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("MPLBACKEND", "Agg")
ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
NETWORKS = ROOT / "docs" / "networks.md"
SOLVERS = ROOT / "docs" / "solvers.md"
VALIDATION = ROOT / "docs" / "validation.md"
REPLANNING = ROOT / "docs" / "replanning.md"
TUTORIALS = sorted((ROOT / "tutorials").glob("*.py"))
TUTORIAL_FIGURES = ROOT / "docs" / "figures" / "tutorials"
_BLOCK = re.compile(
    r"<!-- run: (?P<name>\w+) -->\n```python\n(?P<code>.*?)```\n<!-- output: (?P=name) -->\n(?:```text\n.*?```\n)?",
    re.DOTALL,
)
_FIGURES = {
    "example": ("plan.png", ROOT / "docs" / "figures" / "digits.png"),
    "audit": ("audit.png", ROOT / "docs" / "figures" / "audit.png"),
}


_TABLE = re.compile(r"<!-- table: (?P<name>\w+) -->\n.*?<!-- end of table -->\n", re.DOTALL)


def plans_table(path: Path) -> str:
    """Squared distance of the plans over EDM's, one row per sampler, from the measured table."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["grid"] == "plan"]
    counts = list(dict.fromkeys(row["steps"] for row in rows))
    lines = [f"| sampler | {' | '.join(f'{count} steps' for count in counts)} | geometric mean |"]
    lines.append("|---" * (len(counts) + 2) + "|")
    for sampler in dict.fromkeys(row["sampler"] for row in rows):
        own = [row for row in rows if row["sampler"] == sampler]
        cells = [f"{float(row['ratio_to_edm']):.3f} ± {float(row['ratio_standard_error']):.3f}" for row in own]
        mean = math.exp(sum(math.log(float(row["ratio_to_edm"])) for row in own) / len(own))
        lines.append(f"| {sampler} | {' | '.join(cells)} | {mean:.3f} |")
    return "\n".join(lines) + "\n"


def limit_table(path: Path) -> str:
    """Error of the plans over the best that direct descent found, one row per sampler, from the measured table."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    counts = sorted({int(row["steps"]) for row in rows})
    lines = [f"| sampler | {' | '.join(f'{count} steps' for count in counts)} |", "|---" * (len(counts) + 1) + "|"]
    for sampler in dict.fromkeys(row["sampler"] for row in rows):
        own = {int(row["steps"]): row for row in rows if row["sampler"] == sampler}
        cells = [
            f"{float(own[c]['plan_over_limit']):.3f} ± {float(own[c]['standard_error']):.3f}" if c in own else ""
            for c in counts
        ]
        lines.append(f"| {sampler} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def solvers_table(path: Path) -> str:
    """Errors of fitted solvers over those of the plans that they begin with, one row per network."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    counts = sorted({int(row["steps"]) for row in rows})
    lines = [f"| network | {' | '.join(f'{count} steps' for count in counts)} | evaluations | seconds |"]
    lines.append("|---" * (len(counts) + 3) + "|")
    for network in dict.fromkeys(row["network"] for row in rows):
        own = {int(row["steps"]): row for row in rows if row["network"] == network}
        cells = [
            f"{float(own[c]['ratio']):.3g} ± {float(own[c]['ratio_error']):.2g}" if c in own else "" for c in counts
        ]
        spent = ", ".join(f"{int(own[c]['fit_evaluations']):,}" for c in counts if c in own)
        seconds = ", ".join(f"{float(own[c]['seconds']):.0f}" for c in counts if c in own)
        lines.append(f"| {network.replace('_', ' ')} | {' | '.join(cells)} | {spent} | {seconds} |")
    return "\n".join(lines) + "\n"


_SOLVERS = {
    "fitted": "**fitted** from the plan on",
    "plan": "the plan for DPM-Solver++(2M)",
    "s4s": "S4S, coefficients", "s4s_alt": "S4S-Alt, levels too", "bespoke": "bespoke non-stationary", "ld3": "LD3",
    "oss": "optimal stepsizes", "dmn": "DM-NonUniform", "entropic": "entropic time",
    "entropic_rescaled": "entropic time, rescaled", "gits": "GITS", "ays": "Align Your Steps",
    "pas": "PAS", "edm": "2M on EDM's levels",
    "log_snr": "2M on equal steps of log SNR", "fine": "fine solution",
    "unipc on edm": "UniPC on EDM's levels", "unipc on log_snr": "UniPC on equal steps of log SNR",
    "ipndm on edm": "iPNDM on EDM's levels",
}  # fmt: skip


def fashion_table(path: Path) -> str:
    """Mean squared distance to the network's fine solution over that of the plan, one row per solver."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["method"] != "fine"]
    counts = sorted({int(row["steps"]) for row in rows})
    found = {(row["method"], int(row["steps"])): row for row in rows}
    names = sorted({row["method"] for row in rows}, key=lambda name: min(_ratios(found, name, counts)))
    lines = [f"| solver | {' | '.join(f'{count} evaluations' for count in counts)} | batches to find it | seconds |"]
    lines.append("|---" * (len(counts) + 3) + "|")
    for name in names:
        cells = [_plus_minus(found.get((name, count))) for count in counts]
        own = [found[name, count] for count in counts if (name, count) in found]
        spent = (_once(f"{float(row[amount]):,.0f}" for row in own) for amount in ("fitting", "seconds"))
        lines.append(f"| {_SOLVERS.get(name, name)} | {' | '.join([*cells, *spent])} |")
    return "\n".join(lines) + "\n"


def measures_table(path: Path) -> str:
    """Distances of samples to the data, Fréchet and energy, network by network, and their variance over the data's."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    lines = ["| network | evaluations | solver | Fréchet, pixels | energy distance | variance |", "|---" * 6 + "|"]
    floors: set[str] = set()
    for row in rows:
        if row["method"] == "fine" and row["world"] in floors:
            continue
        count = "many" if row["method"] == "fine" else row["steps"]
        floors.add(row["world"])
        amounts = (f"{float(row[name]):.3g} ± {float(row[f'{name}_se']):.1g}" for name in ("frechet", "energy"))
        cells = (row["world"].replace("_", " "), count, _SOLVERS[row["method"]], *amounts)
        lines.append(f"| {' | '.join(cells)} | {float(row['variance']):.3f} |")
    return "\n".join(lines) + "\n"


def equal_table(path: Path) -> str:
    """Errors over EDM's at equal compute, a row per data set and budget; of usual recipes the best, after the fact."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    recipes = [arm for arm in arms if "steps, " in arm]  # EDM's defaults first
    plans = [arm for arm in arms if arm not in recipes]
    lines = [f"| data | budget | EDM's error | {' | '.join(plans)} | best of {len(recipes)} usual recipes |"]
    lines.append("|---" * (len(plans) + 4) + "|")
    for data, budget in dict.fromkeys((row["data"], row["budget"]) for row in rows):
        own = {row["arm"]: row for row in rows if (row["data"], row["budget"]) == (data, budget)}
        usual = min((own[arm] for arm in recipes), key=lambda row: float(row["error"]))
        edm = float(own[recipes[0]]["error"])
        cells = (f"{float(own[arm]['to_edm']):.2f} ± {float(own[arm]['half_width']):.2f}" for arm in plans)
        amounts = (data.replace("_", " "), f"{float(budget) / 1e6:g} M", f"{edm:.3g}", *cells)
        lines.append(f"| {' | '.join(amounts)} | {float(usual['to_edm']):.2f} ({usual['arm']}) |")
    return "\n".join(lines) + "\n"


def _once(amounts: Iterable[str]) -> str:
    """What all of them are, or each of them."""
    told = list(amounts)
    return told[0] if len(set(told)) == 1 else ", ".join(told)


def _ratios(found: dict[tuple[str, int], dict[str, str]], name: str, counts: list[int]) -> list[float]:
    return [float(found[name, count]["ratio"]) for count in counts if (name, count) in found]


def _plus_minus(row: dict[str, str] | None, value: str = "ratio", error: str = "ratio_se") -> str:
    return "" if row is None else f"{float(row[value]):.3g} ± {float(f'{float(row[error]):.1g}'):g}"


def samples_table(path: Path) -> str:
    """Distances of samples to the test images, of solvers whose samples were measured."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["frechet"]]
    rows = [row for i, row in enumerate(rows) if row["method"] != "fine" or i == 0]  # it is the same at all steps
    lines = [
        "| evaluations | solver | Fréchet, classifier's features | sliced W2 | energy distance |",
        "|---" * 5 + "|",
    ]
    for row in rows:
        cells = [_plus_minus(row, name, f"{name}_se") for name in ("frechet", "sliced_w2", "energy")]
        lines.append(f"| {'many' if row['method'] == 'fine' else row['steps']} | "
                     f"{_SOLVERS.get(row['method'], row['method'])} | {' | '.join(cells)} |")  # fmt: skip
    return "\n".join(lines) + "\n"


def rivals_table(path: Path) -> str:
    """Errors of the fitted solver and of its rivals over those of the plan, a column per denoiser and steps."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["method"] not in ("fine", "plan")]
    cells = list(dict.fromkeys((row["world"], row["steps"]) for row in rows))
    found = {(row["method"], row["world"], row["steps"]): float(row["ratio"]) for row in rows}
    lines = ["| method | " + " | ".join(f"{world.replace('_', ' ')}, {steps}" for world, steps in cells) + " |"]
    lines.append("|---" * (len(cells) + 1) + "|")
    for method in dict.fromkeys(row["method"] for row in rows):
        values = [f"{found[method, *cell]:.3g}" if (method, *cell) in found else "" for cell in cells]
        lines.append(f"| {_SOLVERS.get(method, method)} | {' | '.join(values)} |")
    return "\n".join(lines) + "\n"


def pilots_table(path: Path) -> str:
    """Realised errors of the densities planned from pilots, one row per data set and kind of evidence."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    lines = ["| data | weights, evidence | P_mean | P_std | error over EDM's default | over the best of 15 |"]
    lines.append("|---" * 6 + "|")
    for data, kind, source in dict.fromkeys((row["data"], row["weights"], row["source"]) for row in rows):
        own = [row for row in rows if (row["data"], row["weights"], row["source"]) == (data, kind, source)]
        means, stds, default, best = (
            sorted(float(row[name]) for row in own) for name in ("P_mean", "P_std", "to_default", "to_best")
        )
        middle = len(own) // 2
        lines.append(
            f"| {data.replace('_', ' ')} | {kind}, {source} | {means[0]:.1f} to {means[-1]:.1f} | {stds[0]:.1f} to "
            f"{stds[-1]:.1f} | {default[middle]:.3f}, at most {default[-1]:.3f} | {best[middle]:.3f} |"
        )
    return "\n".join(lines) + "\n"


def measured_table(path: Path) -> str:
    """Distances predicted with measured training laws, and those of networks trained and sampled as planned."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    lines = ["| network | examples | steps | predicted | realised | ratio |", "|---" * 6 + "|"]
    for row in rows:
        lines.append(
            f"| `{row['network']}` | {int(row['examples']):,} | {row['steps']} | {row['predicted']} | "
            f"{row['realised']} | {float(row['ratio']):.2f} |"
        )
    return "\n".join(lines) + "\n"


def _rows_of(name: str) -> list[dict[str, str]]:
    with (ROOT / "docs" / "figures" / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def plain_table(name: str) -> str:
    """A measured table as it is, numbers in three digits."""
    rows = _rows_of(name)
    shown = [column for column in rows[0] if column != "seconds"]
    lines = ["| " + " | ".join(column.replace("_", " ") for column in shown) + " |", "|---" * len(shown) + "|"]
    for row in rows:
        lines.append("| " + " | ".join(_short(row[column]) for column in shown) + " |")
    return "\n".join(lines) + "\n"


def _short(text: str) -> str:
    try:
        return f"{float(text):.3g}"
    except ValueError:
        return text


def families_table() -> str:
    """How each class of networks of the installed diffusers is called, one line a row of the table in the code."""
    import diffusers

    from codesign_opt.estimate.denoisers.model_families import CLOCKS, FAMILIES

    lines = ["| classes | time | told | answer | what else |", "|---|---|---|---|---|"]
    for row in FAMILIES:
        classes = ", ".join(f"`{name}`" for name in row.classes)
        found = [getattr(diffusers, name) for name in row.classes]
        places = sorted({list(inspect.signature(kind.forward).parameters).index(row.time) for kind in found})
        names = " = ".join(f"`{name}`" for name in (row.time, *row.also))
        told = CLOCKS[row.clock] + (f" {row.offset:+g}".replace("-", "- ") if row.offset else "")
        told = f"`{row.scaled_by}` {told}" if row.scaled_by else told
        answer = "negated" if row.sign < 0 else "as it is"
        lines.append(f"| {classes} | {names}, {_places(places)} | {told} | {answer} | {row.note} |")
    return "\n".join(lines) + "\n"


def _places(places: list[int]) -> str:
    return ", ".join({1: "1st", 2: "2nd", 3: "3rd"}.get(place, f"{place}th") for place in places)


def refused_networks_table() -> str:
    """Classes with a time that are no denoiser of one state."""
    from codesign_opt.estimate.denoisers.model_families import REFUSED

    return _reasons("classes", REFUSED)


def schedulers_table() -> str:
    """What each scheduler says of its network, by the functions that read them, then those that are refused."""
    from codesign_opt.estimate.denoisers.scheduler_clock import REFUSED_SCHEDULERS, SCHEDULERS

    lines = ["| schedulers | read as |", "|---|---|"]
    for read in dict.fromkeys(SCHEDULERS.values()):
        names = ", ".join(f"`{name}`" for name, one in SCHEDULERS.items() if one is read)
        lines.append(f"| {names} | {(read.__doc__ or '').strip().splitlines()[0]} |")
    return "\n".join(lines) + "\n\n" + _reasons("refused", REFUSED_SCHEDULERS)


def _reasons(title: str, refused: dict[str, str]) -> str:
    lines = [f"| {title} | why |", "|---|---|"]
    for reason in dict.fromkeys(refused.values()):
        lines.append(f"| {', '.join(f'`{n}`' for n, why in refused.items() if why == reason)} | {reason} |")
    return "\n".join(lines) + "\n"


_TABLES = {
    "network_plans": functools.partial(plans_table, ROOT / "docs" / "figures" / "network_plans.csv"),
    "network_limit": functools.partial(limit_table, ROOT / "docs" / "figures" / "network_limit.csv"),
    "fitted_solvers": functools.partial(solvers_table, ROOT / "docs" / "figures" / "fitted_solvers.csv"),
    "fashion_solvers": functools.partial(fashion_table, ROOT / "docs" / "figures" / "fashion_solvers.csv"),
    "fashion_samples": functools.partial(samples_table, ROOT / "docs" / "figures" / "fashion_solvers.csv"),
    "equal_compute": functools.partial(equal_table, ROOT / "docs" / "figures" / "equal_compute.csv"),
    "fitted_measures": functools.partial(measures_table, ROOT / "docs" / "figures" / "fitted_measures.csv"),
    "rivals": functools.partial(rivals_table, ROOT / "docs" / "figures" / "rivals.csv"),
    "pilot_densities": functools.partial(pilots_table, ROOT / "docs" / "figures" / "pilot_densities.csv"),
    "measured_training": functools.partial(measured_table, ROOT / "docs" / "figures" / "measured_training.csv"),
    **{
        name: functools.partial(plain_table, name)
        for name in (
            "gaussian_plans",
            "ablation",
            "arm_ranks",
            "replan_caution",
            "replanning_over",
            "budgets",
            "budget_exponents",
            "splits_best",
            "stopping_law",
            "stopping_law_fixed",
            "validation_cases",
            "validation_matrices",
            "validation_narrow",
            "validation_metrics",
        )
    },
    "model_families": families_table,
    "refused_networks": refused_networks_table,
    "schedulers": schedulers_table,
}


@contextlib.contextmanager
def elsewhere() -> Iterator[None]:
    """A temporary folder to work in: what examples save stays out of the repository."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


def printed(code: str, name: str, names: dict[str, Any]) -> str:
    """What the code prints when it is run with these names."""
    caught = io.StringIO()
    with contextlib.redirect_stdout(caught):
        exec(compile(code, name, "exec"), names)  # the repository's own code
    return caught.getvalue()


def run(code: str, figure: tuple[str, Path] | None) -> str:
    """What the code prints; a figure it saves is moved into docs/figures."""
    with elsewhere():
        text = printed(code, "README.md", {"__name__": "readme"})
        if figure is not None:
            figure[1].parent.mkdir(exist_ok=True)
            figure[1].write_bytes(Path(figure[0]).read_bytes())
    return text.rstrip() + "\n"


def tutorial(path: Path, figures: Path | None = None) -> str:
    """A tutorial in the percent format with today's outputs, as lines `# | output` at the end of each cell of code.

    What it saves as .png goes to the folder `figures`, if one is given, under the tutorial's name; the site shows it.
    """
    names: dict[str, Any] = {"__name__": "tutorial"}
    cells = re.split(r"(?m)^(?=# %%)", path.read_text(encoding="utf-8"))
    with elsewhere():
        for i, cell in enumerate(cells):
            if not cell.startswith("# %%\n"):
                continue  # text
            code = re.sub(r"(?m)^# \|.*\n", "", cell).rstrip() + "\n"
            output = "".join(f"# | {line}".rstrip() + "\n" for line in printed(code, path.name, names).splitlines())
            cells[i] = code + output + ("\n" if i + 1 < len(cells) else "")
        for saved in Path().glob("*.png") if figures is not None else ():
            assert figures is not None
            figures.mkdir(exist_ok=True)
            (figures / f"{path.stem}-{saved.name}").write_bytes(saved.read_bytes())
    return "".join(cells)


def regenerated(text: str, *, figures: bool) -> str:
    """The page with today's outputs."""

    def replace(match: re.Match[str]) -> str:
        name, code = match["name"], match["code"]
        output = run(code, _FIGURES.get(name) if figures else None)
        return f"<!-- run: {name} -->\n```python\n{code}```\n<!-- output: {name} -->\n```text\n{output}```\n"

    def table(match: re.Match[str]) -> str:
        return f"<!-- table: {match['name']} -->\n{_TABLES[match['name']]()}<!-- end of table -->\n"

    return _TABLE.sub(table, _BLOCK.sub(replace, text))


def differences(path: Path, new: str) -> list[str]:
    """Lines that are not what the code prints today; the last digits of a float may differ from machine to machine."""

    def rounded(line: str) -> str:
        return re.sub(r"\d\.\d{9,}", lambda match: f"{float(match[0]):.9f}", line)

    lines = path.read_text(encoding="utf-8").splitlines(), new.splitlines()
    pairs = itertools.zip_longest(*lines, fillvalue="")
    return [f"{path.name}: {old!r} is now {now!r}" for old, now in pairs if rounded(old) != rounded(now)]


def main() -> int:
    """Rewrite the pages, or check them."""
    check = "--check" in sys.argv[1:]
    pages = {README: regenerated(README.read_text(encoding="utf-8"), figures=not check)}
    measured = (SOLVERS, VALIDATION, REPLANNING)
    pages |= {path: regenerated(path.read_text(encoding="utf-8"), figures=False) for path in measured}
    pages |= {path: tutorial(path, None if check else TUTORIAL_FIGURES) for path in TUTORIALS}
    if importlib.util.find_spec("diffusers"):
        pages |= {NETWORKS: regenerated(NETWORKS.read_text(encoding="utf-8"), figures=False)}
    if check:
        changed = [line for path, new in pages.items() for line in differences(path, new)]
        print("\n".join(changed), file=sys.stderr)
        return int(bool(changed))
    for path, new in pages.items():
        path.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
