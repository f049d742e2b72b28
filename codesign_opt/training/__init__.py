"""What training leaves in the score, and how that error reaches the samples."""
