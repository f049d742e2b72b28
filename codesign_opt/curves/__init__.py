"""Learning curves by noise level: recorded in a training loop, fitted to plan from."""
