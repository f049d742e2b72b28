"""An export of one's own from one file: `co.export`, a plan's `export` and the command line know it."""

import pytest

import codesign_opt as co
from codesign_opt.cli import main
from codesign_opt.exports import Target, add_target


def define():
    def write(levels, digits=2):
        text = " ".join(f"{sigma:.{digits}f}" for sigma in levels.sigmas) + f" for {levels.sampler.get('name')}\n"
        return levels.sigmas.size, text

    add_target(Target("words", ("digits",), write))


def test_a_target_writes_lists_and_plans_and_names_unknown_options(tmp_path, capsys):
    define()
    path = tmp_path / "levels.txt"
    assert co.export([3.0, 0.25, 0.0], "words", path=path) == 3
    assert path.read_text() == "3.00 0.25 0.00 for None\n"
    plan = co.codesign(co.GaussianModel(co.Spectrum.power_law(8, exponent=1.5)), steps=4, levels=30)
    assert plan.export("words", path=path, digits=0) == 5
    assert path.read_text() == " ".join(f"{sigma:.0f}" for sigma in plan.sigmas) + " for heun\n"
    with pytest.raises(ValueError, match=r"export\.digit has no meaning for the target 'words'.*it takes digits"):
        plan.export("words", digit=None)
    saved = str(plan.save(tmp_path / "plan.json"))
    assert main(["export", saved, "--to", "words", "--out", str(path)]) == 0
    assert path.read_text().startswith("80.00 ")
    assert main(["export", saved, "--to", "words"]) == 0
    assert capsys.readouterr().out == "5\n"
    with pytest.raises(SystemExit, match="2"):
        main(["export", saved, "--to", "word"])
    assert "invalid choice: 'word' (choose from" in capsys.readouterr().err
