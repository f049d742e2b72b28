"""The command line: each command end to end, and bad input in one line with the right exit code."""

import io
import json
import os
import re
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from types import SimpleNamespace

import pytest

import codesign_opt
from codesign_opt.cli import main

# what this process writes; `solved` is searched for and arranged
pytestmark = pytest.mark.usefixtures("unarranged", "undescended")

FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"
QUICK = ["--levels", "40", "--points", "4"]
HEAVY = {"cvxpy.problems", "matplotlib", "sklearn", "skimage", "torch"}


@pytest.fixture(scope="module")
def solved(tmp_path_factory):
    """The folder that `solve --out` writes, and what it prints; a process of its own is tests/test_wheel.py's too."""
    folder = tmp_path_factory.mktemp("out") / "new" / "folder"
    words = ["solve", "power_law_64", "--budget", "1e5", *QUICK, "--out", str(folder), "-v"]
    if FULL:
        done = subprocess.run([sys.executable, "-m", "codesign_opt", *words], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return folder, done
    with redirect_stdout(io.StringIO()) as printed, redirect_stderr(io.StringIO()) as told:
        assert main(words) == 0
    return folder, SimpleNamespace(stdout=printed.getvalue(), stderr=told.getvalue())


def test_solve_prints_the_plan_and_writes_plan_table_and_page(solved):
    folder, done = solved
    assert "proved optimal" in done.stdout
    assert "stopping sigma" in done.stderr  # -v shows progress, and not on stdout
    assert "stopping sigma 0." not in done.stdout
    assert sorted(p.name for p in folder.iterdir()) == ["page.png", "plan.json", "plan.txt"]
    assert (folder / "page.png").read_bytes().startswith(b"\x89PNG")
    plan = codesign_opt.Plan.load(folder / "plan.json")
    assert plan.costs["budget: limit"] == 1e5
    assert (folder / "plan.txt").read_text() == f"{plan}\n\n{plan.table(len(plan.levels))}\n"


def test_show_prints_what_solve_printed_and_the_levels(solved, capsys):
    folder, done = solved
    assert main(["show", str(folder / "plan.json")]) == 0
    assert capsys.readouterr().out == done.stdout
    assert main(["show", str(folder / "plan.json"), "--levels", "3"]) == 0
    shown = capsys.readouterr().out.removeprefix(done.stdout).strip().splitlines()
    assert len(shown) == 5  # title, three rows, total


def test_validate_trains_and_samples_a_saved_plan(solved, tmp_path, capsys):
    words = ["validate", str(solved[0] / "plan.json"), "--replicas", "3", "--out", str(tmp_path / "new")]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "3 trainings" in said
    assert (tmp_path / "new" / "validation.txt").read_text(encoding="utf-8").strip() == said.strip()


@pytest.mark.slow
def test_show_draws_a_saved_plan_again(solved, tmp_path):
    assert main(["show", str(solved[0] / "plan.json"), "--out", str(tmp_path)]) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["page.png", "plan.txt"]


@pytest.mark.slow
def test_limits_on_the_command_line_replace_the_declared_ones(capsys, tmp_path):
    words = ["solve", "power_law_64", "--steps", "5", "--images", "50", *QUICK, "--out", str(tmp_path)]
    assert main(words) == 0
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert len(plan["sigmas"]) == 6
    assert plan["costs"]["sampling"] == pytest.approx(50 * 9, rel=1e-6)
    assert "5 heun steps" in capsys.readouterr().out


def test_finished_problems_solve_with_progress(capsys):
    assert main(["solve", "clipped_allocation", "--budget", "2e6", "-v"]) == 0
    printed = capsys.readouterr()
    assert "proved optimal" in printed.out
    assert "attempt 1" in printed.err


def test_export_prints_and_writes_the_plans_levels(solved, tmp_path, capsys):
    saved = str(solved[0] / "plan.json")
    sigmas = codesign_opt.Plan.load(saved).sigmas
    for target in ("comfyui", "k-diffusion"):
        assert main(["export", saved, "--to", target]) == 0
        assert [float(word) for word in capsys.readouterr().out.split(",")] == sigmas.tolist()
    for target in ("json", "csv"):
        path = tmp_path / f"grid.{target}"
        assert main(["export", saved, "--to", target]) == 0
        printed = capsys.readouterr().out
        assert main(["export", saved, "--to", target, "--out", str(path)]) == 0
        assert capsys.readouterr().out == ""
        assert path.read_text() == printed
        assert main(["export", str(path), "--to", target]) == 0  # a file of noise levels goes in, too
        assert capsys.readouterr().out == printed
    assert main(["export", saved, "--to", "comfyui", "--flow"]) == 0
    assert float(capsys.readouterr().out.split(",")[0]) == pytest.approx(sigmas[0] / (1 + sigmas[0]), rel=1e-12)


def test_export_training_prints_settings_that_read_back(solved, tmp_path, capsys):
    saved = str(solved[0] / "plan.json")
    assert main(["export-training", saved, "--to", "diffusers", "--set", "shift=3.0"]) == 0
    words = capsys.readouterr().out
    read = codesign_opt.read_training(words.splitlines()[0], shift=3.0)
    assert read.distance(codesign_opt.Plan.load(saved).training_density.nearest_lognormal()) < 3e-3
    assert "of the plan's score error" in words
    path = tmp_path / "flux.toml"
    assert main(["export-training", saved, "--to", "diffusion-pipe", "--floor", "0.1", "--out", str(path)]) == 0
    assert codesign_opt.read_training(path).std > 1
    assert main(["export-training", str(path), "--to", "musubi-tuner", "--set", "sampling=logsnr"]) == 0
    assert "--timestep_sampling logsnr" in capsys.readouterr().out
    assert main(["export-training", saved, "--to", "a1111"]) == 2
    assert "export_training.target is 'a1111'; it must be one of" in capsys.readouterr().err


def test_export_takes_the_file_of_a_fitted_solver_to_every_program(tmp_path, capsys):
    pytest.importorskip("diffusers")
    solver = codesign_opt.LinearMultistep([4.0, 1.0, 0.0], a=[0.3, 0.0], c=[[0.7, 0.0], [1.2, -0.2]])
    source = tmp_path / "solver.json"
    codesign_opt.export(solver, "json", path=source)
    targets = {
        "json": "a.json",
        "python": "a.py",
        "k-diffusion": "b.py",
        "comfyui": "c/c.json",
        "diffusers": "d/d.json",
    }
    for target, name in targets.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        words = ["--scheduler", "DDPMScheduler"] if target == "diffusers" else []
        assert main(["export", str(source), "--to", target, *words, "--out", str(tmp_path / name)]) == 0
        assert codesign_opt.read_solver(tmp_path / name) == solver
        source = tmp_path / name  # and from there to the next
    capsys.readouterr()
    assert main(["export", str(source), "--to", "csv"]) == 2
    assert "takes noise levels alone" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")
def test_export_for_a_scheduler_of_diffusers(solved, tmp_path, capsys):
    diffusers = pytest.importorskip("diffusers")
    saved = str(solved[0] / "plan.json")
    words = ["export", saved, "--to", "diffusers", "--scheduler"]
    diffusers.DPMSolverMultistepScheduler(use_karras_sigmas=True).save_pretrained(tmp_path)
    config = str(tmp_path / "scheduler_config.json")
    assert main([*words, config, "--clip", "--out", str(tmp_path / "dpm.json")]) == 0
    printed = capsys.readouterr().out
    assert "scheduler.set_timesteps(timesteps=[" in printed
    assert "use_karras_sigmas=False" in printed
    record = json.loads((tmp_path / "dpm.json").read_text())
    assert record["set_timesteps"]["timesteps"][0] <= 999
    assert main([*words, "FlowMatchEulerDiscreteScheduler"]) == 0
    assert "levels change by up to" in capsys.readouterr().out
    (tmp_path / "other.json").write_text("{}")
    for scheduler, said in [
        ("DDIMScheduler", "use EulerDiscreteScheduler.from_config"),
        ("KarrasVe", "has no scheduler 'KarrasVe'"),
        ("StableDiffusionPipeline", "has no scheduler"),
        (str(tmp_path / "other.json"), "is not a scheduler's configuration"),
        (str(tmp_path / "absent.json"), "No such file"),
    ]:
        assert main([*words, scheduler]) == 2
        assert said in capsys.readouterr().err


def test_audit_takes_noise_levels_in_full_and_those_of_a_file(tmp_path, capsys):
    grid = [80, 5, 0.5, 0]
    printed = []
    (tmp_path / "today.csv").write_text("sigma\n" + "\n".join(map(str, grid)))
    for sigmas in (",".join(map(str, grid)), str(tmp_path / "today.csv")):
        assert (
            main(["audit", "power_law_64", "--sigmas", sigmas, "--density", "lognormal:-1,1.5", *QUICK]) == 0
        )  # three steps: little to search
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    assert "3 steps" in printed[0]
    assert main(["audit", "power_law_64", "--sigmas", str(tmp_path / "today.csv"), "--steps", "9"]) == 2
    assert "has 3 steps" in capsys.readouterr().err


def test_a_users_file_is_solved(tmp_path, capsys):
    path = tmp_path / "mine.py"
    path.write_text(
        '"""Eight directions."""\nimport codesign_opt as co\n'
        "def build(budget=1e4):\n"
        "    model = co.GaussianModel(co.Spectrum.power_law(8, exponent=1.0), sampler=co.Euler())\n"
        "    prices = co.Prices(example=1.0, evaluation=1.0, images=10)\n"
        "    options = {'stopping_sigma': 0.05}\n"
        "    return co.problems.DeclaredProblem('mine', 'My data', 'Stated.', model, prices, budget, options)\n"
    )
    assert main(["solve", str(path), "--budget", "2e4", "--levels", "40"]) == 0
    assert "proved optimal" in capsys.readouterr().out


def test_audit_names_todays_excess_and_writes_it(tmp_path, capsys):
    words = ["audit", "power_law_64", "--steps", "6", "--iterations", "300", *QUICK, "--out", str(tmp_path)]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "Audit" in printed
    assert sorted(p.name for p in tmp_path.iterdir()) == ["audit.png", "audit.txt", "plan.json"]
    assert (tmp_path / "audit.txt").read_text() == printed


def test_frontier_sweeps_budgets(tmp_path, capsys):
    words = ["frontier", "power_law_64", "--budgets", "2e4,5e4", "--images", "1000", "-v", *QUICK]
    assert main([*words, "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    assert len(printed.out.strip().splitlines()) >= 3
    assert "2 of 2" in printed.err
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "frontier.png", "frontier.txt", "plan_budget_20000.json", "plan_budget_50000.json",
    ]  # fmt: skip


def test_list_shows_every_name_and_title(capsys):
    assert main(["list"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert [row.split()[0] for row in rows] == codesign_opt.problems.names()
    assert any("Handwritten digits" in row for row in rows)


@pytest.mark.cases(2)
@pytest.mark.parametrize("words", [["list"], ["--help"], ["solve", "--help"], ["--version"], ["show"]])
def test_light_commands_load_no_solver_and_start_fast(words, solved):
    if words == ["show"]:
        words = ["show", str(solved[0] / "plan.json")]
    code = (
        "import sys\nfrom codesign_opt.cli import main\n"
        f"try:\n    code = main({words!r})\nexcept SystemExit as end:\n    code = end.code\n"
        f"assert not {HEAVY} & set(sys.modules)\nsys.exit(code)"
    )
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert time.perf_counter() - start < 5.0  # 0.1 s to 0.6 s on a free core; machines differ


def test_plan_of_built_in_terms_waits_for_no_package_that_it_does_not_ask(capsys):
    words = ["solve", "power_law_64", "--budget", "2e4", "--images", "100", "--steps", "8", *QUICK]
    code = f"import sys\nfrom codesign_opt.cli import main\nmain({words!r})\nassert not {HEAVY} & set(sys.modules)\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert main(words) == 0  # here cvxpy is loaded
    proofs = [re.findall(r"\(lower bound (.*?)\)", text) for text in (done.stdout, capsys.readouterr().out)]
    assert proofs[0] == proofs[1] != []


def _files(folder):
    """Malformed files, by what is wrong with them."""
    whole = {"kind": "codesign_opt.plan", "schema_version": 1}
    for name, text in {
        "truncated.json": json.dumps(whole)[:-5],
        "other.json": "[1, 2]",
        "version.json": json.dumps({**whole, "schema_version": 99}),
        "fields.json": json.dumps(whole),
        "empty.py": "",
        "file": "",
    }.items():
        (folder / name).write_text(text)
    (folder / "binary.json").write_bytes(b"\xff\xfe\x00\x81")


@pytest.mark.cases(13)
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("solve powerlaw_64", "did you mean 'power_law_64'"),
        ("solve absent.py", "absent.py: no such file"),
        ("solve empty.py", "defines no build()"),
        ("solve power_law_64 --budget -5", "budget is -5; it must be > 0"),
        ("solve power_law_64 --budget nan", "budget is nan"),
        ("solve power_law_64 --budget much", "invalid float value: 'much'"),
        ("solve power_law_64 --images -1", "Prices.images is -1"),
        ("solve power_law_64 --images nan", "Prices.images is nan"),
        ("solve power_law_64 --steps 1", "steps is 1; it must be >= 2"),
        ("solve power_law_64 --steps 2.5", "invalid int value"),
        ("solve power_law_64 --levels 1", "levels is 1"),
        ("solve power_law_64 --points 2", "points is 2"),
        ("solve power_law_64 --out file", "file: File exists"),
        ("solve clipped_allocation --images 5", "finished problem"),
        ("solve clipped_allocation --budget nan", "clipped_allocation.budget is nan"),
        ("solve shared_parameters --budget 0", "shared_parameters.budget is 0"),
        ("solve", "required: NAME|FILE"),
        ("", "required: COMMAND"),
        ("sulve power_law_64", "invalid choice: 'sulve'"),
        ("solve power_law_64 --bud 3", "unrecognized arguments"),
        ("audit unknown", "problem 'unknown' is unknown"),
        ("audit clipped_allocation", "finished problem"),
        ("audit power_law_64 --sigmas karras", "--sigmas is 'karras'"),
        ("audit power_law_64 --sigmas 1,2,0", "descending"),
        ("audit power_law_64 --sigmas absent.json", "No such file"),
        ("export absent.json --to json", "No such file"),
        ("export absent.json", "--to"),
        ("export absent.json --to a1111", "invalid choice: 'a1111'"),
        ("audit power_law_64 --sigmas 80,1,nan", "nan"),
        ("audit power_law_64 --sigmas 80,1,0 --steps 2", "--steps goes with"),
        ("audit power_law_64 --density normal:0,1", "--density is 'normal:0,1'"),
        ("audit power_law_64 --density lognormal:0", "--density is 'lognormal:0'"),
        ("audit power_law_64 --density lognormal:0,-1", "LogNormal.std is -1"),
        ("audit power_law_64 --batch 0", "TrainingRun.batch is 0"),
        ("audit power_law_64 --iterations -3", "TrainingRun.iterations is -3"),
        ("frontier power_law_64 --budgets 1,x", "not a list of numbers"),
        ("frontier power_law_64 --budgets 2e6,1e6", "ascending"),
        ("frontier power_law_64 --budgets nan", "nan"),
        ("frontier power_law_64 --budgets=-1,2", "budgets is -1"),
        ("frontier power_law_64 --budgets 1e5,1e6 --images 1,2", "sweep one of them"),
        ("frontier shared_parameters --budgets 1e5", "finished problem"),
        ("frontier unknown --budgets 1e5", "problem 'unknown' is unknown"),
        ("show absent.json", "absent.json: No such file"),
        ("show truncated.json", "not a whole JSON file"),
        ("show other.json", "is not a plan of codesign_opt"),
        ("show version.json", "schema version 99"),
        ("show fields.json", "lacks the field"),
        ("show binary.json", "binary.json is not JSON in UTF-8"),
        ("show .", "Is a directory"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(words, said, tmp_path, monkeypatch, capsys):
    _files(tmp_path)
    monkeypatch.chdir(tmp_path)
    try:
        code = main(words.split())
    except SystemExit as end:  # argparse's own
        code = end.code
    printed = capsys.readouterr()
    assert code == 2
    assert printed.out == ""
    assert printed.err.startswith("codesign-opt: error: ")
    assert printed.err.count("\n") == 1
    assert said in printed.err


@pytest.mark.parametrize(
    "words",
    [
        ["solve", "custom_constraint", "--budget", "1e5", "--levels", "60"],
        ["solve", "clipped_allocation", "--budget", "100"],
    ],
)
def test_infeasible_is_one_line_and_exit_code_1(words, capsys):
    assert main(words) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith("codesign-opt: error: Infeasible")
    assert printed.err.count("\n") == 1


def test_not_certified_is_exit_code_1(monkeypatch, capsys):
    def fail(self, **_):
        raise codesign_opt.NotCertifiedError("Not certified: the best of 6 attempts …")

    monkeypatch.setattr(codesign_opt.problems.DeclaredProblem, "solve", fail)
    assert main(["solve", "power_law_64"]) == 1
    assert capsys.readouterr().err == "codesign-opt: error: Not certified: the best of 6 attempts …\n"


def test_without_matplotlib_the_numbers_are_written_and_the_reader_told(solved, tmp_path, monkeypatch, capsys):
    for name in [m for m in sys.modules if m.startswith("matplotlib")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["show", str(solved[0] / "plan.json"), "--out", str(tmp_path)]) == 0
    assert 'pip install "codesign_opt[plots]"' in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["plan.txt"]


def test_a_closed_pipe_is_no_error():
    command = f"{sys.executable} -m codesign_opt list | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)
    assert done.stdout.startswith("banded_64")
    assert done.stderr == ""


def test_compare_prints_the_table_and_writes_it_with_its_figure(tmp_path, capsys):
    words = ["compare", "power_law_64", "--peers", "edm,log_snr", "--evaluations", "6", "--samplers", "euler"]
    assert main([*words, "--out", str(tmp_path / "new"), "-v"]) == 0
    printed = capsys.readouterr()
    assert printed.out.count("6 of 6") == 3
    assert "best plan of 3" in printed.err
    names = ["cells", "comparison.csv", "comparison.md", "comparison.png", "comparison.txt"]
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == names
    assert main([*words, "--out", str(tmp_path / "new")]) == 0  # from the finished cells
    assert capsys.readouterr().out == printed.out


def test_compare_refuses_an_unknown_schedule_in_one_line(capsys):
    assert main(["compare", "power_law_64", "--peers", "edmm"]) == 2
    assert "schedule is 'edmm'" in capsys.readouterr().err
