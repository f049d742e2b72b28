"""Estimators: everything the programs need, measured on a network, a data set and training logs (torch).

`network` puts all of it together; the parts are here under their own names. Loading this package
loads torch only when a name is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "adapters": ["from_diffusers", "from_edm", "from_prediction", "guided"],
    "checkpoint_curve": ["checkpoint_errors", "error_left"],
    "degradation": ["LinearDegradation", "contraction_bound", "linear_degradation", "steady_bound"],
    "denoiser": ["Denoiser", "DenoiserError"],
    "error_coupling": ["ErrorGram", "error_gram"],
    "grid_descent": ["descend_grid"],
    "grid_error": ["measured_error"],
    "grid_test": ["GridTest"],
    "ledger": ["Ledger"],
    "local_error": ["step_responses", "truncation_error"],
    "measured_evidence": ["evidence"],
    "pipeline": ["network"],
    "reference": ["Draws", "Reference"],
    "representation": ["feature_collapse", "gradient_decomposition", "phase_space"],
    "sampling": ["BrownianPath", "run", "trajectory"],
    "score_costs": ["score_cost", "step_costs"],
    "sensitivity": ["difference_of", "sensitivity"],
    "spectra": ["spectrum"],
    "statistics": ["Estimate", "Moments"],
    "step_rule": ["StepRule"],
    "tangent_gram": ["TangentGram", "tangent_gram"],
    "transfer": ["TransferKernel"],
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOME_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
