"""What one pilot run tells about where to train: docs/theory.md section 6.3. No torch in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ..basics.checks import Array, entries, number, scale_of, vector
from ..basics.fields import holds
from ..ingredients.coupling import Transfer
from ..ingredients.densities import LogNormal, SigmaDensity
from ..ingredients.levels import Levels
from ..ingredients.process import EDM, Process
from ..ingredients.spectrum import Spectrum
from ..ingredients.training_run import TrainingRun
from .estimated import EstimatedModel

__all__ = ["WIDTH_ACCURACY", "PilotEvidence", "spread_of", "widest_shown"]

WIDTH_ACCURACY = 1.3  # a factor: over pairs of checkpoints and ranges of noise levels (docs/theory.md section 6.3)
_NINE_TENTHS = 3.29  # standard deviations of a normal
_LENGTH = 2.7  # correlation length; of a density's shape it is a common factor
_FAR = 100.0  # standard errors that anybody asks about


def widest_shown(spread: float, accuracy: float = WIDTH_ACCURACY) -> float:
    """The widest transfer kernel that a pilot of this standard deviation of log sigma can tell from any wider one.

    What its levels show is how far away the examples were that taught them: in mean square d^2 = s^2 w^2 / (s^2 + w^2),
    for a density of standard deviation s and a kernel of width w. Solved for w, a relative error of d grows by
    1 + w^2 / s^2: known within a factor `accuracy` at w << s, w is known within nothing where that product reaches one
    (docs/theory.md section 6.3).

    >>> round(widest_shown(1.2), 2)
    1.83
    """
    return number(spread, "spread", positive=True) * float(np.sqrt(max(1 / (accuracy - 1) - 1, 0.0)))


def spread_of(density: SigmaDensity) -> float:
    """Standard deviation of log sigma; of a density with long tails that of the normal with its middle nine tenths.

    >>> spread_of(LogNormal(-1.2, 1.2))
    1.2
    """
    if isinstance(density, LogNormal):
        return density.std
    low, high = np.log(density.quantile(np.array([0.05, 0.95])))
    return float(high - low) / _NINE_TENTHS


@dataclass(frozen=True, eq=False)
class PilotEvidence:
    """Errors that a pilot left, what they do to samples, and how far levels teach each other.

    Only noise levels at which the pilot trained: elsewhere a network extrapolates, whatever it was trained on.

    Args:
        sigma: (M,) ascending noise levels, data units.
        left, left_error: (M,) reducible squared error of the denoiser at the end of the run, with its standard error.
        gain: (M,) g^2, squared distance of samples per squared error of the denoiser's output.
        run: the pilot, with its density.
        width: of the transfer kernel, standard deviation in log sigma, > 0.
        measured_width: as it came out of the checkpoints; None where nothing told it.
        spectrum: of the data.
        process: its range of noise levels is planned over.
        weights: which weights these are, for prints.
        notes: what was left out, bounded or assumed.

    Raises:
        ValueError: arrays of different length or out of range, no error left at any level.
    """

    sigma: Array
    left: Array
    left_error: Array
    gain: Array
    run: TrainingRun
    width: float
    spectrum: Spectrum
    measured_width: float | None = None
    process: Process = field(default_factory=EDM)
    weights: str = "weights as given"
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        put, name = object.__setattr__, "PilotEvidence"
        put(self, "sigma", vector(self.sigma, f"{name}.sigma", minimum_length=2, positive=True, ascending=True))
        for field_name in ("left", "left_error", "gain"):
            value = vector(getattr(self, field_name), f"{name}.{field_name}", length=self.sigma.size, nonnegative=True)
            put(self, field_name, value)
        put(self, "width", number(self.width, f"{name}.width", positive=True))
        put(self, "notes", entries(self.notes, f"{name}.notes"))
        holds(
            self, run=TrainingRun, spectrum=Spectrum, measured_width=(float, None), process=Process, weights=str
        )  # fmt: skip
        if not np.any(self.left * self.gain > 0):
            raise ValueError(
                f"{name}.left is 0 at every level: at none of them had the loss fallen by the end of the pilot, "
                "which says nothing of where to train; give an earlier checkpoint, or a longer pilot."
            )

    @cached_property
    def levels(self) -> Levels:
        """96 levels over the range of the process: narrow against any density that is planned."""
        return Levels.log_uniform(self.process.sigma_min, self.process.sigma_max, 96)

    @cached_property
    def own(self) -> Array:
        """(96,) examples of the pilot on each level."""
        return self.run.examples_on(self.levels)

    def left_on(self, sigma: Array, beyond: float = 0.0) -> Array:
        """(L,) error left at other levels, above the one known best `beyond` standard errors from what was found.

        Between the levels its ratio to sigma^2 / (sigma^2 + sigma_data^2) is interpolated in logarithms, beyond their
        ends it stays.
        """
        scale = self.spectrum.sigma_data
        shape, own = (level**2 / (level**2 + scale**2) for level in (sigma, self.sigma))
        spread = np.divide(self.left_error, self.left, out=np.zeros_like(self.left), where=self.left > 0)
        above = np.arange(self.sigma.size) >= int(np.argmin(spread))
        logs = np.log(np.maximum(self.left, 1e-300) / own) + np.where(above, beyond * spread, 0.0)
        return np.asarray(shape * np.exp(np.interp(np.log(sigma), np.log(self.sigma), logs)))

    def errors(self, examples: Array, width: float, beyond: float = 0.0) -> Array:
        """(D,) predicted error of densities, (D, 96) examples on the levels: l int g^2 left (T own) / (T density).

        What `model` says of them at many steps, the examples that one is worth before the first left out.
        """
        pooling = Transfer(width, _LENGTH).pooling(self.levels)
        share = _LENGTH * self.gain_on_levels * self.left_on(self.levels.sigma, beyond) * self.levels.log_width
        return np.asarray((share * (pooling @ self.own) / np.maximum(examples @ pooling.T, 1e-300)).sum(axis=1))

    @cached_property
    def gain_on_levels(self) -> Array:
        """(96,) g^2, interpolated in logarithms."""
        logs = np.log(np.maximum(self.gain, 1e-300))
        return np.asarray(np.exp(np.interp(np.log(self.levels.sigma), np.log(self.sigma), logs)))

    def model(self, width: float, beyond: float = 0.0) -> EstimatedModel:
        """The pilot as a model whose score error at the pilot's own density is what it left, for a transfer width.

        kappa1 = error left x the examples that served a level, those of its neighbours by the kernel.
        """
        beyond = number(beyond, "PilotEvidence.model: beyond", maximum=_FAR)
        if beyond < -_FAR:
            raise ValueError(f"PilotEvidence.model: beyond is {beyond:g}; it must be >= {-_FAR:g} standard errors.")
        levels, coupling = self.levels, Transfer(scale_of(width, "PilotEvidence.model: width"), _LENGTH)
        served = coupling.pooling(levels) @ self.own / levels.log_width * _LENGTH
        size, left = len(levels), self.left_on(levels.sigma, beyond)
        return EstimatedModel(
            levels.sigma,
            np.zeros((1, size)),
            np.zeros(size),
            self.spectrum,
            process=self.process,
            terminal="rescale",
            sensitivity=self.gain_on_levels,
            error_variance=left * served,
            coupling=coupling,
        )
