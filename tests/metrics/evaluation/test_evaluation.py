import dataclasses
import time
from unittest.mock import create_autospec

import jax.numpy as jnp
import numpy as np
import pytest

from realaudio_jax.data.scene_encoder import frame_loudness
from realaudio_jax.data.scenes import make_scenes
from realaudio_jax.data.sources import FoleySource
from realaudio_jax.generator import Generator
from realaudio_jax.metrics import benchmarking
from realaudio_jax.metrics.benchmarking import Stages, latency_rows, stages
from realaudio_jax.metrics.embedders.tower import load_tower
from realaudio_jax.metrics.evaluation.adherence import (
    class_rows,
    loudness_correlation,
    loudness_rows,
)
from realaudio_jax.metrics.evaluation.generate import (
    SamplerConfig,
    SamplerSet,
    generate_scenes,
    one_duration,
)
from realaudio_jax.metrics.evaluation.precision import STEP_COSINE, step_cosine_row
from realaudio_jax.metrics.evaluation.release import evaluate_release
from realaudio_jax.metrics.evaluation.scenes import held_out_scenes, latent_errors
from realaudio_jax.metrics.probe import LinearProbe
from realaudio_jax.metrics.rows import REAL, RECONSTRUCTION
from realaudio_jax.report.tables import wide_table
from realaudio_jax.timeline import Timeline

STUDENT = SamplerConfig('student', 4)


def pick(rows, name, model):
    found = [row for row in rows if row['name'] == name and row['model'] == model]
    assert len(found) == 1
    return found[0]


def test_every_figure_stands_beside_its_floor_and_ceiling(rows):
    for model in ('student', 'teacher', REAL, RECONSTRUCTION):
        distance = pick(rows, 'Frechet distance', model)
        assert distance['low'] <= distance['value'] <= distance['high']
        assert 'audio tower' in distance['embedder']
        assert -1 <= pick(rows, 'CLAP score', model)['value'] <= 1
        assert 'audio tower' in pick(rows, 'kernel distance', model)['embedder']
        for name in ('onsets missed', 'offsets within 250 ms', 'onset F1, 200 ms'):
            figure = pick(rows, name, model)
            assert figure['n'] > 0 and 0 <= figure['low'] <= figure['high'] <= 100
    table = wide_table(rows)
    assert 'Frechet distance, audio tower' in table and 'onset error, median (ms)' in table


def test_settings_are_columns_and_evaluations_are_counted(rows):
    assert pick(rows, 'NFE', 'student')['value'] == 4
    nfe = pick(rows, 'NFE', 'teacher')
    assert nfe['value'] == 4 and nfe['steps'] == 2 and nfe['guidance'] == 1.5
    assert pick(rows, 'NFE', 'student')['guidance'] == 2.0


def test_the_reference_agrees_with_itself(rows):
    np.testing.assert_allclose(pick(rows, 'latent cosine', 'teacher')['value'], 1.0)
    np.testing.assert_allclose(pick(rows, 'embedding cosine', 'teacher')['value'], 1.0)
    for name in ('latent cosine', 'embedding cosine'):
        row = pick(rows, name, 'student')
        assert row['value'] < 0.9999 and row['to'] == 'teacher 2'


def test_latents_are_as_far_as_they_are():
    """0 from themselves, 1 from the mean, the square root of 2 from something unrelated."""
    reference, other = np.random.default_rng(0).normal(3.0, 2.0, (2, 40, 26, 5))
    mean = np.broadcast_to(reference.mean((0, 1)), reference.shape)
    half = reference + 0.5 * (mean - reference)
    for latents, expected in ((reference, 0.0), (half, 0.5), (mean, 1.0), (other, 2**0.5)):
        np.testing.assert_allclose(latent_errors(latents, reference).mean(), expected, atol=0.03)
    assert latent_errors(other, reference).shape == (40,)


def test_differences_are_of_the_same_scenes(rows):
    """Each is the difference of the two figures, and names both sides."""
    found = {row['figure']: row for row in rows if 'against' in row}
    for figure, row in found.items():
        first, second = (pick(rows, figure, model) for model in ('student', 'teacher'))
        np.testing.assert_allclose(row['value'], first['value'] - second['value'], atol=1e-4)
        assert (row['model'], row['steps'], row['against']) == ('student', 4, 'teacher, 2 steps')
        assert row['low'] <= row['value'] <= row['high'] and row['unit'] == first['unit']
    assert {'latent error', 'kernel distance', 'class found', 'onset error, median'} <= set(found)
    assert pick(rows, 'latent error', 'teacher')['value'] == 0


def test_a_distance_from_few_clips_says_so(rows):
    for name in ('Frechet distance', 'kernel distance'):
        assert '5 clips: from fewer than' in pick(rows, name, 'student')['note']


def test_a_teacher_of_as_many_evaluations_has_half_the_steps():
    compared = SamplerSet.with_equal_teachers([1, 2, 4, 8], [SamplerConfig('teacher', 4)])
    assert [sampler.steps for sampler in compared.samplers] == [1, 2, 4, 8, 2, 4]  # 4 once
    assert [(a.steps, b.steps) for a, b in compared.equal_pairs] == [(4, 2), (8, 4)]
    assert all(a.nfe == b.nfe and b.model == 'teacher' for a, b in compared.equal_pairs)
    given = SamplerSet.of_steps([8, 1], [50, 4])
    assert [(s.model, s.steps) for s in given.samplers] == [
        ('student', 8),
        ('student', 1),
        ('teacher', 50),
        ('teacher', 4),
    ]
    assert given.equal_pairs == [(SamplerConfig('student', 8), SamplerConfig('teacher', 4))]
    assert SamplerSet.of_steps([8], [50]).equal_pairs == []


def test_samples_of_one_prompt_differ(rows):
    row = pick(rows, 'diversity of one prompt', 'student')
    assert 0 < row['value'] <= 2 and row['n'] == 1


def test_a_sound_depends_on_its_scene_and_seed_alone(generator, scenes):
    whole = generate_scenes(generator, scenes, STUDENT, seed=7, batch=4)
    later = generate_scenes(generator, scenes[1:], STUDENT, seed=8, batch=4)
    assert len(whole.sounds) == 5 and whole.sounds[4].shape == (48_000, 2)
    assert whole.latents.shape == (5, 26, 64)
    assert np.abs(whole.sounds[4].astype(int) - later.sounds[3]).max() <= 1
    other = generate_scenes(generator, scenes[1:], STUDENT, seed=9, batch=4)
    assert np.abs(whole.latents[4] - other.latents[3]).max() > 1e-3


def test_a_sampler_that_the_release_does_not_have_is_refused(stub, scenes):
    for sampler, part in (
        (SamplerConfig('student', 3), 'the student has no 3 steps'),
        (SamplerConfig('teacher', 0), 'steps is 0'),
        (SamplerConfig('teacher', 2, 'ping_pong'), 'not sampled with'),
        (SamplerConfig('student', 4, guidance=5.0), 'guidance_scale is 5; choose 1 to 4'),
    ):
        with pytest.raises(ValueError, match=part):
            generate_scenes(stub, scenes[:1], sampler)


def test_latency_is_measured_at_batch_one(stub, rows):
    row = pick(rows, 'time per sound', 'student')
    assert row['unit'] == 'ms' and row['value'] > 0 and row['n'] == 2
    assert row['value'] <= row['p95'] <= row['p99']
    assert any(bucket.batch == 1 for bucket in stub.programs.buckets)


def test_the_cost_of_a_sound_is_split_into_its_stages(stub, scenes, monkeypatch):
    """The stages themselves are those of the benchmark, whose tests compile them."""
    made = Stages(
        text=lambda: 'conditioning',
        denoise=lambda c, steps: (c, steps),
        decode=lambda latents: jnp.zeros(8) if latents == ('conditioning', 4) else None,
        encode=lambda: None,
        build=lambda: lambda: time.sleep(0.02),
    )
    monkeypatch.setattr(benchmarking, 'stages', create_autospec(stages, return_value=made))
    rows = {row['name']: row for row in latency_rows(stub, scenes[0], STUDENT, repeats=2)}
    for stage in ('text', 'denoise', 'decode', 'encode', 'transfer'):
        assert rows[f'time of {stage}']['value'] > 0 and rows[f'time of {stage}']['n'] == 2
    assert rows['time of transfer']['value'] < rows['time per sound']['value']
    assert rows['time per sound']['value'] >= 20 and rows['time per sound']['steps'] == 4
    assert rows['first call']['value'] > 0 and rows['peak memory, host']['value'] > 50


@pytest.fixture
def requests(stub, monkeypatch):
    """What the generator is asked for: (prompts, timelines, seconds) of every call."""
    seen, request = [], stub.request

    def spy(prompts, timelines, seconds, *rest):
        seen.append((prompts, timelines, seconds))
        return request(prompts, timelines, seconds, *rest)

    monkeypatch.setattr(stub, 'request', spy)
    return seen


def test_a_class_is_asked_for_by_its_name_alone(stub, requests):
    embedder = load_tower(stub.folder).embedder
    nothing = np.zeros(embedder.dimension)
    always_bell = LinearProbe(
        ('bell', 'rain'),
        np.zeros((embedder.dimension, 2)),
        np.array([1.0, 0.0]),
        nothing,
        nothing + 1,
        accuracy=0.9,
        clips=20,
        groups=5,
    )
    real, found = class_rows(stub, [STUDENT], always_bell, embedder, per_class=3, seconds=1.0)
    assert real['value'] == pytest.approx(90) and (real['model'], real['n']) == (REAL, 20)
    assert (found['value'], found['n'], found['model']) == (50, 6, 'student')
    ((prompts, timelines, seconds),) = requests
    assert prompts == ['bell'] * 3 + ['rain'] * 3 and seconds == 1  # no more than are asked for
    assert all(timeline == Timeline() for timeline in timelines)


def test_the_loudness_of_a_scene_is_asked_for_and_compared(stub, scenes, requests):
    real, found = loudness_rows(stub, scenes, [STUDENT])
    assert real['value'] > 0.8 and real['model'] == REAL
    ((prompts, timelines, _),) = requests
    sounds = generate_scenes(stub, scenes, STUDENT).floats()
    correlations = [
        loudness_correlation(frame_loudness(scene.audio), sound, 48_000)
        for scene, sound in zip(scenes, sounds, strict=True)
    ]
    assert found['value'] == pytest.approx(np.mean(correlations))
    assert prompts == [scene.caption for scene in scenes]
    for timeline, scene in zip(timelines, scenes, strict=True):
        assert timeline.events == scene.events
        np.testing.assert_array_equal(timeline.loudness_db, frame_loudness(scene.audio))


def test_mixed_durations_and_single_scenes_are_refused(generator, scenes):
    longer = list(make_scenes(0, FoleySource(), 1, 1.5))
    with pytest.raises(ValueError, match='one duration'):
        one_duration(scenes + longer)
    with pytest.raises(ValueError, match='2 or more'):
        evaluate_release(generator, scenes[:1], [STUDENT])


def test_progress_ends_when_all_is_judged(rows, counted):
    """Not when the sounds are made: judging them takes as long."""
    last = {label: counts[-1] for label, counts in counted.items()}
    assert last.pop('differences') == (1, 1) and len(last) == 4
    assert set(last.values()) == {(5, 5)}
    for label in ('teacher 2, guidance 1.5', 'student 4'):
        assert [done for done, _ in counted[label]] == [3, 4, 5]


def test_two_disjoint_sets_of_scenes():
    scenes, others = held_out_scenes(None, 2, 1.0, seed=3)
    assert len(scenes) == len(others) == 2
    again, _ = held_out_scenes(None, 2, 1.0, seed=3)
    np.testing.assert_array_equal(scenes[1].audio, again[1].audio)
    assert not any(np.array_equal(a.audio, b.audio) for a in scenes for b in others)


def test_what_rounding_changes_at_each_step(tiny_release):
    """Nothing where both are the same; with int8 little, and less than another scale does."""
    generator = Generator(tiny_release)
    scenes = list(make_scenes(0, FoleySource(), 3, 1.0))
    student = SamplerConfig('student', 2)

    def cosine(sampler):
        row = step_cosine_row(generator, scenes, sampler, student, batch=2)
        assert row['name'] == STEP_COSINE and row['n'] == 3 and row['steps'] == 2
        return row['value']

    assert cosine(student) == pytest.approx(1.0, abs=1e-6)
    rounded = dataclasses.replace(student, precision='int8')
    assert 0.98 < cosine(rounded) < 1 - 1e-7
    row = benchmarking.in_turn_row(generator, scenes[0], rounded, student, repeats=3)
    assert row['against'] == 'student, 2 steps' and row['precision'] == 'int8'
    assert row['low'] <= row['value'] <= row['high'] and row['unit'] == 'ms'
