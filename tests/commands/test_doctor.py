"""doctor: says of every part whether it works, and fails where something needed does not."""

import importlib.metadata

import pytest

from codesign_opt.cli import main
from codesign_opt.commands import checking


@pytest.fixture
def doctor(monkeypatch, capsys):
    """The lines of doctor by state, and its exit code; plans are left to the test that asks for them."""

    def run(*, plans=False):
        if not plans:
            monkeypatch.setattr(checking, "_certified", lambda: iter(()))
        code = main(["doctor"])
        lines = [line for line in capsys.readouterr().out.splitlines() if line]
        assert code in (0, 1)
        return code, [(line.split()[0], line[10:]) for line in lines[:-1]], lines[-1]

    few = {name: checking._OPTIONAL[name] for name in ("matplotlib", "pandas")}
    monkeypatch.setattr(checking, "_OPTIONAL", few | {"none_such": ("none_such", "dreams", "none_such")})
    return run


def test_an_installation_that_works_is_said_to(doctor):
    code, lines, last = doctor(plans=True)
    assert (code, last) == (0, "Nothing needed is broken.")
    said = "\n".join(text for _, text in lines)
    for package in ("numpy", "scipy", "cvxpy", "clarabel", "filelock"):
        assert f"{package} {importlib.metadata.version(package)}" in said
    assert said.count("proved optimal by ") == 2
    assert "by CLARABEL" in said
    assert ("absent", 'none_such: without it no dreams; pip install "none_such"') in lines
    for word in ("solvers that cvxpy sees", "threads: ", "cache "):
        assert word in said


def test_a_package_that_is_missing_too_old_or_fails_makes_it_fail(doctor, monkeypatch):
    real, asked = importlib.metadata.version, checking.import_module

    def version(package):
        if package == "filelock":
            raise importlib.metadata.PackageNotFoundError
        return {"numpy": "1.20.0", "matplotlib": "3.9"}.get(package) or real(package)

    def imported(module):
        if module in ("clarabel", "matplotlib"):
            raise ImportError("lib.so: cannot open shared object\nmore")
        return asked(module)

    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr(checking, "import_module", imported)
    monkeypatch.setattr(checking, "_floors", lambda: {"numpy": "1.26"})
    code, lines, last = doctor()
    broken = [text for state, text in lines if state == "broken"]
    assert code == 1
    assert last.startswith("3 broken")
    assert broken == [
        "numpy 1.20.0, 1.26 or newer is needed; pip install -U numpy",
        "clarabel: ImportError: lib.so: cannot open shared object; pip install -U clarabel",
        "filelock: not installed; pip install -U filelock",
    ]
    assert next(text for state, text in lines if state == "warning").startswith("matplotlib 3.9 is installed and fails")


def test_a_solver_that_is_not_seen_or_a_check_that_fails_makes_it_fail(doctor, monkeypatch):
    class Blind:
        @staticmethod
        def installed_solvers():
            return ["SCS"]

    asked = checking.import_module
    monkeypatch.setattr(checking, "import_module", lambda name: Blind if name == "cvxpy" else asked(name))
    assert ("broken", "solvers that cvxpy sees: SCS") in doctor()[1]
    monkeypatch.setattr(checking, "_threads", lambda: 1 / 0)
    assert any(text.startswith("lambda") or "ZeroDivisionError" in text for state, text in doctor()[1])


def test_the_cache_is_the_testbed_s_and_a_place_that_cannot_be_written_is_told(doctor, monkeypatch, tmp_path):
    monkeypatch.setenv("CODESIGN_OPT_CACHE", str(tmp_path / "kept"))
    (text,) = [text for _, text in doctor()[1] if text.startswith("cache")]
    assert str(tmp_path / "kept") in text
    assert "made when it is needed" in text
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "net.pt").write_bytes(b"0" * 2_500_000)
    (text,) = [text for _, text in doctor()[1] if text.startswith("cache")]
    assert "2.5 MB" in text

    def refuse(**options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(checking.tempfile, "TemporaryFile", refuse)
    code, lines, _ = doctor()
    assert code == 0
    assert any(
        state == "warning" and "Permission denied; name another by CODESIGN_OPT_CACHE" in t for state, t in lines
    )


def test_the_cache_folder_is_found_as_the_testbed_finds_it(monkeypatch, tmp_path):
    recipes = pytest.importorskip("codesign_opt.testbed.networks.recipes")
    for place in (str(tmp_path), ""):
        monkeypatch.setenv("CODESIGN_OPT_CACHE", place)
        (finding,) = checking._cache()
        assert f"cache {recipes.cache_folder(None)}:" in finding.text


def test_versions_are_compared_by_their_numbers():
    numbers = [checking._number(text) for text in ("1.9.3", "1.10", "2.0", "2.0.0rc1", "2.13.0+cpu")]
    assert numbers == [(1, 9, 3), (1, 10), (2,), (2,), (2, 13)]
    assert numbers == sorted(numbers)
