"""Data sets of the testbed: read exactly, and damaged files named."""

import gzip

import numpy as np
import pytest
import torch

from codesign_opt import problems
from codesign_opt.testbed import digits, photo_patches
from codesign_opt.testbed.data.fashion_mnist import fashion_mnist


def write_idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + b"".join(int(n).to_bytes(4, "big") for n in array.shape)
    path.write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes()))


@pytest.fixture
def clothes(tmp_path):
    """A folder with a tiny data set in the format of Fashion-MNIST, and its bytes."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (40, 28, 28)), rng.integers(0, 10, 40)
    for prefix in ("train", "t10k"):
        write_idx(tmp_path / f"{prefix}-images-idx3-ubyte.gz", images)
        write_idx(tmp_path / f"{prefix}-labels-idx1-ubyte.gz", labels)
    return tmp_path, images, labels


def test_images_are_the_bytes_of_the_file_scaled_to_one(clothes, monkeypatch):
    folder, images, labels = clothes
    monkeypatch.setenv("CODESIGN_OPT_DATA", str(folder))
    found, classes = fashion_mnist("test")
    assert found.shape == (40, 1, 28, 28)
    assert (found.dtype, classes.dtype) == (np.float32, np.int64)
    np.testing.assert_allclose((found[:, 0] + 1) * 127.5, images, atol=1e-4)
    np.testing.assert_array_equal(classes, labels)


def test_an_absent_data_set_is_answered_with_the_install_command(tmp_path, monkeypatch):
    monkeypatch.setenv("CODESIGN_OPT_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="apt-get install dataset-fashion-mnist"):
        problems.load("fashion_mnist")
    assert problems.title("fashion_mnist") == "Fashion-MNIST, 28 x 28 pixels"
    with pytest.raises(ValueError, match="split is 'validation'"):
        fashion_mnist("validation")


@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.999])
def test_a_truncated_file_is_named(clothes, fraction):
    path = clothes[0] / "train-images-idx3-ubyte.gz"
    content = path.read_bytes()
    path.write_bytes(content[: int(fraction * len(content))])
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte\.gz is truncated"):
        fashion_mnist("train", folder=clothes[0])


def test_malformed_files_are_named(clothes):
    folder = clothes[0]
    images, labels = folder / "train-images-idx3-ubyte.gz", folder / "train-labels-idx1-ubyte.gz"
    good = images.read_bytes()
    images.write_bytes(b"not gzip at all")
    with pytest.raises(ValueError, match=r"images-idx3-ubyte\.gz is truncated or no gzip file"):
        fashion_mnist(folder=folder)
    images.write_bytes(gzip.compress(b"\x00\x00\x0d\x03" + bytes(12)))
    with pytest.raises(ValueError, match="is truncated or no IDX file of bytes in 3 dimensions"):
        fashion_mnist(folder=folder)
    images.write_bytes(gzip.compress(gzip.decompress(good)[:-5]))
    with pytest.raises(ValueError, match=r"holds 31,355 bytes after its header, which promises 31,360"):
        fashion_mnist(folder=folder)
    write_idx(images, np.zeros((40, 14, 14)))
    with pytest.raises(ValueError, match=r"images of \(14, 14\) pixels"):
        fashion_mnist(folder=folder)
    images.write_bytes(good)
    write_idx(labels, np.zeros(39))
    with pytest.raises(ValueError, match="holds 39 labels for the 40 images"):
        fashion_mnist(folder=folder)


def test_the_problem_has_the_covariance_of_the_images(clothes):
    folder, images, _ = clothes
    spectrum = problems.load("fashion_mnist", folder=folder).model.spectrum
    assert spectrum.dimension == 784
    assert spectrum.trace == pytest.approx((images / 127.5).reshape(40, -1).var(axis=0, ddof=1).sum(), rel=1e-6)


def test_the_debian_data_set_is_complete_where_installed():
    try:
        images, labels = fashion_mnist("test")
    except FileNotFoundError as absent:
        pytest.skip(str(absent))
    assert images.shape == (10_000, 1, 28, 28)
    np.testing.assert_array_equal(np.bincount(labels), np.full(10, 1_000))


def test_digits_and_patches_are_rows_between_minus_one_and_one():
    for data, rows in ((digits(), 1_797), (photo_patches(), 14_014)):
        assert data.shape == (rows, 64)
        assert data.dtype == torch.float32
        assert -1 <= float(data.min()) < -0.9
        assert 0.9 < float(data.max()) <= 1
