"""Training as it was measured on a network, for data known by their spectrum: docs/theory.md section 5.7.

Least squares on m examples leaves p L / m in the denoiser's output, L the Bayes loss and p its parameters per output.
A network leaves kappa1 / m: `Measured` takes p = kappa1 / L from it, level by level, and from least squares how an
error is spread over the directions of the data.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..basics.checks import (
    Array,
    as_path,
    choice,
    instance,
    ndim,
    noise_level,
    noise_levels,
    number,
    scale_of,
    scales_of,
    shown,
    takes,
    vector,
)
from ..basics.files import write_whole
from ..basics.json_text import json_text
from ..ingredients.coupling import Coupling
from ..ingredients.spectrum import Spectrum
from .base import TrainingNoise
from .lower_bounds import MATRICES
from .optimisers import AveragedSGD

__all__ = ["Measured"]

_PLACE = resources.files(__package__) / "calibrations"
_KIND = "Measured"


@dataclass(frozen=True, eq=False)
class Measured(TrainingNoise):
    """Error of the denoiser's output E|D - D*|^2 = p L / m + f L, with p and f measured at M noise levels.

    L = sum_b n_b lambda_b sigma^2 / v_b is the Bayes loss of the data that are planned for, so that the law of one
    network serves data of another spectrum; p counts the parameters per output with which least squares would learn as
    slowly. Along direction b the variance of the slope is that of least squares times p. Between the levels p and f are
    interpolated in logarithms, beyond them they stay. `from_kappa1`, `of` and `load` make one from what is known.

    Args:
        sigma: (M,) ascending noise levels, data units.
        parameters: (M,) p > 0.
        log_width: m counts the examples within this length in log sigma; a number or (M,) numbers. A model whose
            coupling has another length counts within that.
        floor_share: (M,) f >= 0, what no number of examples removes; None: 0.
        matrix: "diagonal" (errors along each direction of the data) or "full" (spread over all pairs of directions).
        prior: "untrained" or None; with parameterization and sigma_data that of the network before its first example,
            as in `AveragedSGD`.
        source: which network was measured, for prints.
        record: how, as plain values.

    Raises:
        ValueError: arrays of different length or out of range, an unknown name.

    >>> Measured([0.1, 10.0], [50.0, 70.0]).weight_variance([1.0], [1.0])[0].round(3)  # 1/4 of sqrt(50 x 70)
    array([[14.79]])
    """

    sigma: Array
    parameters: Array
    log_width: float | Array = 2.7
    floor_share: Array | None = None
    matrix: str = "diagonal"
    prior: str | None = "untrained"
    parameterization: str = "edm"
    sigma_data: float = 0.5
    source: str = ""
    record: Mapping[str, Any] = field(default_factory=dict)

    # a network's error is that of all it learns, on the images it has: what was measured holds both already
    intercept = False
    dataset_size = None
    replacement = True

    def __post_init__(self) -> None:
        put, name = object.__setattr__, "Measured"
        put(self, "sigma", vector(noise_levels(self.sigma, f"{name}.sigma"), f"{name}.sigma", ascending=True))
        size = self.sigma.size
        put(self, "parameters", scales_of(self.parameters, f"{name}.parameters", length=size))
        if ndim(self.log_width):
            put(self, "log_width", scales_of(self.log_width, f"{name}.log_width", length=size))
        else:
            put(self, "log_width", scale_of(self.log_width, f"{name}.log_width"))
        if self.floor_share is not None:
            put(self, "floor_share", vector(self.floor_share, f"{name}.floor_share", length=size, nonnegative=True))
        choice(self.matrix, f"{name}.matrix", MATRICES)
        instance(self.source, str, f"{name}.source")
        instance(self.record, Mapping, f"{name}.record")
        self._check_prior(name)

    # how one comes about

    @classmethod
    def from_kappa1(cls, sigma: ArrayLike, kappa1: ArrayLike, spectrum: Spectrum, **options: Any) -> Measured:
        """From kappa1, squared error of the output times examples, on data of a spectrum: p = kappa1 / L.

        Args:
            sigma, kappa1: (M,) levels and squared data units, summed over dimensions; levels of kappa1 = 0, where
                nothing was seen to fall, are left out and interpolated over.
            spectrum: of the data it was measured on.
            options: further fields; `floor` is the error that no example removes, (M,) squared data units.

        Raises:
            ValueError: kappa1 is 0 everywhere, arrays of different length or out of range.

        >>> law = Measured.from_kappa1([1.0], [8.0], Spectrum.from_eigenvalues([1.0, 1.0]))
        >>> law.parameters.tolist()  # the Bayes loss is 1
        [8.0]
        """
        level = vector(
            noise_levels(sigma, "Measured.from_kappa1: sigma"), "Measured.from_kappa1: sigma", ascending=True
        )
        value = vector(kappa1, "Measured.from_kappa1: kappa1", length=level.size, nonnegative=True)
        known = value > 0
        if not known.any():
            raise ValueError("Measured.from_kappa1: kappa1 is 0 at every level, so that nothing is said of training.")
        instance(spectrum, Spectrum, "Measured.from_kappa1: spectrum")
        loss = bayes_loss(spectrum.eigenvalues, spectrum.counts, level)
        floor = options.pop("floor", None)
        if floor is not None:
            floor = vector(floor, "Measured.from_kappa1: floor", length=level.size, nonnegative=True)
            options["floor_share"] = (floor / loss)[known]
        return cls(level[known], (value / loss)[known], **options)

    @classmethod
    def of(cls, errors: Any, spectrum: Spectrum, *, rate: float = 0.0, **options: Any) -> Measured:
        """From learning curves, checkpoints or any other route to training errors, on data of a spectrum.

        Args:
            errors: `learning_curves(...)` of a log, an `estimate.ErrorLaw`, or another with a method `law`.
            spectrum: of the data that they were measured on.
            rate: learning rate over batch, which turns kappa2 into a floor; 0: without.
            options: further fields, such as `source` and `sigma_data`.

        Raises:
            ValueError: errors that count the examples of neighbouring levels, which a Gaussian model does not.

        >>> from codesign_opt.curves.error_law import ErrorLaw
        >>> Measured.of(ErrorLaw([1.0], [8.0], log_width=2.0), Spectrum.from_eigenvalues([1.0, 1.0])).log_width
        2.0
        """
        if not callable(getattr(errors, "law", None)):
            raise ValueError(
                f"Measured.of: errors is {shown(errors)}; give the result of learning_curves, or an ErrorLaw."
            )
        law = errors.law()
        if law.transfer_width > 0:
            raise ValueError(
                f"Measured.of: kappa1 counts examples within a transfer width of {law.transfer_width:.2g}; fit it with "
                "learning_curves(..., transfer=0.0)."
            )
        if law.log_width is not None:
            options.setdefault("log_width", law.log_width)
        per_example = number(rate, "Measured.of: rate", nonnegative=True)
        if per_example > 0:
            options["floor"] = per_example * law.step_noise
        return cls.from_kappa1(law.sigma, law.reducible, spectrum, **options)

    @classmethod
    def load(cls, name: str | Path, *, sigma_data: float | None = None) -> Measured:
        """The law of a network that comes with the library, by its name (see `names`), or what `save` wrote.

        Args:
            name: "mlp_digits" and others, or the path of a file.
            sigma_data: standard deviation of the data that are planned for, pooled over coordinates: the noise levels
                are taken over in units of it. None: as they were measured.

        Raises:
            ValueError: an unknown name, a file of another kind.

        >>> law = Measured.load("mlp_digits")
        >>> law.record["command"]
        'python -m problems.studies calibrate'
        """
        known = cls.names()
        if isinstance(name, str) and name in known:
            content, place = (_PLACE / f"{name}.json").read_bytes(), name
        elif (file := as_path(name, "Measured.load: name")).is_file():
            content, place = file.read_bytes(), str(name)
        else:
            raise ValueError(f"Measured.load: {shown(str(name))} is no file and none of {', '.join(known)}.")
        values = json_text(content, f"Measured.load: {place}")
        if not isinstance(values, dict) or values.get("type") != _KIND:
            raise ValueError(f"Measured.load: {place} holds no measured training.")
        found = TrainingNoise.from_dict(values)
        assert isinstance(found, cls)
        return found if sigma_data is None else found.scaled(sigma_data)

    @staticmethod
    def names() -> tuple[str, ...]:
        """Networks whose laws come with the library.

        >>> "mlp_digits" in Measured.names()
        True
        """
        files = (file.name for file in _PLACE.iterdir())
        return tuple(sorted(name.removesuffix(".json") for name in files if name.endswith(".json")))

    def save(self, path: str | Path) -> Path:
        """Write as JSON, whole or not at all."""
        return write_whole(path, json.dumps(self.to_dict(), indent=1) + "\n")

    def scaled(self, sigma_data: float) -> Measured:
        """The law for data of another standard deviation: a network that scales its inputs by it learns alike.

        >>> Measured([0.5], [50.0], sigma_data=0.5).scaled(1.0).sigma.tolist()
        [1.0]
        """
        data = noise_level(sigma_data, "Measured.scaled: sigma_data")
        return replace(self, sigma=self.sigma * (data / self.sigma_data), sigma_data=data)

    @takes(coupling=Coupling)
    def within(self, coupling: Coupling, low: float, high: float) -> Measured:
        """The same errors with m counted within the correlation lengths of a coupling on a range of noise levels."""
        lengths = coupling.lengths_at(self.sigma, low, high)
        if np.all(lengths == self.log_width):
            return self
        return replace(self, parameters=self.parameters * (lengths / self.log_width), log_width=lengths)

    def plain(self) -> Measured:
        """The same errors along each direction of the data."""
        return self if self.matrix == "diagonal" else replace(self, matrix="diagonal")

    # the law

    @property
    def speaks_of(self) -> str:
        """What learns like this.

        >>> Measured([1.0], [50.0]).speaks_of
        'networks like the one that was measured'
        """
        return f"networks like {self.source or 'the one that was measured'}"

    @property
    def _unit(self) -> AveragedSGD:
        """Least squares, whose output errs by L / m in all."""
        return AveragedSGD(self.matrix, prior=None)

    def _excess(self, sigma: Array, count: float = 1.0) -> Array:
        """p at noise levels, over the parameters per output of `_unit`."""
        return np.exp(np.interp(np.log(sigma), np.log(self.sigma), np.log(self.parameters))) / count

    def _floor_at(self, sigma: Array, count: float = 1.0) -> Array:
        if self.floor_share is None:
            return np.zeros(np.shape(sigma))
        return np.interp(np.log(sigma), np.log(self.sigma), self.floor_share) / count

    def _count(self, counts: Any) -> float:
        """Parameters per output: one along each direction, or all of a row."""
        return 1.0 if self.matrix == "diagonal" else float(np.sum(counts))

    def _stationary(self, eigenvalues: Array, counts: Array | None, sigma: Array) -> None:
        return None

    def reducible(
        self, eigenvalues: ArrayLike, counts: ArrayLike, sigma: ArrayLike, stopping_sigma: float, *, eta: float = 0.0,
        terminal: str = "denoise",
    ) -> Array:  # fmt: skip
        """That of least squares times p."""
        unit = self._unit.reducible(eigenvalues, counts, sigma, stopping_sigma, eta=eta, terminal=terminal)
        return unit * self._excess(noise_levels(sigma, "sigma"), self._count(counts))

    def floor(
        self, eigenvalues: ArrayLike, counts: ArrayLike, sigma: ArrayLike, stopping_sigma: float, *, eta: float = 0.0,
        terminal: str = "denoise",
    ) -> Array:  # fmt: skip
        """Least squares' error of one example times f."""
        unit = self._unit.reducible(eigenvalues, counts, sigma, stopping_sigma, eta=eta, terminal=terminal)
        return unit * self._floor_at(noise_levels(sigma, "sigma"), self._count(counts))

    def at_stops(
        self, eigenvalues: Array, counts: Array, sigma: Array, stops: Array, *, eta: float, terminal: str
    ) -> tuple[Array, Array, Array | None] | None:
        unit = AveragedSGD(self.matrix, prior=self.prior, parameterization=self.parameterization,
                           sigma_data=self.sigma_data)  # fmt: skip
        found = unit.at_stops(eigenvalues, counts, sigma, stops, eta=eta, terminal=terminal)
        if found is None:
            return None
        return found[0] * self._excess(sigma), found[0] * self._floor_at(sigma), found[2]

    def weight_variance(self, eigenvalues: ArrayLike, sigma: ArrayLike) -> tuple[Array, Array]:
        fresh = self._unit.weight_variance(eigenvalues, sigma)[0]
        level = noise_levels(sigma, "sigma")
        return fresh * self._excess(level), fresh * self._floor_at(level)

    def intercept_variance(self, eigenvalues: ArrayLike, sigma: ArrayLike) -> tuple[Array, Array]:
        return self._unit.intercept_variance(eigenvalues, sigma)

    def last_evaluation(self, eigenvalues: ArrayLike, counts: ArrayLike, stopping_sigma: float) -> tuple[float, float]:
        fresh = self._unit.last_evaluation(eigenvalues, counts, stopping_sigma)[0]
        stop, count = np.array([float(stopping_sigma)]), self._count(counts)
        return fresh * float(self._excess(stop, count)[0]), fresh * float(self._floor_at(stop, count)[0])

    def last_evaluations(self, eigenvalues: Array, counts: Array, stops: Array) -> tuple[Array, Array]:
        fresh, count = self._unit.last_evaluations(eigenvalues, counts, stops)[0], self._count(counts)
        return fresh * self._excess(stops, count), fresh * self._floor_at(stops, count)

    @property
    def final_floor_is_monotone(self) -> bool:
        return self.floor_share is None  # then there is none

    def to_dict(self, sigma: ArrayLike | None = None) -> dict[str, Any]:
        """Plain values, for JSON; all of them are tables already."""
        values = super().to_dict(sigma)
        return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in values.items()}


def bayes_loss(eigenvalues: Array, counts: Array, sigma: Array) -> Array:
    """(L,) loss of the best denoiser of Gaussian data, sum_b n_b lambda_b sigma^2 / v_b, squared data units.

    >>> bayes_loss(np.array([1.0]), np.array([2.0]), np.array([1.0]))
    array([1.])
    """
    noise = np.asarray(sigma) ** 2
    return np.asarray(counts @ (eigenvalues[:, None] * noise / (eigenvalues[:, None] + noise)))
