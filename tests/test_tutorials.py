"""Tutorials run from top to bottom, print what is written in them, and import `codesign_opt as co` alone."""

import ast

import pytest

from tests.helpers.pages import check_same, regenerate

PAGES = regenerate()


@pytest.mark.slow
@pytest.mark.parametrize("path", PAGES.TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_prints_what_is_written_in_it(path):
    pytest.importorskip("matplotlib")
    page = path.read_text(encoding="utf-8")
    fresh = PAGES.tutorial(path)
    assert "\n# | " in page
    check_same(page, fresh)


@pytest.mark.parametrize("path", PAGES.TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_is_cells_of_text_and_code(path):
    page = path.read_text(encoding="utf-8")
    assert page.startswith("# %% [markdown]\n# # ")
    assert page.count("\n# %%\n") >= 3
    imported = [node for node in ast.walk(ast.parse(page)) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert "import codesign_opt as co" in map(ast.unparse, imported)


def test_an_output_that_has_changed_is_found(tmp_path):
    path = tmp_path / "00_small.py"
    path.write_text("# %% [markdown]\n# # Small\n\n# %%\nx = 2.0\nprint(x)\n# | 2.5\n\n# %%\nprint(x + 1, 'steps')\n")
    fresh = PAGES.tutorial(path)
    assert fresh.endswith("print(x)\n# | 2.0\n\n# %%\nprint(x + 1, 'steps')\n# | 3.0 steps\n")
    with pytest.raises(AssertionError):
        check_same(path.read_text() + "# | 3.0 steps\n", fresh)
    path.write_text(fresh)
    assert PAGES.tutorial(path) == fresh
