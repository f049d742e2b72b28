"""The law of the stopping point: exponents of certified optima in the learning rate, against those claimed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

import codesign_opt as co

__all__ = ["POWERS", "fixed_laws", "stopping_laws"]

# sigma^2 ~ r^p near r = 0; VE starts at its own lowest level, where sigma is no power of the time
POWERS = {"edm": 2.0, "flow": 2.0, "vp": 1.0}
_RATES = np.geomspace(1e-5, 1e-3, 5)


def stopping_laws(levels: int = 60) -> Iterator[dict[str, Any]]:
    """A row per terminal map and spectrum: the exponent of sigma_r, or why none is told, and those of r by process."""
    spectra = {"lambda_min > 0": [1.0, 0.25], "lambda_min = 0": [0.25, 0.0]}
    for terminal in ("denoise", "rescale"):
        for name, values in spectra.items():
            model = co.GaussianModel(
                co.Spectrum.from_eigenvalues(values), co.EDM(1e-4, 5.0), start="marginal", terminal=terminal,
                training=co.ConstantStepSGD(1e-3, 1, parameterization="x0"),
            )  # fmt: skip
            row: dict[str, Any] = {"terminal": terminal, "spectrum": name, "exponent": "", "refused": ""}
            try:
                law = co.stopping_exponent(model, _RATES, steps=4000, search=(3e-4, 0.4), levels=levels, points=10)
                row["exponent"] = law.exponent
            except ValueError as error:
                row["refused"] = str(error).split(";")[0].removeprefix("stopping_exponent: ")
            for process, power in POWERS.items():
                row[f"in r, {process}"] = 2 / power * row["exponent"] if row["exponent"] else ""
            yield row


def fixed_laws() -> list[dict[str, float]]:
    """Exact minimisers of r^2p + tau r^(1-p), the trade of the paper, and of its logarithm at p = 1."""
    from scipy.optimize import minimize_scalar

    rows, rates = [], np.geomspace(1e-10, 1e-6, 5)
    for p in (1.0, 1.5, 2.0, 3.0):
        best = [
            minimize_scalar(
                lambda u, p=p, tau=tau: np.exp(2 * p * u) + tau * (np.exp((1 - p) * u) if p > 1 else -u),
                bounds=(-20.0, 0.0), method="bounded", options={"xatol": 1e-10},
            ).x
            for tau in rates
        ]  # fmt: skip
        slope = float(np.polyfit(np.log(rates), best, 1)[0])
        rows.append({"p": p, "measured": slope, "derived": 1 / (3 * p - 1), "paper": 1 / (2 + p)})
    return rows
