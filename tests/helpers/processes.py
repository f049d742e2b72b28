"""Work that two processes share: this one and one more, so that only one interpreter has to be started."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]
OTHER = """
import pickle, sys
from tests.helpers.processes import joined
import importlib
with open(sys.argv[1], "rb") as file:
    module, name, arguments = pickle.load(file)
found = joined(1, sys.argv[1] + ".meet", getattr(importlib.import_module(module), name), arguments)
with open(sys.argv[1] + ".found", "wb") as file:
    pickle.dump(found, file)
"""


def joined(rank, meeting, work, arguments):
    """What `work` returns in one of two processes."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    try:
        return work(*arguments)
    finally:
        torch.distributed.destroy_process_group()


def of_two(work, folder, *arguments):
    """What a function of a test file returns here (rank 0) and in another process (rank 1)."""
    task = str(folder / "task")
    with open(task, "wb") as file:
        pickle.dump((work.__module__, work.__name__, arguments), file)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen([sys.executable, "-c", OTHER, task], env=environment, cwd=ROOT) as other:
        ours = joined(0, task + ".meet", work, arguments)
    assert other.returncode == 0
    with open(task + ".found", "rb") as file:
        return ours, pickle.load(file)
