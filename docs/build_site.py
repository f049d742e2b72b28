"""Build the documentation's site: `python docs/build_site.py [OUT]`, without a network; warnings are errors.

The pages of docs/, README.md, the tutorials rendered from their cells, and one page of every public package from its
docstrings. Needs sphinx, myst-parser and latex2mathml: pip install -e '.[docs]'.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
GUIDES = ("for_trainers", "for_samplers", "for_optimizers", "faq")
PAGES = ("networks", "solvers", "training_exports", "replanning", "validation", "uncertainty", "comparison", "language")
INSIDE = ("theory", "architecture")
PACKAGES = ("codesign_opt", "estimate", "peers", "training", "testbed", "exports", "problems")
_SECTIONS = ("Args", "Returns", "Raises", "Attributes", "Yields")


def main(out: Path) -> int:
    """Arrange the pages in a folder of their own and build them into `out`; 1 where sphinx warns."""
    from sphinx.cmd.build import build_main

    with tempfile.TemporaryDirectory() as folder:
        stage = Path(folder)
        arrange(stage)
        return int(build_main(["-W", "--keep-going", "-q", "-b", "html", str(stage), str(out)]))


def arrange(stage: Path) -> None:
    """All pages, where their links to each other hold."""
    shutil.copy(ROOT / "docs" / "site" / "conf.py", stage)
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        (stage / name).write_text(_linked((ROOT / name).read_text(encoding="utf-8")), encoding="utf-8")
    shutil.copytree(ROOT / "docs" / "figures", stage / "docs" / "figures")
    for page in (ROOT / "docs").glob("*.md"):
        (stage / "docs" / page.name).write_text(_linked(page.read_text(encoding="utf-8")), encoding="utf-8")
    (stage / "tutorials").mkdir()
    tutorials = sorted((ROOT / "tutorials").glob("*.py"))
    for path in tutorials:
        text = tutorial(path.read_text(encoding="utf-8"), path.stem)
        (stage / "tutorials" / f"{path.stem}.md").write_text(text, encoding="utf-8")
    (stage / "api").mkdir()
    for package in PACKAGES:
        (stage / "api" / f"{package}.md").write_text(api_page(package), encoding="utf-8")
    parts = {
        "For whom": [f"docs/{name}" for name in GUIDES],
        "Tutorials": [f"tutorials/{path.stem}" for path in tutorials],
        "Pages": [f"docs/{name}" for name in PAGES],
        "Names": [f"api/{name}" for name in PACKAGES],
        "Inside": [*(f"docs/{name}" for name in INSIDE), "CONTRIBUTING", "CHANGELOG"],
    }
    (stage / "index.md").write_text(_index(parts), encoding="utf-8")


def tutorial(page: str, name: str = "") -> str:
    """A file of cells as a page: text as it is, code with its output and the figures that it saves below."""
    parts = re.split(r"^# %%(?P<kind> \[markdown\])?\n", page, flags=re.MULTILINE)
    found = []
    for kind, cell in zip(parts[1::2], parts[2::2], strict=True):
        if kind:
            found.append("\n".join(line.removeprefix("#").removeprefix(" ") for line in cell.strip().splitlines()))
            continue
        for said, lines in _runs(cell.strip("\n").splitlines()):
            text = "\n".join(line[4:] if said else line for line in lines).strip("\n")
            found += [f"```{'text' if said else 'python'}\n{text}\n```"] if text else []
        found += [
            f"![{figure}](../docs/figures/tutorials/{name}-{figure})"
            for figure in re.findall(r'savefig\("([\w.]+\.png)"', cell)
            if (ROOT / "docs" / "figures" / "tutorials" / f"{name}-{figure}").exists()
        ]
    return _linked("\n\n".join(found) + "\n")


def _runs(lines: list[str]) -> list[tuple[bool, list[str]]]:
    """Lines of a cell in runs: code, and what it printed."""
    runs: list[tuple[bool, list[str]]] = []
    for line in lines:
        said = line.startswith("# |")
        if not runs or runs[-1][0] != said:
            runs.append((said, []))
        runs[-1][1].append(line)
    return runs


def api_page(package: str) -> str:
    """Every public name of a package with its signature and its docstring."""
    import codesign_opt as co

    module: Any = co if package == "codesign_opt" else getattr(co, package)
    short = "co" if package == "codesign_opt" else f"co.{package}"
    lines = [f"# {short}", docstring(inspect.getdoc(module) or "")]
    for name in sorted(getattr(module, "__all__", None) or dir(module), key=str.lower):
        value = getattr(module, name, None)
        if not name.startswith("_") and (inspect.isclass(value) or inspect.isfunction(value)):
            lines += [f"## {short}.{name}", _signature(name, value), docstring(inspect.getdoc(value) or "")]
            lines += _methods(value)
    return "\n\n".join(line for line in lines if line) + "\n"


def _methods(value: Any) -> list[str]:
    """Public methods and properties that a class itself or one of the package's bases defines, by their first lines."""
    if not inspect.isclass(value) or issubclass(value, BaseException):
        return []
    fields = {field.name for field in dataclasses.fields(value)} if dataclasses.is_dataclass(value) else set()
    rows = []
    for name, member in inspect.getmembers(value):
        if name.startswith("_") or name in fields or not (callable(member) or isinstance(member, property)):
            continue
        said = (inspect.getdoc(member) or "").strip().split("\n\n")[0].replace("\n", " ")
        if said and not isinstance(member, type):
            rows.append(f"* `{name}{'' if isinstance(member, property) else '()'}`: {_plain(said)}")
    return ["\n".join(rows)] if rows else []


def _signature(name: str, value: Any) -> str:
    try:
        text = str(inspect.signature(value))
    except (TypeError, ValueError):
        return ""
    text = re.sub(r"(: |-> )'([^']+)'", r"\1\2", text).replace("<factory>", "...")
    return f"```python\n{name}{_broken(text)}\n```"


def _broken(text: str) -> str:
    """A signature of many parameters, each on its line; commas inside brackets break none."""
    if len(text) < 90:
        return text
    depth, lines = 0, [""]
    for c in text:
        depth += (c in "([{") - (c in ")]}")
        closes = c == ")" and depth == 0 and len(lines) > 1
        lines += [""] if closes else []
        lines[-1] += c
        if (c == "(" and depth == 1 and len(lines) == 1) or (c == "," and depth == 1):
            lines.append("")
    return "\n".join([lines[0], *(f"    {line.strip()}" for line in lines[1:-1]), lines[-1].strip()])


def docstring(text: str) -> str:
    """A docstring as a page shows it: paragraphs, named sections as lists, formulas and examples as they stand."""
    found = []
    for block in re.split(r"\n\s*\n", text):
        head, _, rest = block.partition("\n")
        title = head.strip().rstrip(":")
        if block.lstrip().startswith(">>>"):
            found.append(f"```pycon\n{inspect.cleandoc(block)}\n```")
        elif title in _SECTIONS and head.endswith(":") and rest:
            found.append(f"**{title}**\n\n{_items(inspect.cleandoc(rest))}")
        elif block.startswith((" ", "\t")):
            found.append(f"```text\n{inspect.cleandoc(block)}\n```")
        else:
            found.append(_plain(block))
    return "\n\n".join(found)


def _items(text: str) -> str:
    """`name: text` with indented lines after it, as a list."""
    joined = re.sub(r"\n\s+", " ", text)
    items = (re.match(r"([\w., *`]+?): (.*)", line) for line in joined.splitlines())
    lines = joined.splitlines()
    return "\n".join(
        f"* {_plain(line)}" if match is None else f"* `{match[1].replace('`', '')}`: {_plain(match[2])}"
        for line, match in zip(lines, items, strict=True)
    )


def _plain(text: str) -> str:
    """Text whose stars, brackets, dollars and the like are themselves; what stands in backticks stays."""
    parts = re.split(r"(`[^`\n]*`)", text)
    return "".join(part if k % 2 else re.sub(r"([\\*_<>\[\]$|{}#~^])", r"\\\1", part) for k, part in enumerate(parts))


def _linked(page: str) -> str:
    """Links to tutorials lead to their rendered pages."""
    return re.sub(r"(tutorials/\w+)\.py\)", r"\1.md)", page)


def _index(parts: dict[str, list[str]]) -> str:
    trees = [
        f"```{{toctree}}\n:caption: {caption}\n:maxdepth: 1\n\n" + "\n".join(pages) + "\n```"
        for caption, pages in {"Start": ["README"], **parts}.items()
    ]
    return "# codesign_opt\n\n" + "\n\n".join(trees) + "\n"


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "site"))
