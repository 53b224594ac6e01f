"""The labels a release was trained on: kept in few numbers, near where the texts are near."""

import numpy as np
import pytest

from realaudio_jax.generator import Generator
from realaudio_jax.release import RELEASES, read_release
from realaudio_jax.vocabulary import (
    FAR,
    VOCABULARY_NAME,
    load_vocabulary,
    make_vocabulary,
    nearest_labels,
    save_vocabulary,
)


def embed(texts):
    """A unit vector for each text, the same for texts that differ in case alone."""
    seeds = [sum(map(ord, text.lower())) for text in texts]
    vectors = np.stack([np.random.default_rng(s).normal(size=13) for s in seeds])
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_a_vocabulary_is_written_and_read(tmp_path):
    made = make_vocabulary(['dog  bark', 'rain', 'Rain', '', 'bell'], embed)
    assert made.labels == ('Rain', 'bell', 'dog bark')  # of 'rain' and 'Rain' one is enough
    save_vocabulary(tmp_path, made)
    read = load_vocabulary(tmp_path)
    assert read.labels == made.labels
    for text in ('rain', 'bell', 'dog bark'):
        (label, similarity), other, _ = read.nearest(embed([text])[0])
        assert label.lower() == text and similarity == pytest.approx(1.0, abs=0.02)
        assert other[1] == pytest.approx(
            float((embed([text]) @ embed([other[0]]).T)[0, 0]), abs=0.03
        )
    assert load_vocabulary(tmp_path / 'none') is None
    with pytest.raises(ValueError, match='no labels'):
        make_vocabulary([' '], embed)


def test_a_damaged_vocabulary_is_one_line(tmp_path):
    made = make_vocabulary(['rain', 'bell'], embed)
    save_vocabulary(tmp_path, made.__class__(made.labels[:1], made.vectors, made.directions))
    with pytest.raises(ValueError, match=f'{VOCABULARY_NAME} is damaged'):
        load_vocabulary(tmp_path)


@pytest.fixture(scope='module')
def foley():
    generator = Generator.__new__(Generator)  # its texts alone
    from realaudio_jax.models import text_encoder as text_lib
    from realaudio_jax.release import load_params

    generator.folder = RELEASES / 'foley'
    generator.tokenizer = text_lib.Tokenizer(generator.folder / text_lib.TOKENIZER_NAME)
    params = load_params(generator.folder / text_lib.WEIGHTS_NAME, text_lib.parameter_shapes())
    generator.programs = type('Programs', (), {'params': {'text_encoder': params}})
    return generator


def test_the_shipped_vocabulary_tells_near_prompts_from_far_ones(foley):
    read_release(foley.folder)
    assert (foley.folder / VOCABULARY_NAME).stat().st_size < 100_000
    for prompt, label in (
        ('a dog barks in the rain', 'dog'),
        ('glass breaking', 'glass'),
        ('waves roll onto a beach', 'waves'),
        ('pistol fired twice', 'gun'),
        ('someone walks on gravel', 'gravel'),
    ):
        found = nearest_labels(foley, prompt, 5)
        assert found[0][1] > FAR and any(label in name for name, _ in found)
    for prompt in ('quantum entanglement lecture', 'pluie sur le toit', 'photosynthesis'):
        assert nearest_labels(foley, prompt)[0][1] < FAR
