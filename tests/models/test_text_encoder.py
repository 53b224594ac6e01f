"""The text encoder without PyTorch: structure, an independent formula, padding, the tokenizer."""

import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers

import realaudio_jax
from realaudio_jax import packing, release
from realaudio_jax.models import text_encoder
from realaudio_jax.models.bert_checkpoint import import_bert
from realaudio_jax.models.text_encoder import TextEncoder, Tokenizer

TINY = TextEncoder(vocabulary=29, positions=11, width=6, heads=3, hidden=10, layers=2)


@pytest.fixture(scope='module')
def tiny_params():
    """Random everywhere, the norms and biases included."""
    shapes = text_encoder.parameter_shapes(TINY)
    leaves, structure = jax.tree.flatten(shapes)
    rng = np.random.default_rng(0)
    leaves = [jnp.asarray(rng.normal(size=x.shape) * 0.7, jnp.float32) for x in leaves]
    return jax.tree.unflatten(structure, leaves)


@pytest.fixture
def batch():
    ids = np.random.default_rng(1).integers(0, 29, (2, 7)).astype(np.int32)
    mask = np.arange(7)[None, :] < np.array([7, 4])[:, None]
    return ids, mask


def encode(params, ids, mask):
    return np.asarray(_encode_tiny(params, ids, mask))


@jax.jit
def _encode_tiny(params, ids, mask):
    return text_encoder.encode_tokens(params, ids, mask, TINY)


def test_full_size_has_the_shape_and_count_of_the_original():
    shapes = text_encoder.parameter_shapes()
    count = sum(x.size for x in jax.tree.leaves(shapes))
    # The published 22,713,216 less the pooler and the two segment rows.
    assert count == 22_713_216 - (384 * 384 + 384) - 2 * 384
    ids = jax.ShapeDtypeStruct((2, 7), jnp.int32)
    mask = jax.ShapeDtypeStruct((2, 7), jnp.bool_)
    states = jax.eval_shape(text_encoder.encode_tokens, shapes, ids, mask)
    assert states.shape == (2, 7, 384) and states.dtype == jnp.float32
    sentence = jax.eval_shape(text_encoder.sentence_embedding, states, mask)
    assert sentence.shape == (2, 384)


def formula(params, ids, heads):
    """Float64, one text without padding, one head and one token at a time."""
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)

    def norm(x, n):
        centred = x - x.mean()
        return centred / math.sqrt((centred**2).mean() + 1e-12) * n['scale'] + n['bias']

    x = [
        norm(p['token']['embedding'][token] + p['position']['embedding'][i], p['embedding_norm'])
        for i, token in enumerate(ids)
    ]
    width = len(x[0])
    depth = width // heads
    for layer in (p['layer_0'], p['layer_1']):
        qkv = layer['attention']['qkv']
        rows = [row @ qkv['kernel'] + qkv['bias'] for row in x]
        new = []
        for i, row in enumerate(rows):
            mixed = []
            for h in range(heads):
                part = slice(h * depth, (h + 1) * depth)
                q = row[:width][part]
                scores = [q @ r[width : 2 * width][part] / math.sqrt(depth) for r in rows]
                odds = [math.exp(s) for s in scores]
                values = [r[2 * width :][part] for r in rows]
                mixed.extend(sum(o * v for o, v in zip(odds, values, strict=True)) / sum(odds))
            out = layer['attention']['out']
            a = norm(x[i] + np.array(mixed) @ out['kernel'] + out['bias'], layer['attention_norm'])
            z = a @ layer['expand']['kernel'] + layer['expand']['bias']
            g = np.array([v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in z])
            y = a + g @ layer['contract']['kernel'] + layer['contract']['bias']
            new.append(norm(y, layer['output_norm']))
        x = new
    return np.stack(x)


def test_states_equal_an_independent_float64_formula(tiny_params, batch):
    ids, mask = batch
    states = encode(tiny_params, ids, mask)
    for b in range(2):
        wanted = formula(tiny_params, ids[b][mask[b]], TINY.heads)
        np.testing.assert_allclose(states[b][mask[b]], wanted, atol=2e-5)


def test_sentence_is_the_unit_mean_of_its_tokens(tiny_params, batch):
    ids, mask = batch
    states = encode(tiny_params, ids, mask).astype(np.float64)
    sentence = np.asarray(text_encoder.sentence_embedding(jnp.float32(states), mask))
    for b in range(2):
        mean = states[b][mask[b]].mean(axis=0)
        np.testing.assert_allclose(sentence[b], mean / np.linalg.norm(mean), atol=1e-6)


def test_padding_changes_nothing(tiny_params, batch):
    ids, mask = batch
    states = encode(tiny_params, ids, mask)
    assert (states[~mask] == 0).all()
    other = np.where(mask, ids, (ids + 5) % 29).astype(np.int32)
    np.testing.assert_array_equal(encode(tiny_params, other, mask), states)
    longer = encode(tiny_params, np.pad(ids, ((0, 0), (0, 3))), np.pad(mask, ((0, 0), (0, 3))))
    # another length is another order of summing: a few units in the last place, on any processor
    np.testing.assert_allclose(longer[:, :7], states, rtol=3e-6, atol=3e-6)
    np.testing.assert_allclose(
        text_encoder.sentence_embedding(jnp.asarray(longer), np.pad(mask, ((0, 0), (0, 3)))),
        text_encoder.sentence_embedding(jnp.asarray(states), mask),
        rtol=3e-6,
        atol=3e-6,
    )


def test_a_row_of_padding_alone_is_zero_and_finite(tiny_params, batch):
    ids, mask = batch
    mask = mask & np.array([True, False])[:, None]
    states = _encode_tiny(tiny_params, ids, mask)
    sentence = np.asarray(text_encoder.sentence_embedding(states, mask))
    assert (sentence[1] == 0).all() and np.isclose(np.linalg.norm(sentence[0]), 1, atol=1e-6)
    gradient = jax.grad(lambda s: text_encoder.sentence_embedding(s, mask).sum())(states)
    assert np.isfinite(gradient).all()


def test_too_many_tokens_is_an_error():
    ids = jnp.zeros((2, 12), jnp.int32)
    with pytest.raises(ValueError, match='12 tokens given, 11 at most'):
        jax.eval_shape(TINY.init, jax.random.key(0), ids, ids == 0)


def test_int8_states_stay_within_a_bound(tiny_params, batch, tmp_path):
    path = tmp_path / 'p.safetensors'
    packing.save_params(path, tiny_params, dtype='int8', block=2)
    loaded = release.load_params(path, text_encoder.parameter_shapes(TINY))
    for old, new in zip(jax.tree.leaves(tiny_params), jax.tree.leaves(loaded), strict=True):
        assert np.abs(old - new).max() <= 0.5001 * np.abs(old).max() / 127
    error = encode(loaded, *batch) - encode(tiny_params, *batch)
    assert 0 < np.sqrt((error**2).mean()) < 0.02  # the states are of size 1


def test_import_lists_every_missing_and_unexpected_name():
    names = {
        'embeddings.word_embeddings.weight': np.ones((29, 6)),
        'embeddings.position_ids': np.ones((1, 3)),
        'decoder.weight': np.ones(2),
    }
    with pytest.raises(ValueError, match='not the checkpoint of a 1-layer BERT') as caught:
        import_bert(names, layers=1)
    message = str(caught.value)
    assert 'missing encoder.layer.0.output.dense.bias' in message
    assert 'unexpected decoder.weight' in message and 'position_ids' not in message
    assert '\n' not in message


WORDS = ('[PAD]', '[UNK]', '[CLS]', '[SEP]', 'a', 'dog', 'bark', '##s', 'rain')


@pytest.fixture(scope='module')
def tokenizer_path(tmp_path_factory):
    """A small WordPiece file that, like the original, cuts and pads on its own account."""
    vocabulary = {word: i for i, word in enumerate(WORDS)}
    made = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token='[UNK]'))
    made.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single='[CLS] $A [SEP]', special_tokens=[('[CLS]', 2), ('[SEP]', 3)]
    )
    made.enable_truncation(4)
    made.enable_padding(length=9)
    path = tmp_path_factory.mktemp('tokenizer') / 'tokenizer.json'
    made.save(str(path))
    return path


def test_tokenizer_pads_and_marks(tokenizer_path):
    ids, mask = Tokenizer(tokenizer_path).encode(['A dog barks', '', 'xyz \udcff'], max_tokens=7)
    np.testing.assert_array_equal(
        ids, [[2, 4, 5, 6, 7, 3, 0], [2, 3, 0, 0, 0, 0, 0], [2, 1, 1, 3, 0, 0, 0]]
    )
    assert ids.dtype == np.int32
    np.testing.assert_array_equal(mask, np.arange(7)[None, :] < np.array([6, 2, 4])[:, None])
    ids, mask = Tokenizer(tokenizer_path).encode([], max_tokens=7)
    assert ids.shape == mask.shape == (0, 7)


def test_tokenizer_cuts_and_says_so(tokenizer_path):
    lines = []
    tokenizer = Tokenizer(tokenizer_path)
    ids, mask = tokenizer.encode(['a dog\nbarks', 'rain'], max_tokens=5, log=lines.append)
    np.testing.assert_array_equal(ids, [[2, 4, 5, 6, 3], [2, 8, 3, 0, 0]])
    assert lines == ['text of 6 tokens cut to 5: "a dog barks..."']
    assert mask.sum() == 8


def test_characters_that_the_tokenizer_drops_are_told(tokenizer_path):
    lines = []
    texts = ['\u200b\x00', 'rain \x00', '', ' ']
    _, mask = Tokenizer(tokenizer_path).encode(texts, max_tokens=5, log=lines.append)
    assert mask.sum(axis=1).tolist() == [2, 3, 2, 2]
    assert lines == ["cannot read '\\u200b\\x00', nothing of it is left: write it in English words"]


def test_tokenizer_mistakes(tokenizer_path, tmp_path):
    tokenizer = Tokenizer(tokenizer_path)
    with pytest.raises(ValueError, match="a list of texts, not the one text 'rain'"):
        tokenizer.encode('rain')
    with pytest.raises(ValueError, match='max_tokens is 2'):
        tokenizer.encode(['rain'], max_tokens=2)
    with pytest.raises(FileNotFoundError, match='no tokenizer at .*none.json'):
        Tokenizer(tmp_path / 'none.json')
    (tmp_path / 'cut.json').write_bytes(tokenizer_path.read_bytes()[:-50])
    with pytest.raises(ValueError, match='cut.json is damaged.*get the release again'):
        Tokenizer(tmp_path / 'cut.json')
    plain = tokenizers.Tokenizer(tokenizers.models.WordPiece({'a': 0}, unk_token='a'))
    plain.save(str(tmp_path / 'plain.json'))
    with pytest.raises(ValueError, match='lacks .PAD., .CLS. or .SEP.'):
        Tokenizer(tmp_path / 'plain.json')


# The first 8 of 384 numbers of the original's sentence embeddings (float32, PyTorch 2.13).
# fmt: off
GOLDEN = {
    'a dog barks twice, then a door slams, over steady rain': (
        0.02885, -0.02884, 0.11583, 0.10086, -0.01406, -0.05131, 0.03278, -0.10018,
    ),
    'glass shattering on a stone floor': (
        0.01880, 0.00968, 0.08592, 0.03658, -0.04448, -0.03394, 0.03432, 0.03154,
    ),
    '1234567890 9.81 3e-4 0x7f': (
        -0.02900, 0.01229, -0.00732, -0.04767, -0.04366, 0.01467, 0.04665, 0.08200,
    ),
}
# fmt: on
INT8_TOLERANCE = 5e-3  # of numbers of size 0.05; what int8 costs, not rounding


def test_shipped_encoder_gives_the_original_numbers():
    folder = pathlib.Path(realaudio_jax.__file__).parent / 'releases' / 'foley'
    if not (folder / text_encoder.WEIGHTS_NAME).is_file():
        pytest.skip('no shipped text encoder in realaudio_jax/releases/foley')
    params = release.load_params(
        folder / text_encoder.WEIGHTS_NAME, text_encoder.parameter_shapes()
    )
    ids, mask = Tokenizer(folder / text_encoder.TOKENIZER_NAME).encode(list(GOLDEN))
    states = jax.jit(text_encoder.encode_tokens)(params, ids, mask)
    sentence = np.asarray(text_encoder.sentence_embedding(states, mask))[:, :8]
    np.testing.assert_allclose(sentence, list(GOLDEN.values()), atol=INT8_TOLERANCE)
