"""Every embedder by its name."""

import pytest

from realaudio_jax.metrics.ports import PORTS, embedders_in, load_embedder, registry

AT_HAND = {'yamnet': 'yamnet', 'gpvad': 'gpvad', 'crepe': 'crepe_tiny'}


@pytest.mark.parametrize('name', AT_HAND)
def test_what_is_said_of_an_embedder_is_so(name, sound_dir):
    port, folder = PORTS[name], sound_dir / 'weights' / AT_HAND[name]
    embedder = load_embedder(name, folder)
    assert (embedder.sample_rate, embedder.dimension) == (port.sample_rate, port.dimension)
    assert (embedder.licence, embedder.source) == (port.licence, port.source)
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
        (tmp_path / folder / PORTS[name].files[0]).touch()
    want = {'yamnet': tmp_path / 'one', 'crepe': tmp_path / 'two', 'openl3': tmp_path}
    assert embedders_in(tmp_path) == want


def test_no_such_embedder(tmp_path):
    with pytest.raises(ValueError, match="no embedder 'fad': choose one of yamnet, gpvad"):
        load_embedder('fad', tmp_path)


def test_table():
    lines = registry.table().splitlines()
    assert len(lines) == 2 + len(PORTS)
    assert lines[2].startswith('| yamnet | 16000 | 1024 | Apache-2.0 | ')
