"""What searching whole steps costs, in moves of a descent: ratios, which loads of the machine leave alone."""

from time import process_time

import numpy as np
import pytest

import codesign_opt as co
from codesign_opt.models.grid_descent import Descent, Descents
from codesign_opt.samplers.recursions import Recursion


def cpu(run, times):
    """Least CPU seconds of so many runs."""
    taken = []
    for _ in range(times):
        begun = process_time()
        run()
        taken.append(process_time() - begun)
    return min(taken)


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("sampler", [co.Euler(), co.Heun(), co.Ancestral(1.0), co.DPMpp2M()], ids=lambda s: s.name)
def test_sixty_steps_are_searched_in_the_time_of_4000_moves_of_one_grid(sampler, trained):
    model = co.GaussianModel(co.Spectrum.power_law(16, exponent=1.5), sampler=sampler)
    asked = {"prices": co.Prices(3.0, 1.0, 1000), "budget": 3e6} if trained else {}

    def moves():
        how = Descent(model.exact_values, model.exact_residuals, enough=0.0)
        Descents(co.edm_grid(60, 0.01, 80.0)[None], how).go(51)

    whole = cpu(lambda: co.codesign(model, steps=60, stopping_sigma=0.01, levels=60, points=8, **asked), 3)
    one = cpu(moves, 5) / 50
    print(f"{sampler.name}, trained {trained}: {whole:.2f} s, {whole / one:.0f} moves of {one * 1e3:.2f} ms")
    assert whole <= 4000 * one


def test_states_of_ninety_eight_steps_at_once_take_a_third_of_one_after_the_other():
    rng = np.random.default_rng(0)
    current, earlier = rng.uniform(0.0, 0.5, (2, 3, 98, 3))

    def one_by_one():
        states = np.ones((99, 3, 3))
        for k in range(98):
            np.multiply(current[:, k], states[k], out=states[k + 1])
            if k:
                states[k + 1] += earlier[:, k] * states[k - 1]

    together = cpu(lambda: Recursion(current, [earlier]).forward(1.0), 50)
    assert together <= cpu(one_by_one, 50) / 3
