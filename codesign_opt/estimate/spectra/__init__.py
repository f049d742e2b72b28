"""Spectra of streamed data: exact, radial and by Lanczos."""
