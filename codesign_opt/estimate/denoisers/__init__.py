"""The contract `denoiser(x, sigma) -> x0`, and adapters to it."""
