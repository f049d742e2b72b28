"""Infeasible programs of fourteen kinds, with how far each of their constraints must give, from closed forms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import cvxpy as cp
import numpy as np
from scipy.optimize import brentq

import codesign_opt as co


@dataclass(frozen=True)
class Infeasible:
    """A program whose numbers exclude each other.

    Attributes:
        build: the problem at these numbers.
        numbers: as stated, by key.
        amounts: name of a constraint: (key of its number, how far that must move, with sign).
    """

    build: Callable[[dict[str, Any]], co.Problem]
    numbers: dict[str, Any]
    amounts: dict[str, tuple[str, float]]

    def relaxed(self, name: str, share: float) -> co.Problem:
        """The problem with one number moved by `share` of its amount."""
        key, amount = self.amounts[name]
        return self.build({**self.numbers, key: self.numbers[key] + share * amount})


@dataclass(frozen=True, eq=False)
class World:
    """Random coefficients and prices on random levels, with generous budgets."""

    table: co.Coefficients
    prices: co.Prices
    example: np.ndarray
    step: np.ndarray

    @classmethod
    def random(cls, rng):
        size = int(rng.integers(6, 40))
        levels = co.Levels.log_uniform(10 ** rng.uniform(-3, -1), 10 ** rng.uniform(0, 2), size)

        def spread(*shape):
            return 10 ** rng.uniform(-1, 1, shape)

        ratio = spread(size)
        table = co.Coefficients(
            levels, score=spread(size), floor=0.1 * spread(size), response=spread(2, size), terminal="rescale",
            variance_ratio=ratio, positivity=float(rng.uniform(0.5, 2)),
        )  # fmt: skip
        unit = 10 ** rng.uniform(-4, 4)
        example, step = unit * spread(size), unit * spread(size)
        return cls(table, co.Prices(example, step, 1), example, step)

    @property
    def width(self):
        return self.table.levels.log_width

    @property
    def sigma(self):
        return self.table.levels.sigma

    def problem(self, rows, budget=None, **given):
        """The error under a budget that is no part of the conflict, and `rows`."""
        terms = co.ScoreError(self.table) + co.Discretization(self.table)
        return co.Problem(terms, [*([] if budget is None else [co.Compute(self.prices) <= budget]), *rows], **given)

    def plenty(self, density, steps):
        """A budget ten times what these densities and steps cost."""
        return float(10 * (self.example @ (density * self.width) + self.step @ steps))

    def edge(self, share):
        """An edge between levels, about this share of the levels below it."""
        size = self.sigma.size
        return int(np.clip(round(share * size), 1, size - 1))


def floor_and_cap(rng):
    world, cap = World.random(rng), 10 ** rng.uniform(1, 8)
    floor = cap * rng.uniform(1.02, 20)
    budget = world.plenty(floor, np.ones(world.sigma.size))
    amount = floor - cap
    return Infeasible(
        lambda n: world.problem([co.Floor(n["floor"]), co.Cap(n["cap"])], budget),
        {"floor": floor, "cap": cap}, {"Floor(density)": ("floor", -amount), "Cap(density)": ("cap", amount)},
    )  # fmt: skip


def floor_and_budget(rng):
    world, floor = World.random(rng), 10 ** rng.uniform(1, 8)
    needed = floor * float(world.example @ world.width)
    budget = needed / rng.uniform(1.02, 20)
    steps = np.ones(world.sigma.size)

    def build(n):
        rows = [co.Compute(world.prices, part="training") <= n["budget"], co.Floor(n["floor"])]
        return world.problem(rows, steps=steps)

    return Infeasible(
        build, {"floor": floor, "budget": budget},
        {"Floor(density)": ("floor", floor * (budget / needed - 1)), "Compute(training)": ("budget", needed - budget)},
    )  # fmt: skip


def steps_and_trust(rng):
    world, kappa = World.random(rng), 10 ** rng.uniform(-1, 1)
    whole = float(world.table.variance_ratio @ world.width)
    count = whole / kappa / rng.uniform(1.05, 10)
    budget = world.plenty(1e3, np.full(world.sigma.size, 3 * whole / kappa))
    return Infeasible(
        lambda n: world.problem([co.TrustCap(world.table, n["kappa"]), co.Steps() <= n["count"]], budget),
        {"kappa": kappa, "count": count},
        {"TrustCap": ("kappa", whole / count - kappa), "Steps": ("count", whole / kappa - count)},
    )


def steps_and_step_size(rng):
    world = World.random(rng)
    size = float(world.table.levels.width.max() * rng.uniform(0.05, 0.5))
    whole = float(world.table.levels.width.sum())
    count = whole / size / rng.uniform(1.05, 10)
    budget = world.plenty(1e3, np.full(world.sigma.size, 3 * whole / size))
    return Infeasible(
        lambda n: world.problem([co.Cap(n["size"], "step_size"), co.Steps() <= n["count"]], budget),
        {"size": size, "count": count},
        {"Cap(step_size)": ("size", whole / count - size), "Steps": ("count", whole / size - count)},
    )


def shares(rng):
    world, parts = World.random(rng), int(rng.integers(2, 4))
    cuts = [0, *(world.edge(i / parts) for i in range(1, parts)), world.sigma.size]
    edges = world.table.levels.edges[cuts]
    most = {f"share {i}": float(s) for i, s in enumerate(rng.dirichlet(np.full(parts, 3.0)) * rng.uniform(0.5, 0.98))}
    missing = 1 - sum(most.values())

    def build(n):
        rows = [co.named(f"share {i}", co.Share(n[f"share {i}"], edges[i], edges[i + 1])) for i in range(parts)]
        return world.problem(rows, world.plenty(1e3, np.ones(world.sigma.size)))

    return Infeasible(build, most, {name: (name, missing) for name in most})


def share_floor_and_cap(rng):
    world, at = World.random(rng), None
    at = world.edge(rng.uniform(0.3, 0.7))
    edges, inside = world.table.levels.edges, world.width[:at].sum()
    outside = world.width[at:].sum()
    floor, share = 10 ** rng.uniform(1, 6), rng.uniform(0.1, 0.6)
    cap = floor * inside / outside * (1 - share) / share / rng.uniform(1.05, 10)
    least, most = floor * inside, cap * outside

    def build(n):
        rows = [
            co.named("share", co.Share(min(n["share"], 1.0), edges[0], edges[at])),
            co.named("floor", co.Floor(n["floor"], high=edges[at])),
            co.named("cap", co.Cap(n["cap"], low=edges[at])),
        ]
        return world.problem(rows, world.plenty(floor + cap, np.ones(world.sigma.size)))

    return Infeasible(
        build, {"share": share, "floor": floor, "cap": cap},
        {
            "share": ("share", least / (least + most) - share),
            "floor": ("floor", share / (1 - share) * most / inside - floor),
            "cap": ("cap", (1 - share) / share * least / outside - cap),
        },
    )  # fmt: skip


def user_sums(rng):
    world, unit = World.random(rng), 10 ** rng.uniform(-6, 6)
    at = world.edge(rng.uniform(0.3, 0.7))
    most = 10 ** rng.uniform(1, 6) / unit
    least = most * rng.uniform(1.02, 30)
    equal = bool(rng.integers(2))

    def build(n):
        rows = [
            co.named("many", lambda d: cp.sum(d.examples[:at]) / unit >= n["many"]),
            co.named("few", lambda d: cp.sum(d.examples) / unit == n["few"] if equal else
                     cp.sum(d.examples[: at + 1]) / unit <= n["few"]),
        ]  # fmt: skip
        return world.problem(rows, world.plenty(30 * least * unit / world.width.min(), np.ones(world.sigma.size)))

    amount = least - most
    return Infeasible(build, {"many": least, "few": most}, {"many": ("many", -amount), "few": ("few", amount)})


def error_and_budget(rng):
    world = World.random(rng)
    steps = rng.uniform(0.1, 3, world.sigma.size)
    score = co.ScoreError(replace(world.table, floor=np.zeros(steps.size)))
    weight = np.sqrt(world.table.example_error * world.table.coupling.factor(world.table.kappa / steps) * world.example)
    budget = 10 ** rng.uniform(3, 8) * float(world.example.mean())
    best = float(weight.sum() ** 2 / budget)
    bound = best / rng.uniform(1.05, 20)

    def build(n):
        rows = [co.named("quality", score <= n["bound"]), co.Compute(world.prices, part="training") <= n["budget"]]
        return co.Problem(score, rows, steps=steps)

    return Infeasible(
        build, {"bound": bound, "budget": budget},
        {"quality": ("bound", best - bound), "Compute(training)": ("budget", budget * (best / bound - 1))},
    )  # fmt: skip


def ball_and_cap(rng):
    world = World.random(rng)
    size, centre = world.sigma.size, 10 ** rng.uniform(2, 6)
    radius = centre * rng.uniform(0.1, 0.7) * np.sqrt(size)
    cap = (centre - radius / np.sqrt(size)) / rng.uniform(1.05, 5)

    def build(n):
        rows = [
            co.named("ball", lambda d: cp.norm(d.examples - centre) <= n["radius"]),
            co.Cap(n["cap"], "examples"),
        ]
        return world.problem(rows, world.plenty(3 * centre / world.width.min(), np.ones(size)))

    return Infeasible(
        build, {"radius": radius, "cap": cap},
        {
            "ball": ("radius", (centre - cap) * np.sqrt(size) - radius),
            "Cap(examples)": ("cap", centre - radius / np.sqrt(size) - cap),
        },
    )  # fmt: skip


def ball_and_sum(rng):
    """Counts of up to ten billion, uneven: the norm's amount needs all digits of the point."""
    world = World.random(rng)
    world = replace(world, table=replace(world.table, floor=np.zeros(world.sigma.size)))  # all of the error varies
    size = world.sigma.size
    centre = 10 ** rng.uniform(2, 10) * rng.dirichlet(np.ones(size))
    radius = 0.1 * float(np.linalg.norm(centre))
    reached = float(centre.sum() + np.sqrt(size) * radius)
    total = reached * rng.uniform(1.01, 20)

    def build(n):
        rows = [
            co.named("ball", lambda d: cp.norm(d.examples - centre) <= n["radius"]),
            co.named("sum", lambda d: cp.sum(d.examples) >= n["total"]),
        ]
        return world.problem(rows, world.plenty(total / world.width, np.ones(size)))

    return Infeasible(
        build, {"radius": radius, "total": total},
        {"ball": ("radius", (total - centre.sum()) / np.sqrt(size) - radius), "sum": ("total", reached - total)},
    )  # fmt: skip


def divergence_and_sum(rng):
    """The least divergence of a given sum is that of the centre's own shape."""
    world = World.random(rng)
    centre = 10 ** rng.uniform(0, 8) * rng.dirichlet(np.ones(world.sigma.size)) + 1e-3
    whole = float(centre.sum())
    total = whole * rng.uniform(1.2, 5)

    def divergence(count):
        return count * np.log(count / whole) - count + whole

    most = divergence(total) / (1 + 10 ** rng.uniform(-2, 1))
    reached = brentq(lambda count: divergence(count) - most, whole, total, rtol=1e-14)

    def build(n):
        rows = [
            co.named("near", lambda d: cp.sum(cp.kl_div(d.examples, centre)) <= n["most"]),
            co.named("sum", lambda d: cp.sum(d.examples) >= n["total"]),
        ]
        return world.problem(rows, world.plenty(3 * total / world.width, np.ones(world.sigma.size)))

    return Infeasible(
        build, {"most": most, "total": total},
        {"near": ("most", divergence(total) - most), "sum": ("total", reached - total)},
    )  # fmt: skip


def monotone_floor_and_cap(rng):
    world, cap = World.random(rng), 10 ** rng.uniform(1, 6)
    low, high = sorted((world.edge(rng.uniform(0.1, 0.45)), world.edge(rng.uniform(0.55, 0.9))))
    high = max(high, low + 1) if low + 1 < world.sigma.size else high
    floor = cap * rng.uniform(1.02, 20)
    edges, rising = world.table.levels.edges, bool(rng.integers(2))
    below, above = {"high": edges[low]}, {"low": edges[high]}

    def build(n):
        rows = [
            co.Monotone("increasing" if rising else "decreasing"),
            co.named("floor", co.Floor(n["floor"], **(below if rising else above))),
            co.named("cap", co.Cap(n["cap"], **(above if rising else below))),
        ]
        return world.problem(rows, world.plenty(3 * floor, np.ones(world.sigma.size)))

    amount = floor - cap
    return Infeasible(build, {"floor": floor, "cap": cap}, {"floor": ("floor", -amount), "cap": ("cap", amount)})


def user_vector_and_budget(rng):
    world, least = World.random(rng), 10 ** rng.uniform(1, 6)
    at = world.edge(rng.uniform(0.3, 0.9))
    needed = least * float(world.example[:at] @ world.width[:at])
    budget = needed / rng.uniform(1.05, 20)
    steps = np.ones(world.sigma.size)

    def build(n):
        rows = [
            co.Compute(world.prices, part="training") <= n["budget"],
            co.named("rows", lambda d: d.density[:at] >= n["least"]),
        ]
        return world.problem(rows, steps=steps)

    return Infeasible(
        build, {"least": least, "budget": budget},
        {"rows": ("least", least * (budget / needed - 1)), "Compute(training)": ("budget", needed - budget)},
    )  # fmt: skip


def largest_and_sum(rng):
    world, most = World.random(rng), 10 ** rng.uniform(1, 6)
    whole = float(world.width.sum())
    count = most * whole * rng.uniform(1.05, 10)

    def build(n):
        rows = [
            co.named("largest", lambda d: cp.max(d.density) <= n["most"]),
            co.named("sum", lambda d: cp.sum(d.examples) >= n["count"]),
        ]
        return world.problem(rows, world.plenty(10 * count / whole, np.ones(world.sigma.size)))

    return Infeasible(
        build, {"most": most, "count": count},
        {"largest": ("most", count / whole - most), "sum": ("count", most * whole - count)},
    )  # fmt: skip


KINDS = {kind.__name__: kind for kind in (
    floor_and_cap, floor_and_budget, steps_and_trust, steps_and_step_size, shares, share_floor_and_cap, user_sums,
    error_and_budget, ball_and_cap, ball_and_sum, divergence_and_sum, monotone_floor_and_cap, user_vector_and_budget,
    largest_and_sum,
)}  # fmt: skip


def complaint(instance: Infeasible) -> str | None:
    """What is wrong with how an infeasible program is refused; None where nothing is."""
    try:
        plan = instance.build(instance.numbers).solve()
    except co.InfeasibleError as error:
        caught = error
    except Exception as error:  # whatever else it says is to be reported
        return f"{type(error).__name__}: {str(error)[:200]}"
    else:
        return f"solved to {plan.error}"
    found = {record["name"]: record for record in caught.conflicts}
    for name, (_, amount) in instance.amounts.items():
        if name not in found:
            return f"'{name}' is not named: {caught}"
        told = found[name]["amount"]
        if told is None or abs(told - abs(amount)) > 0.01 * abs(amount):
            return f"'{name}' must give {abs(amount)}, told {told}"
        try:
            plan = instance.relaxed(name, 1.01).solve()
        except co.CodesignError as error:
            return f"'{name}' given 1 % more than needed: {type(error).__name__}: {str(error)[:200]}"
        if not plan.certificate.optimal:
            return f"'{name}' given 1 % more than needed: {plan.certificate}"
    return None
