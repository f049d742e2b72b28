"""The proof: lower bounds from multipliers, with no formula shared with the solvers."""
