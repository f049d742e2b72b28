"""What training leaves in the score and how that reaches the samples; and noise levels for a training loop.

>>> import codesign_opt as co
>>> co.training.SigmaSampler(co.LogNormal(-1.2, 1.2), seed=0)
SigmaSampler(LogNormal(mean=-1.2, std=1.2), seed=0, rank 0 of 1, 0 batches drawn)
"""

from ..basics.lazy import attach
from . import constant_step, measured, optimiser_runs, optimisers  # noqa: F401  they enter their names

__getattr__, __dir__, __all__ = attach(__name__, __file__)  # the names are in __init__.pyi
