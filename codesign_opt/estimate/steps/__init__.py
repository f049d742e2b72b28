"""What coarse steps do to the output: responses, errors of grids, and descent on them."""
