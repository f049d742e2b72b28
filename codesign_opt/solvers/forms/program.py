"""The program with quadratic forms as arrays: what the interior-point method knows how to solve."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ...basics.checks import Array, Mask
from ..joint.program import JointProgram

__all__ = ["FormProgram", "FormSolution"]


@dataclass(frozen=True, eq=False)
class FormProgram:
    """The joint program with forms: score + sum_jk S_jk (T_j T_k)^(-1/2) + sum_jk H_jk (n_j n_k)^(-q) + |R u|^2.

    score = sum_l (A/(m0 + T) + F) M(kappa/n) + A_r/(m0_r + window . T), u >= n^(-q), T = spent + new examples, under
    the linear budgets and the level bounds of `joint` (docs/theory.md sections 3.3, 6.3 and 7.4).

    Args:
        joint: the score error, budgets and bounds; its own `response` is not read.
        examples_form: (L, L) S >= 0 entrywise, symmetric; None: none.
        steps_form: (L, L) H >= 0 entrywise, symmetric; None: none.
        signed_rows: (B, L) R of any sign; None: none. Then steps are relaxed to n >= u^(-1/q).
        pooling: (L, L) K >= 0, where K T examples serve the levels of the score error in the place of T; None: T.
        prior, final_prior: (L,) m0 and m0_r (docs/theory.md section 5.6); None: 0.
    """

    joint: JointProgram
    examples_form: Array | None = None
    steps_form: Array | None = None
    signed_rows: Array | None = None
    pooling: Array | None = None
    prior: Array | None = None
    final_prior: float = 0.0

    @property
    def size(self) -> int:
        """Number of levels."""
        return self.joint.size

    @cached_property
    def resolved(self) -> Mask:
        """(L,) levels whose score error depends on the steps."""
        joint = self.joint
        return ((joint.errors > 0) | (joint.floors > 0)) & (joint.kappa > 0) & (joint.form != "settled")

    @cached_property
    def needs_examples(self) -> Mask:
        """(L,) levels where examples lower the error."""
        needs = self.joint.errors > 0
        if self.pooling is not None:
            needs = self.pooling.T @ self.joint.errors > 0
        if self.examples_form is not None:
            needs = needs | np.any(self.examples_form > 0, axis=0)
        if self.joint.final_window is not None and self.joint.final_error > 0:
            needs = needs | (self.joint.final_window > 0)
        return needs

    @cached_property
    def needs_steps(self) -> Mask:
        """(L,) levels where steps lower the error."""
        needs = self.resolved.copy()
        for rows in (self.steps_form, self.signed_rows):
            if rows is not None:
                needs |= np.any(rows != 0, axis=0)
        return needs


@dataclass(frozen=True, eq=False)
class FormSolution:
    """A candidate and its multipliers; nothing is proved here.

    Attributes:
        examples, steps: (L,) all examples T, spent ones included, and steps n.
        budget_multipliers: (J,).
        examples_gradient, steps_gradient: (L,) derivatives of the Lagrangian, the level bounds left out.
        method: what found it.
    """

    examples: Array
    steps: Array
    budget_multipliers: Array
    examples_gradient: Array
    steps_gradient: Array
    method: str = "interior point"
