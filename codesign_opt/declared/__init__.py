"""Declared problems: found by name or path, built, and loaded."""
