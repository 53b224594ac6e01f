"""Metrics: distances between sets, prompt similarity, onset accuracy, codecs, time and memory."""
