"""Measurements of spectra among several processes, interrupted, resumed, on bad data and with bad options."""

import os

import numpy as np
import pytest
import torch

from codesign_opt.basics.errors import CodesignError
from codesign_opt.estimate.draws.streams import Stream
from codesign_opt.estimate.spectra.measure import spectrum
from codesign_opt.estimate.spectra.methods import Lanczos, SpectrumMethod
from codesign_opt.estimate.spectra.passes import DataEndedEarly
from tests.helpers.gaussian_data import LANCZOS, gaussian, sample_eigenvalues
from tests.helpers.processes import of_two

FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"


def answers(folder=None):
    """All methods on the same data."""
    rows = gaussian(np.arange(1, 37) ** -1.0, 500, 17)
    stream = Stream(batch=40, checkpoint=3)
    found = [
        spectrum(rows, method="exact", stream=stream),
        spectrum(rows, bands=6, stream=stream, method=LANCZOS),
        spectrum(rows.reshape(500, 1, 6, 6), method="radial", folder=folder, stream=stream),
    ]
    return [np.concatenate([f.spectrum.eigenvalues, f.standard_error, [f.error_bound, f.trace]]) for f in found]


def one_of_two(folder):
    found, refused = answers(folder), ""
    try:
        spectrum(torch.randn(8, 2, generator=torch.Generator().manual_seed(torch.distributed.get_rank())))
    except ValueError as error:
        refused = str(error)
    return found, refused


@pytest.mark.skipif(not FULL, reason="two processes: one estimator of each kind does")
def test_two_processes_give_the_result_of_one(tmp_path):
    expected = answers()
    for found, refused in of_two(one_of_two, tmp_path, str(tmp_path / "sums")):
        for ours, theirs in zip(expected, found, strict=True):
            assert np.abs(ours - theirs).max() <= 1e-10 * np.abs(ours).max()
        assert "different first batches" in refused


class Killed(Exception):
    pass


def interrupted(parts, after):
    """A callable data set that dies after so many batches altogether."""
    left = [after]

    def batches():
        for part in parts:
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            yield part

    return batches


@pytest.mark.cases(1)
@pytest.mark.parametrize("method", ["exact", "lanczos", "radial"])
def test_killed_at_any_moment_it_goes_on_to_the_same_result(method, tmp_path):
    parts = gaussian(np.arange(1, 26) ** -1.0, 300, 18).reshape(300, 1, 5, 5).split(20)
    lanczos = Lanczos(top=2, steps=5, probes=2)
    options = {"stream": Stream(checkpoint=4), "method": lanczos if method == "lanczos" else method}
    expected = spectrum(interrupted(parts, 10**9), **options)
    draw = np.random.default_rng(19)
    for turn in range(20 if FULL else 6):
        folder = tmp_path / str(turn)
        for _ in range(200):
            try:
                after = int(draw.integers(2, 160 if method == "lanczos" else 24))
                found = spectrum(interrupted(parts, after), folder=folder, **options)
                break
            except Killed:
                pass
        for name in ("eigenvalues", "counts", "mean_power"):
            assert np.array_equal(getattr(found.spectrum, name), getattr(expected.spectrum, name))
        assert np.array_equal(found.standard_error, expected.standard_error)


def test_data_that_end_early_say_how_many_were_seen_and_lose_nothing(tmp_path):
    rows = gaussian(np.ones(4), 100, 20)
    parts = list(rows.split(10))
    options = {"stream": Stream(examples=100, checkpoint=2), "folder": tmp_path}
    with pytest.raises(DataEndedEarly, match=r"ended after 50 examples of 100; the sums so far are kept") as caught:
        spectrum(iter(parts[:5]), **options)
    assert isinstance(caught.value, CodesignError)
    partial = caught.value.estimate()
    assert partial.count == 50
    assert np.allclose(partial.spectrum.eigenvalues, sample_eigenvalues(rows[:50]))
    assert np.array_equal(spectrum(iter(parts), **options).spectrum.eigenvalues,
                          spectrum(iter(parts), stream=Stream(checkpoint=2)).spectrum.eigenvalues)  # fmt: skip


def test_later_passes_that_end_early_are_named():
    rows = gaussian(np.ones(12), 100, 21)
    used = iter(list(rows.split(10)))
    with pytest.raises(ValueError, match="ended after 0 examples of 90"):
        spectrum(lambda: used, method=Lanczos(top=2))
    with pytest.raises(ValueError, match="can be read only once"):
        spectrum(iter(rows.split(10)), method="lanczos")


def test_an_endless_stream_is_cut_at_the_stated_number_of_examples():
    def stream():
        number = 0
        while True:
            yield gaussian(np.ones(3), 16, number, rotate=False)
            number += 1

    assert spectrum(stream, stream=Stream(examples=100)).count == 100


BAD = [
    ({"data": torch.ones(50, 3)}, "do not vary"),
    ({"data": torch.ones(50, 3) + 0.1, "method": "lanczos"}, "do not vary"),
    ({"data": torch.ones(10)}, r"shape \(10,\)"),
    ({"data": torch.ones(1, 3)}, "1 example; a covariance needs at least 2"),
    ({"data": torch.ones(0, 3)}, "no examples"),
    ({"data": "images"}, "data is str"),
    ({"data": 3.0}, "data is float"),
    ({"data": [torch.ones(4, 3), torch.ones(4, 2)]}, r"batch 1 has shape \(4, 2\)"),
    ({"data": [torch.randn(4, 3), torch.full((4, 3), torch.nan)]}, "batch 1 has 12 entries that are not finite"),
    ({"data": [object()]}, "batch 0 is object"),
    ({"data": torch.ones(4, 3, dtype=torch.complex64)}, "complex64"),
    ({"data": torch.randn(9, 3), "method": "radial"}, r"needs images \(N, C, H, W\)"),
    ({"data": torch.randn(9, 3), "method": "svd"}, "method is 'svd'"),
    ({"data": torch.randn(9, 3), "bands": 0}, "bands is 0"),
    ({"data": torch.randn(9, 3), "features": 3}, "features is int"),
    ({"data": torch.randn(9, 3), "features": lambda x: x.sum()}, r"features gave \(\) for a batch of 9"),
    ({"data": torch.randn(9, 3), "features": lambda x: x / 0}, "not finite"),
    ({"data": torch.randn(9, 3), "features": torch.nn.Sequential(torch.nn.Dropout())}, r"features\.0 is Dropout"),
    ({"data": iter([torch.randn(4, 5000)])}, "5,000 dimensions need several passes"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=range(len(BAD)))
def test_bad_input_is_refused_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        spectrum(**arguments)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Lanczos(probes=1), r"Lanczos\.probes is 1; it must be >= 2"),
        (lambda: Lanczos(steps=0), r"Lanczos\.steps is 0"),
        (lambda: Lanczos(top=2.5), r"Lanczos\.top is 2\.5"),
        (lambda: Stream(examples=1), r"Stream\.examples is 1"),
        (lambda: Stream(batch=0), r"Stream\.batch is 0"),
        (lambda: Stream(checkpoint=None), r"Stream\.checkpoint is None"),
        (lambda: Stream(device="abacus"), r"Stream\.device is 'abacus'"),
    ],
)
def test_options_out_of_range_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_method_of_ones_own_is_asked_for_the_spectrum_and_its_options_tell_folders_apart(tmp_path):
    class Trace(SpectrumMethod):
        """One band: the mean variance, from the first batch alone."""

        name = "trace"

        def __init__(self, share):
            self.share = share

        def estimate(self, passes, *, seed, bands):
            rows = passes.source.first
            return self.share * float(rows.var(dim=0).mean())

        def question(self):
            return {"share": self.share}

    rows = gaussian(np.ones(4), 60, 22)
    assert spectrum(rows, method=Trace(0.5), folder=tmp_path) == pytest.approx(float(rows.var(dim=0).mean()) / 2)
    with pytest.raises(ValueError, match=r"results for share = 0\.5, not 1"):
        spectrum(rows, method=Trace(1.0), folder=tmp_path)


def test_sums_of_other_data_or_options_are_refused(tmp_path):
    rows = gaussian(np.ones(4), 60, 22)
    spectrum(rows, folder=tmp_path)
    assert spectrum(rows, folder=tmp_path, bands=1).spectrum.counts.tolist() == [4.0]  # bands are formed afterwards
    with pytest.raises(ValueError, match="for data"):
        spectrum(rows.flip(0), folder=tmp_path)
    with pytest.raises(ValueError, match="seed"):
        spectrum(rows, folder=tmp_path, seed=1)


def test_progress_and_repr_say_what_is_done():
    told = []
    stream = Stream(batch=10, checkpoint=2, examples=60)
    found = spectrum(gaussian(np.ones(4), 60, 23), stream=stream, progress=lambda *three: told.append(three))
    assert told == [(done, 60, "covariance, pass 1: examples") for done in (20, 40, 60)]
    assert repr(found).startswith("SpectrumEstimate(exact, 60 examples, 1 passes, trace = ")
