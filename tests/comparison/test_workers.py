"""Comparisons by several workers: the same table, the same files, and an end that goes on where it was stopped."""

import os
from functools import partial

import numpy as np
import pytest

import codesign_opt as co
from codesign_opt.comparison.model_world import ModelWorld

pytest.importorskip("joblib")
FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"
MODEL = co.GaussianModel(co.Spectrum.power_law(8, exponent=1.5), co.EDM(0.01, 20.0), sampler=co.Euler())
PEERS = {"edm": "edm", "grid": co.edm_grid(7, 0.01, 20.0), "steps": "linear_sigma"}
COMPARE = partial(co.compare, peers=PEERS, evaluations=[5, 7], progress=False)


def rows(found):
    """Every field of every row, by value."""
    return [{name: np.asarray(value).tolist() for name, value in vars(row).items()} for row in found.rows]


def files(folder):
    """What lies in a folder of cells, by name: numbers, not the bytes of the archives, which hold times."""
    found = {}
    for path in sorted(folder.rglob("*.npz")):
        with np.load(path) as kept:
            found[str(path.relative_to(folder))] = {name: kept[name].tolist() for name in kept}
    return found


@pytest.mark.parametrize(
    ("backend", "plan"), [("threading", False), pytest.param("loky", True, marks=pytest.mark.slow)]
)
def test_workers_give_the_same_table_notes_and_files(backend, plan, tmp_path):
    heard, compare = [], partial(COMPARE, plan=plan)
    alone = compare(MODEL, folder=tmp_path / "alone")
    found = compare(
        MODEL, folder=tmp_path / "workers", n_jobs=2, backend=backend, progress=lambda *three: heard.append(three)
    )
    assert rows(found) == rows(alone)
    assert found.notes == alone.notes
    assert any("grid is left out" in note for note in found.notes)
    assert files(tmp_path / "workers") == files(tmp_path / "alone") != {}
    assert [each[:2] for each in heard] == [(1, 2), (2, 2)]


def test_what_workers_finished_is_not_done_again(tmp_path, monkeypatch):
    whole = COMPARE(MODEL, folder=tmp_path, plan=False)
    for path in sorted(tmp_path.rglob("*.npz"))[::3]:
        path.unlink()  # as of a run that was killed
    kept, measured = len(files(tmp_path)), []

    def counted(self, sampler, sigmas, seed, ask=ModelWorld.measured):
        measured.append(sigmas)
        return ask(self, sampler, sigmas, seed)

    monkeypatch.setattr(ModelWorld, "measured", counted)
    again = COMPARE(MODEL, folder=tmp_path, plan=False, n_jobs=2, backend="threading")
    assert rows(again) == rows(whole)
    assert 0 < len(measured) == len(files(tmp_path)) - kept


def test_a_plan_that_fails_in_a_worker_fails_as_it_does_alone(monkeypatch):
    def refused(self, sampler, steps):
        raise ValueError("no plan today")

    monkeypatch.setattr(ModelWorld, "plan", refused)
    for options in ({}, {"n_jobs": 2, "backend": "threading"}):
        with pytest.raises(ValueError, match="no plan today"):
            COMPARE(MODEL, **options)


@pytest.mark.slow
def test_a_measured_model_is_compared_by_workers_with_its_denoiser(tmp_path):
    torch = pytest.importorskip("torch")
    x = torch.randn(300, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    few = co.estimate.Measurement(levels=8, draws=16, fine_steps=24)
    model = co.estimate.network(lambda x, sigma: x / (1 + sigma[:, None] ** 2), x, sampler=co.Euler(), measurement=few)
    options = {"peers": ["edm", "log_snr"], "evaluations": [4, 6], "plan": False, "draws": 8, "progress": False}
    alone = co.compare(model, **options)
    backends = ["threading", "loky"] if FULL else ["loky"]
    for backend in backends:
        assert rows(co.compare(model, n_jobs=2, backend=backend, **options)) == rows(alone)
