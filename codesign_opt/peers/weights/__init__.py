"""Loss weights of the literature, on every prediction target."""
