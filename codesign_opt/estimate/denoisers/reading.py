"""Reading: how a network's answers are read as a denoiser, kept apart so that other readings can be asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..draws.precision import asked

__all__ = ["PREDICTIONS", "InnerReading", "PreconditionedReading", "Reading", "clean", "predicted", "wide"]

PREDICTIONS = ("x0", "epsilon", "v", "score", "flow")
Levels = Callable[[torch.Tensor], torch.Tensor]


def clean(prediction: str, out: torch.Tensor, x: torch.Tensor, sigma: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
    """The clean data from a prediction at x = x0 + sigma z, for a network that was given s x.

    >>> one = torch.ones(1, 1)
    >>> [clean(name, 0.25 * one, one, one, 0.5 * one).item() for name in ("x0", "epsilon", "score", "flow")]
    [0.25, 0.75, 1.125, 0.375]
    """
    if prediction == "x0":
        return out
    if prediction == "epsilon":
        return x - sigma * out
    if prediction == "v":
        return (x - sigma * torch.sqrt(1 + sigma**2) * out) / (1 + sigma**2)
    if prediction == "score":
        return x + s * sigma**2 * out
    return (x - sigma * out) / (1 + sigma)


def predicted(prediction: str, x0: torch.Tensor, x: torch.Tensor, sigma: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
    """The prediction that reads as `x0`: `clean` the other way round.

    >>> x, sigma, s = torch.tensor([[1.0]]), torch.tensor([[2.0]]), torch.tensor([[0.5]])
    >>> all(clean(p, predicted(p, 3 * x, x, sigma, s), x, sigma, s).isclose(3 * x) for p in PREDICTIONS)
    True
    """
    if prediction == "x0":
        return x0
    noise = (x - x0) / sigma
    if prediction == "epsilon":
        return noise
    if prediction == "v":
        return (noise - sigma * x0) / torch.sqrt(1 + sigma**2)
    if prediction == "score":
        return -noise / (s * sigma)
    return noise - x0


def wide(values: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """(N,) to (N, 1, …, 1), in the dtype of the states."""
    return values.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))


@dataclass(frozen=True, eq=False)
class Reading:
    """A network(state, time) and what its answers are taken for; docs/theory.md section 1.5.

    Args:
        network: takes (N, *shape) states and (N,) times, its conditions bound.
        prediction: "x0", "epsilon", "v", "score" or "flow".
        time: (N,) noise levels to the times that the network is told, in float64.
        scale: (N,) noise levels to s: the network is given s x.
        top: the time of pure noise where times are a share of it, such as 1 or 1000; None where they are not.
        factor, shift: the network's data are factor x0 + shift.
        sign: -1 where the network predicts the opposite.

    >>> halved = Reading(lambda x, t: x / (1 + t[:, None] ** 2), factor=0.5)
    >>> halved(torch.ones(1, 1), torch.ones(1)).item()  # at half the noise of half the data
    0.8
    """

    network: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    prediction: str = "x0"
    time: Levels = lambda sigma: sigma
    scale: Levels = torch.ones_like
    top: float | None = None
    factor: float = 1.0
    shift: float = 0.0
    sign: float = 1.0

    @property
    def raw(self) -> bool:
        """Whether the network is a denoiser of (x, sigma) as it stands."""
        return self.top is None and self.prediction == "x0"

    def answer(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """The network's own prediction at x = x0 + sigma z."""
        level = abs(self.factor) * sigma.to(torch.float64)
        state = wide(self.scale(level), x) * (self.factor * x + self.shift)
        return asked(self.network, state, self.time(level).to(x.dtype))

    def read(self, out: torch.Tensor, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """The clean data that a prediction stands for."""
        level = abs(self.factor) * sigma.to(torch.float64)
        s, inside = wide(self.scale(level), x), self.factor * x + self.shift
        return (clean(self.prediction, self.sign * out, inside, wide(level, x), s) - self.shift) / self.factor

    def answered(self, x0: torch.Tensor, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """The prediction that this reading took for `x0`."""
        level = abs(self.factor) * sigma.to(torch.float64)
        s, inside = wide(self.scale(level), x), self.factor * x + self.shift
        return self.sign * predicted(self.prediction, self.factor * x0 + self.shift, inside, wide(level, x), s)

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """The denoiser D(x, sigma) of this reading."""
        return self.read(self.answer(x, sigma), x, sigma)


@dataclass(frozen=True, eq=False)
class PreconditionedReading(Reading):
    """A network whose answer F is mixed with the state: D = skip x + gain F, as the schedulers of EDM do.

    Args:
        skip, gain: (N,) noise levels to the two coefficients.
    """

    skip: Levels = torch.zeros_like
    gain: Levels = torch.ones_like

    def read(self, out: torch.Tensor, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """The clean data that F stands for, or that another prediction does."""
        if self.prediction != "preconditioned":
            return super().read(out, x, sigma)
        level, inside = abs(self.factor) * sigma.to(torch.float64), self.factor * x + self.shift
        found = wide(self.skip(level), x) * inside + wide(self.sign * self.gain(level), x) * out
        return (found - self.shift) / self.factor

    def answered(self, x0: torch.Tensor, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """F of `x0`."""
        if self.prediction != "preconditioned":
            return super().answered(x0, x, sigma)
        level, inside = abs(self.factor) * sigma.to(torch.float64), self.factor * x + self.shift
        rest = self.factor * x0 + self.shift - wide(self.skip(level), x) * inside
        return rest / wide(self.sign * self.gain(level), x)


@dataclass(frozen=True, eq=False)
class InnerReading(Reading):
    """EDM's inner network F, put into its preconditioning (Karras et al. 2022, table 1).

    D = c_skip x + c_out F(x / n, log(sigma) / 4) with n^2 = spread^2 + sigma^2, c_skip = (spread / n)^2 and
    c_out = sigma spread / n.

    Args:
        spread: standard deviation of the data.
    """

    spread: float = 0.5

    def answer(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """F's answer."""
        return asked(self.network, x / self._norm(x, sigma), torch.log(sigma) / 4)

    def read(self, out: torch.Tensor, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """The clean data that it stands for."""
        n = self._norm(x, sigma)
        return (self.spread / n) ** 2 * x + wide(sigma, x) * self.spread / n * out

    def _norm(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return torch.sqrt(wide(sigma, x) ** 2 + self.spread**2)
