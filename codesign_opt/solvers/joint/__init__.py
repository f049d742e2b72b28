"""The joint program of examples and steps: dual Newton, alone and in batches."""
