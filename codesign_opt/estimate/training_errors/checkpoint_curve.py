"""What two checkpoints of one run tell: the error left at each noise level, and how errors of levels are alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from numpy.typing import ArrayLike

from ...basics.checks import AT_ONCE, Array, integer, noise_levels, number, takes
from ...basics.ledger import Ledger
from ...ingredients.levels import Levels
from ..denoisers.denoiser import Denoiser
from ..denoisers.same_denoiser import check_same_denoiser
from ..draws.data_fingerprint import data_fingerprint
from ..draws.statistics import Estimate, Moments
from ..draws.streams import batches, first_of, my_share, normal
from .correlation import ErrorGram

__all__ = ["checkpoint_errors", "error_left", "left_between"]


def error_left(
    earlier: Any,
    final: Any,
    data: Any,
    sigma: ArrayLike,
    *,
    growth: float = 2.0,
    batch: int = 2048,
    seed: int = 0,
    folder: str | Path | None = None,
) -> Estimate:
    """Reducible error kappa1 / m of the final checkpoint: the loss it gained, over m / m_earlier - 1.

    Loss = L + kappa1 / m (docs/theory.md section 5): from m / 2 examples to m it falls by kappa1 / m, which is what
    is left. Both checkpoints see the same images and noise, so that the Bayes loss L cancels sample by sample and the
    standard error is far below that of a fit to a log of losses. Images that trained both do no harm: each sees
    new noise. A level where the law does not hold, or that got worse, may come out negative.

    Args:
        earlier, final: callables (x, sigma) -> x0, such as averaged weights of one run.
        data: images; see `batches`. All of them are used, once per level.
        sigma: (M,) noise levels.
        growth: examples of the final checkpoint over those of the earlier one, > 1.
        batch: images at once.
        seed: of the noise.
        folder: where finished levels are kept.

    Returns:
        Estimate of (M,) squared data units, summed over dimensions.

    Raises:
        ValueError: a growth that is not above 1, malformed levels or data.
        DenoiserError: see Denoiser.

    >>> from codesign_opt.testbed import LinearDenoiser
    >>> x = torch.randn(4000, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    >>> worse = LinearDenoiser([1.0], perturbation=[[0.2]])
    >>> found = error_left(worse, LinearDenoiser([1.0]), x, [1.0])  # 0.2^2 (1 + 1)
    >>> bool(abs(found.value[0] - 0.08) < 3 * found.standard_error[0])
    True
    """
    levels = noise_levels(sigma, "error_left.sigma")
    ratio = number(growth, "error_left.growth", positive=True)
    if ratio <= 1:
        raise ValueError(f"error_left.growth is {ratio:g}; the final checkpoint must have seen more: > 1.")
    size = integer(batch, "error_left.batch", minimum=1)
    pair = Denoiser.of(earlier), Denoiser.of(final)
    question = {"estimate": "error_left", "sigma": levels.tolist(), "batch": size, "seed": seed}
    if folder is not None:
        first, data = first_of(data)
        question |= {"data": data_fingerprint(data, first)}
    ledger = Ledger(folder, question)
    if ledger.folder is not None:
        for name, one in zip(("earlier", "final"), pair, strict=True):
            states = normal(seed, "same", shape=(2, *first.shape[1:]), like=first)
            place = ledger.folder / "answers" / name
            check_same_denoiser(one, levels, states, place, question, name=f"{name} checkpoint", within=ledger.folder)
    return left_between(pair, data, levels, ratio, size, seed, ledger)


def left_between(
    pair: tuple[Denoiser, Denoiser], data: Any, levels: Array, growth: float, batch: int, seed: int, ledger: Ledger
) -> Estimate:
    """The estimate of `error_left` with finished levels in a ledger that is known to be of these checkpoints."""
    # draws are seeded by the number of the level: an item is of no use to a call with other levels, see the question
    found = [
        ledger.item(f"level-{i}", lambda i=i, s=s: _level(pair, data, float(s), i, batch, seed))  # type: ignore[misc]
        for i, s in enumerate(levels)
    ]
    moments = Moments.from_state(
        {key: _stacked(found, key) for key in ("mean", "squares")} | {"count": found[0]["count"]}
    )
    # L + kappa1 / m at both: the loss gained is kappa1 / m_earlier - kappa1 / m = (growth - 1) kappa1 / m
    estimate = moments.estimate()
    return Estimate(estimate.value / (growth - 1), estimate.standard_error / (growth - 1), estimate.count)


@takes(levels=Levels)
@torch.no_grad()
def checkpoint_errors(
    earlier: Any,
    final: Any,
    data: Any,
    levels: Levels,
    *,
    images: int = 2048,
    groups: int = 16,
    batch: int = 2048,
    seed: int = 0,
) -> ErrorGram:
    """Gram matrix of the difference of two checkpoints over noise levels, on common images and noise.

    The difference of two checkpoints stands for the error of the run (docs/theory.md section 6). Every image is
    seen at all levels with the same noise, x0 + sigma z. `TransferKernel.from_errors` makes a width of it.

    Args:
        earlier, final: callables (x, sigma) -> x0.
        data: images; see `batches`. The first `images` are used, so shuffle what has an order.
        levels: narrow against the correlation sought.
        images, groups: images, dealt to so many independent units, the unit of standard errors.
        batch: images at once.
        seed: of the noise.

    Raises:
        ValueError: fewer images than groups; levels where the checkpoints agree.
        DenoiserError: see Denoiser.
    """
    wanted, count = (
        integer(images, "checkpoint_errors.images", minimum=2, maximum=AT_ONCE),
        integer(groups, "groups", minimum=2),
    )
    # all images at once in memory: every one of them is seen again at every level
    parts, have = [], 0
    for part in batches(data, 2048):
        parts.append(part[: wanted - have])
        have += parts[-1].shape[0]
        if have >= wanted:
            break
    clean = torch.cat(parts)
    if have < count:
        raise ValueError(f"data has {have} images for {count} groups; give more images or fewer groups.")
    # one direction of noise per image for all levels: with fresh noise the correlation of levels would fall by what
    # the inputs differ, and that is no matter of training
    noise = normal(seed, "checkpoint errors", shape=tuple(clean.shape), like=clean)
    pair = Denoiser.of(earlier), Denoiser.of(final)
    size, fields = integer(batch, "checkpoint_errors.batch", minimum=1), []
    for sigma in levels.sigma:
        parts = (clean + float(sigma) * noise).split(size)
        # in float64 from here: the two answers nearly agree, and the correlation is of their difference
        apart = [(pair[0](noisy, float(sigma)) - pair[1](noisy, float(sigma))).double().flatten(1) for noisy in parts]
        fields.append(torch.cat(apart).cpu())
    # a group's images are one long vector: groups, not images or pixels, are the independent units of the errors
    dealt = torch.stack(fields)[:, : have // count * count].unflatten(1, (count, -1))
    return ErrorGram.from_fields(dealt.transpose(0, 1).numpy(), levels)


def _stacked(items: list[Any], key: str) -> Array:
    return torch.stack([torch.as_tensor(item[key]) for item in items]).numpy()


@torch.no_grad()
def _level(
    pair: tuple[Denoiser, Denoiser], data: Any, sigma: float, level: int, batch: int, seed: int
) -> dict[str, Array]:
    """Moments of the difference of the two losses over all images; the processes share the batches."""
    moments = Moments(())
    parts = list(enumerate(batches(data, batch)))
    for index in my_share(len(parts)):
        number_, clean = parts[index]
        noise = normal(seed, "error left", level, number_, shape=tuple(clean.shape), like=clean)
        noisy, at = clean + sigma * noise, torch.full((clean.shape[0],), sigma, dtype=clean.dtype, device=clean.device)
        # both on the same noisy image: L and most of the scatter cancel sample by sample
        losses = [(one(noisy, at) - clean).double().flatten(1).square().sum(dim=1) for one in pair]
        moments.add(losses[0] - losses[1])
    return moments.reduced().state()
