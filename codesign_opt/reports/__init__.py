"""Reports: one self-contained HTML page of a plan, an audit or a comparison."""
