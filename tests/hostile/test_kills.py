"""Long work killed at random moments, on a full disk, and with the power cut: what was reported saved is there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import codesign_opt as co
from codesign_opt.basics import files
from codesign_opt.basics.ledger import Ledger
from codesign_opt.basics.npz import read_npz

FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"
KILLS = 200 if FULL else 4

# items and rows, each told on stdout once it is reported saved
WORK = {
    "ledger": """
from codesign_opt.basics.ledger import Ledger
import numpy as np
ledger = Ledger({folder!r}, {{"seed": 0}})
for i in range(100_000):
    if ledger.get(f"a{{i}}") is None:
        ledger.put(f"a{{i}}", value=np.full(200, float(i)))
    print(i, flush=True)
""",
    "log": """
import codesign_opt as co, numpy as np
rng, place = np.random.default_rng(0), {folder!r} + "/log.csv"
stats = co.LevelStatistics.resume(place, [0.1, 1.0, 10.0])
for i in range(100_000):
    stats.record(np.array([0.3, 3.0]), np.ones(2))
    stats.save(place)
    print(int(sum(row["examples"] for row in stats.rows())), flush=True)
""",
}


def killed(work: str, folder: Path, seconds: float) -> list[int]:
    """Numbers that the work reported saved before it was killed."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    code = WORK[work].format(folder=str(folder))
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment, text=True)
    assert process.stdout is not None
    first = process.stdout.readline()  # the work has begun
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    rest, _ = process.communicate()
    lines = [first, *rest.splitlines(keepends=True)]
    return [int(line) for line in lines if line.endswith("\n") and line.strip()]


def test_a_killed_ledger_has_every_item_that_was_reported(tmp_path):
    for turn in range(KILLS // 2):
        said = killed("ledger", tmp_path, float(np.random.default_rng(turn).uniform(0.0, 0.15)))
        assert said, f"turn {turn} reported nothing"
        ledger = Ledger(tmp_path, {"seed": 0})
        for i in said:
            found = ledger.get(f"a{i}")
            assert found is not None, f"turn {turn}: item {i} was reported saved and is gone"
            assert np.array_equal(found["value"], np.full(200, float(i))), f"turn {turn}, item {i}"


def test_a_killed_log_has_every_row_that_was_reported(tmp_path):
    before = 0.0
    for turn in range(KILLS // 2):
        said = killed("log", tmp_path, float(np.random.default_rng(turn).uniform(0.0, 0.15)))
        found = co.LevelStatistics.resume(tmp_path / "log.csv", [0.1, 1.0, 10.0])
        kept = sum(row["examples"] for row in found.rows())
        assert kept >= max(said) >= before, f"turn {turn}: {kept} examples of {max(said)} reported"
        before = float(max(said))


class PowerCut(BaseException):
    """The power is gone."""


class Disk:
    """What would be on a disk that loses, when the power goes, whatever was not synchronised before."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, cut: int) -> None:
        self.durable: dict[str, bytes] = {}
        self.contents: dict[int, bytes] = {}
        self.names: dict[str, bytes] = {}
        self.left = cut
        real_fsync, real_replace = os.fsync, os.replace

        def fsync(handle: int) -> None:
            self._count()
            real_fsync(handle)
            place = os.readlink(f"/proc/self/fd/{handle}")
            if os.path.isdir(place):  # names of this folder last now, with the contents that were synchronised
                self.durable |= {name: held for name, held in self.names.items() if os.path.dirname(name) == place}
            else:
                self.contents[os.fstat(handle).st_ino] = Path(place).read_bytes()

        def replace(source: str | Path, target: str | Path) -> None:
            self._count()
            node = os.stat(source).st_ino
            real_replace(source, target)
            self.names[str(target)] = self.contents.get(node, b"")  # nothing of it where it was not synchronised
            self._count()

        monkeypatch.setattr(files.os, "fsync", fsync)
        monkeypatch.setattr(files.os, "replace", replace)

    def _count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise PowerCut


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="names of open files are read from /proc")
def test_what_was_reported_saved_outlasts_a_power_cut(tmp_path):
    for cut in range(200 if FULL else 24):
        folder, reported = tmp_path / str(cut), []
        folder.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            disk = Disk(patch, cut)
            try:
                ledger = Ledger(folder, {"seed": 0})
                for i in range(4):
                    ledger.put("a", value=np.full(50, float(i)))
                    reported.append(float(i))
            except PowerCut:
                pass
        for name, content in disk.durable.items():  # whole files, nothing cut off
            place = tmp_path / "after"
            place.write_bytes(content)
            assert name.endswith(".json") or read_npz(place)["value"].size == 50, f"cut {cut}: {name}"
        if reported:
            place = tmp_path / "after"
            place.write_bytes(disk.durable[str(folder / "a.npz")])
            assert read_npz(place)["value"][0] >= reported[-1], f"cut {cut}: item {reported[-1]} is lost"


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 64 KiB."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"a small tmpfs cannot be mounted here: {mounted.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_keeps_what_was_saved_and_leaves_nothing_behind(small_disk):
    ledger, saved = Ledger(small_disk, {"seed": 0}), []

    def fill():
        for i in range(100):
            ledger.put(f"a{i}", value=np.full(1000, float(i)))
            saved.append(i)

    with pytest.raises(OSError, match="No space left"):
        fill()
    assert saved
    for i in saved:
        assert np.array_equal(Ledger(small_disk, {"seed": 0}).get(f"a{i}")["value"], np.full(1000, float(i)))
    assert not list(small_disk.glob("*.part")) + list(small_disk.glob(".*.part"))
