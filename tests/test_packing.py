"""A release written and read again, and what is said when it cannot be."""

import errno
import shutil

import jax
import numpy as np
import pytest
import tiny
from safetensors.numpy import save_file

from realaudio_jax import low_rank, packing, release
from realaudio_jax.data.frozen_encoders import load_frozen_encoders
from realaudio_jax.generator import Generator
from realaudio_jax.models.autoencoder import Autoencoder
from realaudio_jax.models.denoiser import Denoiser
from realaudio_jax.packing import save_params, save_release
from realaudio_jax.release import (
    RELEASES,
    autoencoder_template,
    denoiser_template,
    empty_conditioning,
    find_release,
    load_denoiser_and_adapter,
    load_params,
)
from realaudio_jax.release_config import ReleaseConfig
from realaudio_jax.typing import LATENT_CHANNELS, MAX_EVENTS, MAX_TEXT_TOKENS

DENOISER = Denoiser(**tiny.CONFIG['denoiser'])


def test_releases_are_found_by_name_and_by_folder(tiny_release):
    assert find_release('foley') == RELEASES / 'foley'
    assert find_release(tiny_release) == find_release(str(tiny_release)) == tiny_release


def test_a_release_that_is_not_there(tmp_path):
    for name in ('fowley', tmp_path):
        with pytest.raises(FileNotFoundError) as caught:
            find_release(name)
        text = str(caught.value)
        assert str(name) in text and '(foley)' in text and '\n' not in text


def test_empty_conditioning_asks_for_nothing():
    c = empty_conditioning(3, 8)
    assert c.text_mask.shape == (3, MAX_TEXT_TOKENS) and c.event_mask.shape == (3, MAX_EVENTS)
    for mask in (c.text_mask, c.event_mask, c.loudness_mask, c.init_mask):
        assert not mask.any()
    np.testing.assert_allclose(c.seconds, 8 / 25)


def test_a_saved_release_holds_what_was_given_and_the_rest_of_its_base(tiny_release, tmp_path):
    student = tiny.random_params(denoiser_template(DENOISER), 9)
    save_release(
        tmp_path / 'new', {**tiny.CONFIG, 'name': 'new'}, {'student': student}, tiny_release
    )
    got = load_params(tmp_path / 'new' / 'student.safetensors', denoiser_template(DENOISER))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6), got, student)
    for name in ('teacher', 'autoencoder', 'text_encoder'):
        path = f'{name}.safetensors'
        assert (tmp_path / 'new' / path).read_bytes() == (tiny_release / path).read_bytes()
    assert (tmp_path / 'new' / 'NOTICE-text-encoder.txt').is_file()
    assert ReleaseConfig.read(tmp_path / 'new').name == 'new'
    assert not list((tmp_path / 'new').glob('.partial*'))


def test_moments_are_copied_with_the_networks_they_are_of(tiny_release, tmp_path):
    base, ones = tmp_path / 'base', np.ones(LATENT_CHANNELS, np.float32)
    shutil.copytree(tiny_release, base)
    found = {str(n): {'gain': n * ones, 'shift': -n * ones} for n in (1, 2, 4, 8)}
    save_params(base / release.MOMENTS_NAME, found)
    jax.tree.map(np.testing.assert_array_equal, release.load_moments(base), found)
    params = {
        'student': tiny.random_params(denoiser_template(DENOISER), 9),
        'teacher': tiny.random_params(denoiser_template(DENOISER), 8),
        'autoencoder': tiny.random_params(
            autoencoder_template(Autoencoder(**tiny.CONFIG['autoencoder'])), 7
        ),
    }
    for name, kept in (('autoencoder', True), ('student', False), ('teacher', False)):
        save_release(tmp_path / name, tiny.CONFIG, {name: params[name]}, base)
        assert bool(release.load_moments(tmp_path / name)) is kept
    save_release(base, tiny.CONFIG, {'student': params['student']}, base)
    assert not release.load_moments(base)


def test_moments_are_of_every_count_of_steps(tiny_release, tmp_path):
    shutil.copytree(tiny_release, tmp_path / 'new')
    ones = np.ones(LATENT_CHANNELS, np.float32)
    save_params(tmp_path / 'new' / release.MOMENTS_NAME, {'4': {'gain': ones, 'shift': ones}})
    with pytest.raises(ValueError, match='missing 1/gain'):
        Generator(tmp_path / 'new')


def test_a_release_may_be_its_own_base(tiny_release, tmp_path):
    shutil.copytree(tiny_release, tmp_path / 'own')
    save_release(tmp_path / 'own', {**tiny.CONFIG, 'name': 'own'}, {}, tmp_path / 'own')
    for path in tiny_release.glob('*.safetensors'):
        assert (tmp_path / 'own' / path.name).read_bytes() == path.read_bytes()


def test_a_full_disk_names_the_file(tiny_release, tmp_path, monkeypatch):
    def full(source, target):
        target.write_bytes(b'half')
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(packing.shutil, 'copyfile', full)
    with pytest.raises(OSError, match='cannot write .*: No space left on device; free some space'):
        save_release(tmp_path / 'new', tiny.CONFIG, {}, tiny_release)
    assert not list((tmp_path / 'new').iterdir())


def test_a_front_end_may_take_another_autoencoder(tiny_release, tmp_path):
    model = Autoencoder(**tiny.CONFIG['autoencoder'])
    other = tiny.random_params(autoencoder_template(model), 7)
    save_release(tmp_path, tiny.CONFIG, {'autoencoder': other}, tiny_release)
    path = tmp_path / 'autoencoder.safetensors'
    prints = {
        load_frozen_encoders(tiny_release).fingerprint(),
        load_frozen_encoders(tiny_release, path).fingerprint(),
    }
    assert len(prints) == 2 and load_frozen_encoders(tmp_path).fingerprint() in prints
    with pytest.raises(FileNotFoundError, match='gone'):
        load_frozen_encoders(tiny_release, tmp_path / 'gone.safetensors')


def with_adapter(tiny_release, folder):
    """A release whose student has an adapter, and the student's parameters."""
    shapes = denoiser_template(DENOISER)
    base = load_params(tiny_release / 'student.safetensors', shapes)
    adapter = low_rank.init(jax.random.key(0), base, 1)
    adapter = jax.tree.map(lambda x: x + 0.1, adapter)
    save_release(folder, tiny.CONFIG, {}, tiny_release)
    save_params(folder / 'student_adapter.safetensors', adapter)
    return low_rank.merge(base, adapter)


def test_a_student_is_its_file_and_the_adapter_beside_it(tiny_release, tmp_path):
    student = with_adapter(tiny_release, tmp_path)
    params = Generator(tmp_path).params
    jax.tree.map(np.testing.assert_array_equal, params['student'], student)
    plain = Generator(tiny_release).params
    jax.tree.map(np.testing.assert_array_equal, params['teacher'], plain['teacher'])
    moved = jax.tree.map(lambda a, b: float(abs(a - b).max()), plain['student'], student)
    assert max(jax.tree.leaves(moved)) > 0.01


def test_an_adapter_whose_names_stand_in_one_another_is_one_line(tiny_release, tmp_path):
    with_adapter(tiny_release, tmp_path)
    path = tmp_path / 'student_adapter.safetensors'
    tensors = release.read_tensors(path)
    name = next(iter(tensors))
    save_file(tensors | {f'{name}/more': np.ones((1, 1), np.float32)}, path)
    shapes = denoiser_template(DENOISER)
    with pytest.raises(ValueError, match=f'{name} is an array and holds others') as caught:
        load_denoiser_and_adapter(tmp_path, 'student.safetensors', shapes)
    assert '\n' not in str(caught.value)


def test_a_student_has_its_share_of_the_adapter_of_the_teacher(tiny_release, tmp_path):
    student = with_adapter(tiny_release, tmp_path)
    teacher = Generator(tiny_release).params['teacher']
    adapter = low_rank.init(jax.random.key(1), teacher, 2)
    adapter = jax.tree.map(lambda x: x + 0.1, adapter)
    config = tiny.CONFIG | {'student': tiny.CONFIG['student'] | {'teacher_adapter': 0.5}}
    save_release(tmp_path, config, {}, tiny_release)
    with pytest.raises(FileNotFoundError, match='teacher_adapter.safetensors'):
        Generator(tmp_path)
    save_params(tmp_path / 'teacher_adapter.safetensors', adapter)
    params = Generator(tmp_path).params
    half = jax.tree.map(lambda x: x * 0.5**0.5, adapter)
    wanted = low_rank.add(student, half), low_rank.add(teacher, adapter)
    for name, whole in zip(('student', 'teacher'), wanted, strict=True):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), params[name], whole)
    apart = low_rank.merge(*load_denoiser_and_adapter(tmp_path, 'student.safetensors', student))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), apart, wanted[0])


def test_an_adapter_is_copied_with_its_network_and_goes_with_it(tiny_release, tmp_path):
    student = with_adapter(tiny_release, tmp_path / 'one')
    save_release(tmp_path / 'two', tiny.CONFIG, {}, tmp_path / 'one')
    jax.tree.map(
        np.testing.assert_array_equal, Generator(tmp_path / 'two').params['student'], student
    )
    other = tiny.random_params(denoiser_template(DENOISER), 9)
    for folder in ('two', 'three'):  # over a release that has one, and from one that has
        save_release(tmp_path / folder, tiny.CONFIG, {'student': other}, tmp_path / 'one')
        assert not (tmp_path / folder / 'student_adapter.safetensors').exists()


def test_an_adapter_of_another_network_is_named(tiny_release, tmp_path):
    with_adapter(tiny_release, tmp_path)
    save_params(tmp_path / 'student_adapter.safetensors', {'gone': {'kernel': {'up': np.ones(3)}}})
    with pytest.raises(
        ValueError, match='student_adapter.safetensors: .*does not fit.*gone/kernel'
    ):
        Generator(tmp_path)


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize(
    ('damage', 'line'),
    [
        (lambda f: (f / 'student_adapter.safetensors').unlink(), 'student_adapter.* is missing'),
        (lambda f: (f / 'student_moments.safetensors').unlink(), 'student_moments.* is missing'),
        (
            lambda f: shutil.copy(f / 'teacher.safetensors', f / 'student.safetensors'),
            'student.safetensors is damaged or another file',
        ),
        (lambda f: flip(f / 'tokenizer.json'), 'tokenizer.json is damaged or another file'),
        (lambda f: flip(f / 'config.json'), 'config.json is damaged or another file'),
        (lambda f: flip(f / 'SHA256SUMS'), 'SHA256SUMS is damaged|is damaged|is missing'),
        (
            lambda f: shutil.copy(
                f / 'student_adapter.safetensors', f / 'teacher_adapter.safetensors'
            ),
            'teacher_adapter.safetensors is not listed in SHA256SUMS',
        ),
    ],
    ids=range(7),
)
def test_a_release_of_other_files_is_one_line(tiny_release, tmp_path, damage, line):
    """Each of these would load, and sound, as another model."""
    with_adapter(tiny_release, tmp_path)
    ones = np.ones(LATENT_CHANNELS, np.float32)
    moments = {str(n): {'gain': ones, 'shift': 0 * ones} for n in (1, 2, 4, 8)}
    save_params(tmp_path / release.MOMENTS_NAME, moments)
    release.read_release(tmp_path)
    damage(tmp_path)
    with pytest.raises(ValueError, match=line) as caught:
        Generator(tmp_path)
    assert str(tmp_path) in str(caught.value) and '\n' not in str(caught.value)


def test_a_release_without_a_manifest_loads_with_a_note(own_release):
    (own_release / 'SHA256SUMS').unlink()
    with pytest.warns(UserWarning, match='has no SHA256SUMS: damage') as caught:
        release.read_release(own_release)
    assert len(caught) == 1
    release.find_release('foley')


def test_the_shipped_release_is_what_its_manifest_lists(recwarn):
    release.read_release(RELEASES / 'foley')
    release.read_release(RELEASES / 'foley', release.TOWER_NAME)
    assert not recwarn.list
