"""Figures: distances between sets, agreement, onset error, reconstruction, latency."""
