"""Packages that are put off: nothing loads before something is asked, and then they are the package itself."""

import importlib
import importlib.util
import sys

import pytest

from codesign_opt.commands.later import put_off


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The name of a package with a module in it, on nobody's path but this test's; forgotten afterwards."""
    (tmp_path / "put_off_here").mkdir()
    (tmp_path / "put_off_here" / "__init__.py").write_text("value = [1]\nfrom . import part\n")
    (tmp_path / "put_off_here" / "part.py").write_text("import put_off_here\nother = 2\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "put_off_here"
    for name in [name for name in sys.modules if name.startswith("put_off_here")]:
        del sys.modules[name]


def test_an_import_loads_nothing_and_the_first_attribute_the_package(package):
    put_off(package)
    held = importlib.import_module(package)
    assert f"{package}.part" not in sys.modules
    assert importlib.util.find_spec(package).name == package
    assert held.value == [1]
    assert f"{package}.part" in sys.modules
    again = importlib.import_module(package)
    assert again is sys.modules[package] is not held
    assert held.value is again.value
    assert held.part is again.part


def test_modules_inside_are_never_loaded_twice(package):
    put_off(package)
    held = importlib.import_module(package)
    with pytest.raises(ModuleNotFoundError, match="is not a package"):
        importlib.import_module(f"{package}.part")
    assert held.value == [1]
    assert importlib.import_module(f"{package}.part") is held.part


def test_what_the_package_has_not_it_has_not_afterwards(package):
    put_off(package)
    held = importlib.import_module(package)
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'missing'"):
        _ = held.missing
    assert held.value == [1]


def test_a_loaded_package_and_one_that_is_not_there_stay_as_they_are(package):
    loaded = importlib.import_module(package)
    put_off(package)
    assert sys.modules[package] is loaded
    put_off("no_such_package_at_all")
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("no_such_package_at_all")
