"""A release whose sounds are drawn and not sampled, for tests of what is done with sounds."""

from types import SimpleNamespace

import numpy as np

from realaudio_jax.generator import Generator
from realaudio_jax.typing import LATENT_CHANNELS


class StubGenerator(Generator):
    """Low noise bursts where events are asked for, over a faint bed; a sound follows its seed.

    Nothing is compiled. Student and teacher share the noise of a seed, as they do in a release, and
    differ by a tenth of it.
    """

    def __init__(self, folder):
        super().__init__(folder)
        self.programs = StubPrograms(self.programs.params)


class StubPrograms:
    """In place of `generator.ProgramCache`; `buckets` keeps what was asked for."""

    def __init__(self, params):
        self.params, self.buckets = params, []

    def get(self, bucket):
        self.buckets.append(bucket)

    def __call__(self, bucket, request, init=None):
        self.get(bucket)
        made = [_sound(bucket, request, i) for i in range(len(request.seed))]
        pcm, latents = (np.stack(x) for x in zip(*made, strict=True))
        diagnostics = SimpleNamespace(
            finite=np.ones(len(pcm), bool),
            silent=np.zeros(len(pcm), bool),
            peak=np.abs(pcm.astype(int)).max(axis=(1, 2)) / 32768,
            lufs=np.full(len(pcm), -20.0),
        )
        return pcm, diagnostics, latents


def _sound(bucket, request, i):
    """(int16 [S 2], latents [L C]) of item i of a request."""
    rate, seed = bucket.sample_rate, int(request.seed[i])
    rng, other = np.random.default_rng(seed), np.random.default_rng([seed, bucket.steps])
    audio = 1e-3 * rng.normal(size=(round(np.ceil(request.seconds[i]) * rate), 2))
    for k in np.flatnonzero(request.event_mask[i]):
        start, end = (round(float(x[i, k]) * rate) for x in (request.onset_s, request.offset_s))
        held = np.repeat(rng.normal(size=(-(-(end - start) // 16), 2)), 16, axis=0)
        audio[start:end] += 0.1 * held[: len(audio[start:end])]
    latents = rng.normal(size=(bucket.length, LATENT_CHANNELS))
    audio += 1e-3 * other.normal(size=audio.shape)
    latents += 0.1 * other.normal(size=latents.shape)
    return (np.clip(audio, -1, 1) * 32767).astype(np.int16), np.float32(latents)
