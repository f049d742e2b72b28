"""Target: another program that takes noise levels, and the names that `export` knows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..basics.checks import Array, shown, takes
from ..basics.registry import Registry

__all__ = ["EXPORT_TARGETS", "PlannedLevels", "Target", "add_target", "targets"]


@dataclass(frozen=True, eq=False)
class PlannedLevels:
    """Noise levels on their way out.

    Attributes:
        sigmas: (K+1,) descending noise levels sigma_t / s_t, checked; the last may be 0.
        sampler: record of the sampler that they were planned for, `Sampler.to_dict`; empty where it is not known.
    """

    sigmas: Array
    sampler: Mapping[str, Any]

    @property
    def own_steps(self) -> bool:
        """Whether the levels belong to coefficients of their own, as a fitted solver's do."""
        return "a" in self.sampler and "c" in self.sampler


@dataclass(frozen=True)
class Target:
    """A program that takes noise levels, and how they are written for it.

    Args:
        name: what `export` and the command line call it.
        options: keyword arguments of `export` that have a meaning for it.
        write: function of PlannedLevels and of those options that are given, by keyword; returns what `export`
            returns and the text of its file.
        takes_solver: whether it can run, or keeps, the coefficients of a fitted multistep solver; another is refused
            its plans, since the levels alone are worth little under another sampler.
        beside: function of PlannedLevels; name and text of the files that its file needs in the same folder.

    Raises:
        ValueError: a name that is no text, options that are no texts, a `write` that cannot be called.
    """

    name: str
    options: tuple[str, ...]
    write: Callable[..., tuple[Any, str]]
    takes_solver: bool = False
    beside: Callable[[PlannedLevels], Mapping[str, str]] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.options, (tuple, list)) or not all(isinstance(name, str) for name in self.options):
            raise ValueError(f"Target.options is {shown(self.options)}; a tuple of names is needed, () for none.")
        object.__setattr__(self, "options", tuple(self.options))
        if not callable(self.write):
            raise ValueError(f"Target.write is {shown(self.write)}; a function of PlannedLevels is needed.")


EXPORT_TARGETS: Registry[Target] = Registry("export.target", "export target")


@takes(target=Target)
def add_target(target: Target) -> Target:
    """Make a target known to `export`, to `Plan.export` and to the command line.

    Raises:
        ValueError: a name that another target has.

    >>> from codesign_opt.exports import PlannedLevels, Target, add_target, export
    >>> def write(levels: PlannedLevels, digits: int = 3) -> tuple[str, str]:
    ...     text = " ".join(f"{sigma:.{digits}f}" for sigma in levels.sigmas)
    ...     return text, text
    >>> target = add_target(Target("spaces", ("digits",), write))
    >>> export([14.6, 2.5, 0.0], "spaces", digits=1)
    '14.6 2.5 0.0'
    """
    return EXPORT_TARGETS.add(target.name, target, owner=target.write)


def targets() -> list[str]:
    """Names that `export` knows, those of `add_target` elsewhere included.

    >>> "comfyui" in targets()
    True
    """
    return EXPORT_TARGETS.names()
