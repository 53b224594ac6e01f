"""The model card: what the Hub and `weights.licence` read, and every file of the release."""

import shutil

from realaudio_jax import weights
from realaudio_jax.model_card import UNSTATED, model_card, upload_lines, write_model_card


def test_a_card_states_the_licence_and_the_files(own_release):
    assert write_model_card(own_release, 'cc-by-4.0')
    assert weights.licence(own_release) == 'cc-by-4.0'
    text = (own_release / 'README.md').read_text()
    for file in own_release.glob('*.safetensors'):
        assert f'`{file.name}`' in text
    assert 'student of 1, 2, 4, 8 denoiser steps' in text


def test_a_card_that_is_there_stays(own_release):
    (own_release / 'README.md').write_text('mine')
    assert not write_model_card(own_release, 'mit')
    assert (own_release / 'README.md').read_text() == 'mine'


def test_what_is_not_known_is_left_open(own_release):
    (own_release / 'README.md').write_text(model_card(own_release))
    assert weights.licence(own_release) == UNSTATED
    assert 'To be written' in model_card(own_release)


def test_a_packed_release_can_be_fetched_as_it_is(own_release, tmp_path):
    """The commands are those of the folder."""
    folder = tmp_path / 'mine'
    shutil.copytree(own_release, folder, ignore=shutil.ignore_patterns('mine'))
    assert upload_lines(folder)[0] == f'publish it: hf upload OWNER/mine {folder}'
