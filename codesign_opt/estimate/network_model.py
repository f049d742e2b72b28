"""network(): everything the programs need, measured on a denoiser and its data within a budget of evaluations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..basics.checks import boolean, choice, takes
from ..ingredients.coupling import Coupling
from ..ingredients.estimation_record import EstimationRecord
from ..ingredients.measured_error import OBJECTIVES
from ..ingredients.process import Process
from ..models.estimated import EstimatedModel
from ..samplers.base import Sampler
from .denoisers.denoiser import Denoise
from .draws.streams import Stream, first_of
from .measurement import Measurement
from .network_training import TrainingWork
from .network_work import NetworkWork, Sampling
from .spectra.measure import spectrum
from .training_history import TrainingHistory

__all__ = ["network"]


@takes(measurement=Measurement)
def network(
    denoiser: Denoise,
    data: Any,
    *,
    process: Process | str | None = None,
    sampler: Sampler | str | None = None,
    terminal: str = "denoise",
    training: Any = None,
    coupling: Coupling | str | None = None,
    objective: str = "mean",
    measurement: Measurement | None = None,
    seed: int = 0,
    folder: str | Path | None = None,
    check: bool = True,
) -> EstimatedModel:
    """A denoiser, its data and its training log as a model that `codesign` plans with.

    Before anything is measured on it, the denoiser is held against what the spectrum of the data allows, and refused
    where the usual mistakes are seen (`check_denoiser`, docs/theory.md section 1.5).

    Measured, in this order: the spectrum of the data; the fine solution, its own accuracy and its distance to the
    data, which no grid can mend (section 3.5: of four times `draws` outputs, which what is said of plans needs
    anyway; held out, if `data` are); what stopping early costs (docs/theory.md section 2); the responses to one coarse
    step at every level and their Gram matrix (3.3); with a second denoiser, the correlation length of the errors
    (section 6); with `training`, learning curves (section 5) and the sensitivity of the output to an error at every
    level (section 4). `codesign` measures the responses again at its own plan's steps, descends the measured error of
    the final grid, and says its error on draws that chose nothing. Every finished item is kept in `folder`: the same
    call goes on.

    Args:
        denoiser: callable (x, sigma) -> x0 in the rescaled state; see `estimate.adapters` for others.
        data: tensor, array, Dataset, DataLoader or iterable of batches of training examples; of data without a length,
            which may be endless, so many as `measurement.examples` says, or the first 262,144, with a note.
        process: forward process, or its name; its sigma range is planned over. EDM unless given.
        sampler: any sampler with a `step` on networks, or its name. Heun unless given.
        terminal: "denoise" or "rescale".
        training: TrainingRun with a log, or its path, read by `learning_curves`; or the result of any route of
            section 5 (LearningCurves, GradientNoise, ReplicatedRuns, a TrainingErrors of one's own); or a
            `TrainingHistory`, which holds one of them and more: a second denoiser, the growth between two
            checkpoints, the learning rate. Without it only the sampler is planned.
        coupling: correlation length of the errors; measured where the history has a second denoiser, else Local().
            "transfer": `Transfer` with that length and the width, measured too, in which examples teach neighbouring
            levels, read where the run trained. Such a plan leaves out levels that are only taught by their neighbours:
            for a training density take `estimate.pilot` and `pilot_density`, which guard against that. Give it with the
            history's `growth`: at high noise logs hold too few losses.
        objective: what grids are descended, compared and quoted by, unless `codesign` asks for another: the "mean" of
            the errors of draws, the mean "trimmed" of the largest tenth, or their "geometric" mean, that of a typical
            draw. Squared errors have heavy tails, and a few draws may decide the mean.
        measurement: how finely, at what cost, and on which device; see `Measurement`.
        seed: of all draws.
        folder: where finished items are kept.
        check: False to plan with a denoiser that would be refused, as it is.

    Returns:
        EstimatedModel with its probe; `estimation.evaluations` counts the calls, part by part, and
        `estimation.denoiser_check` has the verdict and the table of levels.

    Raises:
        ValueError: a malformed argument, or a budget below the fixed part, which the message names.
        DenoiserError: a denoiser that fails at some noise level, or is none of these data, with the table and the
            mistake that explains it; what was finished stays in `folder`.

    >>> import torch
    >>> from codesign_opt import codesign, Euler
    >>> x = torch.randn(500, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    >>> clean = lambda x, sigma: x / (1 + sigma[:, None] ** 2)
    >>> model = network(clean, x, sampler=Euler(), measurement=Measurement(levels=8, draws=16))
    >>> codesign(model, steps=6, points=3, levels=40).number_of_steps
    6
    """
    check = boolean(check, "network: check")
    history, sampling = TrainingHistory.of(training), Sampling.of(process, sampler, terminal)
    history.check(coupling, data)
    law = history.law()  # a log without a fall is refused before anything is measured
    first, data = first_of(data)
    choice(objective, "network: objective", OBJECTIVES)
    asked = Measurement() if measurement is None else measurement
    work = NetworkWork.prepared(denoiser, first, sampling, asked, seed, folder)
    trained = TrainingWork(work, history, law, coupling, data)
    work.check_answers()
    work.expect(check)
    trained.expect()
    evaluations = work.budget()
    measured = spectrum(data, stream=Stream(asked.examples), seed=seed, folder=work.place("spectrum"))
    found = measured.spectrum
    work.tell(f"spectrum: {found!r}")
    said = work.check_denoiser(first, data, measured).lines if check else []
    work.check_same(history.other)
    sampled = work.measured(first, data)
    learned = trained.measured(found.sigma_data)
    work.tell(f"batch evaluations: {', '.join(f'{name} {count:,}' for name, count in work.expected.items())}")
    work.tell.close()  # plans of the model go on with it, and count for themselves
    said = [*said, *(f"denoiser: {note}" for note in work.denoiser.notes)]  # what its adapter found out
    said = [*said, *([f"data: {measured.note}"] if measured.note else [])]
    record = {**work.provenance(sampled), **learned.provenance(), "denoiser_check": said}
    return EstimatedModel(
        work.nodes,
        sampled.responses.scaled_response,
        sampled.truncation.value,
        found,
        process=work.sampling.process,
        sampler=work.sampling.sampler,
        terminal=terminal,
        coupling=learned.coupling,
        standard_errors={"truncation": sampled.truncation.standard_error, **learned.standard_errors},
        provenance={**record, "dimension": found.dimension},
        estimation=EstimationRecord.from_record(record),
        probe=work.probe(evaluations, objective),
        **learned.rows,
    )
