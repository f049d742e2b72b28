"""Every test runs with one thread per process (two cores, small matrices), figures without a screen.

A class that a test or an example of a docstring defines goes by its name there alone.
"""

import gc
import importlib
import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest  # noqa: E402  threads are set before numpy is loaded

# what the library itself enters by name is entered before the first test
import codesign_opt.exports.training  # noqa: E402
import codesign_opt.peers  # noqa: E402, F401
from codesign_opt.basics.registry import temporarily  # noqa: E402

pytest.register_assert_rewrite("tests.helpers")


@pytest.fixture
def unarranged(monkeypatch):
    """Figures are saved small and without their constrained layout, half of a page's time."""
    from matplotlib.figure import Figure

    save = Figure.savefig

    def saved(figure, *arguments, **options):
        figure.set_layout_engine("none")
        return save(figure, *arguments, **{**options, "dpi": 50})

    monkeypatch.setattr(Figure, "savefig", saved)


@pytest.fixture
def undescended(monkeypatch):
    """Grids are handed out as the program's steps fall: the search for better ones is most of a small plan's time."""
    if os.environ.get("CODESIGN_OPT_FULL") == "1":
        return
    planning = importlib.import_module("codesign_opt.planning.codesign")
    hand_out = planning.hand_out
    monkeypatch.setattr(planning, "hand_out", lambda *given, polish, **asked: hand_out(*given, polish=False, **asked))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Of a matrix that is marked `cases(n)` n stay, evenly spread; the others run with the slow ones."""
    matrices = {}
    for item in items:
        if mark := item.get_closest_marker("cases"):
            matrices.setdefault(item.nodeid.split("[")[0], (mark.args[0], []))[1].append(item)
    for few, cases in matrices.values():
        stay = {round(i * (len(cases) - 1) / max(few - 1, 1)) for i in range(few)}
        for i, item in enumerate(cases):
            if i not in stay:
                item.add_marker("slow")


def pytest_collection_finish():
    """What is there before the first test stays: no collection of garbage has to look through it again."""
    gc.freeze()


@pytest.fixture(autouse=True)
def names_of_this_test():
    with temporarily():
        yield
