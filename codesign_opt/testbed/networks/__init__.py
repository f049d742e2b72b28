"""Small networks, their training, and denoisers in closed form."""
