"""Derivatives of a network by its sketched parameters: at one noise level, and through a sampler."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.autograd.forward_ad as forward_ad
from torch.utils.checkpoint import checkpoint

from ...basics.checks import AT_ONCE, integer, shown, vector
from ...basics.user_code import first_line
from ...ingredients.levels import Levels
from ...samplers.members import Sampler
from ..denoisers.denoiser import DenoiserError
from ..draws.statistics import Moments
from ..draws.streams import my_share, normal, rademacher, sum_over_processes
from ..runs.run import BrownianPath, run
from .parameter_sketch import Parameters, ParameterSketch, ParametricDenoiser

__all__ = ["LevelDerivatives", "TerminalDerivatives", "TerminalResponse"]


@dataclass(frozen=True, eq=False)
class LevelDerivatives:
    """Derivatives of one network along one sketch."""

    trained: ParametricDenoiser
    sketch: ParameterSketch
    seed: int

    def level(
        self, parts: list[torch.Tensor], index: int, sigma: float, groups: int, probes: int | None
    ) -> dict[str, Any]:
        """Sums over this level's examples: J^T J per group, residuals; the processes share the batches."""
        size, before = self.sketch.size, self.trained.evaluations
        information = torch.zeros(groups, size, size, dtype=torch.float64)
        used, traces = torch.zeros(groups, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
        residuals = Moments(())
        for number_ in my_share(len(parts)):
            clean = parts[number_]
            x = clean + sigma * normal(self.seed, "feature noise", index, number_, shape=tuple(clean.shape), like=clean)
            names = (index, number_)
            outer, felt, rest = (
                self._forward(x, clean, sigma) if probes is None else self._reverse(x, clean, sigma, probes, names)
            )
            information[number_ % groups] += outer
            used[number_ % groups] += clean.shape[0]
            traces += torch.tensor([felt, float(outer.trace())], dtype=torch.float64)
            residuals.add(rest.to(torch.float64).flatten(1).square().mean(dim=1))
        spent = torch.tensor(float(self.trained.evaluations - before), dtype=torch.float64)
        total = sum_over_processes(information) / sum_over_processes(used)[:, None, None]
        state = {f"residual_{key}": value for key, value in residuals.reduced().state().items()}
        found = {"information": total.numpy(), "traces": sum_over_processes(traces).numpy()}
        return {**found, **state, "evaluations": sum_over_processes(spent).numpy()}

    def _forward(self, x: torch.Tensor, clean: torch.Tensor, sigma: float) -> tuple[torch.Tensor, float, torch.Tensor]:
        """sum_n J^T J, sum_n |J^T r|^2 and r, by derivatives along every direction."""
        moved = []
        rest = torch.zeros_like(x)
        with torch.no_grad():
            for index in range(self.sketch.size):
                out, tangent = self._along(index, x, sigma)
                moved.append(tangent.to("cpu", torch.float64))
                rest = out - clean
        jacobian = torch.stack(moved)  # (P, N, *shape)
        felt = (jacobian * rest.to("cpu", torch.float64)).flatten(2).sum(dim=2)
        flat = jacobian.flatten(1)
        return flat @ flat.T, float(felt.square().sum()), rest

    def _along(self, index: int, x: torch.Tensor, sigma: float) -> tuple[torch.Tensor, torch.Tensor]:
        parameters, direction = self.trained.parameters, self.sketch.direction(index, x.dtype)
        with forward_ad.dual_level():
            with (
                warnings.catch_warnings()
            ):  # torch's first dual tensor scripts its decompositions, which torch deprecates
                warnings.filterwarnings("ignore", message=".*torch.jit", category=DeprecationWarning)
                dual = {name: forward_ad.make_dual(p, direction[name]) for name, p in parameters.items()}
            try:
                out, tangent = forward_ad.unpack_dual(self.trained(dual, x, x.new_tensor(sigma)))
            except DenoiserError as error:
                if not isinstance(error.__cause__, NotImplementedError):
                    raise
                said = first_line(error.__cause__)
                raise ValueError(f"a layer has no forward-mode derivative ({said}); give Sketch.probes.") from error
        return out, torch.zeros_like(out) if tangent is None else tangent

    def _reverse(
        self, x: torch.Tensor, clean: torch.Tensor, sigma: float, probes: int, names: tuple[int, int]
    ) -> tuple[torch.Tensor, float, torch.Tensor]:
        """The same in expectation: with independent probes of all examples, products of different ones cancel."""
        leaves = _leaves(self.trained.parameters)
        with torch.enable_grad():
            out = self.trained(leaves, x, x.new_tensor(sigma))
        rest = (out - clean).detach()
        outer = torch.zeros(self.sketch.size, self.sketch.size, dtype=torch.float64)
        for probe in range(probes):
            row = self._pulled(out, normal(self.seed, "probe", *names, probe, shape=tuple(x.shape), like=x), leaves)
            outer += row[:, None] * row / probes
        sign = rademacher(self.seed, "residual sign", *names, shape=(x.shape[0],), like=x)
        felt = self._pulled(out, rest * sign.reshape(-1, *[1] * (x.ndim - 1)), leaves)
        return outer, float(felt.square().sum()), rest

    def _pulled(self, out: torch.Tensor, cotangent: torch.Tensor, leaves: Parameters) -> torch.Tensor:
        chosen = list(leaves.values())
        if not out.requires_grad:
            raise ValueError("the denoiser's output carries no gradient by the module's parameters (no_grad inside?).")
        return self.sketch.project(torch.autograd.grad(out, chosen, cotangent, retain_graph=True, allow_unused=True))


def _leaves(parameters: Parameters) -> Parameters:
    return {name: p.detach().requires_grad_() for name, p in parameters.items()}


@dataclass(frozen=True, eq=False)
class TerminalResponse:
    """The run of a sampler whose output is differentiated by the parameters, and how.

    Args:
        sampler, sigmas: the sampler and its (K+1,) descending grid.
        draws: starts per probe, or in all where every output is taken.
        probes: random probes of the terminal output, each with its own starts, at least 1: one run back through the
            sampler each. None: every output of all starts, for small problems.
        mean: of the start, N(mean, sigma_max^2), broadcast over a sample.

    Raises:
        ValueError: no sampler, a grid that does not descend, a number out of range.

    >>> from codesign_opt import Euler
    >>> TerminalResponse(Euler(), [2.0, 1.0, 0.0], draws=4).probes
    64
    """

    sampler: Sampler
    sigmas: Any
    draws: int = 8
    probes: int | None = 64
    mean: Any = 0.0

    def __post_init__(self) -> None:
        put, name = object.__setattr__, "TerminalResponse"
        if not isinstance(self.sampler, Sampler):
            raise ValueError(f"{name}.sampler is {shown(self.sampler)}; a Sampler is needed.")
        grid = vector(self.sigmas, f"{name}.sigmas", minimum_length=2, nonnegative=True, descending=True)
        put(self, "sigmas", np.array(grid))  # torch refuses arrays that cannot be written
        put(self, "draws", integer(self.draws, f"{name}.draws", minimum=1, maximum=AT_ONCE))
        if self.probes is not None:
            put(self, "probes", integer(self.probes, f"{name}.probes", minimum=1, maximum=AT_ONCE))


@dataclass(frozen=True, eq=False)
class TerminalDerivatives:
    """Derivative of the sampler's output by the parameters, level by level: each level gets leaves of its own."""

    work: LevelDerivatives
    response: TerminalResponse
    levels: Levels
    shape: tuple[int, ...]
    like: torch.Tensor

    def probes(self, chunk: range) -> dict[str, Any]:
        """(L, P, chunk) one random output probe each, mixed over its own draws."""
        return self._shared(len(chunk), lambda i: [self._row(chunk[i])])

    def every_output(self) -> dict[str, Any]:
        """(L, P, draws d) all outputs of the draws."""
        entries = int(np.prod(self.shape))

        def rows(index: int) -> list[torch.Tensor]:
            terminal, leaves = self._run(1, "output", index)
            units = torch.eye(entries, dtype=terminal.dtype, device=terminal.device).reshape(-1, *terminal.shape)
            return [self._pull(terminal, unit, leaves) for unit in units]

        return self._shared(self.response.draws, rows, entries)

    def _shared(self, count: int, rows: Callable[[int], list[torch.Tensor]], each: int = 1) -> dict[str, Any]:
        before = self.work.trained.evaluations
        result = torch.zeros(len(self.levels), self.work.sketch.size, count * each, dtype=torch.float64)
        for index in my_share(count):
            for offset, row in enumerate(rows(index)):
                result[:, :, index * each + offset] = row
        spent = torch.tensor(float(self.work.trained.evaluations - before), dtype=torch.float64)
        return {"rows": sum_over_processes(result).numpy(), "evaluations": sum_over_processes(spent).numpy()}

    def _row(self, probe: int) -> torch.Tensor:
        terminal, leaves = self._run(self.response.draws, "probe", probe)
        names = ("response probe", probe)
        cotangent = normal(self.work.seed, *names, shape=tuple(terminal.shape), like=terminal)
        return self._pull(terminal, cotangent, leaves) / np.sqrt(self.response.draws)

    def _pull(self, terminal: torch.Tensor, cotangent: torch.Tensor, leaves: list[Parameters]) -> torch.Tensor:
        flat = [p for level in leaves for p in level.values()]
        found = torch.autograd.grad(terminal, flat, cotangent, retain_graph=True, allow_unused=True)
        each = len(leaves[0])
        return torch.stack([self.work.sketch.project(found[i : i + each]) for i in range(0, len(flat), each)])

    def _run(self, count: int, *names: str | int) -> tuple[torch.Tensor, list[Parameters]]:
        trained, seed = self.work.trained, self.work.seed
        sampler, grid = self.response.sampler, self.response.sigmas
        leaves = [_leaves(trained.parameters) for _ in range(len(self.levels))]
        noise = None
        if sampler.stochastic:
            low = float(grid[grid > 0][-1])
            noise = BrownianPath(seed, ("response noise", *names), float(grid[0]), low)

        def denoise(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
            level = int(np.searchsorted(self.levels.edges[1:-1], float(sigma[0]), side="right"))
            out = checkpoint(
                lambda y: trained(leaves[level], y, sigma), x, use_reentrant=False, preserve_rng_state=False
            )
            return torch.as_tensor(out)

        start = normal(seed, "response start", *names, shape=(count, *self.shape), like=self.like)
        with torch.enable_grad():
            terminal = run(denoise, sampler, grid, start * float(grid[0]) + self.response.mean, noise)
        if not terminal.requires_grad:
            raise ValueError("the sampler's output carries no gradient by the module's parameters (no_grad inside?).")
        return terminal, leaves
