"""Compute-optimal training and sampling schedules of diffusion models, by certified convex optimization.

>>> import codesign_opt as co
>>> co.EDM().sigma_max
80.0
"""

from .basics.lazy import attach

__version__ = "0.2.0.dev0"

__getattr__, __dir__, __all__ = attach(__name__, __file__)  # the names are in __init__.pyi
