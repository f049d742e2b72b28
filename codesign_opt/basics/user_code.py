"""Errors inside functions that a user wrote, told with the name of the part that called them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .errors import CodesignError

__all__ = ["told_in"]

_WRONG_KIND = (TypeError, AttributeError, NameError, NotImplementedError)


@contextmanager
def told_in(where: str) -> Iterator[None]:
    """Raise what goes wrong inside with the name of the part in front, the original as its cause.

    The library's own errors keep their class, and their words where they name the part already. Others become a
    TypeError where something of the wrong kind was asked for, else a ValueError: what a user of the package expects.

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
        if str(error).startswith(f"in {where}: "):
            raise
        kind = TypeError if isinstance(error, _WRONG_KIND) else ValueError
        plain = isinstance(error, (kind, NotImplementedError))
        said = str(error) if plain else f"{type(error).__name__}: {error}"
        raise kind(f"in {where}: {said}") from error
