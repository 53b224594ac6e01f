"""Every mistake of a user gets its line, and no sound is made of networks that are damaged."""

import base64
import dataclasses
import io
import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile

from realaudio_jax import generator as generator_lib
from realaudio_jax.generator import Generator, load
from realaudio_jax.metrics.evaluation.generate import SamplerConfig
from realaudio_jax.program_io import CAPACITIES, Bucket, Diagnostics
from realaudio_jax.release_config import ReleaseConfig
from realaudio_jax.stream import LongCall
from realaudio_jax.timeline import Event, Timeline

SHORT = dict(seconds=0.5, steps=2)  # the shortest sound: one program for most of these tests


@pytest.fixture(scope='module')
def generator(tiny_release):
    return Generator(tiny_release)


@pytest.fixture(scope='module')
def dog(generator):
    return generator.generate('dog', seed=3, **SHORT)


def test_a_sound_and_its_file(dog, tmp_path):
    assert dog.pcm.shape == (24_000, 2) and dog.pcm.dtype == np.int16
    assert dog.seconds == 0.5 and dog.latents.shape == (14, 64)
    assert 0 < dog.peak <= 10 ** (-1 / 20) + 1e-4 and not dog.silent
    assert np.abs(dog.audio).max() <= 1
    dog.save(tmp_path / 'dog.wav')
    pcm, rate = soundfile.read(tmp_path / 'dog.wav', dtype='int16')
    np.testing.assert_array_equal(pcm, dog.pcm)
    assert rate == 48_000


def test_the_same_request_is_the_same_sound(generator, dog):
    count = len(generator.programs)
    again = generator.generate('dog', seed=3.0, **{**SHORT, 'steps': float(SHORT['steps'])})
    np.testing.assert_array_equal(again.pcm, dog.pcm)
    assert len(generator.programs) == count


def test_texts_that_cannot_be_read_or_are_cut_are_warnings(generator):
    with pytest.warns(UserWarning) as caught:
        generator.generate('\u96e8', 'rain \U0001f436@0-0.2', seed=3, **SHORT)
    lines = [str(warning.message) for warning in caught]
    assert len(lines) == 2 and all('write it in English words' in line for line in lines)


def test_products_in_int8_change_little_and_are_rounded_once(generator, dog, tiny_release):
    rounded = generator.in_precision('int8')
    assert generator.in_precision('int8') is rounded is rounded.in_precision('int8')
    assert generator.in_precision(None) is generator and generator.precision == 'float32'
    made = rounded.generate('dog', seed=3, **SHORT)
    error = np.std(made.latents - dog.latents) / np.std(dog.latents)
    assert 1e-5 < error < 0.1
    loaded = load(tiny_release, precision='int8', compilation_cache=False)
    np.testing.assert_array_equal(loaded.generate('dog', seed=3, **SHORT).pcm, made.pcm)
    with pytest.raises(ValueError, match='load the release anew'):
        loaded.in_precision('float32')
    exact = loaded.with_networks(generator.networks, generator.params)
    assert loaded.precision == 'int8' and exact.precision == 'float32'
    with pytest.raises(ValueError, match="no precision 'int4'; choose float32 or int8"):
        load(tiny_release, precision='int4')
    with pytest.raises(ValueError, match="no precision 'int4'; choose float32 or int8"):
        exact.in_precision('int4')
    marked = generator.with_watermark(None)
    assert marked.in_precision('int8').mark is None


def test_the_student_may_have_a_scale_of_its_own(generator, dog):
    own = generator.with_networks(generator.networks, generator.params)
    student = dataclasses.replace(own.config.student, guidance=3.0)
    own.config = dataclasses.replace(own.config, student=student)
    assert (own.default_guidance_scale('student'), own.default_guidance_scale('teacher')) == (
        3.0,
        2.0,
    )
    assert SamplerConfig('student').columns(own)['guidance'] == 3.0
    assert SamplerConfig('teacher').columns(own)['guidance'] == 2.0
    assert SamplerConfig('student', guidance=1.5).columns(own)['guidance'] == 1.5
    said, asked = (
        maker.generate('dog', seed=3, guidance_scale=scale, **SHORT).latents
        for maker, scale in ((own, None), (generator, 3.0))
    )
    np.testing.assert_array_equal(said, asked)
    assert np.abs(said - dog.latents).max() > 1e-4


def test_a_release_names_the_grid_of_its_student(own_release, dog):
    config = ReleaseConfig.read(own_release)
    student = dataclasses.replace(config.student, grid_powers={'2': 2.0})
    dataclasses.replace(config, student=student).write(own_release)
    own = Generator(own_release)
    assert own.networks.grid_powers == ((2, 2.0),)
    assert np.abs(own.generate('dog', seed=3, **SHORT).latents - dog.latents).max() > 1e-4


@pytest.mark.parametrize(
    'change',
    [
        {'seed': 4},
        {'prompt': 'rain'},
        {'prompt': ''},
        {'events': 'bark@0.1-0.3'},
        {'guidance_scale': 4.0},
        {'seconds': 0.6},
        {'loudness_db': np.full(12, -30.0)},
    ],
    ids=lambda change: ' '.join(change),
)
def test_everything_asked_is_heard(generator, dog, change):
    count = len(generator.programs)
    other = generator.generate(**{'prompt': 'dog', 'seed': 3, **SHORT, **change})
    assert np.abs(other.latents[:14] - dog.latents).max() > 1e-4
    assert len(generator.programs) == count  # none of it is a constant of the program
    if 'seconds' in change:
        assert other.pcm.shape == (28_800, 2)


class FakePrograms:
    """Programs that return the seed of an item as its sound; those of `silent` seeds are silent."""

    params = {}

    def __init__(self, silent=()):
        self.calls, self.silent = [], silent

    def __call__(self, bucket, request, init):
        self.calls.append((bucket, request, init))
        pcm = np.zeros((bucket.batch, 1920 * bucket.length, 2), np.int16)
        pcm += request.seed[:, None, None].astype(np.int16)
        levels = np.full(bucket.batch, 0.5, np.float32)
        silent = np.isin(request.seed, self.silent)
        diagnostics = Diagnostics(finite=levels > 0, peak=levels, lufs=-60 * levels, silent=silent)
        return pcm, diagnostics, np.zeros((bucket.batch, bucket.length, 64), np.float32)


@pytest.fixture
def fake(generator, monkeypatch):
    def make(*silent):
        programs = FakePrograms(silent)
        monkeypatch.setattr(generator, 'programs', programs)
        return programs

    return make


def test_a_batch_has_a_seed_and_a_sound_for_each(generator, fake):
    calls = fake().calls
    for seed, want in ((7, [7, 8, 9]), ([9, 3, 5], [9, 3, 5])):
        sounds = generator.generate(['dog', 'rain', 'sea'], seed=seed, **SHORT)
        assert [sound.pcm.max() for sound in sounds] == [sound.seed for sound in sounds] == want
        assert all(sound.pcm.shape == (24_000, 2) for sound in sounds)
    wanted = Bucket(batch=4, length=26, steps=2, sample_rate=48_000, capacity=CAPACITIES[0])
    assert {bucket for bucket, _, _ in calls} == {wanted}  # filled up to a power of two
    assert len(generator.generate(['dog'], **SHORT)) == 1 and calls[-1][0].batch == 1
    for seconds in (1.3, 1.9, 2.0):
        generator.generate('dog', seconds=seconds, steps=2)
        assert calls[-1][0].length == 50
    assert generator.generate('dog', seconds=5.1, steps=2).pcm.shape == (244_800, 2)
    assert calls[-1][0].length == 250


def test_each_prompt_of_a_batch_may_have_its_own_timeline(generator, fake):
    calls = fake().calls

    def events(given, count=2):
        generator.generate(['dog', 'rain'][:count], given, **SHORT)
        request = calls[-1][1]
        return [request.onset_s[i][mask].tolist() for i, mask in enumerate(request.event_mask)]

    shift = np.float32(generator.config.onset_lead_s)
    assert shift == 0
    first, second = ('bark', 0.1, 0.3), ('bark', 0.2, 0.4)
    both = [np.float32([0.1, 0.2]).tolist()] * 2
    apart = [np.float32([0.1]).tolist(), np.float32([0.2]).tolist()]
    for one in ('bark@0.1-0.3,0.2-0.4', [first, second], [list(first), list(second)]):
        assert events(one) == both
    for each in (['bark@0.1-0.3', 'bark@0.2-0.4'], [[first], [Event(*second)]]):
        assert events(each) == apart
    assert events(['', [second]]) == [[], apart[1]]
    with pytest.raises(ValueError, match='3 timelines for 2 prompts'):
        events(['bark@0.1-0.3'] * 3)


def test_what_the_level_is_brought_to(generator, fake):
    calls, init = fake().calls, np.zeros((9, 2))

    def target(**kwargs):
        generator.generate('dog', **SHORT, **kwargs)
        return calls[-1][1].target_lufs.tolist()

    assert target() == [-23] and target(loudness=-16.0) == [-16]
    stated = ({'init_audio': init}, {'loudness_db': np.full(12, -30.0)}, {'loudness': None})
    assert all(np.isnan(target(**arguments)) for arguments in stated)
    assert target(init_audio=init, loudness=-20.0) == [-20]
    curves = ['', {'events': [], 'loudness_db': [-30.0] * 12}]
    generator.generate(['a', 'b'], curves, **SHORT)
    np.testing.assert_array_equal(calls[-1][1].target_lufs, [-23, np.nan])


def test_silence_is_made_again_with_a_derived_seed_and_said(generator, fake):
    seeds = [3, *(generator_lib.derived_seed(3, i) for i in range(1, 5))]
    assert len(set(seeds)) == 5 and generator_lib.derived_seed(4, 1) not in seeds
    fake(*seeds[:2])
    with pytest.warns(UserWarning, match="'glass' came out silent with seed") as said:
        first, second = generator.generate(['glass', 'rain'], seed=[3, 8], **SHORT)
    assert (first.seed, second.seed) == (seeds[2], 8) and not first.silent
    pairs = [re.findall(r'seed (\d+)', str(warning.message)) for warning in said]
    assert pairs == [[str(a), str(b)] for a, b in zip(seeds[:2], seeds[1:3], strict=True)]
    fake(*seeds)
    with (
        pytest.warns(UserWarning),
        pytest.raises(ValueError, match="'glass' stays silent with 5 seeds"),
    ):
        generator.generate('glass', seed=3, **SHORT)
    fake(3)
    init = {'init_audio': np.zeros((24_000, 2)), 'strength': 0.5}
    curve = {'loudness_db': np.full(12, -70.0)}
    for arguments, remedy in (
        ({'loudness': None}, 'loudness on'),
        (init, 'strength'),
        (curve, 'curve'),
    ):
        with pytest.warns(UserWarning) as said:
            assert generator.generate('glass', seed=3, **arguments, **SHORT).silent
        (line,) = (str(warning.message) for warning in said)
        assert line.startswith("'glass' is silent (-30 LUFS); ") and remedy in line


def test_a_call_is_prepared_without_being_run(generator, dog, monkeypatch):
    count, compiled = len(generator.programs), []
    monkeypatch.setattr(generator.programs, 'get', compiled.append)
    prepared = generator.prepare('dog', seed=3, **SHORT)
    assert compiled == [prepared.bucket] and prepared.bucket in generator.programs
    generator.prepare(['dog', 'rain'], 'bark@0.1-0.3', seconds=7.0, steps=1, model='teacher')
    assert (compiled[1].batch, compiled[1].length, compiled[1].student) == (2, 250, False)
    with pytest.raises(ValueError, match='seconds is 90000'):
        generator.prepare(seconds=90_000.0)
    assert isinstance(generator.prepare('rain', None, 40.0).call, LongCall)
    for sampler in ('euler', 'dpm_solver_pp_2m'):
        with pytest.raises(ValueError, match=f'the student is not sampled with {sampler!r}'):
            generator.prepare('rain', None, 40.0, sampler=sampler)
    for name in ('schedule', 'sampel_rate'):
        with pytest.raises(TypeError, match=f'no argument {name!r}; it has prompt, events, .*loop'):
            generator.prepare('rain', None, 40.0, **{name: 5})
    assert isinstance(generator.prepare('rain', loop=True).call, LongCall)
    assert len(compiled) == 2
    monkeypatch.undo()
    np.testing.assert_array_equal(generator.run(prepared).pcm, dog.pcm)
    assert len(generator.programs) == count


def test_a_sound_and_a_generator_show_themselves(generator, dog):
    assert repr(dog).startswith('Sound(0.5 s at 48000 Hz, peak 0.') and len(repr(dog)) < 100
    assert 'seed 3' in repr(dog) and f'{dog.lufs:.1f} LUFS' in repr(dog)
    assert repr(generator).startswith("Generator('tiny', ") and '1, 2, 4, 8 steps' in repr(
        generator
    )
    data = re.search(r'<audio controls src="data:audio/wav;base64,([^"]*)">', dog._repr_html_())[1]
    pcm, rate = soundfile.read(io.BytesIO(base64.b64decode(data)), dtype='int16')
    np.testing.assert_array_equal(pcm, dog.pcm)
    assert rate == 48_000


def test_init_audio_of_integers_is_scaled(generator, fake):
    calls = fake().calls
    pcm = np.random.default_rng(0).integers(-9_000, 9_000, (999, 2)).astype(np.int16)
    generator.generate('dog', init_audio=pcm, keep=[(0.0, 0.3)], **SHORT)
    init = calls[-1][2]
    np.testing.assert_allclose(init.audio[0, :999], pcm / 32768, atol=1e-7)
    assert init.keep[0, 0] == 1 and init.keep[0, 14_390] < 0.01 and not init.keep[0, 14_400:].any()


def test_init_audio_that_is_changed_or_does_not_fit_is_said(generator, fake):
    calls = fake().calls
    audio = np.full((30_000, 2), 0.25, np.float32)

    def lines(audio, **arguments):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter('always')
            generator.generate('dog', init_audio=audio, **{'strength': 0.5, **arguments}, **SHORT)
        return [str(warning.message) for warning in said]

    assert lines(audio[:24_000]) == []
    assert 'silence follows' in lines(audio[:999])[0]
    (line,) = lines(audio)
    assert line.endswith('lasts 0.62 s; all after its first 0.5 s is left out')
    assert not calls[-1][2].audio[:, 24_000:].any()
    assert lines(8 * audio[:24_000]) == ['init audio: converted peak above 1 scaled to 1']
    assert np.abs(calls[-1][2].audio).max() == 1.0
    assert 'counts for nothing' in lines(audio[:24_000], strength=1.0)[0]


def test_whole_numbers_may_be_written_as_floats(generator, dog):
    again = generator.generate('dog', **{**SHORT, 'steps': float(SHORT['steps'])}, sample_rate=48e3)
    assert type(again.sample_rate) is int


def replaced(generator, monkeypatch, name, change):
    """Other parameters under the same compiled programs."""
    params = jax.tree.map(lambda x: x, generator.params)
    params[name] = jax.tree_util.tree_map_with_path(change, params[name])
    monkeypatch.setattr(generator.programs, 'params', params)


def test_damaged_networks_make_no_sound_and_no_file(generator, dog, monkeypatch, tmp_path):
    replaced(generator, monkeypatch, 'student', lambda path, x: x * jnp.nan)
    with pytest.raises(FloatingPointError, match="'dog' is not finite"):
        generator.generate('dog', **SHORT).save(tmp_path / 'dog.wav')
    assert not list(tmp_path.iterdir())


def test_a_silent_sound_says_so(generator, dog, monkeypatch):
    """A decoder whose levels are at their lowest."""

    def quiet(path, x):
        name = jax.tree_util.keystr(path)
        if name.endswith("['decoder']['mean']"):
            return jnp.full_like(x, -100.0)
        if name.endswith(("['decoder']['kernel']", "['decoder']['residual']")):
            return x * 0
        return x

    replaced(generator, monkeypatch, 'autoencoder', quiet)
    sound = generator.generate('dog', loudness=None, **SHORT)
    assert sound.silent and sound.peak < 1e-3


def test_the_teacher_at_the_other_rate_from_init_audio(generator):
    """Kept samples are those of the init audio, kept latents its own; the rest is made."""
    rng = np.random.default_rng(0)
    init = (0.1 * rng.normal(size=(22_050, 2))).astype(np.float32)
    settings = dict(model='teacher', steps=2, seconds=0.5, sample_rate=44_100, init_audio=init)
    half = generator.generate('dog', keep=[(0.0, 0.24)], **settings)
    assert half.pcm.shape == (22_050, 2) and half.sample_rate == 44_100
    kept = slice(0, 22_050 // 5)  # the limiter may reach into the last of what is kept
    np.testing.assert_allclose(half.audio[kept], init[kept], atol=1 / 32768)
    whole = generator.generate('rain', seed=1, keep=[(0.0, 0.5)], **settings)
    np.testing.assert_allclose(half.latents[:6], whole.latents[:6], atol=1e-4)
    assert np.abs(half.latents[6:] - whole.latents[6:]).max() > 0.1
    close = generator.generate('rain', seed=1, strength=1e-4, **settings)
    np.testing.assert_allclose(close.latents[:12], whole.latents[:12], atol=0.02)


def test_load_names_what_is_there(tmp_path, monkeypatch):
    monkeypatch.setattr(generator_lib, 'enable_compilation_cache', lambda: None)
    with pytest.raises(FileNotFoundError) as caught:
        load('fowley')
    assert 'fowley' in str(caught.value) and 'foley' in str(caught.value).replace('fowley', '')
    with pytest.raises(FileNotFoundError):
        load(tmp_path)
    for mark in ('public', b'x' * 16, 0):
        with pytest.raises(ValueError, match=r'the mark is .*; give a watermark\.Watermark'):
            generator_lib._checked_mark(mark)


def test_timelines_may_differ_between_the_items_of_a_request(generator):
    lists = [Timeline.parse('bark@0.1-0.3', 0.5), Timeline.parse(None, 0.5)]
    asked = generator.request(['a', 'b'], lists, 0.5, [0, 1], 2.0, 26)
    np.testing.assert_array_equal(asked.event_mask.sum(axis=1), [1, 0])
    np.testing.assert_allclose(asked.onset_s[:, 0], [0.1, 0.0])
    assert asked.event_token_mask[0, 0].sum() >= 1 and asked.token_mask.any()
    assert not generator.request([' '], lists[1], 0.5, [0], 2.0, 26).token_mask.any()
    assert np.isnan(asked.target_lufs).all()  # figures are taken at the level that was made
