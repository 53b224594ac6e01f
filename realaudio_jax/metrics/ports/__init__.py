"""Published networks as Flax modules: each loads a public checkpoint from a folder, strictly."""

from realaudio_jax.metrics.ports.registry import PORTS, embedders_in, load_embedder

__all__ = ['PORTS', 'embedders_in', 'load_embedder']
