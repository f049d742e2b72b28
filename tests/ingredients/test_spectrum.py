"""Spectra against numpy's covariance, direct sums and hypothesis."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codesign_opt.ingredients.spectrum import Spectrum


def samples_with_covariance(seed, size, dimension, mean=0.0):
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(dimension, dimension)) / np.sqrt(dimension)
    return rng.normal(size=(size, dimension)) @ mixing + mean


def expanded(spectrum):
    return np.repeat(spectrum.eigenvalues, spectrum.counts.astype(int))


# ---------------------------------------------------------------------------------------- constructors


def test_power_law_equals_its_formula_direction_by_direction():
    spectrum = Spectrum.power_law(50, 1.7, scale=3.0)
    assert np.allclose(spectrum.eigenvalues, [3.0 * i**-1.7 for i in range(1, 51)], rtol=1e-14)
    assert spectrum.dimension == len(spectrum) == 50
    assert spectrum.smallest_positive == pytest.approx(3.0 * 50**-1.7)


def test_power_law_of_exponent_zero_is_white():
    assert np.array_equal(Spectrum.power_law(4, 0.0, 2.0).eigenvalues, np.full(4, 2.0))


def test_spiked_has_the_spikes_and_the_noise_and_nothing_else():
    spectrum = Spectrum.spiked(100, [2.0, 9.0], 0.25)
    assert spectrum.eigenvalues.tolist() == [9.0, 2.0, 0.25]
    assert spectrum.counts.tolist() == [1.0, 1.0, 98.0]
    assert spectrum.trace == pytest.approx(11.0 + 98 * 0.25)
    assert len(Spectrum.spiked(2, [2.0, 9.0], 0.25)) == 2


def test_bands_are_sorted_together_with_their_counts_and_means():
    spectrum = Spectrum.from_bands([0.1, 3.0, 0.0], [5, 2, 7], [1.0, 2.0, 3.0])
    assert spectrum.eigenvalues.tolist() == [3.0, 0.1, 0.0]
    assert spectrum.counts.tolist() == [2.0, 5.0, 7.0]
    assert spectrum.mean_power.tolist() == [2.0, 1.0, 3.0]
    assert spectrum.dimension == 14
    assert spectrum.trace == pytest.approx(6.5)
    assert spectrum.sigma_data == pytest.approx(np.sqrt(6.5 / 14))
    assert spectrum.smallest_positive == 0.1


def test_spectrum_is_frozen_and_its_arrays_are_copies_that_cannot_be_written():
    source = np.array([1.0, 2.0])
    spectrum = Spectrum.from_eigenvalues(source)
    source[0] = 99.0
    assert spectrum.trace == 3.0
    with pytest.raises(ValueError, match="read-only"):
        spectrum.eigenvalues[0] = 5.0
    with pytest.raises(AttributeError):
        spectrum.eigenvalues = source


# -------------------------------------------------------------------------------------------- samples


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_samples_give_the_eigenvalues_of_numpys_covariance(dtype):
    x = samples_with_covariance(0, 400, 12, mean=3.0).astype(dtype)
    truth = np.linalg.eigvalsh(np.cov(x.astype(np.float64), rowvar=False))[::-1]
    assert np.allclose(Spectrum.from_samples(x).eigenvalues, truth, rtol=1e-11)


def test_integer_images_are_flattened_and_centred_without_overflow():
    x = np.random.default_rng(1).integers(0, 256, size=(60, 4, 3, 1), dtype=np.uint8)
    truth = np.linalg.eigvalsh(np.cov(x.reshape(60, -1).astype(float), rowvar=False))[::-1]
    assert np.allclose(Spectrum.from_samples(x).eigenvalues, truth, rtol=1e-11)


def test_blocks_do_not_change_the_covariance(monkeypatch):
    import codesign_opt.ingredients.sample_covariance as covariance

    wide, tall = samples_with_covariance(2, 9, 40, mean=1.0), samples_with_covariance(3, 300, 7, mean=1.0)
    whole = [Spectrum.from_samples(x) for x in (wide, tall)]
    monkeypatch.setattr(covariance, "_BLOCK", 64)
    for before, x in zip(whole, (wide, tall), strict=True):
        after = Spectrum.from_samples(x)
        assert np.allclose(after.eigenvalues, before.eigenvalues, rtol=1e-11)
        assert np.allclose(after.mean_power, before.mean_power, rtol=1e-9)


@pytest.mark.parametrize("labelled", [False, True])
def test_fewer_samples_than_dimensions_agree_with_the_full_covariance(labelled):
    x = samples_with_covariance(4, 25, 80, mean=0.7)
    labels = np.arange(25) % 3 if labelled else None
    codes = np.zeros(25, dtype=int) if labels is None else labels
    means = np.stack([x[codes == k].mean(axis=0) for k in np.unique(codes)])
    centred = x - means[codes]
    values, vectors = np.linalg.eigh(centred.T @ centred / (25 - len(means)))
    rank = 25 - len(means)
    power = np.bincount(codes) / 25 @ (means @ vectors[:, ::-1]) ** 2
    spectrum = Spectrum.from_samples(x, labels)
    assert len(spectrum) == rank + 1
    assert np.allclose(spectrum.eigenvalues[:-1], values[::-1][:rank], rtol=1e-10)
    assert spectrum.eigenvalues[-1] == 0.0
    assert spectrum.counts[-1] == 80 - rank
    assert np.allclose(spectrum.mean_power[:-1], power[:rank], rtol=1e-8)
    assert spectrum.mean_power[-1] == pytest.approx(power[rank:].sum(), rel=1e-10)


def test_mean_power_is_the_squared_mean_along_each_eigenvector():
    x = samples_with_covariance(5, 500, 6, mean=np.arange(6.0))
    _, vectors = np.linalg.eigh(np.cov(x, rowvar=False))
    assert np.allclose(Spectrum.from_samples(x).mean_power, (x.mean(axis=0) @ vectors)[::-1] ** 2, rtol=1e-10)


def test_labels_pool_the_covariance_within_classes():
    rng = np.random.default_rng(6)
    x = samples_with_covariance(6, 90, 5) + 10.0 * rng.normal(size=(3, 5))[np.repeat([0, 1, 2], [20, 30, 40])]
    names = np.repeat(["cat", "dog", "owl"], [20, 30, 40])
    scatter = sum((np.sum(names == n) - 1) * np.cov(x[names == n], rowvar=False) for n in np.unique(names))
    truth = np.linalg.eigvalsh(scatter / (90 - 3))[::-1]
    shuffled = rng.permutation(90)
    spectrum = Spectrum.from_samples(x[shuffled], labels=names[shuffled])
    assert np.allclose(spectrum.eigenvalues, truth, rtol=1e-11)
    assert spectrum.trace < 0.5 * Spectrum.from_samples(x).trace


def test_labelled_mean_power_plus_trace_is_the_second_moment():
    x = samples_with_covariance(7, 200, 8, mean=2.0)
    labels = np.arange(200) % 4
    spectrum = Spectrum.from_samples(x, labels)
    within = spectrum.trace * (200 - 4) / 200
    assert within + spectrum.mean_power.sum() == pytest.approx((x**2).sum() / 200, rel=1e-12)


@pytest.mark.parametrize("size", [30, 500])
def test_directions_without_variance_become_one_band_of_zeros(size):
    x = samples_with_covariance(8, size, 4) @ np.random.default_rng(9).normal(size=(4, 40))
    x = x + np.random.default_rng(10).normal(size=40)
    spectrum = Spectrum.from_samples(x)
    assert spectrum.counts.tolist() == [1.0, 1.0, 1.0, 1.0, 36.0]
    assert spectrum.eigenvalues[-1] == 0.0
    assert spectrum.trace == pytest.approx(x.var(axis=0, ddof=1).sum(), rel=1e-10)
    assert spectrum.mean_power.sum() == pytest.approx((x.mean(axis=0) ** 2).sum(), rel=1e-10)


@pytest.mark.parametrize("shape", [(5, 50), (10_000, 3)])
def test_constant_samples_are_refused_rather_than_read_from_rounding(shape):
    with pytest.raises(ValueError, match=r"Spectrum\.samples do not vary"):
        Spectrum.from_samples(np.full(shape, 0.1))


def test_sample_spectrum_is_unbiased_in_the_trace():
    rng = np.random.default_rng(12)
    draws = [Spectrum.from_samples(rng.normal(size=(6, 4)) * [1.0, 2.0, 0.5, 0.1]).trace for _ in range(2000)]
    error = np.std(draws) / np.sqrt(len(draws))
    assert abs(np.mean(draws) - 5.26) < 4 * error


def test_sigma_data_is_accepted_within_ten_percent_and_refused_with_both_numbers_beyond():
    x = samples_with_covariance(13, 300, 10)
    measured = Spectrum.from_samples(x).sigma_data
    for factor in (0.91, 1.0, 1.09):
        Spectrum.from_samples(x, sigma_data=factor * measured)
    for factor in (0.89, 1.11, 255.0):
        stated = factor * measured
        with pytest.raises(ValueError) as caught:
            Spectrum.from_samples(x, sigma_data=stated)
        for part in ("Spectrum.sigma_data", f"{stated:g}", f"{measured:.4g}", "multiply the samples by"):
            assert part in str(caught.value)


def test_the_remedy_in_the_sigma_data_message_works():
    x = samples_with_covariance(14, 300, 10)
    measured = Spectrum.from_samples(x).sigma_data
    Spectrum.from_samples(x * (0.5 / measured), sigma_data=0.5)


# ---------------------------------------------------------------------------------------------- bands


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(st.one_of(st.just(0.0), st.floats(1e-12, 1e12)), st.integers(1, 10**6), st.floats(0.0, 1e6)),
        min_size=1,
        max_size=60,
    ).filter(lambda rows: any(row[0] > 0 for row in rows)),
    st.integers(1, 40),
)
def test_bands_keep_dimension_trace_and_mean_power_and_separate_the_zeros(rows, bands):
    full = Spectrum.from_bands(*map(list, zip(*rows, strict=True)))
    merged = full.in_bands(bands)
    assert merged.dimension == full.dimension == sum(row[1] for row in rows)
    assert merged.trace == pytest.approx(full.trace, rel=1e-13)
    assert merged.mean_power.sum() == pytest.approx(full.mean_power.sum(), rel=1e-13, abs=1e-300)
    zero = merged.eigenvalues == 0
    assert zero.sum() == (1 if any(row[0] == 0 for row in rows) else 0)
    assert merged.counts[zero].sum() == sum(row[1] for row in rows if row[0] == 0)
    assert len(merged) - zero.sum() <= bands
    assert np.all(np.diff(merged.eigenvalues) <= 1e-15 * merged.eigenvalues[:-1])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(1e-9, 1e9), min_size=2, max_size=200), st.integers(1, 30))
def test_bands_are_the_histogram_in_log_lambda(values, bands):
    values = np.array(values)
    merged = Spectrum.from_eigenvalues(values).in_bands(bands)
    if values.size <= bands:
        assert np.array_equal(merged.eigenvalues, np.sort(values)[::-1])
        return
    width = np.log(values.max() / values.min()) / bands
    stop = np.cumsum(merged.counts).astype(int)
    for start, end in zip(np.append(0, stop[:-1]), stop, strict=True):
        group = np.sort(values)[::-1][start:end]
        assert np.log(group[0] / group[-1]) <= width * (1 + 1e-9) + 1e-12
        assert group[-1] * (1 - 1e-12) <= group.mean() <= group[0] * (1 + 1e-12)


def test_bands_equal_a_brute_force_histogram_of_a_power_law():
    full = Spectrum.power_law(500, 1.3)
    logs = np.log(full.eigenvalues)
    edges = np.linspace(logs.min(), logs.max(), 8)
    edges[[0, -1]] += [-1e-9, 1e-9]
    member = np.digitize(logs, edges)
    truth = [full.eigenvalues[member == k].mean() for k in range(7, 0, -1)]
    merged = full.in_bands(7)
    assert np.allclose(merged.eigenvalues, truth, rtol=1e-12)
    assert merged.counts.tolist() == [np.sum(member == k) for k in range(7, 0, -1)]


def test_equal_eigenvalues_merge_into_one_band():
    merged = Spectrum.from_eigenvalues(np.full(9, 0.3)).in_bands(5)
    assert merged.counts.tolist() == [9.0]
    assert merged.eigenvalues[0] == pytest.approx(0.3, rel=1e-15)


def test_bands_that_merge_nothing_return_the_same_object():
    spectrum = Spectrum.from_bands([2.0, 1.0, 0.0], [1, 1, 5])
    assert spectrum.in_bands(2) is spectrum
    assert Spectrum.from_eigenvalues([2.0, 1.0, 0.0, 0.0]).in_bands(8).counts.tolist() == [1.0, 1.0, 2.0]


def test_bands_option_of_samples_is_in_bands():
    x = samples_with_covariance(15, 30, 60, mean=1.0)
    direct, later = Spectrum.from_samples(x, bands=5), Spectrum.from_samples(x).in_bands(5)
    assert len(direct) == 6
    for name in ("eigenvalues", "counts", "mean_power"):
        assert np.array_equal(getattr(direct, name), getattr(later, name))


def test_a_million_directions_take_seconds_and_keep_the_trace():
    start = time.perf_counter()
    values = np.arange(1.0, 1e6 + 1) ** -1.2
    full = Spectrum.from_eigenvalues(values, mean=np.full(10**6, 1e-3))
    merged = full.in_bands(100)
    assert time.perf_counter() - start < 5.0
    assert (full.dimension, len(full), merged.dimension) == (10**6, 10**6, 10**6)
    assert len(merged) <= 100
    assert merged.trace == pytest.approx(float(np.sum(values)), rel=1e-13)
    assert merged.mean_power.sum() == pytest.approx(1.0, rel=1e-12)


# -------------------------------------------------------------------------------------- text and files


def test_dictionary_round_trip_through_json_restores_every_number():
    spectrum = Spectrum.from_samples(samples_with_covariance(16, 10, 30, mean=0.3), bands=4)
    again = Spectrum.from_dict(json.loads(json.dumps(spectrum.to_dict())))
    for name in ("eigenvalues", "counts", "mean_power"):
        assert np.array_equal(getattr(again, name), getattr(spectrum, name))
    assert again.provenance == spectrum.provenance
    assert "10 samples in 30 dimensions" in again.provenance


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"counts": [1]}, r"Spectrum\.eigenvalues is missing"),
        ({"eigenvalues": [1.0]}, r"Spectrum\.counts is missing"),
        ({"eigenvalues": [1.0], "counts": [1], "size": 3}, r"unknown keys \['size'\]"),
        ([1.0], "a mapping is needed"),
    ],
)
def test_wrong_dictionaries_are_refused_by_key(data, message):
    with pytest.raises(ValueError, match=message):
        Spectrum.from_dict(data)


def test_repr_reads_dimension_trace_range_and_bands():
    text = repr(Spectrum.from_bands([1.0, 0.01, 0.0], [2, 8, 90]))
    assert text == (
        "Spectrum(d = 100, trace = 2.08, sigma_data = 0.1442, eigenvalues 1 to 0.01, "
        "90 directions of variance 0, 3 bands)"
    )
    assert "eigenvalue 2, 1 band)" in repr(Spectrum.from_bands([2.0], [3]))


# ------------------------------------------------------------------------------------------ bad input

NAN, INF = float("nan"), float("inf")
BAD_VECTOR = [[NAN], [INF], [-1.0], [[1.0]], [], [True], 1.0, "x", None, [1j], [[1.0], [1.0, 2.0]]]
BAD_POSITIVE = [NAN, INF, -1.0, [1.0], [], True, "1", None]
GOOD = np.array([[0.0, 1.0], [1.0, 0.5], [0.5, -1.0]])


def changed(base, entry):
    out = base.copy()
    out[1, 1] = entry
    return out


@pytest.mark.parametrize("bad", BAD_VECTOR)
@pytest.mark.parametrize(
    ("field", "build"),
    [
        ("eigenvalues", lambda bad: Spectrum(bad, [1])),
        ("eigenvalues", lambda bad: Spectrum.from_bands(bad, [1])),
        ("eigenvalues", Spectrum.from_eigenvalues),
        ("counts", lambda bad: Spectrum.from_bands([1.0], bad)),
        ("spikes", lambda bad: Spectrum.spiked(5, bad, 0.1)),
    ],
)
def test_bad_vectors_are_refused_by_field(field, build, bad):
    with pytest.raises(ValueError, match=rf"Spectrum\.{field}"):
        build(bad)


@pytest.mark.parametrize("bad", [b for b in BAD_VECTOR if b is not None])
def test_bad_mean_power_is_refused_by_field(bad):
    with pytest.raises(ValueError, match=r"Spectrum\.mean_power"):
        Spectrum.from_bands([1.0], [1], bad)


@pytest.mark.parametrize("bad", [[NAN], [INF], [[1.0]], [], [True], [1.0, 2.0], "x", [1e200]])
def test_bad_mean_is_refused_by_field(bad):
    with pytest.raises(ValueError, match=r"Spectrum\.mean"):
        Spectrum.from_eigenvalues([1.0], mean=bad)


@pytest.mark.parametrize("bad", BAD_POSITIVE)
@pytest.mark.parametrize(
    ("field", "build"),
    [
        ("dimension", lambda bad: Spectrum.power_law(bad, 1.0)),
        ("exponent", lambda bad: Spectrum.power_law(3, bad)),
        ("scale", lambda bad: Spectrum.power_law(3, 1.0, bad)),
        ("dimension", lambda bad: Spectrum.spiked(bad, [1.0], 0.1)),
        ("noise", lambda bad: Spectrum.spiked(3, [1.0], bad)),
        ("bands", lambda bad: Spectrum.power_law(3, 1.0).in_bands(bad)),
    ],
)
def test_bad_numbers_are_refused_by_field(field, build, bad):
    with pytest.raises(ValueError, match=rf"Spectrum\.{field}"):
        build(bad)


@pytest.mark.parametrize("field", ["bands", "sigma_data"])
@pytest.mark.parametrize("bad", [b for b in BAD_POSITIVE if b is not None] + [0])
def test_bad_options_of_samples_are_refused_by_field(field, bad):
    with pytest.raises(ValueError, match=rf"Spectrum\.{field}"):
        Spectrum.from_samples(GOOD, **{field: bad})


@pytest.mark.parametrize(
    "bad",
    [
        changed(GOOD, NAN),
        changed(GOOD, INF),
        changed(GOOD, 1e200),
        GOOD > 0,
        GOOD[0],
        GOOD[:1],
        np.zeros((0, 3)),
        np.zeros((3, 0)),
        GOOD * 1j,
        [[1.0], [1.0, 2.0]],
        "x",
        None,
    ],
)
def test_bad_samples_are_refused_by_field(bad):
    with pytest.raises(ValueError, match=r"Spectrum\.samples"):
        Spectrum.from_samples(bad)


@pytest.mark.parametrize(
    "bad",
    [
        [0, 1],
        [],
        0,
        [[0, 1, 0]],
        [0, 1, 2],
        [0, -1, 0],
        [0.0, 1.0, 0.0],
        [NAN, 0.0, 0.0],
        [True, False, True],
        [[0], [0, 1], [0]],
    ],
)
def test_bad_labels_are_refused_by_field(bad):
    with pytest.raises(ValueError, match=r"Spectrum\.labels"):
        Spectrum.from_samples(GOOD, labels=bad)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Spectrum.from_bands([1.0, 2.0], [1]), r"Spectrum\.counts has 1 entries; 2"),
        (lambda: Spectrum.from_bands([1.0], [1.5]), r"Spectrum\.counts is 1\.5 at index 0; whole"),
        (lambda: Spectrum.from_bands([1.0], [0]), r"Spectrum\.counts is 0 at index 0"),
        (lambda: Spectrum.from_bands([1.0], [1e17]), r"Spectrum\.counts sum to 1e\+17"),
        (lambda: Spectrum.from_bands([0.0], [3]), r"Spectrum\.eigenvalues are all 0"),
        (lambda: Spectrum.from_bands([1e308], [100]), r"Spectrum\.eigenvalues overflow"),
        (lambda: Spectrum.power_law(2.5, 1.0), r"Spectrum\.dimension is 2\.5; a whole"),
        (lambda: Spectrum.power_law(10**4, 100.0), r"Spectrum\.exponent is 100: .* underflows"),
        (lambda: Spectrum.spiked(1, [1.0, 2.0], 0.1), r"Spectrum\.spikes has 2 entries; at most dimension"),
        (lambda: Spectrum([1.0], [1], None, 3), r"Spectrum\.provenance is 3"),
        (lambda: Spectrum.power_law(4, 1.0).in_bands(0), r"Spectrum\.bands is 0"),
    ],
)
def test_inconsistent_input_is_refused_with_the_reason(build, message):
    with pytest.raises(ValueError, match=message):
        build()
