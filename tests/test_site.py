"""The documentation's site: its pages hold every tutorial and every public name, and it builds without a warning."""

import importlib.util
import re
from pathlib import Path

import pytest

import codesign_opt as co

DOCS = Path(__file__).parents[1] / "docs"
spec = importlib.util.spec_from_file_location("build_site", DOCS / "build_site.py")
SITE = importlib.util.module_from_spec(spec)
spec.loader.exec_module(SITE)


def test_a_tutorial_becomes_text_code_and_output():
    page = "# %% [markdown]\n# # Title\n#\n# See tutorials/02_x.py\n\n# %%\nx = 1\nprint(x)\n# | 1\n\n# %%\ny = 2\n"
    assert SITE.tutorial(page) == (
        "# Title\n\nSee tutorials/02_x.py\n\n```python\nx = 1\nprint(x)\n```\n\n"
        "```text\n1\n```\n\n```python\ny = 2\n```\n"
    )


def test_a_docstring_becomes_paragraphs_lists_and_examples():
    text = (
        "Two * three_stars and `a*b`.\n\n    a = b\n\nArgs:\n    x: first\n        line.\n    y, z: $2.\n\n>>> 1 + 1\n2"
    )
    assert SITE.docstring(text) == (
        "Two \\* three\\_stars and `a*b`.\n\n```text\na = b\n```\n\n"
        "**Args**\n\n* `x`: first line.\n* `y, z`: \\$2.\n\n```pycon\n>>> 1 + 1\n2\n```"
    )


@pytest.mark.parametrize(
    "text",
    [
        "(a: 'int' = 1) -> 'str'",
        "(self, *, a: 'Mapping[str, Any] | None' = None, b='x', c: 'tuple[int, int]' = (1, 2), d: 'float' = 0.5)",
    ],
)
def test_a_signature_is_the_same_python_whatever_its_length(text):
    named = re.sub(r"(: |-> )'([^']+)'", r"\1\2", text)
    assert "".join(SITE._broken(named).split()) == "".join(named.split())
    compile(f"def f{SITE._broken(named)}: ...", "signature", "exec", dont_inherit=True)


def test_every_public_name_is_on_its_page():
    page = SITE.api_page("codesign_opt")
    named = set(re.findall(r"^## co\.(\w+)$", page, re.MULTILINE))
    missing = {name for name in co.__all__ if callable(getattr(co, name))} - named
    assert not missing
    assert "* `sampler`: how one step acts" in page


def test_guides_and_pages_are_all_in_the_site():
    listed = {*SITE.GUIDES, *SITE.PAGES, *SITE.INSIDE}
    assert listed == {path.stem for path in DOCS.glob("*.md")}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of sphinx and its themes
def test_the_site_builds_without_a_warning(tmp_path, capfd):
    pytest.importorskip("sphinx")
    pytest.importorskip("myst_parser")
    pytest.importorskip("latex2mathml")
    pytest.importorskip("torch")
    assert SITE.main(tmp_path) == 0, capfd.readouterr().err
    for page in ("index", "README", "docs/theory", "docs/faq", "tutorials/05_flow_matching", "api/estimate"):
        assert (tmp_path / f"{page}.html").stat().st_size > 3_000
    text = (tmp_path / "tutorials" / "05_flow_matching.html").read_text(encoding="utf-8")
    assert "# %%" not in text
    formulas = 0
    for path in tmp_path.glob("**/*.html"):
        page = path.read_text(encoding="utf-8")
        assert not re.findall(r"<(?:script|img|iframe)[^>]*src=.https?:|<link[^>]*href=.https?:[^>]*stylesheet", page)
        drawn = [re.sub(r"<[^>]+>", "", math) for math in re.findall(r"<math.*?</math>", page, re.DOTALL)]
        assert not [math for math in drawn if "\\" in math], path  # a command that was not understood
        formulas += len(drawn)
    assert formulas > 2_000


@pytest.mark.slow
def test_the_program_of_the_guide_runs():
    (block,) = re.findall(r"```python\n(.*?)```", (DOCS / "for_optimizers.md").read_text(encoding="utf-8"), re.DOTALL)
    names = {}
    exec(compile(block, "for_optimizers.md", "exec"), names)
    assert names["plan"].shadow_prices["a floor at low noise"] != 0


def test_figures_that_tutorials_save_are_on_their_pages():
    shown = []
    for path in sorted((SITE.ROOT / "tutorials").glob("*.py")):
        text = path.read_text(encoding="utf-8")
        page = SITE.tutorial(text, path.stem)
        for figure in re.findall(r"savefig\(\"([^\"]+)\"", text):
            link = f"docs/figures/tutorials/{path.stem}-{figure}"
            assert f"](../{link})" in page, path
            assert (SITE.ROOT / link).read_bytes().startswith(b"\x89PNG")
            shown.append(link)
    assert len(shown) >= 3
    kept = {file.name for file in (SITE.ROOT / "docs" / "figures" / "tutorials").iterdir()}
    assert kept == {link.rsplit("/", 1)[1] for link in shown}
