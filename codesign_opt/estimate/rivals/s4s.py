"""S4S and bespoke non-stationary solvers: coefficients of a multistep solver by gradient, and its levels."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from ...basics.checks import AT_ONCE, Array, integer, number
from ...samplers.linear_multistep import LinearMultistep
from ...samplers.members import DPMpp2M
from ..solver_fit.rows import two_step_rows
from .base import Ground
from .gradient_fit import GradientRival, Unknowns
from .unrolled import FreeGrid, unrolled

__all__ = ["S4S", "Bespoke"]


class _MultistepByGradient(GradientRival):
    """Rows of a multistep solver as functions of what moves; begun with 2M on the best start."""

    @abstractmethod
    def _tensors(
        self, unknowns: Unknowns, start: Array, ground: Ground
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Levels, and the rows' factors of the state and of the outputs."""

    def _output(self, unknowns: Unknowns, start: Array, ground: Ground, x: torch.Tensor) -> torch.Tensor:
        return unrolled(ground.output, *self._tensors(unknowns, start, ground), x)

    def _solver(self, unknowns: Unknowns, start: Array, ground: Ground) -> tuple[LinearMultistep, Array]:
        levels, a, c = (part.numpy() for part in self._tensors(unknowns, start, ground))
        return LinearMultistep(levels, a, c), levels

    def _begin_with(self, ground: Ground) -> Array:
        return ground.best_start(DPMpp2M())[0]


@dataclass(frozen=True)
class S4S(_MultistepByGradient):
    """Coefficients of a linear multistep solver, by gradient of the distance to the teacher's samples.

    x_{k+1} = r_k x_k + (1 - r_k) sum_j b_kj D_{k-j}, r_k = sigma_{k+1} / sigma_k: the weight of the state is the exact
    one, those of the last outputs are learned from DPM-Solver++(2M)'s on. S4S-Alt (`rounds`) moves the levels too, in
    turn with the coefficients. Frankel, Chen, Li, Koh, Ratliff, Oh 2025 (S4S, arXiv 2502.17423), the global objective
    with relaxed starts.

    The paper leaves to choose, or we chose: squared distance instead of LPIPS, which the comparison measures; data
    prediction; Adam with a half cosine; no condition on the sums of b; levels are asked at their own sigma (no second
    set of times); starts move by normalised projected steps.

    Args:
        history: outputs that a step takes.
        rounds: of S4S-Alt, a coefficient's turn and a grid's; 0 for the coefficients alone.
        learning_rate: of Adam.
        radius: gamma of the ball around each start, of radius gamma d / K^2 sigma_max, as LD3 has it.

    Raises:
        ValueError: a field out of its range.

    >>> S4S(rounds=4).name
    's4s_alt'
    """

    history: int = 3
    rounds: int = 0
    learning_rate: float = 0.02
    radius: float = 1e-3
    title: ClassVar[str] = "S4S: coefficients by gradient"

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "history", integer(self.history, "S4S.history", minimum=1, maximum=AT_ONCE))
        put(self, "rounds", integer(self.rounds, "S4S.rounds", minimum=0))
        _check_descent(self)

    @property
    def name(self) -> str:  # type: ignore[override]
        """ "s4s", or "s4s_alt" where the levels move too."""
        return "s4s_alt" if self.rounds else "s4s"

    def _begun(self, start: Array, ground: Ground) -> Unknowns:
        rows = two_step_rows(start, self.history)
        return {
            "weights": torch.as_tensor(rows.c / (1 - rows.a)[:, None]),
            "steps": torch.as_tensor(FreeGrid.of(start, ground.reference.stopping_sigma)[1]),
        }

    def _moving(self, share: float) -> set[str]:
        turn = int(share * 2 * self.rounds) if self.rounds else 0
        return {"steps"} if turn % 2 else {"weights"}

    def _tensors(
        self, unknowns: Unknowns, start: Array, ground: Ground
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        if self.rounds:
            levels = FreeGrid.of(start, ground.reference.stopping_sigma)[0].levels(unknowns["steps"])
        else:
            levels = torch.as_tensor(start)
        carry = levels[1:] / levels[:-1]
        mask = torch.as_tensor(np.tri(*unknowns["weights"].shape))
        return levels, carry, mask * unknowns["weights"] * (1 - carry)[:, None]


@dataclass(frozen=True)
class Bespoke(_MultistepByGradient):
    """Bespoke non-stationary solver: every step takes the state and all former outputs, its levels move too.

    x_{k+1} = a_k x_k + sum_{j <= k} c_kj D_{k-j}, all numbers free, the levels with them; from DPM-Solver++(2M) on. The
    loss is the mean logarithm of the squared distance (peak signal-to-noise ratio). Shaul, Singer, Chen, Le, Thabet,
    Pumarola, Lipman 2024 (arXiv 2403.01329), Adam; K (K + 5) / 2 + 1 numbers as there, in other coordinates: their
    x_{k+1} = a_k x_0 + sum_j b_kj u_j, with velocities u of the scaled state, spans the same states, but its numbers
    are differences of large ones at sigma_max = 80. The start is DPM-Solver++(2M) on the best of the starts instead of
    their midpoint rule; held-out draws choose the iterate by the mean squared distance, which the comparison measures.

    Args:
        learning_rate: of Adam.

    Raises:
        ValueError: a learning rate that is not positive.

    >>> Bespoke().name
    'bespoke'
    """

    learning_rate: float = 0.01
    radius: ClassVar[float] = 0.0  # type: ignore[misc]
    name: ClassVar[str] = "bespoke"
    title: ClassVar[str] = "bespoke non-stationary solver"

    def __post_init__(self) -> None:
        _check_descent(self)

    def _begun(self, start: Array, ground: Ground) -> Unknowns:
        rows = two_step_rows(start, start.size - 1)
        steps = FreeGrid.of(start, ground.reference.stopping_sigma)[1]
        return {"a": torch.as_tensor(rows.a), "c": torch.as_tensor(rows.c), "steps": torch.as_tensor(steps)}

    def _tensors(
        self, unknowns: Unknowns, start: Array, ground: Ground
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        levels = FreeGrid.of(start, ground.reference.stopping_sigma)[0].levels(unknowns["steps"])
        return levels, unknowns["a"], torch.tril(unknowns["c"])

    def _loss(self, rest: torch.Tensor) -> torch.Tensor:
        return torch.log(rest.flatten(1).square().sum(dim=1).clamp(min=1e-300)).mean()


def _check_descent(rival: GradientRival) -> None:
    kind = type(rival).__name__
    object.__setattr__(rival, "learning_rate", number(rival.learning_rate, f"{kind}.learning_rate", positive=True))
    if "radius" in rival.__dataclass_fields__:  # type: ignore[attr-defined]
        object.__setattr__(rival, "radius", number(rival.radius, f"{kind}.radius", nonnegative=True))
