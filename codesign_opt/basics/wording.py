"""Numbers as people read them: thousands separators, three or four significant digits."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["aligned", "percent", "printable", "quantity", "signed"]


def quantity(value: float | None, digits: int = 4) -> str:
    """A number in `digits` significant digits, whole from a thousand on; empty for None.

    >>> [quantity(v) for v in (1234567.8, 0.0021234, 2.7634e-5, 18.0, 0, None)]
    ['1,234,568', '0.002123', '2.763e-05', '18', '0', '']
    """
    if value is None:
        return ""
    number = float(value)
    if number == 0 or not math.isfinite(number):
        return "0" if number == 0 else str(number)
    size = abs(number)
    if size < 1e-3 or size >= 1e9:
        return f"{number:.{digits - 1}e}"
    return f"{number:,.0f}" if size >= 999.5 else f"{number:.{digits}g}"


def signed(value: float, unit: str = "", *, hundred: bool = False) -> str:
    """A change, with its sign; `hundred` turns a fraction into per cent.

    >>> signed(-1.2346e-9), signed(0.0042, "%", hundred=True)
    ('-1.235e-09', '+0.42 %')
    """
    number = float(value) * (100.0 if hundred else 1.0)
    text = quantity(number, 3 if unit else 4)
    text = text if number <= 0 or not math.isfinite(number) else f"+{text}"
    return f"{text} {unit}" if unit else text


def percent(fraction: float) -> str:
    """A fraction in per cent, three significant digits.

    >>> percent(0.99987), percent(0.0123), percent(1e-7), percent(1.0), percent(0.0)
    ('>99.9 %', '1.23 %', '<0.001 %', '100 %', '0 %')
    """
    value = 100.0 * float(fraction)
    if 0 < abs(value) < 1e-3:
        return "<0.001 %"
    if 99.95 <= value < 100:
        return ">99.9 %" if value < 100 - 1e-9 else "100 %"
    return f"{value:.3g} %" if abs(value) < 999.5 else f"{value:,.0f} %"


def printable(line: str) -> str:
    r"""A line with characters that steer a terminal or turn the direction of writing shown by their codes.

    >>> print(printable("a name\x1b[2J, and\u202e another"))
    a name\x1b[2J, and\u202e another
    """
    return line if line.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


def aligned(
    title: Sequence[str], rows: Sequence[Sequence[str]], left: tuple[int, ...] = (0, 1), indent: str = "  "
) -> list[str]:
    """Aligned lines: a title line, then indented rows; columns in `left` to the left, the others right."""
    cells = [list(title)] + [[indent + row[0], *row[1 : len(title)]] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(title))]
    pads = [f"<{width}" if i in left else f">{width}" for i, width in enumerate(widths)]
    return ["  ".join(format(c, pad) for c, pad in zip(row, pads, strict=True)).rstrip() for row in cells]
