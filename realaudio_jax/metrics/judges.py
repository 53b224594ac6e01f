"""Loads embedders and held-out scenes for evaluation."""

from realaudio_jax.data.prepared import scene_source
from realaudio_jax.data.scenes import Scene, make_scenes


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
