"""Stable Audio Open 1.0 (Evans et al. 2024, arXiv 2407.14358) as a teacher and a baseline."""
