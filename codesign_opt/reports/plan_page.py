"""The page of a plan."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ..basics.wording import percent, quantity, signed
from ..planning.what_if_table import WhatIf
from ..results.cause_words import cause_cells, clip
from ..results.headline import evaluations_per_image, handed_parts, handed_total, headline, learner, relative_error
from ..results.level_table import planned_training
from ..results.plan import Plan
from ..results.text import certificate_line, outer_line, peer_name, share_of
from .assembly import Answer, assembled
from .copies import copies
from .elements import columns, details, figure, paragraph, section, table
from .origin import foot, origin
from .slider import slider

__all__ = ["plan_html"]

_MOST = 12  # rows of prices and of peers


def plan_html(plan: Plan, what_if: WhatIf | None, without: str = "") -> str:
    """The page of a plan as text.

    Args:
        plan: any plan.
        what_if: other settings for the sliders; None where they are not known.
        without: why they are not.
    """
    asked = slider(what_if)
    first, others = copies(plan)
    parts = [
        section("What to type", *first),
        section("What it looks like", _figures(plan)),
        section("What the error is made of and what it costs", columns(_causes(plan), _budget(plan) + _peers(plan))),
        section("How sure it is", columns(_proof(plan), _prices(plan))),
        section("What if", asked.html or paragraph(without, "note"), kind="screen"),
        section("Noise levels", _levels(plan), kind="screen"),
        section("For other programs", *others, kind="screen"),
        section("Where the numbers come from", origin(plan)),
    ]
    return assembled(answer(plan), parts, asked.data, foot())


def answer(plan: Plan) -> Answer:
    """What to type, what it buys, how sure it is."""
    total = handed_total(plan)
    total = plan.error if total is None else total
    lines = [("What to do", _what_to_do(plan))]
    # after whose error it is, what is handed out, and how to plan for another learner
    buys = [line.strip() for line in headline(plan)[4 if learner(plan) else 1 :]]
    lines.append(("What it buys", " ".join(buys) + _against_peers(plan, total)))
    outer = outer_line(plan)
    lines.append(("How sure it is", certificate_line(plan) + (f"; {outer}" if outer else "")))
    if learner(plan):
        lines.append(("Whom it holds for", f"{learner(plan)}; measure how your own learns to plan for it"))
    return Answer(f"Plan: {_short(plan)}", lines)


def _short(plan: Plan) -> str:
    if plan.sigmas is None:
        return f"{quantity(plan.new_examples.sum(), 3)} examples over {len(plan.levels)} noise levels"
    trained = f"{quantity(plan.new_examples.sum(), 3)} examples and " if planned_training(plan) else ""
    return f"{trained}{plan.number_of_steps:,} steps of {plan.sampler.get('name', 'the sampler')}"


def _what_to_do(plan: Plan) -> str:
    said = []
    normal = plan.fits.get("lognormal")
    if normal:
        said.append(
            f"train {quantity(plan.new_examples.sum())} examples with P_mean {normal['P_mean']:.3g}, "
            f"P_std {normal['P_std']:.3g}"
        )
    if plan.sigmas is not None:
        calls = evaluations_per_image(plan)
        each = "" if calls is None else f" ({calls:,} evaluations an image)"
        said.append(
            f"sample in {plan.number_of_steps:,} steps{each} from sigma {quantity(plan.sigmas[0])} to "
            f"{quantity(plan.stopping_sigma)}" + (", then to zero" if plan.terminal == "denoise" else "")
        )
    spent = plan.costs.get("training", 0.0) + plan.costs.get("sampling", 0.0)
    if spent and planned_training(plan):
        said.append(f"spend {percent(plan.costs.get('training', 0.0) / spent)} of the compute on training")
    return "; ".join(said)


def _against_peers(plan: Plan, total: float) -> str:
    found = [(float(record.get("total", np.inf)), name) for name, record in plan.peers.items()]
    if not found or not total > 0:
        return ""
    error, name = min(found)
    return f"; {peer_name(name, plan)} leaves {quantity(error / total, 3)} times as much"


def _figures(plan: Plan) -> str:
    try:
        from ..results import panels
        from .svg_figure import svg_of
    except ImportError as error:
        return paragraph(f'The figures are left out ({error}): pip install "codesign_opt[plots]"', "note")
    shown: list[tuple[Callable[..., Any], str, str]] = []
    if planned_training(plan):
        shown.append((panels.training_panel, "Where to train", "Equal areas are equal numbers of examples."))
    if plan.sigmas is not None:
        shown.append((panels.step_panel, "Where to step", "Ticks: the noise levels to hand to the sampler."))
    shown.append((panels.breakdown_panel, "What the error is made of", "Bars: the program; outlined: whole steps."))
    if sum(record.get("error") is not None for record in plan.curve) > 1:
        shown.append((panels.stopping_panel, "Where to stop", "The best design at every stopping point."))
    if planned_training(plan) and "marginal_gain" in plan.tables:
        shown.append((panels.gain_panel, "What one more example is worth", "The same at all active levels."))
    if plan.sigmas is not None and np.any(plan.tables.get("discretization", np.zeros(1)) > 0):
        shown.append((panels.level_error_panel, "Where the error arises", "Equal areas are equal errors."))
    drawn = [figure(svg_of(partial(draw, plan), f"f{i}"), title, said) for i, (draw, title, said) in enumerate(shown)]
    return columns(*drawn).replace('class="columns"', 'class="columns figures"', 1)


def _causes(plan: Plan) -> str:
    handed, total = handed_parts(plan), handed_total(plan)
    names = sorted({**plan.breakdown, **handed}, key=lambda name: -abs(plan.breakdown.get(name, 0.0)))
    rows = []
    for name in names:
        value, whole = plan.breakdown.get(name, 0.0), handed.get(name)
        if value or whole:
            share = share_of(value, plan.error) if value else ""
            rows.append([*cause_cells(name, plan), quantity(value or None), share, quantity(whole)])
    rows.append(["total", "", quantity(plan.error), "100 %", quantity(total)])
    found = table("Error by cause", ["cause", "what it is", "program", "share", "whole steps"], rows, left=2)
    return found.replace('class="wide"', 'class="wide spread"', 1)


def _budget(plan: Plan) -> str:
    spent = {side: plan.costs[side] for side in ("training", "sampling") if plan.costs.get(side)}
    whole = sum(spent.values())
    amounts = {
        "training": f"{quantity(plan.new_examples.sum())} examples",
        "sampling": f"{plan.number_of_steps:,} steps",
    }
    rows = [[side, quantity(price), percent(price / whole), amounts[side]] for side, price in spent.items()]
    unit = f" in {plan.price_unit}" if plan.price_unit else ""
    return table(f"Where the budget goes{unit}", ["side", "price", "share", "buys"], rows)


def _peers(plan: Plan) -> str:
    found = sorted(plan.peers.items(), key=lambda item: float(item[1].get("total", np.inf)))
    rows = [
        [clip(peer_name(name, plan)), quantity(float(record.get("total", np.inf))), quantity(record.get("ratio"), 3)]
        for name, record in found[:_MOST]
    ]
    return table("Other schedules at the same prices", ["schedule", "error", "error / plan's"], rows)


def _proof(plan: Plan) -> str:
    proof = plan.certificate
    said = "certified" + (", as stated in the file" if plan.stated else "") if proof.optimal else "not certified"
    rows = [
        ["verdict", said],
        ["value of the program", quantity(proof.value)],
        ["proved lower bound", quantity(proof.lower_bound)],
        ["relative gap", f"{proof.relative_gap:.1e}"],
        ["largest violation", f"{proof.infeasibility:.1e}"],
        ["tolerance", f"{proof.tolerance:.0e}"],
    ]
    if plan.outer.get("relative_gap") is not None:
        rows.append(["gap over all stopping points", percent(float(plan.outer["relative_gap"]))])
        rows.append(["stopping points solved", f"{int(plan.outer.get('points', 0))}"])
    total = handed_total(plan)
    relative = None if total is None else relative_error(plan, total)
    if relative is not None:
        rows.append(["error over the data's variance", percent(relative)])
    return table("Certificate", ["what", "number"], rows)


def _prices(plan: Plan) -> str:
    rows = []
    for name, value in list(plan.shadow_prices.items())[:_MOST]:
        each = float(value) if np.ndim(value) == 0 else float(np.asarray(value)[np.abs(value).argmax()])
        change = plan.elasticities.get(name)
        limit = quantity(plan.costs.get(f"{name}: limit"))
        rows.append(
            [clip(name, 30), limit, signed(each) if each else "0", "" if change is None else signed(change, "%")]
        )
    title = ["limit", "is", "error per unit more", "error, limit +1 %"]
    return table("Shadow prices: what moving a limit is worth", title, rows)


def _levels(plan: Plan) -> str:
    lines = plan.table(24)
    return details("Table of 24 rows", f'<pre tabindex="0" aria-label="Noise levels">{lines}</pre>')
