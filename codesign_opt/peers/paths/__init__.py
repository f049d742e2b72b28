"""Shortest paths over noise levels, which several schedules minimise."""
