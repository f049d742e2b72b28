"""Schedule: what every sampling schedule of the literature is to the library, and the names they go by."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from ...basics.checks import Array, integer, vector
from ...basics.registry import Registry
from ...ingredients.evaluations import MOST_STEPS, final_steps, least_steps
from ...ingredients.grids import ended
from ...models.evidence import Evidence

__all__ = ["SCHEDULES", "Schedule", "names", "schedule"]

SCHEDULES: Registry[type[Schedule]] = Registry("schedule")


class Schedule(ABC):
    """A rule for the sampler's noise levels, from what is known to a grid.

    To add one, write a frozen dataclass with a class attribute `name`, the fields of `Evidence` that it reads in
    `needs`, and the method `_nodes`; `schedule(name)` and `co.compare` then know it.

    Attributes:
        name: what `schedule` and `co.compare` call it; one without goes by its class and is not listed.
        title: one line for tables.
        needs: fields of Evidence without which it cannot be made.

    >>> import numpy as np
    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Halving(Schedule):
    ...     "Every level half of the one before, from sigma_max."
    ...     name = "halving"
    ...     def _nodes(self, count, evidence):
    ...         return evidence.sigma_max * 0.5 ** np.arange(count)
    >>> Halving().sigmas(3, Evidence(sigma_min=0.1, sigma_max=8.0)).tolist()
    [8.0, 4.0, 2.0, 0.0]
    """

    name: ClassVar[str]
    title: ClassVar[str] = ""
    needs: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "name" in vars(cls):
            SCHEDULES.add(cls.name, cls)
        elif not hasattr(cls, "name"):
            cls.name = cls.__name__

    def sigmas(self, steps: int, evidence: Evidence) -> Array:
        """The grid: descending noise levels, data units.

        Args:
            steps: number of steps K, the last step to zero included under "denoise".
            evidence: what is known; the fields in `needs` must be there.

        Returns:
            (K+1,) from evidence.sigma_max down: K positive levels and a final 0 under "denoise", K+1 positive
            levels under "rescale".

        Raises:
            ValueError: evidence that lacks a field, by name, or too few steps; no Evidence; a schedule whose nodes
                are no positive descending levels.
        """
        if not isinstance(evidence, Evidence):
            raise ValueError(
                f"{self.name}: evidence is {type(evidence).__name__}; give an Evidence, such as Evidence.of(model)."
            )
        if isinstance(self.needs, str) or (strange := set(self.needs) - set(Evidence.__dataclass_fields__)):
            wrong = repr(self.needs) if isinstance(self.needs, str) else ", ".join(sorted(strange))
            raise ValueError(f"{self.name}.needs holds {wrong}; it must be a tuple of names of Evidence's fields.")
        missing = [field for field in self.needs if getattr(evidence, field) is None]
        if missing:
            raise ValueError(
                f"{self.name} needs Evidence.{missing[0]}, which is not known; "
                "Evidence.of(GaussianModel) has it in closed form, estimate.evidence(denoiser, data) measures it."
            )
        least = least_steps(evidence.terminal)
        count = integer(steps, "steps", minimum=least, maximum=MOST_STEPS) + 1 - final_steps(evidence.terminal)
        rule = f"{self.name} must give {count} descending noise levels."
        nodes = vector(
            self._nodes(count, evidence), f"{self.name}._nodes", length=count, positive=True, descending=True, hint=rule
        )
        return ended(nodes, evidence.terminal)

    @abstractmethod
    def _nodes(self, count: int, evidence: Evidence) -> Array:
        """(count,) positive noise levels, strictly descending, from evidence.sigma_max."""


def schedule(name: str, **parameters: Any) -> Schedule:
    """A schedule by its name, with its parameters.

    Raises:
        ValueError: an unknown name (the known ones are listed), a parameter that it does not have or that it needs.

    >>> schedule("edm", rho=5.0)
    EDMRho(rho=5.0)
    """
    made: Schedule = SCHEDULES.make(name, parameters)
    return made


def names() -> list[str]:
    """All schedules that `schedule` knows, those of subclasses elsewhere included.

    >>> "edm" in names()
    True
    """
    return SCHEDULES.names()
