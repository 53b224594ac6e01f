"""LAION-CLAP against transformers with random weights: needs the `reference` extra."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers

from realaudio_jax.metrics.embedders import clap
from realaudio_jax.metrics.embedders.base import embed_clips

torch = pytest.importorskip('torch', reason="no torch: install the extra 'reference'")
transformers = pytest.importorskip('transformers', reason='no transformers: install `reference`')

TEXTS = ['a dog barks twice', 'Rain on a tin roof; then, a door slams!', '']
# Every stage, both shifts, merging, and a last stage of a single window, but narrow.
AUDIO = dict(
    patch_embeds_hidden_size=8,
    depths=[2, 1, 1, 2],
    num_attention_heads=[2, 2, 4, 4],
    hidden_size=64,
)
TEXT = dict(
    vocab_size=300,
    hidden_size=24,
    num_hidden_layers=2,
    num_attention_heads=3,
    intermediate_size=40,
    max_position_embeddings=80,
)


@pytest.fixture(scope='module')
def original(randomise):
    config = transformers.ClapConfig(
        text_config=transformers.ClapTextConfig(**TEXT).to_dict(),
        audio_config=transformers.ClapAudioConfig(**AUDIO).to_dict(),
        projection_dim=20,
    )
    return randomise(transformers.ClapModel(config))


@pytest.fixture(scope='module')
def extractor():
    return transformers.ClapFeatureExtractor(frequency_min=50, truncation='rand_trunc')


@pytest.fixture(scope='module')
def folder(original, extractor, tmp_path_factory):
    folder = tmp_path_factory.mktemp('clap')
    original.save_pretrained(folder)
    extractor.save_pretrained(folder)
    tokenizer = tokenizers.ByteLevelBPETokenizer()
    special = ['<s>', '<pad>', '</s>', '<unk>', '<mask>']
    tokenizer.train_from_iterator(TEXTS, vocab_size=TEXT['vocab_size'], special_tokens=special)
    tokenizer.post_processor = tokenizers.processors.RobertaProcessing(('</s>', 2), ('<s>', 0))
    tokenizer.save(str(folder / 'tokenizer.json'))
    return folder


@pytest.fixture(scope='module')
def ours(folder):
    return clap.load_clap(folder)


@pytest.fixture(scope='module')
def sounds():
    rng = np.random.default_rng(0)
    ramp = np.linspace(0.01, 0.5, 480_000)
    long = rng.normal(size=480_000) * ramp
    return [long.astype(np.float32), (0.1 * rng.normal(size=150_000)).astype(np.float32)]


def test_log_mel(extractor, sounds):
    expected = extractor(sounds[0], sampling_rate=48_000)['input_features'][0][0]
    found = np.asarray(clap.log_mel(jnp.asarray(sounds[0])[None]))[0]
    assert found.shape == expected.shape == (1001, 64)
    np.testing.assert_allclose(found, expected, atol=1e-3)  # dB


def test_audio_embeddings(original, extractor, ours, sounds):
    given = extractor(sounds, sampling_rate=48_000, return_tensors='pt')
    with torch.no_grad():
        expected = original.get_audio_features(given['input_features']).pooler_output.numpy()
    assert ours.embedder.dimension == 20 and abs(expected[0] - expected[1]).max() > 0.01
    found = np.concatenate(embed_clips(ours.embedder, sounds, batch=4))
    np.testing.assert_allclose(found, expected, atol=3e-5)  # measured 1.1e-5, front end included
    np.testing.assert_allclose(ours.embed_audio(sounds), expected, atol=3e-5)


def test_text_embeddings_and_scores(original, ours, folder, sounds):
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(folder / 'tokenizer.json'), pad_token='<pad>'
    )
    given = tokenizer(TEXTS, padding=True, return_tensors='pt')
    with torch.no_grad():
        expected = original.get_text_features(
            given['input_ids'], given['attention_mask']
        ).pooler_output.numpy()
    found = ours.embed_text(TEXTS)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    scores = ours.scores(sounds, TEXTS[:2])
    audio = ours.embed_audio(sounds)
    np.testing.assert_allclose(scores, (audio * expected[:2]).sum(-1), atol=1e-5)
    assert folder.name in ours.name and ours.embedder.name == ours.name
    with pytest.raises(ValueError, match='3 texts for 2 clips'):
        ours.scores(sounds, TEXTS)


@pytest.mark.parametrize('width, depths', [(96, [2, 2, 6, 2]), (128, [2, 2, 12, 2])])
def test_size_of_the_original(width, depths):
    audio = dict(patch_embeds_hidden_size=width, depths=depths, hidden_size=8 * width)
    config = transformers.ClapConfig(
        audio_config=transformers.ClapAudioConfig(**audio).to_dict(),
        text_config=transformers.ClapTextConfig().to_dict(),
    )
    with torch.device('meta'):
        model = transformers.ClapModel(config)
    expected = sum(p.numel() for p in model.parameters()) + 128  # see test_clap.FULL
    shapes = clap.network_shapes(clap.network_of(config.to_dict()))
    assert sum(np.prod(x.shape, dtype=int) for x in jax.tree_util.tree_leaves(shapes)) == expected
