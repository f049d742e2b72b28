"""Newton in shares for shared parameters."""
