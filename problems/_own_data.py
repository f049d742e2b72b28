"""One's own data as a planning question: an array (.npy), a table (.csv), or a folder of images or arrays."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import codesign_opt as co

from ._gaussian import gaussian_problem

__all__ = ["build"]

_IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
_PLAIN_MODES = ("L", "RGB", "I;16", "F")
_EXACT = 3_000  # dimensions or examples up to which a covariance is worked out whole, in seconds


def build(path: Path, *, budget: float = 1e6, images: float = 10_000) -> co.problems.DeclaredProblem:
    """Plan everything for the covariance of data in a file or folder.

    Bytes are read as networks see them, x / 127.5 - 1, and so are images of 16 bits; other numbers as they are. The
    range of noise levels is EDM's for data of standard deviation 0.5, in proportion where they spread otherwise.

    Raises:
        FileNotFoundError: no such file or folder, or a folder without images and arrays.
        ValueError: a file that is no array of examples, or images of several sizes, by name.
        ImportError: Pillow is missing and the folder holds images.
    """
    raw = _read(path)
    if raw.ndim < 2 or raw.shape[0] < 2:
        raise ValueError(
            f"{path} holds an array of shape {raw.shape}; (examples, …) with 2 examples or more is needed."
        )
    data, scaled = _as_seen(raw)
    shape = " x ".join(map(str, data.shape[1:]))
    spectrum = _spectrum(data)
    said = f"{data.shape[0]:,} examples of {shape} numbers in {path}, {scaled}"
    found = gaussian_problem(path.stem, f"Your data, {path.name}", said, spectrum, budget=budget, images=images)
    spread = spectrum.sigma_data
    process = co.EDM(sigma_min=min(0.002, 0.004 * spread), sigma_max=max(80.0, 160.0 * spread))
    return replace(found, model=found.model.with_process(process))


def _spectrum(data: Any) -> co.Spectrum:
    """Exact where its matrix is small; else by the estimators, which need torch."""
    if min(data.shape[0], int(np.prod(data.shape[1:]))) <= _EXACT:
        return co.Spectrum.from_samples(data)
    return co.estimate.spectrum(data.reshape(data.shape[0], -1)).spectrum


def _read(path: Path) -> Any:
    """The array in a file, or of all files in a folder on top of each other."""
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; give an array (.npy), a table (.csv) or a folder of images.")
    try:
        if path.suffix.lower() == ".npy":
            return np.load(path, mmap_mode="r", allow_pickle=False)
        with path.open(encoding="utf-8") as file:
            return np.loadtxt(path, delimiter=",", skiprows=0 if _numeric(file.readline()) else 1, ndmin=2)
    except (ValueError, EOFError, UnicodeDecodeError) as error:
        said = str(error).splitlines()[0]
        raise ValueError(
            f"{path}: {said}; rows of numbers between commas, or an array of numbers, is needed."
        ) from None


def _numeric(line: str) -> bool:
    """Whether a line of a table is numbers; a first line of names is left out."""
    try:
        return bool([float(word) for word in line.split(",")])
    except ValueError:
        return False


def _read_folder(folder: Path) -> Any:
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in _IMAGES)
    if files:
        return _stacked(files, (_image(file) for file in files))
    files = sorted(folder.rglob("*.npy"))
    if files:
        return _stacked(files, (_read(file) for file in files))
    raise FileNotFoundError(f"{folder}: no images ({', '.join(_IMAGES)}) and no .npy files in this folder.")


def _stacked(files: list[Path], arrays: Iterable[Any]) -> Any:
    """Arrays of one shape and kind, as one."""
    found: list[Any] = []
    for file, array in zip(files, arrays, strict=True):
        if found and array.shape != found[0].shape:
            raise ValueError(
                f"{file} has shape {array.shape}, {files[0]} {found[0].shape}; crop or resize all to one size first."
            )
        found.append(array)
    return np.stack(found)


def _image(file: Path) -> Any:
    image = co.problems.needs("PIL.Image", "pillow", "a folder of images").open(file)
    with image:
        return np.asarray(image if image.mode in _PLAIN_MODES else image.convert("RGB"))


def _as_seen(raw: Any) -> tuple[Any, str]:
    """The data as networks see them, and in words what was done."""
    if raw.dtype not in (np.uint8, np.uint16):
        return raw, "as they are"
    half = np.iinfo(raw.dtype).max / 2
    return np.asarray(raw, dtype=np.float32) / np.float32(half) - 1, f"scaled to [-1, 1] by x / {half:g} - 1"
