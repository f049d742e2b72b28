"""What a new user gets wrong: each error says what, where, how much, and what to do, before any work is done."""

import numpy as np
import pytest

import codesign_opt as co

SPECTRUM = co.Spectrum.power_law(8, 1.5)
MODEL, PRICES = co.GaussianModel(SPECTRUM), co.Prices(example=3.0, evaluation=1.0, images=100)
RUN = co.TrainingRun(co.LogNormal(-1.2, 1.2), 100, 64)
GRID = co.edm_grid(6, 0.05, 80.0)
HALVES = np.random.default_rng(0).integers(0, 255, (50, 3))


@pytest.fixture(scope="module")
def plan():
    """A plan of a sampler alone."""
    return co.codesign(MODEL, steps=5, stopping_sigma=0.05, levels=20, polish=False)


def linear(x, sigma):
    return x / (1 + sigma[:, None] ** 2)


def audit(sigmas, run=RUN):
    return co.audit(MODEL, PRICES, sigmas=sigmas, run=run)


def terms():
    return co.ScoreError(MODEL.coefficients(0.05, 20))


def network(denoiser, torch):
    return co.estimate.network(denoiser, torch.ones(64, 2), sampler="euler")


# what goes wrong: the call (of the plan, or of torch, where it takes one), and words that the message must hold
MISSPELT = {
    "sampler": (lambda: co.GaussianModel(SPECTRUM, sampler="huen"), ["GaussianModel.sampler", "did you mean 'heun'"]),
    "writing": (lambda: co.GaussianModel(SPECTRUM, sampler="DPM++ 2M"), ["did you mean 'dpmpp_2m'"]),
    "process": (lambda: co.GaussianModel(SPECTRUM, process="flow"), ["GaussianModel.process", "'flow_matching'?"]),
    "start": (lambda: co.GaussianModel(SPECTRUM, start="maen"), ["GaussianModel.start", "did you mean 'mean'"]),
    "terminal": (lambda: co.GaussianModel(SPECTRUM, terminal="denoize"), ["terminal", "did you mean 'denoise'"]),
    "model's option": (lambda: co.GaussianModel(SPECTRUM, smapler=co.Heun()), ["GaussianModel()", "'sampler'?"]),
    "budget": (lambda: co.codesign(MODEL, PRICES, bugdet=1e4), ["codesign()", "did you mean 'budget'"]),
    "price": (lambda: co.Prices(exmaple=1.0, evaluation=1.0, images=1), ["Prices()", "did you mean 'example'"]),
    "run": (lambda: co.TrainingRun(None, iteration=10, batch=1), ["TrainingRun()", "did you mean 'iterations'"]),
    "P_std": (lambda: co.LogNormal(P_std=1.2), ["LogNormal()", "did you mean 'std'"]),
    "option of a sweep": (lambda: co.frontier(MODEL, PRICES, [1e4], point=3), ["did you mean 'points'"]),
    "public name": (lambda: co.GausianModel, ["codesign_opt", "did you mean 'GaussianModel'"]),
    "estimator": (lambda: co.estimate.netwrok, ["codesign_opt.estimate", "did you mean 'network'"]),
    "peer": (lambda: co.compare(MODEL, ["edn"], evaluations=[9]), ["schedule is 'edn'", "did you mean 'edm'"]),
    "problem": (lambda: co.problems.load("digts"), ["'digts'", "did you mean 'digits'"]),
    "objective": (lambda: co.codesign(MODEL, steps=5, objective="trimed"), ["objective", "did you mean 'trimmed'"]),
    "weighting": (lambda: co.peers.weighting("min-snr"), ["weighting", "did you mean 'min_snr'"]),
    "export": (lambda plan: plan.export("difusers"), ["export.target", "did you mean 'diffusers'"]),
    "trainer": (lambda plan: plan.export_training("edm3"), ["export_training.target", "did you mean 'edm"]),
    "what-if": (lambda plan: co.what_if(plan, buget=[1e3]), ["what_if()", "did you mean 'budget'"]),
}
LEFT_OUT = {
    "prices": (lambda: co.codesign(MODEL, budget=1e4), ["prices is missing", "or steps alone"]),
    "budget": (lambda: co.codesign(MODEL, PRICES), ["budget is missing", "or steps alone"]),
    "all limits": (lambda: co.codesign(MODEL), ["nothing limits the plan", "give prices and budget, or steps"]),
    "limits of a program": (
        lambda: co.Problem(terms(), []).solve(),
        ["nothing limits the examples", "Compute(prices)"],
    ),
    "counts": (lambda: co.Spectrum([1.0, 0.5]), ["Spectrum.counts is missing", "from_eigenvalues"]),
    "spread": (lambda: co.Spectrum.from_samples(np.ones((9, 5))), ["do not vary"]),
    "a second example": (lambda: co.Spectrum.from_samples(np.ones((1, 5))), ["1 sample", "at least 2"]),
    "training": (
        lambda plan: plan.training_density.lognormal(),
        ["lognormal", "no reducible score error"],
    ),
    "a network": (
        lambda: co.codesign(MODEL, steps=5, solver="fit", stopping_sigma=0.05, levels=20),
        ["live denoiser", "estimate.network"],
    ),
}
IN_PLACE_OF = {
    "prices, a budget": (lambda: co.codesign(MODEL, 1e6), ["prices is 1000000.0", "co.Prices", "after it"]),
    "a model, a spectrum": (lambda: co.codesign(SPECTRUM, PRICES, 1e4), ["model is Spectrum", "GaussianModel"]),
    "a spectrum, data": (lambda: co.GaussianModel(np.ones((9, 4))), ["shape (9, 4)", "from_samples"]),
    "an object, its class": (lambda: co.GaussianModel(SPECTRUM, sampler=co.Heun), ["the class Heun", "Heun()"]),
    "a coupling, a word": (
        lambda: co.GaussianModel(SPECTRUM, coupling="local"),
        ["coupling", "co.Local(log_width=2.7)"],
    ),
    "a law, a word": (lambda: co.GaussianModel(SPECTRUM, training="adam"), ["training is 'adam'", "co.Adam(…)"]),
    "a metric, a word": (lambda: co.GaussianModel(SPECTRUM, metric="kl"), ["metric is 'kl'", "co.KL"]),
    "eigenvalues, a covariance": (
        lambda: co.Spectrum.from_eigenvalues(np.eye(4)),
        ["shape (4, 4)", "np.linalg.eigvalsh"],
    ),
    "a run, its density": (
        lambda: audit(GRID, co.LogNormal(-1.2, 1.2)),
        ["run is LogNormal", "co.TrainingRun(density="],
    ),
    "noise levels, times": (lambda: audit(np.linspace(1, 0, 9)), ["starts at 1", "look like times", "t / (1 - t)"]),
    "noise levels, timesteps": (
        lambda: audit(np.arange(999, -1, -111)),
        ["starts at 999", "timesteps", "read_schedule"],
    ),
    "a list, one name": (lambda: co.compare(MODEL, "edm", evaluations=[9]), ["peers is 'edm'", "such as ['edm']"]),
    "a row, a comparison": (lambda: co.Problem(terms(), [True]), ["constraint 0 is True", "lambda design"]),
    "a row, a number": (lambda: co.Problem(terms(), [3.0]), ["constraint 0 is 3.0", "a function of the design"]),
    "terms, a model": (lambda: co.Problem(MODEL, []), ["Problem.objective", "a term or a sum of terms"]),
    "a path, a number": (lambda: co.TrainingRun(co.LogNormal(-1, 1), 9, 9, log=3), ["TrainingRun.log is 3", "path"]),
    "a number, a text": (lambda: co.codesign(MODEL, PRICES, "1e6"), ["budget is '1e6'", "one number is needed"]),
}
OUT_OF_RANGE = {
    "budget": (lambda: co.codesign(MODEL, PRICES, -5.0), ["budget is -5", "> 0"]),
    "images": (
        lambda: co.codesign(MODEL, PRICES.with_images(1e6), 1e4, stopping_sigma=0.05),
        ["10,000", "1e+06", "raise"],
    ),
    "steps": (lambda: co.codesign(MODEL, steps=7.5), ["steps is 7.5", "whole number"]),
    "order of a grid": (lambda: audit(GRID[::-1]), ["strictly descending", "entry 0 is 0"]),
    "end of a grid": (lambda: audit(GRID[:-1]), ["ends with 0.05", "'rescale'", "change one of them"]),
    "stopping point": (lambda: co.codesign(MODEL, steps=5, stopping_sigma=100.0), ["is 100", "[0.002, 80)"]),
    "grid and steps": (
        lambda: co.codesign(MODEL, PRICES, 1e4, sigmas=GRID, steps=4),
        ["sigmas is given", "leave them out"],
    ),
    "labels": (lambda: co.Spectrum.from_samples(np.eye(9), labels=[0, 1]), ["shape (2,)", "(9,)", "argmax"]),
    "scale of data": (
        lambda: co.Spectrum.from_samples(HALVES, sigma_data=0.5),
        ["sigma_data is 0.5", "multiply the samples"],
    ),
    "an entry": (lambda: co.Spectrum.from_samples([[1.0, np.nan], [0, 1]]), ["nan in sample 0, entry 1"]),
    "price of nothing": (lambda: co.Prices(0, 1.0, 10), ["Prices.example is 0", "use Cap"]),
    "time one": (lambda: co.FlowMatching(t_max=1.0), ["t_max is 1", "sigma is infinite"]),
    "a folder": (lambda plan: plan.report("/no/such/page.html"), ["/no/such", "make it first"]),
}
OF_TORCH = {
    "shape": (lambda torch: network(lambda x, s: x[:1], torch), ["returned shape (1, 2)", "(4, 2)"]),
    "arguments": (lambda torch: network(lambda x: x, torch), ["fails", "takes 1 positional argument but 2"]),
    "dtype": (lambda torch: network(lambda x, s: torch.nn.Linear(2, 2).double()(x), torch), ["torch.float32", "x.to("]),
    "tuple": (lambda torch: network(lambda x, s: (x, s), torch), ["returned tuple", "a tensor is needed"]),
    "nan": (lambda torch: network(lambda x, s: x * float("nan"), torch), ["8 of 8 entries", "restrict the process"]),
    "device": (
        lambda torch: co.estimate.Measurement(device="cuda:97"),
        ["Measurement.device is 'cuda:97'", "devices here are cpu"],
    ),
    "no batch": (lambda torch: co.estimate.spectrum(torch.ones(7)), ["data has shape (7,)", "(examples, ...)"]),
    "paths": (lambda torch: co.estimate.spectrum(["a.png", "b.png"]), ["batch 0 is str", "a tensor of examples"]),
    "v": (lambda torch: co.estimate.from_prediction(linear, "v", "edm"), ["variance-preserving", "co.VP"]),
    "prediction": (lambda torch: co.estimate.from_prediction(linear, "eps", "vp"), ["did you mean 'epsilon'"]),
    "numpy": (lambda torch: co.estimate.run(linear, "heun", [1.0, 0.1], np.ones((2, 2))), ["run: x is", "a Tensor"]),
    "noise": (
        lambda torch: co.estimate.run(linear, "euler_ancestral", [1.0, 0.1], torch.ones(1, 2)),
        ["injects noise", "noise=BrownianPath"],
    ),
    "evaluations": (
        lambda torch: co.estimate.network(
            linear, torch.ones(64, 2), measurement=co.estimate.Measurement(evaluations=3)
        ),
        ["evaluations is 3", "batch evaluations", "Give more"],
    ),
}
WITHOUT_TORCH = [
    pytest.param(call, words, id=f"{kind}: {name}")
    for kind, group in {
        "misspelt": MISSPELT, "left out": LEFT_OUT, "in place of": IN_PLACE_OF, "out of range": OUT_OF_RANGE,
    }.items()
    for name, (call, words) in group.items()
]  # fmt: skip


def told(call, words):
    with pytest.raises((ValueError, TypeError, AttributeError, FileNotFoundError, co.CodesignError)) as caught:
        call()
    said = str(caught.value)
    assert [word for word in words if word not in said] == [], said
    assert len(said) < 700
    assert "\n" not in said.strip()


@pytest.mark.parametrize(("call", "words"), WITHOUT_TORCH)
def test_a_new_user_s_mistake_is_answered(call, words, plan):
    told((lambda: call(plan)) if call.__code__.co_argcount else call, words)


@pytest.mark.parametrize(("call", "words"), OF_TORCH.values(), ids=OF_TORCH)
def test_a_new_user_s_mistake_with_a_network_is_answered(call, words):
    torch = pytest.importorskip("torch")
    told(lambda: call(torch), words)


def test_there_are_sixty():
    assert len(WITHOUT_TORCH) + len(OF_TORCH) >= 60
