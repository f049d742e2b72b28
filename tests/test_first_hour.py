"""What a user meets in the first hour: own data, names in place of objects, what is suggested, what is told when."""

import json

import numpy as np
import pytest

import codesign_opt as co
from codesign_opt.cli import main

FAST = {"levels": 40, "points": 4}
ROWS = np.random.default_rng(0).standard_normal((200, 3)) * np.array([1.0, 0.5, 0.1]) + 0.3
PRICES = co.Prices(example=3.0, evaluation=1.0, images=1_000)


def covariance(rows):
    """Eigenvalues, descending, by numpy alone."""
    flat = np.asarray(rows, dtype=np.float64).reshape(len(rows), -1)
    return np.linalg.eigvalsh(np.cov(flat.T))[::-1]


class Batches:
    """A loader: batches of pairs, as many times as it is asked."""

    def __iter__(self):
        return ((ROWS[i : i + 64], np.zeros(64)) for i in range(0, 200, 64))


class Examples:
    """A data set: examples by number, with labels."""

    def __len__(self):
        return len(ROWS)

    def __getitem__(self, i):
        if i >= len(ROWS):
            raise IndexError(i)
        return ROWS[i], 7


@pytest.mark.parametrize(
    "data",
    [Batches(), Examples(), lambda: iter(np.split(ROWS, 4)), iter([{"x": ROWS[:150], "y": 1}, {"x": ROWS[150:]}])],
    ids=["loader", "dataset", "function", "iterator of dicts"],
)
def test_a_spectrum_takes_what_networks_are_trained_from(data):
    assert co.Spectrum.from_samples(data).eigenvalues == pytest.approx(covariance(ROWS), rel=1e-10)


def test_a_spectrum_takes_loaders_and_tensors_of_torch():
    torch = pytest.importorskip("torch")
    rows = torch.tensor(ROWS, requires_grad=True)
    pairs = torch.utils.data.TensorDataset(rows.detach(), torch.arange(200))
    for data in (rows, pairs, torch.utils.data.DataLoader(pairs, batch_size=64)):
        assert co.Spectrum.from_samples(data).eigenvalues == pytest.approx(covariance(ROWS), rel=1e-10)
    half = co.Spectrum.from_samples(rows.bfloat16())
    assert half.eigenvalues == pytest.approx(covariance(rows.detach().bfloat16().double().numpy()), rel=1e-6)


def test_an_endless_iterator_ends_and_batches_of_other_shapes_are_named():
    def endless():
        while True:
            yield ROWS

    assert "262144 samples" in co.Spectrum.from_samples(endless()).provenance
    with pytest.raises(ValueError, match=r"Spectrum.samples: batch 1 has shape \(200, 2\) after"):
        co.Spectrum.from_samples(iter([ROWS, ROWS[:, :2]]))
    with pytest.raises(ValueError, match="there are no examples"):
        co.Spectrum.from_samples(iter([]))


def test_bytes_count_as_they_are_and_a_plan_says_that_the_noise_is_too_small_for_them():
    pixels = np.clip(128 + 60 * ROWS, 0, 255).astype(np.uint8)
    spectrum = co.Spectrum.from_samples(pixels)
    assert spectrum.eigenvalues == pytest.approx(covariance(pixels), rel=1e-10)
    assert "bytes 0 to 255 as they are" in spectrum.provenance
    notes = " ".join(co.codesign(co.GaussianModel(spectrum), steps=8, **FAST).notes)
    assert "x / 127.5 - 1" in notes
    seen = co.Spectrum.from_samples(pixels / 127.5 - 1)
    assert "x / 127.5" not in " ".join(co.codesign(co.GaussianModel(seen), steps=8, **FAST).notes)


@pytest.mark.parametrize("form", ["npy", "csv", "bytes", "folder of images", "folder of arrays"])
def test_ones_own_data_are_planned_for_by_their_path(form, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pixels = np.clip(128 + 60 * ROWS[:60], 0, 255).astype(np.uint8)[:, :, None]
    truth = covariance(ROWS) if form in ("npy", "csv") else covariance(pixels / 127.5 - 1)
    if form == "npy":
        np.save("mine.npy", ROWS)
    elif form == "csv":
        np.savetxt("mine.csv", ROWS, delimiter=",", header="a,b,c", comments="")
    elif form == "bytes":
        np.save("mine.npy", pixels)
    else:
        (tmp_path / "mine").mkdir()
        for k, each in enumerate(pixels):
            if form == "folder of arrays":
                np.save(tmp_path / "mine" / f"{k:02}.npy", each)
            else:
                pytest.importorskip("PIL.Image").fromarray(each).save(tmp_path / "mine" / f"{k:02}.png")
    path = next(p for p in ("mine.npy", "mine.csv", "mine") if (tmp_path / p).exists())
    declared = co.problems.load(path, images=50, levels=40)
    found = declared.model.spectrum
    assert found.eigenvalues == pytest.approx(truth, rel=1e-5)
    assert declared.prices.images == 50
    if form != "csv":
        return
    assert main(["solve", path, "--budget", "1e4", "--images", "50", "--levels", "40", "--points", "4"]) == 0
    out, told = capsys.readouterr()
    assert "Plan for a linear denoiser" in out
    assert "200 examples" in told


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("text.csv", "a,b\nc,d\n", "rows of numbers between commas"),
        ("ragged.csv", "1,2\n3\n", "ragged.csv"),
        ("flat.npy", np.ones(3), "(examples, …)"),
        ("objects.npy", np.array([{}], dtype=object), "objects.npy"),
        ("gone.npy", None, "no such file"),
        ("empty", "folder", "no images"),
    ],
)
def test_data_that_are_none_are_refused_by_name(name, content, words, tmp_path, capsys):
    path = tmp_path / name
    if isinstance(content, np.ndarray):
        np.save(path, content, allow_pickle=True)
    elif content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_text(content)
    assert main(["solve", str(path)]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert name in said
    assert said.count("\n") == 1


def test_names_stand_for_samplers_and_processes_everywhere():
    spectrum = co.Spectrum.power_law(4, 1.5)
    model = co.GaussianModel(spectrum, sampler="dpmpp_2m", process="flow_matching")
    assert (model.sampler, model.process) == (co.DPMpp2M(), co.FlowMatching())
    assert model.with_sampler("euler").with_process("edm").sampler == co.Euler()
    plan = co.codesign(model, steps=8, samplers=["euler", co.Heun()], **FAST)
    known = co.codesign(model, steps=8, samplers=[co.Euler(), co.Heun()], **FAST)
    assert plan.error == known.error
    with pytest.raises(ValueError, match=r"samplers\[1\] is 'huen'.*did you mean 'heun'"):
        co.codesign(model, steps=8, samplers=["euler", "huen"])
    with pytest.raises(ValueError, match=r"is the class Heun; a Sampler is needed: Heun\(\)"):
        co.GaussianModel(spectrum, sampler=co.Heun)


@pytest.mark.slow
def test_names_stand_for_samplers_and_processes_of_networks():
    torch = pytest.importorskip("torch")
    rows = torch.tensor(ROWS)
    linear = lambda x, sigma: x / (1 + sigma[:, None] ** 2)  # noqa: E731
    x = torch.ones(1, 3, dtype=torch.float64)
    assert torch.equal(
        co.estimate.run(linear, "heun", [2.0, 1.0, 0.0], x), co.estimate.run(linear, co.Heun(), [2.0, 1.0, 0.0], x)
    )
    few = co.estimate.EvidenceMeasurement(draws=20, levels=4, teachers=2, teacher_steps=4)
    assert co.estimate.evidence(linear, rows, process="edm", sampler="heun", measurement=few).sampler == co.Heun()
    assert co.estimate.from_prediction(linear, "epsilon", "vp").sigma_range[1] > 100
    with pytest.raises(ValueError, match=r"network: sampler is 'huen'.*did you mean 'heun'"):
        co.estimate.network(linear, rows, sampler="huen")


def test_a_start_that_makes_most_of_the_error_is_said_with_its_remedy():
    spectrum = co.Spectrum([1.0, 0.1], [4, 4], [50.0, 50.0])
    noisy = co.codesign(co.GaussianModel(spectrum), PRICES, 1e6, **FAST)
    said = next(note for note in noisy.notes if "start='mean'" in note)
    assert "sigma_max * noise" in said
    # from the closed form of section 1: what the mean adds at the start, P / (lambda + sigma_max^2) of its square
    lam, top, stop = spectrum.eigenvalues, 80.0, noisy.stopping_sigma
    saved = np.sum(lam**2 / (lam + stop**2) / (lam + top**2) * spectrum.mean_power)
    assert f"makes {saved / noisy.error:.0%} of the error" in said
    meant = co.codesign(co.GaussianModel(spectrum, start="mean"), PRICES, 1e6, **FAST)
    assert not [note for note in meant.notes if "start='mean'" in note]


def test_a_plan_says_what_a_wrong_correlation_length_or_training_noise_does_to_it():
    spectrum, noise = co.Spectrum.power_law(8, 1.5), co.AveragedSGD(prior=None)
    settings = {"sampler": co.Euler(), "training": noise, "start": "mean"}
    model = co.GaussianModel(spectrum, **settings)
    plan = co.codesign(model, PRICES, 1e6, **FAST)
    (said,) = [note for note in plan.notes if note.startswith("not known: ")]
    total, parts = plan.handed_out["total"], plan.handed_out
    # without a prior every score error is kappa over examples: half the noise takes half of it away
    share = 50 * (total - parts["bias"]) / total
    assert f"(kappa) is, by {-share:+.2g} % or {share:+.2g} %" in said
    for factor, word in ((0.5, "moves by {} or"), (1.5, " or {}; if the training noise")):
        other = co.GaussianModel(spectrum, coupling=co.Local(log_width=2.7 * factor), **settings)
        found = other.predict(plan.sigmas, plan.examples, levels=plan.levels).total  # of a model made anew
        change = 100 * (found / total - 1)
        assert word.format("0 %" if abs(change) < 0.05 else f"{change:+.2g} %") in said
    alone = co.codesign(model, steps=8, **FAST)
    assert not [note for note in alone.notes if note.startswith("not known: ")]


@pytest.mark.slow
def test_a_flow_plan_is_held_against_uniform_and_shifted_time():
    model = co.GaussianModel(co.Spectrum.power_law(4, 1.5), process="flow_matching", sampler="euler")
    plan = co.codesign(model, steps=10, **FAST)
    top, stop = plan.sigmas[0], plan.sigmas[-2]
    for name, shift in (("flow_uniform", 1.0), ("flow_shift_3", 3.0)):
        ends = np.array([top, stop]) / (np.array([top, stop]) + shift)
        u = np.linspace(*ends, 10)
        t = shift * u / (1 + (shift - 1) * u)  # the shift of FlowMatchEulerDiscreteScheduler
        grid = np.append(t / (1 - t), 0.0)
        assert plan.peers[name]["total"] == pytest.approx(model.bias(grid), rel=1e-6)
    assert "flow_uniform" in str(plan)
    assert "flow_uniform" not in co.codesign(model.with_process("edm"), steps=10, **FAST).peers


@pytest.mark.slow
def test_files_of_a_frontier_are_named_by_plain_numbers(tmp_path, capsys):
    words = "frontier power_law_64 --budgets 1e5,1e6 --levels 40 --points 3 --out"
    assert main([*words.split(), str(tmp_path)]) == 0
    capsys.readouterr()
    plans = sorted(path.name for path in tmp_path.glob("plan_*.json"))
    assert plans == ["plan_budget_100000.json", "plan_budget_1000000.json"]
    assert json.loads((tmp_path / plans[0]).read_text())


@pytest.mark.slow
def test_the_star_stands_where_the_title_says():
    pytest.importorskip("matplotlib")
    import matplotlib.pyplot as plt

    plan = co.codesign(co.GaussianModel(co.Spectrum.power_law(8, 1.5), sampler="euler"), PRICES, 1e5, **FAST)
    assert plan.program_stopping_sigma != pytest.approx(plan.stopping_sigma, rel=0.01)
    figure = plan.plot()
    title = figure.get_suptitle()
    lines = {line.get_label(): line for ax in figure.axes for line in ax.get_lines()}
    (star,) = lines["chosen"].get_xdata()
    assert f"stop at σ = {star:.3g}" in title
    assert lines["program"].get_xdata()[0] == plan.program_stopping_sigma
    plt.close(figure)


@pytest.mark.slow
def test_an_estimate_prints_in_thirty_lines():
    size = 40
    sigma = np.geomspace(0.002, 80, size)
    rows = np.ones((3, size))
    record = {"denoiser": "unet", "draws": 64, "fine_steps": 32, "evaluations": {f"part {k}": 10**k for k in range(9)}}
    record |= {"training_notes": ["a note " * 40] * 9, "denoiser_check": ["right, " * 40, *["row"] * 30]}
    model = co.EstimatedModel(
        sigma, rows, sigma, co.Spectrum.power_law(64, 1.0), sensitivity=sigma, error_variance=sigma,
        standard_errors={"truncation": sigma}, provenance=record,
        estimation=co.EstimatedModel.__dataclass_fields__["estimation"].default_factory().from_record(record),
    )  # fmt: skip
    text = str(model)
    assert len(text.splitlines()) <= 30
    assert max(map(len, text.splitlines())) <= 110
    assert "co.codesign(model, prices, budget=" in text
    assert "28 more levels" in text
    assert len(repr(model)) < 100
