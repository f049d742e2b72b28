"""Plans as text: what `print(plan)` shows, and the table by noise level."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ._text import percent, quantity, signed
from ._validate import Array, integer

if TYPE_CHECKING:
    from .plan import Plan

__all__ = ["CAUSES", "level_table", "plan_text"]

WIDTH = 88
_MOST = 6  # rows of shadow prices, peers and extra causes before the rest is counted

# What each part of the error is, for a reader who has not read docs/theory.md.
CAUSES = {
    "discretization": "finite sampler steps",
    "score": "denoiser trained on too few examples",
    "floor": "training noise that more examples leave",
    "last evaluation": "denoiser error in the final call",
    "truncation": "stopping above zero noise",
    "initial": "starting from pure noise, not noised data",
    "InformationError": "shared parameters, trained on too few examples",
}


def plan_text(plan: Plan) -> str:
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
        _headline, _causes, _budget, _proof, _shadow_prices, _peers, _fits, _sigmas, _notes,
    )  # fmt: skip
    return "\n".join(line for group in groups for line in group(plan))


def planned_training(plan: Plan) -> bool:
    """Whether the plan decides examples: some level gains by them, or they are not the neutral ones."""
    gains = (plan.tables.get("score_weight", 0.0), plan.tables.get("information_gain", 0.0))
    neutral = np.all(plan.examples == 1.0) or np.all(plan.examples == 0.0)
    return any(bool(np.any(np.asarray(gain) > 0)) for gain in gains) or not neutral


def handed_total(plan: Plan) -> float | None:
    """Error of the handed-out whole-step grid: stated as "error", or the sum of the stated causes."""
    parts = dict(plan.handed_out)
    if "error" in parts:
        return float(parts["error"])
    causes = [name for name, value in plan.breakdown.items() if value != 0]
    return float(sum(parts.values())) if parts and set(causes) <= set(parts) <= set(plan.breakdown) else None


def evaluations_per_image(plan: Plan) -> int | None:
    """Calls of the denoiser for one image with the handed-out grid; None where the sampler is unknown."""
    if plan.sigmas is None or "evaluations_per_step" not in plan.provenance:
        return None
    final = 1 if plan.terminal == "denoise" else 0  # the last step to zero is one call, whatever the sampler
    return (plan.number_of_steps - final) * int(plan.provenance["evaluations_per_step"]) + final


def relative_error(plan: Plan) -> float | None:
    """Error relative to the data's total variance, where the plan's provenance states that."""
    trace = plan.provenance.get("trace")
    return plan.error / float(trace) if trace else None


def _headline(plan: Plan) -> list[str]:
    if plan.sigmas is None:
        low, high = plan.levels.edges[0], plan.levels.edges[-1]
        planned = f"training on {len(plan.levels)} noise levels, sigma {quantity(low)} to {quantity(high)}"
        first = f"Plan: {planned}; no sampler planned"
    else:
        last = ", the last one to zero noise" if plan.terminal == "denoise" else ""
        first = (
            f"Plan: {plan.number_of_steps:,} {_sampler_name(plan)}steps, sigma {quantity(plan.sigmas[0])} to "
            f"{quantity(plan.stopping_sigma)}{last}"
        )
    kind = "squared Wasserstein-2 distance of samples to data"
    if plan.sigmas is None:
        kind = "mean squared error of the outputs of interest"
    lines = [first, f"Predicted error {quantity(plan.error)}: {kind}"]
    relative = relative_error(plan)
    if relative is not None:
        root = percent(abs(relative) ** 0.5)
        lines.append(f"  = {percent(relative)} of the data's total variance; RMS {root} of the data's RMS")
    return lines


def _sampler_name(plan: Plan) -> str:
    record = plan.provenance.get("sampler", "sampler")
    name = record.get("name", "sampler") if isinstance(record, Mapping) else record
    return f"{name} "


def _causes(plan: Plan) -> list[str]:
    if not plan.breakdown:
        return []
    handed = dict(plan.handed_out)
    columns = ["error", "share"] + (["whole steps"] if handed else [])
    rows = []
    zero = [name for name, value in plan.breakdown.items() if value == 0 and not handed.get(name)]
    for name, value in sorted(plan.breakdown.items(), key=lambda item: -abs(item[1])):
        if name not in zero:
            share = percent(value / plan.error if plan.error else 0.0)
            meaning = CAUSES.get(name, "term of this problem")
            rows.append([_clip(name), meaning, quantity(value), share, quantity(handed.get(name))])
    rows.append(["total", "", quantity(plan.error), "100 %", quantity(handed_total(plan))])
    lines = _table(["Error by cause", "", *columns], rows)
    if zero:
        lines.append(f"  none from {', '.join(zero)}")
    known = {"error", *plan.breakdown}
    extra = [f"{name} {quantity(value)}" for name, value in handed.items() if name not in known]
    return lines + _wrapped("  handed-out grid: ", ", ".join(extra))


def _budget(plan: Plan) -> list[str]:
    amounts = {}
    if planned_training(plan):
        amounts["training"] = _training_amount(plan)
    if plan.sigmas is not None:
        amounts["sampling"] = _sampling_amount(plan)
    if not amounts:
        return []
    spending = sum(plan.costs.get(side, 0.0) for side in amounts)
    if not spending:
        return ["Amounts", *(f"  {side:<9} {amount}" for side, amount in amounts.items())]
    rows = [_budget_row(plan, side, amount, spending) for side, amount in amounts.items()]
    unit = plan.provenance.get("price_unit")
    return _table(["Budget" + (f" ({unit})" if unit else ""), "price", "share", ""], rows, left=(0, 3))


def _budget_row(plan: Plan, side: str, amount: str, spending: float) -> list[str]:
    price = plan.costs.get(side, 0.0)
    return [side, quantity(price), percent(price / spending), amount]


def _training_amount(plan: Plan) -> str:
    text = f"{quantity(plan.new_examples.sum())} examples" + _each(plan, "example_price")
    spent = plan.examples.sum() - plan.new_examples.sum()
    return text + (f", beside {quantity(spent)} already spent" if spent > 1e-9 * plan.examples.sum() else "")


def _sampling_amount(plan: Plan) -> str:
    text = f"{plan.number_of_steps:,} steps"
    steps = plan.costs.get("steps")
    if steps is not None and abs(steps - plan.number_of_steps) > 0.01:
        text += f" ({quantity(steps)} before rounding)"
    calls = evaluations_per_image(plan)
    return text + (f", {calls:,} evaluations per image" if calls is not None else "")


def _each(plan: Plan, name: str) -> str:
    prices = plan.tables.get(name)
    if prices is None or "training" not in plan.costs:
        return ""
    low, high = float(prices.min()), float(prices.max())
    spread = "" if high <= low * (1 + 1e-9) else f" to {quantity(high)}"
    return f" at {quantity(low)}{spread} each"


def certificate_line(plan: Plan) -> str:
    """The proof in one sentence."""
    proof = plan.certificate
    if not proof.optimal:
        return (
            f"NOT CERTIFIED: relative gap {proof.relative_gap:.2g} (tolerance {proof.tolerance:.0g}), "
            f"infeasibility {proof.infeasibility:.2g}"
        )
    where = "" if plan.sigmas is None else " at this stopping point"
    gap = f"{max(abs(proof.relative_gap), 1e-16):.0e}".replace("e-0", "e-")
    return f"proved optimal{where} to {gap} (lower bound {quantity(proof.lower_bound)})"


def outer_line(plan: Plan) -> str | None:
    """What is known over the stopping points, in one sentence; None where only one was asked for."""
    outer = plan.outer
    if not outer:
        return None
    points = int(outer.get("points", len(plan.curve)))
    gap = outer.get("relative_gap")
    if str(outer.get("status", "")).startswith("optimal"):
        text = "optimal over stopping points" + (f" to {percent(gap)}" if gap is not None else "")
        text += f" ({points} tried)" if points else ""
    else:
        text = f"best of {points} stopping points" if points else "best of the stopping points tried"
        if gap is not None and np.isfinite(gap):
            text += f"; another could be at most {percent(gap)} better"
    end = outer.get("at_end")
    if end:
        which = f"{end} " if isinstance(end, str) else ""
        text += f"; at the {which}end of the searched range: widen it"
    return text


def _proof(plan: Plan) -> list[str]:
    lines = ["Proof", f"  {certificate_line(plan)}"]
    outer = outer_line(plan)
    return lines + (_wrapped("  ", outer) if outer else [])


def _shadow_prices(plan: Plan) -> list[str]:
    rows = [_shadow_row(plan, name, value) for name, value in plan.shadow_prices.items()]
    if not rows:
        return []
    title = ["Shadow prices", "limit", "error changes by", "", "if limit +1 %*"]
    lines = _table(title, rows[:_MOST], left=(0, 3))
    if len(rows) > _MOST:
        lines.append(f"  … and {len(rows) - _MOST} more in plan.shadow_prices")
    if any(row[4] for row in rows[:_MOST]):
        return [*lines, "  * change of the part of the error that the design can change"]
    lines[0] = lines[0].replace("if limit +1 %*", "").rstrip()
    return lines


def _shadow_row(plan: Plan, name: str, value: Any) -> list[str]:
    limit = quantity(plan.costs.get(f"{name}: limit"))
    if np.ndim(value):
        amount, unit = _largest(plan, name, np.asarray(value, dtype=np.float64))
        return [_clip(name), limit, amount, unit, ""]
    elasticity = plan.elasticities.get(name)
    if elasticity is not None and abs(elasticity) < 1e-9:
        return [_clip(name), limit, "0", "not binding", ""]
    change = "" if elasticity is None else signed(elasticity, "%")
    return [_clip(name), limit, signed(float(value)), _unit(plan, name), change]


def _unit(plan: Plan, name: str) -> str:
    if name.startswith("Steps"):
        return "per step"
    if name.startswith("Compute"):
        return f"per {plan.provenance.get('price_unit', 'unit of price')}"
    return "per unit of its limit"


def _largest(plan: Plan, name: str, values: Array) -> tuple[str, str]:
    """The largest of a constraint's many multipliers, and where it is."""
    size = np.abs(values)
    amount = 0.0  # what the multipliers multiply, where the library's own names tell; else nothing is hidden
    if name.startswith(("Floor(", "Cap(", "StabilityCap", "TrustCap")):
        amount = float(np.max(plan.examples if name.endswith(("(density)", "(examples)")) else plan.steps))
    if not size.any() or (size.max() * amount < 1e-10 * abs(plan.error) and amount > 0):
        return "0", "binds nowhere"
    top = int(size.argmax())
    count = f"{int((size > 1e-6 * size[top]).sum())} of {values.size}"
    everywhere = values.size == len(plan.levels)
    where = f"at sigma {quantity(plan.levels.sigma[top])}" if everywhere else f"in row {top}"
    return signed(values[top]), f"{where}, binds in {count}"


def _peers(plan: Plan) -> list[str]:
    if not plan.peers:
        return []
    found = sorted(plan.peers.items(), key=lambda item: item[1].get("error", np.inf))
    rows = []
    for name, record in found[:_MOST]:
        error = float(record.get("error", np.nan))
        ratio = f"{quantity(error / plan.error, 3)}" if plan.error > 0 and np.isfinite(error) else ""
        calls = [f"{quantity(record[key])} {key}" for key in ("steps", "evaluations") if key in record]
        rows.append([_clip(name), quantity(error), ratio, ", ".join(calls)])
    lines = _table(["Same prices, other schedules", "error", "error / plan", ""], rows, left=(0, 3))
    return lines + ([f"  … and {len(found) - _MOST} worse ones in plan.peers"] if len(found) > _MOST else [])


def _fits(plan: Plan) -> list[str]:
    lines = []
    normal, rho = plan.fits.get("lognormal"), plan.fits.get("rho")
    if normal:
        text = f"training density: log-normal, P_mean {normal['P_mean']:.3f}, P_std {normal['P_std']:.3f}"
        lines.append(f"  {text}" + _loss(normal, "score error"))
        if normal.get("loss", 0.0) < 0:
            lines.append("    (less than the plan's because it need not meet the plan's constraints)")
    if rho:
        text = f"sampler grid: EDM's formula with rho {quantity(rho['rho'], 3)}"
        lines.append(f"  {text}" + _loss(rho, "error"))
    return ["Closest standard settings", *lines] if lines else []


def _loss(record: Mapping[str, float], what: str) -> str:
    return f" ({what} {signed(record['loss'], '%', hundred=True)})" if "loss" in record else ""


def _sigmas(plan: Plan) -> list[str]:
    if plan.sigmas is None:
        return []
    for shown in (plan.sigmas.size, 20, 16, 12, 8):
        lines = _wrapped("Sigmas  ", "  ".join(_some(plan.sigmas, shown)))
        if len(lines) <= 2:
            break
    return lines


def _some(sigmas: Array, shown: int) -> list[str]:
    texts = [quantity(s) for s in sigmas]
    return texts if shown >= len(texts) else [*texts[: shown // 2], "…", *texts[-(shown // 2) :]]


def _notes(plan: Plan) -> list[str]:
    lines = [line for note in plan.notes[:4] for line in _wrapped("Note: ", note)]
    return lines + ([f"… and {len(plan.notes) - 4} more in plan.notes"] if len(plan.notes) > 4 else [])


def level_table(plan: Plan, rows: int | None = None) -> str:
    """A plan's noise levels as text, merged to `rows` rows of equal extent in log sigma.

    Examples, steps and errors are summed over the levels of a row; the density is examples per unit
    log sigma, the step size is in sigma (a row's extent over its steps: it may exceed sigma where a
    row holds less than one step), the gain is the decrease of the error per unit of price spent on
    examples, averaged over the row's examples.

    Args:
        rows: most rows to show, >= 1; 12 unless given. No row is finer than a level.

    >>> from codesign_opt import Coefficients, Discretization, Levels, Problem, Steps
    >>> import numpy as np
    >>> levels = Levels.log_uniform(0.01, 10.0, 20)
    >>> table = Coefficients(levels, np.zeros(20), np.zeros(20), np.ones((1, 20)))
    >>> plan = Problem(Discretization(table), [Steps() <= 5]).solve()
    >>> print(level_table(plan, 2))
           sigma  steps  step size  discret.
    0.01 – 0.316      2      0.153      71.2
      0.316 – 10      2       4.84      71.2
           total      4                  142
    """
    most = 12 if rows is None else integer(rows, "rows", minimum=1)
    groups = _groups(plan, most)
    body = [_level_row(plan, group) for group in groups]
    body.append(_total_row(plan))
    names = [name for name in body[0] if any(row.get(name) not in ("", None, "0") for row in body)]
    cells = [[row.get(name, "") for name in names] for row in body]
    return "\n".join(_table(names, cells, left=(), indent=""))


def _groups(plan: Plan, rows: int) -> list[Array]:
    """Indices of the levels of each row: equal extents in log sigma, or single levels."""
    if rows >= len(plan.levels):
        return [np.array([i]) for i in range(len(plan.levels))]
    logs = np.log(plan.levels.edges)
    position = (np.log(plan.levels.sigma) - logs[0]) / (logs[-1] - logs[0])
    index = np.minimum((position * rows).astype(np.int64), rows - 1)
    return [np.flatnonzero(index == i) for i in range(rows) if np.any(index == i)]


def _level_row(plan: Plan, on: Array) -> dict[str, str]:
    levels, steps = plan.levels, float(plan.steps[on].sum())
    low, high = levels.edges[on[0]], levels.edges[on[-1] + 1]
    row = {"sigma": f"{quantity(low, 3)} – {quantity(high, 3)}"}
    if planned_training(plan):
        count = float(plan.examples[on].sum())
        row["examples"] = _count(count)
        row["share"] = percent(count / plan.examples.sum())
        row["per ln sigma"] = _count(count / levels.log_width[on].sum())
    if steps > 0:
        row["steps"] = quantity(steps, 3)
        row["step size"] = quantity(float(levels.width[on].sum()) / steps, 3)
    row.update(_level_errors(plan, on))
    row["gain/price"] = quantity(_mean_gain(plan, on), 3) if "marginal_gain" in plan.tables else ""
    return row


def _level_errors(plan: Plan, on: Array) -> dict[str, str]:
    names = {"score": "score", "floor": "floor", "discretization": "discret."}
    tables = {label: plan.tables[name] for name, label in names.items() if name in plan.tables}
    return {label: quantity(float(values[on].sum()), 3) for label, values in tables.items()}


def _count(value: float) -> str:
    return "<0.1" if 0 < value < 0.1 else quantity(value, 3)


def _mean_gain(plan: Plan, on: Array) -> float:
    gain, weight = plan.tables["marginal_gain"][on], plan.examples[on]
    known = np.isfinite(gain)
    if not known.any():
        return float("inf")
    weight = weight[known] if weight[known].sum() > 0 else np.ones(int(known.sum()))
    return float(np.average(gain[known], weights=weight))


def _total_row(plan: Plan) -> dict[str, str]:
    row = {"sigma": "total"}
    if planned_training(plan):
        row["examples"] = _count(float(plan.examples.sum()))
    if plan.steps.sum() > 0:
        row["steps"] = quantity(float(plan.steps.sum()), 3)
    return row | _level_errors(plan, np.arange(len(plan.levels)))


def _table(
    title: Sequence[str], rows: Sequence[Sequence[str]], left: tuple[int, ...] = (0, 1), indent: str = "  "
) -> list[str]:
    """Aligned lines: a title line, then indented rows; columns in `left` to the left, the others right."""
    cells = [list(title)] + [[indent + row[0], *row[1 : len(title)]] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(title))]
    pads = [f"<{width}" if i in left else f">{width}" for i, width in enumerate(widths)]
    return ["  ".join(format(c, pad) for c, pad in zip(row, pads, strict=True)).rstrip() for row in cells]


def _wrapped(head: str, text: str) -> list[str]:
    if not text:
        return []
    return textwrap.wrap(text, WIDTH, initial_indent=head, subsequent_indent=" " * len(head))


def _clip(name: str, width: int = 30) -> str:
    return name if len(name) <= width else name[: width - 1] + "…"
