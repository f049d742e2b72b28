"""What importing loads, and in which direction the packages depend on each other: every file, every import."""

import ast
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import codesign_opt

ROOT = Path(codesign_opt.__file__).parent

# package: what it may import besides basics and itself (docs/architecture.md shows the same table)
MAY_IMPORT = {
    "basics": "",
    "ingredients": "",
    "solvers": "",
    "samplers": "ingredients",
    "training": "ingredients samplers schedulers",
    "curves": "ingredients",
    "schedulers": "",
    "exports": "ingredients samplers peers schedulers",
    "certificate": "ingredients",
    "models": "ingredients samplers training",
    "results": "ingredients certificate exports solvers samplers",
    "modeling": "ingredients models certificate solvers",
    "programs": "modeling results solvers certificate models ingredients",
    "peers": "ingredients samplers models schedulers",
    "planning": "programs modeling results models solvers certificate training samplers ingredients",
    "estimate": "models modeling curves samplers schedulers ingredients solvers",
    "validation": "models results samplers training ingredients",
    "comparison": "planning peers estimate results models samplers ingredients",
    "replanning": "programs modeling results models training curves peers ingredients",
    "reports": "comparison planning exports results ingredients",
    "declared": "planning programs modeling results ingredients",
    "testbed": "estimate curves schedulers ingredients",
    "commands": "",  # but for the public face
}


def files():
    return [path for path in ROOT.rglob("*.py") if path.parent != ROOT]


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


MODULES = {module_of(path) for path in files()}


@cache
def tree_of(path):
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports_of(path):
    """Modules of the package that a file imports anywhere: in functions and under TYPE_CHECKING too."""
    return tuple(_imports_of(path))


def _imports_of(path):
    package = path.relative_to(ROOT).parts[:-1]
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.ImportFrom):
            words = tuple(node.module.split(".")) if node.module else ()
            if node.level:
                base = package[: len(package) - (node.level - 1)] + words
            elif words[:1] == ("codesign_opt",):
                base = words[1:]
            else:
                continue
            for alias in node.names:
                yield (*base, alias.name) if (*base, alias.name) in MODULES else base
        elif isinstance(node, ast.Import):
            yield from (tuple(a.name.split(".")[1:]) for a in node.names if a.name.split(".")[0] == "codesign_opt")


def test_packages_import_only_what_the_table_allows():
    wrong = []
    for path in files():
        own = path.relative_to(ROOT).parts[0]
        allowed = {own, "basics", *MAY_IMPORT[own].split()}
        wrong += [
            f"{path.relative_to(ROOT)} imports {'.'.join(m)}" for m in imports_of(path) if m[:1] and m[0] not in allowed
        ]
        wrong += [
            f"{path.relative_to(ROOT)} imports the face of the package"
            for m in imports_of(path)
            if not m and own != "commands"
        ]
    assert not wrong, "\n".join(sorted(set(wrong)))


def test_no_two_files_import_each_other_not_even_by_a_detour():
    arrows = {module_of(path): {m for m in imports_of(path) if m in MODULES} - {module_of(path)} for path in files()}
    done, path = set(), []

    def visit(module):
        if module in path:
            circle = [*path[path.index(module) :], module]
            raise AssertionError("circle: " + " -> ".join(".".join(m) for m in circle))
        if module in done:
            return
        path.append(module)
        for other in arrows[module]:
            visit(other)
        done.add(path.pop())

    for module in arrows:
        visit(module)


def test_command_line_declared_problems_and_tutorials_know_the_public_face_alone():
    wrong = []
    top = ROOT.parent
    if not (top / "problems").is_dir():
        return  # an installed package without its repository
    commands = [ROOT / "cli.py", *(ROOT / "commands").glob("*.py")]
    for path in [*commands, *(top / "problems").glob("*.py"), *(top / "tutorials").glob("*.py")]:
        if path.name == "__init__.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "codesign_opt":
                wrong.append(f"{path.name}: from {node.module}")
            elif isinstance(node, ast.Import):
                wrong += [f"{path.name}: {a.name}" for a in node.names if a.name.startswith("codesign_opt.")]
            elif isinstance(node, ast.ImportFrom) and node.level and path in commands:
                among = path.name != "cli.py" or (node.module or "").startswith("commands")
                wrong += [] if among and node.level == 1 else [f"{path.name}: from .{node.module or ''}"]
    assert not wrong, "\n".join(wrong)


def test_what_is_loaded_by_name_when_called_is_the_page_of_a_value_alone():
    for path in files():
        if "later(" not in path.read_text(encoding="utf-8"):
            continue
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "later":
                assert node.args[0].value in {"reports.report", "basics.wording"}, path


def test_every_package_is_shipped():
    settings = tomllib.loads((ROOT.parent / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    found = {".".join(("codesign_opt", *path.parent.relative_to(ROOT).parts)) for path in ROOT.rglob("__init__.py")}
    assert set(settings["packages"]) == found | {"codesign_opt.problems"}


def test_importing_the_package_loads_neither_torch_nor_matplotlib_nor_cvxpy():
    code = (
        "import sys, codesign_opt; heavy = {'torch', 'matplotlib', 'cvxpy', 'scipy', 'sklearn'} & set(sys.modules); "
        "assert not heavy, heavy; codesign_opt.Plan; "
        "heavy = {'torch', 'matplotlib', 'cvxpy', 'sklearn'} & set(sys.modules); assert not heavy, heavy; "
        "codesign_opt.GaussianModel, codesign_opt.codesign; "
        "heavy = {'torch', 'matplotlib', 'sklearn'} & set(sys.modules); assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT.parent)
    assert done.returncode == 0, done.stderr


def test_heavy_libraries_stay_where_they_belong():
    drawing = {"results/style.py", "results/panels.py", "results/page.py"}
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT).parts
        names = set()
        for node in tree_of(path).body:
            if isinstance(node, ast.Import):
                names |= {a.name.split(".")[0] for a in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                names.add(node.module.split(".")[0])
        goes_out = parts[:2] == ("exports", "standalone")  # files for other programs
        if parts[0] not in ("estimate", "testbed") and not goes_out:
            assert "torch" not in names, path
        draws = "/".join(parts) in drawing or parts[-1].endswith("figure.py")
        assert not names & {"matplotlib", "sklearn", "skimage"} or draws, path


def test_every_public_name_exists():
    for name in codesign_opt.__all__:
        assert getattr(codesign_opt, name) is not None
    assert set(dir(codesign_opt)) == set(codesign_opt.__all__)


def public_signatures():
    """Functions of the public names, with the public methods of classes: as (name, annotations)."""
    for stub in ROOT.rglob("__init__.pyi"):
        for words in map(str.split, stub.read_text(encoding="utf-8").splitlines()):
            if words[:1] != ["from"] or words[1] == "." or not words[1].startswith("."):
                continue
            up = len(words[1]) - len(words[1].lstrip(".")) - 1
            home = [stub.parent, *stub.parent.parents][up].joinpath(*words[1].lstrip(".").split(".")).with_suffix(".py")
            for node in tree_of(home).body if home.exists() else ():
                if getattr(node, "name", None) == words[3]:
                    for each in [node] if isinstance(node, ast.FunctionDef) else node.body:
                        if isinstance(each, ast.FunctionDef) and (
                            each.name in {words[3], "__init__", "__call__"} or not each.name.startswith("_")
                        ):
                            of = each.args
                            given = [*of.posonlyargs, *of.args, *of.kwonlyargs, *filter(None, (of.vararg, of.kwarg))]
                            yield f"{words[3]}.{each.name}", [*(one.annotation for one in given), each.returns]


def test_few_public_signatures_hold_any():
    """What is left are plain records, options that are passed on, and data of the user's."""
    signatures = dict(public_signatures())
    loose = {
        name
        for name, annotations in signatures.items()
        if any(getattr(part, "id", "") == "Any" for each in annotations if each for part in ast.walk(each))
    }
    assert len(signatures) > 400
    assert len(loose) < 100, sorted(loose)
