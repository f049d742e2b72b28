"""Replanner: a training run whose density of noise levels is planned again as its losses come in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from ..basics.checks import Array, instance, integer, ndim, shown
from ..basics.errors import CodesignError
from ..basics.progress import Progress, teller
from ..curves.recording import LevelStatistics
from ..ingredients.densities import LogNormal, SigmaDensity
from ..ingredients.levels import Levels
from ..ingredients.spectrum import Spectrum
from ..models.gaussian import GaussianModel
from ..peers.densities.of_time import OnLevels
from .program import TRUST, RestOfRun
from .records import Replan, RunReport
from .rules import ReplanRules
from .run_density import RunDensity
from .run_law import RunLaw

__all__ = ["Replanner", "gathered"]

Gather = Callable[[dict[str, Any]], Sequence[dict[str, Any]]]
_LEAST = 1e-7  # of the examples, on every level: what divergences need of a density that leaves levels out
_SPECTRUM = "spectrum"
_EDM_DATA = 0.5  # standard deviation of the data that EDM's default was tuned on
_PER_DOUBLING = 4  # windows of the log
_STATE = ("question", "seen", "steps", "plans", "law", "log")


class Replanner:
    """A training run that is planned again as its own losses come in: where the rest of it trains.

        replanner = co.training.Replanner(spectrum, examples=2_000_000)     # before the loop
        sampler = co.training.SigmaSampler(replanner, seed=0)
        sigma, weight, _ = sampler(len(images), device=images.device)       # in it
        replanner.record(sigma, loss)                                       # |D - x0|^2 of each example

    No pilot is needed: the first density is EDM's default, moved to the spread of the data. At the times of its rules
    the learning curves of the run's log say kappa1 level by level, smoothed about the spectrum's, and the rest of the
    budget is planned with what is spent counted:

        minimise    score error at the end of the run, (spent + new) examples on every level,
                    + caution x the error where the density in use stays x KL(new density || density in use)
        subject to  as many new examples as are left,  KL(new density || density in use) <= trust,
                    new density >= floor x density in use on every level,

    a convex program, proved optimal by its certificate. The density in use is feasible, so that no plan is predicted
    worse than to go on. `report` says what the run's own numbers make of it (docs/theory.md section 7.13).

    A plan that cannot be made (a loss that has not begun to fall, a program that is not proved) leaves the density as
    it is and says so in `plans`: training never stops for it. A plan costs a fraction of a second; it is a function of
    the log alone, so that processes with one log have one plan, and no random numbers are drawn.

    Args:
        model: a Spectrum, or a GaussianModel: its spectrum, sampler family, terminal map and range of noise levels.
        examples: of the whole run, over all processes, >= 1.
        start: first density, restricted to the range; EDM's default in units of the data's spread unless given,
            P_mean = -1.2 + log(sigma_data / 0.5), P_std = 1.2. "spectrum": the best for data of this spectrum by the
            law A / m of least squares, which gives high noise more than networks need (docs/replanning.md).
        rules: when to plan and how far to move; see `ReplanRules`.
        ranks: processes that train together, each with a Replanner of its own, which record batches of one size.
        gather: state of this process -> states of all of them, the same list on every process; `gathered` does it with
            torch.distributed. Needed for more than one.
        progress: after each plan, in examples: False, since training loops tell their own, True, None (in a terminal or
            notebook, after 2 s), or a function of (done, total, text).

    Attributes:
        training_density: the density in use, one object over the whole run: what samplers draw from.
        plans: tuple of `Replan`, in order.
        log: the LevelStatistics of this process.
        seen: examples so far, over all processes.

    Raises:
        ValueError: an argument of another kind or out of range.

    >>> import codesign_opt as co
    >>> run = Replanner(co.Spectrum.power_law(8, exponent=1.5), 4_000, rules=ReplanRules(at=(0.25, 0.5), levels=12))
    >>> first, rng = run.training_density.now, np.random.default_rng(0)
    >>> for step in range(40):
    ...     sigma = run.training_density.quantile(rng.random(100))
    ...     left = 0.2 * sigma**2 / (1 + sigma**2) * (1 + 300 / (step + 1))
    ...     _ = run.record(sigma, left * rng.chisquare(8, 100) / 8)
    >>> [plan.examples for plan in run.plans], all(plan.moved < 0.1001 for plan in run.plans)
    ([1000, 2000], True)
    >>> run.training_density.now is first
    False
    """

    def __init__(
        self,
        model: GaussianModel | Spectrum,
        examples: int,
        *,
        start: SigmaDensity | str | None = None,
        rules: ReplanRules | None = None,
        ranks: int = 1,
        gather: Gather | None = None,
        progress: Progress = False,
    ) -> None:
        self.model = GaussianModel(model) if isinstance(model, Spectrum) else model
        if not isinstance(self.model, GaussianModel):
            raise ValueError(f"Replanner.model is {shown(model)}; a Spectrum or a GaussianModel is needed.")
        self.rules = ReplanRules() if rules is None else rules
        self._tell = teller(progress)
        if not isinstance(self.rules, ReplanRules):
            raise ValueError(f"Replanner.rules is {shown(rules)}; co.training.ReplanRules(…) is needed.")
        if not (start is None or isinstance(start, SigmaDensity) or (isinstance(start, str) and start == _SPECTRUM)):
            raise ValueError(
                f"Replanner.start is {shown(start)}; a SigmaDensity such as co.LogNormal(-1.2, 1.2) is needed, or "
                f"{_SPECTRUM!r}."
            )
        self.examples = integer(examples, "Replanner.examples", minimum=1)
        self.ranks, self.gather = integer(ranks, "Replanner.ranks", minimum=1), gather
        if self.ranks > 1 and gather is None:
            raise ValueError(
                f"Replanner.gather is None with {self.ranks} processes; give co.training.gathered, or a function that "
                "returns the states of all processes."
            )
        process = self.model.process
        self.levels = Levels.log_uniform(process.sigma_min, process.sigma_max, self.rules.levels)
        self.log = LevelStatistics(self.levels, windows_per_doubling=_PER_DOUBLING)
        self.law = RunLaw.of_spectrum(self.levels)
        self.start = self._first(start)
        self.training_density = RunDensity(OnLevels(self.levels, self.start))
        self.plans: tuple[Replan, ...] = ()
        self.seen = self.steps = 0

    def _first(self, start: SigmaDensity | str | None) -> Array:
        """(L,) the first density on the levels: the given one, EDM's, or the spectrum's, each level for itself."""
        if start is None:
            edm = LogNormal()
            start = replace(edm, mean=edm.mean + float(np.log(self.model.spectrum.sigma_data / _EDM_DATA)))
        if isinstance(start, SigmaDensity):
            return _positive(start.on_levels(self.levels))
        alone, size = replace(self.rules, transfer=0.0), len(self.levels)
        whole = RestOfRun(self.model, self.levels, alone, np.zeros(size), float(self.examples), np.full(size, 1 / size))
        return _positive(whole.plan(self.law).new_examples)

    # in the loop

    def record(self, sigma: Any, loss: Any) -> bool:
        """Take in one step's losses, as `LevelStatistics.record`, and plan where the rules say so.

        Args:
            sigma: (N,) noise levels, data units.
            loss: (N,) |D - x0|^2 per example, or (N, ...) squared differences, which are summed; unweighted, arrays or
                tensors on any device.

        Returns:
            Whether the density was planned anew.

        Raises:
            ValueError: as `LevelStatistics.record`.
        """
        self.log.record(sigma, loss)
        return self._stepped(len(loss) if ndim(loss) > 0 else 1)

    def record_flow(self, time: Any, loss: Any) -> bool:
        """`record` for flow matching: times t and |v_hat - v|^2, as `LevelStatistics.record_flow`."""
        self.log.record_flow(time, loss)
        return self._stepped(len(loss) if ndim(loss) > 0 else 1)

    def _stepped(self, batch: int) -> bool:
        before = self.seen
        self.seen, self.steps = before + batch * self.ranks, self.steps + 1
        due = self.rules.due(before, self.seen, self.examples, self.steps) and self.seen < self.examples
        if due:
            self._plan()
            self._tell(f"plan {len(self.plans)}: {self.plans[-1].words}", self.seen, self.examples)
        return due

    def _plan(self) -> None:
        log, share = self._whole_log(), self.training_density.now.share
        try:
            law = RunLaw.of_log(log, self.model, self.rules)
            rest = self._rest(log)
            plan = rest.plan(law, trust=self.rules.trust)
        except (ValueError, CodesignError) as error:
            self.plans += (Replan(self.seen, np.nan, np.nan, 0.0, 0.0, False, share, str(error)),)
            return
        found = _positive(plan.new_examples)
        kept, planned = rest.error(law, share), rest.error(law, found)
        moved, price = float(found @ np.log(found / share)), -float(plan.shadow_prices[TRUST]) / kept
        self.plans += (Replan(self.seen, kept, planned, moved, price, plan.certificate.optimal, found),)
        self.law = law
        self.training_density.now = OnLevels(self.levels, found)

    def _whole_log(self) -> LevelStatistics:
        return self.log if self.gather is None else LevelStatistics.merged(self.gather(self.log.state()))

    def _rest(self, log: LevelStatistics) -> RestOfRun:
        left = float(max(self.examples - self.seen, 0))
        return RestOfRun(self.model, self.levels, self.rules, _spent(log), left, self.training_density.now.share)

    # what it bought, and its state

    def report(self, against: Mapping[str, SigmaDensity] | None = None) -> RunReport:
        """What the plans bought: predicted errors at the end of the run, all by the learning curves of its whole log.

        With several processes, to be called on all of them.

        Args:
            against: name -> density to compare with, as if the run had been at it from its first example on.

        Raises:
            ValueError: the log says nothing of training yet.
        """
        named = {} if against is None else instance(against, Mapping, "Replanner.report: against")
        for name, each in named.items():
            instance(each, SigmaDensity, f"Replanner.report: against[{shown(name)}]")
        log = self._whole_log()
        law, rest = RunLaw.of_log(log, self.model, self.rules), self._rest(log)
        none = np.zeros(len(self.levels))
        whole = replace(rest, spent=none, left=float(max(self.examples, self.seen)))
        best = _positive(whole.plan(law).new_examples)
        others = {name: whole.error(law, _positive(each.on_levels(self.levels))) for name, each in named.items()}
        return RunReport(
            self.levels, self.start, self.plans, (self.seen, self.examples), rest.error(law, rest.share),
            whole.error(law, self.start), whole.error(law, best), others,
        )  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        """Everything that is needed to go on to the same bits, in plain numbers; of this process."""
        values = {"question": self._question(), "seen": self.seen, "steps": self.steps, "log": self.log.state()}
        return values | {"law": self.law.to_dict(), "plans": [plan.to_dict() for plan in self.plans]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`, with the arguments that the run was begun with.

        Raises:
            ValueError: no state, or that of another run: the first differing entry is named.
        """
        if set(state) != set(_STATE):
            raise ValueError(f"Replanner.load_state_dict: {sorted(state)} given; {sorted(_STATE)} are needed.")
        asked = dict(state["question"])
        if isinstance(asked.get("rules"), dict):
            asked["rules"] = {"caution": 0.0, **asked["rules"]}  # of runs before there was any
        for name, own in self._question().items():
            if asked.get(name) != own:
                raise ValueError(
                    f"Replanner.load_state_dict: the state is of another run: its {name} is "
                    f"{_short(asked.get(name))}, this one's is {_short(own)}."
                )
        self.seen, self.steps = (integer(state[name], f"Replanner: {name}", minimum=0) for name in ("seen", "steps"))
        self.log = LevelStatistics.from_state(state["log"])
        self.law = RunLaw(**state["law"])
        self.plans = tuple(Replan.from_dict(plan) for plan in state["plans"])
        share = next((plan.share for plan in reversed(self.plans) if not plan.note), self.start)
        self.training_density.now = OnLevels(self.levels, share)

    def _question(self) -> dict[str, Any]:
        """What two runs of one state must have in common."""
        rules = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self.rules).items()}
        return {
            "examples": self.examples, "ranks": self.ranks, "rules": rules, "start": self.start.tolist(),
            "levels": self.levels.edges.tolist(),
        }  # fmt: skip

    def __repr__(self) -> str:
        return f"Replanner({self.seen:,} of {self.examples:,} examples, {len(self.plans)} plans)"


def gathered(own: dict[str, Any]) -> list[dict[str, Any]]:
    """The states of all processes of torch.distributed's default group, in the order of ranks: a Replanner's `gather`.

    Raises:
        ValueError: no group is initialised.
    """
    from torch import distributed

    if not distributed.is_initialized():
        raise ValueError("gathered: torch.distributed has no process group; call init_process_group first.")
    states: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(states, own)
    return states


def _positive(examples: Array) -> Array:
    """(L,) shares of examples, none below what divergences need."""
    share = np.maximum(examples / examples.sum(), _LEAST)
    return np.asarray(share / share.sum())


def _spent(log: LevelStatistics) -> Array:
    """(L,) examples recorded on the log's levels."""
    columns = log.columns()
    level, inside = columns["level"].astype(int), (columns["level"] >= 0) & (columns["level"] < len(log.levels))
    return np.bincount(level[inside], columns["examples"][inside], len(log.levels)).astype(np.float64)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
