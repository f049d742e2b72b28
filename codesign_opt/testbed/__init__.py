"""Worlds to try plans on: small data sets, networks trained here, and denoisers known in closed form (torch).

The reader `testbed.fashion_mnist` needs numpy alone; `python -m codesign_opt.testbed NAME`
trains a network.
"""

from ..basics.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)  # the names are in __init__.pyi
