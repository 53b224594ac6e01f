"""Every embedder by its name."""

import pytest

from realaudio_jax.metrics.embedders.registry import (
    CHECKPOINTS,
    embedders_in,
    load_embedder,
    load_embedders,
    load_evaluators,
)

AT_HAND = {'yamnet': 'yamnet', 'gpvad': 'gpvad', 'crepe': 'crepe_tiny'}


@pytest.mark.parametrize('name', AT_HAND)
def test_what_is_said_of_an_embedder_is_so(name, sound_dir):
    checkpoint, folder = CHECKPOINTS[name], sound_dir / 'weights' / AT_HAND[name]
    embedder = load_embedder(name, folder)
    assert (embedder.sample_rate, embedder.dimension) == (
        checkpoint.sample_rate,
        checkpoint.dimension,
    )
    assert (embedder.licence, embedder.source) == (checkpoint.licence, checkpoint.source)
    assert embedder.source and embedder.name.endswith(')')


def test_a_folder_of_another_embedder(sound_dir, tmp_path):
    folder = sound_dir / 'weights' / 'gpvad'
    with pytest.raises(FileNotFoundError, match='cnn14.safetensors .this one holds gpvad.'):
        load_embedder('cnn14', folder)
    with pytest.raises(FileNotFoundError, match='a folder that holds cnn14.safetensors$'):
        load_embedder('cnn14', tmp_path)


def test_the_embedders_of_a_folder_are_found_by_their_files(tmp_path):
    with pytest.raises(FileNotFoundError, match='no weights of an embedder here or in a folder'):
        embedders_in(tmp_path)
    for name, folder in (('yamnet', 'one'), ('crepe', 'two'), ('openl3', '.')):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / CHECKPOINTS[name].files[0]).touch()
    want = {'yamnet': tmp_path / 'one', 'crepe': tmp_path / 'two', 'openl3': tmp_path}
    assert embedders_in(tmp_path) == want


def test_one_folder_of_folders_serves_every_command(sound_dir, tiny_release):
    found = load_evaluators(tiny_release, sound_dir / 'weights')[1]
    found += load_embedders(['yamnet'], tiny_release, sound_dir / 'weights')
    alone = load_embedder('yamnet', sound_dir / 'weights' / 'yamnet')
    assert [embedder.name for embedder in found] == 2 * [alone.name]


def test_no_such_embedder(tmp_path):
    with pytest.raises(ValueError, match="no embedder 'fad': choose one of yamnet, gpvad"):
        load_embedder('fad', tmp_path)


def test_the_embedders_at_hand(tiny_release, tower_release, tmp_path):
    assert load_evaluators(tiny_release) == (None, [])
    assert load_evaluators(tower_release)[0].embedder.dimension == 256
    with pytest.raises(FileNotFoundError, match='YAMNet weights not found'):
        load_evaluators(tiny_release, tmp_path)
