"""What users' functions say: called with copies, their answers checked, their errors told with the part's name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from .checks import Array, Indices
from .errors import CodesignError

__all__ = ["answer", "answer_on", "first_line", "named", "told_in"]

_LIBRARIES = {"builtins", "numpy", "scipy", "cvxpy", "torch"}  # whose errors are mistakes
_WRONG_KIND = (TypeError, AttributeError, NameError, NotImplementedError)


@contextmanager
def told_in(where: str) -> Iterator[None]:
    """Raise what goes wrong inside with the name of the part in front, the original as its cause.

    The library's own errors keep their class, and their words where they name the part already. Others become a
    TypeError where something of the wrong kind was asked for, else a ValueError: what a user of the package expects.
    A class of the user's own is raised on purpose, as an interruption: it passes as it is, with a note.

    >>> with told_in("the constraint 'more'"):
    ...     1 / 0
    Traceback (most recent call last):
    ValueError: in the constraint 'more': ZeroDivisionError: division by zero
    """
    try:
        yield
    except CodesignError as error:
        if where.split("'")[1 if "'" in where else 0] in str(error):
            raise
        again = type(error)(f"in {where}: {error}")
        vars(again).update(vars(error))
        raise again from error
    except Exception as error:  # whatever a function of the user's may raise
        own = type(error).__module__.split(".")[0] not in _LIBRARIES
        if own or type(error).__name__ == "OutOfMemoryError":  # torch's, which callers answer by smaller batches
            error.add_note(f"in {where}")
            raise
        if str(error).startswith(f"in {where}: "):
            raise
        kind = TypeError if isinstance(error, _WRONG_KIND) else ValueError
        plain = isinstance(error, (kind, NotImplementedError))
        said = str(error) if plain and str(error) else named(error)
        raise kind(f"in {where}: {said}") from error


def first_line(error: BaseException | None) -> str:
    """The first line of what an error says; its class where it says nothing.

    >>> first_line(ValueError("a\\nb")), first_line(NotImplementedError())
    ('a', 'NotImplementedError')
    """
    return (str(error).splitlines() or [type(error).__name__])[0]


def named(error: BaseException) -> str:
    """The class of an error and what it says; its class alone where it says nothing.

    >>> named(ValueError("off")), named(EOFError())
    ('ValueError: off', 'EOFError')
    """
    return f"{type(error).__name__}: {error}".removesuffix(": ")


def answer(function: Callable[[Array], Any], sigma: Array, name: str, *, what: str = "sigma") -> Array:
    """What a user's function says at noise levels: float64 of their shape, from one real number or one for each.

    It is called with a copy: a function that works in place changes nothing of ours. Floating-point warnings inside it
    are its own, silenced here; whether numbers are finite and positive is for the caller to check.

    Args:
        function: of an array of noise levels.
        sigma: the levels, of any shape.
        name: the field that holds the function, as messages call it.
        what: its argument, as messages call it.

    Raises:
        ValueError, TypeError: what the function raised, told as `told_in` does; an answer of another shape, complex,
            boolean, masked or no number at all.

    >>> answer(lambda s: 2 * s, np.array([1.0, 3.0]), "Prices.example").tolist()
    [2.0, 6.0]
    >>> answer(lambda s: s[:1], np.array([1.0, 3.0]), "Prices.example")
    Traceback (most recent call last):
    ValueError: Prices.example(sigma) returned shape (1,) and dtype float64 for shape (2,); one real number for each.
    """
    levels = np.array(sigma, dtype=np.float64)
    with told_in(f"{name}({what})"), np.errstate(all="ignore"):
        said = function(levels)
        found = np.asarray(said.detach().cpu() if hasattr(said, "detach") else said)
    if np.ma.is_masked(said):
        raise ValueError(f"{name}({what}) returned masked entries; fill them.")
    if found.dtype.kind not in "iuf" or found.shape not in ((), levels.shape):
        raise ValueError(
            f"{name}({what}) returned shape {found.shape} and dtype {found.dtype} for shape {levels.shape}; "
            "one real number for each."
        )
    return np.array(np.broadcast_to(found.astype(np.float64), levels.shape))


def answer_on(function: Callable[..., Any], given: Sequence[Array | Indices], name: str) -> Array:
    """What a user's function of several arrays of one shape says: float64 of that shape, no NaN among them.

    Raises:
        ValueError, TypeError: as `answer`; an answer that is no number.

    >>> answer_on(lambda a, b: b - a, [np.zeros(2), np.ones(2)], "cost").tolist()
    [1.0, 1.0]
    """
    with told_in(name), np.errstate(all="ignore"):
        said = function(*(np.array(each) for each in given))
        found = np.asarray(said.detach().cpu() if hasattr(said, "detach") else said)
    shape = given[0].shape
    if np.ma.is_masked(said) or found.dtype.kind not in "iuf" or found.shape not in ((), shape):
        raise ValueError(
            f"{name} returned shape {found.shape} and dtype {found.dtype} for shape {shape}; one real number for each."
        )
    if np.isnan(found).any():
        raise ValueError(f"{name} returned NaN; one real number for each is needed.")
    return np.array(np.broadcast_to(found.astype(np.float64), shape))
