"""What one coarse step does to the sampler's output, on any denoiser: responses, their Gram matrix, truncation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from ...basics.checks import AT_ONCE, Array, integer, noise_levels, takes
from ...basics.fields import holds
from ...basics.ledger import Ledger
from ...ingredients.evaluations import final_steps
from ...samplers.network_step import Place
from ..draws.statistics import Estimate, Moments, squares
from ..draws.streams import my_share, rademacher, seeded
from ..runs.fine_solution import Draws, FinePath, Reference, gathered, mean_of_draws
from ..runs.run import run
from ..runs.step_rule import StepRule

__all__ = [
    "Responses",
    "calls_of_responses",
    "calls_of_truncation",
    "rows_of",
    "sketch_of",
    "step_responses",
    "truncation_error",
]

_ROWS = 256
_SKETCH = 16_384


@dataclass(frozen=True, eq=False)
class Responses:
    """Terminal responses epsilon_l to one step at each of M levels, and their Gram matrix (equation 3.4).

    The squared distance to the fine solution is about |sum_l w_l gamma_l^q epsilon_l|^2 for step
    sizes gamma on widths w: the discretisation error of `Coefficients` with `scaled_response`.

    Attributes:
        sigma: (M,) levels, as they were asked for.
        step: (M,) size h of the step taken there, data units.
        order: q of the sampler.
        gram: (M, M) E<epsilon_l, epsilon_l'> sigma_l^(q+1) sigma_l'^(q+1), summed over dimensions,
            with standard errors over draws.
        scaled_response: (B, M) signed rows R with R^T R = gram: what Coefficients.response wants.
        calls: batches that the denoiser was asked for by this process.
    """

    sigma: Array
    step: Array
    order: int
    gram: Estimate
    scaled_response: Array
    calls: int

    def __post_init__(self) -> None:
        holds(self, sigma="level", step="level", order=int, gram=Estimate, scaled_response="* level", calls=int)

    @property
    def response(self) -> Array:
        """(B, M) rows per h^(q+1), the epsilon of section 3: scaled_response / sigma^(q+1)."""
        return self.scaled_response / self.sigma ** (self.order + 1)


@takes(reference=Reference, steps=StepRule)
def step_responses(
    reference: Reference,
    levels: ArrayLike,
    steps: StepRule,
    *,
    sketch: int = _SKETCH,
    folder: str | Path | None = None,
) -> Responses:
    """One step of the sampler from the fine state, the rest fine, minus the fine output, over h^(q+1).

    docs/theory.md section 3, equation 3.4. The leading order fails at few steps, so measure at the
    step sizes of the current plan, plan again, and repeat. A multistep sampler gets the denoiser's
    output at the nodes before, by the same rule. With injected noise this is the distance under the
    same noise, which also counts what leaves the law unchanged. Chunks of draws are shared among
    processes; every level of every chunk is kept when finished.

    Args:
        reference: the sampler's fine solution.
        levels: (M,) noise levels in any order, above its stopping point.
        steps: where a step from a level ends and the one before it began; cut at the stopping point.
        sketch: dimensions kept of each draw by a random signed sum where there are more; inner
            products stay unbiased.
        folder: where finished levels are kept, so that a killed run goes on.

    Raises:
        ValueError: a malformed argument, or a level without room for a step.
        DenoiserError: see Denoiser.

    >>> from codesign_opt import Euler
    >>> from codesign_opt.estimate.runs.fine_solution import Draws
    >>> linear = lambda x, sigma: x / (1 + sigma[:, None] ** 2)
    >>> draws = Draws((1,), 200, 20.0, like=torch.zeros((), dtype=torch.float64))
    >>> reference = Reference(linear, Euler(), draws, 0.01)
    >>> found = step_responses(reference, [2.0], StepRule.relative(0.01))
    >>> round(abs(float(found.response[0, 0])), 2)  # sqrt(P) lambda / (2 v^2) = 1 / 50, to sampling error
    0.02
    """
    wanted = noise_levels(levels, "levels")
    sketch = integer(sketch, "sketch", minimum=1, maximum=AT_ONCE)
    work = _Work.prepared(reference, wanted, steps, sketch, folder)
    before = reference.denoiser.calls
    moments = Moments((wanted.size, wanted.size))
    for chunk in my_share(reference.draws.chunks):
        scaled = work.chunk(chunk).double()
        moments.add(torch.einsum("mnp,lnp->nml", scaled, scaled))
    gram = moments.reduced().estimate()
    order = reference.sampler.order
    return Responses(wanted, work.step, order, gram, rows_of(gram.value), reference.denoiser.calls - before)


def calls_of_responses(reference: Reference, levels: Any, steps: StepRule) -> int:
    """Calls of the denoiser that `step_responses` makes, by all processes together."""
    work = _Work.prepared(reference, noise_levels(levels, "levels"), steps, _SKETCH, None)
    once = work.path.calls()
    for low, earlier in zip(work.low, work.before, strict=True):
        once += reference.sampler.evaluations_per_step + len(earlier)
        once += work.path.calls(work.path.index(float(low)))
    return reference.draws.chunks * once


def calls_of_truncation(reference: Reference, levels: Any) -> int:
    """Calls of the denoiser that `truncation_error` makes."""
    path = reference.path(levels)
    return reference.draws.chunks * (path.calls() + path.levels.size * final_steps(reference.terminal))


@takes(reference=Reference)
def truncation_error(reference: Reference, levels: ArrayLike, *, folder: str | Path | None = None) -> Estimate:
    """E0 of stopping at each of (M,) levels: mean squared distance of what is handed out there to the fine output.

    Under "denoise" the denoiser's output at the level is handed out, under "rescale" the state; one
    pass along the fine solution (docs/theory.md section 2, Truncation, as a pathwise distance).

    >>> from codesign_opt import Euler
    >>> from codesign_opt.estimate.runs.fine_solution import Draws
    >>> reference = Reference(lambda x, sigma: 0 * x, Euler(), Draws((2,), 3, 10.0), 0.1)
    >>> truncation_error(reference, [0.5, 2.0]).value.tolist()
    [0.0, 0.0]
    """
    wanted = noise_levels(levels, "levels")
    path = reference.path(wanted)
    ledger = reference.items_in(folder, {"what": "truncation", "levels": wanted.tolist()})

    def compute(chunk: int) -> torch.Tensor:
        item = ledger.item(f"chunk{chunk}", lambda: {"table": _truncation(reference, path, chunk)})
        return torch.as_tensor(item["table"])

    parts = {chunk: compute(chunk) for chunk in my_share(reference.draws.chunks)}
    table = gathered(reference.draws, parts, (path.levels.size,))
    return mean_of_draws(table[:, [path.index(sigma) for sigma in wanted]])


@torch.no_grad()
def _truncation(reference: Reference, path: FinePath, chunk: int) -> Array:
    states, end = path.states(chunk)
    if reference.terminal == "denoise":
        states = [reference.denoiser(x, float(s)) for x, s in zip(states, path.levels, strict=True)]
    return torch.stack([squares(x - end) for x in states], dim=1).numpy()


def rows_of(gram: Array, *, most: int = _ROWS) -> Array:
    """(B, M) rows R with R^T R = gram from its eigenvectors, the largest first; B <= `most`.

    >>> rows = rows_of(np.array([[2.0, 1.0], [1.0, 2.0]]))
    >>> (rows.T @ rows).round(12).tolist()
    [[2.0, 1.0], [1.0, 2.0]]
    """
    scale = np.sqrt(np.maximum(np.diag(gram), 0.0))
    safe = np.where(scale > 0, scale, 1.0)  # correlations: levels of all sizes keep their digits
    values, vectors = np.linalg.eigh(0.5 * (gram + gram.T) / np.outer(safe, safe))
    keep = np.flatnonzero(values > 1e-13 * max(values[-1], 1e-300))[::-1][:most]
    return np.sqrt(values[keep])[:, None] * vectors[:, keep].T * np.where(scale > 0, scale, 0.0)


@dataclass(frozen=True, eq=False)
class _Work:
    """The (M, n, dimensions) scaled responses of a chunk, level by level from the ledger."""

    reference: Reference
    sigma: Array
    low: Array
    before: list[list[float]]
    path: FinePath
    sketch: Callable[[torch.Tensor], torch.Tensor]
    ledger: Ledger

    @classmethod
    def prepared(
        cls, reference: Reference, sigma: Array, steps: StepRule, sketch: int, folder: str | Path | None
    ) -> _Work:
        stop, top = reference.stopping_sigma, reference.draws.sigma_max
        low = np.array([max(steps.next(float(s)), stop) for s in sigma])
        bad = np.flatnonzero(low >= sigma * (1 - 1e-9))
        if bad.size:
            raise ValueError(
                f"levels[{bad[0]}] is {sigma[bad[0]]:g}: no room for a step above stopping_sigma = {stop:g}."
            )
        before = [steps.history(float(s), top, reference.sampler.memory) for s in sigma]
        levels = np.concatenate([sigma, low, *before])
        path = reference.path(levels, np.stack([sigma, low], axis=1))
        asked = {"levels": sigma.tolist(), "next": low.tolist(), "previous": _plain(before), "sketch": sketch}
        ledger = reference.items_in(folder, {"what": "responses", **asked})
        return cls(reference, sigma, low, before, path, sketch_of(reference.draws, sketch), ledger)

    @property
    def step(self) -> Array:
        return self.sigma - self.low

    def chunk(self, chunk: int) -> torch.Tensor:
        states: list[torch.Tensor] = []  # made when the first level is missing
        end: list[torch.Tensor] = []
        found = []
        for level in range(self.sigma.size):

            def compute(level: int = level) -> dict[str, Any]:
                if not states:
                    inside, last = self.path.states(chunk)
                    states.extend(inside)
                    end.append(last)
                return {"scaled": self.scaled(chunk, level, states, end[0]).cpu().numpy()}

            found.append(torch.as_tensor(self.ledger.item(f"chunk{chunk}/level{level}", compute)["scaled"]))
        return torch.stack(found)

    @torch.no_grad()
    def scaled(self, chunk: int, level: int, states: list[torch.Tensor], end: torch.Tensor) -> torch.Tensor:
        """(n, dimensions) sigma^(q+1) epsilon of one level."""
        high, low = float(self.sigma[level]), float(self.low[level])
        denoiser, sampler, draws = self.reference.denoiser, self.reference.sampler, self.reference.draws
        there = [(node, states[self.path.index(node)]) for node in self.before[level]]
        memory = [(node, x, denoiser(x, node)) for node, x in there]
        noise = draws.noise(chunk, self.reference.stopping_sigma)
        x = run(
            denoiser, sampler, [high, low], states[self.path.index(high)], noise,
            before=memory, place=self._place(high, low),
        )  # fmt: skip
        moved = self.path.finish(chunk, self.path.index(low), x) - end
        return self.sketch(moved * (high / (high - low)) ** (sampler.order + 1))

    def _place(self, high: float, low: float) -> Place:
        """A step in the middle of a grid that has steps of this length in log sigma all over."""
        whole = np.log(self.reference.draws.sigma_max / self.reference.stopping_sigma)
        count = max(1, round(float(whole / np.log(high / low))))
        return Place(count, count)


def _plain(before: list[list[float]]) -> list[Any]:
    """The nodes before every level for a ledger: one number or None where no sampler remembers more."""
    if max(map(len, before)) > 1:
        return before
    return [nodes[0] if nodes else None for nodes in before]


def sketch_of(draws: Draws, size: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """Flattening, and a signed sum of the dimensions into `size` bins where there are more."""
    dims = int(np.prod(draws.shape))
    if dims <= size:
        return lambda x: x.flatten(1)
    seed = draws.seed
    bins = torch.randint(0, size, (dims,), generator=seeded(seed, "sketch", "bins"))

    def signed_sum(x: torch.Tensor) -> torch.Tensor:
        flat = x.flatten(1)
        flat = flat * rademacher(seed, "sketch", "signs", shape=(dims,), like=flat)
        return torch.zeros((flat.shape[0], size), dtype=flat.dtype, device=flat.device).index_add_(
            1, bins.to(flat.device), flat
        )

    return signed_sum
