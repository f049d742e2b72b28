"""Progress of long work: a bar where somebody watches, lines where that is asked for, or the caller's function.

The one place that decides what `progress=` does, wherever it is taken:

* None: in a terminal or a notebook, once the work has taken two seconds; nothing where stderr is a file or a pipe.
* True: at once, there and anywhere.
* False: nothing.
* a function of (done, total, text), total None where it is not known; or of the text alone.

Who watches sees a bar of tqdm where that is installed, and lines of text where it is not, or in a file. Whatever the
function raises ends the work, and so does an interrupt: what is kept in a `folder=` goes on from there.
"""

from __future__ import annotations

import inspect
import shutil
import sys
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Self, TextIO

import numpy as np

from .checks import shown

__all__ = ["Progress", "ProgressFunction", "Teller", "teller"]

ProgressFunction = Callable[[int, int | None, str], object] | Callable[[str], object]
Progress = bool | ProgressFunction | None
_PATIENCE = 2.0  # seconds of silence before anything is shown to who did not ask for it
_BAR = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}]"
_WIDEST = 110  # letters of a bar
_COUNT = "{desc}: {n_fmt} [{elapsed}]"


def teller(progress: Progress) -> Teller:
    """What takes the progress of one piece of work: `tell(text, done, total)`.

    Args:
        progress: None, True, False, or a function; see this module's first lines.

    Raises:
        ValueError: anything else.

    >>> tell = teller(lambda done, total, text: print(f"{done} of {total}: {text}"))
    >>> tell("stopping sigma 0.01", 1, 24)
    1 of 24: stopping sigma 0.01
    >>> teller(print)("spectrum")
    spectrum
    """
    if isinstance(progress, Teller):
        return progress
    if callable(progress):
        return Teller(_Told(progress))
    if not (progress is None or (isinstance(progress, (bool, int, np.bool_)) and progress in (0, 1))):
        raise ValueError(
            f"progress is {shown(progress)}; give True, False, None (in a terminal, after 2 s), or a function of "
            "(done, total, text)."
        )
    return Teller(None if progress is False else _Shown(0.0 if progress else _PATIENCE, asked=progress is True))


class Teller:
    """Takes the progress of one piece of work; a context that puts an end to its bar.

    >>> with teller(False) as tell:
    ...     tell("nobody hears this", 1, 2)
    """

    def __init__(self, report: _Report | None) -> None:
        self._report, self._done = report, 0
        self._total: int | None = None

    def __call__(self, text: str, done: int | None = None, total: int | None = None) -> None:
        """Tell what has just been done.

        Args:
            text: what, in a few words.
            done, total: how much of how much, in any unit. Unless given, no more is done than before, of what has a
                total; else the calls are counted.
        """
        if done is not None:
            self._done, self._total = done, total
        elif self._total is None:
            self._done += 1
        if self._report is not None:
            self._report.told(self._done, self._total, text)

    def within(self, done: int, total: int, stage: str = "") -> Progress:
        """What a part of the work takes as its progress: its texts, while `done` of `total` parts are done."""
        if self._report is None:
            return False
        before = f"{stage}: " if stage else ""
        return lambda part, parts, text: self(before + text, done, total)

    def close(self) -> None:
        """The work is over: what comes next begins on a line of its own, and is counted anew."""
        self._done, self._total = 0, None
        if self._report is not None:
            self._report.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class _Report(ABC):
    """Where progress goes."""

    @abstractmethod
    def told(self, done: int, total: int | None, text: str) -> None:
        """So much is done."""

    @abstractmethod
    def close(self) -> None:
        """The work is over, or was interrupted."""


class _Told(_Report):
    """The caller's function, of (done, total, text) or of the text alone."""

    def __init__(self, function: ProgressFunction) -> None:
        self._function: Callable[..., object] = function
        self._whole = function is not print  # which takes anything
        if self._whole and not _binds(function, 0, None, ""):
            self._whole = False
            if not _binds(function, ""):
                raise ValueError(
                    f"progress is {shown(function)}, which takes neither (done, total, text) nor the text alone."
                )

    def told(self, done: int, total: int | None, text: str) -> None:
        if self._whole:
            self._function(done, total, text)
        else:
            self._function(text)

    def close(self) -> None:
        pass


class _Shown(_Report):
    """A bar or lines on stderr, after some patience."""

    def __init__(self, patience: float, *, asked: bool) -> None:
        self._start, self._patience, self._asked = time.monotonic(), patience, asked
        self._bar: _Bar | None = None
        self._stage: tuple[int | None, float, int] = (None, self._start, 0)  # total; since when, and from where

    def told(self, done: int, total: int | None, text: str) -> None:
        now, stream = time.monotonic(), sys.stderr
        if total != self._stage[0]:
            self._stage = (total, now if done else self._start, done) if self._stage[0] else (total, self._start, 0)
            self.close()
        if stream is None or now - self._start < self._patience:
            return
        if watched(stream):
            self._bar = self._bar or _Bar.of(total, since=now - self._stage[1])
            if self._bar is not None:
                self._bar.at(done, text)
                return
        elif not self._asked:
            return
        print(text + self._left(done, total, now), file=stream, flush=True)

    def _left(self, done: int, total: int | None, now: float) -> str:
        """The end of a line: how much of how much, and how long the rest takes at the pace so far."""
        if total is None:
            return ""
        _, since, before = self._stage
        left = (now - since) / (done - before) * (total - done) if before < done < total else 0.0
        return f" ({done:,} of {total:,}{f', {_duration(left)} left' if left >= 1 else ''})"

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class _Bar:
    """A bar of tqdm, in a terminal or a notebook."""

    def __init__(self, kind: type, total: int | None, since: float) -> None:
        # terminals that do not know their width (of some containers) would get a bar of none
        width = {"ncols": min(shutil.get_terminal_size().columns, _WIDEST)} if sys.stderr.isatty() else {}
        self._bar = kind(total=total, file=sys.stderr, bar_format=_COUNT if total is None else _BAR, **width)
        self._bar.start_t -= since  # its estimate counts the time that was waited

    @classmethod
    def of(cls, total: int | None, since: float) -> _Bar | None:
        """None where tqdm is not installed."""
        try:
            with warnings.catch_warnings():  # a notebook without widgets gets tqdm's bar in text, and no advice
                warnings.simplefilter("ignore")
                from tqdm.auto import tqdm
        except ImportError:
            return None
        return cls(tqdm, total, since)

    def at(self, done: int, text: str) -> None:
        self._bar.set_description_str(" ".join(text.split())[:60], refresh=False)
        self._bar.n = done
        self._bar.refresh()

    def close(self) -> None:
        self._bar.close()


def _binds(function: Callable[..., object], *given: object) -> bool:
    """Whether it can be called like this; True where it does not say what it takes, as some functions of C."""
    try:
        inspect.signature(function).bind(*given)
    except TypeError:
        return False
    except ValueError:
        return True
    return True


def watched(stream: TextIO) -> bool:
    """Whether somebody looks at what is written: a terminal, or a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return stream.isatty() or hasattr(shell, "kernel")


def _duration(seconds: float) -> str:
    """
    >>> [_duration(seconds) for seconds in (3.2, 95, 7200)]
    ['3 s', '2 min', '2 h']
    """
    for unit, size in (("h", 3600.0), ("min", 60.0)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
