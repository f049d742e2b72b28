"""The joint program as arrays: what the structured solver knows how to solve."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...basics.checks import Array, choice, number

__all__ = ["FORMS", "JointProgram"]

FORMS = ("max", "per_step", "settled", "p4")


@dataclass(frozen=True, eq=False)
class JointProgram:
    """min sum_l (A/T + F) M(kappa/n) + A_r/(window . T + offset) + sum_b (sum_l R_bl n^-q)^2 under linear budgets.

    T = spent + new examples, spent with what counts like it (docs/theory.md section 5.6). Budgets: examples_prices[j] .
    new + steps_prices[j] . n <= budgets[j]. Section 7, P3 (P2 where nothing is trained); L levels, B bands, J budgets.

    Args:
        errors, floors, kappa: (L,) A, F and kappa of the score term, >= 0.
        response: (B, L) R >= 0.
        order: q >= 1.
        examples_prices, steps_prices: (J, L) >= 0.
        budgets: (J,) > 0.
        form: M(x) = max(1, x) for "max", x for "per_step", 1 for "settled", (1 + x^4)^(1/4) for "p4".
        spent: (L,) examples already spent.
        examples_low, examples_high, steps_low, steps_high: (L,) bounds of T and n; +inf is no cap.
        final_error, final_window: the last evaluation's A_r and (L,) window >= 0.
        final_offset: what serves it beside, perhaps negative: window . T + offset > 0 at every design.

    Raises:
        ValueError: a field that is NaN, negative or of another shape, by name.
    """

    errors: Array
    floors: Array
    kappa: Array
    response: Array
    order: int
    examples_prices: Array
    steps_prices: Array
    budgets: Array
    spent: Array | None = None
    examples_low: Array | None = None
    examples_high: Array | None = None
    steps_low: Array | None = None
    steps_high: Array | None = None
    final_error: float = 0.0
    final_window: Array | None = None
    form: str = "max"
    final_offset: float = 0.0

    def __post_init__(self) -> None:
        choice(self.form, "JointProgram.form", FORMS)
        if isinstance(self.order, bool) or self.order < 1 or self.order != int(self.order):
            raise ValueError(f"JointProgram.order is {self.order}; a whole number >= 1 is needed.")
        number(self.final_error, "JointProgram.final_error", nonnegative=True)
        number(self.final_offset, "JointProgram.final_offset")
        size, count = np.size(self.errors), np.size(self.budgets)
        shapes = {
            "errors": (size,), "floors": (size,), "kappa": (size,), "response": (len(self.response), size),
            "examples_prices": (count, size), "steps_prices": (count, size), "budgets": (count,), "spent": (size,),
            "examples_low": (size,), "examples_high": (size,), "steps_low": (size,), "steps_high": (size,),
            "final_window": (size,),
        }  # fmt: skip
        for name, shape in shapes.items():
            value = getattr(self, name)
            if value is not None:
                _check(value, f"JointProgram.{name}", shape, capped=name.endswith("high"))
        if size == 0 or count == 0 or not self.budgets.min() > 0:
            raise ValueError(f"JointProgram.budgets is {self.budgets}; positive budgets over >= 1 level are needed.")

    @property
    def size(self) -> int:
        """Number of levels."""
        return self.errors.size


def _check(value: Array, name: str, shape: tuple[int, ...], *, capped: bool) -> None:
    """One pass where all is well: this runs before every solve of under a millisecond."""
    if not isinstance(value, np.ndarray) or value.shape != shape or value.dtype != np.float64:
        raise ValueError(f"{name} is not a float64 array of shape {shape}.")
    if value.size and not (value.min() >= 0 and (capped or value.max() < np.inf)):
        raise ValueError(f"{name} has an entry that is NaN, negative or infinite; all must be >= 0 and finite.")
