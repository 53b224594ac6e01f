"""Random stereo crops of recordings and procedural foley, for training the autoencoder."""

import sys
from typing import Literal

import numpy as np

from realaudio_jax.data import foley, signal, sources
from realaudio_jax.data.cache import cache_key, code_digest
from realaudio_jax.data.sources import Recordings
from realaudio_jax.typing import Float

_POOL = 400  # foley sounds; drawing one anew for every crop would cost more than the step


class CropMixture:
    """Batches of random crops; batch i depends on (seed, i) alone, so a run resumes exactly.

    Args:
        recordings: folder with metadata.csv, or None for foley alone.
        foley_fraction: share of crops from procedural foley, 0 to 1.
        batch_size: crops a batch.
        seed: of everything random.
        split: of the recordings.

    Attributes:
        digest: of all that decides the crops, for the keys of caches.
    """

    def __init__(
        self,
        recordings: str | None,
        foley_fraction: float,
        batch_size: int,
        seed: int,
        split: Literal['train', 'held_out'] = 'train',
    ):
        self._recordings = Recordings(recordings, split) if recordings else None
        self._foley_fraction = foley_fraction if recordings else 1.0
        self._batch_size, self._seed = batch_size, seed
        self.digest = cache_key(
            'crops',
            recordings=self._recordings and self._recordings.digest,
            foley=[foley.VERSION, self._foley_fraction],
            batch_size=batch_size,
            seed=seed,
            code=code_digest(sys.modules[__name__], signal, sources),
        )
        self._pool: dict[int, np.ndarray] = {}  # each is made when a crop first takes it

    def crops(self, index: int, samples: int) -> Float[np.ndarray, 'B S 2']:
        """Batch `index`: float32, peak at most 1."""
        rng = np.random.default_rng([self._seed, 0, index])
        synthetic = rng.random(self._batch_size) < self._foley_fraction
        out = np.zeros((self._batch_size, samples, 2), np.float32)
        if self._recordings and not synthetic.all():
            out[~synthetic] = self._recordings.random_crops(rng, int((~synthetic).sum()), samples)
        for i in np.flatnonzero(synthetic):
            out[i] = self._foley_crop(rng, samples)
        return out

    def _foley_crop(self, rng: np.random.Generator, samples: int) -> np.ndarray:
        out = np.zeros((samples, 2), np.float32)
        for _ in range(int(rng.integers(1, 3))):
            audio = self._foley(int(rng.integers(_POOL)))
            first = int(rng.integers(max(1, len(audio) - samples // 2)))
            audio = audio[first : first + samples]
            at = int(rng.integers(samples - len(audio) + 1))
            gain = np.float32(10 ** (rng.uniform(-12.0, 3.0) / 20))
            out[at : at + len(audio)] += gain * signal.random_stereo(rng, audio)
        signal.limit(out)
        return out

    def _foley(self, number: int) -> np.ndarray:
        """A sound of the pool: four events for every ambience, ambiences of 4 s."""
        if number not in self._pool:
            rng = np.random.default_rng([self._seed, 1, number])
            is_ambience = number % 5 == 4
            kinds = list((foley.AMBIENCES if is_ambience else foley.EVENTS).values())
            kind = kinds[rng.integers(len(kinds))]
            self._pool[number] = kind.synthesize(rng, 4.0 if is_ambience else None)
        return self._pool[number]
