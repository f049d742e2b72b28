"""The multistep and two-call samplers once more, as the papers write them: literal loops, integrals by quadrature.

A denoiser here is D(x, sigma, k), k the node, or None between nodes.
"""

import math

import numpy as np
from scipy.integrate import quad

import codesign_opt as co

BASHFORTH = {1: [1.0], 2: [1.5, -0.5], 3: [23 / 12, -16 / 12, 5 / 12], 4: [55 / 24, -59 / 24, 37 / 24, -9 / 24]}

MULTISTEP = [
    co.UniPC(2, "bh1"),
    co.UniPC(2, "bh2"),
    co.UniPC(3, "bh1"),
    co.UniPC(3, "bh2", lower_order_final=False),
    co.DPMpp3M(),
    co.DEIS(2),
    co.DEIS(3, lower_order_final=False),
    co.IPNDM(3),
    co.IPNDM(4),
    co.IPNDM(3, "x0"),
    co.IPNDM(4, "x0"),
    co.AdamsBashforth(2),
    co.AdamsBashforth(3),
    co.AdamsBashforth(4),
]
TWO_CALLS = [co.DPMpp2S(), co.HeunChurn(s_churn=2.0, s_tmin=0.03, s_tmax=12.0, s_noise=1.1), co.HeunChurn(0.0)]


def basis(t, j, nodes):
    return math.prod((t - other) / (nodes[j] - other) for i, other in enumerate(nodes) if i != j)


def integrals(nodes, low, high, kernel):
    """Of kernel(t) times each Lagrange polynomial, by quadrature."""
    return [
        quad(lambda t, j=j: kernel(t) * basis(t, j, nodes), low, high, epsabs=1e-14, epsrel=1e-13)[0]
        for j in range(len(nodes))
    ]


def order_at(sampler, k, count, most):
    final = getattr(sampler, "lower_order_final", False)
    return min(most, k + 1, count - k if final else most)


def adams(sampler, denoiser, x, sigmas):
    outputs, states = [], []
    times = [-math.log(s) for s in sigmas if s > 0]
    for k in range(len(sigmas) - 1):
        outputs.insert(0, denoiser(x, sigmas[k], k))
        states.insert(0, x)
        if sigmas[k + 1] == 0:
            return outputs[0]
        p = order_at(sampler, k, len(sigmas) - 1, sampler.solver_order)
        nodes, start, end = times[k::-1][:p], times[k], times[k + 1]
        if p == sampler.solver_order:
            shares = integrals(nodes, start, end, lambda t: 1.0)
            x = x + sum(w * (d - y) for w, d, y in zip(shares, outputs, states, strict=False))
        else:
            shares = integrals(nodes, start, end, lambda t, end=end: math.exp(t - end))
            x = math.exp(start - end) * x + sum(w * d for w, d in zip(shares, outputs, strict=False))
    return x


def deis(sampler, denoiser, x, sigmas):
    slopes = []
    for k in range(len(sigmas) - 1):
        clean = denoiser(x, sigmas[k], k)
        if sigmas[k + 1] == 0:
            return clean
        slopes.insert(0, (x - clean) / sigmas[k])
        p = order_at(sampler, k, len(sigmas) - 1, sampler.solver_order)
        logs = [math.log(s) for s in sigmas[k::-1][:p]]
        shares = integrals(logs, math.log(sigmas[k]), math.log(sigmas[k + 1]), math.exp)
        x = x + sum(w * e for w, e in zip(shares, slopes, strict=False))
    return x


def ipndm(sampler, denoiser, x, sigmas):
    past = []
    for k in range(len(sigmas) - 1):
        here, after = sigmas[k], sigmas[k + 1]
        clean = denoiser(x, here, k)
        if after == 0:
            return clean
        past.insert(0, clean if sampler.prediction == "x0" else (x - clean) / here)
        mixed = sum(b * e for b, e in zip(BASHFORTH[min(sampler.solver_order, k + 1)], past, strict=False))
        x = after / here * x + (1 - after / here) * mixed if sampler.prediction == "x0" else x + (after - here) * mixed
    return x


def dpmpp_3m(sampler, denoiser, x, sigmas):
    outputs = []
    for k in range(len(sigmas) - 1):
        outputs.insert(0, denoiser(x, sigmas[k], k))
        if sigmas[k + 1] == 0:
            return outputs[0]
        h = math.log(sigmas[k] / sigmas[k + 1])
        p = order_at(sampler, k, len(sigmas) - 1, 3)
        r = [math.log(sigmas[k - 1 - i] / sigmas[k - i]) / h for i in range(p - 1)]
        first = [(outputs[i] - outputs[i + 1]) / r[i] for i in range(p - 1)]
        x = math.exp(-h) * x - math.expm1(-h) * outputs[0]
        if p == 2:
            x = x - 0.5 * math.expm1(-h) * first[0]
        if p == 3:
            bent = (first[0] - first[1]) / (r[0] + r[1])
            x = x + (math.expm1(-h) / h + 1) * (first[0] + r[0] * bent)
            x = x - ((math.expm1(-h) + h) / h**2 - 0.5) * bent
    return x


def unipc(sampler, denoiser, x, sigmas):
    """Algorithms 1 and 2 of the paper with its matrices R and vectors b, the state corrected before it goes on."""
    outputs, before, used = [], None, 0
    count = len(sigmas) - 1
    for k in range(count):
        clean = denoiser(x, sigmas[k], k)
        if before is not None:
            h = math.log(sigmas[k - 1] / sigmas[k])
            ratios = [math.log(sigmas[k - 1] / sigmas[k - 1 - i]) / h for i in range(1, used)] + [1.0]
            values = [*outputs[1:used], clean]
            x = pc_update(before, outputs[0], values, ratios, h, sampler, 1)
        if sigmas[k + 1] == 0:
            return clean
        outputs.insert(0, clean)
        used = order_at(sampler, k, count, sampler.solver_order)
        h = math.log(sigmas[k] / sigmas[k + 1])
        ratios = [math.log(sigmas[k] / sigmas[k - i]) / h for i in range(1, used)]
        before, x = x, pc_update(x, outputs[0], outputs[1:used], ratios, h, sampler, 2)
    return x


def pc_update(x, base, values, ratios, h, sampler, simple):
    scale = math.expm1(-h) if sampler.solver_type == "bh2" else -h
    moved = math.exp(-h) * x - math.expm1(-h) * base
    if not values:
        return moved
    phi, right = math.expm1(-h) / -h - 1, []
    for i in range(1, len(values) + 1):
        right.append(phi * math.factorial(i) / scale)
        phi = phi / -h - 1 / math.factorial(i + 1)
    if len(values) == 1 and simple + len(ratios) in (2, 3):  # p = 2 predicts and p = 1 corrects with one half
        shares = [0.5]
    else:
        shares = np.linalg.solve(np.vander(ratios, increasing=True).T, right)
    return moved - scale * sum(s * (v - base) / r for s, v, r in zip(shares, values, ratios, strict=True))


def dpmpp_2s(sampler, denoiser, x, sigmas, noise=None):
    for k in range(len(sigmas) - 1):
        here, after = sigmas[k], sigmas[k + 1]
        clean = denoiser(x, here, k)
        if after == 0:
            return clean
        middle = math.sqrt(here * after)
        there = middle / here * x + (1 - middle / here) * clean
        x = after / here * x + (1 - after / here) * denoiser(there, middle, None)
    return x


def heun_churn(sampler, denoiser, x, sigmas, noise):
    count = len(sigmas) - 1
    for k in range(count):
        here, after = sigmas[k], sigmas[k + 1]
        if after == 0:
            return denoiser(x, here, k)
        if sampler.s_tmin <= here <= sampler.s_tmax and sampler.s_churn > 0:
            raised = here * (1 + min(sampler.s_churn / count, math.sqrt(2) - 1))
            x = x + sampler.s_noise * math.sqrt(raised**2 - here**2) * noise[k]
            here = raised
        slope = (x - denoiser(x, here, None)) / here
        there = x + (after - here) * slope
        x = x + (after - here) * 0.5 * (slope + (there - denoiser(there, after, k + 1)) / after)
    return x


LITERAL = {
    "unipc": unipc,
    "dpmpp_3m": dpmpp_3m,
    "deis": deis,
    "ipndm": ipndm,
    "adams_bashforth": adams,
    "dpmpp_2s": dpmpp_2s,
    "heun_churn": heun_churn,
}


def literal_law(sampler, sigmas, lam, start, weights=None):
    """Amplitude and variance of one band, by pushing x = 1 and then each unit of noise alone."""
    sigmas = [float(s) for s in sigmas]

    def denoiser(x, sigma, k):
        return x * (lam / (lam + sigma**2) if weights is None or k is None else weights[k])

    run, count = LITERAL[sampler.name], len(sigmas) - 1
    if not sampler.stochastic:
        amplitude = run(sampler, denoiser, 1.0, sigmas, *([[0.0] * count] if sampler.name == "heun_churn" else []))
        return amplitude, amplitude**2 * start
    amplitude = run(sampler, denoiser, 1.0, sigmas, [0.0] * count)
    units = np.eye(count)
    return amplitude, amplitude**2 * start + sum(run(sampler, denoiser, 0.0, sigmas, unit) ** 2 for unit in units)
