"""Estimators: everything the programs need, measured on a network, a data set and training logs (torch).

Import what is needed from the modules; `codesign_opt.estimate.network` puts all of it together.
"""

from __future__ import annotations

__all__: list[str] = []
