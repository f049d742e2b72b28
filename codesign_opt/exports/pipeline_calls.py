"""What to write for a pipeline of diffusers: an argument of its call where it hands that on, else its scheduler.

A pipeline that has an argument `sigmas` or `timesteps` need not use it: several replace it, drop it for schedulers
with flow sigmas, or pass a list of their own beside it. The code of its call tells (`_hands_on`).
"""

from __future__ import annotations

import ast
import copy
import importlib
import inspect
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from ..basics.checks import shown
from ..schedulers.scheduler_reading import noise_levels, setting
from .scheduler_trials import call, quiet

__all__ = ["PipelineCall", "pipeline_call"]

_LEVELS = ("timesteps", "sigmas")
_KNOWN = {"num_inference_steps", "device", "timesteps", "sigmas", "mu", None}  # keywords of set_timesteps; None: a dict
_ANY_MU = 0.7
_SETTERS = ("retrieve_timesteps", "set_timesteps")


@dataclass(frozen=True, eq=False)
class PipelineCall:
    """How one class of pipelines of diffusers runs exported levels.

    Attributes:
        pipeline: name of the pipeline's class.
        arguments: keyword arguments of its call.
        holds: whether its scheduler must be that of `DiffusersExport.holding`, since no argument of its call will do.
        reason: why, or which argument is handed on.
        lines: what to write, with `export` for the DiffusersExport and `pipe` for the pipeline.
    """

    pipeline: str
    arguments: Mapping[str, Any]
    holds: bool
    reason: str
    lines: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The class, why, and what to write."""
        return {"name": self.pipeline, "holds": self.holds, "reason": self.reason, "lines": list(self.lines)}

    def __str__(self) -> str:
        return "\n".join([f"{self.pipeline} {self.reason}:", *(f"  {line}" for line in self.lines)])


def pipeline_call(
    pipeline: Any, scheduler: Any, arguments: Mapping[str, Any], changed: bool, steps: int
) -> PipelineCall:
    """What to write so that a pipeline with this scheduler runs `arguments` of set_timesteps.

    Args:
        pipeline: the pipeline, its class, or the name of its class in the installed diffusers.
        scheduler: the scheduler that it will hold.
        arguments: of the scheduler's set_timesteps.
        changed: whether its settings were changed for them.
        steps: number of steps.

    Raises:
        ValueError: no pipeline, a name that the installed diffusers does not have, a pipeline without a `scheduler`.
    """
    kind = _class_of(pipeline)
    passed = {name: value for name, value in arguments.items() if name != "mu"}  # a pipeline finds mu by itself
    reason = _refused(kind, set(passed), scheduler) or _shifted(kind, arguments, scheduler)
    if reason:
        lines = "pipe.scheduler = export.holding(pipe.scheduler)", f"pipe(..., num_inference_steps={steps})"
        return PipelineCall(kind.__name__, {"num_inference_steps": steps}, True, reason, lines)
    given = ", ".join(f"{name}=export.arguments[{name!r}]" for name in passed)
    first = ("pipe.scheduler = export.configured(pipe.scheduler)",) if changed else ()
    last = f"pipe(..., {given}, num_inference_steps={steps})"
    said = f"hands {' and '.join(passed)} on to its scheduler"
    return PipelineCall(kind.__name__, {**passed, "num_inference_steps": steps}, False, said, (*first, last))


def _class_of(pipeline: Any) -> Any:
    """The class of a pipeline given as itself, as its class or by its name."""
    kind: Any = pipeline if isinstance(pipeline, type) else type(pipeline)
    if isinstance(pipeline, str):
        found = getattr(importlib.import_module("diffusers"), pipeline, None)
        if not isinstance(found, type):
            raise ValueError(f"export.pipeline is {shown(pipeline)}, which the installed diffusers does not have.")
        kind = found
    if getattr(kind, "_backends", None):  # what diffusers puts in place of a class whose packages are missing
        raise ValueError(
            f"export.pipeline is {kind.__name__}, which needs {', '.join(kind._backends)}: not all are installed here."
        )
    if not callable(getattr(kind, "from_pretrained", None)) or "__call__" not in dir(kind):
        raise ValueError(f"export.pipeline is {kind.__name__}; give a pipeline of diffusers, its class or its name.")
    if "scheduler" not in inspect.signature(kind.__init__).parameters:
        raise ValueError(f"export.pipeline is {kind.__name__}, which has no component `scheduler` to give levels to.")
    return kind


def _refused(kind: Any, names: set[str], scheduler: Any) -> str:
    """Why these arguments do not reach the scheduler through the pipeline's call; empty where they do."""
    taken = set(inspect.signature(kind.__call__).parameters)
    levels = names & set(_LEVELS)
    if not levels:
        return "has no argument for the levels that are set in this scheduler"
    missing = sorted(levels - taken)
    if missing:
        has = [name for name in _LEVELS if name in taken]
        return f"takes no {missing[0]} in its call" + (f" ({has[0]} alone)" if has else "")
    if _code_of(kind) is None:
        return f"takes {sorted(levels)[0]}, but what it does with them cannot be read"
    if setting(scheduler, "use_flow_sigmas", False) and _looks_at_flow_sigmas(kind):
        return "drops its argument sigmas for a scheduler with use_flow_sigmas"
    return next((f"takes {name}, but does not hand them on alone" for name in levels if not _hands_on(kind, name)), "")


def _shifted(kind: type, arguments: Mapping[str, Any], scheduler: Any) -> str:
    """Why the pipeline's own mu stands in the way, by trial on a copy of the scheduler; empty where it does not."""
    code = _code_of(kind)
    if "mu" in arguments or code is None or not code.shifts:
        return ""
    plain, moved = copy.deepcopy(scheduler), copy.deepcopy(scheduler)
    try:
        with quiet():
            call(plain, arguments)
            call(moved, {**arguments, "mu": _ANY_MU})
        same = bool(np.allclose(noise_levels(moved), noise_levels(plain), rtol=1e-6))
    except Exception:  # a name that its set_timesteps does not have, or a refusal of its own
        same = False
    return "" if same else "may give its scheduler a mu, which this one does not take"


@dataclass(frozen=True, eq=False)
class _Code:
    """The statements of a pipeline's call that decide: assignments of one name, conditions and calls."""

    assigned: tuple[tuple[str, ast.Assign], ...]  # not the answer `timesteps, count = retrieve_timesteps(...)`
    conditions: tuple[tuple[str, ast.If], ...]
    setters: tuple[ast.Call, ...]  # calls that set timesteps

    @property
    def shifts(self) -> bool:
        """Whether they may be given a mu: by its name, or in a dict."""
        return any(word.arg in (None, "mu") for setter in self.setters for word in setter.keywords)


@cache
def _code_of(kind: type) -> _Code | None:
    """The code of a pipeline's call; None where there is none to be had: compiled, or typed in."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(kind.__call__))))
    except (OSError, TypeError, SyntaxError):
        return None
    nodes = list(ast.walk(tree))
    assigned = [(target.id, node) for node in nodes if isinstance(node, ast.Assign)
                for target in node.targets if isinstance(target, ast.Name)]  # fmt: skip
    conditions = [(ast.unparse(node.test), node) for node in nodes if isinstance(node, ast.If)]
    setters = [node for node in nodes if isinstance(node, ast.Call) and _last_word(node) in _SETTERS]
    return _Code(tuple(assigned), tuple(conditions), tuple(setters))


def _looks_at_flow_sigmas(kind: type) -> bool:
    code = _code_of(kind)
    return code is not None and any("use_flow_sigmas" in said for said, _ in code.conditions)


@cache
def _hands_on(kind: type, name: str) -> bool:
    """Whether every call that sets timesteps is given `name` as the caller gave it, and no other list beside it."""
    code = _code_of(kind)
    named = {word.arg for setter in code.setters for word in setter.keywords} if code is not None else set()
    if code is None or not code.setters or named - _KNOWN:
        return False
    other = next(word for word in _LEVELS if word != name)
    end = max(setter.lineno for setter in code.setters)  # afterwards the name may be used again
    written = [(word, node) for word, node in code.assigned if node.lineno <= end]
    defaults = _defaults(code, name)
    if any(word == name and node not in defaults for word, node in written):
        return False
    beside = any(word == other for word, _ in written)  # the pipeline's own list
    given = [_words(setter) for setter in code.setters]
    return all(name in words and not (beside and other in words) for words in given)


def _defaults(code: _Code, name: str) -> set[ast.AST]:
    """Assignments for callers that gave nothing: under `if name is None`, or `... if name is None else name`.

    Those for schedulers with flow sigmas, which `_refused` looks at, are none either.
    """
    nothing = f"{name} is None"
    blocks = [node for said, node in code.conditions if said == nothing or "use_flow_sigmas" in said]
    found: set[ast.AST] = {line for block in blocks for line in block.body}
    for word, node in code.assigned:
        kept = isinstance(node.value, ast.IfExp) and ast.unparse(node.value.test) == nothing
        if word == name and kept and ast.unparse(node.value).endswith(f" else {name}"):
            found.add(node)
    return found


def _last_word(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def _words(node: ast.Call) -> set[str]:
    """Names among the arguments of a call."""
    values = [*node.args, *(keyword.value for keyword in node.keywords)]
    return {word.id for value in values for word in ast.walk(value) if isinstance(word, ast.Name)}
