"""A report in a real browser: nothing logged, nothing asked for, sliders and buttons at work, names, paper."""

import os
import re

import pytest

import codesign_opt as co
from tests.helpers.browser import PROGRAM, browser

pytestmark = [
    pytest.mark.skipif(PROGRAM is None, reason="needs Chromium (Debian's package chromium)"),
    pytest.mark.skipif(not os.environ.get("CODESIGN_OPT_FULL"), reason="a browser starts; CODESIGN_OPT_FULL=1"),
]
PRICES = co.Prices(3.0, 1.0, 1000)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    pytest.importorskip("matplotlib")
    model = co.GaussianModel(co.Spectrum.power_law(10, exponent=1.5), co.EDM(0.01, 20.0), start="mean")
    plan = co.codesign(model, PRICES, 3e5, levels=60, polish=False, points=6)
    return plan, plan.report(tmp_path_factory.mktemp("report") / "plan.html")


def test_a_report_works_in_a_browser(report, tmp_path):
    plan, path = report
    with browser(tmp_path / "profile") as page:
        page.open(path.as_uri())
        assert page.requests() == [path.as_uri()]

        # the sliders begin at the plan and move the numbers
        answer = "document.getElementById('answer-{}').textContent"
        assert page.run(answer.format("ratio")) == "1 times"
        before = page.run(answer.format("error"))
        move = "(e => {{ e.value = e.{}; e.dispatchEvent(new Event('input', {{bubbles: true}})); }})"
        page.run(move.format("max") + "(document.getElementById('ask-budget'))")
        after = page.run(answer.format("error"))
        assert float(after) < float(before)
        said = page.run("document.getElementById('said-budget').textContent")
        assert float(said.replace(",", "")) == pytest.approx(16 * 3e5)
        page.run(move.format("min") + "(document.getElementById('ask-steps'))")
        least = co.what_if(plan, budget=16 * 3e5, steps=2)
        assert float(page.run(answer.format("error"))) == pytest.approx(least.error[0, 0, 0], rel=2e-3)

        # every copy button copies
        page.call("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
        page.run("document.querySelectorAll('details').forEach(d => { d.open = true; })")
        page.run("window.kept = []; navigator.clipboard.writeText = async t => { window.kept.push(t); }")
        buttons = page.run("document.querySelectorAll('button[data-copy]').length")
        wrong = page.run(
            "(async () => { const wrong = []; for (const b of document.querySelectorAll('button[data-copy]')) {"
            " b.click(); await new Promise(r => setTimeout(r, 5));"
            " const text = document.getElementById(b.dataset.copy).textContent;"
            " if (window.kept.at(-1) !== text) wrong.push(b.dataset.copy);"
            " } return wrong; })()"
        )
        assert buttons > 10
        assert wrong == []
        assert page.run("document.getElementById('said').textContent").startswith("Copied: ")

        controls = page.controls()
        assert {"button", "slider"} <= {role for role, _ in controls}
        assert all(name for _, name in controls)

        # nothing is wider than a phone
        page.look(390, 844)
        assert page.run("document.documentElement.scrollWidth") <= 390
        for name, size in (("light", (1200, 1600)), ("dark", (1200, 1600)), ("phone", (390, 1600))):
            page.screenshot(tmp_path / f"{name}.png", *size, dark=name == "dark")
        paper = page.pdf()
        (tmp_path / "paper.pdf").write_bytes(paper)
        assert len(re.findall(rb"/Type\s*/Page\b", paper)) == 2
        assert page.logged() == []
