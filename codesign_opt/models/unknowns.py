"""Unknowns: which numbers of a model were measured, how badly they are known, and the model with other ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..basics.checks import Array, matrix, ndim, number
from ..ingredients.coupling import Coupling, Transfer
from ..ingredients.spectrum import Spectrum

__all__ = ["LENGTH", "TRANSFER", "Unknowns", "coupling_unknowns", "row_unknowns", "spectrum_bias", "spectrum_unknowns"]

SPECTRUM, LENGTH, TRANSFER = "spectrum", "correlation length", "transfer width"


@dataclass(frozen=True, eq=False)
class Unknowns:
    """P measured numbers of a model, as logarithms, with their covariance (docs/theory.md section 8.5).

    Args:
        sources: (P,) what each number belongs to, by name: "spectrum", "sensitivity", "correlation length", …
        factor: (P, K); the covariance of the logarithms is factor @ factor.T.
        moved: the model with the logarithms moved by (P,) amounts.
        degrees: degrees of freedom of a standard error; inf where it is known.
        bias: what the numbers' second-order error adds to quantities on average, from (..., P) derivatives; None: 0.
        said: what is measured, as a phrase.
        omitted: what is taken as known, as phrases.

    Raises:
        ValueError: a factor that is not finite or of another number of rows.

    >>> model = lambda move: None
    >>> Unknowns(("spectrum", "spectrum"), np.array([[0.1], [0.2]]), model).standard_errors.tolist()
    [0.1, 0.2]
    """

    sources: tuple[str, ...]
    factor: Array
    moved: Callable[[Array], Any]
    degrees: float = float("inf")
    bias: Callable[[Array], Array] | None = None
    said: str = ""
    omitted: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        factor = matrix(self.factor, "Unknowns.factor", shape=(len(self.sources), None))
        object.__setattr__(self, "factor", factor)

    @property
    def standard_errors(self) -> Array:
        """(P,) of the logarithms."""
        return np.asarray(np.sqrt((self.factor**2).sum(axis=1)))

    def variance(self, gradient: Array) -> Array:
        """(...) variance of quantities with (..., P) derivatives by the logarithms, to first order."""
        return np.asarray(((gradient @ self.factor) ** 2).sum(axis=-1))

    def shares(self, gradient: Array) -> Mapping[str, float]:
        """Share of each source in the variance of one quantity, each taken as independent of the others."""
        parts = {
            name: float(self.variance(np.where(np.array(self.sources) == name, gradient, 0.0)))
            for name in dict.fromkeys(self.sources)
        }
        whole = sum(parts.values())
        return {name: part / whole if whole > 0 else 0.0 for name, part in parts.items()}

    def beside(self, other: Unknowns | None, moved: Callable[[Array], Any]) -> Unknowns:
        """These numbers and others, independent of them; `moved` takes both one after the other."""
        if other is None:
            return self
        size, more = self.factor, other.factor
        factor = np.zeros((size.shape[0] + more.shape[0], size.shape[1] + more.shape[1]))
        factor[: size.shape[0], : size.shape[1]], factor[size.shape[0] :, size.shape[1] :] = size, more
        own = self.bias
        return Unknowns(
            (*self.sources, *other.sources), factor, moved, min(self.degrees, other.degrees),
            None if own is None else lambda gradient: own(gradient[..., : size.shape[0]]),
            ", ".join(part for part in (self.said, other.said) if part), self.omitted,
        )  # fmt: skip


def spectrum_unknowns(model: Any, bands: Spectrum) -> Unknowns | None:
    """The logarithms of the eigenvalues of `bands`, from the scatter over groups of samples; None where it is stated.

    Args:
        model: a model with a `spectrum`, in whose place the moved bands are put.
        bands: its spectrum in so many bands that moving them moves no eigenvalue from one to another.
    """
    sampling = bands.sampling
    if sampling is None:
        return None
    lam = bands.eigenvalues
    known = lam > 0  # a direction without variance in the samples stays without
    factor = np.divide(sampling.deviations, lam[:, None], where=known[:, None], out=np.zeros_like(sampling.deviations))

    def moved(move: Array) -> Any:
        spectrum = replace(bands, eigenvalues=lam * np.exp(move), sampling=None)
        return replace(model, spectrum=spectrum)

    return Unknowns(
        (SPECTRUM,) * lam.size, factor, moved, sampling.degrees,
        lambda gradient: spectrum_bias(bands, gradient),
        f"spectrum of {sampling.samples + 1:,} samples",
        ("the mean of the data",),
    )  # fmt: skip


def spectrum_bias(bands: Spectrum, gradient: Array) -> Array:
    """(...) what eigenvalues of a finite sample add to quantities on average, to the order 1 / N.

    Eigenvalues of a sample repel each other: with f' the derivative of the quantity by one eigenvalue,

        1 / (2 N) sum_ij lambda_i lambda_j (1 + delta_ij) (f'_i - f'_j) / (lambda_i - lambda_j)

    of Gaussian fourth moments (docs/theory.md section 8.5); inside a band the slope of f' over the bands.

    Args:
        bands: the spectrum, with its number of samples.
        gradient: (..., B) derivatives of the quantities by the logarithms of the bands' eigenvalues.
    """
    assert bands.sampling is not None
    on = bands.eigenvalues > 0
    lam, n = bands.eigenvalues[on], bands.counts[on]
    if lam.size < 2:
        return np.zeros(np.shape(gradient)[:-1])
    slope = gradient[..., on] / (n * lam)  # by the eigenvalue of one direction
    apart = lam[:, None] - lam
    near = np.abs(apart) < 1e-3 * np.sqrt(lam[:, None] * lam)
    ratio = np.where(near, 0.0, (slope[..., :, None] - slope[..., None, :]) / np.where(near, 1.0, apart))
    inside = _slope_over(np.log(lam), slope) / lam
    pairs = np.where(near, 0.5 * (inside[..., :, None] + inside[..., None, :]), ratio)
    weight = n[:, None] * n * np.outer(lam, lam)
    weight[np.diag_indices(lam.size)] += n * lam**2
    return np.asarray((pairs * weight).sum(axis=(-2, -1)) / (2 * bands.sampling.samples))


def _slope_over(logs: Array, values: Array) -> Array:
    """(..., B) derivative of values by descending logs, from distinct neighbours, by local straight lines."""
    width = 0.15
    weight = np.exp(-0.5 * ((logs[:, None] - logs) / np.maximum(width, 1.5 * _gap(logs))[:, None]) ** 2)
    mass = weight.sum(axis=1)
    mean = weight @ logs / mass
    centred = logs - mean[:, None]
    spread = (weight * centred**2).sum(axis=1)
    return np.asarray(np.einsum("bc,bc,...c->...b", weight, centred, values) / np.where(spread > 0, spread, np.inf))


def _gap(logs: Array) -> Array:
    """(B,) distance of each to its farther direct neighbour: what a straight line through it has to reach."""
    steps = np.abs(np.diff(logs))
    return np.maximum(np.concatenate([steps[:1], steps]), np.concatenate([steps, steps[-1:]]))


def row_unknowns(model: Any, sigma: Array, errors: Mapping[str, Array]) -> Unknowns | None:
    """Rows of a measured table as logarithms, every entry's error independent of the others'; None where none is known.

    Args:
        model: a model with the rows as fields.
        sigma: (M,) noise levels of the rows.
        errors: (M,) standard errors of rows by name.
    """
    rows = {
        name: np.asarray(getattr(model, name))
        for name in errors
        if getattr(model, name, None) is not None and np.shape(errors[name]) == np.shape(getattr(model, name))
    }
    if not rows:
        return None
    # of an entry that its error exceeds, little more is known than its sign
    relative = [
        np.minimum(np.divide(errors[name], row, where=row > 0, out=np.zeros_like(row)), 1.0)
        for name, row in rows.items()
    ]
    ends = np.cumsum([row.size for row in rows.values()])[:-1]

    def moved(move: Array) -> Any:
        parts = np.split(move, ends)
        changed = {name: row * np.exp(part) for (name, row), part in zip(rows.items(), parts, strict=True)}
        return replace(model, probe=None, **changed)

    sources = tuple(name.replace("_", " ") for name, row in rows.items() for _ in range(row.size))
    said = f"{', '.join(dict.fromkeys(sources))} at {sigma.size} noise levels"
    return Unknowns(sources, np.diag(np.concatenate(relative)), moved, said=said)


def coupling_unknowns(
    coupling: Coupling, errors: Mapping[str, float]
) -> tuple[Unknowns | None, Callable[..., Coupling]]:
    """Correlation length and transfer width as logarithms, and the coupling with these moved.

    Args:
        coupling: with a `log_width`, and of `Transfer` its width.
        errors: relative standard errors by LENGTH and TRANSFER.

    Raises:
        ValueError: an error of a number that the coupling does not have.
    """
    given = {
        name: stated
        for name, error in errors.items()
        if (stated := number(error, f"the error of the {name}", nonnegative=True))
    }
    fields = {LENGTH: "log_width", TRANSFER: "transfer"}
    for name in given:
        value = getattr(coupling, fields[name], None)
        if value is None or (name == TRANSFER and not (isinstance(coupling, Transfer) and ndim(value) == 0)):
            raise ValueError(f"uncertainty: an error of the {name} is given, but {coupling!r} has none; leave it out.")

    def moved(move: Array) -> Coupling:
        changes = {fields[name]: _scaled(getattr(coupling, fields[name]), float(np.exp(step)))
                   for name, step in zip(given, move, strict=True)}  # fmt: skip
        return _with(coupling, changes)

    if not given:
        return None, moved
    found = Unknowns(tuple(given), np.diag(list(given.values())), _no_model, said=" and ".join(given))
    return found, moved


def _with(coupling: Coupling, changes: Mapping[str, Any]) -> Coupling:
    if isinstance(coupling, Transfer):
        return Transfer(
            **{"transfer": coupling.transfer, "log_width": coupling.log_width, "form": coupling.form, **changes}
        )
    other: Coupling = replace(coupling, **changes)  # type: ignore[type-var]
    return other


def _scaled(value: Any, factor: float) -> Any:
    return (lambda sigma: factor * value(sigma)) if callable(value) else factor * value


def _no_model(move: Array) -> Any:
    raise NotImplementedError("numbers of a coupling alone make no model")
