"""The teacher of a release of this project: its batches, its networks, its student's release."""

import dataclasses
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from realaudio_jax import packing, release
from realaudio_jax.data.attribution import write_attribution
from realaudio_jax.data.cache import EncodedScenes
from realaudio_jax.data.curves import random_median
from realaudio_jax.data.frozen_encoders import load_frozen_encoders
from realaudio_jax.data.latent_crops import RandomCrops
from realaudio_jax.data.scene_encoder import SceneEncoder
from realaudio_jax.data.scenes import Scene
from realaudio_jax.distillation.recipe import Batch
from realaudio_jax.models.denoiser import (
    PATCH,
    PATH,
    Conditioning,
    Denoiser,
    as_denoiser,
    frame_mask,
)
from realaudio_jax.noise import Denoise
from realaudio_jax.release import STUDENT_NAME, TEACHER_NAME
from realaudio_jax.release_config import StudentConfig
from realaudio_jax.samplers import classifier_free_guidance
from realaudio_jax.teachers import ConditionDropout
from realaudio_jax.training.run_folder import RELEASE
from realaudio_jax.typing import LATENT_RATE, MAX_SECONDS, SAMPLE_RATE, Array, Float, Key, PyTree

PER_FRAME = ('latents', 'loudness_db', 'curves', 'curve_mask')  # arrays with an axis of frames
_NEAR_ONSET_S = 0.06  # the frame of an onset, and one on each side


def to_batch(arrays: Mapping[str, Array | np.ndarray]) -> Batch:
    """A recipe's batch from rows of encoded scenes, every condition present and nothing given.

    Args:
        arrays: see `SceneEncoder.encode`; L is cut to whole tokens. Where a teacher made the
            latents also guidance, timeline_mask and loudness_mask [B], see `teacher_samples`.
    """
    frames = arrays['latents'].shape[1] // PATCH * PATCH
    arrays = {name: _as_input(name, array, frames) for name, array in arrays.items()}
    latents = arrays['latents']

    def given(name):
        return arrays.get(name, jnp.ones(len(latents), bool))

    conditioning = Conditioning(
        text=arrays['text'],
        text_mask=arrays['text_mask'],
        event_text=arrays['event_text'],
        onset_s=arrays['onset_s'],
        offset_s=arrays['offset_s'],
        gain_db=arrays['gain_db'],
        event_mask=arrays['event_mask'] & given('timeline_mask')[:, None],
        loudness_db=arrays['loudness_db'],
        loudness_mask=given('loudness_mask'),
        seconds=arrays['seconds'],
        init=jnp.zeros_like(latents),
        init_mask=jnp.zeros(latents.shape[:2]),
        curves=arrays.get('curves'),
        curve_mask=arrays.get('curve_mask'),
    )
    mask = frame_mask(arrays['seconds'], latents.shape[1]).astype(jnp.float32)
    return Batch(latents, mask, conditioning, arrays.get('guidance'))


def _as_input(name: str, array: Array | np.ndarray, frames: int) -> Array:
    """An array in float32, or as it is if bool; cut to `frames` where it has them."""
    array = jnp.asarray(array)
    array = array if array.dtype == bool else array.astype(jnp.float32)
    return array[:, :frames] if name in PER_FRAME else array


def drop_conditions(batch: Batch, key: Key[Array, ''], dropout: ConditionDropout) -> Batch:
    """Drops conditions and gives regions at random, per item; pure, for use inside a step.

    Where a teacher made the latents, conditions were dropped then, and are as they were.
    """
    size, length = batch.mask.shape
    c = batch.conditioning
    keys = jax.random.split(key, 6 if c.curve_mask is None else 9)
    text, timeline, loudness, init = (
        jax.random.uniform(k, (size,)) < p
        for k, p in zip(
            keys[:4],
            (dropout.text, dropout.timeline, dropout.loudness, dropout.init),
            strict=True,
        )
    )
    if batch.guidance is None:
        curve_mask = c.curve_mask
        c = c.replace(loudness_mask=c.loudness_mask & loudness).without(text, timeline)
        if curve_mask is not None:
            kept = jax.random.bernoulli(keys[6], dropout.curves, (size, 1, curve_mask.shape[2]))
            c = _sketched(c.replace(curve_mask=curve_mask & kept), keys[7:])
    # A given region is everything before or after a random time, or all but a span between two.
    low, high = jnp.sort(jax.random.uniform(keys[4], (2, size)), axis=0) * c.seconds[None]
    kind = jax.random.randint(keys[5], (size,), 0, 3)
    time = ((jnp.arange(length) + 0.5) / LATENT_RATE)[None]
    before, after = time < low[:, None], time > high[:, None]
    kind = kind[:, None]
    given = jnp.where(kind == 0, before, jnp.where(kind == 1, after, before | after))
    given = (given & init[:, None]).astype(batch.mask.dtype) * batch.mask
    return batch.replace(
        conditioning=c.replace(init=batch.latents * given[..., None], init_mask=given)
    )


def _sketched(c: Conditioning, keys: Key[Array, '2']) -> Conditioning:
    """The curves, each smoothed by a random median filter, as people draw them."""
    everywhere = jnp.ones(c.loudness_db.shape, bool)
    curves = [
        random_median(key, c.curves[..., i], c.curve_mask[..., i])
        for i, key in enumerate(jax.random.split(keys[0], c.curves.shape[2]))
    ]
    return c.replace(
        loudness_db=random_median(keys[1], c.loudness_db, everywhere),
        curves=jnp.stack(curves, axis=-1),
    )


def with_onset_weight(batch: Batch, weight: float) -> Batch:
    """Multiplies the mask by `weight` in the frames around the onset of each event.

    They are less than a tenth of all frames, and what is heard of timing is decided in them. What
    minimises the loss stays the same, since the weight depends on the conditioning alone.
    """
    c = batch.conditioning
    time = (jnp.arange(batch.mask.shape[1]) + 0.5) / LATENT_RATE
    near = jnp.abs(time[None, :, None] - c.onset_s[:, None]) < _NEAR_ONSET_S
    near = jnp.any(near & c.event_mask[:, None], axis=-1)
    return batch.replace(mask=batch.mask * jnp.where(near, weight, 1.0))


def prepare(
    batch: Batch, key: Key[Array, ''], dropout: ConditionDropout, onset_weight: float = 1.0
) -> Batch:
    """Training's and distillation's changes to every batch: `drop_conditions`, onset weights."""
    return with_onset_weight(drop_conditions(batch, key, dropout), onset_weight)


def guided_denoiser(
    model: Denoiser, params: PyTree, conditioning: Conditioning, guidance_scale: Float[Array, 'B']
) -> Denoise:
    """A denoiser with guidance away from `Conditioning.unconditional`: two evaluations a call."""
    conditional = as_denoiser(model, params, conditioning)
    unconditional = as_denoiser(model, params, conditioning.unconditional())
    return classifier_free_guidance(conditional, unconditional, guidance_scale)


class ReleaseTeacher:
    """A release's denoiser and frozen encoders as a `Teacher`.

    Args:
        folder: of the release.
        dtype: of the denoiser's products; None is float32.
    """

    sample_rate, path = SAMPLE_RATE, PATH

    def __init__(self, folder: pathlib.Path, dtype: str | None = None):
        self._folder, self._config = folder, release.read_release(folder)
        model = Denoiser(**self._config.denoiser.to_dict())
        shapes = release.denoiser_template(model)
        self.teacher_params = release.load_denoiser(folder, TEACHER_NAME, shapes)
        self._model = model.clone(dtype=dtype)
        self._encoder = SceneEncoder(load_frozen_encoders(folder), curves=model.curves)

    @property
    def network(self) -> str:
        """Settings of the denoiser."""
        return repr(self._model)

    def require_seconds(self, seconds: float) -> None:
        """Raises a ValueError for a duration that the model cannot generate."""
        if not 0 < seconds <= MAX_SECONDS:
            raise ValueError(f'scenes of {seconds:g} s: choose above 0 and up to {MAX_SECONDS:g} s')

    def encode(self, scenes: Iterable[Scene], seconds: float) -> Iterator[dict[str, np.ndarray]]:
        """See `SceneEncoder.encode`."""
        return self._encoder.encode(scenes, seconds)

    def fingerprint(self) -> str:
        """Hash of the frozen encoders."""
        return self._encoder.fingerprint()

    def batches(
        self, scenes: EncodedScenes, batch_size: int, seed: int, crop_seconds: float | None
    ) -> RandomCrops:
        """Random crops of random scenes; whole scenes where `crop_seconds` is None."""
        longest = scenes.arrays['latents'].shape[1] / LATENT_RATE
        return RandomCrops(scenes, batch_size, seed, crop_seconds or longest)

    to_batch = staticmethod(to_batch)
    prepare = staticmethod(prepare)

    def guided(
        self, params: PyTree, conditioning: Conditioning, guidance_scale: Float[Array, 'B']
    ) -> Denoise:
        """The teacher with classifier-free guidance, see `guided_denoiser`."""
        return guided_denoiser(self._model, params, conditioning, guidance_scale)

    def student(
        self,
        params: PyTree,
        conditioning: Conditioning,
        guidance_scale: Float[Array, 'B'],
        step_size: Float[Array, 'B'],
    ) -> Denoise:
        """The same network, with scale and step size as inputs."""
        return as_denoiser(self._model, params, conditioning, guidance_scale, step_size)

    def drop_rows(
        self, arrays: Mapping[str, np.ndarray], dropout: ConditionDropout, rng: np.random.Generator
    ) -> dict[str, np.ndarray]:
        """Condition dropout of stored rows, as masks; loudness curves are always dropped.

        The masks of events stay: a crop needs them to know which caption no longer holds.
        """
        count = len(arrays['seconds'])
        no_text = rng.uniform(size=count) < dropout.text
        no_timeline = rng.uniform(size=count) < dropout.timeline
        dropped = {
            'text_mask': arrays['text_mask'] & ~no_text[:, None],
            'timeline_mask': ~no_timeline,
            'loudness_mask': np.zeros(count, bool),
        }
        if 'curve_mask' in arrays:
            dropped['curve_mask'] = arrays['curve_mask'] & ~no_timeline[:, None, None]
        return dropped

    def initial_student(self, source: str | None = None) -> tuple[PyTree, PyTree | None]:
        """The teacher's parameters, or those of a file or a release's student."""
        if source is None:
            return self.teacher_params, None
        return packing.load_initial_weights(source, STUDENT_NAME, self.teacher_params)

    def student_folder(self, source: str) -> pathlib.Path:
        """Where an earlier student lies."""
        return packing.initial_weights_path(source, STUDENT_NAME).parent

    def save_student(
        self,
        workdir: pathlib.Path,
        params: PyTree,
        steps: tuple[int, ...],
        guidance_range: tuple[float, float],
    ) -> pathlib.Path:
        """Writes a release: the student, and the other networks of the teacher's release."""
        folder = workdir / RELEASE
        student = StudentConfig(tuple(steps), tuple(guidance_range))
        config = dataclasses.replace(self._config, student=student, onset_lead_s=0.0)
        packing.save_release(folder, config, {'student': params}, self._folder)
        write_attribution(folder, [workdir], self._folder)
        return folder


def load(folder: str | os.PathLike, dtype: str | None = None) -> ReleaseTeacher:
    """Loads the teacher of a release, by the name of a shipped one or by its folder."""
    return ReleaseTeacher(release.find_release(folder), dtype)
