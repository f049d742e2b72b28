"""What is stated: spectra, processes, levels, prices, densities, couplings, training runs."""
