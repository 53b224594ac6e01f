"""Datasets by name: what `config.dataset` may be, besides a dotted path.

A dataset is made by `Dataset(recordings, foley_weight)` and has the methods of
`datasets.MixedScenes`.
"""

DATASETS = {
    'mixed': 'realaudio_jax.data.datasets:MixedScenes',
    'tfds': 'realaudio_jax.data.tfds_builders:StoredMixedScenes',
}
