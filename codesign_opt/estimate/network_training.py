"""The training side of `network`: how errors of levels go together, what they are, and what they do to the output."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from ..basics.checks import Array
from ..curves.error_law import ErrorLaw
from ..ingredients.coupling import Coupling, Local, Transfer
from ..ingredients.levels import Levels
from .denoisers.denoiser import Denoiser
from .network_work import NetworkWork
from .training_errors.checkpoint_pair import CheckpointPair, sampled_images
from .training_errors.error_coupling import Starts, error_gram
from .training_errors.pilot import as_shown, trained_at
from .training_errors.sensitivity import calls_of_pairs, difference_of, sensitivity
from .training_errors.served_examples import as_served, law_of_left, served_per_log_sigma
from .training_errors.transfer import TransferKernel
from .training_history import TrainingHistory

__all__ = ["MeasuredTraining", "TrainingWork"]

_WIDTH_LEVELS = 24  # for the transfer width: narrow against it
_STARTS = 16  # of the correlation length, all at once


@dataclass(frozen=True, eq=False)
class MeasuredTraining:
    """What a plan for training needs, and what is said of it.

    Attributes:
        coupling: correlation length of the errors, and the width in which levels teach each other.
        rows: `sensitivity`, `error_variance`, `error_floor`, of a run that is known `untrained`, at the nodes; empty
            where only the sampler is planned.
        standard_errors: of those, by name.
        assumed: whether nothing told the correlation length.
        kernel: the measured transfer width, if it was asked for.
        notes: what the law of the errors says of itself, and first where it leaves nothing to train.
    """

    coupling: Coupling
    assumed: bool
    rows: dict[str, Array] = field(default_factory=dict)
    standard_errors: dict[str, Array] = field(default_factory=dict)
    kernel: TransferKernel | None = None
    notes: list[str] = field(default_factory=list)

    def provenance(self) -> dict[str, Any]:
        """Where the numbers come from, as plain values."""
        return {
            "correlation_length": "assumed" if self.assumed else "measured or given",
            "transfer_width_error": None if self.kernel is None else self.kernel.standard_error,
            "training_notes": self.notes,
        }


@dataclass(frozen=True, eq=False)
class TrainingWork:
    """The measurement of the training side.

    Args:
        work: what is measured with.
        history: what is known of the training.
        law: the errors by its source; None where there is none, or checkpoints tell them.
        coupling: as `network` got it.
        data: examples, read a second time where checkpoints are compared.
    """

    work: NetworkWork
    history: TrainingHistory
    law: ErrorLaw | None
    coupling: Coupling | str | None
    data: Any

    def expect(self) -> None:
        """Batch evaluations of the parts, known beforehand."""
        work, pair, nodes = self.work, self._pair, self.work.nodes
        if self.history.trains:
            directions = 0 if pair is None else work.rest.draws.chunks * nodes.size
            work.expected["sensitivity"] = calls_of_pairs(work.rest, nodes) + directions
        if pair is not None and self.coupling == "transfer":
            work.expected["transfer width"] = pair.calls_of_width(len(self._trained_levels()))
        if pair is not None and self.history.growth is not None:
            work.expected["errors left"] = pair.calls_of_left(nodes.size)

    def measured(self, spread: float) -> MeasuredTraining:
        """Coupling, errors and sensitivity at the nodes; `spread` is the data's standard deviation."""
        coupling, kernel = self._measured_coupling()
        found = MeasuredTraining(coupling, self.coupling is None and self.history.other is None, kernel=kernel)
        law = self._served(coupling)
        if law is None:
            return found
        rows, errors = self._rows(law, coupling, spread)
        seen, nodes = rows["error_variance"], self.work.nodes
        rows["error_variance"] = _between_seen(nodes, seen, _shape(nodes, spread))
        if self.history.run is not None:
            trace = spread**2 * float(np.prod(self.work.reference.draws.shape))
            rows["untrained"] = self._untrained(rows["error_variance"], coupling, trace * _shape(nodes, spread))
        return replace(found, rows=rows, standard_errors=errors, notes=_notes(law, nodes, seen))

    @property
    def _pair(self) -> CheckpointPair | None:
        """The network and the other denoiser on common images of the data."""
        work, other = self.work, self.history.other
        if other is None:
            return None
        draws, images = work.reference.draws, work.measurement.images
        read = partial(sampled_images, self.data, images, seed=draws.seed, like=draws.like)
        return CheckpointPair(Denoiser.of(other), work.denoiser, read, images, draws.seed, work.place("checkpoints"))

    def _trained_levels(self) -> Levels:
        """Where the run trained: elsewhere its errors are alike because nothing told them apart (section 6.3)."""
        process, run = self.work.sampling.process, self.history.run
        assert run is not None
        return trained_at(run, Levels.log_uniform(process.sigma_min, process.sigma_max, _WIDTH_LEVELS))

    def _measured_coupling(self) -> tuple[Coupling, TransferKernel | None]:
        """The coupling that was given, or a measured one: correlation length, and width of the transfer."""
        if isinstance(self.coupling, Coupling):
            return self.coupling, None
        pair = self._pair
        if pair is None:
            return Local(), None
        local = self._correlation_length()
        if self.coupling is None:
            return local, None
        at, run = self._trained_levels(), self.history.run
        width = partial(pair.width, float(at.edges[0]), float(at.edges[-1]), len(at))
        measured: TransferKernel = self.work.counted("transfer width", width)
        assert run is not None  # the history was checked
        kernel, told = as_shown(measured, run)
        self.work.tell("; ".join([repr(measured), *told]))
        return Transfer(kernel.width, local.log_width, local.form), kernel

    def _correlation_length(self) -> Local:
        """That of the difference between the two denoisers."""
        work, draws = self.work, self.work.reference.draws
        starts = Starts(draws.shape, min(draws.count, _STARTS), _STARTS, like=draws.like)
        measure = partial(
            error_gram, work.denoiser, self.history.other, work.sampling.sampler, work.first_grid, starts,
            seed=draws.seed, folder=work.place("correlation"),
        )  # fmt: skip
        found = work.counted("correlation length", measure)
        work.expected["correlation length"] = -(-found.evaluations // starts.draws)
        length = found.correlation_length()
        work.tell(f"{length!r}")
        local: Local = length.coupling("gram")
        return local

    def _untrained(self, seen: Array, coupling: Coupling, shrunk: Array) -> Array:
        """(M,) squared errors at the nodes without examples: no less than the network is seen to have now.

        Elsewhere those of a denoiser that gives back its input shrunk to the data's scale, d s^2 sigma^2 / (s^2 +
        sigma^2): where EDM's preconditioning starts from, and predictions of the noise or of a velocity nearly so.
        """
        nodes, process, run = self.work.nodes, self.work.sampling.process, self.history.run
        assert run is not None
        within = coupling.lengths_at(nodes, float(nodes[0]), float(nodes[-1]))
        served = within * served_per_log_sigma(run, coupling, nodes, process.sigma_min, process.sigma_max)
        return np.maximum(shrunk, seen / np.maximum(served, 1.0))

    def _served(self, coupling: Coupling) -> ErrorLaw | None:
        """The law by the examples that serve a level: from two checkpoints, or from the source."""
        process, pair, growth = self.work.sampling.process, self._pair, self.history.growth
        run, ends = self.history.run if self.history.trains else None, (process.sigma_min, process.sigma_max)
        if run is not None and pair is not None and growth is not None:
            nodes = self.work.nodes
            left = self.work.counted("errors left", lambda: pair.left(nodes, growth))
            return law_of_left(left, nodes, run, coupling, *ends)
        return self.law if self.law is None or run is None else as_served(self.law, run, coupling, *ends)

    def _rows(self, law: ErrorLaw, coupling: Coupling, spread: float) -> tuple[dict[str, Array], dict[str, Array]]:
        """Sensitivity of the output and errors of the denoiser at the nodes, with their standard errors."""
        work, nodes, other = self.work, self.work.nodes, self.history.other
        direction = None if other is None else difference_of(work.denoiser, other)
        measure = partial(sensitivity, work.rest, nodes, direction=direction, folder=work.place("sensitivity"))
        gain = work.counted("sensitivity", measure).gain
        # kappa1 counts the examples within the law's length; the model counts those within its own
        scale: Any = 1.0
        if law.log_width is not None:
            scale = coupling.lengths_at(nodes, nodes[0], nodes[-1]) / law.log_width

        def at_nodes(values: Array) -> Array:
            at, known = _shape(nodes, spread), _shape(law.sigma, spread)
            return at * np.interp(np.log(nodes), np.log(law.sigma), values / known)

        rows = {
            "sensitivity": np.maximum(gain.value, 0.0),
            "error_variance": scale * at_nodes(law.reducible),
            "error_floor": self.history.rate * at_nodes(law.step_noise),
        }
        errors = {"sensitivity": gain.standard_error, "error_variance": scale * at_nodes(law.reducible_error)}
        return rows, errors


def _shape(sigma: Array, spread: float) -> Array:
    """Errors fall as sigma^2 below the data's scale: they are interpolated beside that."""
    return 1 / (1 + (spread / sigma) ** 2)


def _between_seen(nodes: Array, seen: Array, shape: Array) -> Array:
    """(M,) kappa1 where it was seen, and between its neighbours', beside the shape, where nothing was seen to fall.

    0 there says that scatter hid it. Taken at its word, a plan leaves such levels to the examples that they have: a
    network planned so erred 1.6 times as much as at EDM's default (docs/validation.md).
    """
    known = seen > 0
    if known.all() or not known.any():
        return seen
    log = np.interp(np.log(nodes), np.log(nodes[known]), np.log(seen[known] / shape[known]))
    return np.where(known, seen, shape * np.exp(log))


def _notes(law: ErrorLaw, nodes: Array, seen: Array) -> list[str]:
    """What the law says of itself, and first where nothing was seen to fall."""
    if not np.any(seen == 0):
        return list(law.notes)
    nothing = ", ".join(f"{sigma:.3g}" for sigma in nodes[seen == 0])
    what = "where a plan gives no examples" if not seen.any() else "and taken as between its neighbours'"
    return [f"kappa1 is measured as 0 at sigma = {nothing}, {what}; {law.remedy}", *law.notes]
