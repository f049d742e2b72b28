"""The saved plans beside this file and what they said, as version 0.1.0 wrote them: run it with that version alone."""

import json
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np

import codesign_opt as co

PRICES = co.Prices(3.0, 1.0, 1000)
SPECTRUM = co.Spectrum.power_law(8, exponent=1.5)


def gaussian():
    """Everything planned: grid, examples, curve, peers, fits; a floor of constant-step training."""
    model = co.GaussianModel(SPECTRUM, training=co.ConstantStepSGD(1e-3, 64))
    return co.codesign(model, PRICES, 3e4, levels=30, points=3)


def training_only():
    """A given grid and examples already spent: the last evaluation's error counts."""
    model = co.GaussianModel(SPECTRUM, sampler=co.Ancestral(0.5))
    run = co.TrainingRun(co.LogNormal(-1.2, 1.2), 20, 32)
    return co.codesign(model, PRICES, 3e4, sigmas=co.edm_grid(12, 0.01, 80.0), run=run, levels=24)


def sampler_only():
    """A step budget alone; the exact error moves the stopping point."""
    return co.codesign(co.GaussianModel(SPECTRUM, sampler=co.Heun()), steps=6, levels=30, points=3)


def sampler_choice():
    """The best of two samplers for so many evaluations."""
    samplers = [co.Euler(), co.DPMpp2M()]
    return co.codesign(co.GaussianModel(SPECTRUM), steps=9, samplers=samplers, levels=24, points=3)


def transfer():
    """Examples that teach neighbouring levels: served weights and the pooling matrix."""
    model = co.GaussianModel(SPECTRUM, sampler=co.Euler(), coupling=co.Transfer(0.6, 1.5))
    return co.codesign(model, PRICES, 3e4, levels=20, stopping_sigma=0.02)


def shared_parameters():
    """A model whose levels share parameters: no sampler."""
    rng = np.random.default_rng(0)
    features, response = rng.standard_normal((12, 2, 5)), rng.standard_normal((5, 1))
    term = co.InformationError(features, response, sigma=np.geomspace(0.01, 50, 12), prior=np.eye(5))
    return co.Problem(term, [co.Compute(PRICES, part="training") <= 1e4]).solve(tolerance=1e-5)


def declared():
    """One program of one's own: floors, caps, a multiplier for each level, infinite and vanishing limits."""
    table = co.GaussianModel(SPECTRUM, terminal="rescale").coefficients(0.02, 20)
    terms = co.ScoreError(table) + co.Discretization(table) + co.Truncation(table)
    limits = [
        co.Compute(PRICES) <= 1e5, co.Floor(10.0, "density"), co.Cap(9000.0, "density", low=0.3, high=1.0),
        co.Monotone("decreasing"), co.Steps() <= 30,
    ]  # fmt: skip
    return co.Problem(terms, limits).solve()


def estimated(**options):
    """A model measured on the exact denoiser of the spectrum."""
    import torch

    from codesign_opt.estimate import network
    from codesign_opt.testbed import LinearDenoiser

    lam = SPECTRUM.eigenvalues
    draws = torch.randn((1000, 8), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    quick = {"levels": 8, "draws": 16, "fine_steps": 32, "seed": 1, "evaluations": 20_000}
    return network(LinearDenoiser(lam), draws * torch.as_tensor(np.sqrt(lam)), **quick, **options)


def measured():
    """A denoiser asked by its calls, a training log: its own grid is measured, its learning curves warn."""
    edges, lam = np.geomspace(0.002, 80.0, 13), SPECTRUM.eigenvalues
    log = Path("loss.csv")
    with log.open("w") as file:
        file.write("examples,sigma,loss\n")
        for row in range(40):
            for low, high in pairwise(edges):
                sigma = np.sqrt(low * high)
                floor, seen = (lam * sigma**2 / (lam + sigma**2)).sum(), 100 * (row + 0.5) * 2.7 / np.log(high / low)
                gain = 0.0 if sigma < 0.01 else 100 / seen
                file.write(f"100,{sigma:.6g},{floor * (1 + gain):.8g}\n")
    run = co.TrainingRun(density=co.LogNormal(-1.2, 1.2), iterations=2_000, batch=256, log=log)
    model = estimated(training=run)
    log.unlink()
    return co.codesign(model, PRICES, 3e5, points=3, levels=24)


def measured_sampler():
    """The sampler of a measured denoiser alone, its last level free to move."""
    return co.codesign(estimated(), steps=5, points=3, levels=24)


def predicted():
    """A measured model without its denoiser: the error of the grid is predicted."""
    estimated().save("model.npz")
    model = co.EstimatedModel.load("model.npz")
    Path("model.npz").unlink()
    return co.codesign(model, steps=40, points=3, levels=24)


PLANS = (
    gaussian, training_only, sampler_only, sampler_choice, transfer, shared_parameters, declared, measured,
    measured_sampler, predicted,
)  # fmt: skip


def answers(plan):
    """What the plan's methods give, as plain values; errors by their message."""
    at = np.geomspace(plan.levels.edges[0], plan.levels.edges[-1], 9)

    def asked(question):
        try:
            return question()
        except (ValueError, TypeError) as error:
            return f"{type(error).__name__}: {error}"

    known = {"number_of_steps": plan.number_of_steps}
    if plan.examples.sum() > 0:
        known["samples"] = plan.sample_sigmas(8, np.random.default_rng(0), co.LogNormal())[1].tolist()
    return known | {
        "density": asked(lambda: plan.training_density(at).tolist()),
        "lognormal": asked(lambda: list(plan.training_density.lognormal())),
        "score_error": asked(lambda: plan.training_density.score_error(2.0 * plan.examples)),
        "integer_examples": asked(lambda: [plan.integer_examples()[0].tolist(), plan.integer_examples()[1]]),
        "integer_examples_of_500": asked(lambda: plan.integer_examples(500)[0].tolist()),
        "json": asked(lambda: plan.export("json")),
        "csv": asked(lambda: plan.export("csv")),
        "comfyui": asked(lambda: plan.export("comfyui")),
    }


def words(figure):
    """Every word of a plan's page, and where its lines lie."""
    figure.canvas.draw()
    axes = [
        {
            "title": ax.get_title(loc="left"),
            "labels": [ax.get_xlabel(), ax.get_ylabel()],
            "legend": ax.get_legend_handles_labels()[1],
            "ticks": [text.get_text() for text in ax.get_yticklabels() if text.get_text()[:1].isalpha()],
            "texts": [text.get_text() for text in ax.texts],
            "lines": [[float(np.nansum(x)) for x in line.get_data()] for line in ax.lines],
        }
        for ax in figure.axes
    ]
    return {"title": figure.get_suptitle(), "proof": figure.get_supxlabel(), "axes": axes}


if __name__ == "__main__":
    if co.__version__ != "0.1.0":
        raise SystemExit(f"this is version {co.__version__}; the files are those of version 0.1.0.")
    folder = Path(sys.argv[1])
    for make in PLANS:
        plan = make()
        plan.save(folder / f"{make.__name__}.json")
        plan = co.Plan.load(folder / f"{make.__name__}.json")
        (folder / f"{make.__name__}.txt").write_text(f"{plan}\n\n{plan.table()}\n\n{plan!r}\n", encoding="utf-8")
        said = {**answers(plan), "page": words(plan.plot())}
        (folder / f"{make.__name__}.answers.json").write_text(json.dumps(said), encoding="utf-8")
