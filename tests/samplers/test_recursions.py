"""States of samplers with memory, all steps at once."""

import numpy as np
import pytest

from codesign_opt.samplers.affine_steps import AffineSteps
from codesign_opt.samplers.recursions import Recursion


@pytest.mark.parametrize("count", [1, 2, 7, 40])
@pytest.mark.parametrize("back", [1, 3])
def test_states_and_their_derivatives_are_those_of_one_step_after_the_other(count, back):
    rng = np.random.default_rng(count)
    current, *earlier = rng.uniform(-0.5, 1.0, (1 + back, 2, count, 5))
    found = Recursion(current, earlier)
    states = [np.ones((2, 5))]
    for k in range(count):
        step = current[:, k] * states[k]
        states.append(step + sum(earlier[j][:, k] * states[k - 1 - j] for j in range(min(back, k))))
    states = np.stack(states, axis=1)
    np.testing.assert_allclose(found.forward(1.0), states, rtol=1e-13, atol=1e-15)
    last = rng.normal(size=(2, 5))
    by_state = found.backward(last)
    for k in range(count):  # what the last state owes to each is its own recursion from there
        after = [np.zeros((2, 5))] * k + [np.ones((2, 5))]
        for i in range(k, count):
            step = current[:, i] * after[i]
            after.append(step + sum(earlier[j][:, i] * after[i - 1 - j] for j in range(min(back, i))))
        np.testing.assert_allclose(by_state[:, k], last * after[count], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("batch", [(), (3,), (2, 2), (40, 20)])  # the last has too many rows for one triangle
def test_laws_with_memory_are_the_same_for_real_and_complex_numbers(batch):
    rng = np.random.default_rng(0)
    current, first, second = rng.uniform(-0.5, 1.0, (3, *batch, 9, 4))
    start = rng.uniform(1.0, 2.0, (*batch, 4))
    law, gradient = AffineSteps(current, [first, second]).law_and_gradient(start)
    other, slopes = AffineSteps(current + 0j, [first + 0j, second + 0j]).law_and_gradient(start)
    np.testing.assert_allclose(law.amplitude, other.amplitude.real, rtol=1e-13)
    np.testing.assert_allclose(gradient.by_current, slopes.by_current.real, rtol=1e-12, atol=1e-15)
    for one, two in zip(gradient.by_earlier, slopes.by_earlier, strict=True):
        np.testing.assert_allclose(one, two.real, rtol=1e-12, atol=1e-15)
