"""Plans as files, as sampling distributions, and as whole numbers; densities against SciPy and brute force."""

import json
import os
from dataclasses import fields

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import kstest, norm

import codesign_opt as co
from codesign_opt.ingredients.densities import examples_of
from codesign_opt.results.planned_density import TrainingDensity

FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"

PRICES = co.Prices(example=3.0, evaluation=1.0, images=1_000)


@pytest.fixture(scope="module")
def model():
    return co.GaussianModel(co.Spectrum.power_law(24, exponent=1.5), training=co.ConstantStepSGD(1e-3, 64))


@pytest.fixture(scope="module")
def plan(model):
    run = co.TrainingRun(co.LogNormal(-1.2, 1.2), 50, 64)
    return co.codesign(model, PRICES, 1e5, run=run, levels=60, points=5, polish=False)


# files


def same(a, b):
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        assert np.array_equal(a, b)
    elif isinstance(a, co.Levels):
        assert np.array_equal(a.edges, b.edges)
    elif hasattr(a, "items"):
        assert list(a) == list(b)
        for key in a:
            same(a[key], b[key])
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            same(x, y)
    else:
        assert a == b or (a != a and b != b)


def test_a_saved_plan_comes_back_bit_by_bit(plan, tmp_path):
    again = co.Plan.load(plan.save(tmp_path / "plan.json"))
    for item in fields(plan):
        same(getattr(plan, item.name), getattr(again, item.name))
    again.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_text() == (tmp_path / "plan.json").read_text()
    assert str(again) == str(plan)
    assert again.training_density.lognormal() == plan.training_density.lognormal()


def test_shadow_prices_of_many_rows_stay_arrays(model, tmp_path):
    c = model.coefficients(0.02, 30)
    plan = co.Problem(
        co.ScoreError(c) + co.Discretization(c),
        [co.Compute(PRICES) <= 1e5, co.Floor(10.0, "density"), co.Monotone("decreasing")],
    ).solve()
    again = co.Plan.load(plan.save(tmp_path / "plan.json"))
    rows = [value for value in again.shadow_prices.values() if np.ndim(value)]
    assert rows
    assert all(isinstance(value, np.ndarray) for value in rows)


def test_infinities_survive_the_file(model, tmp_path):
    c = model.coefficients(0.02, 20)
    plan = co.Problem(co.ScoreError(c) + co.Discretization(c), [co.Compute(PRICES) <= 1e5]).solve()
    assert np.isinf(plan.tables["examples_high"]).all()
    again = co.Plan.load(plan.save(tmp_path / "plan.json"))
    assert np.isinf(again.tables["examples_high"]).all()


def test_an_interrupted_save_leaves_the_old_file(plan, tmp_path, monkeypatch):
    path = plan.save(tmp_path / "plan.json")
    before = path.read_bytes()

    def full(handle):
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="disk full"):
        plan.save(path)
    monkeypatch.undo()
    assert path.read_bytes() == before
    co.Plan.load(path)


def edited(plan, path, change):
    data = json.loads(plan.save(path).read_text())
    change(data)
    path.write_text(json.dumps(data))
    return path


@pytest.mark.cases(5)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(schema_version=99), "schema version 99"),
        (lambda d: d.pop("schema_version"), "schema version None"),
        (lambda d: d.update(kind="something.else"), "not a plan"),
        (lambda d: d.pop("kind"), "not a plan"),
        (lambda d: d.pop("sigmas"), "sigmas"),
        (lambda d: d["certificate"].pop("value"), "malformed"),
        (lambda d: d["certificate"].update(extra=1), "malformed"),
        (lambda d: d.update(levels=[3.0, 1.0]), "malformed"),
        (lambda d: d.update(examples=["many"]), "malformed"),
        (lambda d: d.update(tables=[1, 2]), "malformed"),
        (lambda d: d.update(bias="guessed"), r"malformed.*Plan\.bias is 'guessed'"),
        (lambda d: d.update(evaluations_per_step=0), r"malformed.*Plan\.evaluations_per_step is 0"),
        (lambda d: d.update(final_score=-1.0), r"malformed.*Plan\.final_score is -1"),
        (lambda d: d.update(sampler="heun"), r"malformed.*Plan\.sampler is 'heun'"),
        (lambda d: d.update(estimation={"draws": 3}), "training_notes"),
        (lambda d: d.update(estimation={"training_notes": [], "more": 1}), "malformed"),
        (lambda d: d.pop("examples_gap"), "examples_gap"),
    ],
)
def test_a_file_that_is_not_a_plan_says_what_is_wrong(plan, tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        co.Plan.load(edited(plan, tmp_path / "plan.json", change))


def test_truncated_and_foreign_files_say_so(plan, tmp_path):
    path = plan.save(tmp_path / "plan.json")
    whole = path.read_text()
    for text in (whole[: len(whole) // 2], "", "[1, 2]", "not json"):
        path.write_text(text)
        with pytest.raises(ValueError, match=str(path)):
            co.Plan.load(path)
    path.write_bytes(b"\xff\xfe\x00plan")
    with pytest.raises(ValueError, match="JSON"):
        co.Plan.load(path)


# sampling


def cdf_of(density):
    share = np.concatenate([[0.0], np.cumsum(density.examples)]) / density.examples.sum()
    return lambda sigma: np.interp(np.log(sigma), np.log(density.levels.edges), share)


def test_samples_hit_every_stratum_once_and_follow_the_density(plan):
    sigma, weight = plan.sample_sigmas(4096, np.random.default_rng(1))
    cdf = cdf_of(plan.training_density)
    strata = np.sort(np.floor(cdf(sigma) * 4096 + 1e-9).astype(int).clip(0, 4095))
    np.testing.assert_array_equal(strata, np.arange(4096))
    assert not np.all(np.diff(sigma) > 0), "shuffled"
    np.testing.assert_array_equal(weight, 1.0)
    alone = np.array([plan.sample_sigmas(1, np.random.default_rng(seed))[0][0] for seed in range(2000)])
    assert kstest(alone, cdf).pvalue > 1e-3


def test_the_same_seed_gives_the_same_samples(plan):
    first, second = (plan.sample_sigmas(32, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first[0], second[0])


def test_continued_training_draws_the_new_examples_alone(model):
    run = co.TrainingRun(co.LogNormal(-2.4, 0.7), 3_000, 64)
    plan = co.codesign(model, PRICES, 1e6, run=run, levels=60, points=5, polish=False)
    sigma, _ = plan.sample(50_000, np.random.default_rng(0))
    cut = plan.levels.edges[np.searchsorted(plan.levels.edges, 0.3)]
    low = plan.levels.sigma < cut
    new, total = (float(part[low].sum() / part.sum()) for part in (plan.new_examples, plan.examples))
    assert total > 3 * new, "the case: the run has trained low noise already"
    assert np.mean(sigma < cut) == pytest.approx(new, abs=1e-4)
    density = plan.training_density
    assert density.total == pytest.approx(plan.new_examples.sum())
    # the fit, too, is of what is to be added: no other log-normal of new examples, beside the run's, does better
    fit = density.lognormal()
    price = float(density.prices @ plan.new_examples)
    best = np.inf
    for mean in np.linspace(fit.P_mean - 1, fit.P_mean + 1, 21):
        for std in np.geomspace(fit.P_std / 2, fit.P_std * 2, 21):
            mass = np.diff(norm.cdf(np.log(plan.levels.edges), mean, std))
            added = mass * price / float(density.prices @ mass)
            best = min(best, density.score_error(plan.examples - plan.new_examples + added))
    assert (1 + fit.loss) * density.score_error(plan.examples) <= best * (1 + 1e-9)
    drawn, _ = fit.sample(50_000, np.random.default_rng(1))
    assert np.log(drawn).mean() == pytest.approx(fit.P_mean, abs=0.01)


def test_a_plan_of_a_sampler_alone_refuses_to_draw_by_name(model):
    plan = co.codesign(model, steps=8, stopping_sigma=0.02, levels=40, polish=False)
    for call in (plan.sample, plan.sample_sigmas, plan.training_density.sample):
        with pytest.raises(ValueError, match="trains no examples"):
            call(8, np.random.default_rng(0))


def test_times_of_a_plan_are_those_of_flow_matching(plan):
    assert plan.times[-1] == 0.0
    np.testing.assert_allclose(plan.times[:-1], co.FlowMatching(1e-6, 1 - 1e-6).time(plan.sigmas[:-1]), rtol=1e-12)
    assert plan.stopping_time == pytest.approx(plan.times[-2])
    middle = np.linspace(1e-4, 1 - 1e-4, 20_001)
    assert np.trapezoid(co.LogNormal(0.2, 0.8).per_flow_time(middle), middle) == pytest.approx(1.0, abs=1e-6)
    fit = plan.training_density.lognormal()
    assert tuple(plan.logit_normal()) == tuple(fit)
    drawn, _ = fit.sample(20_000, np.random.default_rng(0))
    time = drawn / (1 + drawn)
    assert np.log(time / (1 - time)).mean() == pytest.approx(plan.logit_normal().logit_mean, abs=1e-3)


def test_a_floor_trains_the_whole_range_beside_the_plan(plan):
    own = plan.training_density
    floored = own.with_floor(0.05, 0.002, 200.0)
    below = own.levels.edges[0]
    assert own.tails(np.array([below]))[0][0] == 0.0
    assert floored.tails(np.array([below]))[0][0] == pytest.approx(0.05 * np.log(below / 0.002) / np.log(1e5))
    u = np.linspace(0.0, 1.0, 41)
    np.testing.assert_allclose(floored.tails(floored.quantile(u))[0], u, atol=1e-12)
    sigma, weight = floored.sample(4000, np.random.default_rng(0), base=own)
    assert kstest(sigma, lambda s: floored.tails(s)[0]).statistic < 1e-3
    assert weight.mean() == pytest.approx(1.0, abs=2e-3)
    assert own.loss_of(floored) > own.loss_of(own) == pytest.approx(0.0, abs=1e-12)


def test_importance_weights_reproduce_the_base_density(plan):
    base = co.LogNormal(-1.2, 1.2)
    sigma, weight = plan.sample_sigmas(400_000, np.random.default_rng(2), base=base)
    logs, trained = np.log(plan.levels.edges), plan.new_examples > 0
    mass = np.diff(norm.cdf((logs + 1.2) / 1.2))
    inside = mass.sum()
    assert weight.mean() == pytest.approx(mass[trained].sum() / inside, abs=1e-4)
    for function in (np.log, lambda s: np.log(s) ** 2, lambda s: s / (1 + s)):
        truth = sum(
            quad(lambda u, f=function: f(np.exp(u)) * norm.pdf(u, -1.2, 1.2) / inside, logs[i], logs[i + 1])[0]
            for i in np.flatnonzero(trained)
        )
        assert np.mean(weight * function(sigma)) == pytest.approx(truth, abs=2e-4)


def test_levels_without_examples_are_never_sampled():
    levels = co.Levels.log_uniform(0.01, 10.0, 6)
    examples = np.array([0.0, 5.0, 0.0, 0.0, 3.0, 0.0])
    density = TrainingDensity(levels, examples, np.zeros(6), 0.0, np.zeros(6), np.ones(6))
    sigma, _ = density.sample(10_000, np.random.default_rng(0))
    level = np.searchsorted(levels.edges, sigma, side="right") - 1
    count = np.bincount(level, minlength=6)
    np.testing.assert_array_equal(count[[0, 2, 3, 5]], 0)
    assert count[1] == pytest.approx(6250, abs=1)


def test_torch_generators_give_torch_tensors(plan):
    torch = pytest.importorskip("torch")
    generator = torch.Generator().manual_seed(5)
    sigma, weight = plan.sample_sigmas(512, generator, base=co.LogNormal())
    assert isinstance(sigma, torch.Tensor)
    assert sigma.dtype == weight.dtype == torch.float32
    share = cdf_of(plan.training_density)(sigma.double().numpy())
    np.testing.assert_allclose(np.sort(share), (np.arange(512) + 0.5) / 512, atol=1.01 / 512)
    again, _ = plan.sample_sigmas(512, torch.Generator().manual_seed(5))
    assert torch.equal(sigma, again)


@pytest.mark.parametrize("generator", [None, 3, "seed", np.random.RandomState(0)])
def test_other_generators_are_refused(plan, generator):
    with pytest.raises(TypeError, match="generator"):
        plan.sample_sigmas(4, generator)


@pytest.mark.parametrize("batch", [0, -1, 2.5, True, None])
def test_a_batch_is_a_whole_number(plan, batch):
    with pytest.raises(ValueError, match="batch"):
        plan.sample_sigmas(batch, np.random.default_rng(0))


# densities


def test_the_density_per_unit_sigma_holds_all_examples(model):
    plan = co.codesign(model, PRICES, 1e5, levels=60, points=5, polish=False)
    density = plan.training_density
    edges = np.log(plan.levels.edges)
    logs = np.linspace(edges[0], edges[-1], 20_001)
    values = density(np.exp(logs)) * np.exp(logs)
    assert np.trapezoid(values, logs) == pytest.approx(density.total, rel=2e-3)
    assert density(plan.levels.edges[-1] * 1.01) == 0.0
    assert density(plan.levels.edges[0] * 0.99) == 0.0
    centre = plan.levels.sigma[10]
    assert density(centre) == pytest.approx(plan.new_examples[10] / plan.levels.log_width[10] / centre, rel=1e-9)


def test_lognormal_is_scipys():
    edges = np.geomspace(1e-4, 1e3, 50)
    density = co.LogNormal(-1.2, 1.2)
    np.testing.assert_allclose(density.mass(edges), np.diff(norm.cdf(np.log(edges), -1.2, 1.2)), rtol=1e-9, atol=1e-15)
    u = np.array([0.01, 0.5, 0.99])
    np.testing.assert_allclose(np.log(density.quantile(u)), norm.ppf(u, -1.2, 1.2), rtol=1e-12)
    far = co.LogNormal(-20.0, 0.5).mass(np.array([0.01, 0.1, 1.0]))
    assert far[0] > 0, "tails do not cancel"


@pytest.mark.parametrize("clipped", [True, False])
def test_no_lognormal_found_by_brute_force_has_a_smaller_error(model, clipped):
    plan = co.codesign(model, PRICES, 1e5, levels=60, points=5, polish=False)
    density = plan.training_density
    fit = density.lognormal(clipped=clipped)
    price = float(density.prices @ density.examples)
    best = np.inf
    for mean in np.linspace(fit.P_mean - 2, fit.P_mean + 2, 41):
        for std in np.geomspace(fit.P_std / 3, fit.P_std * 3, 41):
            below = norm.cdf(np.log(density.levels.edges), mean, std)
            outside = 0.0 if clipped else density.prices[0] * below[0] + density.prices[-1] * (1 - below[-1])
            mass = np.diff(below)
            with np.errstate(divide="ignore", invalid="ignore"):
                best = min(best, density.score_error(mass * price / (float(density.prices @ mass) + outside)))
    own = density.score_error(density.examples)
    assert fit.loss >= 0
    assert (1 + fit.loss) * own <= best * (1 + 1e-9)
    bought = co.LogNormal(fit.P_mean, fit.P_std).mass(density.levels.edges)
    bought = bought if not clipped else bought / bought.sum()
    logs = (np.log(density.levels.edges) - fit.P_mean) / fit.P_std
    outside = 0.0 if clipped else density.prices[[0, -1]] @ [norm.cdf(logs[0]), norm.sf(logs[-1])]
    assert fit.examples * (density.prices @ bought + outside) == pytest.approx(price, rel=1e-9)


def test_a_plan_without_reducible_error_has_no_lognormal(model):
    plan = co.codesign(model, steps=8, stopping_sigma=0.02, levels=40, polish=False)
    with pytest.raises(ValueError, match="score error"):
        plan.training_density.lognormal()


def test_examples_of_every_form_of_density():
    levels = co.Levels.log_uniform(0.01, 10.0, 40)
    flat = examples_of(lambda s: 1 / s, levels, 100.0)
    np.testing.assert_allclose(flat, 2.5, rtol=1e-10)
    np.testing.assert_allclose(examples_of(levels.log_width, levels, 100.0), flat, rtol=1e-10)
    normal = examples_of(co.LogNormal(0.0, 1.0), levels, 100.0)
    expected = np.diff(norm.cdf(np.log(levels.edges)))
    np.testing.assert_allclose(normal, 100 * expected / expected.sum(), rtol=1e-9)
    for bad in (np.zeros(40), np.ones(39), -np.ones(40), lambda s: -s, lambda s: s * np.nan):
        with pytest.raises(ValueError, match="density"):
            examples_of(bad, levels, 1.0)


def test_whole_examples_keep_the_budget_and_lose_little(plan):
    whole, loss = plan.integer_examples()
    np.testing.assert_array_equal(whole, np.round(whole))
    prices = plan.tables["example_price"]
    assert prices @ whole <= prices @ plan.new_examples * (1 + 1e-9)
    assert abs(loss) < 0.01
    given, _ = plan.integer_examples(total=2000)
    assert given.sum() == 2000
    for bad in (-1, 2.5, True, np.nan, "many"):
        with pytest.raises(ValueError, match=r"integer_examples\.total"):
            plan.integer_examples(total=bad)
