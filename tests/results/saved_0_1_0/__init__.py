"""Plans that version 0.1.0 saved, and what they said."""
