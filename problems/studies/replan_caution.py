"""How much a re-plan must win by moving: runs that plan themselves by several rules, short and long, against EDM's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

import codesign_opt as co
from codesign_opt.basics.checks import Array

from .equal_compute import EqualCompute
from .pilot_experiment import DEFAULT, SIGMA_MAX, SIGMA_MIN
from .replan_experiment import standard_error

__all__ = ["CAUTIONS", "caution_rows"]

CAUTIONS = (0.0, 0.2, 0.5, 1.0)
_LEVELS = np.append(np.geomspace(SIGMA_MAX, SIGMA_MIN, 20), 0.0)


def caution_rows(
    experiments: Iterable[EqualCompute], lengths: Sequence[int], seeds: Sequence[int]
) -> Iterator[dict[str, Any]]:
    """A row per data set and length: errors of the samples over those of EDM's density, by `ReplanRules(caution=...)`.

    Squared distances to the fine solution of a network trained much longer, with DPM-Solver++(2M) on twenty levels
    equal in log SNR; ± one standard error over the seeds, in pairs.
    """
    for experiment in experiments:
        for length in lengths:
            found = np.array([_errors(experiment, length, seed) for seed in seeds])
            row = {
                "data": experiment.data,
                "examples": length,
                "seeds": len(seeds),
                "EDM's error": float(found[:, 0].mean()),
            }
            for caution, own in zip(CAUTIONS, found[:, 1:].T, strict=True):
                ratio, error = own.mean() / found[:, 0].mean(), standard_error(own, found[:, 0])
                row[f"caution {caution:g}"] = f"{ratio:.3f} ± {error:.3f}"
            yield row


def _errors(experiment: EqualCompute, length: int, seed: int) -> Array:
    """(1 + C,) errors at EDM's density and by every rule, of networks trained side by side."""

    def compute() -> dict[str, Array]:
        spectrum = co.Spectrum.from_samples(experiment.images.double().numpy())
        rules = [co.training.ReplanRules(caution=caution) for caution in CAUTIONS]
        runs = [co.training.Replanner(spectrum, length, rules=each) for each in rules]
        fleet = experiment.fleet([DEFAULT, *runs], experiment.iterations(length), seed)
        made = [experiment.sampled(fleet.member(i), co.DPMpp2M(), _LEVELS) for i in range(1 + len(runs))]
        away = [(samples - experiment.truth).double().square().sum(1).mean() for samples in made]
        return {"errors": np.array([float(each) for each in away])}

    return experiment.ledger.item(f"caution/{length}-{seed}", compute)["errors"]
