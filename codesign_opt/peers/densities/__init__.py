"""Training densities of the literature."""
