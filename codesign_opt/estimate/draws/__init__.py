"""Streams of data and noise, and running statistics of what is measured on them."""
