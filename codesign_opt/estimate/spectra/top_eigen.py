"""The largest eigenpairs of a covariance by randomised block iteration, from products with the data alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ...basics.checks import Array, integer
from ...basics.ledger import Ledger
from ..draws.streams import Stream, normal
from .exact import reservoir_for
from .passes import Passes, Sums
from .source import Source

__all__ = ["FirstPass", "TopEigenpairs", "first_pass", "product", "top_eigenpairs"]

_OVERSAMPLE = 8
_ROWS = 256


@dataclass(frozen=True, eq=False)
class FirstPass:
    """What one pass gives without a matrix: count N, mean (d,), exact trace, rows (M, d), sketch (d, p).

    The trace is sum |x - mean|^2 / (N - 1); `sketch` is the covariance times a random (d, p) block.
    """

    count: int
    mean: torch.Tensor
    trace: float
    rows: torch.Tensor
    sketch: torch.Tensor


@dataclass(frozen=True, eq=False)
class TopEigenpairs:
    """Largest eigenvalues of a sample covariance with residuals.

    Attributes: values (k,) descending; vectors (d, k) orthonormal; residual (k,) norms
    |covariance u - value u|, within which of each value an eigenvalue of the sample covariance lies
    (a theorem for symmetric matrices); trace and count as in `FirstPass`.
    """

    values: Array
    vectors: torch.Tensor
    residual: Array
    trace: float
    count: int


def top_eigenpairs(
    data: object, k: int, *, passes: int = 4, stream: Stream | None = None, seed: int = 0
) -> TopEigenpairs:
    """Largest k eigenpairs of the data covariance by randomised SVD with block power iterations.

    Halko, Martinsson, Tropp (2011), algorithm 4.4, with products streamed from the data; docs/theory.md
    section 1. Memory O(d k).

    Args:
        data: see `Source`; `passes` passes are made, at least 2.
        k: 1 <= k <= d.
        stream: see `Stream`; all examples where the data are, about 2^20 numbers at once, unless given.
        seed: of the random block.

    Raises:
        ValueError: k or passes outside these ranges, or an iterator that can be read only once.

    >>> rows = torch.eye(4, dtype=torch.float64).repeat(8, 1) * torch.tensor([4.0, 3.0, 0.1, 0.1])
    >>> top_eigenpairs(rows, 2).values.round(3)
    array([3.448, 1.392])
    """
    source = Source(data, stream)
    wanted = integer(k, "k", minimum=1)
    if wanted > source.dimension:
        raise ValueError(f"k is {wanted}; at most the dimension {source.dimension} is possible.")
    runs = Passes(source, Ledger(None, {}))
    begun = first_pass(runs, width=min(wanted + _OVERSAMPLE, source.dimension), seed=seed)
    return iterate(runs, begun, keep=wanted, products=integer(passes, "passes", minimum=2) - 1)


def first_pass(passes: Passes, *, width: int, seed: int) -> FirstPass:
    """Count, mean, trace, a sample of examples and the first random product, in one pass of memory O(d width)."""
    source = passes.source
    if not source.repeatable:
        raise ValueError(
            "data: an iterator can be read only once, but this method makes several passes; give a callable "
            "that returns a new iterator, a Dataset or a tensor."
        )
    shift = source.first.flatten(1).mean(dim=0)
    block = normal(seed, "sketch", shape=(shift.numel(), width), like=shift)

    def update(sums: dict[str, torch.Tensor], examples: torch.Tensor) -> None:
        rows = examples.flatten(1) - shift
        sums["first"] += rows.sum(dim=0)
        sums["squares"] += (rows**2).sum()
        sums["sketch"] += rows.T @ (rows @ block)

    zeros = {"first": torch.zeros_like(shift), "squares": shift.new_zeros(()), "sketch": torch.zeros_like(block)}
    sums = Sums(zeros, update, reservoir_for(shift.numel(), seed=seed, like=shift, most=_ROWS))
    sums = passes.run("moments", sums)
    if sums.count < 2:
        raise ValueError(f"data: {sums.count} example; a covariance needs at least 2.")
    offset, count = sums["first"] / sums.count, sums.count
    trace = float(sums["squares"] - count * (offset @ offset)) / (count - 1)
    sketch = (sums["sketch"] - count * torch.outer(offset, offset @ block)) / (count - 1)
    assert sums.reservoir is not None
    mean = shift + offset
    return FirstPass(count, mean, max(trace, 0.0), sums.reservoir.rows - mean, sketch)


def product(passes: Passes, begun: FirstPass, block: torch.Tensor, number: int) -> torch.Tensor:
    """(d, p) covariance times a block, sum (x - mean)(x - mean)^T block / (N - 1), in one pass."""

    def update(sums: dict[str, torch.Tensor], examples: torch.Tensor) -> None:
        rows = examples.flatten(1) - begun.mean
        sums["product"] += rows.T @ (rows @ block)

    sums = passes.run(
        "product", Sums({"product": torch.zeros_like(block)}, update), number=number, examples=begun.count
    )
    return sums["product"] / (begun.count - 1)


def iterate(passes: Passes, begun: FirstPass, *, keep: int, products: int) -> TopEigenpairs:
    """Block power iteration from the sketch; the last of `products` >= 1 products gives values and residuals."""
    ledger = passes.ledger
    start, basis = 0, begun.sketch
    state = ledger.get("power")
    if state is not None:
        start, basis = int(state["number"]), torch.as_tensor(state["basis"]).to(basis)
    for number in range(start, products - 1):
        basis = product(passes, begun, _orthonormal(basis), number)
        if ledger.folder is not None:
            ledger.put("power", number=number + 1, basis=basis.cpu().numpy())
    basis = _orthonormal(basis)
    image = product(passes, begun, basis, products - 1)
    small = (basis.T @ image).to("cpu", torch.float64)
    values, turn = torch.linalg.eigh((small + small.T) / 2)
    values, turn = values.flip(0)[:keep], turn.flip(1)[:, :keep]
    vectors, images = basis @ turn.to(basis), image @ turn.to(basis)
    residual = (images - vectors * values.to(vectors)).norm(dim=0)
    return TopEigenpairs(
        values.clamp(min=0).numpy(), vectors, residual.to("cpu", torch.float64).numpy(), begun.trace, begun.count
    )


def _orthonormal(block: torch.Tensor) -> torch.Tensor:
    if block.device.type == "mps":
        return torch.linalg.qr(block.cpu())[0].to(block.device)
    return torch.linalg.qr(block)[0]
