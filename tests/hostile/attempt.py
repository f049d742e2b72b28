"""One hostile call from a seed: what it was, and what was wrong with how it was refused."""

from __future__ import annotations

import linecache
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from types import FrameType, TracebackType
from typing import Any

import numpy as np

import codesign_opt as co
from codesign_opt.basics.checks import shown
from codesign_opt.training.base import TrainingNoise
from tests.hostile import plausible
from tests.hostile.arguments import hostile
from tests.hostile.calls import Call, required

SECONDS = 60.0  # of processor time for one call
OWN_CALLBACKS = ("progress", "on_attempt", "compute")  # what these raise is theirs: a user stops the work by it
OF_CALLBACKS = ("basics/progress.py", "programs/attempts.py", "basics/ledger.py")  # where they are called
ACCEPTED = (ValueError, TypeError, ImportError, co.CodesignError)


class Hang(BaseException):
    """A call that takes too long."""


@dataclass(frozen=True)
class Fault:
    """What is wrong with one call, and how to see it again."""

    name: str
    seed: int
    what: str
    where: str

    def __str__(self) -> str:
        again = f"python -c \"from tests.hostile.attempt import repeat; repeat('{self.name}', {self.seed})\""
        return f"{self.what} at {self.where}: {again}"


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise `Hang` after so much processor time, or five times as much of the clock's: some hangs only wait."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Hang

    timers = ((signal.SIGPROF, signal.ITIMER_PROF, seconds), (signal.SIGALRM, signal.ITIMER_REAL, 5 * seconds))
    before = [signal.signal(what, stop) for what, _, _ in timers]
    for _, timer, after in timers:
        signal.setitimer(timer, after)
    try:
        yield
    finally:
        for (what, timer, _), old in zip(timers, before, strict=True):
            signal.setitimer(timer, 0.0)
            signal.signal(what, old)


@cache
def others() -> list[Any]:
    """Objects of the package, which are right for other parameters."""
    return [plausible.model(), plausible.table(), plausible.plan(), plausible.PRICES, plausible.LEVELS, plausible.GRID,
            plausible.spectrum(), plausible.denoiser(), co.Heun, co.Heun(), co.EDM(), co.Local(), co.Steps(),
            co.LogNormal(), plausible.run(), plausible.problem()]  # fmt: skip


def arguments(call: Call, seed: int) -> tuple[dict[str, Any], list[str]]:
    """Plausible arguments with one or two of them replaced, and which."""
    rng = np.random.default_rng([seed, *call.name.encode()])
    given, names = call.given(), list(call.parameters)
    for name in names:  # fields of results, which nobody states by hand
        if name not in given and name in required(call):
            given[name] = hostile(rng, name, call.parameters[name], others())
    changed = [str(name) for name in rng.choice(names, size=min(1 + (rng.random() < 0.2), len(names)), replace=False)]
    for name in changed:
        given[name] = hostile(rng, name, call.parameters[name], others())
    return given, changed


def attempt(call: Call, seed: int) -> Fault | None:
    """What is wrong with how the package takes the call of this seed; None where nothing is."""
    given, changed = arguments(call, seed)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        try:
            with limited(SECONDS):
                use(call.function(**given))
        except Hang as error:
            return Fault(call.name, seed, f"hangs for {SECONDS:g} s", _last(error))
        except Exception as error:  # any: that is the question
            if not _our_own(error, changed):
                return Fault(call.name, seed, f"{type(error).__name__} ({said(error)})", _last(error))
    foreign = [one for one in seen if not issubclass(one.category, UserWarning)]
    if foreign:
        first = foreign[0]
        return Fault(
            call.name, seed, f"{first.category.__name__} ({first.message})", f"{first.filename}:{first.lineno}"
        )
    return None


def use(made: Any) -> None:
    """What one does first with a thing of its kind: a value that was let in must not fail there."""
    with suppress(LookupError):  # of a hostile object in the field of a result, which nobody states by hand
        repr(made)
    spectrum, grid, levels = plausible.spectrum(), plausible.GRID, plausible.LEVELS
    parts = co.ScoreError(plausible.table()) + co.Discretization(plausible.table())
    rows = [co.Compute(plausible.PRICES) <= 1e4]
    if isinstance(made, co.Spectrum):
        co.GaussianModel(made).coefficients(0.05, 8)
    elif isinstance(made, co.Process):
        co.GaussianModel(spectrum, process=made).coefficients(None, 8)
    elif isinstance(made, TrainingNoise):
        co.GaussianModel(spectrum, training=made).coefficients(0.05, 8)
    elif isinstance(made, co.Sampler):
        co.GaussianModel(spectrum, sampler=made).settled(grid, 8)
    elif isinstance(made, co.Coupling):
        co.GaussianModel(spectrum, coupling=made).coefficients(0.05, 8)
    elif isinstance(made, co.Prices):
        made.example_price(levels), made.evaluation_price(levels)
    elif isinstance(made, co.SigmaDensity):
        made.on_levels(levels), made.sample(4, np.random.default_rng(0))
    elif isinstance(made, co.peers.Schedule):
        made.sigmas(5, plausible.evidence())
    elif isinstance(made, co.TrainingRun):
        made.examples_on(levels)
    elif isinstance(made, co.Term):
        co.Problem(parts + made, rows).solve(time_limit=20.0)
    elif isinstance(made, co.Constraint) or type(made).__name__ in ("Named", "Bound"):
        co.Problem(parts, [*rows, made]).solve(time_limit=20.0)


def repeat(name: str, seed: int) -> None:
    """One call again, with what was given and the whole traceback."""
    from tests.hostile.calls import every

    call = next(call for call in every() if call.name == name)
    given, changed = arguments(call, seed)
    print(f"{name}: {', '.join(f'{one} = {type(given[one]).__name__} {shown(given[one])[:80]}' for one in changed)}")
    use(call.function(**given))


def _our_own(error: Exception, changed: list[str]) -> bool:
    """Whether the package refused the call itself, by an error of a class that is caught without its inner workings."""
    file, line = _place(error)
    if isinstance(error, OSError):
        return True
    if set(changed) & set(OWN_CALLBACKS) and _last(error).startswith(OF_CALLBACKS):
        return True
    if not isinstance(error, ACCEPTED):
        return False
    raised = linecache.getline(file, line).strip().startswith("raise")
    return raised if "/codesign_opt/" in file else isinstance(error, TypeError) and "argument" in str(error)


def said(error: BaseException) -> str:
    """The beginning of a message, whose own values may not print."""
    try:
        return str(error)[:80]
    except Exception:
        return "a message that does not print"


def _place(error: BaseException) -> tuple[str, int]:
    found = error.__traceback__
    assert isinstance(found, TracebackType)
    while found.tb_next is not None:
        found = found.tb_next
    return found.tb_frame.f_code.co_filename, found.tb_lineno


def _last(error: BaseException) -> str:
    """The last line of the package that it went through."""
    found, last = error.__traceback__, "?"
    while found is not None:
        file = found.tb_frame.f_code.co_filename
        if "/codesign_opt/" in file:
            last = f"{file.split('/codesign_opt/')[-1]}:{found.tb_lineno}"
        found = found.tb_next
    return last
