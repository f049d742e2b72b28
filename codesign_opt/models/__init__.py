"""Models: they turn what is stated of data, sampler and training into the optimizer's coefficients."""
