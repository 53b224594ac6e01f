"""What a table is made with: the judges at hand, and scenes kept out of training."""

import os

from realaudio_jax.data.prepared import scene_source
from realaudio_jax.data.scenes import Scene, make_scenes
from realaudio_jax.metrics.embedders import Embedder
from realaudio_jax.metrics.tower import Tower, has_tower, load_tower
from realaudio_jax.metrics.yamnet import yamnet


def load_judges(
    release: str | os.PathLike, embedder_weights: str | os.PathLike | None = None
) -> tuple[Tower | None, list[Embedder]]:
    """The release's own audio tower, if it has one, and YAMNet where its weights are named.

    Args:
        release: folder of the release.
        embedder_weights: folder of YAMNet weights.

    Raises:
        FileNotFoundError: `embedder_weights` holds no YAMNet weights.
    """
    tower = load_tower(release) if has_tower(release) else None
    return tower, [yamnet(embedder_weights)] if embedder_weights else []


def held_out_scenes(
    recordings: str | None, count: int, seconds: float, seed: int, foley_weight: float = 0.0
) -> tuple[list[Scene], list[Scene]]:
    """Two disjoint sets of scenes from recordings kept out of training (or procedural foley).

    Args:
        recordings: folder with metadata.csv; None for foley.
        count: scenes in each set.
        seconds: of each scene.
        seed: of the mixer; the first set is made from its own captions, the second is the floor.
        foley_weight: share of procedural sounds among the recordings.
    """
    source = scene_source(recordings, foley_weight, 'held_out')
    scenes = list(make_scenes(seed, source, 2 * count, seconds))
    return scenes[:count], scenes[count:]
