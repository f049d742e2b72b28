"""Pages whose outputs the repository regenerates: today's outputs, and the comparison with those written down."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
_NUMBER = re.compile(r"[-+]?\d[\d,]*\.?\d*(?:[eE][-+]?\d+)?")


def regenerate():
    """docs/regenerate.py as a module."""
    spec = importlib.util.spec_from_file_location("regenerate", ROOT / "docs" / "regenerate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def numbers(text):
    return [float(found.replace(",", "")) for found in _NUMBER.findall(text)]


def check_same(page, fresh):
    """The same words, and the same numbers to two per cent: machines round otherwise."""
    for old, new in zip(page.splitlines(), fresh.splitlines(), strict=True):
        if "proved optimal" in old or "tried)" in old:  # the last digits of a gap are rounding
            assert old.split(" to ")[0] == new.split(" to ")[0]
            continue
        assert _NUMBER.sub("#", old).split() == _NUMBER.sub("#", new).split()
        assert numbers(new) == pytest.approx(numbers(old), rel=2e-2, abs=1e-9)
