"""How one step of a sampler acts on Gaussian data, exactly and to leading order."""
