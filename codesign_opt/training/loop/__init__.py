"""What a training loop asks for."""
