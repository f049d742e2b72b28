"""PlanRecord: the fields of a plan, their file, and the training density; no text and no figure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np

from ..basics.checks import Array, as_path, choice, instance, integer, ndim, number, shown, vector
from ..basics.files import write_whole
from ..basics.json_text import json_file
from ..certificate.verdict import Certificate
from ..ingredients.densities import SigmaDensity
from ..ingredients.estimation_record import EstimationRecord
from ..ingredients.grids import check_grid
from ..ingredients.levels import Levels
from ..ingredients.measured_error import MeasuredError
from ..samplers.linear_multistep import LinearMultistep
from .distillation import DistillationWeights
from .earlier_versions import from_version_1
from .plan_schema import check_agreement, check_kinds, check_levels, checksum, read_only
from .planned_density import LogitNormalFit, Prior, TrainingDensity
from .sampler_plan import SamplerPlan
from .stopping_basin import StoppingBasin

__all__ = ["SCHEMA_VERSION", "PlanRecord"]

SCHEMA_VERSION = 2
# fields that files of version 2 may lack
_SINCE = (
    "constraints", "sensitivities", "samplings", "final_prior", "speaks_of", "measure", "measured", "question",
    "stated",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class PlanRecord:
    """The fields of a certified design: where to train, where to step, where to stop, and what it costs.

    Two things are told: what is handed out (`sigmas`, `stopping_sigma`, `levels`, `examples`, `steps`, `tables`,
    `costs`, `handed_out`) and what is proved of the program (`error`, `breakdown`, `certificate`, `shadow_prices`,
    `elasticities`, `constraints`, `sensitivities`, `curve`, `outer`). The program's optimum stops where its own error
    is least; where whole steps stop elsewhere, `program_stopping_sigma` says where that is.

    Attributes:
        levels: the noise levels above the stopping point, ascending; where the examples were solved once more for a
            grid whose exact law is known, none straddles one of its steps.
        examples: (L,) training examples on each level, those already spent included.
        new_examples: (L,) examples still to be trained.
        steps: (L,) sampler steps on each level (fractions: the continuous solution).
        sigmas: the sampler's noise levels, descending: under "denoise" K levels sigma_max … sigma_r
            and a final 0 (K steps, the last to zero), under "rescale" K+1 levels; None where no
            sampler was planned.
        terminal: "denoise" or "rescale".
        stopping_sigma: the noise level where sampling stops.
        error: least squared Wasserstein distance of the program, to leading order, at the program's stopping point;
            what the certificate and the bounds speak of. What samples leave is `handed_out["total"]`.
        breakdown: `error` by cause; the parts sum to it.
        certificate: the independent proof for the program's stopping point.
        shadow_prices: change of the error per unit of each constraint's right-hand side, by name.
        elasticities: relative change of the reducible error per relative change of the same.
        costs: price of the training and of the sampling, and the budgets.
        tables: per-level arrays for plots and reports, by name; `pooling` has a row of T per `served_weight`,
            `bands` and `band_variances` have an entry per group of equal directions of the data. Shadow prices of
            levels belong to those of the program, which are at `program_sigma` where they are others.
        handed_out: error of `sigmas` and `examples` as they are used, by cause: the bias exact where the model knows
            the law, that of training to leading order, added before it is squared where the same examples made it
            (section 6.6). `handed_out["total"]` is printed first and compared with peers; empty where unknown.
        curve: error against the stopping point, one record per point tried.
        outer: what is known over the stopping points: "optimal" or "best of N", with the bound.
        peers: error of named schedules under the same prices.
        fits: one-number summaries (rho of the grid, log-normal of the density) and what they cost.
        attempts: what the solver was asked and what it answered.
        notes: warnings a reader should see.
        final_score: A of the last evaluation's error A / (m_r + m0), m_r the examples near the stopping point (6).
        final_prior: m0, the examples that the untrained denoiser is worth there (section 5.6); of each level they are
            `tables["prior_examples"]`.
        sampler: name and settings of the sampler; empty where unknown.
        evaluations_per_step: calls of the denoiser in a step of the sampler; None where unknown.
        bias: how the error of the grid that is handed out is known: "exact", "measured" or "predicted".
        examples_gap: certified relative gap of the examples, where they were solved once more for the whole steps.
        program_stopping_sigma: the program's stopping point, where that of the whole steps is another; else None.
        trace: the data's total variance, which errors are held against; None where unknown.
        estimation: how the coefficients were estimated on a denoiser; None where they are exact.
        measure: the error in words where it is no squared Wasserstein distance; empty elsewhere.
        speaks_of: which learner the training holds for, as a phrase; empty where nothing is said of it.
        price_unit: what prices and budgets count, for texts ("GPU seconds").
        provenance: where the numbers come from, for people: nothing is computed from it.
        constraints: "value", "limit" and "slack" of every constraint, by name, in its author's units; of one with
            many rows or levels those of its tightest entry ("sigma": where).
        sensitivities: derivative of the optimum by each coefficient, by the name of the table's field or price:
            `score`, `floor`, `example price`, `evaluation price` (L,), `final_score`, `images` and so on; by the
            logarithm of the response of each band (B,) and of each level (L,).
        measured: of a grid whose error was measured, that error on draws that chose nothing: the number to quote.
        samplings: of each sampler by name, where several share the training: its steps, grid and errors; `steps` are 0
            then, and `sigmas` is None.
        question: what was asked, as plain values from which `co.what_if` asks anew; empty where it cannot be written
            down, as constraints of one's own and measured models.
        stated: whether the plan comes from a file whose checksum did not vouch for it, so that its proof is as stated
            there; never saved.
    """

    levels: Levels
    examples: Array
    new_examples: Array
    steps: Array
    sigmas: Array | None
    terminal: str
    stopping_sigma: float
    error: float
    breakdown: Mapping[str, float]
    certificate: Certificate
    shadow_prices: Mapping[str, Any]
    elasticities: Mapping[str, float]
    costs: Mapping[str, float]
    tables: Mapping[str, Array]
    handed_out: Mapping[str, float] = field(default_factory=dict)
    curve: tuple[Mapping[str, Any], ...] = ()
    outer: Mapping[str, Any] = field(default_factory=dict)
    peers: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    fits: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    attempts: tuple[Mapping[str, Any], ...] = ()
    notes: tuple[str, ...] = ()
    final_score: float = 0.0
    final_prior: float = 0.0
    sampler: Mapping[str, Any] = field(default_factory=dict)
    evaluations_per_step: int | None = None
    bias: str = "exact"
    examples_gap: float | None = None
    program_stopping_sigma: float | None = None
    trace: float | None = None
    estimation: EstimationRecord | None = None
    price_unit: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    constraints: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    sensitivities: Mapping[str, Any] = field(default_factory=dict)
    samplings: Mapping[str, SamplerPlan] = field(default_factory=dict)
    speaks_of: str = ""
    measure: str = ""
    measured: MeasuredError | None = None
    question: Mapping[str, Any] = field(default_factory=dict)
    stated: bool = False

    def __post_init__(self) -> None:
        size = len(instance(self.levels, Levels, "Plan.levels"))
        for name in ("examples", "new_examples", "steps"):
            value = getattr(self, name)
            if not hasattr(value, "__len__") or ndim(value) != 1 or len(value) != size:
                raise ValueError(f"Plan.{name} has another shape; one entry for each of the {size} levels is needed.")
        choice(self.terminal, "Plan.terminal", ("denoise", "rescale"))
        choice(self.bias, "Plan.bias", ("exact", "measured", "predicted"))
        if self.sigmas is not None:
            check_grid(self.sigmas, "Plan.sigmas")
        for name in ("breakdown", "costs", "tables", "shadow_prices", "sampler", "provenance", "question"):
            if not isinstance(getattr(self, name), Mapping):
                raise ValueError(f"Plan.{name} is {shown(getattr(self, name))}; a mapping by name is needed.")
        if self.evaluations_per_step is not None:
            integer(self.evaluations_per_step, "Plan.evaluations_per_step", minimum=1)
        number(self.final_score, "Plan.final_score", nonnegative=True)
        number(self.final_prior, "Plan.final_prior", nonnegative=True)
        if not isinstance(self.error, (int, float)) or np.isnan(self.error):
            raise ValueError(f"Plan.error is {shown(self.error)}; a number is needed.")

    @property
    def number_of_steps(self) -> int:
        """K, the number of steps of the handed-out grid (0 where no sampler was planned)."""
        return 0 if self.sigmas is None else self.sigmas.size - 1

    @property
    def solver(self) -> LinearMultistep | None:
        """The multistep sampler that was fitted to the denoiser; None where a stock sampler runs on `sigmas`."""
        if self.sampler.get("name") != LinearMultistep.name:
            return None
        return LinearMultistep(*(self.sampler[part] for part in ("levels", "a", "c", "mean")))

    @cached_property
    def training_density(self) -> TrainingDensity:
        """New examples per unit sigma as a function of sigma; `.lognormal()` gives P_mean and P_std.

        Those of a run already made (`codesign(run=...)`) are left out: it is what is still to be drawn.
        """
        return TrainingDensity(
            self.levels,
            self.new_examples,
            self.tables["score_weight"],
            self.final_score,
            self.tables["final_window"],
            self.tables["example_price"],
            self.tables.get("served_weight"),
            self.tables.get("pooling"),
            Prior.of(self.tables, self.final_prior),
            self.examples - self.new_examples,
        )

    @property
    def times(self) -> Array | None:
        """(K+1,) `sigmas` as times t = sigma / (1 + sigma) of flow matching, noise at 1, the final 0 included.

        Of other processes: `process.time(plan.sigmas[:-1])`. None where no sampler was planned.
        """
        return None if self.sigmas is None else np.asarray(self.sigmas / (1.0 + self.sigmas))

    @property
    def stopping_time(self) -> float:
        """The stopping point as a time of flow matching."""
        return self.stopping_sigma / (1.0 + self.stopping_sigma)

    def stopping_basin(self, tolerance: float = 0.02) -> StoppingBasin:
        """Stopping points proved to be within a tolerance of the least error, among which an observable may choose.

        Raises:
            ValueError: no stopping point was searched, or none is proved to be that near.
        """
        bound = self.outer.get("lower_bound")
        if bound is None or not self.curve:
            raise ValueError(
                "stopping_basin: the plan has no proved bound over stopping points; let codesign search them."
            )
        return StoppingBasin.of(self.curve, float(bound), tolerance)

    def distillation_weights(self, base: SigmaDensity, sampler: str | None = None) -> DistillationWeights:
        """What a squared error of the denoiser costs the samples, level by level, over what `base` draws: mean 1.

        gamma K of the plan's steps (docs/theory.md section 4.4): weights for the loss of a student that is matched to a
        teacher and will be sampled with these steps, or of the teacher itself.

        Args:
            base: density that the loss draws its noise levels from; on the plan's levels.
            sampler: which one, where several share the training (`samplings`).

        Raises:
            ValueError: the plan's model told no sensitivity, several samplers and none is named, a base without mass
                where the plan needs some.
        """
        if "output_sensitivity" not in self.tables:
            raise ValueError(
                "distillation_weights: the plan does not hold what an error of the output does to samples; plan with a "
                "GaussianModel, or an EstimatedModel whose training was measured, of this version."
            )
        if self.samplings and sampler not in self.samplings:
            raise ValueError(
                f"distillation_weights: sampler is {shown(sampler)}; name one of {', '.join(self.samplings)}."
            )
        if not self.samplings and sampler is not None:
            raise ValueError(f"distillation_weights: sampler is {shown(sampler)}; the plan has one, leave it out.")
        steps = self.steps if sampler is None else self.samplings[sampler].steps
        denoise = self.terminal == "denoise"
        hint = "The file of an earlier version holds another length: plan again."
        gain = vector(
            self.tables["output_sensitivity"], "Plan.tables['output_sensitivity']", length=len(self.levels), hint=hint
        )
        return DistillationWeights.of(self.levels, steps, gain, base, denoise=denoise)

    def logit_normal(self) -> LogitNormalFit:
        """The log-normal fit of the training density in flow matching's time: logit t = ln sigma.

        Raises:
            ValueError: as `TrainingDensity.lognormal`.
        """
        return LogitNormalFit(*self.training_density.lognormal())

    def sample(self, batch: int, generator: Any, base: SigmaDensity | None = None) -> tuple[Any, Any]:
        """Stratified noise levels of the new examples and importance weights; see `SigmaDensity.sample`.

        Raises:
            ValueError: the plan trains nothing: it is of a sampler alone, or its budget is spent.
        """
        return self.training_density.sample(batch, generator, base)

    def sample_sigmas(self, batch: int, generator: Any, base: SigmaDensity | None = None) -> tuple[Any, Any]:
        """`sample`, by its earlier name."""
        return self.sample(batch, generator, base)

    def integer_examples(self, total: int | None = None) -> tuple[Array, float]:
        """Whole examples per level by greedy marginal gain, and the relative loss of rounding.

        Under "denoise" the last evaluation's error counts, too, and so do examples that teach their neighbours:
        for the rounding by a separable bound at the plan, in the loss as they are.

        Args:
            total: number of new examples to hand out; unless given, as many as the plan's price buys.
        """
        from ..solvers.waterfill.rounding import round_examples, separable_errors

        density, spent, plan = self.training_density, self.examples - self.new_examples, self.examples
        if total is not None:
            total = integer(total, "Plan.integer_examples.total", minimum=0)
            plan = spent + self.new_examples * (total / (self.new_examples.sum() or 1.0))
        alone = density.prior is not None and density.pooling is None  # the bound of pooled examples has none
        prior = density.prior.levels if density.prior is not None and alone else np.zeros(plan.size)
        final = (density.final_score, density.final_window)
        beside = self.final_prior - float(density.final_window @ prior)
        errors = separable_errors(density.score_weights, *final, plan + prior, beside)
        whole, loss = round_examples(errors, density.prices, self.new_examples, spent=spent + prior, total=total)
        joint = density.final_score > 0 or density.pooling is not None
        before = density.score_error(plan) if joint else 0.0
        if 0 < before < np.inf and np.isfinite(loss):
            loss = density.score_error(spent + whole) / before - 1.0
        return whole, loss

    def save(self, path: str | Path) -> Path:
        """Write the plan as JSON (schema version and a checksum inside); returns the path."""
        target = as_path(path)
        content = _to_json(self.to_dict())
        return write_whole(target, json.dumps({**content, "checksum": checksum(content)}, indent=1, allow_nan=False))

    @classmethod
    def load(cls, path: str | Path, *, trust: bool = False) -> Self:
        """Read a plan written by `save`, of this version or of any before it.

        Kinds and ranges of all fields are checked, that the numbers of error and certificate agree, and the checksum
        that `save` wrote. The program is not in the file, so that the proof cannot be done again: where no checksum
        vouches for it, the printed plan says "as stated in the file".

        Args:
            path: the file.
            trust: whether a file that was edited is read too; what it says is checked otherwise.

        Raises:
            ValueError: the file is truncated, is not a plan, has another schema version, a field of another kind or
                out of its range, numbers that contradict each other, or another checksum than its content.
        """
        source = as_path(path)
        try:
            raw = json_file(source)
        except ValueError as error:
            raise ValueError(f"{error} Save the plan again.") from None
        data = _restore(raw)
        if not isinstance(data, dict) or data.get("kind") != "codesign_opt.plan":
            raise ValueError(f"{source} is not a plan of codesign_opt (its 'kind' is missing or another).")
        version = data.get("schema_version")
        if version not in (1, SCHEMA_VERSION):
            raise ValueError(f"{source} has schema version {version}; this version reads 1 and {SCHEMA_VERSION}.")
        try:
            found = cls._checked(from_version_1(data) if version == 1 else data)
        except KeyError as error:
            raise ValueError(f"{source} lacks the field {error}; save the plan again.") from None
        except (AttributeError, IndexError, OverflowError, TypeError, ValueError) as error:
            raise ValueError(f"{source} has a malformed field ({error}); save the plan again.") from None
        kept = raw.get("checksum")
        if kept is not None and kept != checksum(raw) and not trust:
            raise ValueError(
                f"{source} is not what was saved: its content has another checksum than it states. It is damaged or "
                "was edited; save the plan again, or read it as it is with load(path, trust=True)."
            )
        return found if kept == checksum(raw) else replace(found, stated=True)

    @classmethod
    def _checked(cls, data: Mapping[str, Any]) -> Self:
        """A plan of a file's fields, which must be those of a plan and agree with each other."""
        check_kinds(data)
        foreign = set(data) - {item.name for item in fields(cls)} - {"kind", "schema_version", "checksum"}
        if foreign:
            raise ValueError(f"no plan of this version has a field {min(foreign)!r}")
        plan = cls._from_dict(data)
        check_levels(plan)
        check_agreement(plan)
        _ = plan.solver  # whose coefficients are checked when it is made
        with np.errstate(all="ignore"):
            str(plan)  # what cannot be printed is refused here, not where it is read
        return plan

    def to_dict(self) -> dict[str, Any]:
        """Everything in the plan as plain lists and numbers."""
        result: dict[str, Any] = {"kind": "codesign_opt.plan", "schema_version": SCHEMA_VERSION}
        for item in fields(self):
            if item.name == "stated":
                continue
            value = getattr(self, item.name)
            if isinstance(value, Levels):
                value = value.edges
            elif isinstance(value, Certificate):
                value = value.to_dict()
            elif isinstance(value, (EstimationRecord, MeasuredError)):
                value = asdict(value)
            elif item.name == "samplings":
                value = {name: each.to_dict() for name, each in value.items()}
            result[item.name] = value
        return result

    @classmethod
    def _from_dict(cls, data: Mapping[str, Any]) -> Self:
        record = {item.name: data[item.name] for item in fields(cls) if item.name not in _SINCE}
        record.update({name: data[name] for name in _SINCE if name in data})
        proof = {k: v for k, v in record["certificate"].items() if k != "optimal"}
        tables = {name: read_only(values, f"Plan.tables[{name!r}]") for name, values in record["tables"].items()}
        record.update(
            levels=Levels(np.array(record["levels"], dtype=np.float64)),
            certificate=Certificate(**proof),
            tables=tables,
            sigmas=None if record["sigmas"] is None else read_only(record["sigmas"], "Plan.sigmas"),
        )
        for name in ("examples", "new_examples", "steps"):
            record[name] = read_only(record[name], f"Plan.{name}")
        for name in ("shadow_prices", "sensitivities"):
            record[name] = {
                key: read_only(value, f"Plan.{name}[{key!r}]") if isinstance(value, list) else value
                for key, value in record.get(name, {}).items()
            }
        record["samplings"] = {
            name: SamplerPlan.from_dict(each, record["levels"]) for name, each in record.get("samplings", {}).items()
        }
        for name in ("curve", "attempts", "notes"):
            record[name] = tuple(record[name])
        if record["estimation"] is not None:
            record["estimation"] = EstimationRecord.from_dict(record["estimation"])
        if record.get("measured") is not None:
            record["measured"] = MeasuredError.from_dict(record["measured"])
        return cls(**record)


def _to_json(value: Any) -> Any:
    """JSON without infinities: they become strings that `load` reads back."""
    if isinstance(value, Mapping):
        return {str(k): _to_json(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_to_json(v) for v in value]
    if isinstance(value, np.ndarray):
        return [_to_json(v) for v in value.tolist()]
    if isinstance(value, (np.bool_, bool)):
        return bool(value)
    if isinstance(value, (np.integer, int)):
        return int(value)
    if isinstance(value, (np.floating, float)):
        number = float(value)
        return number if np.isfinite(number) else str(number)
    return value if value is None else str(value)


def _restore(value: Any) -> Any:
    """Undo `_to_json` for infinities."""
    if isinstance(value, dict):
        return {k: _restore(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_restore(v) for v in value]
    return float(value) if value in ("inf", "-inf", "nan") else value
