"""Estimators: everything the programs need, measured on a network, a data set and training logs (torch).

`network` puts all of it together; the parts are here under their own names. Loading this package
loads torch only when a name is used.
"""

from ..basics.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)  # the names are in __init__.pyi
