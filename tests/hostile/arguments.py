"""Arguments that nobody should pass, by the kind of parameter that they are passed for; every one from a seed."""

from __future__ import annotations

import decimal
import fractions
import itertools
import pathlib
from collections.abc import Callable
from typing import Any

import cvxpy as cp
import numpy as np
import scipy.sparse
import torch

NAN, INF = float("nan"), float("inf")
Maker = Callable[[], Any]


def fails(*given: Any, **named: Any) -> Any:
    raise LookupError("the user's own mistake")


def in_place(s: Any, *more: Any) -> Any:
    s *= 0.0
    s += 3.0
    return s


def two(a: Any, b: Any) -> Any:
    return a


class Unprintable:
    """An object whose own methods fail."""

    def __repr__(self) -> str:
        raise LookupError("no name")

    def __float__(self) -> float:
        raise LookupError("no number")

    def __len__(self) -> int:
        raise LookupError("no length")

    def __iter__(self) -> Any:
        raise LookupError("no entries")


ANYTHING: list[Maker] = [
    lambda: None,
    lambda: "many",
    lambda: b"bytes",
    lambda: True,
    lambda: 1j,
    lambda: 3,
    lambda: 0.5,
    lambda: object(),
    dict,
    lambda: {"a": 1},
    lambda: set(),
    list,
    lambda: (),
    lambda: [None],
    lambda: float,
    lambda: len,
    lambda: np.ma.masked,
    lambda: cp.Parameter(),
    lambda: cp.Variable(),
    lambda: cp.Parameter(3),
    lambda: iter([1.0, 2.0]),
    lambda: itertools.count(1),
    lambda: "x" * 1_000_000,
    lambda: Ellipsis,
    lambda: slice(3),
    lambda: Unprintable(),
    lambda: Unprintable,
    lambda: torch.empty(3, device="meta"),
]
NUMBERS: list[Maker] = [
    lambda: NAN,
    lambda: INF,
    lambda: -INF,
    lambda: -1,
    lambda: 0,
    lambda: -0.0,
    lambda: 1,
    lambda: 0.5,
    lambda: 1e-320,
    lambda: 1e-12,
    lambda: 1e12,
    lambda: 1e308,
    lambda: 10**400,
    lambda: -(10**400),
    lambda: 10**9,
    lambda: 10**18,
    lambda: np.float32(0.1),
    lambda: np.float64("nan"),
    lambda: np.int8(3),
    lambda: np.bool_(True),
    lambda: np.datetime64("2026-01-01"),
    lambda: np.timedelta64(3, "s"),
    lambda: np.array(1.0),
    lambda: np.array([1.0]),
    lambda: np.array(1 + 1j),
    lambda: [[1.0], [1.0, 2.0]],
    lambda: fractions.Fraction(1, 3),
    lambda: decimal.Decimal("NaN"),
    lambda: decimal.Decimal("sNaN"),
    lambda: torch.tensor(1.0, requires_grad=True),
    lambda: torch.tensor(1.0, dtype=torch.bfloat16),
    lambda: torch.tensor([1.0, 2.0]),
    lambda: torch.tensor(1.0, device="meta"),
    lambda: torch.tensor(True),
]
ARRAYS: list[Maker] = [
    lambda: [[1.0], [1.0, 2.0]],
    lambda: [1.0, NAN, 2.0],
    lambda: [1.0, INF, 2.0],
    lambda: [0.0],
    lambda: [1.0],
    lambda: [0.1, 0.2],
    lambda: [0.0, 0.0, 0.0],
    lambda: [-1.0, 1.0, 2.0],
    lambda: [1.0, 1.0, 1.0],
    lambda: [3.0, 1.0, 2.0],
    lambda: [0.1, 1.0, 10.0, 1e308],
    lambda: [1e-320, 1.0, 2.0],
    lambda: [10**400, 1],
    lambda: ["a", "b", "c"],
    lambda: [1.0, "b", None],
    lambda: [True, False, True],
    lambda: [1j, 2.0, 3.0],
    lambda: [[0.1, 1.0, 10.0]],
    lambda: np.ones((2, 3, 4)),
    lambda: np.eye(3),
    lambda: np.zeros((0, 4)),
    lambda: np.zeros((3, 0)),
    lambda: np.array([object(), object()]),
    lambda: np.array([1.0, None, 3.0]),
    lambda: np.array(["2026-01-01"], dtype="datetime64[D]"),
    lambda: np.zeros(3, dtype=[("a", float), ("b", int)]),
    lambda: np.ma.masked_greater([1.0, 2.0, 1e9], 1e8),
    lambda: np.linspace(0.1, 1.0, 3, dtype=np.float16),
    lambda: np.linspace(1.0, 0.1, 5)[::-1],
    lambda: np.full(3, 1e200),
    lambda: np.full(3, 1e-200),
    lambda: memoryview(b"abc"),
    lambda: scipy.sparse.eye(3),
    lambda: torch.linspace(0.1, 1.0, 3, requires_grad=True),
    lambda: torch.linspace(0.1, 1.0, 3, dtype=torch.bfloat16),
    lambda: torch.linspace(0.1, 1.0, 3).to_sparse(),
    lambda: torch.ones(3, dtype=torch.complex64),
    lambda: torch.ones(3, device="meta"),
    lambda: torch.full((4, 4), NAN),
    lambda: [torch.ones(2), torch.ones(3)],
    lambda: {"a": [1.0]},
    lambda: itertools.repeat(1.0),
    lambda: (x for x in (3.0, 2.0, 1.0)),
    lambda: range(3),
    lambda: range(10**12),
    lambda: lambda s: s,
]
FUNCTIONS: list[Maker] = [
    lambda: fails,
    lambda: in_place,
    lambda: two,
    lambda: lambda s: None,
    lambda: lambda s: "text",
    lambda: lambda s: s[:1],
    lambda: lambda s: np.ones((3, 3)),
    lambda: lambda s: s + 1j,
    lambda: lambda s: s * NAN,
    lambda: lambda s: -s,
    lambda: lambda s: 0.0 * s,
    lambda: lambda s: s > 0,
    lambda: lambda s: 10**400,
    lambda: lambda s: np.ma.masked_greater(np.asarray(s), 0.0),
    lambda: lambda s: torch.as_tensor(s).requires_grad_(),
    lambda: lambda: 1.0,
    lambda: lambda *a, **k: a,
    lambda: print,
    lambda: torch.nn.Linear(4, 4),
    lambda: torch.nn.Linear(3, 2),
]
WORDS: list[Maker] = [
    lambda: "",
    lambda: "unknown",
    lambda: "\0",
    lambda: "\x1b[2J",
    lambda: "é" * 5,
    lambda: "\ud800",
    lambda: "auto",
    lambda: ["denoise"],
    lambda: np.str_("denoise"),
    lambda: np.array("denoise"),
]
PATHS: list[Maker] = [
    lambda: "",
    lambda: "\0",
    lambda: "/nowhere/at/all",
    lambda: "x" * 5000,
    lambda: pathlib.Path("/proc/self/mem"),
    lambda: "/dev/null/a",
    lambda: "\ud800",
    lambda: ["a"],
    lambda: 10**6,
]
DEVICES: list[Maker] = [lambda: "cuda", lambda: "nowhere", lambda: "cuda:99", lambda: torch.device("meta"), lambda: 99]
EXPRESSIONS: list[Maker] = [
    lambda: cp.Parameter(nonneg=True),
    lambda: cp.Parameter(3, nonneg=True),
    lambda: cp.Variable(3) <= 1,
    lambda: cp.Constant(NAN),
    lambda: cp.Parameter(value=1.0),
    lambda: cp.Variable(boolean=True),
]


def pools(name: str, annotation: str) -> list[list[Maker]]:
    """Kinds of hostile values for a parameter, from what its annotation and its name ask for."""
    found = [ANYTHING]
    if any(word in annotation for word in ("float", "int", "Any", "Amount", "Price", "LogWidth", "Numeric", "_Curve")):
        found.append(NUMBERS)
    if any(word in annotation for word in ("Array", "Any", "Sequence", "Iterable", "Amount", "Price", "Tensor",
                                           "tuple", "Mapping", "Numeric", "dict")):  # fmt: skip
        found.append(ARRAYS)
    if any(word in annotation for word in ("Callable", "Any", "Price", "LogWidth", "_Curve", "Amount", "Progress",
                                           "Weight", "Network", "Density")):  # fmt: skip
        found.append(FUNCTIONS)
    if "str" in annotation or name in ("target", "method", "kind"):
        found.append(WORDS)
    if "Path" in annotation or name in ("source", "log", "path", "folder"):
        found.append(PATHS)
    if name == "device":
        found.append(DEVICES)
    if any(word in annotation for word in ("Term", "Any", "Amount", "cp.")):
        found.append(EXPRESSIONS)
    return found


def hostile(rng: np.random.Generator, name: str, annotation: str, others: list[Any]) -> Any:
    """One hostile value: mostly of the kind asked for, sometimes anything, sometimes a value for another parameter."""
    if rng.random() < 0.08:
        return others[int(rng.integers(len(others)))]
    kinds = pools(name, annotation)
    kind = kinds[int(rng.integers(len(kinds)))] if len(kinds) == 1 or rng.random() < 0.25 else kinds[
        int(rng.integers(1, len(kinds)))
    ]  # fmt: skip
    return kind[int(rng.integers(len(kind)))]()
