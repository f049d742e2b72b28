"""doctor: whether the installation works, and what is lost without the packages that are not there."""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import codesign_opt as co

from .common import command

__all__ = ["declare"]

_NEEDED = {"numpy": "numpy", "scipy": "scipy", "cvxpy": "cvxpy", "clarabel": "clarabel", "filelock": "filelock"}
_OPTIONAL = {
    "matplotlib": ("matplotlib", "figures (plan.plot, pages of --out)", "codesign_opt[plots]"),
    "torch": ("torch", "networks (estimate, testbed), training loops, loaders of data", "codesign_opt[torch]"),
    "diffusers": ("diffusers", "its networks, schedulers and pipelines", "diffusers"),
    "scikit-learn": ("sklearn", "the declared problem digits", "codesign_opt[data]"),
    "scikit-image": ("skimage", "the declared problem photo_patches", "codesign_opt[data]"),
    "pillow": ("PIL", "folders of images", "pillow"),
    "pandas": ("pandas", "to_frame()", "pandas"),
    "joblib": ("joblib", "n_jobs= of frontiers and comparisons", "joblib"),
    "tqdm": ("tqdm", "bars of progress (lines of text instead)", "codesign_opt[progress]"),
}
_HEAVY = {"diffusers"}  # seconds to import: its version is enough
_LOWEST_PYTHON = (3, 11)


class _Finding(NamedTuple):
    """One line of the report: "ok", "absent" (nothing needed), "warning" or "broken" (exit code 1)."""

    state: str
    text: str


def declare(commands: Any) -> None:
    """The command that checks the installation."""
    command(commands, "doctor", _doctor, "check the installation: versions, solvers, a certified plan, devices, cache")


def _doctor(options: argparse.Namespace) -> int:
    broken = 0
    for check in (_python, _needed, _optional, _solvers, _certified, _devices, _threads, _cache):
        try:
            found = list(check())
        except Exception as error:  # whatever a broken installation raises is what is to be told
            found = [_Finding("broken", f"{check.__name__.strip('_')}: {type(error).__name__}: {_line(error)}")]
        for state, text in found:
            print(f"{state:<8}  {text}", flush=True)
            broken += state == "broken"
    print(f"\n{broken} broken: see above" if broken else "\nNothing needed is broken.")
    return 1 if broken else 0


def _python() -> Iterator[_Finding]:
    own = sys.version_info[:2]
    state = "ok" if own >= _LOWEST_PYTHON else "broken"
    wanted = ".".join(map(str, _LOWEST_PYTHON))
    yield _Finding(state, f"codesign_opt {co.__version__}, in {Path(co.__file__).parent}")
    yield _Finding(state, f"python {sys.version.split()[0]} ({wanted} or newer), {sys.executable}")


def _needed() -> Iterator[_Finding]:
    floors = _floors()
    for package, module in _NEEDED.items():
        version, trouble = _imported(package, module)
        floor = floors.get(package)
        if trouble:
            yield _Finding("broken", f"{package}: {trouble}; pip install -U {package}")
        elif floor is not None and _number(version) < _number(floor):
            yield _Finding("broken", f"{package} {version}, {floor} or newer is needed; pip install -U {package}")
        else:
            yield _Finding("ok", f"{package} {version}" + ("" if floor is None else f" ({floor} or newer)"))


def _optional() -> Iterator[_Finding]:
    for package, (module, purpose, install) in _OPTIONAL.items():
        version, trouble = _imported(package, module)
        if not version:
            yield _Finding("absent", f'{package}: without it no {purpose}; pip install "{install}"')
        elif trouble:
            yield _Finding("warning", f"{package} {version} is installed and fails: {trouble}; without it no {purpose}")
        else:
            yield _Finding("ok", f"{package} {version}: {purpose}")


def _imported(package: str, module: str) -> tuple[str, str]:
    """Version, empty where it is not installed, and what goes wrong when it is imported."""
    import importlib.metadata as installed  # which every other command would wait for

    try:
        version = installed.version(package)
    except installed.PackageNotFoundError:
        version = ""
    if not version or package in _HEAVY:
        return version, "" if version else "not installed"
    try:
        import_module(module)
    except Exception as error:  # a library that is missing, a wrong build: anything
        return version, f"{type(error).__name__}: {_line(error)}"
    return version, ""


def _floors() -> dict[str, str]:
    """Least versions, by package, as the installed distribution states them."""
    import importlib.metadata as installed

    try:
        stated = installed.requires("codesign_opt") or []
    except installed.PackageNotFoundError:
        return {}
    found = (re.match(r"([\w.-]+)\s*>=\s*([\d.]+)", line) for line in stated if "extra ==" not in line)
    return {match[1].lower(): match[2] for match in found if match}


def _solvers() -> Iterator[_Finding]:
    installed = import_module("cvxpy").installed_solvers()
    there = "CLARABEL" in installed
    yield _Finding("ok" if there else "broken", f"solvers that cvxpy sees: {', '.join(installed)}")


def _certified() -> Iterator[_Finding]:
    """A plan by the library's own solver, and one that needs Clarabel, both proved by the certificate."""
    model = co.GaussianModel(co.Spectrum.power_law(4, exponent=1.5), sampler=co.Euler())
    few: dict[str, Any] = {"steps": 6, "stopping_sigma": 0.05, "levels": 12, "polish": False}
    own = co.named("half of the steps above 1", lambda design: design.steps[design.sigma > 1].sum() >= 1)
    for name, constraints in (("a plan", ()), ("a plan with a constraint of one's own", (own,))):
        start = time.perf_counter()
        plan = co.codesign(model, constraints=constraints, **few)
        proof = plan.certificate
        took = f"{time.perf_counter() - start:.1f} s"
        said = f"proved optimal by {plan.attempts[-1]['solver']}" if proof.optimal else "not proved"
        yield _Finding("ok" if proof.optimal else "broken", f"{name}: {said}, {took}")


def _devices() -> Iterator[_Finding]:
    torch = _torch()
    if torch is None:
        return
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    names = [f"cuda:{k} {torch.cuda.get_device_name(k)}" for k in range(count)]
    mps = getattr(torch.backends, "mps", None)
    names += ["mps"] if mps is not None and mps.is_available() else []
    yield _Finding("ok", f"devices of torch: {', '.join(['cpu', *names])}")


def _threads() -> Iterator[_Finding]:
    set_by = [f"{name}={os.environ[name]}" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS") if name in os.environ]
    usable: Callable[[int], Any] | None = getattr(os, "sched_getaffinity", None)
    cores = len(usable(0)) if usable is not None else os.cpu_count()
    torch = _torch()
    said = [f"{cores} cores", *([] if torch is None else [f"torch takes {torch.get_num_threads()}"]), *set_by]
    yield _Finding("ok", f"threads: {', '.join(said)}")


def _torch() -> Any:
    try:
        return import_module("torch")
    except Exception:  # told among the packages
        return None


def _cache() -> Iterator[_Finding]:
    """The folder of trained networks: the testbed alone writes there."""
    named = os.environ.get("CODESIGN_OPT_CACHE")
    folder = Path(named) if named else Path.home() / ".cache" / "codesign_opt"
    there = next(place for place in (folder, *folder.parents) if place.exists())
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) if folder.is_dir() else 0
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        yield _Finding(
            "warning",
            f"cache {folder}: {error.strerror}; name another by CODESIGN_OPT_CACHE to train the small networks",
        )
        return
    made = "" if folder.is_dir() else ", made when it is needed"
    yield _Finding("ok", f"cache {folder}: writable, {size / 1e6:,.1f} MB of trained networks{made}")


def _number(version: str) -> tuple[int, ...]:
    """The leading numbers of a version, without trailing zeros: 2.0 and 2.0.0 are one."""
    found = [int(word) for word in re.findall(r"\d+", version.split("+")[0])[:3]]
    while found and found[-1] == 0:
        found.pop()
    return tuple(found)


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:200]
