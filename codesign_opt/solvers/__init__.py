"""Structured solvers: closed forms and exact sweeps that need no conic solver."""
