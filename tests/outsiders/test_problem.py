"""A declared problem from one file outside the package: loaded by its path, in Python and on the command line."""

import pytest

import codesign_opt as co
from codesign_opt.cli import main

FILE = '''"""Two strong directions over noise."""
import codesign_opt as co

PROVENANCE = "Stated, no data."


def build(spikes=2, budget=1e5):
    spectrum = co.Spectrum.spiked(16, [1.0] * spikes, 0.01)
    return co.GaussianModel(spectrum, sampler=co.Euler()), co.Prices(example=3.0, evaluation=1.0, images=100), budget
'''
QUICK = {"levels": 30, "points": 3}


@pytest.fixture
def path(tmp_path):
    (tmp_path / "two_spikes.py").write_text(FILE)
    return tmp_path / "two_spikes.py"


@pytest.mark.slow
@pytest.mark.usefixtures("unarranged", "undescended")
def test_a_problem_of_ones_own_is_loaded_by_its_path_and_solved(path, tmp_path, capsys):
    declared = co.problems.load(path, budget=2e4, spikes=3, **QUICK)
    assert (declared.name, declared.title) == ("two_spikes", "Two strong directions over noise.")
    assert declared.model.spectrum.counts.tolist() == [1, 1, 1, 13]
    plan = declared.solve(polish=False)
    assert plan.certificate.optimal
    assert sum(plan.costs[name] for name in ("training", "sampling")) == pytest.approx(2e4, rel=1e-2)

    words = ["solve", str(path), "--budget", "2e4", "--levels", "30", "--points", "3", "--out", str(tmp_path)]
    assert main(words) == 0
    assert "proved optimal" in capsys.readouterr().out
    own = co.Plan.load(tmp_path / "plan.json")
    assert own.error == pytest.approx(co.problems.load(path, budget=2e4, **QUICK).solve(polish=False).error, rel=1e-9)
