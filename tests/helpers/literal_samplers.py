"""The samplers once more, as literal loops on a scalar, and the grids they are tried on."""

import math

import numpy as np

from codesign_opt.samplers.members import Ancestral, DPMpp2M, Euler, EulerMaruyama, Heun, Sampler

SAMPLERS = [
    Euler(),
    Heun(),
    DPMpp2M(),
    Ancestral(0.0),
    Ancestral(0.5),
    Ancestral(1.0),
    Ancestral(1.4),
    EulerMaruyama(0.0),
    EulerMaruyama(0.5),
    EulerMaruyama(1.0),
    EulerMaruyama(1.4),
]
LAM = np.array([4.0, 0.25, 1e-3, 0.0])


def edm_grid(steps, sigma_max=80.0, sigma_min=0.002, rho=7.0, zero=True):
    ramp = np.linspace(0, 1, steps)
    nodes = (sigma_max ** (1 / rho) + ramp * (sigma_min ** (1 / rho) - sigma_max ** (1 / rho))) ** rho
    return np.append(nodes, 0.0) if zero else nodes


GRIDS = {
    "denoise": edm_grid(9),
    "rescale": edm_grid(10, sigma_min=0.05, zero=False),
    "uneven": np.array([10.0, 9.0, 2.0, 1.7, 0.3, 0.01, 0.0]),
    "one step to zero": np.array([5.0, 0.0]),
    "one step": np.array([5.0, 0.5]),
}


# ---- model(x, i) is the denoiser of the scalar x at node i ----


def sample_euler(model, x, sigmas, noise, eta):
    for i in range(len(sigmas) - 1):
        d = (x - model(x, i)) / sigmas[i]
        x = x + d * (sigmas[i + 1] - sigmas[i])
    return x


def sample_heun(model, x, sigmas, noise, eta):
    for i in range(len(sigmas) - 1):
        d = (x - model(x, i)) / sigmas[i]
        dt = sigmas[i + 1] - sigmas[i]
        if sigmas[i + 1] == 0:
            x = x + d * dt
        else:
            x_2 = x + d * dt
            d_2 = (x_2 - model(x_2, i + 1)) / sigmas[i + 1]
            x = x + (d + d_2) / 2 * dt
    return x


def sample_dpmpp_2m(model, x, sigmas, noise, eta):
    old = None
    for i in range(len(sigmas) - 1):
        denoised = model(x, i)
        if sigmas[i + 1] == 0:
            x = denoised
            continue
        t, t_next = -math.log(sigmas[i]), -math.log(sigmas[i + 1])
        h = t_next - t
        if old is None:
            mixed = denoised
        else:
            r = (t - -math.log(sigmas[i - 1])) / h
            mixed = (1 + 1 / (2 * r)) * denoised - (1 / (2 * r)) * old
        x = (sigmas[i + 1] / sigmas[i]) * x - math.expm1(-h) * mixed
        old = denoised
    return x


def sample_euler_ancestral(model, x, sigmas, noise, eta):
    for i in range(len(sigmas) - 1):
        a, b = sigmas[i], sigmas[i + 1]
        up = min(b, eta * (b**2 * (a**2 - b**2) / a**2) ** 0.5)
        down = (b**2 - up**2) ** 0.5
        d = (x - model(x, i)) / a
        x = x + d * (down - a)
        if b > 0:
            x = x + noise[i] * up
    return x


def sample_euler_maruyama(model, x, sigmas, noise, eta):
    for i in range(len(sigmas) - 1):
        a, b = sigmas[i], sigmas[i + 1]
        if b == 0:
            x = model(x, i)
            continue
        minus_score = (x - model(x, i)) / a**2
        x = x + (1 + eta**2) * a * minus_score * (b - a) + eta * math.sqrt(2 * a * (a - b)) * noise[i]
    return x


LITERAL = {
    "euler": sample_euler,
    "heun": sample_heun,
    "dpmpp_2m": sample_dpmpp_2m,
    "euler_ancestral": sample_euler_ancestral,
    "euler_maruyama": sample_euler_maruyama,
}


def literal_law(sampler, sigmas, weights, start):
    """Amplitude and variance of one band, by pushing x = 1 and then each unit of noise alone."""
    run = LITERAL[sampler.name]
    silence = [0.0] * (len(sigmas) - 1)

    def push(x, noise):
        return run(lambda y, i: weights[i] * y, x, [float(s) for s in sigmas], noise, sampler.eta)

    amplitude = push(1.0, silence)
    variance = amplitude**2 * start
    for i in range(len(silence)):
        variance += push(0.0, [float(i == j) for j in range(len(silence))]) ** 2
    return amplitude, variance


def ids(value):
    return repr(value) if isinstance(value, Sampler) else None
