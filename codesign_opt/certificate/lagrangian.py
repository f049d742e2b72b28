"""Proof of optimality that trusts no solver: a lower bound from multipliers, level by level.

docs/theory.md section 8. For any multipliers y >= 0 of the constraints, the Lagrangian is a lower
bound of the optimum. Every leaf of the problem enters it either exactly, as a sum of functions of
one level's (examples m, steps n), or by its tangent at the candidate, which lies below a convex
function. What remains is one convex minimisation in one variable per level, done here by bracketing
with the remaining error bounded from the slope.

The structured solvers minimise the same levels in closed form. Nothing of that is used here, on purpose: a mistake in
a formula must not confirm itself. Bracketing needs only values and slopes, of any coupling, and is right whenever the
function is convex.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field, replace

import numpy as np

from ..basics.checks import Array, Mask
from ..ingredients.coupling import Coupling
from .bracket import Bracket

__all__ = ["InformationPart", "LagrangianBound", "ScorePart", "pooled_price"]

_CLIMBS = 60
_ROUNDS = 120  # each at least halves the bracket; well-scaled programs take fewer than six
_ROUNDING = (1e-2, 1e-4, 1e-6)  # an example worth more than its price by a larger share is one that a cap holds back
_SPAN = 1e-25  # the bracket starts this far below a number of steps at which the function rises already
_BESIDE = 4 * np.finfo(float).eps  # of a logarithm: its exponential is surely to one side
_LARGE = 1e280  # kinks and powers near n = 0 are cut there: inf - inf would be NaN, where the sign is all that matters


@dataclass(frozen=True, eq=False)
class ScorePart:
    """(A / (prior + spent + m) + F) M(kappa / n) on each level; `price` set where m is replaced by pooled examples.

    A pooled part has its own variable z = prior + T (spent + m) per level, coupled by the multiplier `price`
    (docs/theory.md section 8): it then enters as A M / z + price z, minimised over z >= 0, which is
    2 sqrt(A M price), and as -price (prior + T (spent + m)). Any price >= 0 gives a bound.
    """

    example_error: Array
    floor_error: Array
    coupling: Coupling
    kappa: Array
    price: Array | None = None
    pool: Array | None = None
    prior: Array | None = None

    def before(self, size: int) -> Array:
        """(L,) examples that count before any is spent."""
        return np.zeros(size) if self.prior is None else self.prior


_Inner = tuple[Array, Array, Array, Array]  # of a part: A, M, the slope of M in n, and the examples of its prior


@dataclass(frozen=True, eq=False)
class InformationPart:
    """<G G^T, (M0 + sum_l (spent + m)_l F_l)^-1> from below: 2 t overlap - t^2 (prior + sum_l (spent + m)_l gains_l).

    For every Y and every t, with overlap = <G, Y>, prior = <Y, M0 Y> and gains_l = <Y, F_l Y> (docs/theory.md
    section 8.1, 8): linear in the examples. Several Y may be tried; t is the bound's own, near one.

    Args:
        overlap, prior: (Y,) for each Y tried.
        gains: (Y, L).
    """

    overlap: Array
    prior: Array
    gains: Array


@dataclass(eq=False)
class LagrangianBound:
    """Accumulates the leaves of a Lagrangian and minimises it exactly over a box, level by level.

    phi_l(m, n) = sum_parts (A/(e+m) + F) M(kappa/n) + sum_powers D n^(-q) - B log(e+m) - C log n
                  + examples_price m + steps_price n

    A, F, B and C are nonnegative. D may be negative on levels whose steps are bounded from below: the
    power then rises with n, and its value at that bound lies below it.

    Args:
        size: number of levels L.
        spent: (L,) examples e already spent.
        fixed_examples, fixed_steps: (L,) the value of a quantity that is not a variable, or None.
        samplings: what has steps of its own, by sampler; all have the same examples (section 8.1, 10).
        candidate: (L,) examples and steps around which linear parts are held, and at which the price of an example is
            divided among the samplers; given from the start.
    """

    size: int
    spent: Array
    fixed_examples: Array | None = None
    fixed_steps: Array | None = None
    constant: float = 0.0
    parts: list[ScorePart] = field(default_factory=list)
    powers: list[tuple[float, Array]] = field(default_factory=list)
    examples_log: Array = field(init=False)
    steps_log: Array = field(init=False)
    examples_price: Array = field(init=False)
    steps_price: Array = field(init=False)
    examples_box: tuple[Array, Array] = field(init=False)
    steps_box: tuple[Array, Array] = field(init=False)
    information: list[InformationPart] = field(default_factory=list)
    samplings: dict[str, LagrangianBound] = field(default_factory=dict)
    candidate: tuple[Array, Array] | None = None
    has_logs: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        zero, infinite = np.zeros(self.size), np.full(self.size, np.inf)
        self.examples_price, self.steps_price = zero.copy(), zero.copy()
        self.examples_log, self.steps_log = zero.copy(), zero.copy()
        self.examples_box = (zero.copy(), infinite.copy())
        self.steps_box = (zero.copy(), infinite.copy())

    def add_linear(self, constant: float, examples: Array, steps: Array) -> None:
        """Add constant + examples . m + steps . n."""
        m, n = self.origin
        self.add_around(constant + float(examples @ m) + float(steps @ n), examples, steps)

    @property
    def origin(self) -> tuple[Array, Array]:
        """(L,) examples and steps around which linear parts are held: the candidate, or nothing where there is none.

        What a level's price adds is then about 0 at the optimum, however much it costs there (section 8.1).
        """
        return (np.zeros(self.size), np.zeros(self.size)) if self.candidate is None else self.candidate

    def add_around(self, value: float, examples: Array, steps: Array) -> None:
        """Add a linear function by its value at `origin` and its slopes."""
        self.constant += value
        self.examples_price = self.examples_price + examples
        self.steps_price = self.steps_price + steps

    def add_logarithms(self, constant: float, examples: Array, steps: Array) -> None:
        """Add constant - examples . log(e + m) - steps . log n, coefficients >= 0."""
        self.has_logs = True
        self.constant += constant
        self.examples_log = self.examples_log + examples
        self.steps_log = self.steps_log + steps

    def value(self) -> float:
        """The minimum over the box, bounded from below; -inf where it is unbounded."""
        if self.samplings:
            return sum(part.value() for part in self._divided())
        tried = max((part.overlap.size for part in self.information), default=0)
        if tried:
            return max(self._informed(trial) for trial in range(tried))
        worth = [part.price @ part.pool for part in self.parts if part.price is not None and part.pool is not None]
        return self._priced(np.sum(worth, axis=0)) if worth else self._minimum()

    def _priced(self, pooled: Array) -> float:
        """The best found with prices of pooled examples that make them worth `pooled` (L,)."""
        # the prices of pooled examples as they are, and so much lower that no example is worth more than its price: at
        # the optimum worth and price are equal on every level used, and one rounding too much makes the bound -inf
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(pooled > 0, self.examples_price / pooled, np.inf)
        scales = {float(np.min(ratio[ratio > 1 - share], initial=1.0)) for share in _ROUNDING}
        return max(self._repriced(scale, pooled)._minimum() for scale in {1.0, *scales})

    def steps_slope(self, steps: Array) -> Array:
        """(L,) slope of each level's function by its steps, at the best examples: what a tight bound of steps costs."""
        slope = self._at(steps)[1] + self.steps_price
        for power, coefficient in self.powers:  # those that rise are bounded, not minimised: they are not in _at
            slope = slope - np.where(coefficient < 0, power * coefficient * steps ** (-power - 1), 0.0)
        return slope

    def _divided(self) -> list[LagrangianBound]:
        """This bound and those of the samplers, each with its share of the price of an example.

        Every division bounds; in proportion to what an example of the candidate is worth to each it is exact there.
        """
        parts = [copy(self), *map(copy, self.samplings.values())]
        parts[0].samplings = {}
        price = np.sum([part.examples_price for part in parts], axis=0)
        worth = [part._worth() for part in parts]
        total = np.sum(worth, axis=0)
        for part, own in zip(parts, worth, strict=True):
            even = np.full(self.size, 1 / len(parts))
            part.examples_price = price * np.divide(own, total, out=even, where=total > 0)
        return parts

    def _worth(self) -> Array:
        """(L,) decrease of this bound per example at the candidate, the price of an example left out."""
        worth = np.zeros(self.size)
        if self.candidate is None or self.fixed_examples is not None:
            return worth
        examples, steps = self.candidate
        total = self.spent + examples
        with np.errstate(all="ignore"):
            for part in self.parts:
                if part.price is not None and part.pool is not None:
                    worth = worth + part.price @ part.pool
                elif part.price is None:
                    served = total + part.before(self.size)
                    found = part.example_error * part.coupling.factor(part.kappa / steps) / served**2
                    worth = worth + np.where(np.isfinite(found), found, 0.0)
            worth = worth + np.where(self.examples_log > 0, self.examples_log / total, 0.0)
        for told in self.information:
            worth = worth + told.gains[0]
        return np.where(np.isfinite(worth), worth, 0.0)

    def _informed(self, trial: int) -> float:
        """The best found over t of the bound with this Y of every information error."""
        chosen = [(part, min(trial, part.overlap.size - 1)) for part in self.information]
        overlap = sum(float(part.overlap[i]) for part, i in chosen)
        gains = np.sum([part.gains[i] for part, i in chosen], axis=0)
        constant = sum(float(part.prior[i]) for part, i in chosen) + float(gains @ (self.spent + self.origin[0]))

        def at(square: float) -> float:
            changed = copy(self)
            changed.information, changed.examples_price = [], self.examples_price - square * gains
            changed.constant = self.constant + 2 * np.sqrt(square) * overlap - square * constant
            return changed.value()

        # at the optimum an example is worth its price on every level used: t is lowered until rounding makes none worth
        # more, and raised where multipliers err to the other side
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(gains > 0, self.examples_price / gains, np.inf)
        squares = {float(np.min(ratio[ratio > 1 - share], initial=np.inf)) for share in _ROUNDING}
        return max(at(square) for square in {1.0, *(s for s in squares if np.isfinite(s))})

    def _repriced(self, scale: float, pooled: Array) -> LagrangianBound:
        """The same bound with every price of pooled examples times `scale`, and their slope in the examples."""
        parts = [part if part.price is None else replace(part, price=scale * part.price) for part in self.parts]
        changed = copy(self)
        changed.parts, changed.examples_price = parts, self.examples_price - scale * pooled
        before = sum(float(part.price @ part.before(self.size)) for part in self.parts if part.price is not None)
        changed.constant = self.constant - scale * (float(pooled @ (self.spent + self.origin[0])) + before)
        return changed

    def _minimum(self) -> float:
        if self.fixed_steps is not None:
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                per_level = self._at(self.fixed_steps)[0] + self._steps_cost(self.fixed_steps)
                return float(self.constant + per_level.sum() + self._rising_powers(self.fixed_steps))
        low, high = self.steps_box
        rising = self._rising_powers(low)
        if rising == -np.inf:
            return -np.inf
        free = self._needs_steps()
        if np.any(~np.isfinite(high) & (self.steps_price <= 0) & (free | (self.steps_price < 0))):
            return -np.inf
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # the bracket starts at steps near zero
            per_level = self._minimise(low, high) if free.any() else np.zeros(self.size)
            if not free.all():
                # steps serve nothing there: the best number is the least (or the most, if paid for)
                idle = np.where(free, 1.0, np.where(self.steps_price >= 0, low, high))
                alone = self._at(np.maximum(idle, 1e-300), safe=~free)[0] + self._steps_cost(idle)
                per_level = np.where(free, per_level, alone)
        return float(self.constant + rising + per_level.sum())

    def _steps_cost(self, n: Array) -> Array:
        """(L,) price of steps beyond those of the origin; 0 where they have none, however many they are."""
        return np.where(self.steps_price != 0, self.steps_price * (n - self.origin[1]), 0.0)

    def _rising_powers(self, n: Array) -> float:
        """Sum of the powers with a negative coefficient at the least number of steps; -inf where that is 0."""
        total = 0.0
        for power, coefficient in self.powers:
            falls = coefficient < 0
            if np.any(n[falls] <= 0):
                return -np.inf
            with np.errstate(over="ignore"):
                total += float(coefficient[falls] @ n[falls] ** -power)
        return total

    def _needs_steps(self) -> Mask:
        """Levels where fewer steps cost something: any score or discretisation coefficient."""
        needs = np.zeros(self.size, dtype=bool)
        for part in self.parts:
            moves = part.coupling.slope(np.full(self.size, 1e9)) > 0  # far beyond every kink: does M depend on n at all
            needs |= moves & ((part.example_error > 0) | (part.floor_error > 0))
        for _, coefficient in self.powers:
            needs |= coefficient > 0
        return needs | (self.steps_log > 0)

    def _minimise(self, low: Array, high: Array) -> Array:
        """Lower bound of min over n of the level functions, convex in n.

        A bracket in log n is narrowed at the secant, beyond it, and in the middle where both left it wide; what is
        left of it is paid for by the slope at its lower end.
        """
        bracket = self._bracket(low, high)
        bottom = np.exp(bracket.a)
        # where a coupling may have its kink, from both sides: many minimisers lie exactly there, and the jump of the
        # slope closes the bracket at once, which secants, blind to jumps, would only halve
        for part in self.parts:
            kink = np.log(np.maximum(part.kappa, 1e-300))
            beside = _BESIDE * np.maximum(np.abs(kink), 1.0)
            for edge in (kink + beside, kink - beside):
                bracket = self._narrowed(bracket, edge)
        for _ in range(_ROUNDS):
            value, slope, n, end = bracket.value, bracket.slope_a, np.exp(bracket.a), np.exp(bracket.b)
            # what the bracket leaves open, summed: levels of a small value need not be exact. Slopes are in log n
            rest = np.abs(slope) * (end / n - 1)
            if rest.sum() <= 1e-15 * np.abs(value).sum():
                break
            bracket = self._round(bracket)
        value, slope = self._at(n := np.exp(bracket.a))
        slope, end = slope + self.steps_price, np.exp(bracket.b)
        # convexity: below the tangent nowhere; the minimiser lies in [n, end], or in [low, bottom] where the
        # slope at the bottom of the bracket is already positive
        right = np.where(slope < 0, slope * (end - n), 0.0)
        left = np.where(slope > 0, slope * np.where(n <= bottom * (1 + 1e-12), n - low, 0.0), 0.0)
        return value + self._steps_cost(n) + right - left

    def _round(self, bracket: Bracket) -> Bracket:
        """Two probes at and beyond the secant's root; the middle where they did not halve the bracket.

        The root of a secant through a curved slope lies on the same side time after time, so that the other end would
        stay. Twice the distance still missing, by the same secant, lands just behind the minimiser and brings that end.
        """
        a, b, width = bracket.a, bracket.b, bracket.b - bracket.a
        with np.errstate(all="ignore"):
            rate = (bracket.slope_b - bracket.slope_a) / width
            secant = a - bracket.slope_a / rate
        inside = np.isfinite(secant) & (secant > a) & (secant < b)
        probe = np.where(inside, secant, 0.5 * (a + b))
        value, slope = self._in_log(probe)
        bracket = bracket.with_probe(probe, value, slope)
        with np.errstate(all="ignore"):
            beyond = probe - 2 * slope / rate
        inside = np.isfinite(beyond) & (beyond > bracket.a) & (beyond < bracket.b)
        bracket = self._narrowed(bracket, np.where(inside, beyond, 0.5 * (bracket.a + bracket.b)))
        if np.any(bracket.b - bracket.a > 0.5 * width):
            bracket = self._narrowed(bracket, 0.5 * (bracket.a + bracket.b))
        return bracket

    def _narrowed(self, bracket: Bracket, probe: Array) -> Bracket:
        return bracket.with_probe(probe, *self._in_log(np.clip(probe, bracket.a, bracket.b)))

    def _in_log(self, logs: Array) -> tuple[Array, Array]:
        """Level functions, the price of steps included, and their slopes in log n."""
        n = np.exp(logs)
        value, slope = self._at(n)
        return value + self._steps_cost(n), (slope + self.steps_price) * n

    def _bracket(self, low: Array, high: Array) -> Bracket:
        """Steps below and above the minimiser: from those of the powers alone, then grown (high where none is)."""
        with np.errstate(all="ignore"):
            alone = [(q * d / self.steps_price) ** (1 / (q + 1)) for q, d in self.powers]
        guess = np.max([np.where(np.isfinite(x), x, 0.0) for x in alone], axis=0, initial=0.0)
        # a score only asks for more steps: just below the powers' own optimum the function still falls
        top = np.maximum(low, np.clip(guess * (1 - 1e-9), 1e-12, np.maximum(high, 1e-12)))
        below = top * _SPAN
        for _ in range(400):
            falls = self._at(top)[1] + self.steps_price < 0
            below = np.where(falls, top, below)
            if not np.any(falls & (top < high)):
                break
            top = np.where(falls, np.minimum(top * 4.0, high), top)
        top = np.minimum(high, top)
        a, b = np.log(np.maximum(low, np.minimum(below, top))), np.log(np.maximum(top, low))
        value, slope_a = self._in_log(a)
        return Bracket(a, b, value, slope_a, self._in_log(b)[1])

    def _at(self, n: Array, safe: Mask | None = None) -> tuple[Array, Array]:
        """Level functions without the price of steps, minimised over m, and their slopes in n.

        The slope of a partial minimum is the slope at the minimiser, which itself need not be differentiated.
        """
        n = np.maximum(n, 1e-300)
        value, slope = np.zeros(self.size), np.zeros(self.size)
        weight, inner = np.zeros(self.size), list[_Inner]()
        for part in self.parts:
            x = np.minimum(part.kappa / n, _LARGE)
            factor, rate = part.coupling.factor(x), np.minimum(part.coupling.slope(x) * x / n, _LARGE)
            if safe is not None:
                factor = np.where(safe & (part.example_error == 0) & (part.floor_error == 0), 0.0, factor)
            value = value + part.floor_error * factor
            slope = slope - part.floor_error * rate
            if part.price is not None:  # examples of its own, minimised over: 2 sqrt(A M price)
                pooled = np.sqrt(part.example_error * part.price)
                value = value + 2 * pooled * np.sqrt(factor)
                slope = slope - pooled * rate / np.sqrt(np.maximum(factor, 1e-300))
                continue
            weight = weight + part.example_error * factor
            inner.append((part.example_error, factor, rate, part.before(self.size)))
        for power, coefficient in self.powers:
            term = np.where(coefficient > 0, coefficient * np.minimum(n**-power, _LARGE), 0.0)
            value, slope = value + term, slope - np.minimum(power * term / n, 1e10 * _LARGE)
        if self.has_logs:
            value, slope = value - self.steps_log * np.log(n), slope - self.steps_log / n
        m = self._best_examples(weight, inner)
        total = self.spent + m
        value = value + np.where(self.examples_price != 0, self.examples_price * (m - self.origin[0]), 0.0)
        if self.has_logs:
            value = value - np.where(self.examples_log > 0, self.examples_log * np.log(total), 0.0)
        for error, factor, rate, before in inner:
            left = np.where(error > 0, error / (before + total), 0.0)
            value, slope = value + np.where(error > 0, left * factor, 0.0), slope - left * rate
        return value, slope

    def _best_examples(self, weight: Array, inner: Sequence[_Inner]) -> Array:
        """argmin over the box of sum_parts w / (prior + spent + m) - B log(spent + m) + price m."""
        if self.fixed_examples is not None:
            return self.fixed_examples
        low, high = self.examples_box
        known = [self.spent + before for error, _, _, before in inner if error.any()] or [self.spent]
        one = not any(np.any(each != known[0]) for each in known[1:])
        best = weight / self.examples_price
        if not one or (self.has_logs and np.any(known[0] != self.spent)):
            best = self._among(inner)
        elif self.has_logs:
            half = 0.5 * self.examples_log / self.examples_price  # positive root of price t^2 - B t - weight
            best = half + np.sqrt(half**2 + best) - known[0]
        else:
            best = np.sqrt(best) - known[0]
        # without a price: all that the box allows where more is better, the least where it makes no difference
        priced = self.examples_price > 0
        if not priced.all():
            wanted = (weight > 0) | (self.examples_log > 0) | (self.examples_price < 0)
            best = np.where(priced, best, np.where(wanted, high, low))
        return np.minimum(np.maximum(best, low), high)

    def _among(self, inner: Sequence[_Inner]) -> Array:
        """The root m of sum w / (prior + spent + m)^2 + B / (spent + m) = price, by Newton's method from below.

        The sum falls and is convex: from where a single part alone puts the root it climbs without overshooting.
        """
        terms = [(error * factor, self.spent + before) for error, factor, _, before in inner]
        alone = [np.sqrt(w / self.examples_price) - known for w, known in terms]
        m = np.max([*alone, self.examples_log / self.examples_price - self.spent, np.zeros(self.size)], axis=0)
        for _ in range(_CLIMBS):
            slope = np.where(self.examples_log > 0, self.examples_log / (self.spent + m), 0.0)
            bend = np.where(self.examples_log > 0, slope / (self.spent + m), 0.0)
            for w, known in terms:
                each = np.where(w > 0, w / (known + m) ** 2, 0.0)
                slope, bend = slope + each, bend + np.where(w > 0, 2 * each / (known + m), 0.0)
            step = np.where(bend > 0, (slope - self.examples_price) / bend, 0.0)
            m = m + np.maximum(np.where(np.isfinite(step), step, 0.0), 0.0)
            if not np.any(step > 1e-15 * m):
                break
        return m


def pooled_price(example_error: Array, factor: Array, pooled: Array) -> Array:
    """Multiplier of z = T m at the candidate: -d/dz of A M / z, the exact dual at the optimum.

    docs/theory.md section 8.1, 6; all (L,).
    """
    return example_error * factor / pooled**2
