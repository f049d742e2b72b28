"""What training left at each noise level: sizes, sensitivities, correlation, transfer."""
