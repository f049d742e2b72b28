"""Fashion-MNIST from Debian's package dataset-fashion-mnist: 28 x 28 grey images of clothes in ten classes."""

from __future__ import annotations

import gzip
import os
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...basics.checks import as_path, choice

__all__ = ["fashion_mnist"]

INSTALL = "apt-get install dataset-fashion-mnist"
_DEFAULT = "/usr/share/datasets/fashion-mnist"
_VARIABLE = "CODESIGN_OPT_DATA"
_PREFIX = {"train": "train", "test": "t10k"}
_UNSIGNED_BYTES = 0x08


def fashion_mnist(
    split: str = "train", *, folder: str | os.PathLike[str] | None = None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Images, linearly from bytes to [-1, 1], and their labels.

    Source: Xiao, Rasul and Vollgraf, arXiv:1708.07747, MIT licence; four files in the IDX format.

    Args:
        split: "train" (60,000 images) or "test" (10,000).
        folder: where the four *-ubyte.gz files lie; unless given, the environment variable
            CODESIGN_OPT_DATA, else Debian's /usr/share/datasets/fashion-mnist.

    Returns:
        (N, 1, 28, 28) float32 images and (N,) int64 labels from 0 to 9.

    Raises:
        ValueError: an unknown split, or a file that is truncated or malformed (named).
        FileNotFoundError: a file is absent; the message has the install command.
    """
    prefix = _PREFIX[choice(split, "split", _PREFIX)]
    home = as_path(folder if folder is not None else os.environ.get(_VARIABLE) or _DEFAULT, "folder")
    image_file, label_file = home / f"{prefix}-images-idx3-ubyte.gz", home / f"{prefix}-labels-idx1-ubyte.gz"
    images, labels = _idx(image_file, 3), _idx(label_file, 1)
    if images.shape[1:] != (28, 28):
        raise ValueError(f"{image_file} holds images of {images.shape[1:]} pixels; (28, 28) are needed.")
    if len(images) != len(labels):
        raise ValueError(f"{label_file} holds {len(labels)} labels for the {len(images)} images of {image_file.name}.")
    return (images[:, None].astype(np.float32) / 127.5 - 1.0), labels.astype(np.int64)


def _idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """The array of an IDX file: two zero bytes, type, number of dimensions, sizes (big-endian), bytes."""
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is absent; install Fashion-MNIST with `{INSTALL}`, or give the folder of its files by folder= or "
            f"the environment variable {_VARIABLE}."
        )
    try:
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is truncated or no gzip file ({error}); reinstall with `{INSTALL}`.") from None
    header = 4 + 4 * dimensions
    if len(content) < header or content[:4] != bytes([0, 0, _UNSIGNED_BYTES, dimensions]):
        raise ValueError(
            f"{path} is truncated or no IDX file of bytes in {dimensions} dimensions; reinstall with `{INSTALL}`."
        )
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", dimensions, 4))
    needed = int(np.prod(shape, dtype=np.int64))
    if len(content) - header != needed:
        raise ValueError(
            f"{path} holds {len(content) - header:,} bytes after its header, which promises {needed:,}; reinstall with "
            f"`{INSTALL}`."
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)
