"""What methods are called on, and their plausible arguments where those of `parameters` mean something else."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

import codesign_opt as co
from tests.hostile.plausible import (
    FEATURES,
    GRID,
    LEVELS,
    PRICES,
    data,
    denoiser,
    errors,
    estimated,
    evidence,
    information,
    model,
    net,
    ones,
    plan,
    problem,
    run,
    scheduler,
    spectrum,
    table,
)

HELD_OUT = co.estimate.Draws((4,), 8, 80.0, name="held", like=torch.zeros((), dtype=torch.float64))
RULES = co.training.ReplanRules(at=(0.5,), levels=8)


@cache
def folder() -> Path:
    return Path(tempfile.mkdtemp())


@cache
def log() -> Path:
    """A run's losses, which fall."""
    path, rng = folder() / "log.csv", np.random.default_rng(0)
    stats = co.LevelStatistics([0.05, 0.5, 5.0, 80.0], run="a", learning_rate=0.01, batch=64)
    for step in range(40):
        sigma = np.exp(rng.normal(0.0, 1.2, 64))
        stats.record(sigma, 0.2 * sigma**2 / (1 + sigma**2) * (1 + 300 / (step + 1)) * rng.chisquare(8, 64) / 8)
    stats.save(path)
    return path


@cache
def curves() -> co.LearningCurves:
    return co.learning_curves(log(), levels=3)


@cache
def audited() -> co.Audit:
    return co.audit(model(), PRICES, sigmas=GRID, run=run(), levels=8, points=3, polish=False, outer_tolerance=1.0)


@cache
def compared() -> co.Comparison:
    return co.compare(model(), ["edm", "log_snr"], (5,), plan=False, samplers=[co.Euler()])


@cache
def written() -> Path:
    return compared().to_csv(folder() / "comparison.csv")


@cache
def searched() -> co.Plan:
    """A plan whose stopping point was searched."""
    return co.codesign(model(), PRICES, 1e4, levels=40, points=6, polish=False)


@cache
def sampled() -> co.GaussianModel:
    """A model whose spectrum was measured."""
    data = np.random.default_rng(0).normal(size=(200, 4)) * np.array([1.0, 0.5, 0.2, 0.1])
    return co.GaussianModel(co.Spectrum.from_samples(data))


@cache
def planned_on_samples() -> co.Plan:
    return co.codesign(sampled(), PRICES, 1e4, levels=8, stopping_sigma=0.05, polish=False)


@cache
def swept() -> co.Frontier:
    return co.frontier(model(), PRICES, [1e4, 2e4], levels=8, stopping_sigma=0.05, polish=False)


@cache
def saved_curves() -> Path:
    curves().save(folder() / "loaded_curves.json")
    return folder() / "loaded_curves.json"


def validated() -> co.Validation:
    return co.Validation.of(model(), GRID, np.full(8, 1e3), levels=LEVELS, replicas=2)


def reported() -> Any:
    """A run that has recorded something."""
    found, rng = co.training.Replanner(spectrum(), 1000, rules=RULES), np.random.default_rng(0)
    for step in range(8):
        sigma = np.exp(rng.normal(0.0, 1.2, 50))
        found.record(sigma, 0.2 * sigma**2 / (1 + sigma**2) * (1 + 300 / (step + 1)) * rng.chisquare(8, 50) / 8)
    return found


def exported() -> co.DiffusersExport:
    return plan().export("diffusers", scheduler())


def grid_errors() -> Any:
    return co.estimate.GridErrors(np.array([1.0, 0.5, 0.7]))


# what methods are called on
INSTANCES: dict[str, Callable[[], Any]] = {
    "GaussianModel": model, "EstimatedModel": estimated, "Plan": searched, "Problem": problem, "Spectrum": spectrum,
    "Prices": lambda: PRICES, "Levels": lambda: LEVELS, "TrainingRun": run, "TrainingDensity":
    lambda: plan().training_density, "EDM": lambda: co.EDM(), "VP": lambda: co.VP(), "VE": lambda: co.VE(),
    "FlowMatching": lambda: co.FlowMatching(), "Cosine": lambda: co.Cosine(), "Heun": lambda: co.Heun(), "UniPC":
    lambda: co.UniPC(), "DPMpp2M": lambda: co.DPMpp2M(), "EulerMaruyama": lambda: co.EulerMaruyama(), "HeunChurn":
    lambda: co.HeunChurn(), "LinearMultistep": lambda: co.LinearMultistep(GRID, np.zeros(5), np.ones((5, 1))),
    "LogNormal": lambda: co.LogNormal(), "AveragedSGD": lambda: co.AveragedSGD(), "ConstantStepSGD":
    lambda: co.ConstantStepSGD(1e-3, 8), "SGD": lambda: co.SGD(co.LearningRate(1e-3), 8, 50), "Adam":
    lambda: co.Adam(co.LearningRate(1e-3), 8, 50), "Measured": lambda: co.Measured([0.1, 1.0, 10.0], np.ones(3)),
    "Local": lambda: co.Local(), "PerLevel": lambda: co.PerLevel([0.01, 1.0, 100.0]), "PerStep": lambda:
    co.PerStep(1.0), "Transfer": lambda: co.Transfer(), "LevelStatistics": lambda: co.LevelStatistics([0.1, 1.0, 10.0]),
    "LearningRate": lambda: co.LearningRate(0.01), "WeightAverage": lambda: co.WeightAverage.power(0.1), "Stage":
    lambda: co.Stage("a", 1.0), "Stages": lambda: co.Stages([co.Stage("a", 1.0)]), "StepSizeError": lambda:
    co.StepSizeError(ones, ones), "KLDivergence": lambda: co.KLDivergence(co.LogNormal()), "Turnover": lambda:
    co.Turnover(np.ones(8)), "peers.EDMRho": lambda: co.peers.EDMRho(), "peers.LogSNR": lambda: co.peers.LogSNR(),
    "peers.Evidence": evidence, "peers.OnlineSchedule": lambda: co.peers.OnlineSchedule([80.0, 1.0, 0.1]),
    "peers.Weighting": lambda: co.peers.weighting("edm"), "peers.OnLevels": lambda: co.peers.OnLevels(LEVELS,
    np.full(8, 0.125)), "training.SigmaSampler": lambda: co.training.SigmaSampler(co.LogNormal()), "testbed.Mixture":
    lambda: co.testbed.circle8(), "estimate.Moments": lambda: co.estimate.Moments((4,)), "estimate.TransferKernel":
    lambda: co.estimate.TransferKernel(1.0), "SharedParameters": lambda: co.SharedParameters(LEVELS, FEATURES,
    np.ones((8, 3, 2))),
    "Audit": audited, "Comparison": compared, "Frontier": swept, "LearningCurves": curves, "WhatIf":
    lambda: co.what_if(searched()), "Validation": validated, "DiffusersExport": exported,
    "TrainingExport": lambda: plan().export_training("edm"), "training.Replanner": reported, "Features":
    lambda: co.Features(np.ones(4)), "estimate.Estimate": lambda: co.estimate.Estimate(np.ones(2), np.ones(2), 3),
    "estimate.GridErrors": grid_errors, "estimate.TangentGram": lambda: co.estimate.TangentGram(LEVELS.sigma,
    np.ones((8, 2, 8, 2)), True), "estimate.PASSteps": lambda: co.estimate.PASSteps(GRID, np.zeros((5, 4))),
}  # fmt: skip

# several ways to call one method, or what was added to the package later
OF_METHODS: dict[str, dict[str, Callable[[], Any]]] = {
    "learning_curves": {"runs": log, "levels": lambda: 3},
    "uncertainty": {
        "plan": planned_on_samples,
        "model": sampled,
        "prices": lambda: PRICES,
        "budget": lambda: 1e4,
        "levels": lambda: 8,
    },
    "robust": {
        "prices": lambda: PRICES,
        "budget": lambda: 1e4,
        "within": lambda: co.Box(score=0.1),
        "levels": lambda: 8,
        "stopping_sigma": lambda: 0.05,
    },
    "report": {"result": audited, "path": lambda: folder() / "page.html"},
    "read_solver": {"source": lambda: co.LinearMultistep(GRID, np.zeros(5), np.ones((5, 1)))},
    "training.Replanner": {"model": spectrum, "examples": lambda: 1000, "rules": lambda: RULES},
    "peers.loss_second_moment": {"log": log},
    "peers.risk_from_log": {"log": log},
    "peers.beam_path": {"cost": lambda: lambda i, j: (1.0 + j - i) ** 2, "weight": lambda: 1.0},
    "peers.coordinate_search": {"cost": lambda: co.peers.EulerCost(1.0)},
    "peers.subdivided": {"cost": lambda: co.peers.EulerCost(1.0)},
    "peers.LearnedUncertainty.fit": {"log": log},
    "peers.OnlineSchedule().observe": {"intervals": lambda: [0, 1], "squared": lambda: [1.0, 1.0]},
    "peers.TimeUniform().sigma": {"time": lambda: 0.5},
    "peers.TimeUniformToZero().sigma": {"time": lambda: 0.5},
    "Comparison().cell": {"sampler": lambda: "euler", "evaluations": lambda: 5},
    "Comparison().row": {"peer": lambda: "edm", "sampler": lambda: "euler", "evaluations": lambda: 5},
    "Comparison().geometric_mean_ratio": {"peer": lambda: "edm", "base": lambda: "log_snr"},
    "Comparison().losses": {"peer": lambda: "edm"},
    "Comparison().ratios": {"base": lambda: "edm"},
    "Comparison().share_level": {"peer": lambda: "edm"},
    "Comparison().to_csv": {"path": lambda: folder() / "again.csv"},
    "Comparison().report": {"path": lambda: folder() / "page.html"},
    "Comparison.read": {"file": lambda: io.StringIO(written().read_text())},
    "Audit().report": {"path": lambda: folder() / "page.html"},
    "Plan().report": {"path": lambda: folder() / "page.html"},
    "Plan().save": {"path": lambda: folder() / "plan.json"},
    "Plan.load": {"path": lambda: plan().save(folder() / "loaded.json")},
    "Plan().export": {"target": lambda: "comfyui"},
    "Plan().distillation_weights": {"base": lambda: co.LogNormal()},
    "EstimatedModel().save": {"path": lambda: folder() / "model.json"},
    "EstimatedModel.load": {"path": lambda: estimated().save(folder() / "loaded_model.json")},
    "Measured().save": {"path": lambda: folder() / "law.json"},
    "Measured.load": {"name": lambda: "mlp_digits"},
    "Measured.of": {"errors": curves},
    "LearningCurves().save": {"path": lambda: folder() / "curves.json"},
    "LearningCurves.load": {"path": saved_curves},
    "LevelStatistics().save": {"path": lambda: folder() / "rows.csv"},
    "LevelStatistics.resume": {"path": log, "levels": lambda: [0.05, 0.5, 5.0, 80.0], "run": lambda: "a"},
    "LevelStatistics().record_flow": {"loss": lambda: [0.5, 1.0]},
    "training.Replanner().record_flow": {"loss": lambda: [0.5, 1.0]},
    "testbed.Recipe": {"data": lambda: data, "model": lambda: net},
    "testbed.Recipe().finished": {"home": folder},
    "DiffusersExport().apply": {"scheduler": scheduler},
    "DiffusersExport().configured": {"scheduler": scheduler},
    "DiffusersExport().holding": {"scheduler": scheduler},
    "DiffusersExport().in_pipeline": {"pipeline": lambda: "StableDiffusionPipeline", "scheduler": scheduler},
    "DiffusersExport().noted": {"note": lambda: "mine"},
    "LinearMultistep.of": {"sampler": lambda: co.Euler()},
    "EstimatedModel().levels_above": {"stop": lambda: 0.05},
    "GaussianModel().levels_above": {"stop": lambda: 0.05},
    "EstimatedModel().truncation_and_start": {"stop": lambda: 0.05},
    "GaussianModel().truncation_and_start": {"stop": lambda: 0.05},
    "Features.of_matrix": {"metric": lambda: np.eye(4), "eigenvectors": lambda: np.eye(4)},
    "Prices.from_throughput": {"examples_per_second": lambda: 1e3, "evaluations_per_second": lambda: 3e3},
    "Problem().sweep": {"what": lambda: "Compute", "values": lambda: [1e4, 2e4]},
    "Validation.of": {"examples": lambda: np.full(8, 1e3), "levels": lambda: LEVELS, "replicas": lambda: 2},
    "validate": {"replicas": lambda: 2},
    "what_if": {"plan": searched},
    "estimate.EvidenceMeasurement().calls": {"examples": lambda: 100},
    "estimate.FittedRival": {"held_out": grid_errors},
    "estimate.StepRule().history": {"sigma": lambda: 1.0, "start": lambda: 80.0},
    "estimate.Draws().noise": {"chunk": lambda: 0},
    "estimate.Draws().rows": {"chunk": lambda: 0},
    "estimate.Draws().start": {"chunk": lambda: 0},
    "estimate.Reference().terminal_states": {"chunk": lambda: 0},
    "estimate.Reference().items_in": {"folder": lambda: None, "question": dict},
    "estimate.Reference().check_same": {"function": lambda: co.estimate.Denoiser(denoiser()), "folder": folder},
    "estimate.GridErrors().difference": {"other": grid_errors},
    "estimate.GridErrors().ratio": {"other": grid_errors},
    "estimate.Ledger().item": {"compute": lambda: lambda: {"value": 1.0}},
    "estimate.ModelFamily().told": {"t": lambda: torch.ones(2), "top": lambda: 1000.0},
    "estimate.TrainingHistory.of": {"training": run},
    "estimate.TrainingPath().levels": {"rng": lambda: np.random.default_rng(0)},
    "estimate.TransferKernel.from_errors": {"errors": errors},
    "estimate.TransferKernel.from_features": {"features": lambda: np.ones((2, 8, 2, 3)), "sigma": lambda: LEVELS.sigma},
    "estimate.TransferKernel.from_information": {"term": information},
    "estimate.TransferKernel().smoothed": {"density": lambda: np.ones(8)},
    "training.ReplanRules().due": {"before": lambda: 1, "after": lambda: 2, "total": lambda: 10, "step": lambda: 1},
}
for _rival in ("Bespoke", "LD3", "OptimalSteps", "PAS", "S4S"):
    OF_METHODS[f"estimate.{_rival}().fit"] = {"held_out": lambda: HELD_OUT, "budget": lambda: 400}
for _law in ("SGD", "Adam", "AveragedSGD", "ConstantStepSGD"):
    OF_METHODS[f"{_law}().warnings_for"] = {"examples": lambda: np.full(3, 1e3)}
for _term in ("CVaR", "CoherentScore", "Compute", "Discretization", "GramDiscretization", "InformationError",
              "ScoreError", "KLDivergence", "ScoreErrors", "SeparableDiscretization", "SharedParameters", "Smooth",
              "SoftConstraint", "Stages", "StepSizeError", "Steps", "Truncation", "Turnover", "WorstCase"):  # fmt: skip
    OF_METHODS[f"{_term}().over"] = {"samplings": lambda: [co.Sampling("a", table(), 10.0)]}
for _kind in ("Process", "EDM", "VP", "VE", "Cosine", "FlowMatching"):
    OF_METHODS[f"{_kind}.named"] = {"value": lambda: "edm"}
for _kind in ("Sampler", "AdamsBashforth", "Ancestral", "DEIS", "DPMpp2M", "DPMpp2S", "DPMpp3M", "Euler",
              "EulerMaruyama", "Heun", "HeunChurn", "IPNDM", "LinearMultistep", "UniPC",
              "estimate.PASSteps"):  # fmt: skip
    OF_METHODS[f"{_kind}.named"] = {"value": lambda: "heun"}
