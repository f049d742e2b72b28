"""Files that are written whole or not at all, and that stay written when the power goes."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock

from .checks import as_path

__all__ = ["locked", "replacing", "write_whole"]


@contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """A binary file that takes the place of `path` when the block ends; where it raises, the old file stays.

    Written beside it under a name of its own, which nobody else has and which is removed on failure. File and folder
    are on the disk when the block has ended. Where `path` is a link, what it points to is replaced.

    Raises:
        OSError: the folder is missing or full, or may not be written to.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with replacing(Path(folder) / "a.txt") as file:
    ...         _ = file.write(b"whole")
    ...     print((Path(folder) / "a.txt").read_text(), len(os.listdir(folder)))
    whole 1
    """
    target = Path(os.path.realpath(as_path(path)))
    scratch = target.with_name(f".{target.name[:200]}.{secrets.token_hex(8)}.part")
    # made here and by nobody else, with the rights that any new file gets
    handle = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, target)
    except BaseException:
        with suppress(OSError):
            scratch.unlink()
        raise
    _sync_folder(target.parent)


def write_whole(path: str | Path, content: str | bytes) -> Path:
    """Write a file whole or not at all; text as UTF-8. Returns the path."""
    with replacing(path) as file:
        file.write(content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content)
    return as_path(path)


@contextmanager
def locked(path: str | Path) -> Iterator[None]:
    """Only one process at a time is inside for a path: what is read and then written again loses nobody's lines.

    By a file `.NAME.lock` beside it, which stays.

    Raises:
        OSError: no file can be made there, for which a lock would be waited for without end.
    """
    target = Path(os.path.realpath(as_path(path)))
    lock = target.with_name(f".{target.name}.lock")
    os.close(os.open(lock, os.O_CREAT | os.O_RDWR, 0o666))
    with FileLock(lock):
        yield


def _sync_folder(folder: Path) -> None:
    """Let the new name last; some systems open no folders, and their files last without."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
