"""Schedules of the literature, one interface."""
