"""Water-filling and what goes with it: levels, whole numbers."""
