"""What losses against examples say, by noise level: docs/theory.md section 5, learning-curve route."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from ..basics.checks import Array, entries, vector
from ..basics.files import write_whole
from ..basics.json_text import json_file
from ..basics.tabular import Tabular
from ..basics.wording import aligned, quantity
from .error_law import ErrorLaw, TrainingErrors

__all__ = ["LearningCurves"]

_ARRAYS = (
    "sigma", "bayes_floor", "reducible", "step_noise", "bayes_floor_error", "reducible_error", "step_noise_error",
    "misfit",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class LearningCurves(TrainingErrors, Tabular):
    """E|D - x0|^2 = L + kappa1 / m + kappa2 tau / beta by noise level, fitted to logs.

    Attributes:
        sigma: (M,) noise levels with enough rows, ascending, data units.
        bayes_floor: (M,) L, squared data units: the loss that no training removes, and all that the rows did
            not tell apart from it.
        reducible: (M,) kappa1, squared data units times examples.
        step_noise: (M,) kappa2, squared data units per learning rate over batch.
        bayes_floor_error, reducible_error, step_noise_error: (M,) bootstrap standard errors.
        misfit: (M,) chi^2 per degree of freedom of the fit, NaN where the log does not tell its noise.
        log_width: m counts the examples within this length in log sigma; None: those on the level itself.
        transfer_width: width in log sigma of the Gaussian by which examples teach neighbouring levels; NaN
            where the log does not tell it (0 was used).
        transfer_error: its standard error.
        smoothing: "none", "spline" or "tv".
        notes: what was left out, assumed or not identified.

    Raises:
        ValueError: arrays of different length or out of range.
    """

    sigma: Array
    bayes_floor: Array
    reducible: Array
    step_noise: Array
    bayes_floor_error: Array
    reducible_error: Array
    step_noise_error: Array
    misfit: Array
    log_width: float | None
    transfer_width: float
    transfer_error: float
    smoothing: str = "none"
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        sigma = vector(self.sigma, "LearningCurves.sigma", positive=True, ascending=True)
        object.__setattr__(self, "sigma", sigma)
        for name in ("bayes_floor", "reducible", "step_noise"):
            value = vector(getattr(self, name), f"LearningCurves.{name}", length=sigma.size, nonnegative=True)
            object.__setattr__(self, name, value)
            error = vector(getattr(self, f"{name}_error"), f"LearningCurves.{name}_error", length=sigma.size)
            object.__setattr__(self, f"{name}_error", error)
        object.__setattr__(self, "notes", entries(self.notes, "LearningCurves.notes"))

    def law(self) -> ErrorLaw:
        """kappa1 and kappa2 as they were fitted; the Bayes loss says what of kappa1 is rounding."""
        width = float(self.transfer_width)
        return ErrorLaw(
            self.sigma,
            self.reducible,
            self.reducible_error,
            self.step_noise,
            bayes_floor=self.bayes_floor,
            log_width=self.log_width,
            transfer_width=width if width > 0 else 0.0,  # NaN: fitted with each level for itself
            notes=self.notes,
            remedy='with a noisy log, smooth it: training=co.learning_curves(run, smoothing="spline")',
        )

    def columns(self) -> dict[str, Array]:
        """By noise level: floor, kappa1 and kappa2 with standard errors, and the misfit."""
        names = ("sigma", "bayes_floor", "bayes_floor_error", "reducible", "reducible_error", "step_noise",
                 "step_noise_error", "misfit")  # fmt: skip
        return {name: getattr(self, name) for name in names}

    def heading(self) -> list[str]:
        """How many levels were fitted."""
        return [f"Learning curves at {self.sigma.size} noise levels", *self.notes]

    def __str__(self) -> str:
        title = ("sigma", "", "floor", "+-", "kappa1", "+-", "kappa2", "+-")
        rows = [
            [quantity(v, 3) for v in (s,)] + [""] + [quantity(v, 3) for v in values]
            for s, *values in zip(
                self.sigma,
                self.bayes_floor, self.bayes_floor_error,
                self.reducible, self.reducible_error,
                self.step_noise, self.step_noise_error,
                strict=True,
            )
        ]  # fmt: skip
        width = "not identified" if np.isnan(self.transfer_width) else quantity(self.transfer_width, 2)
        lines = ["Learning curves: |D - x0|^2 = floor + kappa1 / m + kappa2 tau / batch"]
        lines += aligned(title, rows)
        lines += [f"transfer between levels, width in log sigma: {width}"]
        return "\n".join(lines + [f"note: {note}" for note in self.notes])

    def save(self, path: str | Path) -> None:
        """Write as JSON, atomically."""
        values = {
            key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in asdict(self).items()
        }
        text = json.dumps({"codesign_opt": "LearningCurves", **values}, indent=1)
        write_whole(path, text.replace("NaN", "null"))

    @classmethod
    def load(cls, path: str | Path) -> LearningCurves:
        """Read what `save` wrote; ValueError for another file."""
        try:
            values = json_file(path)
        except ValueError as error:
            raise ValueError(f"LearningCurves.load: {error}") from None
        if not isinstance(values, dict) or values.pop("codesign_opt", None) != "LearningCurves":
            raise ValueError(f"LearningCurves.load: {path} holds no learning curves.")
        for profile in ("transfer_widths", "transfer_chi2"):  # kept by version 0.1.0, read by nothing
            values.pop(profile, None)
        known = {field.name for field in fields(cls)}
        if set(values) != known:
            raise ValueError(f"LearningCurves.load: {path} has other fields: {sorted(set(values) ^ known)}.")
        for name in (*_ARRAYS, "transfer_width", "transfer_error"):
            array = np.array(values[name], dtype=np.float64)
            values[name] = array if array.ndim else float(array)
        return cls(**values)
