"""GridTest: outputs of any grid and sampler on draws kept for tests, held against a fine solution kept on disk."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...basics.checks import Array, as_path, instance
from ...basics.ledger import Ledger
from ...samplers.base import Sampler
from ...samplers.members import Euler
from ..denoisers.denoiser import Denoiser
from ..draws.statistics import squares
from ..runs.fine_solution import Draws, Reference
from ..runs.run import run
from .grid_error import starting_at

__all__ = ["GridTest"]


@dataclass(frozen=True, eq=False)
class GridTest:
    """Test draws, and their fine solution: one for all ODE samplers, one for each stochastic one.

    Args:
        denoiser: Denoiser or callable (x, sigma) -> x0.
        draws: starts and noise that nothing was planned on.
        stopping_sigma: last positive noise level of the fine solution, data units.
        terminal: "denoise" or "rescale".
        steps: of the fine solution.
        folder: where fine solutions are kept; None for memory.

    >>> from codesign_opt import Euler
    >>> test = GridTest(lambda x, sigma: 0 * x, Draws((2,), 3, 10.0, name="test"), 0.1)
    >>> test.errors(Euler(), np.array([10.0, 1.0, 0.0])).tolist()
    [0.0, 0.0, 0.0]
    """

    denoiser: Denoiser
    draws: Draws
    stopping_sigma: float
    terminal: str = "denoise"
    steps: int = 64
    folder: Path | None = None
    _ends: dict[str, list[torch.Tensor]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "denoiser", Denoiser.of(self.denoiser))
        instance(self.draws, Draws, "GridTest.draws")
        if self.folder is not None:
            object.__setattr__(self, "folder", as_path(self.folder, "GridTest.folder"))
        self.reference(Euler())  # its checks of the other fields

    def reference(self, sampler: Sampler) -> Reference:
        """The fine solution that a sampler is held against."""
        return Reference(self.denoiser, sampler, self.draws, self.stopping_sigma, self.terminal, self.steps)

    def errors(self, sampler: Sampler, sigmas: Array, outputs: torch.Tensor | None = None) -> Array:
        """(N,) squared distances to the fine solution under the same noise, summed over dimensions.

        Args:
            outputs: of this grid, where they are known.
        """
        found = self.outputs(sampler, sigmas) if outputs is None else outputs
        return squares(found - torch.cat(self.ends(sampler)).to(found)).cpu().numpy()

    @torch.no_grad()
    def outputs(self, sampler: Sampler, sigmas: Array) -> torch.Tensor:
        """(N, *shape) samples that a grid makes of the test draws."""
        grid = starting_at(sigmas, self.reference(sampler))
        draws = self.draws
        return torch.cat([
            run(self.denoiser, sampler, grid, draws.start(chunk), draws.noise(chunk, self.stopping_sigma))
            for chunk in range(draws.chunks)
        ])  # fmt: skip

    def ends(self, sampler: Sampler) -> list[torch.Tensor]:
        """Outputs of the fine solution, chunk by chunk."""
        sampler = instance(sampler, Sampler, "GridTest.ends: sampler", "Such as co.Heun().")
        name = "-".join(map(str, sampler.to_dict().values())) if sampler.stochastic else "ODE"
        if name not in self._ends:
            question = {"solution": name, "draws": self.draws.describe()}
            where = self.folder if self.folder is None or name == "ODE" else self.folder / name
            ledger, reference = Ledger(where, question), self.reference(sampler)
            self._ends[name] = [
                torch.as_tensor(ledger.item(f"chunk{c}", lambda c=c: {"end": _end(reference, c)})["end"])  # type: ignore[misc]
                for c in range(self.draws.chunks)
            ]
        return self._ends[name]

    def on(self, draws: Draws, folder: Path | None = None) -> GridTest:
        """The same test on other draws."""
        return replace(self, draws=draws, folder=folder, _ends={})

    def evaluations_of(self, sampler: Sampler, sigmas: Array) -> float:
        """Evaluations per image of a grid, counted by running one draw: guidance counts where it is on."""
        one = replace(self.draws, count=1)
        before = self.denoiser.evaluations
        self.on(one).outputs(sampler, np.asarray(sigmas))
        return float(self.denoiser.evaluations - before)


@torch.no_grad()
def _end(reference: Reference, chunk: int) -> Any:
    return reference.terminal_states(chunk).cpu().numpy()
