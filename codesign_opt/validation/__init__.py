"""Validation: denoisers trained as a plan says, sampled with its sampler, against what it predicts."""
