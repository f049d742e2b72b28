"""Shared parameters of a network: information of one example per level, and the terminal response.

docs/theory.md section 6.4. F_l = E[J^T J] / s_l with J the derivative of the denoiser's output by the
parameters and s_l the residual variance; H = G G^T = E[K^T K] with K the derivative of the sampler's
output. Both in the P directions of a ParameterSketch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from ...basics.checks import Array, choice, number, takes, vector
from ...basics.fields import holds
from ...basics.ledger import Ledger
from ...ingredients.levels import Levels
from ...modeling.information import InformationError
from ..denoisers.denoiser import Denoise
from ..draws.data_fingerprint import data_fingerprint
from ..draws.statistics import Estimate, Moments
from ..draws.streams import batches
from .derivatives import LevelDerivatives, TerminalDerivatives, TerminalResponse
from .parameter_sketch import ParameterSketch, ParametricDenoiser, Sketch

__all__ = ["SharedFeatures", "shared_features"]

_CHUNK = 8  # response probes per ledger item
_ZERO = 1e-14  # eigenvalues of F below this fraction of the largest are rounding


@dataclass(frozen=True, eq=False)
class SharedFeatures:
    """What P4 needs of a network, in the P coordinates of a sketch of its parameters.

    A sketch restricts the model to theta_0 + S z; see ParameterSketch for what optima then mean.

    Attributes:
        sigma: (L,) ascending noise levels.
        information: (U, L, P, P) mean of J^T J over the examples of each of U independent groups.
        residual: |D - x0|^2 per dimension at each level, mean and standard error over the examples.
        gradient_residual: (L,) tr E[J^T r r^T J] / tr E[J^T J], the residual's variance in the directions
            that the parameters move; equal to `residual` where the residual is isotropic.
        level_response: (L, P, r) derivative of r terminal outputs by the parameters, through the
            evaluations of the denoiser in each level alone; scaled so that G G^T is E[K^T K].
        parameters: of the network.
        evaluations: forward passes of single images.
    """

    sigma: Array
    information: Array
    residual: Estimate
    gradient_residual: Array
    level_response: Array
    parameters: int
    evaluations: int

    def __post_init__(self) -> None:
        holds(
            self, sigma="level", information="group level direction direction", residual=Estimate,
            gradient_residual="level", level_response="level direction output", parameters=int, evaluations=int,
        )  # fmt: skip

    @property
    def response(self) -> Array:
        """(P, r) G, through all levels."""
        return np.asarray(self.level_response.sum(axis=0))

    @cached_property
    def features(self) -> Array:
        """(L, k, P) roots with E[J^T J] = phi^T phi."""
        return _roots(self.information.mean(axis=0))

    @cached_property
    def group_features(self) -> Array:
        """(U, L, k, P) the same of each group: what TransferKernel.from_features takes."""
        groups, count, size, _ = self.information.shape
        return _roots(self.information.reshape(-1, size, size)).reshape(groups, count, -1, size)

    def term(self, *, prior_examples: float = 0.0, residual: str = "mean") -> InformationError:
        """The shared-parameter error <G G^T, (M0 + sum m_l F_l)^-1>, ready for a Problem.

        Args:
            prior_examples: isotropic prior worth that many examples spread evenly over the levels; needed
                where the features do not determine the response.
            residual: "mean", the variance per dimension, or "gradient", the variance that the parameters
                see (which is right for gradients of strongly anisotropic residuals).
        """
        choice(residual, "SharedFeatures.term: residual", ("mean", "gradient"))
        name = "SharedFeatures.term: prior_examples"
        worth = number(prior_examples, name, nonnegative=True)
        variance = self.residual.value if residual == "mean" else self.gradient_residual
        prior = None
        if worth > 0:
            mean = np.trace(self.information.mean(axis=0), axis1=1, axis2=2) / variance
            size = self.information.shape[-1]
            prior = worth * float(mean.mean()) / size * np.eye(size)
        return InformationError(
            self.features, self.response, sigma=self.sigma, prior=prior, residual_variance=np.maximum(variance, 1e-300)
        )

    def __repr__(self) -> str:
        size, outputs = self.information.shape[-1], self.level_response.shape[-1]
        return f"SharedFeatures({self.sigma.size} levels, {size} of {self.parameters} parameters, {outputs} responses)"


def _roots(matrices: Array) -> Array:
    """(N, k, P) with root^T root the given (N, P, P) matrices, k the largest rank."""
    values, vectors = np.linalg.eigh(matrices)
    values = np.where(values > _ZERO * values[:, -1:], values, 0.0)
    rank = max(int((values > 0).sum(axis=1).max()), 1)
    return np.asarray((vectors * np.sqrt(values)[:, None, :])[:, :, -rank:].transpose(0, 2, 1))


@takes(response=TerminalResponse, sketch=Sketch)
def shared_features(
    denoiser: Denoise,
    data: Any,
    sigma: ArrayLike,
    response: TerminalResponse,
    *,
    module: torch.nn.Module | None = None,
    sketch: Sketch | None = None,
    seed: int = 0,
    folder: str | Path | None = None,
) -> SharedFeatures:
    """Information of each level and terminal response of a network's parameters, sketched to P directions.

    Features are directional derivatives (forward mode) along the P directions: exact on every example, at
    the cost of 2 P passes per batch and level. Where a layer has no forward mode, `Sketch.probes` takes that
    many random output probes per batch instead (vector-Jacobian products); sum over levels of probes times
    batches must then be well above P. The response always goes backwards, one run of the sampler per probe,
    with activations recomputed.

    Args:
        denoiser: nn.Module (x, sigma) -> x0, or a callable around `module`; see `ParametricDenoiser`.
        data: examples (see `batches`); the first `sketch.examples` are used.
        sigma: (L,) ascending noise levels of the information.
        response: the sampler on its grid, and the probes of its output.
        module: whose parameters are meant, where `denoiser` is not it.
        sketch: directions of the parameters, and the examples per level.
        seed: of sketch, noise and probes.
        folder: where finished levels are kept; a killed run goes on there.

    Raises:
        ValueError: too few examples, a denoiser that does not depend on the parameters, or a layer without
            forward mode.
        DenoiserError: see Denoiser.
    """
    sketch = Sketch() if sketch is None else sketch
    trained = ParametricDenoiser(denoiser, module)
    work = LevelDerivatives(trained, ParameterSketch(trained.parameters, sketch.size, seed=seed), seed)
    place = vector(sigma, "shared_features.sigma", positive=True, ascending=True)
    parts = _examples(data, sketch, trained)
    count = min(sketch.groups, len(parts))
    question = {"sigma": place.tolist(), "size": work.sketch.size, "groups": count, "seed": seed}
    question |= {"examples": sketch.examples, "batch": sketch.batch, "probes": sketch.probes}
    question |= {} if folder is None else {"data": data_fingerprint(whole := torch.cat(parts), whole[:1])}
    ledger = Ledger(folder, {"estimate": "shared_features", **question, **_question(response, trained)})
    with trained.evaluating():
        levels = [
            ledger.item(f"level-{i}", lambda i=i, s=s: work.level(parts, i, float(s), count, sketch.probes))  # type: ignore[misc]
            for i, s in enumerate(place)
        ]
        through = TerminalDerivatives(work, response, Levels.around(place), tuple(parts[0].shape[1:]), parts[0])
        rows = _response_rows(through, ledger)
    table = np.concatenate([row["rows"] for row in rows], axis=2)
    table = table / np.sqrt(response.draws if response.probes is None else table.shape[2])
    return _gathered(place, levels, table, rows, trained.count)


def _question(response: TerminalResponse, trained: ParametricDenoiser) -> dict[str, Any]:
    return {
        "grid": response.sigmas.tolist(), "sampler": repr(response.sampler), "draws": response.draws,
        "response_probes": response.probes, "weights": trained.fingerprint(),
    }  # fmt: skip


def _response_rows(through: TerminalDerivatives, ledger: Ledger) -> list[Any]:
    """The response in finished items: all outputs together, or some probes at a time."""
    count = through.response.probes
    if count is None:
        return [ledger.item("response", through.every_output)]
    chunks = [range(low, min(low + _CHUNK, count)) for low in range(0, count, _CHUNK)]
    return [ledger.item(f"response-{c.start}", lambda c=c: through.probes(c)) for c in chunks]  # type: ignore[misc]


def _gathered(place: Array, levels: list[Any], response: Array, rows: list[Any], parameters: int) -> SharedFeatures:
    traces = np.stack([item["traces"] for item in levels])
    if not np.all(traces[:, 1] > 0) or not response.any():
        raise ValueError("the denoiser does not depend on the module's parameters; give the module that it calls.")
    residual = [Moments.from_state({k: item[f"residual_{k}"] for k in ("count", "mean", "squares")}) for item in levels]
    estimates = [moments.estimate() for moments in residual]
    value, error = (np.array([getattr(e, part) for e in estimates]) for part in ("value", "standard_error"))
    return SharedFeatures(
        place,
        np.stack([item["information"] for item in levels], axis=1),
        Estimate(value, error, estimates[0].count),
        traces[:, 0] / traces[:, 1],
        response,
        parameters,
        int(sum(float(item["evaluations"]) for item in [*levels, *rows])),
    )


def _examples(data: Any, sketch: Sketch, trained: ParametricDenoiser) -> list[torch.Tensor]:
    """The first examples, in batches, in the dtype and on the device of the parameters."""
    like, wanted = next(iter(trained.parameters.values())), sketch.examples
    parts: list[torch.Tensor] = []
    have = 0
    for part in batches(data, sketch.batch):
        parts.append(part[: wanted - have].to(like.device, like.dtype))
        have += parts[-1].shape[0]
        if have >= wanted:
            return [chunk for part in parts for chunk in part.split(sketch.batch)]
    raise ValueError(f"data has {have} examples; {wanted} are asked for (Sketch.examples).")
