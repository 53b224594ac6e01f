"""Evaluation of a release on held-out scenes: generated sounds, their metrics, a run's report."""
