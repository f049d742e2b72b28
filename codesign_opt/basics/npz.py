"""Arrays from npz files that anybody may have written: no larger than they say, every failure a ValueError."""

from __future__ import annotations

import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.lib.format as npy

from .checks import as_path
from .user_code import named

__all__ = ["read_npz"]

_RATIO, _SMALL = 50, 1 << 26  # what an archive may unpack to: so many times its size, or so many bytes
_DAMAGE = (ValueError, EOFError, KeyError, RuntimeError, TypeError, OverflowError, SyntaxError, struct.error,
           zipfile.BadZipFile, zlib.error, MemoryError)  # fmt: skip


def read_npz(path: str | Path) -> dict[str, Any]:
    """The arrays of an npz file by name.

    Sizes are read from the archive's directory and from the arrays' headers before anything is unpacked.

    Raises:
        ValueError: the file is cut off, damaged, encrypted, holds objects, or unpacks to far more than its size.
        OSError: the file cannot be read.
    """
    source = as_path(path)
    try:
        with source.open("rb") as file, zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            size, whole = source.stat().st_size, sum(member.file_size for member in members)
            if whole > max(_RATIO * size, _SMALL):
                raise ValueError(f"its {size:,} bytes would unpack to {whole:,}")
            return {member.filename.removesuffix(".npy"): _array(archive, member) for member in members}
    except _DAMAGE as error:
        raise ValueError(f"{source} is not a whole npz file ({named(error)}).") from None


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Any:
    with archive.open(member) as file:
        version = npy.read_magic(file)
        reader = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = reader(file)
        content = file.read()  # to the end, where the archive's check sum is compared
    if dtype.hasobject:
        raise ValueError(f"{member.filename} holds objects")
    if len(content) != dtype.itemsize * int(np.prod(shape, dtype=object)):
        raise ValueError(f"{member.filename} has {len(content):,} bytes for shape {shape}")
    values = np.frombuffer(content, dtype=dtype).copy()
    return values.reshape(shape, order="F" if fortran else "C")
