"""Declared problems: data, prices and budgets ready to solve, one per file, with reference values.

A problem file holds TITLE, PROVENANCE, REFERENCE and build(), and imports `codesign_opt as co` alone; every file of
this folder is listed, except those whose names begin with an underscore. A family of problems states the argument of
build() that tells its members apart, `VARIANTS = {"dimension": (64, 256, 1024)}`, and its TITLE may name it.

>>> import codesign_opt as co
>>> co.problems.load("power_law_64")
DeclaredProblem('power_law_64': Power-law spectrum, exponent 1.5, 64 dimensions)
"""

from codesign_opt.basics.optional import needs
from codesign_opt.declared.library import load, names, reference, title
from codesign_opt.declared.problem import DeclaredProblem

__all__ = ["DeclaredProblem", "load", "names", "needs", "reference", "title"]
