"""TrainingTarget: a trainer that takes a density over noise levels, and the names that `export_training` knows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...basics.checks import shown
from ...basics.registry import Registry
from ...ingredients.densities import SigmaDensity
from .settings import Settings

__all__ = ["TRAINING_TARGETS", "Assumed", "TrainingTarget", "Written", "add_training_target", "training_targets"]


@dataclass(frozen=True, eq=False)
class Written:
    """A density in a trainer's own settings.

    Attributes:
        settings: by the trainer's names.
        text: as they are typed: a command line, a part of a TOML or JSON file.
        density: what the trainer draws by its own law with exactly these settings.
        notes: what a reader should know.
    """

    settings: Mapping[str, Any]
    text: str
    density: SigmaDensity
    notes: tuple[str, ...] = field(default=())


@dataclass(frozen=True, eq=False)
class Assumed:
    """What settings leave to the model that is trained.

    Attributes:
        shift: of a flow's scheduler or resolution, a factor on sigma; None: unknown.
        table: noise levels of a network's timesteps; None: those of Stable Diffusion.
    """

    shift: float | None = None
    table: Any = None


@dataclass(frozen=True)
class TrainingTarget:
    """A trainer: how a density is written in its settings, and how its settings are read.

    Args:
        name: what `export_training`, `read_training` and the command line call it.
        options: keyword arguments of `export_training` that have a meaning for it.
        write: function of a SigmaDensity and of those options that are given, by keyword; returns Written.
        owns: whether settings are this trainer's, a function of Settings; asked in the order of names' entry.
        read: density of Settings and Assumed.

    Raises:
        ValueError: a name that is no text, or functions that cannot be called.
    """

    name: str
    options: tuple[str, ...]
    write: Callable[..., Written]
    owns: Callable[[Settings], bool]
    read: Callable[[Settings, Assumed], SigmaDensity]

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", tuple(self.options))
        for name in ("write", "owns", "read"):
            if not callable(getattr(self, name)):
                raise ValueError(f"TrainingTarget.{name} is {shown(getattr(self, name))}; a function is needed.")


TRAINING_TARGETS: Registry[TrainingTarget] = Registry("export_training.target", "training target")


def add_training_target(target: TrainingTarget) -> TrainingTarget:
    """Make a trainer known to `export_training`, `read_training`, `Plan.export_training` and the command line.

    Raises:
        ValueError: a name that another target has.
    """
    return TRAINING_TARGETS.add(target.name, target, owner=target.write)


def training_targets() -> list[str]:
    """Names that `export_training` knows, those of `add_training_target` elsewhere included."""
    return TRAINING_TARGETS.names()


def rounded(value: float) -> float:
    """Six digits, as settings are typed."""
    return float(f"{value:.6g}")


def flags(settings: Mapping[str, Any]) -> str:
    """Settings as the words of a command line; what is true has no value."""
    return " ".join(f"--{name}" if value is True else f"--{name} {value}" for name, value in settings.items())
