"""README's outputs are what its code prints, and its two commands are the ones CI runs."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
_NUMBER = re.compile(r"[-+]?\d[\d,]*\.?\d*(?:[eE][-+]?\d+)?")


def _module():
    spec = importlib.util.spec_from_file_location("regenerate", ROOT / "docs" / "regenerate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _numbers(text):
    return [float(found.replace(",", "")) for found in _NUMBER.findall(text)]


def test_outputs_in_readme_are_what_the_code_prints():
    pytest.importorskip("sklearn")
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    fresh = _module().regenerated(page, figures=False)
    for old, new in zip(page.splitlines(), fresh.splitlines(), strict=True):
        if "proved optimal" in old or "tried)" in old:  # the last digits of a gap are rounding
            assert old.split(" to ")[0] == new.split(" to ")[0]
            continue
        assert _NUMBER.sub("#", old).split() == _NUMBER.sub("#", new).split()
        assert _numbers(new) == pytest.approx(_numbers(old), rel=2e-2, abs=1e-9)


def test_readme_states_the_two_commands():
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "<!-- test command -->" in page
    assert "codesign-opt solve digits" in page
    assert "<!-- test command -->" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
