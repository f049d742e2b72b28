"""Tables as pandas DataFrames, where pandas is installed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["data_frame"]


def data_frame(columns: Mapping[str, Any]) -> Any:
    """A pandas DataFrame of columns by name.

    Raises:
        ImportError: pandas is missing; the message has the pip command.
    """
    try:
        import pandas
    except ImportError as error:
        raise ImportError(f"to_frame needs pandas ({error}); pip install pandas") from None
    return pandas.DataFrame(dict(columns))
