"""What importing loads, and in which direction the modules depend on each other."""

import ast
import subprocess
import sys
from pathlib import Path

import codesign_opt

ROOT = Path(codesign_opt.__file__).parent

# lower layers never import higher ones while they are loaded (imports inside functions are deferred)
LAYERS = [
    {"_validate", "_covariance", "_text", "errors", "levels"},
    {"spectrum", "process", "gaussian_laws", "sampler_base", "samplers", "kernel", "noise_effect", "parameterization",
     "constant_step", "sgd_variance", "lower_bounds", "training_base", "training_noise", "coupling", "prices",
     "densities", "grids", "training_log", "level_statistics", "level_smoothing",
     "curve_windows", "curve_fit", "curve_results", "curve_estimation"},
    {"coefficients", "coefficient_batch", "polish"},
    {"gaussian", "estimated", "certificate", "solvers"},
    {"plan", "peers"},
    {"modeling"},
    {"auditing", "comparing", "comparison", "frontiers", "study", "interval_bounds", "sweep", "handout", "few_steps",
     "outer"},
]  # fmt: skip
RANK = {name: i for i, layer in enumerate(LAYERS) for name in layer}
DRAWING = {"plots", "plot_page", "plot_style", "report", "level_report", "exports", "cli", "problems", "__main__"}


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


def loaded_imports(path):
    """Modules of the package that a file imports when it is loaded: not inside functions or TYPE_CHECKING."""
    package = path.relative_to(ROOT).parts[:-1]

    def walk(nodes):
        for node in nodes:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                continue
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
                continue
            if isinstance(node, ast.ImportFrom):
                module = (node.module or "").split(".") if node.module else []
                if node.level:
                    base = list(package[: len(package) - (node.level - 1)])
                    yield from ([base + module] if base + module else [[alias.name] for alias in node.names])
                elif module[:1] == ["codesign_opt"]:
                    yield module[1:]
            elif isinstance(node, ast.Import):
                yield from (a.name.split(".")[1:] for a in node.names if a.name.startswith("codesign_opt."))
            else:
                yield from walk(ast.iter_child_nodes(node))

    return {parts[0] for parts in walk(ast.parse(path.read_text(encoding="utf-8")).body) if parts}


def test_imports_run_in_one_direction():
    for path in ROOT.rglob("*.py"):
        own = path.relative_to(ROOT).with_suffix("").parts[0]
        if own not in RANK:
            continue
        for other in loaded_imports(path) - {own}:
            assert other not in DRAWING, f"{path.name} loads {other}; import it where it is used"
            assert other in RANK, f"{path.name} imports {other}, which has no layer in this test"
            assert RANK[other] <= RANK[own], f"{path.name} (layer {RANK[own]}) imports {other} (layer {RANK[other]})"


def test_heavy_libraries_stay_where_they_belong():
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT).parts
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = set()
        for node in tree.body:
            if isinstance(node, ast.Import):
                names |= {a.name.split(".")[0] for a in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                names.add(node.module.split(".")[0])
        if parts[0] not in ("estimate", "testbed"):
            assert "torch" not in names, path
        assert not names & {"matplotlib", "sklearn", "skimage"} or parts[0].startswith(("plot", "problems")), path


def test_every_public_name_exists():
    for name in codesign_opt.__all__:
        assert getattr(codesign_opt, name) is not None
    assert set(dir(codesign_opt)) == set(codesign_opt.__all__)
