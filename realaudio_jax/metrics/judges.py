"""Loads embedders and held-out scenes for evaluation."""

import os
from collections.abc import Sequence

from realaudio_jax.data.prepared import scene_source
from realaudio_jax.data.scenes import Scene, make_scenes
from realaudio_jax.metrics.embedders import Embedder
from realaudio_jax.metrics.ports import PORTS, load_embedder
from realaudio_jax.metrics.tower import Tower, has_tower, load_tower
from realaudio_jax.metrics.yamnet import yamnet
from realaudio_jax.release import find_release

TOWER = 'tower'  # of the release
EMBEDDERS = (TOWER, *PORTS)


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


def load_embedders(
    names: Sequence[str],
    release: str | os.PathLike,
    embedder_weights: str | os.PathLike | None = None,
) -> list[Embedder]:
    """Embedders by name; with no names, every one at hand.

    Args:
        names: of `EMBEDDERS`, or empty.
        release: name or folder of the release whose tower is used.
        embedder_weights: folder of the others' weights.

    Raises:
        ValueError: a name that is not known, or none at hand.
        FileNotFoundError: the release or the weights are not there.
    """
    for name in names:
        if name not in EMBEDDERS:
            raise ValueError(f'no embedder {name!r}; choose from {", ".join(EMBEDDERS)}')
        if name != TOWER and embedder_weights is None:
            raise ValueError(f'the embedder {name} needs its weights; name --embedder_weights')
    if names:
        return [
            load_tower(find_release(release)).embedder
            if name == TOWER
            else load_embedder(name, embedder_weights)
            for name in dict.fromkeys(names)
        ]
    tower, embedders = load_judges(find_release(release), embedder_weights)
    found = ([tower.embedder] if tower else []) + embedders
    if not found:
        raise ValueError(
            f'no embedder: release {release} has no audio tower; name --embedder_weights'
        )
    return found


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
