"""A network's parameters, restricted to a few random directions: theta = theta_0 + S z."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.func import functional_call

from ...basics.checks import AT_ONCE, integer
from ..denoisers.denoiser import Denoiser
from ..draws.data_fingerprint import digest_of
from ..draws.precision import full
from ..draws.streams import seeded

__all__ = ["ParameterSketch", "ParametricDenoiser", "Sketch"]

Parameters = dict[str, torch.Tensor]
_MOST = 512  # directions: P x P matrices per level and group are kept


@dataclass(frozen=True)
class Sketch:
    """Directions of the parameters that features are taken in, and the examples that they are averaged over.

    Args:
        size: P, directions, at most 512; all parameters where there are no more. See `ParameterSketch`.
        examples: per noise level, at least 2.
        batch: examples at once.
        groups: independent groups, which the batches are dealt to: the unit of standard errors, 8 for errors good to
            a quarter.
        probes: random output probes per batch (vector-Jacobian products), for layers without forward mode; None:
            derivatives along every direction, exact, 2 P passes per batch.

    Raises:
        ValueError: a number out of range.

    >>> Sketch(size=16, examples=64).groups
    8
    """

    size: int = 128
    examples: int = 128
    batch: int = 16
    groups: int = 8
    probes: int | None = None

    def __post_init__(self) -> None:
        for name, least in (("size", 1), ("examples", 2), ("batch", 1), ("groups", 1)):
            object.__setattr__(self, name, integer(getattr(self, name), f"Sketch.{name}", minimum=least))
        if self.probes is not None:
            object.__setattr__(self, "probes", integer(self.probes, "Sketch.probes", minimum=1, maximum=AT_ONCE))


class ParametricDenoiser:
    """A denoiser as a function of the parameters of the module behind it.

    Args:
        denoiser: an nn.Module with forward (x, sigma) -> x0, or a callable or Denoiser around one.
        module: the module whose parameters are trained; needed where `denoiser` is not a module itself
            (an adapter). The parameters that require gradients count; all of them where none does.

    Attributes:
        parameters: by name, detached.
        count: entries of all of them.
        calls, evaluations: batches and images denoised so far.

    Raises:
        ValueError: no module is given or found, or it has no parameters.
    """

    def __init__(self, denoiser: Any, module: torch.nn.Module | None = None) -> None:
        function = denoiser.function if isinstance(denoiser, Denoiser) else denoiser
        module = function if module is None and isinstance(function, torch.nn.Module) else module
        if not isinstance(module, torch.nn.Module):
            raise ValueError("module is missing: give the torch.nn.Module whose parameters the denoiser is trained by.")
        self.module = _Bound(module, function)
        named = dict(self.module.named_parameters())
        chosen = {name: p for name, p in named.items() if p.requires_grad} or named
        if not chosen:
            raise ValueError(f"module {type(module).__name__} has no parameters.")
        self.parameters: Parameters = {name: full(p.detach()) for name, p in chosen.items()}
        rest = {name: value for name, value in (*named.items(), *self.module.named_buffers()) if name not in chosen}
        self._rest: Parameters = {
            name: full(value.detach()) for name, value in rest.items()
        }  # one precision throughout
        self.count = sum(p.numel() for p in self.parameters.values())
        self.counter = Denoiser(self._call, name=type(module).__name__)
        self._now: Parameters = self.parameters

    @property
    def evaluations(self) -> int:
        """Images denoised so far, forward passes only."""
        return self.counter.evaluations

    def __call__(self, parameters: Parameters, x: torch.Tensor, sigma: Any) -> torch.Tensor:
        """D(x, sigma) at these parameters, checked and counted."""
        self._now = parameters
        return self.counter(x, sigma)

    def _call(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return functional_call(self.module, {**self._rest, **self._now}, (x, sigma))

    def fingerprint(self) -> str:
        """Tells other weights apart, buffers too."""
        return f"{self.count} parameters, {digest_of([*self.parameters.values(), *self._rest.values()])}"

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """The module in evaluation mode, then as it was."""
        modes = {m: m.training for m in self.module.modules()}
        self.module.eval()
        try:
            yield
        finally:
            for m, mode in modes.items():
                m.training = mode


class _Bound(torch.nn.Module):
    """A callable and the module inside it, so that `functional_call` reaches its parameters."""

    def __init__(self, net: torch.nn.Module, function: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.net = net
        self._call = [function]  # in a list: no second registration where it is the module itself

    def forward(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return self._call[0](x, sigma)


class ParameterSketch:
    """S: each parameter moves with one of P sketch coordinates, with a random sign.

    The restricted model theta_0 + S z has P parameters, groups of the network's that move together.
    Optima of docs/theory.md section 6.4 computed with S^T F S and S^T G are those of training z alone:
    exact for P at least the number of parameters (S is then a signed permutation), and otherwise the
    optimum of a smaller model with more sharing. Independent of the restriction, inner products survive
    in expectation: E <S^T a, S^T b> = <a, b>, with standard deviation at most about
    |a| |b| sqrt(2 / P). Memory is two small integers per parameter.

    Args:
        parameters: tensors by name; only shapes and devices matter.
        size: P, at most 512 unless the model is smaller than that.
        seed: of the groups and signs; each tensor draws its own by its name.

    >>> sketch = ParameterSketch({"w": torch.zeros(2, 3)}, 3)
    >>> sketch.size, sketch.count, sketch.direction(0)["w"].abs().sum().item()
    (3, 6, 2.0)
    """

    def __init__(self, parameters: Mapping[str, torch.Tensor], size: int, *, seed: int = 0) -> None:
        self.count = sum(p.numel() for p in parameters.values())
        self.size = min(integer(size, "sketch size", minimum=1), self.count)
        if self.size > _MOST:
            raise ValueError(f"sketch size is {self.size}; at most {_MOST} directions are supported.")
        self._group: Parameters = {}
        self._sign: Parameters = {}
        offset = 0
        for name, p in parameters.items():  # consecutive offsets: a permutation where there is room for all
            order = torch.randperm(p.numel(), generator=seeded(seed, "sketch group", name))
            sign = 2 * torch.randint(0, 2, (p.numel(),), generator=seeded(seed, "sketch sign", name)) - 1
            group = ((order + offset) % self.size).to(torch.int16)
            self._group[name] = group.reshape(p.shape).to(p.device)
            self._sign[name] = sign.to(torch.int8).reshape(p.shape).to(p.device)
            offset += p.numel()

    def direction(self, index: int, dtype: torch.dtype = torch.float32) -> Parameters:
        """Column `index` of S, shaped like the parameters."""
        return {name: (group == index).to(dtype) * self._sign[name].to(dtype) for name, group in self._group.items()}

    def project(self, gradients: Sequence[torch.Tensor | None]) -> torch.Tensor:
        """S^T g in float64 on the CPU; gradients in the parameters' order, None for zero."""
        total = torch.zeros(self.size, dtype=torch.float64)
        for (name, group), gradient in zip(self._group.items(), gradients, strict=True):
            if gradient is not None:
                signed = gradient.detach().to("cpu", torch.float64) * self._sign[name].cpu()
                total.index_add_(0, group.cpu().flatten().to(torch.int64), signed.flatten())
        return total

    def __repr__(self) -> str:
        return f"ParameterSketch({self.size} of {self.count} parameters)"
