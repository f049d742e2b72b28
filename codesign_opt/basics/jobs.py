"""Many calls of one function, here or by joblib's workers, their results in order."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from .checks import instance, integer, shown

__all__ = ["each_of"]

_MOST = 10_000  # calls at a time


def each_of(
    function: Callable[..., Any], calls: Iterable[tuple[Any, ...]], *, n_jobs: int = 1, backend: str | None = None
) -> Iterator[Any]:
    """Results of a function for each tuple of arguments, in order, as they come.

    Args:
        function: at the top of its module, which workers import.
        calls: arguments of each call.
        n_jobs: calls at a time; 1 needs no joblib, -1 is one per core.
        backend: of joblib, "loky" unless given.

    Raises:
        ValueError: n_jobs 0; ImportError: joblib is missing, with the pip command.

    >>> list(each_of(pow, [(2, 3), (3, 2)]))
    [8, 9]
    """
    count = integer(n_jobs, "n_jobs", maximum=_MOST)
    if backend is not None:
        instance(backend, str, "backend", 'One of joblib\'s is needed, such as "loky".')
    if count == 0:
        raise ValueError("n_jobs is 0; give the number of plans at a time, or -1 for one per core.")
    if count == 1 and backend is None:
        yield from (function(*arguments) for arguments in calls)
        return
    try:
        from joblib import Parallel, delayed
    except ImportError as error:
        raise ImportError(f"n_jobs={count} needs joblib ({error}); pip install joblib") from None
    try:
        workers = Parallel(n_jobs=count, backend=backend, return_as="generator")
    except ValueError as error:  # a backend that joblib does not have
        raise ValueError(f"backend is {shown(backend)}: {error}") from None
    found = workers(delayed(function)(*each) for each in calls)
    try:
        for result in found:  # noqa: UP028  `yield from` would close it before the warning is silenced
            yield result
    finally:
        with warnings.catch_warnings():  # of those that are cancelled where the caller stops early
            warnings.simplefilter("ignore")
            found.close()
