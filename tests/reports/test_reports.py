"""What a report says, and that it is one file: read as HTML, without a browser."""

import json
import re
from functools import partial
from html.parser import HTMLParser

import numpy as np
import pytest

import codesign_opt as co
from codesign_opt.cli import main
from codesign_opt.reports.plan_page import plan_html
from codesign_opt.reports.slider import slider

VOID = {"meta", "link", "input", "br", "hr", "img", "path", "use", "rect", "circle", "line", "stop"}


class Reader(HTMLParser):
    """Elements with their attributes, texts by element, and whether everything that opens closes."""

    def __init__(self, page):
        super().__init__()
        self.open, self.found, self.text = [], [], {}
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append((tag, dict(attrs).get("id")))

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open[-1][0] == tag, f"</{tag}> closes {self.open[-1]}"
            self.open.pop()

    def handle_data(self, data):
        for tag, name in self.open:
            for key in (tag, name):
                self.text[key] = self.text.get(key, "") + data

    def all(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture(scope="module")
def plan():
    model = co.GaussianModel(co.Spectrum.power_law(10, exponent=1.5), co.EDM(0.01, 20.0), start="mean")
    return co.codesign(model, co.Prices(3.0, 1.0, 1000), 3e5, levels=60, polish=False, points=6)


@pytest.fixture(scope="module")
def asked(plan):
    return co.what_if(plan, budget=[1e5, 3e5, 9e5], steps=[5, None])


@pytest.fixture(scope="module")
def page(plan, asked, tmp_path_factory):
    pytest.importorskip("matplotlib")
    path = plan.report(tmp_path_factory.mktemp("report") / "plan.html", what_if=asked)
    assert path.stat().st_size < 3_000_000
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def reader(page):
    return Reader(page)


def test_it_is_one_file_that_asks_for_nothing(page, reader):
    assert not reader.open
    for tag, attributes in reader.found:
        for name in ("src", "href", "xlink:href", "action", "data"):
            value = attributes.get(name) or ""
            assert value.startswith(("#", "data:")) or not value, (tag, name, value)
    assert not re.search(r"url\((?!#)", page)
    assert "@import" not in page
    names = [attributes["id"] for _, attributes in reader.found if "id" in attributes]
    assert len(names) == len(set(names))
    pointed = {a["xlink:href"][1:] for _, a in reader.found if "xlink:href" in a} | set(
        re.findall(r"url\(#([^)]+)\)", page)
    )
    assert pointed <= set(names)


def test_it_says_the_plan_s_numbers(reader, plan):
    text = reader.text["main"]
    normal = plan.fits["lognormal"]
    assert f"P_mean={normal['P_mean']:.6g}, P_std={normal['P_std']:.6g}" in text
    assert ", ".join(f"{sigma:.9g}" for sigma in plan.sigmas) in text
    for part in ("Certificate", "Shadow prices", "Error by cause", "Provenance", "What to do", "How sure it is"):
        assert part in text
    assert f"{plan.certificate.lower_bound:.3e}" in text
    share = plan.costs["training"] / (plan.costs["training"] + plan.costs["sampling"])
    assert f"{100 * share:.3g} %" in text


def test_every_control_has_a_name_and_what_it_points_at(reader):
    names = {attributes.get("id") for _, attributes in reader.found}
    buttons = reader.all("button")
    assert len(buttons) > 10
    for button in buttons:
        assert button["aria-label"].startswith("Copy ")
        assert button["data-copy"] in names
    labelled = {label["for"] for label in reader.all("label")}
    assert {slider["id"] for slider in reader.all("input")} == labelled == {"ask-budget", "ask-steps"}
    assert reader.all("html")[0]["lang"] == "en"
    assert all(drawing.get("aria-label") for drawing in reader.all("div") if drawing.get("role") == "img")


def test_levels_to_copy_are_read_back_as_the_plan_s(reader, plan, tmp_path):
    text = reader.text
    for kind, suffix in (("csv", ".csv"), ("json", ".json"), ("comfyui", ".txt")):
        file = tmp_path / f"levels{suffix}"
        file.write_text(text[f"copy-levels-for-{kind}"].strip("[]"), encoding="utf-8")
        np.testing.assert_allclose(co.read_schedule(file), plan.sigmas, rtol=1e-12)
    names: dict = {}
    exec(text["copy-noise-levels"], names)
    np.testing.assert_allclose(names["sigmas"], plan.sigmas, rtol=1e-8)


def test_the_sliders_hold_what_was_asked_in_the_order_of_the_script(reader, asked):
    record = json.loads(reader.text["data"])["what_if"]
    shape = [len(axis["texts"]) for axis in record["axes"]]
    assert shape == list(asked.error.shape)
    assert [axis["name"] for axis in record["axes"]] == [
        "budget",
        "steps",
        "images",
    ]
    shown = np.array([float(text) for text in record["answers"]["error"]]).reshape(shape)
    np.testing.assert_allclose(shown, asked.error, rtol=1e-3)


@pytest.mark.slow
def test_ticks_of_figures_are_letters_that_say_the_same_numbers(plan):
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    from codesign_opt.reports.svg_figure import _Powers, svg_of
    from codesign_opt.results import panels

    page = svg_of(partial(panels.stopping_panel, plan), "f")
    assert "mathdefault" not in page
    assert re.search(r">10⁻[⁰¹²³⁴⁵⁶⁷⁸⁹]+<", page)
    axis = Figure().add_subplot().xaxis
    axis.axes.set(xscale="log", xlim=(1e-7, 1e5))
    said = _Powers()
    said.set_axis(axis)
    for power in range(-7, 6):
        assert _number(said(10.0**power)) == pytest.approx(10.0**power)
    minor = _Powers(minor_thresholds=(np.inf, np.inf))
    minor.set_axis(axis)
    axis.axes.set_xlim(1e-6, 3e-5)
    minor.set_locs([1e-6, 2e-6, 5e-6, 1e-5])
    assert [minor(x) for x in (2e-6, 1e-5)] == ["2·10⁻⁶", "10⁻⁵"]


def _number(text):
    """What a tick says."""
    times, _, power = text.rpartition("10")
    if not set(power) & set("⁻⁰¹²³⁴⁵⁶⁷⁸⁹"):
        return float(text)
    plain = power.translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789"))
    return float(times.rstrip("·") or 1) * 10.0 ** int(plain)


def test_names_and_notes_of_others_are_shown_as_text(plan):
    from dataclasses import replace

    hostile = replace(plan, notes=("</script><script>alert(1)</script>",), provenance={"<b>": '"><img src=x>'})
    page = plan_html(hostile, None, "<i>none</i>")
    assert "<script>alert" not in page
    assert "<img" not in page
    assert "<i>none" not in page
    assert not Reader(page).open


@pytest.mark.slow
def test_a_plan_that_cannot_be_asked_anew_says_why(plan, tmp_path):
    from dataclasses import replace

    text = replace(plan, question={}).report(tmp_path / "plan.html").read_text(encoding="utf-8")
    assert "No sliders: what_if: the plan does not hold what was asked" in text
    assert slider(None).html == ""


@pytest.mark.slow
def test_audits_and_comparisons_have_pages_and_nothing_else_has(tmp_path):
    pytest.importorskip("matplotlib")
    model = co.GaussianModel(co.Spectrum.power_law(8, exponent=1.5), co.EDM(0.01, 20.0), sampler=co.Euler())
    found = co.compare(model, peers=["edm"], evaluations=[6])
    text = Reader(found.report(tmp_path / "c.html").read_text(encoding="utf-8")).text["main"]
    assert "plan in 1 of 1 cells" in text
    assert f"{found.row('edm', 'euler', 6).error / found.row('plan', 'euler', 6).error:.3g}" in text
    run = co.TrainingRun(co.LogNormal(), iterations=100, batch=64)
    audit = co.audit(
        model, co.Prices(3.0, 1.0, 100), sigmas=co.edm_grid(8, 0.01, 20.0), run=run, levels=40, points=4, polish=False
    )
    text = Reader(co.report(audit, tmp_path / "a.html").read_text(encoding="utf-8")).text
    assert f"makes {audit.ratio:.3g} times the error" in text["h1"]
    with pytest.raises(ValueError, match="has no report"):
        co.report({}, tmp_path / "x.html")
    with pytest.raises(ValueError, match="belongs to a plan"):
        co.report(audit, tmp_path / "x.html", what_if=object())


@pytest.mark.slow
def test_the_command_line_writes_the_page_of_a_file(plan, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    saved = plan.save(tmp_path / "plan.json")
    assert main(["report", str(saved), "--out", str(tmp_path / "page.html")]) == 0
    text = Reader((tmp_path / "page.html").read_text(encoding="utf-8")).text
    assert f"{plan.number_of_steps} steps of heun" in text["h1"]
    assert text["answer-ratio"]  # the file knows what was asked, so that there are sliders
    model = co.GaussianModel(co.Spectrum.power_law(8, exponent=1.5), co.EDM(0.01, 20.0), sampler=co.Euler())
    table = co.compare(model, peers=["edm"], evaluations=[6]).to_csv(tmp_path / "comparison.csv")
    assert main(["report", str(table)]) == 0
    assert "plan in 1 of 1 cells" in (tmp_path / "comparison.html").read_text(encoding="utf-8")
    assert main(["report", str(tmp_path / "none.json")]) == 2
    assert "none.json" in capsys.readouterr().err
