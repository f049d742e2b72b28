"""Run the examples of README.md and write their outputs and figures into place.

python docs/regenerate.py           rewrite README.md and docs/figures
python docs/regenerate.py --check   exit 1 where an output is not what the code prints today
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("MPLBACKEND", "Agg")
ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
_BLOCK = re.compile(
    r"<!-- run: (?P<name>\w+) -->\n```python\n(?P<code>.*?)```\n<!-- output: (?P=name) -->\n(?:```text\n.*?```\n)?",
    re.DOTALL,
)
_FIGURES = {
    "example": ("plan.png", ROOT / "docs" / "figures" / "digits.png"),
    "audit": ("audit.png", ROOT / "docs" / "figures" / "audit.png"),
}


def run(code: str, figure: tuple[str, Path] | None) -> str:
    """What the code prints; a figure it saves is moved into docs/figures."""
    printed = io.StringIO()
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            with contextlib.redirect_stdout(printed):
                exec(compile(code, "README.md", "exec"), {"__name__": "readme"})  # the page's own code
            if figure is not None:
                figure[1].parent.mkdir(exist_ok=True)
                figure[1].write_bytes(Path(figure[0]).read_bytes())
        finally:
            os.chdir(before)
    return printed.getvalue().rstrip() + "\n"


def regenerated(text: str, *, figures: bool) -> str:
    """The page with today's outputs."""

    def replace(match: re.Match[str]) -> str:
        name, code = match["name"], match["code"]
        output = run(code, _FIGURES.get(name) if figures else None)
        return f"<!-- run: {name} -->\n```python\n{code}```\n<!-- output: {name} -->\n```text\n{output}```\n"

    return _BLOCK.sub(replace, text)


def main() -> int:
    """Rewrite the page, or check it."""
    check = "--check" in sys.argv[1:]
    old = README.read_text(encoding="utf-8")
    new = regenerated(old, figures=not check)
    if check:
        return int(old != new)
    README.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
