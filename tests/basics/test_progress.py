"""Progress: who hears what and when; bars, lines and functions, of every kind of work that takes `progress=`."""

import io
import os
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import codesign_opt as co
from codesign_opt.basics import progress as module
from codesign_opt.basics.progress import teller

FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"
MODEL = co.GaussianModel(co.Spectrum.power_law(8, exponent=1.5), co.EDM(0.01, 20.0), sampler=co.Euler())
PRICES = co.Prices(3.0, 1.0, 100)
QUICK = {"levels": 20, "polish": False}


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """The module's clock, which stands still unless a test moves it."""
    now = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    return now


@pytest.fixture(params=["tqdm", "no tqdm"])
def bars(request, monkeypatch):
    """Whether tqdm is installed."""
    if request.param == "tqdm":
        pytest.importorskip("tqdm")
        return True
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    return False


@pytest.mark.parametrize(
    ("stream", "progress", "waited", "heard"),
    [
        (Terminal, None, 0.0, False),
        (Terminal, None, 3.0, True),
        (io.StringIO, None, 3.0, False),
        (Terminal, False, 3.0, False),
        (Terminal, True, 0.0, True),
        (io.StringIO, True, 0.0, True),
    ],
)
def test_it_is_told_in_a_terminal_once_work_takes_two_seconds(
    stream, progress, waited, heard, bars, clock, monkeypatch
):
    err = stream()
    monkeypatch.setattr(sys, "stderr", err)
    with teller(progress) as tell:
        clock.seconds += waited
        tell("half done", 1, 2)
    assert ("half done" in err.getvalue()) is heard
    assert not heard or err.getvalue().endswith("\n")
    assert ("%|" in err.getvalue()) is (heard and bars and stream is Terminal)


def test_lines_say_how_much_of_how_much_and_how_long_the_rest_takes(clock, monkeypatch):
    err = io.StringIO()
    monkeypatch.setattr(sys, "stderr", err)
    with teller(True) as tell:
        clock.seconds += 10
        tell("first", 1, 4)  # ten seconds each
        clock.seconds += 10
        tell("second", 2, 4)
        tell("in between")  # no more is done than before
        clock.seconds += 380
        tell("third", 3, 4)
        tell("last", 4, 4)
        tell("batches", 500, 1000)  # another count, that begins here
        clock.seconds += 5
        tell("batches", 750, 1000)
        clock.seconds += 5
        tell("of which nobody knows the number", 7)
    assert err.getvalue().splitlines() == [
        "first (1 of 4, 30 s left)", "second (2 of 4, 20 s left)", "in between (2 of 4, 20 s left)",
        "third (3 of 4, 2 min left)", "last (4 of 4)", "batches (500 of 1,000)", "batches (750 of 1,000, 5 s left)",
        "of which nobody knows the number",
    ]  # fmt: skip


def test_a_bar_has_the_total_and_an_estimate_that_counts_the_seconds_of_silence(clock, monkeypatch):
    tqdm = pytest.importorskip("tqdm")
    err, bars = Terminal(), []

    class Kept(tqdm.tqdm):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            bars.append(self)

    monkeypatch.setattr("tqdm.auto.tqdm", Kept)
    monkeypatch.setattr(sys, "stderr", err)
    with teller(None) as tell:
        tell("quick", 1, 4)
        clock.seconds += 30
        tell("slow", 2, 4)
        (bar,) = bars
        assert (bar.n, bar.total, bar.disable) == (2, 4, False)
        assert bar.format_dict["elapsed"] == pytest.approx(30, abs=1)
        tell("counted", 5)
    assert "slow:  50%|" in err.getvalue()
    assert "2/4 [00:30<00:30]" in err.getvalue()
    assert "counted: 5 [" in err.getvalue()
    assert [each.total for each in bars] == [4, None]


def test_a_notebook_watches_though_it_is_no_terminal(clock, monkeypatch):
    err = io.StringIO()
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=object())))
    tell = teller(None)
    clock.seconds += 3
    tell("half done", 1, 2)
    assert err.getvalue() == "half done (1 of 2, 3 s left)\n"


@pytest.mark.parametrize("wrong", ["yes", 3, 1.5])
def test_what_is_no_progress_is_refused(wrong):
    with pytest.raises(ValueError, match=r"progress is .*give True, False, None"):
        co.codesign(MODEL, PRICES, 1e5, progress=wrong, stopping_sigma=0.05, **QUICK)


def _frontier(progress):
    return co.frontier(MODEL, PRICES, [1e4, 3e4], stopping_sigma=0.05, progress=progress, **QUICK).errors


def _codesign(progress):
    return co.codesign(MODEL, PRICES, 1e4, points=4, progress=progress, **QUICK).error


def _compare(progress):
    found = co.compare(MODEL, ["edm", "log_snr"], [5, 8], plan=False, progress=progress)
    return [row.error for row in found.rows]


def _validate(progress):
    plan = co.codesign(replace(MODEL, start="mean"), PRICES, 1e4, stopping_sigma=0.05, progress=False, **QUICK)
    return co.validate(plan, replicas=3, progress=progress).values


def _audit(progress):
    run = co.TrainingRun(co.LogNormal(-1.2, 1.2), 100, 64)
    options = {"points": 4, "progress": progress, **QUICK}
    return co.audit(MODEL, PRICES, sigmas=co.edm_grid(8, 0.01, 20.0), run=run, **options).current["total"]


def _replan(progress):
    rules = co.training.ReplanRules(at=(0.25, 0.5), levels=12)
    run = co.training.Replanner(MODEL, 4_000, rules=rules, progress=progress)
    rng = np.random.default_rng(0)
    for step in range(40):
        sigma = run.training_density.quantile(rng.random(100))
        run.record(sigma, 0.2 * sigma**2 / (1 + sigma**2) * (1 + 300 / (step + 1)) * rng.chisquare(8, 100) / 8)
    return run.training_density.now.share


def _spectrum(progress):
    estimate = pytest.importorskip("codesign_opt.estimate")
    rows = np.random.default_rng(0).standard_normal((40, 3))
    stream = estimate.Stream(batch=10, checkpoint=2, examples=40)
    return estimate.spectrum(rows, stream=stream, progress=progress).spectrum.eigenvalues


def _train(progress):
    torch, testbed = pytest.importorskip("torch"), pytest.importorskip("codesign_opt.testbed")
    torch.manual_seed(0)
    records = testbed.Records(tell=2)
    network = testbed.MLP(2, sigma_data=1.0, width=4)
    rows = torch.randn(32, 2, generator=torch.Generator().manual_seed(0))
    return next(testbed.train(network, rows, iterations=4, records=records, progress=progress).model.parameters())


# what is done and of how much, and how often it is told at least
WORKS = {
    "frontier": (_frontier, 2, 2), "codesign": (_codesign, 4, 5), "compare": (_compare, 2, 2),
    "validate": (_validate, 3, 3), "audit": (_audit, 3, 6), "replan": (_replan, 4_000, 2),
    "spectrum": (_spectrum, 40, 2), "train": (_train, 4, 2),
}  # fmt: skip


@pytest.mark.parametrize("name", WORKS)
def test_a_function_hears_of_all_work_and_changes_nothing(name):
    work, total, least = WORKS[name]
    heard = []
    found = work(lambda done, total, text: heard.append((done, total, text)))
    assert len(heard) >= least
    done = [each[0] for each in heard]
    assert done == sorted(done)
    assert {each[1] for each in heard} == {total}
    assert done[-1] == (total if name != "replan" else 2_000)  # the last plan is at half of the run
    assert all(isinstance(text, str) and text for *_, text in heard)
    if FULL or name in ("frontier", "train", "compare"):
        lines = []
        again = work(lines.append)  # a function of the text alone
        assert lines == [text for *_, text in heard]
        np.testing.assert_array_equal(np.asarray(_plain(again)), np.asarray(_plain(found)))


def _plain(found):
    return found.detach().numpy() if hasattr(found, "detach") else found


def test_an_interrupt_ends_the_work_and_the_bars_line(clock, monkeypatch):
    pytest.importorskip("tqdm")
    err = Terminal()
    monkeypatch.setattr(sys, "stderr", err)

    def stop(*arguments):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _frontier(stop)
    with pytest.raises(KeyboardInterrupt):
        _begun(stop)
    assert err.getvalue().endswith("\n")


def _begun(stop):
    with teller(True) as tell:
        tell("begun", 1, 9)
        stop()


def test_parts_of_a_whole_tell_their_texts(clock):
    heard = []
    tell = teller(lambda done, total, text: heard.append((done, total, text)))
    teller(tell.within(2, 3, "audit"))("stopping sigma 0.1", 5, 24)
    assert heard == [(2, 3, "audit: stopping sigma 0.1")]
    assert teller(False).within(1, 2) is False
