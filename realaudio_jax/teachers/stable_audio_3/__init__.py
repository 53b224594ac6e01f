"""Stable Audio 3 small (arXiv 2605.17991) as a teacher and a baseline, imported from diffusers."""
