"""Every public callable against what nobody should pass: refused by name, never by a failure further inside."""

from __future__ import annotations

import os

import numpy as np
import pytest

from tests.hostile.attempt import attempt, limited
from tests.hostile.calls import HEAVY, LONG, every, required

FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"
CALLS = 50_000 if FULL else 160
# no trained network lies here, a pipeline needs packages, and laws that a fitted sampler does not have
WITHOUT = {
    "testbed.cached", "testbed.trained", "DiffusersExport().in_pipeline", "LinearMultistep().local_error",
    "estimate.PASSteps().local_error", "estimate.PASSteps().terminal_law", "estimate.PASSteps().weight_sensitivity",
}  # fmt: skip


def test_hostile_arguments_are_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # some of them are names of files
    calls = [call for call in every() if FULL or not (LONG.search(call.name) or HEAVY.search(call.name))]
    order = np.random.default_rng(0).permutation(len(calls))
    faults = [attempt(calls[order[i % len(calls)]], i) for i in range(CALLS)]
    found = {fault.where: fault for fault in faults if fault is not None}  # one for each place
    assert not found, "\n".join(map(str, found.values()))


@pytest.mark.skipif(not FULL, reason="takes a minute")
def test_plausible_arguments_are_taken(tmp_path, monkeypatch):
    """Else a hostile one beside them is never reached."""
    monkeypatch.chdir(tmp_path)
    for call in every():
        given = call.given()
        if call.name in WITHOUT or not required(call) <= given.keys():
            continue
        with limited(60.0):
            call.function(**given)
