"""Every public callable against what nobody should pass: refused by name, never by a failure further inside."""

from __future__ import annotations

import os

import numpy as np

from tests.hostile.attempt import attempt
from tests.hostile.calls import HEAVY, LONG, every

FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"
CALLS = 50_000 if FULL else 160


def test_hostile_arguments_are_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # some of them are names of files
    calls = [call for call in every() if FULL or not (LONG.search(call.name) or HEAVY.search(call.name))]
    order = np.random.default_rng(0).permutation(len(calls))
    faults = [attempt(calls[order[i % len(calls)]], i) for i in range(CALLS)]
    found = {fault.where: fault for fault in faults if fault is not None}  # one for each place
    assert not found, "\n".join(map(str, found.values()))
