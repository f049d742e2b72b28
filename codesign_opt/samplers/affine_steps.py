"""Affine recursions of samplers on Gaussian data: the law they end in, and its gradient.

A sampler acts on one band of the rescaled state by an affine map of the state and of a few before it
(docs/theory.md section 2). Everything here is exact, costs O(K B) per state remembered, works on leading batch
axes, and stays analytic in complex inputs, so that a complex step differentiates it to machine precision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..basics.checks import Array, entries, variances
from .recursions import Recursion

__all__ = ["AffineSteps", "StepGradient", "StepSlopes", "TerminalLaw", "denoiser_weights"]

_NARROW = 256  # numbers of a row up to which calls cost more than arithmetic
_TOGETHER = 512  # numbers of a row up to which one triangle is cheaper than so many calls

Numbers = NDArray[Any]
"""An array of float64, or of complex128 while a complex step differentiates."""


def denoiser_weights(eigenvalues: Any, sigmas: Any) -> Numbers:
    """Weight of the optimal linear denoiser, W = lambda / (lambda + sigma^2), at every node.

    Args:
        eigenvalues: (B,) nonnegative variances, squared data units.
        sigmas: (..., K+1) noise levels, real or complex.

    Returns:
        (..., K+1, B) weights in [0, 1]; 0 where both lambda and sigma are 0.

    Raises:
        ValueError: eigenvalues or sigmas malformed.

    >>> denoiser_weights([1.0, 4.0], [1.0, 0.0]).tolist()
    [[0.5, 0.8], [1.0, 1.0]]
    """
    lam = variances(eigenvalues, "eigenvalues")
    return _optimal(lam, nodes(sigmas))


@dataclass(frozen=True, eq=False)
class TerminalLaw:
    """Law of a sampler's output in every band: what the mean is multiplied by, and the variance.

    Args:
        amplitude: (..., B) product of the mean multipliers, signed: the output's deviation from the
            data mean per unit deviation of the start.
        variance: (..., B) variance of the output, injected noise included, squared data units.

    >>> TerminalLaw(np.array([0.1]), np.array([4.0])).std.tolist()
    [2.0]
    """

    amplitude: Numbers
    variance: Numbers

    @property
    def std(self) -> Numbers:
        """(..., B) standard deviation of the output, data units."""
        return np.sqrt(self.variance)


class StepGradient(NamedTuple):
    """Derivatives (..., K, B) of a terminal std by what `AffineSteps` holds, of the same shapes; None without noise."""

    by_current: Numbers
    by_earlier: tuple[Numbers, ...]
    by_noise: Numbers | None


@dataclass(frozen=True, eq=False)
class AffineSteps:
    """K affine steps of every band: x_{k+1} = current_k x_k + sum_j earlier_{j,k} x_{k-j} + sqrt(noise_k) z.

    `earlier` is empty where a sampler has no memory, `noise` None where it has none; never both are given.

    Args:
        current: (..., K, B) multipliers of x_k.
        earlier: for j = 1, 2, ... the (..., K, B) multipliers of x_{k-j}; those of states before x_0 are not used.
        noise: (..., K, B) or (..., K, 1) variances of the injected noise, squared data units.

    >>> AffineSteps(np.array([[0.5], [0.1]])).law(np.array([4.0])).std.round(12).tolist()
    [0.1]
    >>> three = np.ones((3, 1))  # Fibonacci's numbers 1, 1, 2, 3
    >>> AffineSteps(three, [three]).law(np.array([1.0])).amplitude.tolist()
    [3.0]
    """

    current: Numbers
    earlier: Sequence[Numbers] = ()
    noise: Numbers | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "earlier", entries(self.earlier, "AffineSteps.earlier"))
        if not self.earlier:
            return
        if self.noise is not None:
            raise ValueError("AffineSteps has earlier and noise; the law of a sampler with both is not known here.")

    @property
    def count(self) -> int:
        """K."""
        return self.current.shape[-2]

    def closed(self, to_zero: NDArray[np.bool_], output: Numbers) -> AffineSteps:
        """The same steps but for a last one to zero, which is the denoiser alone: x_K = output x_{K-1}.

        Args:
            to_zero: (...) where the grid ends in zero.
            output: (..., B) weight of the denoiser at the last positive node.
        """
        if not to_zero.any():
            return self
        here = to_zero[..., None]
        current = with_last(self.current, here, output)
        earlier = [with_last(rows, here, 0.0) for rows in self.earlier]
        noise = None if self.noise is None else with_last(self.noise, here, 0.0)
        return AffineSteps(current, earlier, noise)

    def law(self, initial_variance: Numbers) -> TerminalLaw:
        """Exact terminal law from a start of the given variance (..., B)."""
        amplitude = self._amplitudes()[..., -1, :] if self.earlier else np.multiply.reduce(self.current, axis=-2)
        if self.noise is None:
            return TerminalLaw(amplitude, amplitude**2 * initial_variance)
        return TerminalLaw(amplitude, self._variances(initial_variance)[..., -1, :])

    def law_and_gradient(self, initial_variance: Numbers) -> tuple[TerminalLaw, StepGradient]:
        """`law` and `gradient`, which share what of the start is in every state, or its variances."""
        if self.noise is None:
            path = self._amplitudes()
            last = path[..., -1, :]
            law = TerminalLaw(last, last**2 * initial_variance)
            return law, self._gradient_without_noise(initial_variance, path)
        variances = self._variances(initial_variance)
        amplitude = np.multiply.reduce(self.current, axis=-2)
        return TerminalLaw(amplitude, variances[..., -1, :]), self._gradient_with_noise(variances)

    def gradient(self, initial_variance: Numbers) -> StepGradient:
        """Derivatives of the terminal std by current, earlier and noise, by reverse accumulation.

        At std = 0, where the std has a kink, the derivative in the direction of growth is returned; by the noise,
        where that is infinite, 0.
        """
        if self.noise is None:
            return self._gradient_without_noise(initial_variance, self._amplitudes())
        return self._gradient_with_noise(self._variances(initial_variance))

    def _amplitudes(self) -> Numbers:
        """(..., K+1, B) multiplier of x_0 in x_k."""
        if not self.earlier:
            first = np.ones_like(self.current[..., :1, :])
            return np.concatenate([first, np.cumprod(self.current, axis=-2)], axis=-2)
        if self._together is not None:
            return self._together.forward(1.0)
        current, earlier = _steps(self.current), [_steps(rows) for rows in self.earlier]
        path = _rows(self.count + 1, current[0], *(rows[0] for rows in earlier))
        path[0] = 1.0
        for k in range(self.count):
            np.multiply(current[k], path[k], out=path[k + 1])
            for back, rows in enumerate(earlier[:k], 1):
                path[k + 1] += rows[k] * path[k - back]
        return _as_steps(path)

    @cached_property
    def _together(self) -> Recursion | None:
        """The steps of a sampler with memory in one triangle; None of many bands or grids, and of complex numbers."""
        if self.current[..., 0, :].size > _TOGETHER or any(np.iscomplexobj(r) for r in (self.current, *self.earlier)):
            return None
        return Recursion(self.current, self.earlier)

    def _variances(self, initial_variance: Numbers) -> Numbers:
        """(..., K+1, B) variance of x_k, for samplers without memory."""
        assert self.noise is not None
        kept, noise = _steps(self.current**2), _steps(self.noise)
        path = _rows(self.count + 1, initial_variance, kept[0], noise[0])
        path[0] = initial_variance
        if path[0].size <= _NARROW:
            kept, added = _doubled(kept, noise)
            path[1:] = kept * path[0] + added
            return _as_steps(path)
        for k in range(self.count):
            np.multiply(kept[k], path[k], out=path[k + 1])
            path[k + 1] += noise[k]
        return _as_steps(path)

    def _gradient_without_noise(self, initial_variance: Numbers, path: Numbers) -> StepGradient:
        # std = |amplitude| sqrt(V_0); the sign is that of the real part, so complex steps pass through
        sign = np.where(path[..., -1, :].real < 0, -1.0, 1.0)
        last = sign * np.sqrt(initial_variance)
        if not self.earlier:
            later = np.concatenate([last[..., None, :], self.current[..., :0:-1, :]], axis=-2)
            return StepGradient(np.cumprod(later, axis=-2)[..., ::-1, :] * path[..., :-1, :], (), None)
        if self._together is not None and last.shape == path[..., -1, :].shape and not np.iscomplexobj(last):
            return self._without_noise(self._together.backward(last)[..., 1:, :], path)
        current, earlier = _steps(self.current), [_steps(rows) for rows in self.earlier]
        adjoint = _rows(self.count, last, current[0], *(rows[0] for rows in earlier))  # of x_1, ..., x_K
        adjoint[-1] = last
        for k in range(self.count - 1, 0, -1):
            np.multiply(current[k], adjoint[k], out=adjoint[k - 1])
            for back, rows in enumerate(earlier[: self.count - 1 - k], 1):
                adjoint[k - 1] += rows[k + back] * adjoint[k + back]
        return self._without_noise(_as_steps(adjoint), path)

    def _without_noise(self, response: Numbers, path: Numbers) -> StepGradient:
        """From the derivatives by the states after each step."""
        by_current, by_earlier = response * path[..., :-1, :], []
        for back in range(1, len(self.earlier) + 1):
            rows = np.zeros(by_current.shape, by_current.dtype)
            rows[..., back:, :] = response[..., back:, :] * path[..., : -1 - back, :]
            by_earlier.append(rows)
        return StepGradient(by_current, tuple(by_earlier), None)

    def _gradient_with_noise(self, variances: Numbers) -> StepGradient:
        # of s_{k+1} = sqrt((m_k s_k)^2 + noise_k): d s_{k+1}/d m_k = c_k s_k, d s_{k+1}/d s_k = c_k m_k
        std = np.sqrt(variances)
        after = std[..., 1:, :]
        vanishes = after.real == 0
        clear = not vanishes.any()
        divisor = after if clear else np.where(vanishes, 1.0, after)
        cosine = self.current * std[..., :-1, :] / divisor
        if not clear:
            cosine = np.where(vanishes, 1.0, cosine)
        later = np.ones_like(cosine)
        later[..., 1:, :] = (cosine * self.current)[..., :0:-1, :]
        response = np.cumprod(later, axis=-2)[..., ::-1, :]
        by_noise = response / (2 * divisor)
        if not clear:
            by_noise = np.where(vanishes, 0.0, by_noise)
        return StepGradient(response * cosine * std[..., :-1, :], (), by_noise)


Parts = tuple[Any, Any, Any]
"""Something (..., K, B) for each of the current, previous and noise of steps, None for what they have not."""


class StepSlopes(NamedTuple):
    """Derivatives of affine steps by log sigma of the nodes that they see.

    Args:
        opening, closing: by the node that the step starts from, and by that it goes to.
        before: by the node of the step before; None for samplers without memory.
    """

    opening: Parts
    closing: Parts
    before: Parts | None = None


@dataclass(frozen=True, eq=False)
class Inputs:
    """Arguments of a terminal law, checked and broadcast: nodes (..., K+1, 1), weights (..., K+1, B)."""

    nodes: Numbers
    weights: Numbers
    initial_variance: Numbers

    @cached_property
    def to_zero(self) -> NDArray[np.bool_]:
        """(...) whether the grid ends in zero."""
        return np.asarray(self.nodes[..., -1, 0].real == 0)

    @cached_property
    def positive(self) -> Numbers:
        """The nodes with a last zero moved to half the level before, where every step can be worked out."""
        if not self.to_zero.any():
            return self.nodes
        return with_last(self.nodes, self.to_zero[..., None], 0.5 * self.nodes[..., -2, :])


def prepare(sigmas: Any, eigenvalues: Any, denoiser: Any, initial_variance: Any) -> Inputs:
    """Check the arguments shared by the exact laws and fill in their defaults."""
    lam = variances(eigenvalues, "eigenvalues")
    sigma = nodes(sigmas)
    weights = _optimal(lam, sigma) if denoiser is None else _numbers(denoiser, "denoiser", 2)
    if weights.shape[-2:] != (sigma.shape[-1], lam.size):
        raise ValueError(
            f"denoiser has shape {weights.shape}; its last axes must be (nodes, bands) = "
            f"({sigma.shape[-1]}, {lam.size})."
        )
    if initial_variance is None:
        start = lam + sigma[..., :1] ** 2
    else:
        start = _numbers(initial_variance, "initial_variance", 1)
        _refuse(start.real < 0, start, "initial_variance", "must be >= 0")
        if start.shape[-1] != lam.size:
            raise ValueError(f"initial_variance has {start.shape[-1]} bands; {lam.size} are needed.")
    try:
        batch = np.broadcast_shapes(sigma.shape[:-1], weights.shape[:-2], start.shape[:-1])
    except ValueError:
        raise ValueError(
            f"sigmas {sigma.shape}, denoiser {weights.shape} and initial_variance {start.shape} "
            f"have leading axes that do not broadcast."
        ) from None
    return Inputs(_as_batch(sigma[..., None], batch), _as_batch(weights, batch), start)


def unchecked(sigmas: Array, eigenvalues: Array, initial_variance: Array) -> Inputs:
    """`prepare` for grids and the optimal denoiser, for descents, which ask often and on grids of their own."""
    return Inputs(sigmas[..., None], _optimal(eigenvalues, sigmas), initial_variance)


def _as_batch(rows: Numbers, batch: tuple[int, ...]) -> Numbers:
    return rows if rows.shape[:-2] == batch else np.broadcast_to(rows, (*batch, *rows.shape[-2:]))


def nodes(sigmas: Any) -> Numbers:
    """Batched, possibly complex grids (..., K+1), checked on their real parts."""
    sigma = _numbers(sigmas, "sigmas", 1)
    if sigma.shape[-1] < 2:
        raise ValueError(f"sigmas has {sigma.shape[-1]} node; a step needs at least 2.")
    _refuse(sigma.real < 0, sigma, "sigmas", "must be >= 0")
    rises = np.zeros(sigma.shape, dtype=bool)
    np.greater_equal(sigma.real[..., 1:], sigma.real[..., :-1], out=rises[..., 1:])
    _refuse(rises, sigma, "sigmas", "must be below the node before it (only the last may be 0)")
    return sigma


def with_last(rows: Numbers, where: NDArray[np.bool_], value: Any) -> Numbers:
    """A copy whose last row is `value` where said."""
    result = np.array(rows)
    result[..., -1, :] = np.where(where, value, rows[..., -1, :])
    return result


def _steps(rows: Numbers) -> Numbers:
    """(K, ..., B) from (..., K, B), as a loop over many short rows takes them."""
    return rows.swapaxes(0, -2) if rows.ndim < 4 else np.moveaxis(rows, -2, 0)


def _as_steps(rows: Numbers) -> Numbers:
    """(..., K, B) from (K, ..., B)."""
    return rows.swapaxes(0, -2) if rows.ndim < 4 else np.moveaxis(rows, 0, -2)


def _doubled(factors: Numbers, added: Numbers) -> tuple[Numbers, Numbers]:
    """(K, ..., B) F and A of x_{k+1} = F_k x_0 + A_k, where one step is x_{k+1} = factors_k x_k + added_k.

    Runs of steps are joined, twice as long each time: log2 K operations on all steps, where few bands make K of them
    on one step dear. Sums of squares: nothing cancels.
    """
    whole, part = np.array(factors), added + np.zeros_like(factors)
    length = 1
    while length < whole.shape[0]:
        part[length:] += whole[length:] * part[:-length]
        whole[length:] *= whole[:-length].copy()
        length *= 2
    return whole, part


def _rows(count: int, *rows: Numbers) -> Numbers:
    """(count, ..., B) rows to fill, of the shape and the kind of number that follow from those given."""
    return np.empty((count, *np.broadcast_shapes(*(row.shape for row in rows))), dtype=np.result_type(*rows))


def _optimal(lam: Array, sigma: Numbers) -> Numbers:
    variance = lam + sigma[..., None] ** 2
    return lam / np.where(variance == 0, 1.0, variance)


def _numbers(value: Any, name: str, axes: int) -> Numbers:
    try:
        raw = np.asarray([] if isinstance(value, range) else value)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"{name} is not a rectangular array of numbers.") from None
    if raw.dtype.kind not in "iufc":
        raise ValueError(f"{name} has dtype {raw.dtype}; numbers are needed.")
    if raw.ndim < axes or raw.size == 0:
        raise ValueError(f"{name} has shape {raw.shape}; at least {axes} non-empty dimension(s) are needed.")
    result = raw.astype(np.complex128 if raw.dtype.kind == "c" else np.float64)
    _refuse(~np.isfinite(result), result, name, "must be finite")
    return result


def _refuse(bad: NDArray[np.bool_], value: Numbers, name: str, rule: str) -> None:
    if bad.any():
        index = tuple(int(i) for i in np.argwhere(bad)[0])
        shown = index[0] if len(index) == 1 else index
        raise ValueError(f"{name} is {value[index]:g} at index {shown}; it {rule}.")
