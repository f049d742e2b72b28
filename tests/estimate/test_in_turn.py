"""Conditions in turn, and those that lie between them: guidance weights are quantities, labels are not."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from codesign_opt.estimate import Denoiser, conditioned, guided, mixed
from codesign_opt.estimate.denoisers.in_turn import filled
from codesign_opt.estimate.denoisers.same_denoiser import check_same_denoiser


def told(x, sigma, **conditions):
    """What each image of a batch is told, as the answer: the product of its conditions."""
    columns = [table.reshape(len(x), -1).sum(1) for table in conditions.values()]
    return torch.stack(columns).prod(0)[:, None].to(x.dtype)


def doubled(x, sigma):
    return 2 * x


def tripled(x, sigma):
    return 3 * x


def answers(denoiser, count):
    return denoiser(torch.ones(count, 1, dtype=torch.float64), 1.0).flatten().tolist()


# ---- conditions of a network ----


def test_between_numbers_lie_others_and_between_labels_none():
    weights = torch.tensor([1.0, 5.0, 1.0, 5.0, 2.0, 2.0], dtype=torch.float64)
    labels = torch.tensor([1, 1, 10, 10, 1, 10])
    both = conditioned(told, label=labels, weight=weights)
    more = filled(both, 100)
    assert answers(more, 11) == [1, 5, 10, 50, 2, 20, 1.5, 2.75, 17.5, 23.75, 1]
    assert (both.conditions, more.conditions) == (6, 10)
    assert filled(both, 9) is both  # no room in a batch
    for nothing in (
        conditioned(told, label=labels),
        conditioned(told, weight=torch.ones(3)),
        conditioned(told, embedding=torch.rand(3, 4)),
        conditioned(told, label=torch.arange(2), weight=torch.tensor([1.0, 3.0])),  # no label has two weights
        mixed([doubled, tripled]),
        Denoiser(doubled),
    ):
        assert filled(nothing, 100) is nothing


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_every_condition_is_met_as_often_and_those_between_lie_between(data):
    """Random tables: each gap between neighbours is met once, strictly inside; the given rows come first, in order."""
    count = data.draw(st.integers(1, 12))
    labels = data.draw(st.lists(st.integers(1, 3), min_size=count, max_size=count))
    weights = data.draw(st.lists(st.sampled_from([0.5, 1.0, 1.25, 4.0, 7.5]), min_size=count, max_size=count))
    own = conditioned(told, label=100 ** torch.tensor(labels), weight=torch.tensor(weights, dtype=torch.float64))
    more = filled(own, 1000)
    kinds = {label: sorted({w for w, one in zip(weights, labels, strict=True) if one == label}) for label in labels}
    gaps = [(100**label * low, 100**label * high) for label in kinds for low, high in pairwise(kinds[label])]
    assert more.conditions == count + len(gaps)
    seen = answers(more, more.conditions)
    assert seen[:count] == [100**label * w for label, w in zip(labels, weights, strict=True)]
    for value, (low, high) in zip(sorted(seen[count:]), sorted(gaps), strict=True):
        assert low < value < high
    assert answers(more, 2 * more.conditions) == 2 * seen


def test_neighbours_in_one_quantity_share_the_others():
    table = torch.tensor([[1.0, 2.0], [1.0, 2.0], [3.0, 4.0]], dtype=torch.float64)
    both = conditioned(told, embedding=table, weight=torch.tensor([2.0, 4.0, 9.0], dtype=torch.float64))
    assert answers(filled(both, 9), 4) == [6, 12, 63, 9]


# ---- guidance weights of a pair of denoisers ----


def test_between_guidance_weights_lie_others():
    own = mixed([guided(doubled, tripled, weight) for weight in (1.0, 5.0, 3.0)])  # 3 - weight
    assert answers(own, 3) == [2, -2, 0]
    more = filled(own, 10)
    assert answers(more, 6) == [2, -2, 0, 1, -0.5, 2]
    more(torch.ones(5, 1), 1.0)
    assert more.evaluations == 2 * (6 + 5)  # guidance asks twice


def test_weights_of_other_pairs_and_intervals_are_not_neighbours():
    for one, other in (
        (guided(doubled, tripled, 1.0), guided(tripled, doubled, 3.0)),
        (guided(doubled, tripled, 1.0), guided(doubled, tripled, 3.0, interval=(0.1, 2.0))),
        (guided(doubled, tripled, 1.0), guided(doubled, tripled, 1.0)),
        (guided(doubled, tripled, 1.0), doubled),
    ):
        own = mixed([one, other])
        assert filled(own, 100) is own


def test_methods_of_one_network_are_one_denoiser():
    class Network:
        def plain(self, x, sigma):
            return 3 * x

        def classes(self, x, sigma):
            return 2 * x

    network, another = Network(), Network()
    own = mixed([guided(network.classes, network.plain, weight) for weight in (1.0, 3.0)])
    assert answers(filled(own, 10), 3) == [2, 0, 1]
    apart = mixed([guided(network.classes, network.plain, 1.0), guided(another.classes, another.plain, 3.0)])
    assert filled(apart, 10) is apart


def test_conditions_within_a_mixture_are_filled_too():
    rows = conditioned(told, weight=torch.tensor([1.0, 2.0], dtype=torch.float64))
    own = mixed([rows, doubled, guided(doubled, tripled, 1.0), guided(doubled, tripled, 3.0)])
    more = filled(own, 100)
    assert (own.conditions, more.conditions) == (8, 10)
    assert answers(more, 10) == [1, 2, 2, 0, 2, 2, 2, 0, 1.5, 1]


# ---- folders ----


@pytest.mark.parametrize("changed", range(5))
def test_a_folder_knows_every_condition(tmp_path, changed):
    """One of five weights is another: two states alone would not meet it."""
    weights, levels, states = np.array([1.0, 2.0, 3.0, 4.0, 5.0]), [0.5, 2.0], torch.ones(2, 1)

    def asked(values):
        check_same_denoiser(conditioned(told, weight=values), levels, states, tmp_path, {"seed": 0})

    asked(weights)
    asked(weights)
    other = weights.copy()
    other[changed] *= 1.02
    with pytest.raises(ValueError, match="another denoiser"):
        asked(other)
