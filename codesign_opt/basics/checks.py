"""Checks of user input. Every message names the field, the offending value and its place."""

from __future__ import annotations

import functools
import inspect
import itertools
import math
import reprlib
from collections.abc import Callable, Iterable
from os import PathLike, fsencode
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from .spelling import meant, refuse_unknown

__all__ = [
    "AT_ONCE", "Array", "Indices", "Mask", "array", "as_path", "boolean", "choice", "entries", "function", "instance",
    "integer", "matrix", "ndim", "noise_level", "noise_levels", "number", "numbers",
    "scale_of", "scales_of", "shown", "takes", "variances", "vector",
]  # fmt: skip

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Indices = NDArray[np.intp]
P = ParamSpec("P")
T = TypeVar("T")

AT_ONCE = 10_000_000  # numbers that one count may ask for: a mistyped one takes no machine down
_ENTRIES = 100_000  # of what is given one by one: endless iterators end here
_LARGEST = 1e18  # of whole numbers: products of a few are floats
_FAR = 1e60  # of noise levels: their fourth powers are floats
_MOST_NUMBERS = 100_000_000  # of a range, which needs no memory until it is an array
_SHOWN = 200  # characters of a value in a message


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
    result = float(value) if type(value) in (float, np.float64) else _scalar(value, name, hint)
    if not math.isfinite(result):
        raise ValueError(f"{name} is {result}; it must be finite.{_space(hint)}")
    if positive and result <= 0:
        raise ValueError(f"{name} is {result:g}; it must be > 0.{_space(hint)}")
    if nonnegative and result < 0:
        raise ValueError(f"{name} is {result:g}; it must be >= 0.{_space(hint)}")
    if maximum is not None and result > maximum:
        raise ValueError(f"{name} is {result:g}; it must be <= {maximum:g}.{_space(hint)}")
    return result


def _scalar(value: Any, name: str, hint: str) -> float:
    """Whatever is one number as a float."""
    if isinstance(value, (bool, np.bool_)):
        raise ValueError(f"{name} is {value}; a number is needed, not a bool.{_space(hint)}")
    if (
        isinstance(value, (str, bytes))
        or value is None
        or value is np.ma.masked
        or _other_kind(value)
        or ndim(value) != 0
    ):
        raise ValueError(f"{name} is {shown(value)}; one number is needed.{_space(hint)}")
    try:
        return float(value.detach() if _is_tensor(value) else value)
    except OverflowError:
        raise ValueError(f"{name} is a whole number beyond 64-bit floats.{_space(hint)}") from None
    except Exception:  # TypeError, ValueError, or whatever the object's own conversion raises
        raise ValueError(f"{name} is {shown(value)}; one number is needed.{_space(hint)}") from None


def integer(value: Any, name: str, *, minimum: int | None = None, maximum: int | None = None, hint: str = "") -> int:
    """Return `value` as an int (a float without fraction is accepted), or raise ValueError."""
    result = number(value, name, hint=hint)
    if abs(result) > _LARGEST:
        raise ValueError(f"{name} is {result:g}; whole numbers up to {_LARGEST:g} are taken.{_space(hint)}")
    if result != int(result):
        raise ValueError(f"{name} is {result:g}; a whole number is needed.{_space(hint)}")
    if minimum is not None and result < minimum:
        raise ValueError(f"{name} is {int(result)}; it must be >= {minimum}.{_space(hint)}")
    if maximum is not None and result > maximum:
        raise ValueError(f"{name} is {int(result):,}; it must be <= {maximum:,}.{_space(hint)}")
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
        if wanted and not np.all(sign * result[1:] > sign * result[:-1]):
            bad = np.flatnonzero(sign * np.diff(result) <= 0)
            if bad.size:
                i = int(bad[0])
                raise ValueError(
                    f"{name} must be strictly {word}, but entry {i} is {result[i]:g} and entry "
                    f"{i + 1} is {result[i + 1]:g}.{_space(hint)}"
                )
    return result


def noise_level(value: Any, name: str) -> float:
    """Return `value` as a noise level > 0 whose powers a float holds, or raise ValueError."""
    level = number(value, name, positive=True)
    return level if 1 / _FAR <= level <= _FAR else float(noise_levels([level], name)[0])


def scale_of(value: Any, name: str) -> float:
    """Return `value` as a number > 0 that may be divided by and whose powers a float holds, or raise ValueError.

    >>> scale_of(1e-320, "width")
    Traceback (most recent call last):
    ValueError: width is 9.99989e-321; it must lie between 1e-60 and 1e+60.
    """
    scale = number(value, name, positive=True)
    return scale if 1 / _FAR <= scale <= _FAR else float(scales_of([scale], name)[0])


def scales_of(value: Any, name: str, *, length: int | None = None) -> Array:
    """Return a read-only float64 copy of numbers > 0 as `scale_of` takes them, or raise ValueError."""
    found = vector(value, name, positive=True, length=length)
    for each in (found.min(initial=1.0), found.max(initial=1.0)):
        if not 1 / _FAR <= each <= _FAR:
            raise ValueError(f"{name} is {each:g}; it must lie between {1 / _FAR:g} and {_FAR:g}.")
    return found


def noise_levels(value: Any, name: str) -> Array:
    """Return a read-only float64 copy of noise levels > 0 whose powers floats hold, or raise ValueError.

    >>> noise_levels([1.0, 1e200], "sigma")
    Traceback (most recent call last):
    ValueError: sigma is 1e+200; noise levels lie between 1e-60 and 1e+60.
    """
    found = vector(value, name, positive=True)
    low, high = float(found.min(initial=1.0)), float(found.max(initial=1.0))
    if low < 1 / _FAR or high > _FAR:
        beyond = low if low < 1 / _FAR else high
        raise ValueError(f"{name} is {beyond:g}; noise levels lie between {1 / _FAR:g} and {_FAR:g}.")
    return found


def variances(value: Any, name: str) -> Array:
    """Return a read-only float64 copy of 1-D variances >= 0 whose squares floats hold, or raise ValueError.

    >>> variances([1.0, 1e200], "eigenvalues")
    Traceback (most recent call last):
    ValueError: eigenvalues is 1e+200 at most; variances lie below 1e+120.
    """
    found = vector(value, name, nonnegative=True)
    if found.max(initial=0.0) > _FAR**2:
        raise ValueError(f"{name} is {found.max():g} at most; variances lie below {_FAR**2:g}.")
    return found


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
        raise ValueError(
            f"{name} is {shown(value)}; it must be one of {', '.join(map(repr, listed))}{meant(value, listed)}"
        )
    return value


def boolean(value: Any, name: str) -> bool:
    """Return `value` when it is True or False, or raise ValueError."""
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"{name} is {shown(value)}; True or False is needed.")
    return bool(value)


def instance(value: Any, kind: Any, name: str, hint: str = "") -> Any:
    """Return `value` when it is a `kind` (a class, or one of several), or raise ValueError: a class is no instance.

    >>> instance("edm", float, "mine", "Give a float.")
    Traceback (most recent call last):
    ValueError: mine is 'edm'; a float is needed. Give a float.
    """
    if not isinstance(value, kind):
        raise ValueError(f"{name} is {shown(value)}; a {_named(kind)} is needed.{_space(hint)}")
    return value


def as_path(value: Any, name: str = "path") -> Path:
    """Return `value` as a path, or raise ValueError: no number, no list, no text with a NUL.

    >>> as_path(3)
    Traceback (most recent call last):
    ValueError: path is 3; the path of a file or folder is needed.
    """
    if not isinstance(value, (str, PathLike)) or "\0" in str(value):
        raise ValueError(f"{name} is {shown(value)}; the path of a file or folder is needed.")
    try:
        fsencode(value)
    except UnicodeEncodeError:
        raise ValueError(f"{name} is {shown(value)}, a name that no file can have.") from None
    return Path(value)


def array(value: Any, name: str, hint: str = "") -> Array:
    """Return a read-only float64 copy of finite numbers of any shape, or raise ValueError."""
    raw = value if isinstance(value, np.ndarray) or _is_tensor(value) else _list_of(value)
    result = _array(raw, name, max(ndim(raw), 0), hint)
    _check(result, name, False, False, False, hint)
    return result


def numbers(value: Any, name: str, hint: str = "") -> Array:
    """Return a read-only float64 copy of real numbers of any shape, infinite ones and NaN too, or raise ValueError."""
    raw = value if isinstance(value, np.ndarray) or _is_tensor(value) else _list_of(value)
    return _array(raw, name, max(ndim(raw), 0), hint)


def function(value: Any, name: str, hint: str = "") -> Any:
    """Return `value` when it can be called, or raise ValueError."""
    if not callable(value):
        raise ValueError(f"{name} is {shown(value)}; a function is needed.{_space(hint)}")
    return value


def takes(**kinds: Any) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Decorator of a public function: arguments that are objects of the package, or functions, are what they must be.

    What is numbers is checked where it is read; an object of another kind would be told there by a missing attribute.
    A text becomes what it names, of classes that have a `named`: samplers and processes. Misspelt keyword arguments
    are answered with the nearest.

    Args:
        kinds: by parameter: a class, or `callable` for functions. None passes where it is the default.

    >>> @takes(width=float, axis=callable)
    ... def wide(width, axis=None):
    ...     return 2 * width
    >>> wide(1.5), wide("far")
    Traceback (most recent call last):
    ValueError: wide: width is 'far'; a float is needed.
    """

    def decorate(inner: Callable[P, T]) -> Callable[P, T]:
        parameters = inspect.signature(inner).parameters
        places = {name: place for place, name in enumerate(parameters)}
        checks = [(name, kind, places[name], parameters[name].default is None) for name, kind in kinds.items()]

        known, open_ended = list(parameters), any(p.kind is p.VAR_KEYWORD for p in parameters.values())

        @functools.wraps(inner)
        def checked(*given: P.args, **named: P.kwargs) -> T:
            values: list[Any] = list(given)
            if not open_ended and not named.keys() <= parameters.keys():
                refuse_unknown(named, known, inner.__name__)
            for name, kind, place, optional in checks:
                value = values[place] if place < len(values) else named.get(name, checks)
                if value is checks or (value is None and optional):
                    continue
                what = f"{inner.__name__}: {name}"
                if kind is callable:
                    function(value, what)
                elif hasattr(kind, "named"):
                    found = kind.named(value, what)
                    if place < len(values):
                        values[place] = found
                    else:
                        named[name] = found
                else:
                    instance(value, kind, what)
            return inner(*values, **named)

        return checked

    return decorate


def entries(value: Any, name: str, *, most: int = _ENTRIES, hint: str = "") -> tuple[Any, ...]:
    """What is given one by one, as a tuple; no text, no endless iterator.

    >>> entries(itertools.count(), "mine")
    Traceback (most recent call last):
    ValueError: mine has more than 100,000 entries.
    """
    if isinstance(value, (str, bytes)):
        raise ValueError(f"{name} is {shown(value)}; several values are needed, such as a list.{_space(hint)}")
    try:
        found = tuple(itertools.islice(iter(value), most + 1))
    except TypeError:
        raise ValueError(
            f"{name} is {shown(value)}; several values are needed, such as a list.{_space(hint)}"
        ) from None
    except Exception as error:  # whatever the object's own methods raise
        raise ValueError(f"{name} cannot be read one by one: {type(error).__name__}.{_space(hint)}") from error
    if len(found) > most:
        raise ValueError(f"{name} has more than {most:,} entries.{_space(hint)}")
    return found


def shown(value: Any) -> str:
    """A value as messages show it: its repr, cut where it is long, its type where it has none.

    >>> shown("edm"), shown("x" * 1000)[:4], len(shown("x" * 1000))
    ("'edm'", "'xxx", 200)
    """
    try:
        text = reprlib.repr(value) if isinstance(value, (str, bytes, int)) and _long(value) else repr(value)
    except Exception:  # the object's own repr may raise anything
        return f"a {type(value).__name__}"
    text = " ".join(map(str.strip, text.splitlines()))
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def _list_of(value: Any) -> Any:
    return np.asarray(value) if isinstance(value, (int, float, np.generic)) else value


def _named(kind: Any) -> str:
    return " or ".join(one.__name__ for one in kind) if isinstance(kind, tuple) else str(kind.__name__)


def _long(value: str | bytes | int) -> bool:
    return value.bit_length() > 1_000 if isinstance(value, int) else len(value) > 10 * _SHOWN


def _array(value: Any, name: str, ndim: int, hint: str) -> Array:
    try:
        if isinstance(value, range) and len(value) > _MOST_NUMBERS:
            raise ValueError
        if _is_tensor(value):
            value = value.detach().cpu()
            value = value.double() if str(value.dtype) == "torch.bfloat16" else value  # the one that numpy lacks
        if type(value) is not np.ndarray and np.ma.is_masked(value):
            raise ValueError(f"{name} is a masked array with masked entries; fill or drop them first.{_space(hint)}")
        raw = np.asarray(value)
    except Exception as error:  # TypeError, ValueError, RuntimeError, or what the object's own methods raise
        if isinstance(error, ValueError) and "masked" in str(error):
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
        if len(where):
            index = tuple(int(i) for i in where[0])
            place = "" if not index else f" at index {index[0] if len(index) == 1 else index}"
            raise ValueError(f"{name} is {result[index]:g}{place}; it {rule}.{_space(hint)}")


def _other_kind(value: Any) -> bool:
    """Whether it is one of NumPy's or torch's that holds no real numbers: complex ones would lose a part, warned."""
    if isinstance(value, (np.ndarray, np.generic)):
        return value.dtype.kind not in "iuf"
    return _is_tensor(value) and str(value.dtype) in ("torch.bool", "torch.complex64", "torch.complex128")


def _is_tensor(value: Any) -> bool:
    """Whether it is one of torch's, which is not loaded to know it."""
    plain = isinstance(value, (np.ndarray, np.generic, float, int, list, tuple))
    return not plain and str(getattr(value, "dtype", "")).startswith("torch.")


def ndim(value: Any) -> int:
    """Number of axes; -1 of ragged lists, which have none.

    >>> ndim(2.0), ndim([1.0, 2.0]), ndim([[1.0], [1.0, 2.0]])
    (0, 1, -1)
    """
    if isinstance(value, range):  # numpy would write its numbers out
        return 1
    try:
        return int(value.ndim if hasattr(value, "ndim") else np.ndim(value))
    except Exception:  # lists of lists of several lengths, or objects whose own methods fail
        return -1


def _space(hint: str) -> str:
    return f" {hint}" if hint else ""
