"""Conic programs in standard form: brought to order one by symmetries of their cones, and solved."""
