"""Experiments behind the tables of README and docs: `python -m problems.studies NAME --out docs/figures`."""
