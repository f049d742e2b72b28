"""Names: who has one, who may take it, what is said of an unknown one; nothing of a test stays behind."""

import pytest

import codesign_opt as co
from codesign_opt import peers
from codesign_opt.basics.registry import Registry, temporarily
from codesign_opt.exports import PlannedLevels, Target, add_target, targets
from codesign_opt.ingredients.coupling import Coupling
from codesign_opt.training.base import TrainingNoise


def linear(slope=1.0, *, at):
    return slope * at


def test_make_calls_by_name_and_names_what_is_unknown_or_missing():
    lines = Registry("line", "a line")
    lines.add("linear", linear)
    assert lines.make("linear", {"at": 3.0, "slope": 2.0}) == 6.0
    for parameters, said in (({}, "a line linear needs at"), ({"rise": 1.0}, "no parameter rise; it has slope, at")):
        with pytest.raises(ValueError, match=said):
            lines.make("linear", parameters)
    with pytest.raises(ValueError, match=r"line is 'liner'; it must be one of 'linear'; did you mean 'linear'\?"):
        lines.find("liner")
    for strange in (None, ["linear"], 3):
        with pytest.raises(ValueError, match=r"it must be one of 'linear'\."):
            lines.find(strange)


def test_the_same_definition_may_come_again_and_replaces_the_old_one():
    kinds = Registry("kind")
    old, new = (type("Cell", (), {"__module__": "__main__"}) for _ in range(2))
    kinds.add("cell", old)
    kinds.add("cell", new)
    assert kinds.find("cell") is new


def test_a_name_is_a_text():
    for name in ("", None, 3):
        with pytest.raises(ValueError, match="a text that is not empty is needed"):
            Registry("kind").add(name, linear)


TAKEN = {
    "sampler": lambda: type("Mine", (co.Heun,), {"name": "heun"}),
    "process": lambda: type("Mine", (co.EDM,), {"name": "edm"}),
    "schedule": lambda: type("Mine", (peers.EDMRho,), {"name": "edm"}),
    "density": lambda: type("Mine", (co.LogNormal,), {"name": "edm"}),
    "training noise": lambda: type("AveragedSGD", (co.AveragedSGD,), {}),
    "coupling": lambda: type("Local", (co.Local,), {}),
    "weighting": lambda: peers.add_weighting("edm")(linear),
    "export": lambda: add_target(Target("json", (), linear)),
}


@pytest.mark.parametrize("define", TAKEN.values(), ids=TAKEN)
def test_no_kind_of_thing_lets_a_name_be_taken_twice(define):
    with pytest.raises(ValueError, match="which is taken by"):
        define()


def test_whatever_enters_temporarily_is_forgotten():
    def all_names():
        return peers.names(), peers.training_densities(), peers.weightings(), targets()

    before = all_names()
    with temporarily():
        type("Mine", (peers.EDMRho,), {"name": "mine"})
        type("Mine", (co.LogNormal,), {"name": "mine"})
        peers.add_weighting("mine")(linear)
        add_target(Target("mine", (), lambda levels: ("", "")))
        type("MineAlone", (co.Local,), {})
        assert all("mine" in names for names in all_names())
    assert all_names() == before
    for read in (Coupling.from_dict, lambda record: TrainingNoise.from_dict({"type": record["kind"]})):
        with pytest.raises(ValueError, match="is 'MineAlone'"):
            read({"kind": "MineAlone"})


@pytest.mark.parametrize("turn", [1, 2])
def test_a_class_of_one_test_is_not_there_in_the_next(turn):
    assert "of_one_test" not in peers.names()
    type(f"Turn{turn}", (peers.EDMRho,), {"name": "of_one_test"})
    assert "of_one_test" in peers.names()


@pytest.mark.parametrize(
    ("options", "said"),
    [(("mu", 3), "Target.options is"), ("mu", "Target.options is 'mu'; a tuple of names"), (None, "Target.options")],
)
def test_options_of_a_target_are_names(options, said):
    with pytest.raises(ValueError, match=said):
        Target("mine", options, linear)


def test_a_target_that_writes_something_else_is_named():
    add_target(Target("mine", (), lambda levels: levels.sigmas))
    with pytest.raises(ValueError, match=r"the target 'mine' wrote .*must return what export returns and the text"):
        co.export([1.0, 0.0], "mine")
    assert PlannedLevels([1.0], {}).sampler == {}
