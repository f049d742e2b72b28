"""Denoisers that are right, and the same ones read wrongly in the usual ways, on four kinds of data."""

from functools import lru_cache

import numpy as np
import torch

import codesign_opt as co
from codesign_opt.estimate import from_edm, from_prediction, guided
from codesign_opt.testbed import MLP, LinearDenoiser, Mixture, Optimisation, circle8, clusters4, train

VP, FLOW = co.VP(), co.FlowMatching()


def normals(count, d, seed=0):
    return torch.randn((count, d), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gaussian(d=16, exponent=1.5, scale=1.0):
    lam = scale * np.arange(1, d + 1.0) ** -exponent
    return LinearDenoiser(lam), normals(4000, d) * torch.as_tensor(np.sqrt(lam))


@lru_cache
def small_network(iterations=400):
    """The perceptron of the testbed, as tests/testbed trains it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MLP(2, sigma_data=1.43, width=64)
    data = circle8().sample(20_000)
    how = Optimisation(co.LogNormal(-0.6, 1.6), batch=256, learning_rate=3e-3, ema=0.98)
    return train(model, data, iterations=iterations, optimisation=how).model.eval().double(), data[:4000].double()


def worlds():
    """Name: (a right denoiser, its data)."""
    return {
        "gaussian": gaussian(),
        "circle8": (circle8(), circle8().sample(4000, dtype=torch.float64)),
        "clusters4": (clusters4(), clusters4().sample(4000, dtype=torch.float64)),
        "network": small_network(),
    }


# networks that predict something else along a process, by the definitions


def predicting(denoiser, prediction, process, *, to_process=lambda t: t, scaled=True, sign=1.0):
    """network(state, t) of a denoiser; `to_process` turns the network's time into the process's."""

    def network(state, t):
        times = np.clip(to_process(t.detach().double().numpy()), process.t_min, process.t_max)
        s = torch.as_tensor(np.asarray(process.scale(times))).to(state)[:, None]
        level = torch.as_tensor(np.asarray(process.sigma(times))).to(state)
        x = state / s if scaled else state
        clean, sigma = denoiser(x, level), level[:, None]
        noise = (x - clean) / sigma
        out = {
            "x0": clean, "epsilon": noise, "v": s * noise - s * sigma * clean, "score": -noise / (s * sigma),
            "flow": noise - clean,
        }[prediction]  # fmt: skip
        return sign * out

    return network


def planted(denoiser):
    """(name, what is given as the denoiser, process, words that a cause must contain, map of the data)."""
    same = lambda x: x  # noqa: E731
    eps = lambda **how: predicting(denoiser, "epsilon", VP, **how)  # noqa: E731
    flow = lambda **how: predicting(denoiser, "flow", FLOW, **how)  # noqa: E731
    v, x0 = predicting(denoiser, "v", VP), predicting(denoiser, "x0", VP)
    score = predicting(denoiser, "score", VP)
    thousand = lambda t: t / 1000  # noqa: E731
    return [
        ("time 0-1, wants 0-1000", from_prediction(eps(to_process=thousand), "epsilon", VP), VP, "0 to 1000", same),
        (
            "time 0-1000, wants 0-1",
            from_prediction(eps(), "epsilon", VP, time=lambda t: 1000 * t), VP, "from 0 to 1 ", same,
        ),
        (
            "reversed flow",
            from_prediction(flow(to_process=lambda t: 1 - t), "flow", FLOW), FLOW, "backwards", same,
        ),
        ("opposite velocity", from_prediction(flow(sign=-1.0), "flow", FLOW), FLOW, "opposite sign", same),
        ("epsilon as v", from_prediction(eps(), "v", VP), VP, "predicts epsilon, not v", same),
        ("v as epsilon", from_prediction(v, "epsilon", VP), VP, "predicts v, not epsilon", same),
        ("x0 as epsilon", from_prediction(x0, "epsilon", VP), VP, "predicts x0, not epsilon", same),
        ("score as epsilon", from_prediction(score, "epsilon", VP), VP, "predicts score", same),
        (
            "epsilon as D(x, sigma)",
            lambda x, s: (x - denoiser(x, s)) / s[:, None], co.EDM(), "predicts epsilon, not x0", same,
        ),
        (
            "D wants log(sigma) / 4",
            lambda x, s: denoiser(x, torch.exp(4 * s.clamp(max=3.0))), co.EDM(), "log(sigma) / 4", same,
        ),
        ("state not scaled", from_prediction(eps(scaled=False), "epsilon", VP), VP, "x itself", same),
        ("data in [0, 1], network in [-1, 1]", from_edm(denoiser), co.EDM(), "2 x - 1", lambda x: (x + 1) / 2),
        ("latents not scaled", from_edm(denoiser), co.EDM(), "0.18 x", lambda x: x / 0.18215),
        ("latents scaled twice", from_edm(denoiser), co.EDM(), "5.5 x", lambda x: x * 0.18215),
        (
            "flow network as D(x, sigma)",
            lambda x, s: flow()(x, s), co.EDM(), "time of flow_matching from 0 to 1", same,
        ),
        (
            "epsilon network of 0-1000 as D(x, sigma)",
            lambda x, s: eps(to_process=thousand)(x, s), co.EDM(), "time of vp from 0 to 1000", same,
        ),
    ]  # fmt: skip


# right denoisers


def class_of(k):
    """One component of circle8, and draws of it."""
    one = Mixture(circle8().means[k : k + 1], circle8().widths[k : k + 1], np.ones(1))
    return one, one.sample(4000, dtype=torch.float64)


def halves():
    """Two overlapping classes of a mixture in eight dimensions, each of two components."""
    means = 1.5 * normals(4, 8, seed=5).numpy()
    whole = Mixture(means, np.full(4, 0.5), np.ones(4))
    return Mixture(means[:2], np.full(2, 0.5), np.ones(2)), whole


def few_step(denoiser, steps=4):
    """Answers with a sample: the end of `steps` Euler steps from (x, sigma), a distilled network's answer."""

    def answer(x, sigma):
        level = sigma[:, None]
        for k in range(steps):
            factor = (1 - (k + 1) / steps) ** 3 / max((1 - k / steps) ** 3, 1e-12)
            x = denoiser(x, level[:, 0]) + factor * (x - denoiser(x, level[:, 0]))
            level = level * factor
            if factor == 0:
                return x
        return x

    return answer


def posterior_sample(lam):
    """A draw of x0 given x by noise that is a function of x: the worst that a sample leaves, twice the Bayes error."""
    values = torch.as_tensor(lam)

    def answer(x, sigma):
        square = sigma[:, None] ** 2
        noise = torch.sqrt(torch.tensor(2.0)) * torch.sin(1e4 * x / torch.sqrt(values + square) + 1.0)
        return values / (values + square) * x + torch.sqrt(values * square / (values + square)) * noise

    return answer


def badly_trained(denoiser, size, d, seed=1):
    """An error of the preconditioned kind: `size` of EDM's unit output, a fixed rough function of the state."""
    mix = normals(d, d, seed).T / np.sqrt(d)

    def answer(x, sigma):
        level = sigma[:, None]
        total = torch.sqrt(level**2 + 1)
        return denoiser(x, sigma) + size * level / total * torch.tanh(3 * (x / total) @ mix)

    return answer


def noisy_epsilon(denoiser, size, d):
    """An epsilon network along VP whose error is `size` of the noise at every level, far more than the data at high."""
    exact, mix = predicting(denoiser, "epsilon", VP), normals(d, d, 3) / np.sqrt(d)
    return from_prediction(lambda x, t: exact(x, t) + size * torch.tanh(2 * x @ mix), "epsilon", VP)


def untrained(d, sigma_data, zero=True):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = MLP(d, sigma_data=sigma_data, width=32)
        if not zero:
            torch.nn.init.normal_(model.outward.weight, std=0.1)
    return model.double().eval()


def right():
    """(name, denoiser, process, data) of denoisers that must pass."""
    edm, found = co.EDM(), []
    for d, exponent, scale in ((2, 0.0, 1.0), (16, 1.5, 1.0), (64, 1.0, 100.0), (256, 2.0, 1e-4)):
        denoiser, data = gaussian(d, exponent, scale)
        found.append((f"gaussian {d} dimensions, scale {scale:g}", denoiser, edm, data))
    denoiser, data = gaussian(64, 1.5)
    found.append(("gaussian, 80 examples of 64 dimensions", denoiser, edm, data[:80]))
    shifted = LinearDenoiser(np.full(8, 900.0), mean=np.full(8, 127.0))
    found.append(("pixels 0 to 255", shifted, edm, 127.0 + 30.0 * normals(2000, 8)))
    for mixture in (circle8(), clusters4(), circle8(20.0, 2.0)):
        found.append((f"mixture {mixture.means.max():.3g}", mixture, edm, mixture.sample(4000, dtype=torch.float64)))
    mixture, lam = circle8(), np.arange(1, 17.0) ** -1.5
    points = mixture.sample(4000, dtype=torch.float64)
    one, draws = class_of(0)
    found.append(("guided 2 on a class", guided(one, mixture, 2.0), edm, draws))
    found.append(("guided 7.5 on a class", guided(one, mixture, 7.5, interval=(0.1, 10.0)), edm, draws))
    half, whole = halves()
    both = lambda x, s: whole(x, s) + 3.0 * (half(x, s) - whole(x, s))  # noqa: E731
    found.append(("guided 3 on all data", guided(half, whole, 3.0), edm, whole.sample(4000, dtype=torch.float64)))
    found.append(("guidance inside a function", both, edm, half.sample(4000, dtype=torch.float64)))
    found.append(("few-step on a mixture", few_step(mixture), edm, points))
    found.append(("few-step on a gaussian", few_step(gaussian()[0]), edm, gaussian()[1]))
    found.append(("posterior samples", posterior_sample(lam), edm, gaussian()[1]))
    found.append(("badly trained, mixture", badly_trained(mixture, 0.6, 2), edm, points))
    found.append(("badly trained, gaussian", badly_trained(gaussian()[0], 0.5, 16), edm, gaussian()[1]))
    network, seen = small_network(30)
    found.append(("network after 30 iterations", network, edm, seen))
    found.append(("network, trained", *(small_network()[0], edm), seen))
    found.append(("untrained EDM, zero output", untrained(2, 1.43), edm, points))
    found.append(("untrained EDM, random output", untrained(16, 0.4, zero=False), edm, gaussian()[1]))
    found.append(("untrained EDM, sigma_data 0.5", untrained(16, 0.5), edm, gaussian()[1]))
    found.append(("epsilon off by 0.1", noisy_epsilon(mixture, 0.1, 2), VP, points))
    found.append(("epsilon off by 0.3", noisy_epsilon(gaussian()[0], 0.3, 16), VP, gaussian()[1]))
    return found


def random_right(seed):
    """(kind, denoiser, process, data) drawn at random; None where the draw has no such case."""
    rng = np.random.default_rng(seed)
    d, scale = int(rng.choice([2, 4, 8, 32])), 10.0 ** rng.uniform(-1.5, 2)
    if rng.random() < 0.4:
        lam, mean = (
            scale**2 * np.arange(1, d + 1.0) ** -rng.uniform(0, 2),
            scale * rng.normal(size=d) * rng.choice([0, 1]),
        )
        exact, half = LinearDenoiser(lam, mean=mean), None
        data = torch.as_tensor(mean) + normals(3000, d, seed) * torch.as_tensor(np.sqrt(lam))
    else:
        count = int(rng.integers(2, 9))
        means, widths = scale * rng.normal(size=(count, d)), np.full(count, scale * 10 ** rng.uniform(-1.3, 0))
        weights, few = rng.uniform(0.3, 1, count), max(1, count // 2)
        exact, half = Mixture(means, widths, weights), Mixture(means[:few], widths[:few], weights[:few])
        data = exact.sample(3000, seed, dtype=torch.float64)
    kind = rng.choice(["exact", "few", "bad", "eps", "guided", "raw guided"])
    process = co.EDM(max(0.002, 0.002 * scale), 80 * max(1, scale))
    if kind == "few":
        return kind, few_step(exact, int(rng.integers(1, 7))), process, data
    if kind == "bad":
        unit = lambda x, s: exact(x * spread, s * spread) / spread  # noqa: E731
        spread, off = float(data.std()), badly_trained(unit, rng.uniform(0.1, 0.7), d, seed)
        return kind, lambda x, s: spread * off(x / spread, s / spread), process, data
    if kind == "eps":
        return None if scale > 6 else (kind, noisy_epsilon(exact, rng.uniform(0.03, 0.3), d), VP, data)
    if kind == "exact" or half is None:
        return kind, exact, process, data
    weight, inside = rng.uniform(1.2, 5), rng.random() < 0.7
    data = half.sample(3000, seed, dtype=torch.float64) if inside else data
    if kind == "guided":
        return kind, guided(half, exact, weight), process, data
    return (kind, lambda x, s: exact(x, s) + weight * (half(x, s) - exact(x, s)), process, data) if inside else None


class TimedNetwork(torch.nn.Module):
    """A perceptron that is told a time from 0 to `top` by sines and cosines, as diffusers' networks are."""

    def __init__(self, top, width=64):
        super().__init__()
        self.top, self.waves = top, torch.exp(torch.linspace(0, -9.2, 16))
        self.told, self.inward, self.outward = (
            torch.nn.Linear(32, width),
            torch.nn.Linear(2, width),
            torch.nn.Linear(width, 2),
        )
        self.layers = torch.nn.ModuleList(torch.nn.Linear(width, width) for _ in range(3))

    def forward(self, x, t):
        angle = 1000 / self.top * t[:, None] * self.waves
        told, hidden = self.told(torch.cat([angle.sin(), angle.cos()], 1)), self.inward(x)
        for layer in self.layers:
            hidden = hidden + layer(torch.nn.functional.silu(hidden + told))
        return self.outward(torch.nn.functional.silu(hidden))


def trained_in_time(prediction, top, iterations=1500):
    """(network, data): trained on circle8 along VP, or flow matching for "flow", by its own loss in its own time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net, data = TimedNetwork(top), circle8().sample(20_000)
        rule = torch.optim.Adam(net.parameters(), 3e-3)
        for turn in range(iterations):
            rule.param_groups[0]["lr"] = 3e-3 if 3 * turn < 2 * iterations else 3e-4
            x0, z, t = data[torch.randint(len(data), (256,))], torch.randn(256, 2), torch.rand(256) * 0.98 + 0.005
            s = 1 - t if prediction == "flow" else torch.as_tensor(VP.scale(t.numpy())).float()
            noise = (t if prediction == "flow" else torch.sqrt(1 - s**2))[:, None]
            target = {"epsilon": z, "x0": x0, "v": s[:, None] * z - noise * x0, "flow": z - x0}[prediction]
            loss = (net(s[:, None] * x0 + noise * z, top * t) - target).square().mean()
            rule.zero_grad()
            loss.backward()
            rule.step()
    return net.eval(), data
