"""Published networks as Flax modules: each loads a public checkpoint from a folder, strictly."""

from realaudio_jax.metrics.ports.registry import PORTS, load_embedder

__all__ = ['PORTS', 'load_embedder']
