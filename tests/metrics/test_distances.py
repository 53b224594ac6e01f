"""Two folders of sounds against each other: floor, order, damage, and what is said."""

import os

import numpy as np
import pytest
from toy_embedder import toy

from realaudio_jax.io import write_audio
from realaudio_jax.metrics.distances import DISTANCES, compare_folders, sound_files
from realaudio_jax.metrics.rows import REAL
from realaudio_jax.report.tables import write_results


def sounds(folder, seed, level=0.1, count=12, rate=16_000):
    rng = np.random.default_rng(seed)
    for i in range(count):
        audio = level * rng.uniform(0.5, 1.5) * rng.normal(size=(8000, 2)).clip(-3, 3)
        write_audio(folder / f'{i:02d}.wav', audio, rate)
    return folder


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp('folders')
    return {
        'real': sounds(root / 'real', 0),
        'near': sounds(root / 'near', 1),
        'far': sounds(root / 'far', 2, 0.02),
        'cache': root / 'cache',
    }


def compare(folders, made, **settings):
    rows = compare_folders(
        folders[made],
        folders['real'],
        [toy()],
        list(DISTANCES),
        folders['cache'],
        resamples=20,
        **settings,
    )
    return {(row['name'], row['model']): row for row in rows}


def test_every_figure_has_its_floor_interval_number_and_embedder(folders):
    near, far = compare(folders, 'near'), compare(folders, 'far')
    for name, _ in DISTANCES.values():
        floor, row = far[name, REAL], far[name, 'far']
        if 'note' in floor and name.startswith('extrapolated'):
            assert 'at least 8 clips' in floor['note']  # a half holds 6
        else:
            assert floor['low'] <= floor['value'] <= floor['high'] and floor['n'] == 6
        assert row['embedder'] == 'toy (0123)' and row['n'] == 12
        assert row['low'] < row['value'] < row['high']
        assert near[name, 'near']['value'] < 0.3 * row['value']


@pytest.mark.parametrize('batch', [1, 7])
def test_order_and_batch_size_change_no_figure(folders, tmp_path, batch):
    expected = compare(folders, 'near')
    for i, name in enumerate(['real', 'near']):  # names turned round, so the order is
        turned = tmp_path / name
        turned.mkdir()
        for j, file in enumerate(sound_files(folders[name])):
            (turned / f'{99 - j}-{i}.wav').write_bytes(file.read_bytes())
    other = {'real': tmp_path / 'real', 'near': tmp_path / 'near', 'cache': tmp_path / 'cache'}
    found = compare(other, 'near', batch=batch)
    for key in expected:
        for figure in ('value', 'low', 'high'):
            if figure in expected[key]:
                a, b = expected[key][figure], found[key][figure]
                assert a == pytest.approx(b, rel=1e-6, abs=1e-9, nan_ok=True)


def test_damage_silence_and_rates_are_said_and_the_run_goes_on(folders, tmp_path):
    odd = sounds(tmp_path / 'odd', 3, count=6)
    (odd / '03.wav').write_bytes(b'not a sound')
    write_audio(odd / '04.wav', np.zeros((8000, 2)), 48_000)
    write_audio(odd / '05.wav', np.full((100, 2), 0.1), 16_000)
    os.mkfifo(odd / '06.wav')
    (odd / os.fsdecode(b'caf\xe9.wav')).write_bytes(b'not a sound')
    (odd / 'notes.m4a').write_bytes(b'')
    said = []
    rows = compare({**folders, 'odd': odd}, 'odd', say=said.append)
    left_out = rows['generated files left out', 'odd']
    assert left_out['value'] == 3 and left_out['n'] == 8 and '03.wav' in left_out['note']
    text = '\n'.join(said)
    assert 'left out 06.wav: ' in text and 'left out caf\\xe9.wav: damaged' in text
    assert 'generated: 1 file not read as sound: 1 .m4a' in text
    write_results(tmp_path, list(rows.values()), 'Evaluation')  # whatever files are called
    assert 'left out 03.wav' in text and '1 of 5 sounds are silent' in text
    assert '16000, 48000 Hz' in text and 'shorter than the 0.1 s' in text
    assert rows['Frechet distance', 'odd']['n'] == 5
    assert 'at least 8 clips, got 5' in rows['extrapolated Frechet distance', 'odd']['note']


def test_a_silent_reference_leaves_the_figures_that_exist(folders, tmp_path):
    for i in range(4):
        write_audio(tmp_path / 'real' / f'{i}.wav', np.zeros((8000, 2)), 16_000)
    rows = compare({**folders, 'real': tmp_path / 'real'}, 'near')
    assert rows['Frechet distance', 'near']['value'] > 0
    assert 'all alike' in rows['kernel distance', 'near']['note']


def test_empty_folders_single_files_and_names_are_refused_in_one_line(folders, tmp_path):
    with pytest.raises(FileNotFoundError, match='no folder'):
        sound_files(tmp_path / 'absent')
    with pytest.raises(ValueError, match='holds 0 sound files'):
        sound_files(tmp_path)
    write_audio(tmp_path / 'one' / 'a.wav', np.zeros((100, 2)), 16_000)
    with pytest.raises(ValueError, match='holds 1 sound files'):
        sound_files(tmp_path / 'one')
    for i in range(4):
        (tmp_path / 'one' / f'{i}.wav').write_bytes(b'noise')
    with pytest.raises(ValueError, match='1 readable sounds.*0.wav'):
        compare({**folders, 'one': tmp_path / 'one'}, 'one')
    with pytest.raises(ValueError, match="no metric 'fid'; choose from fad"):
        compare_folders(folders['near'], folders['real'], [toy()], ['fid'], tmp_path)
