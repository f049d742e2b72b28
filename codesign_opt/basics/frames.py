"""Tables as pandas DataFrames, where pandas is installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["data_frame"]


def data_frame(records: Sequence[Mapping[str, Any]] | Mapping[str, Any]) -> Any:
    """A pandas DataFrame of one mapping per row, or of columns by name.

    Raises:
        ImportError: pandas is missing; the message has the pip command.
    """
    try:
        import pandas
    except ImportError as error:
        raise ImportError(f"to_frame needs pandas ({error}); pip install pandas") from None
    return pandas.DataFrame(dict(records) if isinstance(records, Mapping) else list(records))
