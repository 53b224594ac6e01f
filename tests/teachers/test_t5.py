"""The T5 encoder on its own: structure, buckets, tokenizer; and its limits, in one line each."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_teacher

from realaudio_jax.teachers import t5


def test_full_size_parameter_counts():
    """t5-base and flan-t5-large encoders; `test_t5_parity` counts the originals."""

    def count(**arguments):
        shapes = t5.parameter_shapes(t5.T5Encoder(**arguments))
        return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes))

    assert count() == 109_628_544
    assert (
        count(width=1024, hidden=2816, layers=24, heads=16, feed_forward='gated-gelu')
        == 341_231_104
    )


def test_buckets_are_exact_when_near_and_shared_when_far():
    buckets = t5.distance_buckets(300, 32, 128)
    assert buckets[5, 5] == 0
    np.testing.assert_array_equal(buckets[10, 3:10], [7, 6, 5, 4, 3, 2, 1])
    np.testing.assert_array_equal(buckets[10, 11:18], np.arange(17, 24))
    assert (buckets[0, 128:] == 31).all() and (buckets[299, :172] == 15).all()
    assert (np.diff(buckets[0]) >= 0)[1:].all()


@pytest.fixture(scope='module')
def encoder_and_params(tmp_path_factory):
    folder = tmp_path_factory.mktemp('t5')
    tiny_teacher.write_t5(folder)
    return t5.import_t5(folder)


def test_padding_changes_no_state(encoder_and_params):
    encoder, params = encoder_and_params
    ids = jnp.array([[3, 4, 5, 1, 0, 0], [6, 1, 0, 0, 0, 0]])
    apply = jax.jit(encoder.apply)
    states = apply({'params': params}, ids, ids != 0)
    other = apply({'params': params}, jnp.where(ids == 0, 7, ids), ids != 0)
    assert states.shape == (2, 6, encoder.width)
    np.testing.assert_array_equal(states[ids != 0], other[ids != 0])
    shown = apply({'params': params}, ids, jnp.ones_like(ids, bool))
    assert (np.abs(states - shown)[1, 0] > 1e-4).any()


def test_a_config_of_another_kind_is_refused(tmp_path):
    tiny_teacher.write_t5(tmp_path)
    path = tmp_path / 'config.json'
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {'feed_forward_proj': 'gated-tanh'}))
    with pytest.raises(ValueError, match="feed_forward_proj 'gated-tanh'; there are relu"):
        t5.read_encoder(tmp_path)
    path.write_text(json.dumps(config | {'architectures': ['T5ForConditionalGeneration']}))
    with pytest.raises(ValueError, match='class T5ForConditionalGeneration, not T5EncoderModel'):
        t5.read_encoder(tmp_path)


def test_tokenizer_ends_pads_and_refuses(tmp_path):
    tiny_teacher.write_tokenizer(tmp_path, max_tokens=5)
    tokenizer = t5.Tokenizer(tmp_path)
    ids, mask = tokenizer.encode(['dog barks', ''])
    assert ids.shape == (2, 5)
    np.testing.assert_array_equal(mask, [[1, 1, 1, 0, 0], [1, 0, 0, 0, 0]])
    assert ids[0, 2] == ids[1, 0] == 1 and (ids[~mask] == 0).all()
    with pytest.raises(ValueError, match='"rain rain rain rain rain..." has 6 tokens, 5 at most'):
        tokenizer.encode(['rain ' * 5])
    with pytest.raises(ValueError, match='a list of texts'):
        tokenizer.encode('rain')
    (tmp_path / 'tokenizer.json').rename(tmp_path / 'spiece.model')
    with pytest.raises(ValueError, match='older layout'):
        t5.Tokenizer(tmp_path)
    (tmp_path / 'spiece.model').unlink()
    with pytest.raises(FileNotFoundError, match='no tokenizer.json'):
        t5.Tokenizer(tmp_path)
