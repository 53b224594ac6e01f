import jax.numpy as jnp
import numpy as np
import pytest

from realaudio_jax import watermark
from realaudio_jax.generator import Generator
from realaudio_jax.models.denoiser import latent_frames
from realaudio_jax.program import Bucket
from realaudio_jax.watermark import Watermark, read_key

KEY = bytes(range(16))


def test_tape_is_standard_normal_and_another_for_each_key():
    one, other = (watermark.carrier(key, 'texture', 16) for key in (KEY, KEY[::-1]))
    assert abs(one.mean()) < 0.02 and abs(one.std() - 1) < 0.02
    assert abs(np.mean(one * other)) < 0.03
    assert abs(np.mean(one * watermark.carrier(KEY, 'latents', 16))) < 0.03


def test_payload_changes_signs_alone_and_no_pilot():
    plain = watermark.tape(Watermark(KEY), 16, 8)['texture']
    said = watermark.tape(Watermark(KEY, 0xDEADBEEF), 16, 8)['texture']
    np.testing.assert_array_equal(np.abs(plain), np.abs(said))
    pilots = watermark.roles(16) < 0
    np.testing.assert_array_equal(plain[:, pilots], said[:, pilots])
    assert 0.4 < np.mean(plain[:, ~pilots] != said[:, ~pilots]) < 0.6


def test_programs_for_short_sounds_say_half_a_payload(tiny_release):
    mark = Watermark(KEY, 0x12345678)
    generator = Generator(tiny_release, mark=mark, log=lambda line: None)
    for seconds, halves in ((1.0, 1), (2.0, 1), (5.0, 2)):
        bucket = Bucket(batch=1, length=latent_frames(seconds), steps=4, sample_rate=48_000)
        held = generator.programs.weights_for(bucket)['watermark']
        expected = watermark.tape(mark, *(held[x].shape[1] for x in ('texture', 'latents')), halves)
        np.testing.assert_array_equal(held['texture'], expected['texture'])
        np.testing.assert_array_equal(held['latents'], expected['latents'])


def test_each_seed_has_a_stretch_of_its_own_at_any_batch_size():
    tape = jnp.arange(watermark.TAPE_FRAMES, dtype=jnp.float32)[:, None]
    several = watermark.stretch(tape, watermark.starts(jnp.array([5, 6, 7])), 4)
    alone = watermark.stretch(tape, watermark.starts(jnp.array([6])), 9)
    np.testing.assert_array_equal(several[1], alone[0, :4])
    assert len(set(np.asarray(several[:, 0, 0]).tolist())) == 3
    steps = np.diff(np.asarray(alone[0, :, 0])) % watermark.TAPE_FRAMES
    np.testing.assert_array_equal(steps, 1)


def test_keys_are_read_from_digits_and_files(tmp_path):
    assert read_key('public') == watermark.PUBLIC_KEY
    assert read_key(KEY.hex()) == KEY
    (tmp_path / 'digits').write_text(f'{KEY.hex()}\n')
    (tmp_path / 'bytes').write_bytes(b'\xff' * 32)
    assert read_key(str(tmp_path / 'digits')) == KEY
    assert read_key(str(tmp_path / 'bytes')) == b'\xff' * 32
    (tmp_path / 'low bytes').write_bytes(KEY)
    assert read_key(str(tmp_path / 'low bytes')) == KEY
    (tmp_path / 'lines').write_text(f'\ufeff{KEY.hex()[:16]}\r\n{KEY.hex()[16:]}\r\n')
    assert read_key(str(tmp_path / 'lines')) == KEY


@pytest.mark.parametrize('text', ['0' * 33, 'g' + '0' * 31, 'a pass phrase of words\n', ''])
def test_a_file_of_text_that_is_no_digits_is_refused(tmp_path, text):
    (tmp_path / 'key').write_text(text)
    with pytest.raises(ValueError, match='is text but no hexadecimal digits'):
        read_key(str(tmp_path / 'key'))


def test_a_key_file_that_is_too_long_says_so(tmp_path):
    for text, reason in (('ab' * 1025, '1025 bytes; give 16'), ('ab' * 3000, 'is too long; give')):
        (tmp_path / 'key').write_text(text)
        with pytest.raises(ValueError, match=reason):
            read_key(str(tmp_path / 'key'))
    (tmp_path / 'key').write_text('ab\n' * 1024)
    assert read_key(str(tmp_path / 'key')) == b'\xab' * 1024


@pytest.mark.parametrize(
    ('text', 'reason'),
    [
        ('abcd', '2 bytes; give 16'),
        ('my key', 'neither a file'),
        ('', 'neither'),
        ('0' * 5000, '2500 bytes'),
    ],
)
def test_a_key_of_the_wrong_form_is_one_line(text, reason):
    with pytest.raises(ValueError, match=reason) as error:
        read_key(text)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('payload', [-1, 2**32, True])
def test_a_payload_of_another_size_is_refused(payload):
    with pytest.raises(ValueError, match='the payload is .{1,20}; give a whole number below'):
        Watermark(KEY, payload)
    assert Watermark(KEY, np.uint32(7)) == Watermark(KEY, 7)


def test_a_key_is_not_shown():
    shown = repr(Watermark(KEY, 7))
    assert KEY.hex() not in shown and 'private key' in shown and '7' in shown
