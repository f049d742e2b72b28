"""Pipelines of the installed diffusers, loaded without the packages of their text encoders."""

import importlib
import importlib.util
import inspect
import re
import sys
import types
from pathlib import Path

import torch

from tests.helpers.schedulers import diffusers

FOLDER = Path(diffusers.__file__).parent / "pipelines"


class Anything(types.ModuleType):
    """A package that is not installed: every name in it is an empty class."""

    __path__ = ()
    __version__ = "5.0.0"

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        setattr(self, name, type(name, (), {}))
        return getattr(self, name)


def load_all(patch):
    """Every class of pipelines that can be loaded, by name; `patch` is a pytest.MonkeyPatch."""
    _without_transformers(patch)
    found = {}
    for path in sorted(FOLDER.rglob("pipeline_*.py")):
        if "deprecated" not in path.parts:
            found |= _classes(path, patch)
    return found


def load(path, name, patch):
    """One class of a file, by the file's path in the package."""
    _without_transformers(patch)
    return getattr(loaded(f"diffusers.{path.replace('/', '.')}", patch), name)


def _without_transformers(patch):
    if "transformers" not in sys.modules and importlib.util.find_spec("transformers") is None:
        patch.setitem(sys.modules, "transformers", Anything("transformers"))


def _classes(path, patch):
    name = ".".join(("diffusers.pipelines", *path.relative_to(FOLDER).with_suffix("").parts))
    module = loaded(name, patch)
    if module is None:
        return {}
    kinds = [k for k in vars(module).values() if inspect.isclass(k) and k.__module__ == name]
    return {k.__name__: k for k in kinds if issubclass(k, diffusers.DiffusionPipeline) and "__call__" in dir(k)}


def loaded(name, patch):
    """A module of diffusers, with empty classes for what it wants of packages that are not there; None if it can't."""
    for _ in range(30):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if not (error.name or "").startswith("transformers."):
                return None
            patch.setitem(sys.modules, error.name, Anything(error.name))
        except ImportError as error:
            absent = re.search(r"cannot import name '(\w+)' from '(diffusers\.[\w.]+)'", str(error))
            if absent is None:
                return None
            patch.setattr(sys.modules[absent[2]], absent[1], type(absent[1], (), {}), raising=False)
        except Exception:  # looks into a package that is not there
            return None
    return None


class Watched:
    """What a pipeline's loop does: the times that its network is told, its answers, and the states after every step."""

    def __init__(self, network):
        self.times, self.answers, self.states = [], [], []
        network.register_forward_hook(self._called, with_kwargs=True)

    def _called(self, network, given, named, answer):
        self.times.append(float(named["timestep"].double().flatten()[0]))
        self.answers.append((answer[0] if isinstance(answer, tuple) else answer.sample).double())

    def stepped(self, pipe, i, t, kept):
        self.states.append(kept["latents"].double().clone())
        return {}

    def lengths(self):
        """The length of every step from the second on: (x after - x before) / answer."""
        moved = [after - before for before, after in zip(self.states, self.states[1:], strict=False)]
        return [float((m * v).sum() / (v * v).sum()) for m, v in zip(moved, self.answers[1:], strict=True)]


def seeded(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))
