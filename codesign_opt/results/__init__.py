"""Plans as values: fields, file, text, figures."""
