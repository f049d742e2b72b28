"""One way to write a file: whole or not at all, under a name of its own, synced; locks between processes."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest

import codesign_opt as co
from codesign_opt.basics import files
from codesign_opt.basics.files import locked, replacing, write_whole
from codesign_opt.cli import main


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = write_whole(tmp_path / "a.txt", "old")

    def half_a_write() -> None:
        with replacing(path) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        half_a_write()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_link_stays_and_files_of_likely_names_are_left_alone(tmp_path: Path) -> None:
    bystander = write_whole(tmp_path / "precious", "mine")
    (tmp_path / "plan.json.part").symlink_to(bystander)
    real = write_whole(tmp_path / "real.json", "old")
    (tmp_path / "plan.json").symlink_to(real)
    write_whole(tmp_path / "plan.json", "new")
    assert bystander.read_text() == "mine"
    assert (tmp_path / "plan.json").is_symlink()
    assert real.read_text() == "new"


def test_file_and_folder_are_synced_before_it_is_called_written(tmp_path: Path, monkeypatch) -> None:
    done: list[str] = []
    sync, move = os.fsync, os.replace
    monkeypatch.setattr(files.os, "fsync", lambda handle: (done.append("sync"), sync(handle))[1])
    monkeypatch.setattr(files.os, "replace", lambda *names: (done.append("rename"), move(*names))[1])
    write_whole(tmp_path / "a", b"x")
    assert done == ["sync", "rename", "sync"]


def test_rights_are_those_of_any_new_file(tmp_path: Path) -> None:
    write_whole(tmp_path / "a", b"x")
    (tmp_path / "b").write_bytes(b"x")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def _count(path: str, times: int) -> None:
    for _ in range(times):
        with locked(path):
            value = int(Path(path).read_text())
            write_whole(path, str(value + 1))


def _log(path: str, run: int) -> None:
    stats = co.LevelStatistics([0.1, 1.0, 10.0], run=str(run))
    for step in range(6):
        stats.record(np.array([0.2, 2.0]), np.array([1.0 + run, 2.0 + step]))
        stats.save(path)


@pytest.mark.parametrize(("work", "each"), [(_count, 10), (_log, None)])
def test_eight_writers_lose_nothing(tmp_path: Path, work, each) -> None:
    path = write_whole(tmp_path / "log.csv", "0" if each else "")
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=work, args=(str(path), each or i)) for i in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0] * 8
    if each:
        assert int(path.read_text()) == 80
    else:
        kept = [co.LevelStatistics.resume(path, [0.1, 1.0, 10.0], run=str(i)) for i in range(8)]
        assert [stats.examples for stats in kept] == [12] * 8


@pytest.mark.parametrize("name", ["l.csv", "l.jsonl"])
def test_pure_noise_is_left_out_and_said_and_the_log_goes_on(tmp_path: Path, name: str) -> None:
    t, path = np.array([0.2, 0.6, 1.0]), tmp_path / name
    stats = co.LevelStatistics([0.1, 1.0, 10.0])
    with np.errstate(divide="ignore"):
        stats.record(t / (1 - t), np.array([1.0, 1e200, 1.0]))
    with pytest.warns(UserWarning, match="2 noise levels or losses are not finite"):
        stats.save(path)
    stats.save(path)
    again = co.LevelStatistics.resume(path, [0.1, 1.0, 10.0])
    again.record(np.array([0.5]), np.ones(1))
    again.save(path)
    assert again.examples == 4
    assert sum(row["examples"] for row in again.rows()) == 2


def test_plans_of_neighbouring_budgets_have_files_of_their_own(tmp_path: Path, capsys, monkeypatch) -> None:
    budgets, model = np.array([1e6, 1e6 + 1, 1e6 + 2.5]), co.GaussianModel(co.Spectrum([1.0], [4.0]), start="mean")
    plan = co.codesign(model, co.Prices(3.0, 1.0, 100), 1e4, steps=4, stopping_sigma=0.1, levels=12)
    monkeypatch.setattr(co, "frontier", lambda *_, **__: co.Frontier("budget", budgets, (plan,) * 3, {}))
    arguments = ["frontier", "power_law_64", "--budgets", "1000000,1000001,1000002.5", "--out", str(tmp_path)]
    assert main(arguments) == 0
    assert {f"plan_budget_{budget}.json" for budget in ("1000000", "1000001", "1000002.5")} <= set(os.listdir(tmp_path))
    assert "is replaced" not in capsys.readouterr().err
    main(arguments)
    assert capsys.readouterr().err.count("is replaced") == 3


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="a folder where nothing can be made")
def test_where_no_lock_can_be_made_it_is_said_at_once():
    statistics = co.LevelStatistics([0.1, 1.0, 10.0])
    statistics.record(np.array([0.5]), np.array([1.0]))
    with pytest.raises(OSError, match="lock"):
        statistics.save("/proc/self/log.csv")
