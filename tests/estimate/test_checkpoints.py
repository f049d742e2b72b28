"""What two checkpoints of a run tell estimate.network: the transfer width and the error left, against closed forms."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import codesign_opt as co  # noqa: E402
from codesign_opt.estimate import ErrorGram, Measurement, TrainingHistory, TransferKernel, network  # noqa: E402
from codesign_opt.estimate.denoisers.denoiser import Denoiser  # noqa: E402
from codesign_opt.estimate.training_errors.checkpoint_pair import CheckpointPair, sampled_images  # noqa: E402
from codesign_opt.estimate.training_errors.pilot import trained_at  # noqa: E402
from codesign_opt.estimate.training_errors.served_examples import as_served, served_per_log_sigma  # noqa: E402
from codesign_opt.models.pilot import widest_shown  # noqa: E402
from codesign_opt.testbed import LinearDenoiser  # noqa: E402

LAM = np.array([1.0, 0.5, 0.2, 0.1])
OFF = np.diag([0.1, 0.06, 0.05, 0.02])
RUN = co.TrainingRun(co.LogNormal(-0.5, 1.3), iterations=500, batch=200)
FINE = {"levels": 8, "draws": 16, "fine_steps": 16, "evaluations": 20_000}


@pytest.fixture(scope="module")
def data():
    draws = torch.randn((4_000, 4), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return draws * torch.as_tensor(np.sqrt(LAM))


class Counting:
    """A denoiser that counts its calls, and may be stopped at one."""

    def __init__(self, inner, at=None):
        self.inner, self.calls, self.at = inner, 0, at

    def __call__(self, x, sigma):
        self.calls += 1
        if self.at is not None and self.calls > self.at:
            raise KeyboardInterrupt
        return self.inner(x, sigma)


def earlier():
    return LinearDenoiser(LAM, perturbation=OFF)


def of_pair(data, denoiser=None, *, growth=2.0, images=2048, folder=None):
    """What `network` measures with both checkpoints."""
    return network(
        LinearDenoiser(LAM) if denoiser is None else denoiser, data, coupling="transfer", seed=1, folder=folder,
        training=TrainingHistory(RUN, other=earlier(), growth=growth), measurement=Measurement(images=images, **FINE),
    )  # fmt: skip


def excess(sigma):
    """E|OFF (x0 + sigma z)|^2, what the earlier checkpoint loses against the posterior mean."""
    return np.array([np.sum(np.diag(OFF) ** 2 * (LAM + s**2)) for s in sigma])


def test_without_examples_a_level_leaves_a_shrunk_input_or_what_was_seen(data):
    """Monte Carlo of E|c_skip x - x0|^2 with the data's own scale; the pilot's error where that is more."""
    model, draw = of_pair(data), torch.Generator().manual_seed(7)
    variance = float(data.square().mean())
    for sigma, row in zip(model.sigma, model.untrained, strict=True):
        noisy = data + float(sigma) * torch.randn(data.shape, generator=draw, dtype=data.dtype)
        squares = (variance / (variance + float(sigma) ** 2) * noisy - data).square().sum(1)
        error = float(squares.std() / len(data) ** 0.5)
        assert row >= float(squares.mean()) - 5 * error
        seen = row > float(squares.mean()) + 5 * error
        assert not seen or row < 4 * float(model.error_variance[np.argmin(np.abs(model.sigma - sigma))])
    assert network(LinearDenoiser(LAM), data, measurement=Measurement(images=256, **FINE)).untrained is None


def gauss(logs, mean, std):
    return np.exp(-0.5 * ((logs - mean) / std) ** 2) / (std * np.sqrt(2 * np.pi))


@pytest.mark.parametrize("width", [None, 0.7, 1.2])
def test_examples_that_serve_a_level_are_the_runs_density_smeared_by_the_kernel(width):
    sigma = np.geomspace(0.05, 8.0, 9)
    found = served_per_log_sigma(RUN, None if width is None else co.Transfer(width), sigma, 1e-4, 1e4)
    exact = 100_000 * gauss(np.log(sigma), -0.5, np.hypot(1.3, width or 0.0))
    np.testing.assert_allclose(found, exact, rtol=2e-3)


def test_kappa1_of_a_log_keeps_the_error_where_the_log_was_written():
    sigma, zero, nan = np.geomspace(0.05, 8.0, 9), np.zeros(9), float("nan")
    curves = co.LearningCurves(sigma, zero, 1 + sigma, zero, zero, 0.1 * sigma, zero, zero, 2.7, nan, nan)
    transfer = co.Transfer(0.9, 2.7)
    served = as_served(curves.law(), RUN, transfer, 1e-4, 1e4)
    own, all_of_them = (served_per_log_sigma(RUN, one, sigma, 1e-4, 1e4) for one in (None, transfer))
    np.testing.assert_allclose(served.reducible / all_of_them, curves.reducible / own, rtol=1e-12)
    np.testing.assert_allclose(served.reducible_error / all_of_them, curves.reducible_error / own, rtol=1e-12)
    law = curves.law()
    assert as_served(law, RUN, co.Local(2.7), 1e-4, 1e4) is law


def test_sampled_images_are_an_even_draw_of_the_data(data):
    numbers = torch.arange(4_000, dtype=torch.float64)[:, None]
    found = sampled_images(numbers, 1_000, seed=3, like=torch.zeros((), dtype=torch.float64))[:, 0]
    assert len(set(found.tolist())) == 1_000
    error = 4_000 / np.sqrt(12 * 1_000)
    assert abs(float(found.mean()) - 2_000) < 3 * error
    assert sampled_images(data[:5], 9, seed=0, like=data[:1, 0]).shape == (5, 4)


def test_the_width_of_a_pair_is_that_of_its_exact_correlation_and_its_calls_are_counted(data):
    first, second = Counting(LinearDenoiser(np.ones(4))), Counting(LinearDenoiser(np.full(4, 1.2)))
    unit = torch.randn((512, 4), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    pair = CheckpointPair(Denoiser(first), Denoiser(second), lambda: unit, 512)
    found = pair.width(0.05, 20.0, 12)
    assert first.calls + second.calls == pair.calls_of_width(12)
    s = co.Levels.log_uniform(0.05, 20.0, 12).sigma
    exact = (1 + s[:, None] * s) / np.sqrt((1 + s**2) * (1 + s[:, None] ** 2))
    truth = TransferKernel.from_errors(ErrorGram(co.Levels.log_uniform(0.05, 20.0, 12), np.stack([exact, exact])))
    assert abs(found.width - truth.width) < 3 * found.standard_error
    assert found.standard_error < 0.05 * truth.width


def test_network_measures_transfer_and_the_error_left_as_their_closed_forms(data):
    model = of_pair(data, growth=3.0, images=4_000)
    levels = trained_at(RUN, co.Levels.log_uniform(0.002, 80.0, 24))
    s, off = levels.sigma, np.diag(OFF)
    gram = (off**2 * (LAM + s[:, None, None] * s[None, :, None])).sum(axis=2)
    truth = TransferKernel.from_errors(ErrorGram(levels, np.stack([gram, gram])))
    assert isinstance(model.coupling, co.Transfer)
    shown = min(truth.width, widest_shown(RUN.density.std))  # no pilot of this density can tell it from wider ones
    assert abs(model.coupling.transfer - shown) < 3 * model.provenance["transfer_width_error"]
    assert model.provenance["transfer_width_error"] < 0.1 * truth.width
    length = float(model.coupling.lengths_at(np.array([1.0]), 0.002, 80.0)[0])
    served = served_per_log_sigma(RUN, model.coupling, model.sigma, 0.002, 80.0)
    exact = excess(model.sigma) / 2.0 * served * length
    error = model.standard_errors["error_variance"]
    assert np.all(np.abs(model.error_variance - exact) < 3 * error)
    assert np.all(error[model.sigma < 1.0] < 0.1 * exact[model.sigma < 1.0])
    assert model.provenance["evaluations"]["errors left"] == 2 * 8 * 63


def test_a_plan_with_prices_from_two_checkpoints_needs_no_log_and_gives_a_lognormal(data):
    model = of_pair(data)
    prices = co.Prices(example=3.0, evaluation=1.0, images=1_000)
    plan = co.codesign(model, prices, 1e5, sigmas=co.edm_grid(10, 0.002, 80.0), levels=60)
    assert plan.certificate.optimal
    fit = plan.training_density.lognormal()
    assert fit.loss >= -1e-9
    assert plan.training_density.score_error(plan.examples) == pytest.approx(
        plan.breakdown["score"] + plan.breakdown.get("last evaluation", 0.0), rel=1e-6
    )


@pytest.mark.slow
def test_killed_between_checkpoints_it_goes_on_to_the_same_result(data, tmp_path):
    whole = of_pair(data, images=256)
    for stop in (150, 300, 450, 600, None):
        try:
            model = of_pair(data, Counting(LinearDenoiser(LAM), stop), images=256, folder=tmp_path)
            break
        except KeyboardInterrupt:
            continue
    assert stop in (600, None)
    np.testing.assert_array_equal(model.error_variance, whole.error_variance)
    assert model.coupling.transfer == whole.coupling.transfer


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"coupling": "transfer", "source": RUN},
            "coupling='transfer' compares two checkpoints; give an earlier one",
        ),
        ({"growth": 2.0, "other": earlier()}, r"growth needs the density of the run; give .*co\.TrainingRun"),
        ({"growth": 0.5, "other": earlier(), "source": RUN}, "growth is 0.5; the network must have seen more"),
        ({"coupling": "local"}, "coupling"),
        ({"coupling": 2.7}, "coupling is 2.7; give a Coupling"),
    ],
)
def test_what_two_checkpoints_cannot_tell_is_refused_by_name(data, options, message):
    coupling = options.pop("coupling", None)
    with pytest.raises(ValueError, match=message):
        network(LinearDenoiser(LAM), data, training=TrainingHistory(**options), coupling=coupling)


def test_an_iterator_is_refused_before_it_is_read(data):
    with pytest.raises(ValueError, match="reads the data a second time"):
        network(LinearDenoiser(LAM), iter([data]), training=TrainingHistory(RUN, other=earlier(), growth=2.0))
