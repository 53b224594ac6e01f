"""The scenes that a run trains on and is evaluated on: sounds mixed, or recordings unmixed."""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Sequence

from realaudio_jax import integrity, processes
from realaudio_jax.data import (
    attribution,
    augment,
    captions,
    curves,
    fresh,
    label_text,
    recordings_cache,
    scene_encoder,
    scenes,
    signal,
    sources,
)
from realaudio_jax.data.cache import SceneSet, cache_key, code_digest
from realaudio_jax.data.fresh import (
    ENCODED_AT_ONCE,
    FRESH_SCENES,
    EveryNth,
    FreshCrops,
    SceneMaker,
)
from realaudio_jax.data.scene_encoder import SceneEncoder, SoundAndTextEncoders
from realaudio_jax.data.scenes import fitting, make_scenes, unmixed_recordings
from realaudio_jax.data.sources import FoleySource, MixedSource, Recordings, Source

_PART_SEEDS = 1_000_003  # between the seeds of the processes that draw from scenes of their own


def scene_source(
    recordings: str | None, foley_weight: float, split: str = 'train', log=None, balance=0.5
) -> Source:
    """Procedural foley, recordings, or both.

    Args:
        recordings: folder of recordings, see `sources.Recordings`; None for foley alone.
        foley_weight: share of sounds from procedural foley, 0 to 1, where there are recordings.
        split: 'train' or 'held_out', of the recordings and of the foley.
        log: takes a line about each file that is left out.
        balance: of the recordings, see `sources.Recordings`.
    """
    if recordings is None or foley_weight >= 1:
        return FoleySource(split)
    recorded = Recordings(recordings, split, log=log, balance=balance)
    if foley_weight <= 0:
        return recorded
    return MixedSource([FoleySource(split), recorded], [foley_weight, 1.0 - foley_weight])


class MixedScenes:
    """Scenes mixed of recordings and procedural foley, and the recordings unmixed.

    Args:
        recordings: folder of recordings, see `sources.Recordings`; None for foley alone.
        foley_weight: share of sounds from procedural foley, 0 to 1, where there are recordings.
    """

    def __init__(self, recordings: str | None = None, foley_weight: float = 0.0):
        self.recordings, self.foley_weight = recordings, foley_weight

    def require(self, seconds: float) -> int:
        """Tries what a run will ask of the sounds, so that nothing fails after it has trained.

        Both splits are opened, which decodes the recordings once, and a scene of each is drawn.

        Args:
            seconds: of a scene.

        Returns:
            How many recordings of the training split `unmixed` can take at this length.

        Raises:
            FileNotFoundError, ValueError: the folder cannot be used; one line with the remedy.
        """
        for split in ('train', 'held_out'):
            source = scene_source(self.recordings, self.foley_weight, split)
            next(make_scenes(0, source, 1, seconds))
        return len(fitting(Recordings(self.recordings), seconds)) if self.recordings else 0

    def mixed(
        self, split: str, count: int, seconds: float, seed: int, workers: int = 0
    ) -> SceneSet:
        """Scenes with a timeline.

        Args:
            split: 'train' or 'held_out'.
            count, seconds, seed: of the scenes; scene i is a function of (seed, i).
            workers: processes that mix them, see `scenes.make_scenes`.
        """
        source = scene_source(self.recordings, self.foley_weight, split)
        made = make_scenes(seed, source, count, seconds, workers=workers)
        return SceneSet(made, count, seconds, scenes_digest('mixed', source, count, seconds, seed))

    def unmixed(self, count: int, seconds: float, seed: int) -> SceneSet:
        """Recordings of the training split with their captions, see `scenes.unmixed_recordings`.

        Args:
            count, seconds, seed: how many, the longest one, and of the draw.

        Raises:
            ValueError: no recording is of such a length.
        """
        source = Recordings(self.recordings)
        made = unmixed_recordings(seed, source, count, seconds)
        digest = scenes_digest('unmixed', source, count, seconds, seed)
        return SceneSet(made, count, seconds, digest)

    def folder_digest(self, folder: pathlib.Path) -> str:
        """Digest of the sounds and tables of a folder; see `recordings_cache`."""
        return recordings_cache.folder_digest(folder)

    def note_origins(
        self, workdir: str | os.PathLike, starts: Sequence[str | os.PathLike] = ()
    ) -> None:
        """Writes which recordings train, and what the run starts from owes; see `attribution`."""
        attribution.note_recordings(workdir, self.recordings, starts)


def scenes_digest(kind: str, source: Source, count: int, seconds: float, seed: int) -> str:
    """Digest of scenes: their sounds, how they are mixed, and the seed.

    Args:
        kind: of the scenes.
        source: of their sounds; where they lie does not matter.
        count, seconds, seed: of the scenes.
    """
    return cache_key(
        kind, source=source.digest, count=count, seconds=seconds, seed=seed, code=_code()
    )


def _code() -> str:
    """Of the modules and tables that decide what a scene is; foley has a version of its own."""
    modules = code_digest(
        augment, captions, curves, fresh, label_text, scene_encoder, scenes, signal, sources
    )
    return f'{modules} {integrity.digest(label_text.TABLES)}'


def fresh_crops(
    encoders: SoundAndTextEncoders,
    source: Source,
    seconds: float,
    seed: int,
    batch_size: int,
    min_seconds: float,
    pool: int,
    uses: float,
    unmixed: float,
    responses: str | None,
    folder: pathlib.Path,
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
    curve_names: tuple[str, ...] = (),
) -> FreshCrops:
    """Batches of crops of scenes that are mixed anew all along and augmented; see `data.fresh`.

    Of several processes each mixes and holds its own part of the scenes, and draws its rows of a
    batch from that: batches are other ones than those of one process.

    Args:
        encoders: the frozen networks.
        source: of sounds.
        seconds, seed: of the scenes.
        batch_size, min_seconds, pool, uses, workers, progress: see `fresh.FreshCrops`.
        unmixed: share of unmixed recordings, see `fresh.SceneMaker`.
        responses: folder of measured impulse responses; None or '' for synthetic rooms alone.
        folder: where caches lie.
        curve_names: of the denoiser, see `SceneEncoder`.
    """
    rows, parts, part = processes.share(batch_size), processes.count(), processes.index()
    changes = dataclasses.replace(FRESH_SCENES.augment, responses=responses or None)
    config = dataclasses.replace(FRESH_SCENES, augment=changes)
    encoder = SceneEncoder(encoders, ENCODED_AT_ONCE, curve_names)
    key = cache_key(
        'fresh',
        source=source.digest,
        seconds=seconds,
        seed=seed,
        unmixed=unmixed,
        scenes=str(config),
        encoder=encoder.fingerprint(),
        code=_code(),
    )
    made = SceneMaker(seed, source, seconds, config, unmixed)
    kept = f'{key}-{batch_size}-{pool}-{uses:g}' + (f'-{part}of{parts}' if parts > 1 else '')
    return FreshCrops(
        EveryNth(made, part, parts),
        encoder,
        seconds,
        rows.stop - rows.start,
        seed + _PART_SEEDS * part,
        min_seconds,
        -(-pool // parts),
        uses,
        workers,
        folder / kept,
        progress,
    )
