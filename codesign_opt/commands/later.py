"""Packages that load when something is asked of them: a command that does not need one does not wait for it."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

__all__ = ["put_off"]


def put_off(package: str) -> None:
    """Let `import package` return at once; the package loads when its first attribute is read.

    For a process all of whose modules are ours, as that of the command line where no file of the user's is run: cvxpy
    takes a second to import, a third of what a plan of built-in terms takes as a whole, and the structured solvers ask
    nothing of it. Before it has loaded, modules inside the package cannot be imported (`import package.module`). A
    package that is loaded, or not installed, stays as it is.
    """
    if package in sys.modules:
        return
    spec = find_spec(package)
    if spec is not None:
        stand_in = _Later(package)
        stand_in.__spec__ = spec
        sys.modules[package] = stand_in


class _Later(ModuleType):
    """What stands for a package until then; those who hold it read the package's attributes from it ever after."""

    def __getattr__(self, name: str) -> Any:
        if name == "__path__":  # of an import from inside, which would load a module that the package has loaded again
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        package = import_module(self.__name__)
        vars(self).update(vars(package))
        return getattr(package, name)
