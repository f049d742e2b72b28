"""Denoisers of the testbed against closed forms, and its networks."""

import numpy as np
import pytest
import torch

from codesign_opt.testbed import MLP, LinearDenoiser, Mixture, UNet, circle8, grid8

DOUBLE = torch.float64


# ------------------------------------------------------------------------- closed-form denoisers


def test_linear_denoiser_is_the_conditional_mean_of_the_joint_gaussian():
    """E[x0 | x] = mean + C (C + sigma^2 I)^-1 (x - mean), by a linear solve instead of eigenvectors."""
    rng = np.random.default_rng(1)
    vectors, _ = np.linalg.qr(rng.normal(size=(6, 6)))
    lam, mean = np.array([3.0, 1.0, 0.2, 0.01, 1e-6, 0.0]), rng.normal(size=6)
    covariance = vectors @ np.diag(lam) @ vectors.T
    x = rng.normal(size=(5, 2, 3))
    for sigma in (0.002, 0.3, 80.0):
        away = x.reshape(5, 6) - mean
        truth = mean + np.linalg.solve(covariance + sigma**2 * np.eye(6), away.T).T @ covariance
        found = LinearDenoiser(lam, vectors, mean)(torch.tensor(x), torch.full((5,), sigma, dtype=DOUBLE))
        np.testing.assert_allclose(found.reshape(5, 6), truth, rtol=1e-9, atol=1e-12)


def test_a_perturbation_adds_a_known_error_and_weights_replace_the_optimum():
    error, x = np.arange(9.0).reshape(3, 3), torch.randn(4, 3, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor([0.1, 1.0, 2.0, 3.0], dtype=DOUBLE)
    exact = LinearDenoiser([1.0, 2.0, 3.0], mean=[1.0, 0.0, -1.0])
    wrong = LinearDenoiser([1.0, 2.0, 3.0], mean=[1.0, 0.0, -1.0], perturbation=error)
    by_level = LinearDenoiser(
        [1.0, 2.0, 3.0],
        mean=[1.0, 0.0, -1.0],
        perturbation=lambda s: s[:, None, None] * torch.tensor(error),
    )
    away = (x - exact.mean).numpy()
    np.testing.assert_allclose(wrong(x, sigma) - exact(x, sigma), away @ error.T, atol=1e-12)
    np.testing.assert_allclose(
        by_level(x, sigma) - exact(x, sigma), sigma.numpy()[:, None] * (away @ error.T), atol=1e-11
    )
    halved = LinearDenoiser([1.0, 2.0, 3.0], weights=lambda s: torch.full((len(s), 3), 0.5, dtype=DOUBLE))
    np.testing.assert_allclose(halved(x, sigma), 0.5 * x)
    with pytest.raises(ValueError, match="off orthonormal by"):
        LinearDenoiser([1.0, 1.0], vectors=[[1.0, 1.0], [0.0, 1.0]])
    with pytest.raises(ValueError, match=r"LinearDenoiser\.eigenvalues is -1 at index 1"):
        LinearDenoiser([1.0, -1.0])


@pytest.mark.parametrize("mixture", [circle8(), grid8()], ids=["circle8", "grid8"])
@pytest.mark.parametrize("sigma", [0.05, 0.5, 5.0])
def test_mixture_density_score_and_denoiser_belong_together(mixture, sigma):
    """Density by summed normals; score by automatic differentiation; denoiser by Tweedie's formula."""
    x = mixture.sample(50, seed=3, dtype=DOUBLE) + sigma
    variance = mixture.widths**2 + sigma**2
    squares = ((x.numpy()[:, None] - mixture.means) ** 2).sum(-1)
    density = (mixture.weights * np.exp(-squares / (2 * variance)) / (2 * np.pi * variance)).sum(1)
    np.testing.assert_allclose(mixture.log_density(x, sigma), np.log(density), rtol=1e-10)
    score = torch.func.grad(lambda y: mixture.log_density(y, sigma).sum())(x)
    np.testing.assert_allclose(mixture.score(x, sigma), score, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(mixture(x, sigma), x + sigma**2 * score, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("mixture", [circle8(), grid8()], ids=["circle8", "grid8"])
def test_mixture_samples_have_its_mean_and_covariance_within_four_standard_errors(mixture):
    count = 100_000
    x = mixture.sample(count, seed=1, dtype=DOUBLE).numpy()
    centred = x - mixture.mean
    np.testing.assert_allclose(centred.mean(0) / (x.std(0) / np.sqrt(count)), 0, atol=4)
    products = centred[:, :, None] * centred[:, None, :]
    spread = products.std(0) / np.sqrt(count)
    np.testing.assert_allclose((products.mean(0) - mixture.covariance) / spread, 0, atol=4)


def test_a_mixture_far_out_stays_finite_and_a_bad_one_is_named():
    far = torch.full((1, 2), 1e4, dtype=DOUBLE)
    assert torch.isfinite(circle8()(far, 0.01)).all()
    with pytest.raises(ValueError, match=r"Mixture.widths is -1 at index 0"):
        Mixture([[0.0]], [-1.0], [1.0])


# --------------------------------------------------------------------------------------- networks


def unet():
    torch.manual_seed(0)
    model = UNet(sigma_data=0.7)
    for parameter in model.parameters():  # zero-initialised layers would hide what is to be seen
        torch.nn.init.normal_(parameter, std=0.05)
    return model.eval()


def test_preconditioning_leaves_the_optimal_linear_denoiser_when_the_network_is_zero():
    x, sigma = torch.randn(3, 1, 28, 28), torch.tensor([0.01, 0.5, 50.0])
    expected = x * (0.49 / (0.49 + sigma**2))[:, None, None, None]
    torch.testing.assert_close(UNet(sigma_data=0.7)(x, sigma), expected, rtol=1e-5, atol=1e-7)


def test_the_unet_has_between_300_thousand_and_a_million_parameters():
    assert 3e5 < sum(p.numel() for p in UNet(sigma_data=0.5).parameters()) < 1e6
    with pytest.raises(ValueError, match=r"UNet.widths is \(16, 30, 96\)"):
        UNet(sigma_data=0.5, widths=(16, 30, 96))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")  # forward mode of torch, not ours
@pytest.mark.parametrize("make", [unet, lambda: MLP(784, sigma_data=0.7, width=32)], ids=["unet", "mlp"])
def test_images_of_a_batch_do_not_see_each_other_and_torch_func_applies(make):
    """Per-sample gradients by vmap(grad) against one backward pass for each sample."""
    model = make()
    x = torch.randn(3, 784, generator=torch.Generator().manual_seed(1))
    x = x.reshape(3, 1, 28, 28) if isinstance(model, UNet) else x
    sigma = torch.tensor([0.05, 0.6, 7.0])
    weights = dict(model.named_parameters())

    def loss(weights, x, sigma):
        out = torch.func.functional_call(model, weights, (x[None], sigma[None]))
        return (out**2).mean()

    gradients = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(weights, x, sigma)
    for i in range(3):
        single = torch.autograd.grad(loss(weights, x[i], sigma[i]), list(weights.values()), allow_unused=True)
        for (name, batched), one in zip(gradients.items(), single, strict=True):
            one = torch.zeros_like(batched[i]) if one is None else one
            torch.testing.assert_close(batched[i], one, rtol=2e-3, atol=1e-5, msg=name)
    _, change = torch.func.jvp(lambda y: model(y, sigma), (x,), (torch.ones_like(x),))
    steps = (model(x + 1e-2, sigma) - model(x - 1e-2, sigma)) / 2e-2
    torch.testing.assert_close(change, steps, rtol=2e-2, atol=2e-3)
