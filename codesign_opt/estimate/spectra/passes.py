"""Passes over the data: sums that are checkpointed, resumed and added over processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ...basics.errors import CodesignError
from ...basics.ledger import Ledger
from ...basics.progress import Progress, teller
from ..draws.reservoir import Reservoir
from ..draws.streams import sum_over_processes
from .source import Source

__all__ = ["DataEndedEarly", "Passes", "Sums"]

Update = Callable[[dict[str, torch.Tensor], torch.Tensor], None]


class DataEndedEarly(CodesignError, ValueError):
    """The data ended before the number of examples that was promised or seen before.

    Attributes:
        examples: how many examples were seen.
        estimate: for methods of one pass a function that returns the estimate from these examples, or None.
    """

    def __init__(self, message: str, examples: int) -> None:
        super().__init__(message)
        self.examples = examples
        self.estimate: Callable[[], Any] | None = None
        self.sums: Sums | None = None


class Sums:
    """Named float64 sums over examples, and a reservoir of examples beside them.

    Args:
        values: tensors of zeros, changed in place.
        update: adds a batch of examples to the tensors.
        reservoir: keeps some of the examples; None for none.
    """

    def __init__(self, values: dict[str, torch.Tensor], update: Update, reservoir: Reservoir | None = None) -> None:
        self.values = values
        self.update = update
        self.reservoir = reservoir
        self.count = 0

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.values[name]

    def fresh(self) -> Sums:
        """The same sums over no examples."""
        zeros = {name: torch.zeros_like(value) for name, value in self.values.items()}
        return Sums(zeros, self.update, None if self.reservoir is None else self.reservoir.fresh())

    def add(self, number: int, examples: torch.Tensor) -> None:
        """Add batch `number`."""
        self.count += examples.shape[0]
        self.update(self.values, examples)
        if self.reservoir is not None:
            self.reservoir.add(number, examples.flatten(1))

    def absorb(self, part: Sums) -> None:
        """Add the sums of all processes over a group of batches."""
        self.count += int(sum_over_processes(torch.tensor(float(part.count), dtype=torch.float64)))
        for name, value in self.values.items():
            value += sum_over_processes(part.values[name])
        if self.reservoir is not None and part.reservoir is not None:
            self.reservoir.absorb(part.reservoir)

    def state(self) -> dict[str, Any]:
        """Arrays from which `load` goes on."""
        kept = {name: value.cpu().numpy() for name, value in self.values.items()}
        kept["count"] = np.array(float(self.count))
        return kept | ({} if self.reservoir is None else self.reservoir.state())

    def load(self, state: dict[str, Any]) -> None:
        """Go on from what `state` wrote."""
        self.count = int(state["count"])
        for name, value in self.values.items():
            value.copy_(torch.as_tensor(state[name]))
        if self.reservoir is not None:
            self.reservoir.load(state)


class Passes:
    """Runs over the data that go on where they were stopped.

    Batches are summed in groups of the stream's `checkpoint`; a group's sums are added over the processes and
    kept in the ledger, so that a resumed run adds the same groups in the same order: the same result to the
    last bit, and the number of processes may change in between.
    """

    def __init__(self, source: Source, ledger: Ledger, *, progress: Progress = None) -> None:
        self.source, self.ledger, self.every = source, ledger, source.stream.checkpoint
        self.tell = teller(progress)
        self.finished = 0

    def run(self, name: str, sums: Sums, *, number: int = 0, examples: int | None = None) -> Sums:
        """Sum over all examples; `examples` is the count that must be reached.

        `name` is the ledger's item; one item serves many passes, told apart by `number`.
        """
        start, done = self._resume(name, sums, number)
        if not done:
            self._read(name, sums, number, start)
            _check_count(sums, examples, self.source.examples, self.ledger)
            self._keep(name, sums, number, -1)
        self.finished += 1
        return sums

    def _read(self, name: str, sums: Sums, number: int, start: int) -> None:
        part, last = sums.fresh(), start - 1
        for last, examples in self.source.batches(start):
            if examples is not None:
                part.add(last, examples)
            if (last + 1) % self.every == 0:
                sums.absorb(part)
                part = sums.fresh()
                self._keep(name, sums, number, last + 1)
                self.tell(f"{name}, pass {self.finished + 1}: examples", int(sums.count), self.source.examples)
        if self.source.seen < start:
            raise DataEndedEarly(
                f"data: ended after batch {self.source.seen}, but the sums kept in {self.ledger.folder} are of {start} "
                f"batches ({sums.count:,} examples); give the same data from the start.",
                sums.count,
            )
        sums.absorb(part)

    def _resume(self, name: str, sums: Sums, number: int) -> tuple[int, bool]:
        state = None if self.ledger.folder is None else self.ledger.get(name)
        if state is None or int(state["number"]) != number:
            return 0, False
        sums.load(state)
        return int(state["next"]), int(state["next"]) < 0

    def _keep(self, name: str, sums: Sums, number: int, following: int) -> None:
        if self.ledger.folder is not None:
            self.ledger.put(name, number=np.array(number), next=np.array(following), **sums.state())


def _check_count(sums: Sums, before: int | None, promised: int | None, ledger: Ledger) -> None:
    expected = before or promised
    if expected is None or sums.count == expected:
        return
    if sums.count > expected:
        raise ValueError(f"data: a pass had {sums.count:,} examples, the first pass {expected:,}; keep the data fixed.")
    kept = f"the sums so far are kept in {ledger.folder}" if ledger.folder else "give folder= to keep sums on disk"
    text = f"data: ended after {sums.count:,} examples of {expected:,}; {kept}, and a call with the whole data goes on"
    if before is not None:
        text += ". Give data that can be read again from the start, as in the first pass."
    else:
        text += "; methods of one pass have the estimate from the examples seen in this error's estimate()."
    error = DataEndedEarly(text, sums.count)
    error.sums = sums
    raise error
