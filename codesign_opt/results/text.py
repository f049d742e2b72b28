"""Plans as text: what `print(plan)` shows."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..basics import causes
from ..basics.checks import Array
from ..basics.wording import aligned, percent, printable, quantity, signed
from .cause_words import cause_cells, clip
from .headline import evaluations_per_image, handed_parts, handed_total, headline, learner
from .level_table import planned_training
from .measured_text import error_lines, measured_lines
from .samplers_text import samplers_lines

if TYPE_CHECKING:
    from .record import PlanRecord

__all__ = ["certificate_line", "outer_line", "plan_text", "share_of", "wrapped"]

WIDTH = 88
_MOST = 5  # rows of shadow prices, peers and extra causes before the rest is counted


def plan_text(plan: PlanRecord) -> str:
    """A plan as a grouped table of at most 88 columns: error by cause, budget, proof, shadow prices, peers.

    Whatever the plan does not hold is left out.

    >>> from codesign_opt import Coefficients, Discretization, Levels, Problem, Steps
    >>> import numpy as np
    >>> levels = Levels.log_uniform(0.01, 10.0, 20)
    >>> table = Coefficients(levels, np.zeros(20), np.zeros(20), np.ones((1, 20)))
    >>> print(plan_text(Problem(Discretization(table), [Steps() <= 5]).solve()).splitlines()[0])
    Plan: 5 sampler steps, sigma 10 to 0.01, the last one to zero noise
    """
    groups = (
        headline, error_lines, _causes, samplers_lines, measured_lines, _budget, _proof, _shadow_prices, _peers, _fits,
        _sigmas, _notes,
    )  # fmt: skip
    return "\n".join(printable(line) for group in groups for line in group(plan))


def _causes(plan: PlanRecord) -> list[str]:
    if not plan.breakdown:
        return []
    handed, total = handed_parts(plan), handed_total(plan)
    shown = {name: value for name, value in plan.breakdown.items() if value or handed.get(name)}
    rows = [
        [*cause_cells(name, plan), quantity(value), share_of(value, plan.error), quantity(handed.get(name))]
        for name, value in sorted(shown.items(), key=lambda item: -abs(item[1]))
    ]
    extra = [name for name, value in handed.items() if value and name not in shown]
    rows += [[*cause_cells(name, plan), "", "", quantity(handed[name])] for name in extra]
    rows.append(["total", "", quantity(plan.error), "100 %", quantity(total)])
    columns = ["error", "share"] + (["whole steps"] if plan.handed_out else [])
    if plan.measured is not None:  # what was measured leads; the program's leading order is named so
        rows = [[*row[:2], row[4], *row[2:4]] for row in rows]
        columns = ["whole steps", "leading order", "share"]
    lines = aligned(["Error by cause", "", *columns], rows)
    zero = [name for name in plan.breakdown if name not in shown]
    lines += wrapped("  none from ", ", ".join(zero))
    if plan.handed_out and plan.program_stopping_sigma is not None:
        column = "error" if plan.measured is None else "leading order"
        lines.append(f"  {column} and share: the program, which stops at sigma {quantity(plan.program_stopping_sigma)}")
    cross = plan.handed_out.get(causes.CROSS_TERM)
    if cross:
        lines.append(f"  whole steps: final call and earlier levels may add up to {quantity(cross)} if correlated")
    return lines


def share_of(value: float, total: float) -> str:
    """A part of a total in per cent; empty where the total is zero."""
    return percent(value / total) if total else ""


def _budget(plan: PlanRecord) -> list[str]:
    amounts = {}
    if planned_training(plan):
        amounts["training"] = _training_amount(plan)
    if plan.sigmas is not None:
        amounts["sampling"] = _sampling_amount(plan)
    for name, each in plan.samplings.items():
        if f"sampling of {name}" in plan.costs:
            amounts[f"sampling of {name}"] = f"{quantity(each.number_of_steps)} steps"
    if not amounts:
        return []
    spending = sum(plan.costs.get(side, 0.0) for side in amounts)
    if not spending:
        return ["Amounts", *(f"  {side:<9} {amount}" for side, amount in amounts.items())]
    rows = [_budget_row(plan, side, amount, spending) for side, amount in amounts.items()]
    unit = f" ({plan.price_unit})" if plan.price_unit else ""
    return aligned([f"Budget{unit}", "price", "share", ""], rows, left=(0, 3))


def _budget_row(plan: PlanRecord, side: str, amount: str, spending: float) -> list[str]:
    price = plan.costs.get(side, 0.0)
    return [side, quantity(price), percent(price / spending), amount]


def _training_amount(plan: PlanRecord) -> str:
    text = f"{quantity(plan.new_examples.sum())} examples" + _each(plan, "example_price")
    spent = plan.examples.sum() - plan.new_examples.sum()
    return text + (f", beside {quantity(spent)} already spent" if spent > 1e-9 * plan.examples.sum() else "")


def _sampling_amount(plan: PlanRecord) -> str:
    text = f"{plan.number_of_steps:,} steps"
    steps = plan.costs.get("steps")
    if plan.program_stopping_sigma is None and steps is not None and abs(steps - plan.number_of_steps) > 0.01:
        text += f" ({quantity(steps)} in the program)"
    calls = evaluations_per_image(plan)
    return text + (f", {calls:,} evaluations per image" if calls is not None else "")


def _each(plan: PlanRecord, name: str) -> str:
    prices = plan.tables.get(name)
    if prices is None or "training" not in plan.costs:
        return ""
    low, high = float(prices.min()), float(prices.max())
    spread = "" if high <= low * (1 + 1e-9) else f" to {quantity(high)}"
    return f" at {quantity(low)}{spread} each"


def certificate_line(plan: PlanRecord) -> str:
    """The proof in one sentence."""
    proof, whose = plan.certificate, ", as stated in the file" if plan.stated else ""
    if not proof.optimal:
        return (
            f"NOT CERTIFIED: relative gap {proof.relative_gap:.2g} (tolerance {proof.tolerance:.0g}), "
            f"infeasibility {proof.infeasibility:.2g}{whose}"
        )
    point = "this stopping point" if plan.program_stopping_sigma is None else "the program's stop"
    where = "" if plan.sigmas is None else f" at {point}"
    gap = f"{max(abs(proof.relative_gap), 1e-12):.0e}".replace("e-0", "e-")
    return f"proved optimal{where} to {gap} (lower bound {quantity(proof.lower_bound)}){_method(plan)}{whose}"


def _method(plan: PlanRecord) -> str:
    """Which method found the certified answer: the first attempt that the certificate accepted."""
    for attempt in plan.attempts:
        if attempt.get("relative_gap", np.inf) <= plan.certificate.tolerance:
            return f", by {attempt['solver']}"
    return ""


def outer_line(plan: PlanRecord) -> str | None:
    """What is known over the stopping points, in one sentence; None where only one was asked for."""
    outer = plan.outer
    if not outer or outer.get("status") == "given":
        return None
    if outer.get("status") == "moved":  # as saved by 0.1.0
        return (
            f"the program's best stopping point is sigma {quantity(outer['moved_from'])}; with so few steps the exact "
            "error is smaller at this one"
        )
    best = plan.program_stopping_sigma
    if best is not None:
        return (
            f"the program's best stopping point is sigma {quantity(best)}, {_over_stops(plan)}; the {plan.bias} error "
            "of the whole steps is smaller at this one"
        )
    return _over_stops(plan)


def _over_stops(plan: PlanRecord) -> str:
    """What the program's bounds say of all stopping points."""
    outer = plan.outer
    points, gap = int(outer.get("points", len(plan.curve))), outer.get("relative_gap")
    if outer.get("status") == "optimal":
        text = "optimal over stopping points" + (f" to {percent(max(gap, 1e-9))}" if gap is not None else "")
        text += f" ({points} tried)" if points else ""
    else:
        text = f"best of {points} stopping points" if points else "best of the stopping points tried"
        if gap is not None and np.isfinite(gap):
            text += f"; another could be at most {percent(gap)} better"
    return text + _at_end(plan)


def _at_end(plan: PlanRecord) -> str:
    if not plan.outer.get("at_end"):
        return ""
    low, high, moved = plan.outer.get("low"), plan.outer.get("high"), plan.program_stopping_sigma
    widen = ": widen it" if moved is None else ""  # whole steps that stop elsewhere are not held by that end
    if low is None or high is None:
        return f"; at the end of the searched range{widen}"
    stop = plan.stopping_sigma if moved is None else moved
    nearer = stop**2 < float(low) * float(high)
    which, end = ("low", low) if nearer else ("high", high)
    return f"; at the {which} end of the searched range (sigma {quantity(end)}){widen}"


def _proof(plan: PlanRecord) -> list[str]:
    lines = ["Proof", *wrapped("  ", certificate_line(plan))]
    outer = outer_line(plan)
    lines += wrapped("  ", outer) if outer else []
    if plan.sigmas is not None and handed_total(plan) is not None and plan.bias != "predicted":
        known = "counts the whole steps exactly" if learner(plan) else f"is {plan.bias}"
        if causes.TOGETHER in plan.handed_out:  # else nothing is taught, or how errors go together is not known
            known = "counts the whole steps, and first adds errors that the same examples make"
        said = f"this is of the program's leading-order error, {quantity(plan.error)}; the error above {known}"
        lines += wrapped("  ", said)
    return lines


def _shadow_prices(plan: PlanRecord) -> list[str]:
    rows = [_shadow_row(plan, name, value) for name, value in plan.shadow_prices.items()]
    if not rows:
        return []
    title = ["Shadow prices", "limit", "error", "changes per", "limit +1 %*"]
    lines = aligned(title, rows[:_MOST], left=(0, 3))
    if len(rows) > _MOST:
        lines.append(f"  … and {len(rows) - _MOST} more in plan.shadow_prices")
    if any(row[4] for row in rows[:_MOST]):
        return [*lines, "  * change of the part of the error that the design can change"]
    lines[0] = lines[0].replace("limit +1 %*", "").rstrip()
    return lines


def _shadow_row(plan: PlanRecord, name: str, value: Any) -> list[str]:
    limit = quantity(plan.costs.get(f"{name}: limit"))
    if np.ndim(value):
        amount, unit = _largest(plan, name, np.asarray(value, dtype=np.float64))
        return [clip(name, 26), limit, amount, unit, ""]
    elasticity = plan.elasticities.get(name)
    levels = plan.tables.get(f"shadow price of {name}")
    if levels is not None:
        change = "" if elasticity is None else signed(elasticity, "%")
        slack = not value or (elasticity is not None and abs(elasticity) < 1e-9)
        where = "(binds nowhere)" if slack else _held_range(plan, levels)
        return [clip(name, 26), limit, "0" if slack else signed(float(value)), where, "" if slack else change]
    if elasticity is not None and abs(elasticity) < 1e-9:
        return [clip(name, 26), limit, "0", "(not binding)", ""]
    change = "" if elasticity is None else signed(elasticity, "%")
    return [clip(name, 26), limit, signed(float(value)), _unit(plan, name), change]


def _held_range(plan: PlanRecord, prices: Array) -> str:
    """How many levels a bound of single levels holds: which ones and for how much, the plan's tables tell."""
    held = np.flatnonzero(np.abs(prices) > 1e-6 * np.abs(prices).max())
    return f"unit; {held.size} bind"


def _unit(plan: PlanRecord, name: str) -> str:
    if name.lower().startswith("steps"):
        return "step"
    if name.startswith(("Compute", "budget")):
        return plan.price_unit or "unit of price"
    return "unit of its limit"


def _largest(plan: PlanRecord, name: str, values: Array) -> tuple[str, str]:
    """The largest of a constraint's many multipliers, and where it is."""
    size = np.abs(values)
    amount = 0.0  # what the multipliers multiply, where the library's own names tell; else nothing is hidden
    if name.startswith(("Floor(", "Cap(", "StabilityCap", "TrustCap")):
        amount = float(np.max(plan.examples if name.endswith(("(density)", "(examples)")) else plan.steps))
    if not size.any() or (size.max() * amount < 1e-10 * abs(plan.error) and amount > 0):
        return "0", "(binds nowhere)"
    top, binding = int(size.argmax()), int((size > 1e-6 * size.max()).sum())
    sigma = plan.tables.get("program_sigma", plan.levels.sigma)
    if values.size == sigma.size:
        return signed(values[top]), f"unit at sigma {quantity(sigma[top], 3)}"
    return signed(values[top]), f"unit; {binding} of {values.size} bind"


def _peers(plan: PlanRecord) -> list[str]:
    if not plan.peers:
        return []
    found = sorted(plan.peers.items(), key=lambda item: _peer_error(item[1]))
    rows, own = [], handed_total(plan) or plan.error
    for name, record in found[:_MOST]:
        error = _peer_error(record)
        ratio = quantity(record.get("ratio", error / own if own else None), 3)
        calls = [f"{quantity(record[key])} {key}" for key in ("steps", "evaluations") if key in record]
        spread = record.get("ratio_standard_error")
        ratio += "" if spread is None else f" ± {quantity(spread, 2)}"
        rows.append([clip(peer_name(name, plan)), quantity(error), ratio, ", ".join(calls)])
    lines = aligned(["Same prices, other schedules", "error", "error / plan", ""], rows, left=(0, 3))
    return lines + ([f"  … and {len(found) - _MOST} worse ones in plan.peers"] if len(found) > _MOST else [])


def peer_name(name: str, plan: PlanRecord) -> str:
    """A peer's name, with the range that it stands for where another range stands beside it.

    "edm" ends where the plan does; "edm, full range" where the process does.
    """
    return f"{name}, the plan's range" if f"{name}, full range" in plan.peers else name


def _peer_error(record: Mapping[str, float]) -> float:
    return float(record.get("total", record.get("error", np.inf)))


def _fits(plan: PlanRecord) -> list[str]:
    lines = []
    normal, rho = plan.fits.get("lognormal"), plan.fits.get("rho")
    if normal:
        text = f"training density: log-normal, P_mean {normal['P_mean']:.3f}, P_std {normal['P_std']:.3f}"
        lines.append(f"  {text}" + _loss(normal, "score error"))
        if normal.get("loss", 0.0) < 0:
            lines.append("    (less than the plan's because it need not meet the plan's constraints)")
    if rho:
        text = f"sampler grid: EDM's formula with rho {quantity(rho['rho'], 3)}"
        if rho["rho"] > 99:
            text = "sampler grid: equal steps in log-SNR (EDM's formula, rho without bound)"
        lines.append(f"  {text}" + _loss(rho, "bias"))
    return ["Closest standard settings", *lines] if lines else []


def _loss(record: Mapping[str, float], what: str) -> str:
    return f" ({what} {signed(record['loss'], '%', hundred=True)})" if "loss" in record else ""


def _sigmas(plan: PlanRecord) -> list[str]:
    if plan.sigmas is None:
        return []
    for shown in (plan.sigmas.size, 20, 16, 12, 8):
        lines = wrapped("Sigmas  ", "  ".join(_some(plan.sigmas, shown)))
        if len(lines) <= 2:
            break
    return lines


def _some(sigmas: Array, shown: int) -> list[str]:
    texts = [quantity(s) for s in sigmas]
    return texts if shown >= len(texts) else [*texts[: shown // 2], "…", *texts[-(shown // 2) :]]


def _notes(plan: PlanRecord) -> list[str]:
    lines = [line for note in plan.notes[:3] for line in wrapped("Note: ", note, 2)]
    return lines + ([f"… and {len(plan.notes) - 3} more in plan.notes"] if len(plan.notes) > 3 else [])


def wrapped(head: str, text: str, most: int | None = None) -> list[str]:
    """A text in lines of at most 88 columns behind a head, at most so many; none where the text is empty."""
    if not text:
        return []
    indent = " " * len(head)
    return textwrap.wrap(text, WIDTH, initial_indent=head, subsequent_indent=indent, max_lines=most)
