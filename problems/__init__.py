"""Declared problems: data, prices and budgets ready to solve, one per file, with reference values.

>>> from codesign_opt import problems
>>> problems.load("power_law_64")
DeclaredProblem('power_law_64': Power-law spectrum, exponent 1.5, 64 dimensions)
"""

from codesign_opt.declared.library import DeclaredProblem, load, names, reference, title

__all__ = ["DeclaredProblem", "load", "names", "reference", "title"]
