"""Checks of user input. Every message names the field, the offending value and its place."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Array", "Indices", "Mask", "boolean", "choice", "integer", "matrix", "number", "vector"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Indices = NDArray[np.intp]


def number(
    value: Any,
    name: str,
    *,
    positive: bool = False,
    nonnegative: bool = False,
    maximum: float | None = None,
    hint: str = "",
) -> float:
    """Return `value` as a finite float, or raise ValueError that names `name`."""
    if isinstance(value, (bool, np.bool_)):
        raise ValueError(f"{name} is {value}; a number is needed, not a bool.{_space(hint)}")
    if isinstance(value, (str, bytes)) or value is None or value is np.ma.masked or _ndim(value) != 0:
        raise ValueError(f"{name} is {value!r}; one number is needed.{_space(hint)}")
    try:
        result = float(value.detach() if _is_tensor(value) else value)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"{name} is {value!r}; one number is needed.{_space(hint)}") from None
    except OverflowError:
        raise ValueError(f"{name} is a whole number beyond 64-bit floats.{_space(hint)}") from None
    if not np.isfinite(result):
        raise ValueError(f"{name} is {result}; it must be finite.{_space(hint)}")
    if positive and result <= 0:
        raise ValueError(f"{name} is {result:g}; it must be > 0.{_space(hint)}")
    if nonnegative and result < 0:
        raise ValueError(f"{name} is {result:g}; it must be >= 0.{_space(hint)}")
    if maximum is not None and result > maximum:
        raise ValueError(f"{name} is {result:g}; it must be <= {maximum:g}.{_space(hint)}")
    return result


def integer(value: Any, name: str, *, minimum: int | None = None, hint: str = "") -> int:
    """Return `value` as an int (a float without fraction is accepted), or raise ValueError."""
    result = number(value, name, hint=hint)
    if result != int(result):
        raise ValueError(f"{name} is {result:g}; a whole number is needed.{_space(hint)}")
    if minimum is not None and result < minimum:
        raise ValueError(f"{name} is {int(result)}; it must be >= {minimum}.{_space(hint)}")
    return int(result)


def vector(
    value: Any,
    name: str,
    *,
    length: int | None = None,
    minimum_length: int = 1,
    positive: bool = False,
    nonnegative: bool = False,
    infinite: bool = False,
    ascending: bool = False,
    descending: bool = False,
    hint: str = "",
) -> Array:
    """Return a read-only float64 copy of a 1-D `value`; `infinite` admits +inf (an absent cap)."""
    result = _array(value, name, 1, hint)
    if length is not None and result.size != length:
        raise ValueError(f"{name} has {result.size} entries; {length} are needed.{_space(hint)}")
    if result.size < minimum_length:
        raise ValueError(f"{name} has {result.size} entries; at least {minimum_length} needed.{_space(hint)}")
    _check(result, name, positive, nonnegative, infinite, hint)
    for wanted, sign, word in ((ascending, 1.0, "ascending"), (descending, -1.0, "descending")):
        if wanted and result.size > 1:
            bad = np.flatnonzero(sign * np.diff(result) <= 0)
            if bad.size:
                i = int(bad[0])
                raise ValueError(
                    f"{name} must be strictly {word}, but entry {i} is {result[i]:g} and entry "
                    f"{i + 1} is {result[i + 1]:g}.{_space(hint)}"
                )
    return result


def matrix(
    value: Any,
    name: str,
    *,
    shape: tuple[int | None, ...] = (None, None),
    nonnegative: bool = False,
    hint: str = "",
) -> Array:
    """Return a read-only float64 copy of `value` with the given shape (None: any size >= 1)."""
    result = _array(value, name, len(shape), hint)
    for axis, (have, want) in enumerate(zip(result.shape, shape, strict=True)):
        if (want is not None and have != want) or have == 0:
            raise ValueError(
                f"{name} has shape {result.shape}; axis {axis} must have "
                f"{want if want is not None else 'at least 1'} entries.{_space(hint)}"
            )
    _check(result, name, False, nonnegative, False, hint)
    return result


def choice(value: Any, name: str, options: Iterable[str]) -> str:
    """Return `value` when it is one of `options`, or raise ValueError that lists them."""
    listed = list(options)
    if not isinstance(value, str) or value not in listed:
        raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(map(repr, listed))}.")
    return value


def boolean(value: Any, name: str) -> bool:
    """Return `value` when it is True or False, or raise ValueError."""
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"{name} is {value!r}; True or False is needed.")
    return bool(value)


def _array(value: Any, name: str, ndim: int, hint: str) -> Array:
    try:
        if _is_tensor(value):
            value = value.detach().cpu()
            value = value.double() if str(value.dtype) == "torch.bfloat16" else value  # the one that numpy lacks
        if np.ma.is_masked(value):
            raise ValueError(f"{name} is a masked array with masked entries; fill or drop them first.{_space(hint)}")
        raw = np.asarray(value)
    except (TypeError, RuntimeError):
        raise ValueError(f"{name} is not a rectangular array of numbers.{_space(hint)}") from None
    except ValueError as error:
        if "masked" in str(error):
            raise
        raise ValueError(f"{name} is not a rectangular array of numbers.{_space(hint)}") from None
    if raw.dtype == bool or raw.dtype.kind not in "iuf":
        raise ValueError(f"{name} has dtype {raw.dtype}; real numbers are needed.{_space(hint)}")
    if raw.ndim != ndim:
        raise ValueError(f"{name} has shape {raw.shape}; {ndim} dimension(s) are needed.{_space(hint)}")
    result = np.array(raw, dtype=np.float64)
    result.setflags(write=False)
    return result


def _check(result: Array, name: str, positive: bool, nonnegative: bool, infinite: bool, hint: str) -> None:
    low, high = result.min(initial=np.inf), result.max(initial=-np.inf)
    finite = -np.inf < low and (high < np.inf or (infinite and not np.isnan(high)))
    if (finite and not (positive and low <= 0) and not (nonnegative and low < 0)) or result.size == 0:
        return  # one pass where all is well: this runs for every table
    tests: list[tuple[Any, str]] = [
        (np.isnan(result) | (np.isinf(result) & ((result < 0) | (not infinite))), "must be finite"),
    ]
    if positive:
        tests.append((result <= 0, "must be > 0"))
    if nonnegative:
        tests.append((result < 0, "must be >= 0"))
    for bad, rule in tests:
        where = np.argwhere(bad)
        if where.size:
            index = tuple(int(i) for i in where[0])
            shown = index[0] if len(index) == 1 else index
            raise ValueError(f"{name} is {result[index]:g} at index {shown}; it {rule}.{_space(hint)}")


def _is_tensor(value: Any) -> bool:
    """Whether it is one of torch's, which is not loaded to know it."""
    return str(getattr(value, "dtype", "")).startswith("torch.")


def _ndim(value: Any) -> int:
    """Number of axes; -1 of ragged lists, which have none."""
    try:
        return int(value.ndim if hasattr(value, "ndim") else np.ndim(value))
    except (TypeError, ValueError):
        return -1


def _space(hint: str) -> str:
    return f" {hint}" if hint else ""
