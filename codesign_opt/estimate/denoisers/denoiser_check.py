"""check_denoiser(): a denoiser held against what the spectrum of its data allows, without any list of models."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from ...basics.checks import AT_ONCE, Array, instance, integer, takes
from ...ingredients.process import EDM, Process
from ...ingredients.spectrum import Spectrum
from ..draws.streams import agreed, example_draws, first_of, normal
from ..spectra.measure import spectrum as measured_spectrum
from ..spectra.result import SpectrumEstimate
from .allowed_error import AllowedError
from .check_result import DenoiserCheck
from .denoiser import Denoise, Denoiser
from .mistakes import Mistake, other_inputs, other_outputs
from .pure import PURE_CALLS, check_pure
from .reading import Reading
from .same_denoiser import shared_range

__all__ = ["MOST_CALLS", "check_denoiser", "checked"]

MOST_CALLS = 50  # batch evaluations of one check
_LEVELS = 7
_SURVIVORS = (8, 5, 3, 3, 2, 2)  # readings that go on to the second level, the third, …
_NEAR = 1.15  # times the Wiener error: what a reading that is right may leave
_BETTER = 1.3  # by how much another reading must be better somewhere, beyond 4 standard errors; and in the mean
_SAMPLE = 2.2  # times the Wiener error: more than an answer with a sample of the posterior leaves
_SAMPLED = 1.8  # times the error of the other reading: near the two that a sample leaves, where the errors tell more
_TELLS = 0.8  # of the error without the network: an explanation has the network's answers in it
_TILT = 0.05  # of the Wiener error: what a factor on x would take away from the error of no posterior mean or sample
_CLEARLY = 1.5  # gain in the mean over levels, to name the cause of what is wrong anyway
_FAR = 3.0  # times the Wiener error: what is no explanation


@takes(process=Process)
def check_denoiser(
    denoiser: Denoise,
    data: Any,
    *,
    process: Process | None = None,
    spectrum: Spectrum | SpectrumEstimate | None = None,
    chunk: int = 64,
    seed: int = 0,
) -> DenoiserCheck:
    """Whether a denoiser can be one of these data, and which usual mistake explains it where it cannot.

    E|D(x0 + sigma z) - x0|^2 at seven noise levels is held against the errors of the identity, of the mean
    alone and of the Wiener filter (docs/theory.md section 1.5). Where it is more than a right denoiser leaves,
    other times, signs, predictions, states and scales of the data are tried. It takes at most 50 batch
    evaluations; 10 where nothing is amiss, some 30 for a network that is told a time from 0 to 1 or 1000.

    Args:
        denoiser: callable (x, sigma) -> x0, or what an adapter made; of `guided`, each part is checked.
        data: as in `network`; a sample of `chunk` examples is taken.
        process: gives the range of noise levels. EDM unless given.
        spectrum: of the data; measured unless given.
        chunk: states in one call of the denoiser, and examples per level (at least 4).
        seed: of the draws.

    Raises:
        DenoiserError: an answer that cannot be used, or that does not depend on (x, sigma) alone.
        ValueError: malformed arguments.

    >>> x = torch.randn(2000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    >>> check_denoiser(lambda x, sigma: x / (1 + sigma[:, None] ** 2), x).verdict
    'right'
    >>> check_denoiser(lambda x, sigma: x * sigma[:, None] / (1 + sigma[:, None] ** 2), x).cause
    'the network predicts epsilon, not x0'
    """
    chunk = integer(chunk, "check_denoiser.chunk", minimum=1, maximum=AT_ONCE)
    if spectrum is not None:
        instance(spectrum, (Spectrum, SpectrumEstimate), "check_denoiser.spectrum")
    first, data = first_of(data)
    like = torch.zeros((), dtype=first.dtype, device=first.device)
    draws = example_draws(data, first, max(4, min(chunk, 256)), seed=seed, like=like)
    found = measured_spectrum(data, seed=seed) if spectrum is None else spectrum
    wrapped, along = Denoiser.of(denoiser), EDM() if process is None else process
    low, high = shared_range(along, wrapped)
    states = normal(seed, "pure", shape=(4, *draws.shape[1:]), like=like)
    check_pure(wrapped, states, float(np.sqrt(low * high)))
    result = checked(wrapped, draws, found, along, chunk=chunk, seed=seed)
    return replace(result, evaluations=result.evaluations + PURE_CALLS)


def checked(
    denoiser: Denoiser,
    draws: torch.Tensor,
    spectrum: Spectrum | SpectrumEstimate,
    process: Process,
    *,
    chunk: int,
    seed: int,
) -> DenoiserCheck:
    """`check_denoiser` on (N, *shape) examples that were drawn, without `check_pure` and its calls."""
    known = spectrum if isinstance(spectrum, Spectrum) else spectrum.spectrum
    allowed = AllowedError(known, None if isinstance(spectrum, Spectrum) else spectrum.count)
    parts = denoiser.parts or (denoiser,)
    each = -(-draws.shape[0] // chunk)  # calls for all draws at one level
    most = (MOST_CALLS - PURE_CALLS) // len(parts)
    before = denoiser.calls
    sigma = allowed.levels(max(2, min(_LEVELS, most // each)), *shared_range(process, denoiser))
    with torch.no_grad():
        found = [_part(part, Questions(draws, sigma, allowed, chunk, seed, left=most)) for part in parts]
    spent = sum(one.evaluations for one in found)
    denoiser.calls = before + spent  # other readings, and parts, are not asked through it
    return replace(_worst(found), denoiser=denoiser.name, evaluations=spent, note="; ".join(denoiser.notes))


def _worst(found: list[DenoiserCheck]) -> DenoiserCheck:
    """Of the parts of a guided denoiser: one that is explained, or the best where all are wrong.

    One part may be of another condition than the data, so that it is wrong for them and nothing explains it.
    """
    explained = [one for one in found if one.cause]
    if explained:
        return explained[0]
    order = ("right", "unclear", "wrong")
    best = min(found, key=lambda one: order.index(one.verdict))
    unsure = best.verdict == "right" and any(one.verdict != "right" for one in found)
    return replace(best, verdict="unclear") if unsure else best


@dataclass(eq=False)
class Questions:
    """States at every level, and how many calls are left.

    Args:
        draws: (N, *shape) examples.
        sigma: (M,) levels.
        allowed: errors to hold against.
        chunk: states per call.
        seed: of the noise.
        left: calls that may still be made.
        spent: calls made.
    """

    draws: torch.Tensor
    sigma: Array
    allowed: AllowedError
    chunk: int
    seed: int
    left: int
    spent: int = 0
    wiener: Array = field(init=False)

    def __post_init__(self) -> None:
        self.wiener = self.allowed.wiener(self.sigma)

    @property
    def price(self) -> int:
        """Calls for all draws at one level."""
        return -(-self.draws.shape[0] // self.chunk)

    def state(self, level: int, sigma: float) -> torch.Tensor:
        """x0 + sigma z, with the noise of a level: the same for every reading."""
        return self.draws + sigma * normal(self.seed, "check", level, shape=tuple(self.draws.shape), like=self.draws)

    def ask(self, answer: Any, level: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(answers, states, noise levels) of all draws at a level."""
        sigma = torch.full((self.draws.shape[0],), float(self.sigma[level]), dtype=self.draws.dtype)
        x, sigma = self.state(level, float(self.sigma[level])), sigma.to(self.draws.device)
        self.left, self.spent = self.left - self.price, self.spent + self.price
        parts = [answer(*pair) for pair in zip(x.split(self.chunk), sigma.split(self.chunk), strict=True)]
        return torch.cat(parts), x, sigma

    def error(self, clean: torch.Tensor) -> Array:
        """(N,) squared errors of estimates of the clean data; infinite where they are not finite."""
        off = self._wider(clean - self.draws).square().sum(1).to("cpu").to(torch.float64)
        return agreed(torch.nan_to_num(off, nan=torch.inf, posinf=torch.inf).numpy())

    def _wider(self, values: torch.Tensor) -> torch.Tensor:
        return values.flatten(1).to(torch.promote_types(values.dtype, torch.float32))

    def silent(self, reading: Reading) -> Array:
        """(M,) errors of a reading whose network answers 0: x times a factor, by v and by preconditioned networks."""
        found = []
        for level, at in enumerate(self.sigma):
            x = self.state(level, float(at))
            sigma = torch.full((x.shape[0],), float(at), dtype=x.dtype, device=x.device)
            found.append(np.mean(self.error(reading.read(torch.zeros_like(x), x, sigma))))
        return np.array(found)

    def tilted(self, clean: torch.Tensor, x: torch.Tensor, level: int) -> bool:
        """Whether the errors go along with the state; those of the posterior mean, and of samples, do not."""
        around, off = self._wider(x - self.draws.mean(0)), self._wider(clean - self.draws)
        along, size = (agreed(v.sum(1).cpu().double().numpy()) for v in (off * around, around.square()))
        gain = np.mean(along) ** 2 / np.mean(size)
        sure = abs(np.mean(along)) > 4 * np.std(along, ddof=1) / np.sqrt(along.size)
        return bool(sure and gain > _TILT * self.wiener[level])


@dataclass(eq=False)
class Candidate:
    """A reading with its squared errors so far: level to (N,); `tilted` where they go along with the state."""

    mistake: Mistake
    errors: dict[int, Array] = field(default_factory=dict)
    tilted: dict[int, bool] = field(default_factory=dict)

    def score(self, wiener: Array) -> float:
        """Mean over its levels of log(error / Wiener error)."""
        with np.errstate(divide="ignore"):
            return float(np.mean([np.log(np.mean(e) / wiener[level]) for level, e in self.errors.items()]))


def _part(denoiser: Denoiser, asked: Questions) -> DenoiserCheck:
    """The check of one denoiser that mixes no others."""
    levels = range(asked.sigma.size)
    given, others = Candidate(Mistake("", denoiser.reading)), [Candidate(m) for m in other_outputs(denoiser.reading)]
    for level in levels:
        clean, x, sigma = asked.ask(denoiser, level)
        given.errors[level] = asked.error(clean)
        given.tilted[level] = asked.tilted(clean, x, level)
        out = denoiser.reading.answered(clean, x, sigma)
        for one in others:
            one.errors[level] = asked.error(one.mistake.reading.read(out, x, sigma))
    seen, error = _mean(given), _standard_error(given)
    lost = asked.allowed.lost(asked.sigma, seen, error)
    suspect = bool(lost.any() or np.any(seen > _NEAR * asked.wiener + 3 * error))
    mistakes = list(other_inputs(denoiser.reading, asked.allowed.spread))
    # data far from Gaussian leave room for a wrong time below the Wiener error: that one is always tried
    others += _narrowed(mistakes if suspect else [one for one in mistakes if one.time], asked)
    cause = _explanation(given, others, asked, bool(lost.any()))
    verdict = "wrong" if lost.any() or cause is not None else "unclear" if suspect else "right"
    result = DenoiserCheck(
        denoiser.name, asked.sigma, seen, error, asked.allowed.identity(asked.sigma), asked.wiener, asked.allowed.mean,
        verdict, evaluations=asked.spent,
    )  # fmt: skip
    return result if cause is None else replace(result, cause=cause.mistake.said, explained=_mean(cause))


def _mean(one: Candidate) -> Array:
    return np.array([np.mean(one.errors[level]) for level in sorted(one.errors)])


def _standard_error(one: Candidate) -> Array:
    return np.array([np.std(e, ddof=1) / np.sqrt(e.size) for _, e in sorted(one.errors.items())])


def _narrowed(mistakes: list[Mistake], asked: Questions) -> list[Candidate]:
    """Readings with other inputs, asked level by level, the telling ones first; fewer go on after each."""
    order = asked.allowed.telling(asked.sigma)
    alive = [[Candidate(m), *_with_outputs(m)] for m in mistakes]
    for turn, level in enumerate(order):
        rest = sum(_SURVIVORS[min(turn, len(_SURVIVORS) - 1) :]) * asked.price if turn < len(order) - 1 else 0
        room = max(asked.left - (rest if turn == 0 else 2 * (len(order) - 1 - turn) * asked.price), 0)
        keep = len(alive) if turn == 0 else _SURVIVORS[min(turn - 1, len(_SURVIVORS) - 1)]
        alive = sorted(alive, key=lambda group: _best(group, asked) if turn else 0.0)
        alive = [group for group in alive[: min(keep, room // asked.price)] if _answered(group, asked, level)]
    return [one for group in alive for one in group]


def _with_outputs(mistake: Mistake) -> list[Candidate]:
    if not mistake.outputs:
        return []
    return [Candidate(Mistake(f"{mistake.said}, and {m.said}", m.reading)) for m in other_outputs(mistake.reading)]


def _best(group: list[Candidate], asked: Questions) -> float:
    return min(one.score(asked.wiener) for one in group)


def _answered(group: list[Candidate], asked: Questions, level: int) -> bool:
    """Asks the network once for all readings of the same input; False where it cannot be asked so."""
    try:
        out, x, sigma = asked.ask(group[0].mistake.reading.answer, level)
        if out.shape != x.shape:
            return False
    except (RuntimeError, ValueError, IndexError, TypeError, KeyError, ArithmeticError):
        return False  # a time that the network has no place for: it was not trained so
    for one in group:
        one.errors[level] = asked.error(one.mistake.reading.read(out, x, sigma))
    return True


def _explanation(given: Candidate, others: Iterable[Candidate], asked: Questions, wrong: bool) -> Candidate | None:
    """The reading that explains what is seen: the best of those that do, the simplest of those as good."""
    whole = [one for one in others if len(one.errors) == asked.sigma.size]
    known = [one for one in whole if _explains(given, one, asked) and _tells(one, asked)]
    if not known and wrong:
        known = [one for one in whole if _helps(given, one, asked) and _tells(one, asked)]
    if not known:
        return None
    best = min(one.score(asked.wiener) for one in known)
    return next(one for one in known if one.score(asked.wiener) <= best + 0.02)


def _explains(given: Candidate, other: Candidate, asked: Questions) -> bool:
    """Near the Wiener error wherever noise does not hide it, nowhere worse than as given, and somewhere much better."""
    loud, seen, found = asked.allowed.loud(asked.sigma), _mean(given), _mean(other)
    if not np.all(np.isfinite(found)):
        return False
    error = _standard_error(other)
    near = found <= _NEAR * asked.wiener + 3 * error
    better = (found * _BETTER <= seen) & (_difference(given, other) > 4) & ~loud
    worse = (found > 1.1 * seen) & (_difference(given, other) < -3)
    if not np.all(near | loud) or worse.any() or not better.any():
        return False
    # a network that answers with samples may be outdone by a reading that dulls it: that explains nothing
    tilted = np.array([given.tilted[level] for level in sorted(given.tilted)]) & ~loud
    beyond = (seen - 3 * _standard_error(given) > _SAMPLE * asked.wiener) | (tilted & (seen > _SAMPLED * found))
    gain = np.mean(np.log(seen / found)[~loud])
    return bool(np.any(beyond & better) or (tilted.any() and gain > np.log(_BETTER)))


def _helps(given: Candidate, other: Candidate, asked: Questions) -> bool:
    """Where the denoiser is wrong anyway: much better in the mean, and not wrong itself."""
    loud, found = asked.allowed.loud(asked.sigma), _mean(other)
    if not np.all(np.isfinite(found)) or asked.allowed.lost(asked.sigma, found, _standard_error(other)).any():
        return False
    gain = given.score(asked.wiener) - other.score(asked.wiener)
    return bool(gain > np.log(_CLEARLY) and np.all((found <= _FAR * asked.wiener) | loud))


def _tells(one: Candidate, asked: Questions) -> bool:
    """Whether the network's answers are in it: some readings make much of x by themselves, whatever it answers."""
    loud = asked.allowed.loud(asked.sigma)
    return bool(np.any((_mean(one) < _TELLS * asked.silent(one.mistake.reading)) & ~loud))


def _difference(one: Candidate, other: Candidate) -> Array:
    """How much larger the first errors are, in standard errors of the difference on the same draws."""
    apart = [one.errors[level] - other.errors[level] for level in sorted(one.errors)]
    return np.array([np.mean(a) / max(np.std(a, ddof=1) / np.sqrt(a.size), 1e-300) for a in apart])
