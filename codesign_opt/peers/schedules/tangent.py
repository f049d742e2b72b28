"""Schedules from the spectrum for Euler's method and its stochastic sibling: tangent law, Euler-Lagrange, powers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...basics.checks import Array, choice, instance, number, scale_of, shown
from ...ingredients.grids import FLATTEST
from ...ingredients.spectrum import Spectrum
from ...models.evidence import Evidence
from ...samplers.members import Ancestral
from ...samplers.terminal import terminal_weight
from ..paths.arc_length import accumulated, equal_increments
from .base import Schedule
from .elementary import tangent_coefficient

__all__ = ["EulerLagrange", "PowerUniform", "SDEPath", "SDETerminal", "Tangent"]


_FINE = 2048  # noise levels of the integrals
_BANDS = 48  # bands at most in a fixed point
_ROUNDS = 500


@dataclass(frozen=True)
class Tangent(Schedule):
    """Equal increments of arctan(sigma / g), the best grid of Euler for one eigenvalue g^2 at every number of steps.

    docs/theory.md section 11.3; 2601.13602. For a spread spectrum g balances the bands; `EulerLagrange` does better.

    Args:
        coefficient: g > 0, data units, or where it comes from: "closed" is (sum n lambda / sum n / lambda)^(1/4), which
            is the best for an unbounded range; "range" is the best between sigma_min and sigma_max, by a search.
        scale: factor on the coefficient, no unit; for samplers other than Euler, to be searched (`select`).
        floor: eigenvalues below it count as it in the coefficient; sigma_min^2 unless given.
        to_zero: under "denoise", place the last step to 0 by the law too: the lowest positive level is then where the
            law puts it, above sigma_min on the whole, and not sigma_min.

    >>> import codesign_opt as co
    >>> known = Evidence(sigma_min=0.1, sigma_max=10.0, spectrum=co.Spectrum([4.0, 0.25], [1, 1]))
    >>> Tangent().sigmas(3, known).round(12).tolist()
    [10.0, 1.0, 0.1, 0.0]
    """

    coefficient: str | float = "closed"
    scale: float = 1.0
    floor: float | None = None
    to_zero: bool = False
    name: ClassVar[str] = "tangent"
    title: ClassVar[str] = "equal steps of arctan(sigma / g), g from the spectrum"
    needs: ClassVar[tuple[str, ...]] = ("spectrum",)

    def __post_init__(self) -> None:
        if isinstance(self.coefficient, str):
            choice(self.coefficient, "Tangent.coefficient", ("closed", "range"))
        else:
            object.__setattr__(self, "coefficient", number(self.coefficient, "Tangent.coefficient", positive=True))
        object.__setattr__(self, "scale", scale_of(self.scale, "Tangent.scale"))
        if self.floor is not None:
            object.__setattr__(self, "floor", number(self.floor, "Tangent.floor", nonnegative=True))
        _flag(self.to_zero, "Tangent.to_zero")

    def value(self, evidence: Evidence) -> float:
        """The coefficient g, data units, `scale` included."""
        return self.scale * self._unscaled(instance(evidence, Evidence, "Tangent.value: evidence"))

    def _unscaled(self, evidence: Evidence) -> float:
        if not isinstance(self.coefficient, str):
            return self.coefficient
        assert evidence.spectrum is not None
        floor = evidence.sigma_min**2 if self.floor is None else self.floor
        if self.coefficient == "closed":
            return tangent_coefficient(evidence.spectrum, floor=floor)
        low = 0.0 if _goes_to_zero(self, evidence) else evidence.sigma_min
        return tangent_coefficient(evidence.spectrum, floor=floor, sigma_min=low, sigma_max=evidence.sigma_max)

    def _nodes(self, count: int, evidence: Evidence) -> Array:
        g = self.value(evidence)
        high, low = np.arctan2([evidence.sigma_max, evidence.sigma_min], g)
        if _goes_to_zero(self, evidence):
            nodes = g * np.tan(np.linspace(high, 0.0, count + 1)[:-1])
            nodes[0] = evidence.sigma_max
            return nodes
        return evidence.between(g * np.tan(np.linspace(high, low, count)))


@dataclass(frozen=True)
class EulerLagrange(Schedule):
    """The grid of least divergence of Euler's method over all grids, at many steps, for any spectrum.

    d sigma / d tau in proportion to G^(-1/2), G = sum_b n_b J_b a_b(sigma), J_b = int a_b (d sigma / d tau)^2 d tau: a
    fixed point in J, unique since sum n J^2 is convex in the density of nodes. a_b is twice the local error of the
    sampler: lambda_b / v_b^2 for Euler, (1 + eta^2)^2 (v_b(sigma_min) / v_b)^(eta^2) times that with noise.
    docs/theory.md section 11.3.

    Args:
        eta: strength of the injected noise (Ancestral), 0 for Euler.
        measure: "kl" weighs relative errors of all directions alike; "w2" weighs band b by its terminal variance, for
            the squared Wasserstein distance.
        to_zero: as for `Tangent`.

    >>> import codesign_opt as co
    >>> known = Evidence(sigma_min=0.1, sigma_max=10.0, spectrum=co.Spectrum([1.0], [4]))
    >>> EulerLagrange().sigmas(3, known).round(4).tolist()  # one band: the tangent law
    [10.0, 1.0, 0.1, 0.0]
    """

    eta: float = 0.0
    measure: str = "kl"
    to_zero: bool = False
    name: ClassVar[str] = "euler_lagrange"
    title: ClassVar[str] = "least divergence of Euler over all grids"
    needs: ClassVar[tuple[str, ...]] = ("spectrum",)

    def __post_init__(self) -> None:
        kind = type(self).__name__
        object.__setattr__(self, "eta", number(self.eta, f"{kind}.eta", nonnegative=True))
        choice(self.measure, f"{kind}.measure", ("kl", "w2"))
        _flag(self.to_zero, f"{kind}.to_zero")

    def _nodes(self, count: int, evidence: Evidence) -> Array:
        to_zero = _goes_to_zero(self, evidence)
        spectrum = _banded(evidence)
        lam, n = spectrum.eigenvalues, spectrum.counts
        # under to_zero the range goes on to 0, below which scale nothing changes
        stop = min(evidence.sigma_min, 1e-3 * float(np.sqrt(lam[lam > 0].min()))) if to_zero else evidence.sigma_min
        levels = np.geomspace(stop, evidence.sigma_max, _FINE)
        local = 2 * Ancestral(self.eta).local_error(lam, levels, stop)
        weight = n * terminal_weight(lam, stop, evidence.terminal) if self.measure == "w2" else n
        if to_zero:
            levels, local = np.append(0.0, levels), np.column_stack([local[:, 0], local])
        nodes = equal_increments(levels, _fixed_point(levels, local, weight), count + to_zero)
        if to_zero:
            return np.append(evidence.sigma_max, nodes[1:-1])
        return evidence.between(nodes)


@dataclass(frozen=True)
class SDETerminal(EulerLagrange):
    """The grid of least terminal divergence of stochastic DDIM (eta = 1): `EulerLagrange` with its local error.

    For one eigenvalue equal increments of sigma / sqrt(lambda + sigma^2), docs/theory.md section 11.3.

    >>> import codesign_opt as co
    >>> known = Evidence(sigma_min=3**-0.5, sigma_max=3**0.5, spectrum=co.Spectrum([1.0], [4]), terminal="rescale")
    >>> grid = SDETerminal().sigmas(2, known)
    >>> (grid / (1 + grid**2) ** 0.5).round(4).tolist()  # (sqrt(3)/2 + 1/2)/2 in the middle
    [0.866, 0.683, 0.5]
    """

    eta: float = 1.0
    name: ClassVar[str] = "sde_terminal"
    title: ClassVar[str] = "least terminal divergence of stochastic DDIM"


@dataclass(frozen=True)
class SDEPath(Schedule):
    """Equal increments of int sqrt(-d mmse / d gamma) d gamma, gamma = 1/sigma^2: least divergence of stochastic paths.

    From the spectrum, 2 sqrt(sum_b n_b lambda_b^2 / v_b^2) / sigma per unit sigma; for one eigenvalue uniform in
    log(1 + gamma lambda). docs/theory.md section 11.1.

    >>> import codesign_opt as co
    >>> known = Evidence(sigma_min=7**-0.5, sigma_max=1.0, spectrum=co.Spectrum([1.0], [4]), terminal="rescale")
    >>> (1 / SDEPath().sigmas(2, known) ** 2).round(3).tolist()  # 1 + gamma: 2, 4, 8
    [1.0, 3.0, 7.0]
    """

    name: ClassVar[str] = "sde_path"
    title: ClassVar[str] = "least path divergence of stochastic DDIM"
    needs: ClassVar[tuple[str, ...]] = ("spectrum",)

    def _nodes(self, count: int, evidence: Evidence) -> Array:
        spectrum = _banded(evidence)
        levels = evidence.fine(_FINE)
        share = spectrum.eigenvalues / (spectrum.eigenvalues + levels[:, None] ** 2)
        per_log = 2 * np.sqrt(share**2 @ spectrum.counts)
        return equal_increments(levels, accumulated(np.log(levels), per_log), count)


@dataclass(frozen=True)
class PowerUniform(Schedule):
    """Equal increments of y^(1/rho), y = sigma^2 or sigma: the power-uniform grids of 2601.13602.

    The paper's own definition could not be read; rho = 1 is uniform in y, y = sigma and rho = 7 is EDM's grid.

    Args:
        rho: exponent > 0.
        variable: "variance" (y = sigma^2) or "sigma".

    >>> PowerUniform(2.0).sigmas(3, Evidence(sigma_min=1.0, sigma_max=3.0)).round(12).tolist()  # uniform in sigma
    [3.0, 2.0, 1.0, 0.0]
    """

    rho: float = 2.0
    variable: str = "variance"
    name: ClassVar[str] = "power_uniform"
    title: ClassVar[str] = "equal steps of a power of the variance"

    def __post_init__(self) -> None:
        object.__setattr__(self, "rho", number(self.rho, "PowerUniform.rho", positive=True, maximum=FLATTEST))
        choice(self.variable, "PowerUniform.variable", ("variance", "sigma"))

    def _nodes(self, count: int, evidence: Evidence) -> Array:
        power = (2.0 if self.variable == "variance" else 1.0) / self.rho
        last = (evidence.sigma_min / evidence.sigma_max) ** power
        return evidence.between(evidence.sigma_max * np.linspace(1.0, last, count) ** (1 / power))


def _fixed_point(levels: Array, local: Array, weight: Array) -> Array:
    """(L,) accumulated length int sqrt(G) of the Euler-Lagrange grid, from (B, L) rows a_b and (B,) weights."""
    used = np.any(local > 0, axis=1) & (weight > 0)
    rows, n = local[used], weight[used]
    energy = np.ones(n.size)
    for _ in range(_ROUNDS):
        density = np.sqrt((n * energy) @ rows)
        length = accumulated(levels, density)
        inside = rows / np.where(density > 0, density, 1.0)
        found = length[-1] * (0.5 * (inside[:, 1:] + inside[:, :-1]) @ np.diff(levels))
        change = float(np.abs(np.log(found / energy)).max())
        energy = np.sqrt(energy * found)  # half a step in log J: the full one oscillates
        if change < 1e-10:
            return length
    raise ValueError(
        f"euler_lagrange: the fixed point still moves by {change:.1g} after {_ROUNDS} rounds; "
        "use fewer, wider bands (Spectrum.in_bands)."
    )


def _banded(evidence: Evidence) -> Spectrum:
    assert evidence.spectrum is not None
    return evidence.spectrum if len(evidence.spectrum) <= _BANDS else evidence.spectrum.in_bands(_BANDS)


def _goes_to_zero(law: Tangent | EulerLagrange, evidence: Evidence) -> bool:
    return law.to_zero and evidence.terminal == "denoise"


def _flag(value: object, name: str) -> None:
    if not isinstance(value, bool):
        raise ValueError(f"{name} is {shown(value)}; True or False is needed.")
