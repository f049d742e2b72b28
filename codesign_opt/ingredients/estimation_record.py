"""EstimationRecord: how the coefficients of a plan were estimated on a denoiser, as far as anything is read from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .network_floor import NetworkFloor

__all__ = ["EstimationRecord"]


@dataclass(frozen=True)
class EstimationRecord:
    """How a model was estimated on a denoiser, and what that cost; a plan of exact coefficients has none.

    Args:
        error: what the plan's error stands for: a measured one is no Wasserstein distance.
        denoiser: its name; empty where unknown.
        draws: paths that errors are averaged over.
        fine_steps: of the fine solution that errors are measured against.
        fine_accuracy: squared distance of the fine solution to one of half its steps; smaller errors tell nothing.
        evaluations: batch evaluations of the denoiser for the model, by part.
        plan_evaluations: batch evaluations for the plan; None where the denoiser was not at hand.
        correlation_assumed: whether the correlation length of training errors is assumed, not measured or given.
        training_notes: what the learning curves leave open.
        denoiser_check: how the denoiser did against what the data's spectrum allows: the verdict, then the table of
            levels; empty where it was not checked.
        floor: how far the fine solution is from the data, which no grid can mend; None where it was not measured.
    """

    error: str = "mean squared distance of outputs to a fine solution, same noise"
    denoiser: str = ""
    draws: int | None = None
    fine_steps: int | None = None
    fine_accuracy: float = 0.0
    evaluations: Mapping[str, int] = field(default_factory=dict)
    plan_evaluations: int | None = None
    correlation_assumed: bool = False
    training_notes: tuple[str, ...] = ()
    denoiser_check: tuple[str, ...] = ()
    floor: NetworkFloor | None = None

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> EstimationRecord:
        """What the provenance of an estimated model tells of; what it leaves out is unknown.

        >>> EstimationRecord.from_record({"denoiser": "unet", "draws": 64, "correlation_length": "assumed"}).draws
        64
        """
        return cls(
            error=str(record.get("error", cls.error)),
            denoiser=str(record.get("denoiser", "")),
            draws=record.get("draws"),
            fine_steps=record.get("fine_steps"),
            fine_accuracy=float(record.get("fine_accuracy", 0.0)),
            evaluations=dict(record.get("evaluations") or {}),
            plan_evaluations=record.get("plan_evaluations"),
            correlation_assumed=record.get("correlation_length") == "assumed",
            training_notes=tuple(map(str, record.get("training_notes") or ())),
            denoiser_check=tuple(map(str, record.get("denoiser_check") or ())),
            floor=_floor(record),
        )

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> EstimationRecord:
        """What `dataclasses.asdict` gave, from a file."""
        notes, checked = tuple(record["training_notes"]), tuple(record.get("denoiser_check", ()))  # since 0.2.0
        return cls(**{**record, "training_notes": notes, "denoiser_check": checked, "floor": _floor(record)})

    @property
    def model_evaluations(self) -> int:
        """Batch evaluations of the denoiser for the model, all parts together."""
        return sum(self.evaluations.values())


def _floor(record: Mapping[str, Any]) -> NetworkFloor | None:
    found = record.get("floor")  # since 0.2.0
    return None if found is None else NetworkFloor.from_dict(found)
