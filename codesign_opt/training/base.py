"""The common part of every kind of training noise: what it costs at the end, docs/theory.md section 5.

The score error at noise level sigma has variance A / m + F: A falls with the m examples seen there, F is the
floor of a constant step or of a finite data set. Contracted with the sensitivity kernel they are the a(sigma)
and tau b(sigma) of the score term, int max(gamma, l) <K, A / (rho l) + F> d sigma (section 6). With the untrained
denoiser as prior, a / m becomes a / (m + a / e0), e0 the contracted error of that denoiser (section 5.6).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import MISSING, fields, replace
from typing import Any

import numpy as np

from ..basics.checks import Array, choice, integer, noise_level, noise_levels, variances
from ..basics.registry import Registry
from ..ingredients.coupling import Coupling
from ..ingredients.parameterization import TabulatedWeight, evaluate_weight
from ..samplers.terminal import terminal_weight
from .lower_bounds import MATRICES, check_flag, cramer_rao_intercept, cramer_rao_score_error, cramer_rao_variance
from .lower_bounds import dataset_floor as _dataset_floor
from .sensitivity_kernel import diagonal_kernel, mean_kernel
from .sgd_variance import WeightNoise, fresh_noise
from .terminal_error import output_data_error, output_error, terminal_error
from .untrained import UntrainedPrior, kernel_arguments

__all__ = ["TRAINING_NOISES", "TrainingNoise"]

TRAINING_NOISES: Registry[type[TrainingNoise]] = Registry("TrainingNoise.type", "TrainingNoise")


class TrainingNoise(UntrainedPrior, ABC):
    """Error that training leaves in the score, by noise level: reducible A / m and floor F.

    Subclasses are frozen dataclasses with the fields `matrix` ("diagonal": eigenvectors known; "full"),
    `intercept` (the mean is learned too), `dataset_size` (N images; None: every example is fresh) and
    `replacement`, and say only what the optimiser leaves. The data are centred: an intercept is about the
    mean. Those with a field `prior` may start from the untrained denoiser of their `parameterization`.
    """

    matrix: str
    intercept: bool
    dataset_size: int | None
    replacement: bool

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        TRAINING_NOISES.add(cls.__name__, cls)

    @property
    def name(self) -> str:
        """Class name, the `type` of `to_dict`."""
        return type(self).__name__

    @property
    def speaks_of(self) -> str:
        """What learns like this, as a phrase: what a plan that counts on it holds for, and what it does not.

        >>> from codesign_opt.training.optimisers import AveragedSGD
        >>> AveragedSGD().speaks_of
        'a linear denoiser fitted by least squares'
        """
        return "a linear denoiser fitted by least squares"

    @abstractmethod
    def _stationary(self, eigenvalues: Array, counts: Array | None, sigma: Array) -> WeightNoise | None:
        """Variance that the optimiser itself never averages out; None: none. Raises when it diverges."""

    def plain(self) -> TrainingNoise:
        """The same training of a diagonal matrix without intercept."""
        return replace(self, matrix="diagonal", intercept=False)  # type: ignore[type-var]

    def within(self, coupling: Coupling, low: float, high: float) -> TrainingNoise:
        """The same training for a model with this coupling on a range of noise levels; itself unless it was measured
        with examples counted within a length of its own."""
        return self

    def warnings_for(self, sigma: Any, eigenvalues: Any, examples: Any, counts: Any = None) -> list[str]:
        """Reasons to distrust A / m + F at some levels; none unless the subclass knows its burn-in.

        Args:
            sigma: (L,), noise levels.
            eigenvalues: (B,).
            examples: (L,), m, examples within one correlation length of each level, >= 0.
            counts: (B,), directions per band; None: one each.
        """
        return []

    def reducible(
        self,
        eigenvalues: Any,
        counts: Any,
        sigma: Any,
        stopping_sigma: float,
        *,
        eta: float = 0.0,
        terminal: str = "denoise",
    ) -> Array:
        """Squared terminal error per unit sigma and per unit inverse density of examples: a(sigma).

        Diagonal: (1 + eta^2)^2 sum_b n_b P_b (lambda_b / v_b^2) r_b^2, r_b = (v_b(sigma_r) / v_b)^(eta^2).
        Full: (1 + eta^2)^2 sum_b n_b (lambda_b / v_b^2) r_b [P_b r_b / 2 + sum_b' n_b' r_b' P_b P_b' / (P_b +
        P_b')]. A learned intercept adds (1 + eta^2)^2 sum_b n_b P_b (lambda_b / v_b^2) r_b. A data set passed
        through in whole epochs takes N times its own floor off (docs/theory.md sections 4, 5).

        Args:
            eigenvalues: (B,), squared data units, >= 0.
            counts: (B,), directions per band, > 0.
            sigma: (L,), noise levels, data units, >= stopping_sigma.
            stopping_sigma: last positive noise level, data units, > 0.
            eta: noise of the sampler family, >= 0.
            terminal: "denoise" or "rescale".

        Returns:
            (L,), squared data units (times examples; the densities are per unit sigma).

        Raises:
            ValueError: an argument is out of its range; an unstable learning rate.

        >>> from codesign_opt.training.optimisers import AveragedSGD
        >>> AveragedSGD().reducible([1.0], [1.0], [1.0], 0.5, terminal="rescale")
        array([0.3125])
        """
        lam, n, level, options = kernel_arguments(eigenvalues, counts, sigma, eta, terminal)
        # asked for its check alone: a rate that is unstable at some level has no A / m either
        self._stationary(lam, n if self.matrix == "full" else None, level)
        fresh = fresh_noise(lam, level)
        result = terminal_error(lam, n, level, stopping_sigma, fresh, full=self.matrix == "full", **options)
        if self.intercept:
            mean = mean_kernel(lam, level, stopping_sigma, **options)
            # the kernel takes variances of the score (D - x) / sigma^2: those of the denoiser over sigma^4
            result = result + n @ (mean * fresh.intercept / level**4)
        if self.dataset_size is not None and not self.replacement:
            # N times the floor C / N off A: after one pass, m = N, (A - C) / m + C / N is A / N as for fresh examples
            result = result - self._data_bound(lam, n, level, stopping_sigma, options)
        return np.asarray(result)

    def floor(
        self,
        eigenvalues: Any,
        counts: Any,
        sigma: Any,
        stopping_sigma: float,
        *,
        eta: float = 0.0,
        terminal: str = "denoise",
    ) -> Array:
        """Squared terminal error per unit sigma and step or correlation length: tau b(sigma) / beta.

        The variance that no number of examples removes, contracted with the kernel: of a constant step, at
        its finite size, plus that of N images (docs/theory.md section 5). The latter, summed over correlation
        lengths, is the local model of an error common to all levels; `dataset_error` is its exact value, to
        be reported and not added.

        Args, errors as in `reducible`; returns (L,), zeros for averaged training on fresh examples.

        >>> from codesign_opt.training.optimisers import AveragedSGD
        >>> AveragedSGD().floor([1.0], [1.0], [1.0], 0.5)
        array([0.])
        """
        lam, n, level, options = kernel_arguments(eigenvalues, counts, sigma, eta, terminal)
        # all regressors of a full matrix add to the noise of one output, so that their number counts; in a diagonal one
        # every weight is alone
        noise = self._stationary(lam, n if self.matrix == "full" else None, level)
        mean = mean_kernel(lam, level, stopping_sigma, **options)
        result = np.zeros(level.size)
        if noise is not None:
            result = terminal_error(lam, n, level, stopping_sigma, noise, full=self.matrix == "full", **options)
            # the intercept's noise is 0 where none is learned
            result = result + n @ (mean * noise.intercept / level**4)
        if self.dataset_size is not None:
            bound = self._data_bound(lam, n, level, stopping_sigma, options)
            result = result + bound / self.dataset_size
        return np.asarray(result)

    def at_stops(
        self, eigenvalues: Array, counts: Array, sigma: Array, stops: Array, *, eta: float, terminal: str
    ) -> tuple[Array, Array, Array | None] | None:
        """`reducible`, `floor` and `untrained` for R stopping points at once, (R, L) each, at levels above the lowest.

        Of a diagonal matrix alone every band's part is a function of the level times one of the stopping
        point, P_b v_b(sigma_r)^(2 eta^2); None for all else.
        """
        # a subclass with a law of its own is asked at each stopping point: this sum would bypass it
        kind = type(self)
        laws = ("reducible", "floor", "untrained")
        own = any(getattr(kind, law) is not getattr(TrainingNoise, law) for law in laws)
        if own or self.matrix != "diagonal" or self.intercept or self.dataset_size is not None:
            return None
        lam, level = np.asarray(eigenvalues), np.asarray(sigma)
        weight, unit = self._stop_weights(lam, counts, level, stops, eta=eta, terminal=terminal)
        noise = self._stationary(lam, None, level)
        v = lam[:, None] + level**2
        score = weight @ (unit * lam[:, None] * level**2 / v**2)
        floor = np.zeros_like(score) if noise is None else weight @ (unit * noise.row * noise.column)
        slopes = self.untrained_slopes(lam, level)
        return score, floor, None if slopes is None else weight @ (unit * slopes)

    def _stop_weights(
        self, eigenvalues: Array, counts: Array, sigma: Array, stops: Array, *, eta: float, terminal: str
    ) -> tuple[Array, Array]:
        """(R, B) and (B, L): what a squared error of a diagonal slope costs is their product over the bands."""
        lam, n, level, options = kernel_arguments(eigenvalues, counts, sigma, eta, terminal)
        lowest = float(stops.min())
        unit = n[:, None] * diagonal_kernel(lam, level, lowest, **options) / level**4
        ends = lam + stops[:, None] ** 2
        weight = ends if terminal == "rescale" else lam**2 / ends
        # injected noise forgets an error by (v_r / v)^(eta^2) in the std: twice that in the squared error
        weight = weight * (ends / (lam + lowest**2)) ** (2 * eta**2)
        # relative to the lowest stopping point, where the kernel is known: P and the damping are all that depends on it
        least = terminal_weight(lam, lowest, terminal)
        return np.divide(weight, least, out=np.zeros_like(weight), where=least > 0), unit

    def weight_variance(self, eigenvalues: Any, sigma: Any) -> tuple[Array, Array]:
        """Variance of the denoiser's slope in the diagonal model: Var W_b = A / m + F.

        A = lambda sigma^2 / v^2 (docs/theory.md section 5), whatever the parameterisation; in whole passes
        through a data set times 1 - 2 lambda sigma^2 / v^2.

        Args:
            eigenvalues: (B,), squared data units, >= 0.
            sigma: (L,), noise levels, data units, > 0.

        Returns:
            A and F, (B, L) each, no units.

        Raises:
            ValueError: an argument is out of its range; an unstable learning rate.

        >>> from codesign_opt.training.optimisers import AveragedSGD
        >>> AveragedSGD().weight_variance([1.0], [1.0])
        (array([[0.25]]), array([[0.]]))
        """
        lam = variances(eigenvalues, "eigenvalues")
        return self._weight_variance(lam, noise_levels(sigma, "sigma"))

    def unchecked_weight_variance(self, lam: Array, level: Array) -> tuple[Array, Array]:
        """`weight_variance` of checked arguments, for descents, which ask often; a subclass's own where it has one."""
        if type(self).weight_variance is not TrainingNoise.weight_variance:
            return self.weight_variance(lam, level)
        return self._weight_variance(lam, level)

    def _weight_variance(self, lam: Array, level: Array) -> tuple[Array, Array]:
        square = level**2
        fresh = lam[:, None] * square / (lam[:, None] + square) ** 2
        noise = self._stationary(lam, None, level)
        floor = np.zeros(fresh.shape) if noise is None else noise.diagonal()
        if self.dataset_size is None:
            return fresh, floor
        # the bound is one of the score (D - x) / sigma^2; the slope is the denoiser's
        common = cramer_rao_variance(lam, level) * level**4
        return self._with_dataset(fresh, floor, common)

    def intercept_variance(self, eigenvalues: Any, sigma: Any) -> tuple[Array, Array]:
        """Variance of the denoiser's learned intercept in the diagonal model: A / m + F, zeros without one.

        A = lambda sigma^2 / v (docs/theory.md section 5). A constant step has the floor (tau / beta) omega_F
        lambda sigma^2 / (2 v) as tau -> 0. Args, returns and errors as in `weight_variance`; squared data
        units.

        >>> from codesign_opt.training.optimisers import AveragedSGD
        >>> AveragedSGD(intercept=True).intercept_variance([1.0], [1.0])
        (array([[0.5]]), array([[0.]]))
        """
        lam = variances(eigenvalues, "eigenvalues")
        level = noise_levels(sigma, "sigma")
        shape = (lam.size, level.size)
        if not self.intercept:
            return np.zeros(shape), np.zeros(shape)
        fresh = lam[:, None] * level**2 / (lam[:, None] + level**2)
        noise = self._stationary(lam, None, level)
        floor = np.zeros(shape) if noise is None else noise.intercept
        return self._with_dataset(fresh, floor, cramer_rao_intercept(lam, level) * level**4)

    def last_evaluation(self, eigenvalues: Any, counts: Any, stopping_sigma: float) -> tuple[float, float]:
        """Squared error that the closing denoiser call adds under "denoise": A_r / m_r + F_r.

        Diagonal: A_r = sigma_r^2 sum_b n_b lambda_b / v_b(sigma_r), F_r = (tau / beta) omega_F c_in^2
        sigma_r^2 sum_b n_b lambda_b / 2 as tau -> 0 (docs/theory.md section 2). Full: Var W_ij weighs
        lambda_j^2 / (P_i + P_j), twice that on the diagonal, the second-order Bures metric of the output. m_r
        counts the examples within one correlation length above sigma_r. Meaningless under "rescale".

        Args:
            eigenvalues: (B,), squared data units, >= 0.
            counts: (B,), directions per band, > 0.
            stopping_sigma: last positive noise level, data units, > 0.

        Returns:
            A_r and F_r, squared data units (A_r times examples).

        Raises:
            ValueError: an argument is out of its range; an unstable learning rate.

        >>> from codesign_opt.training.optimisers import AveragedSGD
        >>> AveragedSGD().last_evaluation([3.0], [1.0], 1.0)
        (0.75, 0.0)
        """
        stop = np.array([noise_level(stopping_sigma, "stopping_sigma")])
        lam, n, _, _ = kernel_arguments(eigenvalues, counts, stop, 0.0, "denoise")
        full = self.matrix == "full"
        noise = self._stationary(lam, n if full else None, stop)
        sigma, unit = float(stop[0]), fresh_noise(lam, stop)
        fresh = output_error(lam, n, sigma, unit, full)
        fresh += float(n @ unit.intercept[:, 0]) if self.intercept else 0.0
        floor = 0.0
        if noise is not None:
            floor = output_error(lam, n, sigma, noise, full) + float(n @ noise.intercept[:, 0])
        if self.dataset_size is not None:
            common = output_data_error(lam, n, sigma, full)
            if self.intercept:
                common += float(n @ (lam * stop**4 / (lam + stop**2) ** 2))
            # as in `reducible`: what the images share is a floor, and in whole passes is no part of A
            floor += common / self.dataset_size
            fresh -= 0.0 if self.replacement else common
        return fresh, floor

    @property
    def final_floor_is_monotone(self) -> bool:
        """Whether F_r of `last_evaluation` rises or falls with sigma_r throughout, so that ends bound an interval."""
        return False

    def last_evaluations(self, eigenvalues: Array, counts: Array, stops: Array) -> tuple[Array, Array]:
        """`last_evaluation` at R stopping points, (R,) each: at once for a diagonal matrix on fresh examples."""
        # of a full matrix H couples the bands anew at every stopping point, and a subclass may have a law of its own
        changed = type(self).last_evaluation is not TrainingNoise.last_evaluation
        if changed or self.matrix != "diagonal" or self.dataset_size is not None:
            own = np.array([self.last_evaluation(eigenvalues, counts, float(stop)) for stop in stops])
            return own[:, 0], own[:, 1]
        lam, n, level, _ = kernel_arguments(eigenvalues, counts, stops, 0.0, "denoise")
        noise = self._stationary(lam, None, level)
        v = lam[:, None] + level**2
        row = lam[:, None] * level**2 / v
        fresh = n @ (row + row if self.intercept else row)
        if noise is None:
            return fresh, np.zeros_like(fresh)
        return fresh, n @ (noise.row * noise.column * v + noise.intercept)

    def dataset_error(
        self, eigenvalues: Any, counts: Any, stopping_sigma: float, *, terminal: str = "denoise"
    ) -> float:
        """Squared terminal error of a finite data set, all levels together: T_N, 0 for fresh examples.

        See `codesign_opt.training.lower_bounds.dataset_floor`: the levels share one error, so neither the density nor
        the steps change it. The closing denoiser call is in it.

        >>> from codesign_opt.training.optimisers import AveragedSGD
        >>> AveragedSGD(dataset_size=1000).dataset_error([1.0], [2.0], 1e-6).__round__(9)
        0.001
        """
        if self.dataset_size is None:
            return 0.0
        options: dict[str, Any] = {"matrix": self.matrix, "intercept": self.intercept, "terminal": terminal}
        return _dataset_floor(eigenvalues, counts, stopping_sigma, self.dataset_size, **options)

    def to_dict(self, sigma: Any = None) -> dict[str, Any]:
        """Plain values, for JSON; `sigma` are the levels at which a function of sigma is tabulated.

        Raises:
            ValueError: a field is a function of sigma and `sigma` is not given.

        >>> from codesign_opt.training.optimisers import AveragedSGD
        >>> TrainingNoise.from_dict(AveragedSGD(matrix="full").to_dict()).matrix
        'full'
        """
        result: dict[str, Any] = {"type": self.name}
        for field in fields(self):  # type: ignore[arg-type]
            result[field.name] = _plain(getattr(self, field.name), sigma, f"{self.name}.{field.name}")
        return result

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> TrainingNoise:
        """Rebuild what `to_dict` wrote.

        Raises:
            ValueError: not a mapping, an unknown `type`, an unknown or a missing field.

        >>> TrainingNoise.from_dict({"type": "AveragedSGD", "matrix": "diagonal"}).name
        'AveragedSGD'
        """
        if not isinstance(data, Mapping):
            raise ValueError(f"TrainingNoise.from_dict needs a mapping, not {type(data).__name__}.")
        cls: Any = TRAINING_NOISES.find(data.get("type"))
        kind = cls.__name__
        values = {k: v for k, v in data.items() if k != "type"}
        if "prior" not in values and any(f.name == "prior" for f in fields(cls)):
            values["prior"] = None  # versions before 0.2.0 knew A / m alone
        unknown = sorted(set(values) - {f.name for f in fields(cls)})
        if unknown:
            raise ValueError(f"{kind} has no field {', '.join(map(repr, unknown))}.")
        # a function of sigma was saved as its table, and comes back as an interpolation of it
        if isinstance(values.get("weight"), Mapping):
            table = values["weight"]
            if set(table) != {"sigma", "value"}:
                raise ValueError(f"{kind}.weight has the keys {sorted(table)}; sigma and value are needed.")
            values["weight"] = TabulatedWeight(**table)
        needed = (f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING)
        missing = [name for name in needed if name not in values]
        if missing:
            raise ValueError(f"{kind} lacks {', '.join(map(repr, missing))}.")
        result: TrainingNoise = cls(**values)
        return result

    def _check_common(self) -> None:
        choice(self.matrix, f"{self.name}.matrix", MATRICES)
        self._check_prior(self.name)
        for flag in ("intercept", "replacement"):
            object.__setattr__(self, flag, check_flag(getattr(self, flag), f"{self.name}.{flag}"))
        if self.dataset_size is not None:
            size = integer(self.dataset_size, f"{self.name}.dataset_size", minimum=1)
            object.__setattr__(self, "dataset_size", size)

    def _with_dataset(self, fresh: Array, floor: Array, common: Array) -> tuple[Array, Array]:
        if self.dataset_size is None:
            return fresh, floor
        return (fresh if self.replacement else fresh - common), floor + common / self.dataset_size

    def _data_bound(self, lam: Array, n: Array, level: Array, stop: float, options: dict[str, Any]) -> Array:
        return cramer_rao_score_error(lam, n, level, stop, matrix=self.matrix, intercept=self.intercept, **options)


def _plain(value: Any, sigma: Any, name: str) -> Any:
    if not callable(value):
        return value
    if isinstance(value, TabulatedWeight) and sigma is None:
        return {"sigma": value.sigma.tolist(), "value": value.value.tolist()}
    if sigma is None:
        raise ValueError(f"{name} is a function of sigma; pass the levels to to_dict(sigma=...) to tabulate it.")
    # ascending and each once, as a table is read back
    levels = np.unique(noise_levels(sigma, "sigma"))
    return {"sigma": levels.tolist(), "value": evaluate_weight(value, levels, name).tolist()}
