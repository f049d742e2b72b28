"""Data sets and mixtures with known truth."""
