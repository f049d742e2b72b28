"""GaussianModel: data known by their spectrum. Exact laws of any grid, and the optimizer's coefficients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..basics.checks import shown
from ..ingredients.coupling import Coupling
from ..ingredients.metrics import Wasserstein
from ..ingredients.process import Process
from ..ingredients.spectrum import Spectrum
from ..samplers.members import Sampler
from ..training.optimisers import TrainingNoise
from .gaussian_batch import GaussianBatch
from .gaussian_settled import GaussianSettled

__all__ = ["GaussianModel"]


@dataclass(frozen=True, eq=False)
class GaussianModel(GaussianBatch, GaussianSettled):
    """Everything the planner asks of data that are known by their covariance (docs/theory.md sections 2 to 6).

    Args:
        spectrum: eigenvalues of the data covariance, with the mean where it matters.
        process: forward process; only its range of sigma enters the plan.
        sampler: how one step acts.
        training: what training leaves in the score.
        coupling: over which stretch of log sigma one error of the denoiser persists.
        terminal: "denoise" (the last step goes to zero noise, as real samplers do) or "rescale".
        start: "noise" begins at N(0, sigma_max^2 I), as real samplers do; "mean" shifts that to the data's
            mean, which is free and often worth much (section 1); "marginal" begins at the exact law.
        metric: what errors are counted in: co.Wasserstein(), co.Features(weights) or co.KL(direction), for diagonal
            training alone but the first.

    Raises:
        ValueError: a field of the wrong type or an unknown name.

    >>> import codesign_opt as co
    >>> import numpy as np
    >>> model = GaussianModel(co.Spectrum.power_law(8, exponent=1.5), terminal="rescale", start="marginal")
    >>> root = np.sqrt(model.spectrum.eigenvalues)
    >>> round(model.truncation(0.1), 6) == round(float(np.sum((np.sqrt(root**2 + 0.01) - root) ** 2)), 6)
    True
    """

    def to_dict(self) -> dict[str, Any]:
        """The model as plain values, ready for json; `from_dict` restores it.

        Raises:
            ValueError: a weight of the training that is a function of sigma, which a file cannot hold, or a metric
                other than co.Wasserstein().

        >>> import codesign_opt as co
        >>> model = GaussianModel(co.Spectrum.from_bands([1.0], [2]), sampler=co.Euler(), start="mean")
        >>> GaussianModel.from_dict(model.to_dict()).describe() == model.describe()
        True
        """
        if not isinstance(self.metric, Wasserstein):
            raise ValueError(f"GaussianModel.metric is {shown(self.metric)}, which has no plain form yet.")
        parts = ("spectrum", "process", "sampler", "training", "coupling")
        record: dict[str, Any] = {name: getattr(self, name).to_dict() for name in parts}
        return record | {"terminal": self.terminal, "start": self.start}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> GaussianModel:
        """Restore what `to_dict` wrote.

        Raises:
            ValueError: a part that is missing, or of a name that is unknown here, as that of a class of one's own
                that was not defined yet.
        """
        kinds: dict[str, Any] = {
            "spectrum": Spectrum, "process": Process, "sampler": Sampler, "training": TrainingNoise,
            "coupling": Coupling,
        }  # fmt: skip
        missing = [name for name in (*kinds, "terminal", "start") if name not in record]
        if missing:
            raise ValueError(f"GaussianModel.from_dict: {missing[0]} is missing from the record.")
        parts = {name: kind.from_dict(record[name]) for name, kind in kinds.items()}
        return cls(**parts, terminal=record["terminal"], start=record["start"])
