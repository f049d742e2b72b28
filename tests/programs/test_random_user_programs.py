"""Random programs with user parts over twelve decades: never infeasible, never a bound above a feasible value."""

import os

import numpy as np

import codesign_opt as co
from tests.helpers.random_user_programs import Instance

COUNT = 3000 if os.environ.get("CODESIGN_OPT_FULL") == "1" else 3


def verdict(seed):
    """What is wrong with the answer, or "certified"; "infeasible" and a bound above the known point are lies."""
    instance = Instance(seed)
    value = instance.value(instance.problem.objective)
    try:
        proof = instance.problem.solve().certificate
    except co.NotCertifiedError as refused:
        proof = None if refused.plan is None else refused.plan.certificate
        if proof is None or not np.isfinite(proof.lower_bound) or proof.lower_bound <= value + 1e-9 * abs(value):
            return "refused"
    except co.InfeasibleError as error:
        return f"called infeasible: {error}"
    if proof.lower_bound > value + 1e-9 * abs(value):
        return f"lower bound {proof.lower_bound:.9g} above {value:.9g}"
    return "certified"


def test_programs_around_a_feasible_point_are_certified_or_refused_and_never_wrong():
    found = {seed: verdict(seed) for seed in range(COUNT)}
    lies = {seed: said for seed, said in found.items() if said not in ("certified", "refused")}
    assert lies == {}
    assert sum(said == "certified" for said in found.values()) >= 0.99 * COUNT - 1
