"""Run the examples of README.md and write their outputs and figures into place.

python docs/regenerate.py           rewrite README.md and docs/figures
python docs/regenerate.py --check   exit 1 where an output is not what the code prints today

The tables of network plans come from docs/figures/network_plans.csv and network_limit.csv, which `python -m
problems.studies plans --out docs/figures` and `... limit --out docs/figures` measure (some hours on two cores).
"""

from __future__ import annotations

import contextlib
import csv
import io
import math
import os
import re
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("MPLBACKEND", "Agg")
ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
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


_TABLES = {"network_plans": plans_table, "network_limit": limit_table}


def run(code: str, figure: tuple[str, Path] | None) -> str:
    """What the code prints; a figure it saves is moved into docs/figures."""
    printed = io.StringIO()
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            with contextlib.redirect_stdout(printed):
                exec(compile(code, "README.md", "exec"), {"__name__": "readme"})  # the page's own code
            if figure is not None:
                figure[1].parent.mkdir(exist_ok=True)
                figure[1].write_bytes(Path(figure[0]).read_bytes())
        finally:
            os.chdir(before)
    return printed.getvalue().rstrip() + "\n"


def regenerated(text: str, *, figures: bool) -> str:
    """The page with today's outputs."""

    def replace(match: re.Match[str]) -> str:
        name, code = match["name"], match["code"]
        output = run(code, _FIGURES.get(name) if figures else None)
        return f"<!-- run: {name} -->\n```python\n{code}```\n<!-- output: {name} -->\n```text\n{output}```\n"

    def table(match: re.Match[str]) -> str:
        measured = _TABLES[match["name"]](ROOT / "docs" / "figures" / f"{match['name']}.csv")
        return f"<!-- table: {match['name']} -->\n{measured}<!-- end of table -->\n"

    return _TABLE.sub(table, _BLOCK.sub(replace, text))


def main() -> int:
    """Rewrite the page, or check it."""
    check = "--check" in sys.argv[1:]
    old = README.read_text(encoding="utf-8")
    new = regenerated(old, figures=not check)
    if check:
        return int(old != new)
    README.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
