"""The 20-fold comparison of a network's plan with direct descent, on a linear denoiser of images."""

import csv

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import codesign_opt as co  # noqa: E402
from problems.studies import network_plans as module  # noqa: E402


@pytest.fixture
def linear(monkeypatch):
    spread = torch.linspace(0.02, 1.0, 28 * 28).reshape(1, 28, 28)
    monkeypatch.setattr(
        co.testbed, "trained", lambda name: lambda x, sigma: x * spread / (spread + sigma.reshape(-1, 1, 1, 1) ** 2)
    )
    monkeypatch.setattr(module, "_TEST", 8)


def published(path, grid):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["sampler", "steps", "grid", "sigmas"])
        writer.writerow(["euler", grid.size - 1, "plan", " ".join(f"{s:.5g}" for s in grid)])
    return path


def limit(folder, **options):
    (row,) = module.network_limit(
        folder,
        samplers=["euler"],
        steps=[4],
        descent=module.Descent(draws=4, times=1, tries=2),
        progress=lambda text: None,
        **options,
    )
    return row


@pytest.mark.slow
def test_a_poor_plan_is_told_from_the_limit_and_the_limit_itself_is_not(linear, tmp_path):
    poor = published(tmp_path / "poor.csv", co.edm_grid(4, 0.002, 80.0))
    row = limit(tmp_path / "one", table=poor)
    assert row["plan_over_limit"] > 2
    best = np.array([float(word) for word in row["sigmas"].split()])
    assert best.shape == (5,)
    again = limit(tmp_path / "two", table=published(tmp_path / "best.csv", best))
    assert 0.97 < again["plan_over_limit"] < 1.03


def test_the_limit_needs_a_plan(linear, tmp_path):
    with pytest.raises(ValueError, match="run `plans` first"):
        limit(tmp_path)
