"""Gradients of single examples, exact or in random directions of the parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.func import functional_call, grad, vmap

from ...basics.checks import Array, integer, shown
from ...basics.user_code import first_line
from ..denoisers.denoiser import Denoiser
from ..draws.precision import asked, full
from ..draws.streams import seeded

__all__ = ["PerSampleGradients"]

_GRADIENT_NUMBERS = 2 * 10**7  # numbers held at once in per-sample gradients


class PerSampleGradients:
    """Gradients of scalar functions of each example's output, in all parameters or P random directions of them.

    By torch.func vmap where the module allows it, else one example at a time (said in `notes`). Above
    `directions` parameters each parameter is counted into one direction with a random sign, so that inner
    products are kept on average and nothing of size p x P is held.

    Args:
        denoiser: nn.Module (x, sigma) -> x0, a Denoiser of one, or a callable around `module`.
        module: whose parameters are meant, where `denoiser` is not it.
        directions: P, >= 1.
        seed: of the directions.
        at_once: examples whose gradients are held at once, at most; fewer where there are many parameters.

    Attributes:
        parameters, size: p, and min(p, P).
        sketched: whether p > P.
        notes: what was assumed.

    Raises:
        ValueError: no module, or one without a parameter that requires a gradient.

    >>> gradients = PerSampleGradients(torch.nn.Identity(), torch.nn.Linear(2, 2), 512, 0)
    >>> gradients.parameters, gradients.sketched
    (6, False)
    """

    def __init__(
        self, denoiser: Any, module: torch.nn.Module | None, directions: int, seed: int, at_once: int = 256
    ) -> None:
        directions = integer(directions, "directions", minimum=1)
        inner = denoiser.function if isinstance(denoiser, Denoiser) else denoiser
        self.checked = Denoiser.of(denoiser)
        self.function = inner
        self.vectorised = isinstance(inner, torch.nn.Module) and module is None
        self.module: Any = inner if self.vectorised else module
        if not isinstance(self.module, torch.nn.Module):
            raise ValueError(f"denoiser is {shown(denoiser)}; give module=, whose parameters it uses.")
        self.named = {n: p for n, p in self.module.named_parameters() if p.requires_grad}
        if not self.named:
            raise ValueError("denoiser: no parameter requires a gradient; call module.requires_grad_(True).")
        self.like = full(next(iter(self.named.values())))
        self.parameters = sum(p.numel() for p in self.named.values())
        self.sketched = self.parameters > directions
        self.size = min(self.parameters, directions)
        self.at_once = at_once
        self.notes = ["kappa2 holds for small steps; a finite one adds to it."]
        if not self.vectorised:
            self.notes.append("the denoiser is not a module: gradients were taken one example at a time.")
        generator = seeded(seed, "directions")
        if self.sketched:
            self.notes.append(f"{self.parameters} parameters in {self.size} random directions.")
            self.bucket = torch.randint(0, self.size, (self.parameters,), generator=generator).to(self.like.device)
            signs = 2 * torch.randint(0, 2, (self.parameters,), generator=generator) - 1
            self.sign = signs.to(self.like.device, self.like.dtype)

    def rows(self, x: torch.Tensor, sigma: float, target: torch.Tensor, kind: str) -> tuple[Array, Array]:
        """Gradients of |D(x) - target|^2 / 2 ("loss") or of <D(x), target> ("probe").

        Returns:
            (N, P) gradients in the directions, (N,) squared lengths in all parameters, float64.
        """
        step = max(1, min(self.at_once, _GRADIENT_NUMBERS // self.parameters))
        parts, norms = [], []
        for start in range(0, x.shape[0], step):
            part = slice(start, start + step)
            gradients = self._gradients(x[part], sigma, target[part], kind).detach()
            norms.append(gradients.double().square().sum(1).cpu().numpy())
            parts.append(self._project(gradients))
        return np.concatenate(parts), np.concatenate(norms)

    def _gradients(self, x: torch.Tensor, sigma: float, target: torch.Tensor, kind: str) -> torch.Tensor:
        levels = torch.full((x.shape[0],), sigma, dtype=x.dtype, device=x.device)
        if self.vectorised:
            try:
                return self._by_vmap(x, levels, target, kind)
            except torch.cuda.OutOfMemoryError:
                raise
            except (RuntimeError, ValueError) as error:
                self.vectorised = False
                reason = first_line(error)[:100]
                self.notes.append(f"the module cannot be vectorised ({reason}): gradients one example at a time.")
        return self._one_by_one(x, levels, target, kind)

    def _by_vmap(self, x: torch.Tensor, sigma: torch.Tensor, target: torch.Tensor, kind: str) -> torch.Tensor:
        buffers = {n: full(b.detach()) for n, b in self.module.named_buffers()}
        fixed = {n: full(p.detach()) for n, p in self.module.named_parameters() if n not in self.named}
        values = {n: full(p.detach()) for n, p in self.named.items()}  # gradients of half precision lose the small ones

        def scalar(params: Any, x1: torch.Tensor, s1: torch.Tensor, t1: torch.Tensor) -> torch.Tensor:
            out = functional_call(self.module, {**params, **fixed, **buffers}, (x1[None], s1[None]))[0]
            return _scalar(out, t1, kind)

        found = vmap(grad(scalar), in_dims=(None, 0, 0, 0))(values, x, sigma, target)
        return torch.cat([found[n].flatten(1) for n in self.named], dim=1)

    def _one_by_one(self, x: torch.Tensor, sigma: torch.Tensor, target: torch.Tensor, kind: str) -> torch.Tensor:
        rows = []
        for i in range(x.shape[0]):
            value = _scalar(asked(self.function, x[i : i + 1], sigma[i : i + 1])[0], target[i], kind)
            parts = torch.autograd.grad(value, list(self.named.values()), materialize_grads=True)
            rows.append(torch.cat([part.flatten() for part in parts]))
        return torch.stack(rows)

    def _project(self, gradients: torch.Tensor) -> Array:
        if self.sketched:
            out = gradients.new_zeros((gradients.shape[0], self.size))
            gradients = out.index_add_(1, self.bucket, gradients * self.sign)
        result: Array = gradients.to("cpu", torch.float64).numpy()
        return result


def _scalar(out: torch.Tensor, target: torch.Tensor, kind: str) -> torch.Tensor:
    return ((out - target) ** 2).sum() / 2 if kind == "loss" else (out * target).sum()
