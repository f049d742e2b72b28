"""Results as tables: what a notebook shows, and frames."""

import sys
import types
from html.parser import HTMLParser

import numpy as np
import pytest

import codesign_opt as co
from codesign_opt.comparison.table import ComparisonRow

MODEL = co.GaussianModel(co.Spectrum.power_law(8, exponent=1.5), co.EDM(0.01, 20.0), sampler=co.Euler())
PRICES = co.Prices(3.0, 1.0, 100)


class Cells(HTMLParser):
    """Texts of the cells of a card, and that everything closes."""

    def __init__(self, card):
        super().__init__()
        self.open, self.rows, self.all = [], [], ""
        self.feed(card)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        if tag == "tr":
            self.rows.append([])
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.all += data
        if self.open[-1:] in (["td"], ["th"]):
            self.rows[-1].append(data)


@pytest.fixture(scope="module")
def plan():
    return co.codesign(MODEL, PRICES, 1e5, stopping_sigma=0.05, levels=40, polish=False)


def results(plan):
    sigma = np.geomspace(0.1, 10.0, 4)
    estimated = co.EstimatedModel(
        sigma, responses=np.ones((2, 4)), truncation=sigma**2, spectrum=co.Spectrum.power_law(4, exponent=1.0)
    )
    frontier = co.frontier(MODEL, PRICES, [1e4, 1e5], stopping_sigma=0.05, levels=20, polish=False)
    comparison = co.compare(MODEL, peers=["edm"], evaluations=[5])
    return [plan, estimated, frontier, comparison, co.what_if(plan, budget=[5e4, 1e5])]


def test_cards_are_whole_and_hold_the_columns(plan):
    for result in results(plan):
        card, columns = Cells(result._repr_html_()), result.columns()
        sizes = {len(values) for values in columns.values()}
        assert len(sizes) == 1
        assert card.rows[0] == list(columns)[:9]
        assert len(card.rows) == 1 + min(12, sizes.pop())
        first = float(next(iter(columns.values()))[0]) if not isinstance(next(iter(columns.values()))[0], str) else None
        if first is not None:
            assert float(card.rows[1][0].replace(",", "")) == pytest.approx(first, rel=1e-3)
    assert "proved optimal" in Cells(plan._repr_html_()).all


def test_a_plan_s_columns_are_its_levels(plan):
    columns = plan.columns()
    np.testing.assert_array_equal(columns["sigma_high"][:-1], columns["sigma_low"][1:])
    assert columns["new_examples"].sum() == pytest.approx(plan.costs["new examples"])
    assert "bands" not in columns  # one number per band is no column of levels


def test_names_in_a_card_are_text_alone():
    row = ComparisonRow("euler", 5, "<b>", 5, 5, 1.0, 0.0, 1.0, 0.0, 0.0, 1, co.edm_grid(5, 0.02, 20.0))
    assert "<b>" not in co.Comparison((row,), "error")._repr_html_().split("<table>")[1]


def test_frames_are_pandas_own_and_its_absence_says_what_to_install(plan, monkeypatch):
    made = types.SimpleNamespace(DataFrame=lambda columns: ("frame", columns))
    monkeypatch.setitem(sys.modules, "pandas", made)
    kind, columns = plan.to_frame()
    assert kind == "frame"
    np.testing.assert_array_equal(columns["steps"], plan.steps)
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install pandas"):
        plan.to_frame()
