"""Programs over the terms of `modeling`: declared, scaled, solved, proved, described."""
