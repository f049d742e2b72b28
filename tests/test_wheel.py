"""The wheel holds the package, its stubs and the declared problems, and works without the repository."""

import ast
import base64
import csv
import email
import hashlib
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import codesign_opt

pytest.importorskip("setuptools", minversion="77")

ROOT = Path(codesign_opt.__file__).resolve().parent.parent
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "codesign_opt", "problems")
LISTED = """TITLE = "Mine, {dimension} directions"
VARIANTS = {"dimension": (4, 8)}
import codesign_opt as co
def build(dimension=4, budget=1e4):
    model = co.GaussianModel(co.Spectrum.power_law(dimension, exponent=1.0), sampler=co.Euler())
    return model, co.Prices(example=1.0, evaluation=1.0, images=10), budget
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, so that no earlier build in the repository leaves files in it."""
    if not all((ROOT / name).exists() for name in SOURCES):
        pytest.skip("an installed package without its repository")
    copy, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy / name)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*command, "--wheel-dir", str(out), str(copy)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def home(wheel, tmp_path_factory):
    """The unpacked wheel, once: the first run compiles it for the others."""
    folder = tmp_path_factory.mktemp("site")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


@pytest.fixture
def unpacked(home, tmp_path):
    """A function that runs Python on the unpacked wheel, from a folder that is not the repository."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    def run(*words):
        environment = {**os.environ, "PYTHONPATH": str(home), "MPLBACKEND": "Agg"}
        done = subprocess.run([sys.executable, *words], cwd=elsewhere, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run.home, run.folder = home, elsewhere
    return run


def test_wheel_holds_every_module_stub_calibration_and_page_and_the_problems_but_not_their_studies(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    kept = [
        path for path in (ROOT / "codesign_opt").rglob("*") if path.suffix in (".py", ".pyi", ".json", ".css", ".js")
    ]
    expected = {str(path.relative_to(ROOT)) for path in kept}
    expected |= {f"codesign_opt/problems/{path.name}" for path in (ROOT / "problems").glob("*.py")}
    packaged = {name for name in names if ".dist-info/" not in name}
    assert packaged == expected | {"codesign_opt/py.typed"}
    assert not [name for name in names if "studies" in name]


def test_version_is_stated_once_in_the_package(wheel):
    assert wheel.name.split("-")[1] == codesign_opt.__version__
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert "version" not in project
    newest = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").split("\n## ")[1].split()[0]
    assert codesign_opt.__version__.split(".dev")[0] == newest


@pytest.mark.slow
def test_unpacked_wheel_loads_and_solves_a_declared_problem_elsewhere(unpacked):
    code = (
        "import codesign_opt as co; print(co.__file__, co.problems.__file__, sep='\\n');"
        "print(co.problems.load('clipped_allocation').solve().certificate.optimal)"
    )
    words = "solve power_law_64 --budget 1e6 --images 10000 --levels 40 --points 4 --out out"
    code += f"\nfrom codesign_opt.cli import main; assert main({words.split()!r}) == 0"
    package, problems, optimal, printed = unpacked("-c", code).split(maxsplit=3)
    assert Path(package) == unpacked.home / "codesign_opt" / "__init__.py"
    assert Path(problems) == unpacked.home / "codesign_opt" / "problems" / "__init__.py"
    assert optimal == "True"
    assert "proved optimal" in printed
    assert (unpacked.folder / "out" / "plan.json").exists()


@pytest.mark.slow
def test_a_file_put_into_the_problems_folder_is_listed_and_solved(unpacked):
    added = unpacked.home / "codesign_opt" / "problems" / "mine.py"
    added.write_text(LISTED)
    try:
        rows = unpacked("-m", "codesign_opt", "list").splitlines()
        solved = "co.problems.load('mine_8').solve(stopping_sigma=0.05, levels=40)"
        code = f"import codesign_opt as co; print({solved}.error > 0)"
        assert unpacked("-c", code).strip() == "True"
    finally:
        added.unlink()
    assert [row.split(maxsplit=1) for row in rows if row.startswith("mine")] == [
        ["mine_4", "Mine, 4 directions"],
        ["mine_8", "Mine, 8 directions"],
    ]


def test_no_file_of_the_wheel_imports_studies_or_tests(wheel):
    with zipfile.ZipFile(wheel) as archive:
        for name in (name for name in archive.namelist() if name.endswith(".py")):
            source = archive.read(name)
            if b"studies" not in source and b"tests" not in source:
                continue
            for node in ast.walk(ast.parse(source)):
                module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
                assert not {"studies", "tests"} & set(module.split(".")), name


def test_metadata_are_complete_as_an_index_asks(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (place,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        told = email.message_from_bytes(archive.read(place))
        record = archive.read(place.replace("METADATA", "RECORD")).decode().splitlines()
        scripts = archive.read(place.replace("METADATA", "entry_points.txt")).decode()
        for name, digest, _ in csv.reader(record):  # as pip checks them
            if digest:
                found = base64.urlsafe_b64encode(hashlib.sha256(archive.read(name)).digest()).rstrip(b"=").decode()
                assert digest == f"sha256={found}", name
    assert (told["Name"], told["License-Expression"]) == ("codesign_opt", "Apache-2.0")
    assert told["Requires-Python"] == ">=3.11"
    assert 20 < len(told["Summary"]) < 512
    assert told["Description-Content-Type"] == "text/markdown"
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    assert told.get_payload(decode=True).decode().strip() == page.strip()
    assert "Typing :: Typed" in told.get_all("Classifier")
    assert {"plots", "data", "torch", "progress", "docs", "all", "test"} == set(told.get_all("Provides-Extra"))
    assert "codesign-opt = codesign_opt.cli:main" in scripts
