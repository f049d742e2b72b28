"""What the documents show runs as it stands: python blocks, one after the other."""

import importlib.util
import os
import re
import warnings
from pathlib import Path

import pytest

from tests.helpers.pages import check_same, regenerate

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize("name", ["language.md"])
def test_examples_of_a_document_run_in_order(name, capsys):
    text = (DOCS / name).read_text(encoding="utf-8")
    blocks = [(m.start(), m.group(1)) for m in re.finditer(r"```python\n(.*?)```", text, re.DOTALL)]
    assert len(blocks) >= 4
    names = {"__name__": f"{name}"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for start, block in blocks:
            line = text[:start].count("\n") + 1
            exec(compile("\n" * line + block, str(DOCS / name), "exec"), names)
    assert "preview" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")  # of others
def test_examples_of_trainers_run_in_order_where_their_packages_are(capsys):
    pytest.importorskip("torch")
    text = (DOCS / "training_exports.md").read_text(encoding="utf-8")
    names = {"__name__": "training_exports"}
    for match in re.finditer(r"```python\n(.*?)```", text, re.DOTALL):
        needs = re.findall(r"^import (accelerate|lightning)$", match.group(1), re.MULTILINE)
        if all(importlib.util.find_spec(package) for package in needs):
            line = text[: match.start()].count("\n") + 1
            exec(compile("\n" * line + match.group(1), str(DOCS / "training_exports.md"), "exec"), names)
    said = capsys.readouterr().out
    for words in (
        "--timestep_sampling shift",
        "the floor costs",
        "same objective",
        "'batches': 20",
        "torch.int64 True",
    ):
        assert words in said


@pytest.mark.skipif(os.environ.get("CODESIGN_OPT_FULL") != "1", reason="CODESIGN_OPT_FULL=1 trains for some seconds")
def test_the_run_that_plans_itself_runs_as_shown(capsys):
    pytest.importorskip("torch")
    (block,) = re.findall(r"```python\n(.*?)```", (DOCS / "replanning.md").read_text(encoding="utf-8"), re.DOTALL)
    exec(compile(block, "replanning.md", "exec"), {"__name__": "replanning"})
    said = capsys.readouterr().out
    assert "Run planned 5 times, 19,200 of 19,200 examples seen" in said
    assert "at EDM's default" in said


@pytest.mark.parametrize("name", ["solvers.md", "validation.md"])
def test_tables_of_a_page_are_those_that_were_measured(name):
    text = (DOCS / name).read_text(encoding="utf-8")
    check_same(text, regenerate().regenerated(text, figures=False))


def test_tables_of_networks_are_those_of_the_installed_diffusers(capsys):
    pytest.importorskip("diffusers", reason="diffusers is not installed")
    text = (DOCS / "networks.md").read_text(encoding="utf-8")
    check_same(text, regenerate().regenerated(text, figures=False))
    block, *_ = re.findall(r"```python\n(.*?)```", text, re.DOTALL)  # the others are lines of one's own pipeline
    exec(compile(block, "networks.md", "exec"), {"__name__": "networks"})
    assert "the first 4 of 8 channels count" in capsys.readouterr().out
