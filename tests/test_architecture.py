"""docs/architecture.md: its table of imports is the one that the test of imports holds, and studies keep to it."""

import ast
import re

from tests.helpers.pages import ROOT
from tests.test_imports import MAY_IMPORT

PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
STUDIES_MAY_IMPORT = {"basics", "estimate", "testbed", "comparison", "results.style"}


def rows(heading):
    """Cells of the table below a heading, without its own heading rows."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_page_and_test_hold_the_same_table_of_imports():
    table = {package.strip("`"): allowed.replace(",", " ").split() for package, allowed in rows("Who may import whom")}
    assert table == {package: allowed.split() for package, allowed in MAY_IMPORT.items()}


def test_every_package_is_in_the_table():
    packages = {path.parent.name for path in (ROOT / "codesign_opt").glob("*/__init__.py")}
    assert packages == set(MAY_IMPORT)


KINDS = """a term, a constraint, a sampler, a coupling, a metric, a model, training noise,
the training law of a network, a structured solver, a schedule, a training density, a loss weight,
a route to training errors, an estimator, an export, a declared problem, a world to compare on"""


def test_every_kind_of_addition_has_a_place_that_exists():
    table = rows("Where to add what")
    assert [kind for kind, _, _ in table] == re.split(r",\s", KINDS)
    for _, _, where in table:
        for path in re.findall(r"`([\w/.]+)`", where):
            place = path.replace("NAME.py", "")
            assert (ROOT / place).exists() or (ROOT / "codesign_opt" / place).exists(), path


def test_studies_import_public_names_estimators_the_testbed_and_comparisons():
    wrong = []
    for path in (ROOT / "problems" / "studies").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("codesign_opt."):
                module = node.module.removeprefix("codesign_opt.")
                if not {module, module.split(".")[0]} & STUDIES_MAY_IMPORT:
                    wrong.append(f"{path.name}: {module}")
    assert not wrong, wrong


def test_no_two_studies_import_each_other():
    arrows = {}
    for path in (ROOT / "problems" / "studies").glob("*.py"):
        nodes = [n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.ImportFrom)]
        near = [node for node in nodes if node.level == 1]
        arrows[path.stem] = {node.module or name.name for node in near for name in node.names}
    reached = dict(arrows)
    for _ in arrows:
        reached = {name: set().union(others, *(reached[other] for other in others)) for name, others in reached.items()}
    assert [name for name, others in reached.items() if name in others] == []
