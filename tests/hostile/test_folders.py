"""Folders of results: other denoisers, data and questions are refused, the same ones are not; damage is seen."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch

import codesign_opt as co
from codesign_opt.basics.ledger import Ledger
from codesign_opt.basics.npz import read_npz
from codesign_opt.estimate import Denoiser, DenoiserError, spectrum
from codesign_opt.estimate.denoisers.pure import check_pure
from codesign_opt.estimate.denoisers.same_denoiser import check_same_denoiser
from tests.hostile.damage import DAMAGES

FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"
LEVELS = np.geomspace(0.002, 80.0, 16)


class Net(torch.nn.Module):
    """A small network with EDM's preconditioning."""

    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.layers = torch.nn.Sequential(torch.nn.Linear(13, 64), torch.nn.SiLU(), torch.nn.Linear(64, 12))

    def forward(self, x, sigma):
        s = sigma.to(x.dtype)[:, None]
        scale = (s**2 + 0.25).rsqrt()
        out = self.layers(torch.cat([scale * x, s.log() / 4], dim=1))
        return 0.25 * scale**2 * x + 0.5 * s * scale * out


def states(seed, dtype=torch.float32):
    return torch.randn(4, 12, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def opened(folder, function, at):
    check_same_denoiser(Denoiser.of(function), LEVELS, at, folder, {"seed": 0})


def foreign(net, size):
    other = Net(0)
    other.load_state_dict(net.state_dict())
    with torch.no_grad():
        for p in other.parameters():
            p.mul_(1 + size)
    yield "weights", other
    yield "scaled", lambda x, sigma: (1 + size) * net(x, sigma)
    yield "shifted", lambda x, sigma: net(x, sigma) + size * x
    low = LEVELS[2]
    yield "at low noise", lambda x, sigma: torch.where(sigma[:, None] < low, 1 + size, 1.0) * net(x, sigma)


@pytest.mark.parametrize("size", [1.5e-2, 1e-3, 1e-4])
def test_foreign_denoisers_are_refused_down_to_a_ten_thousandth(tmp_path, size):
    for seed in range(10 if FULL else 1):
        net = Net(seed)
        folder = tmp_path / str(seed)
        opened(folder, net, states(seed))
        for name, other in foreign(net, size):
            with pytest.raises(ValueError, match="another denoiser"):
                opened(folder, other, states(seed)), print(f"taken for the same: {name}, size {size}, seed {seed}")


def test_reloads_other_threads_and_other_names_are_no_other_denoisers(tmp_path):
    before = torch.get_num_threads()
    for seed in range(10 if FULL else 2):
        net, again = Net(seed), Net(seed + 100)
        folder = tmp_path / str(seed)
        opened(folder, net, states(seed))
        again.load_state_dict(net.state_dict())
        opened(folder, again, states(seed))
        opened(folder, lambda x, sigma, net=net: net(x, sigma), states(seed))
        opened(folder, lambda x, sigma, net=net: net.double()(x.double(), sigma).float(), states(seed))  # other sums
        net.float()
        try:
            torch.set_num_threads(1 if before > 1 else 2)
            opened(folder, net, states(seed))
        finally:
            torch.set_num_threads(before)
        half = Net(seed).to(torch.bfloat16)
        opened(tmp_path / f"half {seed}", half, states(seed))
        opened(tmp_path / f"half {seed}", lambda x, sigma, half=half: half(x.bfloat16(), sigma).float(), states(seed))


def test_answers_at_random_are_refused_down_to_half_a_per_cent():
    noise = torch.Generator().manual_seed(0)
    net = Net(0)

    def shaky(x, sigma):
        return net(x, sigma) * (1 + 5e-3 * torch.randn(x.shape, generator=noise))

    check_pure(Denoiser(net), states(0), 0.5)
    with pytest.raises(DenoiserError, match="random"):
        check_pure(Denoiser(shaky), states(0), 0.5)


@pytest.mark.parametrize("form", ["tensor", "list", "dataset"])
def test_data_changed_anywhere_are_other_data(tmp_path, form):
    rows = torch.randn(96, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    changed = rows.clone()
    changed[40:] *= 6.0
    kinds = {
        "tensor": lambda x: x,
        "list": lambda x: list(x.split(16)),
        "dataset": lambda x: torch.utils.data.TensorDataset(x),
    }
    first = spectrum(kinds[form](rows), folder=tmp_path).spectrum.trace
    assert spectrum(kinds[form](rows.clone()), folder=tmp_path).spectrum.trace == first
    with pytest.raises(ValueError, match="holds results for data"):
        spectrum(kinds[form](changed), folder=tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"3", b"\xff\xfe", b"[" * 100_000])
def test_a_damaged_question_is_refused_and_left_as_it_is(tmp_path, content):
    Ledger(tmp_path, {"sampler": "heun"}).put("a", value=1.0)
    path = tmp_path / "question.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"question|holds results"):
        Ledger(tmp_path, {"sampler": "euler"})
    assert path.read_bytes() == content
    path.unlink()
    with pytest.raises(ValueError, match=r"question\.json is gone"):
        Ledger(tmp_path, {"sampler": "euler"})


def test_a_folder_deleted_during_a_run_is_made_again_with_its_question(tmp_path):
    folder = tmp_path / "results"
    ledger = Ledger(folder, {"seed": 0})
    ledger.put("a", value=1.0)
    shutil.rmtree(folder)
    ledger.put("b", value=2.0)
    assert float(Ledger(folder, {"seed": 0}).get("b")["value"]) == 2.0
    with pytest.raises(ValueError, match="seed"):
        Ledger(folder, {"seed": 1})
    shutil.rmtree(folder)
    Ledger(folder, {"seed": 1})
    with pytest.raises(ValueError, match="seed"):
        ledger.put("c", value=3.0)


def _open(folder, value, said):
    try:
        ledger = Ledger(folder, {"value": value})
    except ValueError:
        said.put((value, None))
    else:
        said.put((value, float(ledger.item("a", lambda: {"value": value})["value"])))


def test_two_openings_at_once_never_hand_out_each_others_values(tmp_path):
    context = multiprocessing.get_context("fork")
    for turn in range(300 if FULL else 4):
        said = context.Queue()
        pair = [context.Process(target=_open, args=(tmp_path / str(turn), value, said)) for value in (1.0, 2.0)]
        for one in pair:
            one.start()
        found = dict(said.get(timeout=30) for _ in pair)
        for one in pair:
            one.join()
        assert sorted(found, key=lambda v: found[v] is None)[0] in found.values(), f"turn {turn}: {found}"
        assert all(got in (None, value) for value, got in found.items()), f"turn {turn}: {found}"
        assert list(found.values()).count(None) == 1, f"turn {turn}: {found}"


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_item_is_measured_again(tmp_path, kind):
    ledger, truth = Ledger(tmp_path, {}), np.linspace(0.0, 1.0, 50)
    ledger.put("a", value=truth, count=np.array(3))
    content = (tmp_path / "a.npz").read_bytes()
    for seed in range(5000 if FULL else 60):
        (tmp_path / "a.npz").write_bytes(DAMAGES[kind](content, np.random.default_rng(seed)))
        found = ledger.get("a")
        if found is not None and {"value", "count"} <= set(found):
            assert np.array_equal(found["value"], truth), f"damage.{kind}, seed {seed}"
            assert found["count"] == 3, f"damage.{kind}, seed {seed}"


def test_an_archive_that_unpacks_to_gigabytes_is_refused_unread(tmp_path):
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.npy", "w", force_zip64=True) as f:
        np.lib.format.write_array_header_1_0(f, {"descr": "<f8", "fortran_order": False, "shape": (10_000_000,)})
        for _ in range(80):
            f.write(bytes(1_000_000))
    with pytest.raises(ValueError, match="would unpack to"):
        read_npz(path)
    with zipfile.ZipFile(path, "w") as archive, archive.open("a.npy", "w") as f:
        np.lib.format.write_array_header_1_0(f, {"descr": "<f8", "fortran_order": False, "shape": (10**12,)})
    with pytest.raises(ValueError, match="bytes for shape"):
        read_npz(path)


def test_comparisons_tell_spectra_apart_by_every_band(tmp_path):
    base = co.Spectrum([1.0, 0.1], [2, 2])
    one, two = (replace(base, mean_power=power) for power in ([3.0, 0.5], [0.5, 3.0]))
    found = []
    for spectrum_ in (one, two):
        model = co.GaussianModel(spectrum_, start="noise")
        found.append(json.dumps(model.describe()))
    assert found[0] != found[1]
