"""A folder of measurements is of a denoiser, known by its answers: its name may change, another one is refused."""

import numpy as np
import pytest
import torch

import codesign_opt as co
from codesign_opt.estimate import Denoiser, Draws, Measurement, Reference, error_left, measured_error, network
from codesign_opt.estimate import sensitivity as measured_sensitivity
from codesign_opt.estimate.runs.step_rule import StepRule
from codesign_opt.estimate.steps.grid_descent import descend_grid
from codesign_opt.estimate.steps.responses import step_responses, truncation_error
from codesign_opt.testbed import LinearDenoiser

LAM = np.array([2.0, 0.5, 0.03])
LIKE = torch.zeros((), dtype=torch.float64)
DRAWS = Draws((3,), 4, 10.0, like=LIKE)
LEVELS = [0.1, 1.0]


def examples():
    rows = torch.randn(400, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return rows * torch.tensor(LAM).sqrt()


def asked(name, scale=1.0):
    return Denoiser(LinearDenoiser(scale * LAM), name=name)


def reference(denoiser):
    return Reference(denoiser, co.Euler(), DRAWS, 0.02, steps=8)


def direction(denoiser):
    return lambda x, sigma: denoiser(x, sigma)


MEASUREMENTS = {
    "accuracy": lambda one, folder: reference(one).accuracy(folder=folder).value,
    "truncation": lambda one, folder: truncation_error(reference(one), LEVELS, folder=folder).value,
    "responses": lambda one, folder: step_responses(
        reference(one), LEVELS, StepRule.relative(0.4), folder=folder
    ).gram.value,
    "grid error": lambda one, folder: measured_error(
        reference(one), co.edm_grid(3, 0.02, 10.0), folder=folder
    ).errors,
    "descent": lambda one, folder: descend_grid(
        reference(one), Draws((3,), 4, 10.0, name="other", like=LIKE), [co.edm_grid(3, 0.02, 10.0)],
        budget=300, folder=folder,
    ).sigmas,
    "sensitivity": lambda one, folder: measured_sensitivity(reference(one), LEVELS, folder=folder).gain.value,
    "direction": lambda one, folder: measured_sensitivity(
        reference(asked("fixed")), LEVELS, direction=direction(one), folder=folder
    ).gain.value,
    "left": lambda one, folder: error_left(asked("a", 0.5), one, examples(), LEVELS, folder=folder).value,
}  # fmt: skip


@pytest.mark.cases(2)
@pytest.mark.parametrize("what", list(MEASUREMENTS))
def test_a_folder_goes_on_under_another_name_and_refuses_another_function_of_the_same_name(what, tmp_path):
    measure = MEASUREMENTS[what]
    first = asked("one")
    found = measure(first, tmp_path)
    again = asked("another name")
    np.testing.assert_array_equal(measure(again, tmp_path), found)
    assert again.calls <= min(4, first.calls - 1)  # that it is the same was asked, nothing more
    with pytest.raises(ValueError, match="holds results of another"):
        measure(asked("one", 0.5), tmp_path)


def test_denoisers_that_differ_at_low_noise_alone_are_told_apart(tmp_path):
    """Answers there are small against those of high noise."""
    linear = LinearDenoiser(LAM)
    truncation_error(reference(linear), LEVELS, folder=tmp_path)
    other = Denoiser(lambda x, sigma: linear(x, sigma) * torch.where(sigma < 0.05, 0.5, 1.0)[:, None], name="linear")
    with pytest.raises(ValueError, match="another denoiser"):
        truncation_error(reference(other), LEVELS, folder=tmp_path)


def test_a_network_resumed_under_another_name_measures_nothing_again_its_accuracy_neither(tmp_path):
    said, size = [], {"levels": 8, "draws": 8, "fine_steps": 8, "evaluations": 3_000}
    options = {"seed": 1, "folder": tmp_path}

    def clean(x, sigma):
        return LinearDenoiser(LAM)(x, sigma)

    first = network(clean, examples(), measurement=Measurement(**size), **options)
    again = Denoiser(lambda x, sigma: clean(x, sigma))
    model = network(again, examples(), measurement=Measurement(progress=said.append, **size), **options)
    np.testing.assert_array_equal(model.responses, first.responses)
    assert model.estimation.fine_accuracy == first.estimation.fine_accuracy > 0
    for part, solutions in (("fine solution", 2), ("truncation", 1), ("responses", 1)):
        line = next(text for text in said if text.startswith(part))
        assert line.startswith(f"{part}: {4 * solutions} batch evaluations"), line
    assert again.calls < 50  # 194 and more before it was refused
