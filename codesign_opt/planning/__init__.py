"""One question at every stopping point: the plan, the audit, the frontier."""
