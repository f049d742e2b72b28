"""A training run that is planned again as its own losses come in (docs/theory.md section 7.13)."""
