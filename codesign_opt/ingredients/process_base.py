"""What a forward process is: the map between the user's time t, the noise level sigma, and the log-SNR."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, ClassVar, TypeVar

import numpy as np

from ..basics.checks import Array, array, number, vector
from ..basics.registry import Registry

__all__ = ["PROCESSES", "Process"]

Numeric = TypeVar("Numeric", float, Array)

# A round trip t -> sigma -> t may leave the range by rounding; that much is clipped, more is refused.
_RELATIVE_SLACK = 1e-9
_ABSOLUTE_SLACK = 1e-12

PROCESSES: Registry[type[Process]] = Registry("Process.name", "Process")

_MOST = 1e40  # largest noise level over the smallest


class Process(ABC):
    """Forward process x_t = s_t x_0 + sigma_t z, known by its noise level sigma(t) = sigma_t / s_t.

    docs/theory.md section 1. In the coordinates x_t / s_t every process is the same path, so plans are made
    in sigma and come back in the user's time through this class. sigma increases with t. Methods take one
    number or an array and return the same shape; values outside the range of the process, NaN, bools and
    empty arrays raise ValueError.

    To add a process, write a frozen dataclass with a class attribute `name`, the properties (or fields)
    `t_min` and `t_max`, and the formulas `_sigma`, `_time`, `_scale`, `_dsigma_dt` on checked float64 values;
    `to_dict` and `Process.from_dict` then work by name.

    >>> from codesign_opt.ingredients.process import Process
    >>> Process.from_dict({"name": "edm", "sigma_min": 0.01}).sigma_min
    0.01
    """

    name: ClassVar[str]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "name" in vars(cls):  # else an abstract layer, or a subclass that keeps its parent's name
            PROCESSES.add(cls.name, cls)

    # The formulas of one process; arguments are checked float64 numbers or arrays.

    @abstractmethod
    def _sigma(self, t: Any) -> Any: ...

    @abstractmethod
    def _time(self, sigma: Any) -> Any: ...

    @abstractmethod
    def _scale(self, t: Any) -> Any: ...

    @abstractmethod
    def _dsigma_dt(self, t: Any) -> Any: ...

    @property
    @abstractmethod
    def t_min(self) -> float:
        """Smallest time, where sigma = sigma_min."""

    @property
    @abstractmethod
    def t_max(self) -> float:
        """Largest time, where sigma = sigma_max."""

    @property
    def sigma_min(self) -> float:
        """Smallest noise level, sigma(t_min), data units."""
        return float(self._sigma(self.t_min))

    @property
    def sigma_max(self) -> float:
        """Largest noise level, sigma(t_max), data units."""
        return float(self._sigma(self.t_max))

    def sigma(self, t: Numeric) -> Numeric:
        """Noise level sigma_t / s_t at time t, data units.

        Args: t in [t_min, t_max], a number or an array. Raises ValueError outside. docs/theory.md section 1.

        >>> from codesign_opt.ingredients.process import EDM
        >>> EDM().sigma(3.0)
        3.0
        """
        return _plain(np.clip(self._sigma(self._checked(t, "t")), self.sigma_min, self.sigma_max))

    def time(self, sigma: Numeric) -> Numeric:
        """Time t at which the noise level is sigma: the inverse of `sigma`.

        Args: sigma in [sigma_min, sigma_max], a number or an array. Raises ValueError outside: in
        particular the final sigma = 0 of a grid has no time. docs/theory.md section 1.

        >>> from codesign_opt.ingredients.process import FlowMatching
        >>> round(FlowMatching().time(1.0), 12)
        0.5
        """
        return self._inverse(self._checked(sigma, "sigma"))

    def scale(self, t: Numeric) -> Numeric:
        """Factor s_t that multiplies the clean data at time t, no unit; the model's input is s_t times x-hat.

        Args: t in [t_min, t_max], a number or an array. Raises ValueError outside. docs/theory.md section 1.

        >>> from codesign_opt.ingredients.process import FlowMatching
        >>> FlowMatching().scale(0.25)
        0.75
        """
        return _plain(self._scale(self._checked(t, "t")))

    def log_snr(self, t: Numeric) -> Numeric:
        """Logarithm of the signal-to-noise ratio, log(s_t^2 / sigma_t^2) = -2 log sigma(t).

        Args: t in [t_min, t_max], a number or an array. Raises ValueError outside. docs/theory.md section 1.

        >>> from codesign_opt.ingredients.process import EDM
        >>> round(EDM().log_snr(2.0), 4)
        -1.3863
        """
        return _plain(-2.0 * np.log(self._sigma(self._checked(t, "t"))))

    def time_from_log_snr(self, log_snr: Numeric) -> Numeric:
        """Time t at which the log-SNR is the given value: inverse of `log_snr`.

        By sigma = exp(-log_snr / 2).

        Args: log_snr in [-2 log sigma_max, -2 log sigma_min], a number or an array. Raises ValueError
        outside. docs/theory.md section 1.

        >>> from codesign_opt.ingredients.process import EDM
        >>> EDM().time_from_log_snr(0.0)
        1.0
        """
        return self._inverse(np.exp(-0.5 * self._checked(log_snr, "log_snr")))

    def dsigma_dt(self, t: Numeric) -> Numeric:
        """Speed of the noise level, d sigma / dt > 0: a density per unit sigma times this is one per unit t.

        Args: t in [t_min, t_max], a number or an array. Raises ValueError outside. docs/theory.md section 1.

        >>> from codesign_opt.ingredients.process import FlowMatching
        >>> FlowMatching().dsigma_dt(0.5)
        4.0
        """
        return _plain(self._dsigma_dt(self._checked(t, "t")))

    def to_dict(self) -> dict[str, Any]:
        """The process by name and parameters, ready for json.

        >>> from codesign_opt.ingredients.process import VE
        >>> VE().to_dict()
        {'name': 've', 'sigma_min': 0.02, 'sigma_max': 100.0}
        """
        return {"name": self.name} | {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]

    @staticmethod
    def named(value: Any, what: str = "process") -> Process:
        """A process as it is, or the one of a name with its own parameters: what every argument for processes takes.

        Args: value, a Process or its `name`; what, whose argument it is, for messages.
        Raises ValueError: another object, or an unknown name, with the nearest.

        >>> from codesign_opt.ingredients.process import Process
        >>> Process.named("flow_matching")
        FlowMatching(t_min=0.002, t_max=0.988)
        """
        found: Process = PROCESSES.named(value, Process, what)
        return found

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Process:
        """Restore what `to_dict` wrote; ValueError names an unknown process or parameter.

        >>> from codesign_opt.ingredients.process import Process
        >>> Process.from_dict({"name": "vp", "beta_max": 10.0})
        VP(beta_min=0.1, beta_max=10.0, t_min=0.001)
        """
        if not isinstance(data, Mapping):
            raise ValueError(f"Process.from_dict: {type(data).__name__} given; a mapping is needed.")
        kind = PROCESSES.find(data.get("name"))
        parameters = {key: value for key, value in data.items() if key != "name"}
        known = {f.name for f in fields(kind)}  # type: ignore[arg-type]
        if set(parameters) - known:
            unknown = sorted(map(str, set(parameters) - known))
            raise ValueError(f"{kind.__name__}.from_dict: unknown parameters {unknown}; known: {sorted(known)}.")
        return kind(**parameters)

    def _inverse(self, sigma: Any) -> Any:
        # Rounding must not carry a time out of the range that the other methods accept.
        return _plain(np.clip(self._time(sigma), self.t_min, self.t_max))

    def _checked(self, value: Any, what: str) -> Any:
        if what == "t":
            low, high = self.t_min, self.t_max
        elif what == "sigma":
            low, high = self.sigma_min, self.sigma_max
        else:
            low, high = -2.0 * np.log(self.sigma_max), -2.0 * np.log(self.sigma_min)
        return _within(value, f"{type(self).__name__}.{what}", float(low), float(high))

    def _store(self, **limits: bool) -> None:
        """Normalise the named fields to finite floats; True demands > 0, False >= 0."""
        for field, positive in limits.items():
            name = f"{type(self).__name__}.{field}"
            checked = number(getattr(self, field), name, positive=positive, nonnegative=not positive)
            object.__setattr__(self, field, checked)

    def _ascending(self, low: str, high: str) -> None:
        if not getattr(self, low) < getattr(self, high):
            raise ValueError(
                f"{type(self).__name__}.{low} is {getattr(self, low):g}; it must be < {high} = {getattr(self, high):g}."
            )
        if getattr(self, high) > _MOST * getattr(self, low) > 0:
            raise ValueError(
                f"{type(self).__name__}.{low} is {getattr(self, low):g} and {high} {getattr(self, high):g}; "
                f"noise levels lie within {np.log10(_MOST):.0f} decades."
            )


def _plain(result: Any) -> Any:
    """A Python float for one number (numpy scalars print as np.float64), the array otherwise."""
    return result if np.ndim(result) else float(result)


def _within(value: Any, name: str, low: float, high: float) -> Any:
    """Return `value` as float64 of its own shape with every entry in [low, high]."""
    checked: Any
    if hasattr(value, "__array__"):
        checked = array(value, name)
        vector(checked.ravel(), name)  # not empty
    else:
        checked = vector(value, name) if isinstance(value, (list, tuple)) else number(value, name)
    entries = np.ravel(checked)
    slack = _ABSOLUTE_SLACK * (high - low)
    below = entries < low - slack - _RELATIVE_SLACK * abs(low)
    bad = np.flatnonzero(below | (entries > high + slack + _RELATIVE_SLACK * abs(high)))
    if bad.size:
        where = f" at index {int(bad[0])}" if np.ndim(checked) else ""
        raise ValueError(
            f"{name} is {entries[bad[0]]:g}{where}; it must be within [{low:g}, {high:g}], the range of the "
            "process. Widen the range when constructing the process, if the model was trained there."
        )
    clipped = np.clip(checked, low, high)
    return clipped if np.ndim(checked) else float(clipped)
