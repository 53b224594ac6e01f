"""Embedding networks: published ones in Flax, a release's audio tower, and how clips reach them."""
