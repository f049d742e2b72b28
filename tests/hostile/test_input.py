"""Arrays, numbers and logs that are none, or that no float holds: refused by name."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import codesign_opt as co
from codesign_opt.basics.checks import number, vector
from codesign_opt.ingredients.log_file import log_rows

MODEL = co.GaussianModel(co.Spectrum.power_law(4, exponent=1.5))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: co.Spectrum.from_samples(np.ma.masked_greater(np.eye(4) * 1e9, 1e8)), "masked"),
        (lambda: vector(np.ma.masked_greater([1.0, 1e9], 1e8), "mine"), "mine is a masked"),
        (lambda: co.read_schedule([True, False]), "dtype bool"),
        (lambda: co.read_schedule(np.array([80.0, 1j, 0.0])), "dtype complex"),
        (lambda: co.read_schedule(np.ma.masked_less([80.0, 1.0, 0.0], 0.5)), "masked"),
        (lambda: number(10**400, "mine"), "mine is a whole number beyond"),
        (lambda: number([[1.0], [1.0, 2.0]], "mine"), "mine is"),
        (lambda: vector([[1.0], [1.0, 2.0]], "mine"), "mine is not a rectangular"),
        (lambda: co.Prices(3e300, 1.0, 10), r"Prices\.example is 3e\+300"),
        (lambda: co.Prices(3.0, 1e-300, 10), r"Prices\.evaluation is 1e-300"),
        (lambda: co.codesign(MODEL, co.Prices(3.0, 1.0, 10), 1e160), r"budget is 1e\+160"),
        (lambda: co.EDM(1e-150, 1e150), r"EDM\.sigma_min.*decades"),
    ],
)
def test_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_tensors_that_numpy_does_not_read_count_as_their_numbers():
    for tensor in (torch.ones(2, requires_grad=True), torch.ones(2, dtype=torch.bfloat16)):
        assert vector(tensor, "mine").tolist() == [1.0, 1.0]
        assert number(tensor[0], "mine") == 1.0


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("l.csv", b"examples,sigma,loss\n1,1.0," + b"9" * 200_000),
        ("l.csv", b"examples,sigma,loss\n1,1.0,\xff"),
        ("l.jsonl", b'{"examples": ' + b"[" * 100_000),
        ("l.jsonl", b'{"examples": ' + b"9" * 5_000 + b"}"),
    ],
)
def test_logs_are_refused_by_name(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=str(tmp_path / name)):
        log_rows(tmp_path / name)
