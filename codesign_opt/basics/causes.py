"""Names of the causes of error, as breakdowns, curves and tables carry them (docs/theory.md sections 2 to 5).

Plain strings, since they are keys of saved plans: written once here, read everywhere by these names.
"""

from __future__ import annotations

__all__ = [
    "BESIDE_BIAS", "BIAS", "COHERENT_SCORE", "CROSS_TERM", "DISCRETIZATION", "FLOOR", "INFORMATION", "INITIAL",
    "LAST_EVALUATION", "NOT_CAUSES", "POSITIVE_GRAM", "SCORE", "SIGNED_GRAM", "TOGETHER", "TOTAL", "TRUNCATION",
]  # fmt: skip

SCORE = "score"  # too few training examples
FLOOR = "floor"  # training noise that no example removes
LAST_EVALUATION = "last evaluation"  # the denoiser's own error in the final call
TOGETHER = "last with steps"  # twice the product of that error and the steps', which the same examples make, signed
DISCRETIZATION = "discretization"  # finite sampler steps
TRUNCATION = "truncation"  # stopping above zero noise
INITIAL = "initial"  # starting from pure noise
BESIDE_BIAS = "shared with bias"  # twice the product of what steps have not learned yet and the bias, signed
BIAS = "bias"  # of a given grid: steps, stop and start together, exactly

# whole terms of the modelling language with names of their own
COHERENT_SCORE = "score (coherent)"
SIGNED_GRAM = "discretization (signed Gram)"
POSITIVE_GRAM = "discretization (positive Gram)"
INFORMATION = "InformationError"

# entries beside the causes in a prediction: the sum, and a bound of what is left out of it
TOTAL = "total"
CROSS_TERM = "cross term at most"
NOT_CAUSES = (TOTAL, "error", CROSS_TERM)  # "error": the total's name in files of early versions
