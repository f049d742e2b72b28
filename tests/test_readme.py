"""README's outputs are what its code prints, its two commands are the ones CI runs, and its paths exist."""

import re

import pytest

from tests.helpers.pages import ROOT, check_same, regenerate

GUIDES = [f"docs/{name}.md" for name in ("for_trainers", "for_samplers", "for_optimizers", "faq")]


def test_outputs_in_readme_are_what_the_code_prints():
    pytest.importorskip("sklearn")
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    check_same(page, regenerate().regenerated(page, figures=False))


def test_readme_states_the_two_commands():
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "<!-- test command -->" in page
    assert "codesign-opt solve digits" in page
    assert "<!-- test command -->" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "docs/architecture.md", "docs/networks.md", *GUIDES])
def test_paths_that_a_page_names_exist(name):
    page = (ROOT / name).read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!http)([^)#]+)", page)
    for link in links:
        assert ((ROOT / name).parent / link).exists(), link
    code = re.findall(r"`([\w.-]+/[\w./-]*)`", page)
    named = [word for word in code if word.split("/")[0] in {"codesign_opt", "docs", "problems", "tests", "tutorials"}]
    for path in named:
        assert (ROOT / path.replace("NAME.py", "")).exists(), path
    assert links or named
