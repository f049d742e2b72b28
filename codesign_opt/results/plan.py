"""Plan: the answer. Printable, plottable, exported, saved as JSON; a frozen value."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..basics.checks import Array
from ..basics.late import later
from ..basics.tabular import Tabular
from .headline import headline
from .level_table import level_table
from .record import PlanRecord
from .text import certificate_line, plan_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Plan"]


class Plan(PlanRecord, Tabular):
    """A certified design: where to train, where to step, where to stop, and what it costs.

    The fields are those of `PlanRecord`. Printed it is a page of text; `table`, `plot` and `export` show the rest.
    Two numbers say how good it is: `error` is the program's, to leading order, and what is proved; for the whole steps
    that a sampler takes, and the examples that teach them, it is `handed_out["total"]`, which is printed first.

    >>> import codesign_opt as co
    >>> model = co.GaussianModel(co.Spectrum.power_law(8, exponent=1.5), sampler=co.Euler())
    >>> co.codesign(model, steps=5, stopping_sigma=0.1, levels=20, polish=False)
    Plan(error=0.1323, stopping_sigma=0.1, 5 steps)
    """

    def table(self, rows: int | None = None) -> str:
        """The levels as text: sigma, examples, share, step size and error by cause."""
        return level_table(self, rows)

    def plot(self, figure: Figure | None = None) -> Figure:
        """One page that shows the whole plan; returns the matplotlib Figure."""
        from .panels import plan_page

        return plan_page(self, figure)

    def export(self, target: str, scheduler: Any = None, *, path: str | Path | None = None, **options: Any) -> Any:
        """The levels for another program: "diffusers", "k-diffusion", "comfyui", "json", "csv" or "python".

        Args:
            target, scheduler, path, options: as in `codesign_opt.exports.export`; "diffusers" needs the scheduler.

        Raises:
            ValueError: no sampler was planned, or the scheduler cannot take the levels (the message says which can).
        """
        from ..exports import export

        return export(self, target, scheduler, path=path, **options)

    def export_training(self, target: str, *, path: str | Path | None = None, **options: Any) -> Any:
        """The training density in the settings of a trainer: "edm2", "sd-scripts", "diffusers" and others.

        Args:
            target, path, options: as in `codesign_opt.exports.training.export_training`.

        Raises:
            ValueError: the plan trains nothing, an unknown target, options of another.
        """
        from ..exports.training import export_training

        return export_training(self, target, path=path, **options)

    def columns(self) -> dict[str, Array]:
        """By noise level: its ends, examples, steps, and every table of one number per level."""
        edges, size = self.levels.edges, len(self.levels)
        own = {"examples": self.examples, "new_examples": self.new_examples, "steps": self.steps}
        beside = {name: values for name, values in self.tables.items() if np.shape(values) == (size,)}
        return {"sigma_low": edges[:-1], "sigma_high": edges[1:], **own, **beside}

    def heading(self) -> list[str]:
        """What is handed out, the error, and how sure it is."""
        return [line.strip() for line in headline(self)] + [certificate_line(self)]

    def report(self, path: str | Path, *, what_if: Any = None) -> Path:
        """One self-contained HTML page; see `codesign_opt.report`."""
        written: Path = later("reports.report", "report")(self, path, what_if=what_if)
        return written

    def __str__(self) -> str:
        return plan_text(self)

    def __repr__(self) -> str:
        none = f"{len(self.samplings)} samplers" if self.samplings else "no sampler"
        steps = none if self.sigmas is None else f"{self.number_of_steps} steps"
        return f"Plan(error={self.error:.4g}, stopping_sigma={self.stopping_sigma:.4g}, {steps})"
