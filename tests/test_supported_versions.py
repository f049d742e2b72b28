"""The files that state versions agree: pyproject.toml, both lock files, the conda environment, the citation."""

import re
import tomllib
from pathlib import Path

import pytest

import codesign_opt

ROOT = Path(codesign_opt.__file__).resolve().parent.parent
CONDA = {"cvxpy-base": "cvxpy", "matplotlib-base": "matplotlib"}

pytestmark = pytest.mark.skipif(not (ROOT / "pyproject.toml").exists(), reason="an installed package alone")


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def stated(lines):
    """Versions by package: what >= or == a line says."""
    found = (re.match(r"\s*(?:- )?([\w.-]+)\s*(?:>=|==)\s*([\w.]+)", line) for line in lines)
    return {match[1].lower(): match[2] for match in found if match}


def number(version):
    """The numbers of a version, without trailing zeros."""
    return tuple(map(int, re.sub(r"(\.0)+$", "", version).split(".")))


def floors(*extras):
    table = project()
    return stated(table["dependencies"]) | stated(line for e in extras for line in table["optional-dependencies"][e])


def lines_of(name):
    return (ROOT / name).read_text(encoding="utf-8").splitlines()


def test_the_lowest_versions_of_the_lock_file_are_those_of_the_project():
    lowest = stated(lines_of("constraints-lowest.txt"))
    for package, version in floors("plots", "data").items():
        assert number(lowest[package]) == number(version), package


def test_the_newest_versions_of_the_lock_file_are_none_that_the_project_refuses():
    newest = stated(lines_of("constraints.txt"))
    for package, version in floors("plots", "data", "torch", "docs", "test").items():
        assert number(newest[package]) >= number(version), package


def test_the_conda_environment_asks_for_what_the_project_does():
    asked = {CONDA.get(name, name): version for name, version in stated(lines_of("environment.yml")).items()}
    assert asked.pop("python") == project()["requires-python"].removeprefix(">=")
    assert {name: number(version) for name, version in asked.items()} == {
        name: number(version) for name, version in floors("plots", "data").items()
    }


def test_the_citation_is_of_this_version():
    page = "\n".join(lines_of("CITATION.cff"))
    assert f"version: {codesign_opt.__version__}\n" in page
    assert f"license: {project()['license']}\n" in page
    for field in ("cff-version", "message", "title", "authors"):
        assert re.search(rf"^{field}:", page, re.MULTILINE), field


def test_hooks_before_a_commit_are_what_ci_runs():
    page = "\n".join(lines_of(".pre-commit-config.yaml"))
    hooks = re.findall(r"entry: (.+)", page)
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert hooks == ["ruff check", "ruff format --check", "mypy"]
    assert all(f".venv/bin/{hook}" in ci for hook in hooks)
    assert "repo: local" in page
