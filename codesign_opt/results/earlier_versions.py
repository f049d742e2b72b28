"""Plans that earlier versions saved, as today's fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ..ingredients.estimation_record import EstimationRecord

__all__ = ["from_version_1"]


def from_version_1(data: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a file of version 0.1.0, which kept in its provenance what is read back."""
    said = dict(data["provenance"])
    variances, sampler = said.get("band_eigenvalues"), said.get("sampler", {})
    fields_since = {
        "final_score": float(said.pop("final_score", 0.0)),
        "sampler": sampler if isinstance(sampler, Mapping) else {"name": str(sampler)},
        "evaluations_per_step": said.pop("evaluations_per_step", None),
        "bias": said.pop("bias", "exact"),
        "examples_gap": said.pop("settled_gap", None),
        "program_stopping_sigma": said.pop("program_stopping_sigma", None),
        "trace": said.get("trace"),
        "estimation": asdict(EstimationRecord.from_record(said)) if "error" in said else None,
        "price_unit": said.pop("price_unit", ""),
    }
    said.pop("plan_evaluations", None)
    tables = data["tables"] if variances is None else {**data["tables"], "band_variances": variances}
    return {**data, **fields_since, "tables": tables, "provenance": said}
