"""Denoiser: any callable (x, sigma) -> estimate of the clean data, checked and counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch

from ...basics.checks import instance, shown
from ...basics.errors import CodesignError
from ...basics.user_code import named
from ..draws.precision import asked, full
from .reading import Reading

__all__ = ["Denoise", "Denoiser", "DenoiserError", "Guidance"]


Denoise = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(x, sigma) -> x0: (N, *shape) noisy states and their (N,) noise levels to clean ones; a `Denoiser` too."""


class DenoiserError(CodesignError, ValueError):
    """The denoiser returned something that cannot be used; the message names the noise level and what is wrong."""


class Denoiser:
    """D(x, sigma) -> x0 in the rescaled state x / s and sigma = sigma_t / s_t (docs/theory.md section 1).

    Args:
        function: takes (N, *shape) states and (N,) noise levels, gives (N, *shape) estimates of the
            clean data, in the dtype and on the device of the states.
        name: for messages and provenance.

    Attributes:
        evaluations: images denoised so far; what prices are per.
        calls: batches.
        sigma_range: noise levels that the network was trained on, where its adapter knows them.
        reading: what its adapter takes the network's answers for; `check_denoiser` asks others.
        parts: the denoisers that it mixes, each of which `check_denoiser` looks at by itself.
        notes: what its adapter found out about the network's answers.
        conditions: how many conditions the images of a batch take in turn; batches of draws hold each of them.
        between: () -> a denoiser at conditions between these, where they are quantities such as guidance weights;
            None where there are none.
        guidance: how it guides; None for a denoiser that does not.

    Raises:
        DenoiserError: on a call whose result has another shape or dtype or is not finite.

    >>> denoiser = Denoiser(lambda x, sigma: x / (1 + sigma[:, None] ** 2))
    >>> denoiser(torch.ones(2, 3), torch.ones(2))[0].tolist(), denoiser.evaluations
    ([0.5, 0.5, 0.5], 2)
    """

    def __init__(self, function: Denoise, *, name: str = "") -> None:
        if not callable(function):
            raise ValueError(f"denoiser is {shown(function)}; a callable (x, sigma) -> x0 is needed.")
        self.function = function
        self.name = instance(name, str, "Denoiser.name") or getattr(function, "__name__", type(function).__name__)
        self.evaluations = 0
        self.calls = 0
        self.sigma_range: tuple[float, float] | None = None
        self.reading = Reading(function)
        self.parts: tuple[Denoiser, ...] = ()
        self.notes: list[str] = []
        self.conditions = 1
        self.between: Callable[[], Denoiser | None] = _nothing
        self.guidance: Guidance | None = None

    @classmethod
    def of(cls, denoiser: Denoise) -> Denoiser:
        """`denoiser` itself, or any callable wrapped."""
        return denoiser if isinstance(denoiser, Denoiser) else cls(denoiser)

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor | float) -> torch.Tensor:
        state = full(x)  # half precision is the network's own affair
        given = sigma.to(x.device, state.dtype) if torch.is_tensor(sigma) else torch.tensor(sigma, dtype=state.dtype)
        levels = given.to(x.device).expand(x.shape[0])
        result = self._asked(state, levels)
        self.calls += 1
        self.evaluations += int(x.shape[0])
        self._check(result, state, levels)
        return result.to(x.dtype)

    def _asked(self, state: torch.Tensor, levels: torch.Tensor) -> Any:
        try:
            return asked(self.function, state, levels)
        except (CodesignError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # whatever a user's function may raise
            where = (
                f"denoiser {self.name!r} fails on states of {state.dtype} on {state.device}, shape "
                f"{tuple(state.shape)}, at sigma {float(levels.detach().max()):.4g}"
            )
            if type(error).__module__ != "builtins":  # raised on purpose: an interruption, or one of torch's own
                error.add_note(where)
                raise
            if not (isinstance(error, RuntimeError) and "dtype" in str(error)):
                raise DenoiserError(f"{where}: {named(error)}") from error
            raise DenoiserError(
                f"denoiser {self.name!r}: {error}. States and levels are {state.dtype}: a network in another precision "
                "is cast where it is given itself; inside a function, give it x.to(its dtype)."
            ) from error

    def _check(self, result: Any, x: torch.Tensor, levels: torch.Tensor) -> None:
        at = f"denoiser {self.name!r} at sigma {float(levels.detach().min()):.4g}"
        if float(levels.detach().max()) > float(levels.detach().min()):
            at += f" to {float(levels.detach().max()):.4g}"
        if not torch.is_tensor(result):
            raise DenoiserError(f"{at} returned {type(result).__name__}; a tensor is needed (adapt it first).")
        if result.shape != x.shape:
            raise DenoiserError(f"{at} returned shape {tuple(result.shape)} for states of shape {tuple(x.shape)}.")
        if result.dtype != x.dtype:
            raise DenoiserError(f"{at} returned {result.dtype} for states of {x.dtype}; cast its output.")
        finite = torch.isfinite(result.detach())
        if not bool(finite.all()):
            bad = ~finite.flatten(1).all(dim=1) if result.ndim > 1 else ~finite
            sigmas = sorted({float(s) for s in levels.detach()[bad]})
            raise DenoiserError(
                f"denoiser {self.name!r}: {int((~finite).sum())} of {finite.numel()} entries are not finite at sigma = "
                f"{', '.join(f'{s:.4g}' for s in sigmas[:4])}{' …' if len(sigmas) > 4 else ''}; "
                "restrict the process to the range that the network was trained on."
            )

    def __repr__(self) -> str:
        return f"Denoiser({self.name}, {self.evaluations} evaluations)"


@dataclass(frozen=True, eq=False)
class Guidance:
    """How a guided denoiser was made.

    Attributes:
        denoisers: the conditional one and the unconditional one.
        weight: 1 is the conditional denoiser.
        interval: (low, high) in sigma inside of which it guides.
    """

    denoisers: tuple[Denoiser, Denoiser]
    weight: float
    interval: tuple[float, float]

    def pairs(self, other: Guidance) -> bool:
        """Whether another guides alike but for the weight."""
        pairs = zip(self.denoisers, other.denoisers, strict=True)
        return self.interval == other.interval and all(_same(mine.function, its.function) for mine, its in pairs)


def _same(one: Any, other: Any) -> bool:
    """One object, or one method of it."""
    return one is other or (isinstance(one, MethodType) and isinstance(other, MethodType) and one == other)


def _nothing() -> None:
    """Nothing lies between: one condition, or ones that are no quantities."""
