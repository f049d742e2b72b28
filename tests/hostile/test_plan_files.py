"""Files of plans, damaged and edited: refused by name, or the same numbers; never a foreign exception."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path

import numpy as np
import pytest

import codesign_opt as co
from codesign_opt.results.plan_schema import checksum
from tests.hostile.damage import DAMAGES, edit

FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"
SEEDS = 700 if FULL else 12
OLD = Path(__file__).parents[1] / "results" / "saved_0_1_0"


@pytest.fixture(scope="module")
def plan():
    model = co.GaussianModel(co.Spectrum.power_law(8, exponent=1.5))
    prices = co.Prices(3.0, 1.0, 1000)
    return co.codesign(model, prices, 1e5, levels=12, stopping_sigma=0.05, polish=False)


@pytest.fixture
def saved(plan, tmp_path):
    return plan.save(tmp_path / "plan.json").read_bytes()


def attempt(path, content, name, **options):
    """The plan of a damaged file; None where it is refused by name."""
    path.write_bytes(content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return co.Plan.load(path, **options)
    except ValueError as error:
        if str(path) not in str(error):
            raise AssertionError(f"{name}: no path in {error}") from error
        return None
    except Exception as error:
        raise AssertionError(f"{name}: {type(error).__name__}: {error}") from error


def shown(plan, name):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return str(plan) + plan.table() + repr(plan)
    except Exception as error:
        raise AssertionError(f"{name}: {type(error).__name__}: {error}") from error


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_file_is_refused_or_says_the_same_numbers(saved, tmp_path, kind):
    truth = json.loads(saved)
    for seed in range(SEEDS):
        content = DAMAGES[kind](saved, np.random.default_rng(seed))
        found = attempt(tmp_path / "plan.json", content, f"damage.{kind}, seed {seed}")
        if found is not None and not found.stated:
            assert json.loads(content.decode("utf-8-sig")) == truth, f"damage.{kind}, seed {seed}"
        elif found is not None:  # only where the checksum itself is gone is a file read without one
            assert "checksum" not in json.loads(content), f"damage.{kind}, seed {seed}"


@pytest.mark.parametrize("source", ["now", "gaussian", "measured", "transfer"])
def test_an_edited_file_is_refused_by_field_or_printed_as_stated(saved, tmp_path, source):
    data = json.loads(saved if source == "now" else (OLD / f"{source}.json").read_bytes())
    data.pop("checksum", None)
    for seed in range(2 * SEEDS):
        name = f"damage.edit of {source}, seed {seed}"
        content = json.dumps(edit(data, np.random.default_rng(seed))).encode()
        found = attempt(tmp_path / "plan.json", content, name)
        if found is not None:
            text = shown(found, name)
            assert "as stated in the file" in " ".join(text.split()), name
            assert "\x1b" not in text, name
            assert np.all(np.isfinite(found.examples)), name


def put(field, value):
    def change(data):
        where = data
        for key in field[:-1]:
            where = where[key]
        where[field[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put(["examples", 3], -1.0), r"Plan\.examples is -1 at index 3"),
        (put(["examples", 3], "nan"), r"Plan\.examples is nan at index 3"),
        (put(["steps", 0], "inf"), r"Plan\.steps is inf at index 0"),
        (put(["certificate", "lower_bound"], 5.0), r"lower_bound 5 are no relative gap"),
        (put(["certificate", "value"], 1e-9), r"certificate\.value is 1e-09"),
        (put(["error"], 1e-9), r"breakdown sum to"),
        (put(["handed_out"], None), r"Plan\.handed_out is None; a mapping"),
        (put(["notes"], "note"), r"Plan\.notes is 'note'; a list"),
        (put(["tables", "example_price"], [1.0]), r"example_price"),
        (put(["peers", "edm"], 3), r"Plan\.peers\['edm'\] is 3"),
        (put(["stopping_sigma"], 10**290), r"stopping_sigma"),
        (put(["colour"], "red"), r"field 'colour'"),
    ],
)
def test_fields_are_named_even_where_the_checksum_is_right(saved, tmp_path, change, message):
    data = json.loads(saved)
    change(data)
    data["checksum"] = checksum(data)
    (tmp_path / "plan.json").write_text(json.dumps(data))
    with pytest.raises(ValueError, match=message):
        co.Plan.load(tmp_path / "plan.json", trust=True)


def test_an_edited_file_is_refused_with_the_remedy_and_read_on_request(saved, tmp_path):
    path, data = tmp_path / "plan.json", json.loads(saved)
    data["costs"]["training"] *= 2
    path.write_text(json.dumps(data))
    with pytest.raises(ValueError, match=r"another checksum.*load\(path, trust=True\)"):
        co.Plan.load(path)
    found = co.Plan.load(path, trust=True)
    assert found.costs["training"] == data["costs"]["training"]
    assert "as stated in the file" in " ".join(str(found).split())
    assert co.Plan.load(found.save(path)).costs == found.costs


def test_spaces_and_the_order_of_names_are_no_damage(plan, saved, tmp_path):
    path = tmp_path / "plan.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(dict(reversed(json.loads(saved).items()))).encode())
    assert str(co.Plan.load(path)) == str(plan)


@pytest.mark.parametrize(
    "content",
    [b"[" * 100_000, b'{"a":' * 100_000, b'{"a": %s}' % (b"9" * 10_000), b'{"a": %s}' % (b"9" * 400), b"\xff\xfe", b""],
    ids=["lists", "objects", "10,000 digits", "400 digits", "bytes", "nothing"],
)  # fmt: skip
def test_other_json_is_refused_by_name(tmp_path, content):
    assert attempt(tmp_path / "plan.json", content, "content") is None


def test_escapes_of_terminals_are_shown_and_arrays_are_read_only(saved, tmp_path):
    path, data = tmp_path / "plan.json", json.loads(saved)
    data["notes"], data["peers"] = ["\x1b]0;title\x07 seen\nProof\n  proved"], {"a\x1b[31mname": {"total": 1.0}}
    path.write_text(json.dumps(data))
    found = co.Plan.load(path, trust=True)
    text = str(found)
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "\\x1b[31m" in text
    assert not any(line.startswith("Proof") for line in text.splitlines()[-3:])
    for values in (found.examples, found.steps, found.sigmas, found.levels.edges, *found.tables.values()):
        with pytest.raises(ValueError, match="read-only"):
            values[0] = 1.0
