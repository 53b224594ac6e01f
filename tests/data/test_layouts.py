"""Small folders in the layouts of published datasets: the rows they give, and what is amiss."""

import csv
import json
import sys

import numpy as np
import pytest
import soundfile

from realaudio_jax.data import layouts, tfds_builders
from realaudio_jax.data.scenes import unmixed_recordings
from realaudio_jax.data.sources import Recordings


def put_sounds(folder, *names, seconds=0.25):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = 0.1 * np.random.default_rng(list(name.encode())).standard_normal(
            round(seconds * 16000)
        )
        soundfile.write(path, noise, 16000)


def put_table(path, header, *rows, encoding='utf-8'):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, 'w', newline='', encoding=encoding) as file:
        csv.writer(file).writerows([header.split(','), *rows])


def esc50(folder):
    rows = [
        ('1-100032-A-0.wav', 1, 0, 'dog', 'True', 100032, 'A'),
        ('5-9032-A-0.wav', 5, 0, 'dog', 'True', 9032, 'A'),
        ('1-17367-A-10.wav', 1, 10, 'crackling_fire', 'True', 17367, 'A'),
    ]
    put_table(folder / 'meta/esc50.csv', 'filename,fold,target,category,esc10,src_file,take', *rows)
    put_sounds(folder, *(f'audio/{row[0]}' for row in rows))
    (folder / 'LICENSE').write_text(
        '101 - Dog:\n- [1-100032-A.ogg]: clip derived from rose (b).wav '
        '(http://www.freesound.org/people/nfrae/sounds/100032/) by nfrae [CC0]\n'
    )
    return folder


def urbansound8k(folder):
    rows = [
        ('100032-3-0-0.wav', 100032, 0.0, 0.3, 1, 5, 3, 'dog_bark'),
        ('100263-2-0-3.wav', 100263, 1.0, 2.0, 1, 10, 2, 'children_playing'),
    ]
    header = 'slice_file_name,fsID,start,end,salience,fold,classID,class'
    put_table(folder / 'metadata/UrbanSound8K.csv', header, *rows)
    put_sounds(folder, *(f'audio/fold{row[5]}/{row[0]}' for row in rows))
    (folder / 'FREESOUNDCREDITS.txt').write_text(
        'Credits\n100032 by nfrae\n100263 by someone else\n'
    )
    return folder


def fsd50k(folder):
    truth, about = folder / 'FSD50K.ground_truth', folder / 'FSD50K.metadata'
    put_table(
        truth / 'dev.csv',
        'fname,labels,mids,split',
        (64760, 'Electric_guitar,Guitar,Music', '/m/a,/m/b,/m/c', 'train'),
        (16399, 'Rain', '/m/d', 'val'),
    )
    put_table(truth / 'eval.csv', 'fname,labels,mids', (37199, 'Bark,Dog', '/m/e,/m/f'))
    put_sounds(folder, 'FSD50K.dev_audio/64760.wav', 'FSD50K.dev_audio/16399.wav')
    put_sounds(folder, 'FSD50K.eval_audio/37199.wav')
    about.mkdir()
    clip = {'license': 'http://creativecommons.org/licenses/by/3.0/', 'uploader': 'casualdave'}
    (about / 'dev_clips_info_FSD50K.json').write_text(json.dumps({'64760': clip}))
    return folder


def clotho(folder):
    header = 'file_name,' + ','.join(f'caption_{i}' for i in range(1, 6))
    about = 'file_name,keywords,sound_id,sound_link,start_end_samples,manufacturer,license'
    for subset in ('development', 'evaluation'):
        said = [f'{subset} sound, said in way {i}.' for i in range(1, 6)]
        put_table(folder / f'clotho_captions_{subset}.csv', header, ('Rain é.wav', *said))
        put_sounds(folder, f'{subset}/Rain é.wav', seconds=4.5)
    put_table(
        folder / 'clotho_metadata_development.csv',
        about,
        (
            'Rain é.wav',
            'rain;roof',
            'Not found',
            'https://freesound.org/s/1',
            '',
            'Renée',
            'http://creativecommons.org/publicdomain/zero/1.0/',
        ),
        encoding='latin-1',
    )
    return folder


def audiocaps(folder):
    header = 'audiocap_id,youtube_id,start_time,caption'
    put_table(
        folder / 'dataset/train.csv',
        header,
        (91139, 'r1nicOVtvkQ', 130, 'A woman talks nearby'),
        (91140, 'lost', 10, 'Nobody has this one'),
    )
    put_table(
        folder / 'dataset/test.csv',
        header,
        *((i, '-x_Y', 20, f'Clanging number {i}') for i in range(5)),
    )
    put_sounds(folder, 'train/r1nicOVtvkQ_130.wav', 'test/Y-x_Y.wav')
    return folder


def wavcaps(folder):
    item = {
        'title': 'Airplane',
        'author': 'Daniel',
        'href': 'https://x.org/2219',
        'duration': 0.2,
        'caption': 'An airplane is landing.',
        'id': '2219',
        'audio': 'wav_path',
    }
    hours = item | {'id': '7', 'duration': 40_000.0}
    data = {'num_captions_per_audio': 1, 'data': [item, hours]}
    (folder / 'json_files/SoundBible').mkdir(parents=True)
    (folder / 'json_files/SoundBible/sb_final.json').write_text(json.dumps(data))
    put_sounds(folder, 'Zip_files/SoundBible/2219.flac', 'Zip_files/SoundBible/7.flac')
    return folder


MAKE = {
    'ESC-50': esc50,
    'UrbanSound8K': urbansound8k,
    'FSD50K': fsd50k,
    'Clotho': clotho,
    'AudioCaps': audiocaps,
    'WavCaps': wavcaps,
}
BUILDERS = {
    builder.layout: builder
    for builder in vars(tfds_builders).values()
    if isinstance(builder, type) and getattr(builder, 'layout', None)
}


@pytest.fixture(params=sorted(MAKE))
def dataset(request, tmp_path):
    """(its name, its folder)"""
    (tmp_path / 'data').mkdir()
    return request.param, MAKE[request.param](tmp_path / 'data')


def rows_of(folder):
    lines = []
    root, rows = layouts.read(folder, lines.append)
    for row in rows:
        assert (root / row['file']).is_file()
    return {row['file']: row for row in rows}, lines


def test_every_layout_is_known_and_has_a_builder(dataset):
    name, folder = dataset
    assert layouts.detect(folder)[0].name == name
    assert layouts.detect(folder.parent) == (layouts.detect(folder)[0], folder)
    assert set(BUILDERS) == set(MAKE) == {layout.name for layout in layouts.LAYOUTS}


def test_esc50(tmp_path):
    rows, lines = rows_of(esc50(tmp_path))
    dog = rows['audio/1-100032-A-0.wav']
    assert (dog['label'], dog['split'], dog['subset']) == ('dog', 'train', 'fold1')
    assert (dog['licence'], dog['author']) == ('CC0-1.0', 'nfrae')
    assert dog['source'].endswith('/100032/') and dog['take'] == '100032'
    other = rows['audio/5-9032-A-0.wav']
    assert (other['split'], other['licence'], other['author']) == ('held_out', 'CC-BY-NC-3.0', '')
    assert rows['audio/1-17367-A-10.wav']['label'] == 'crackling fire' and not lines


def test_urbansound8k(tmp_path):
    rows, _ = rows_of(urbansound8k(tmp_path))
    assert [(r['label'], r['split'], r['author'], r['licence']) for r in rows.values()] == [
        ('dog bark', 'train', 'nfrae', 'CC-BY-NC-3.0'),
        ('children playing', 'held_out', 'someone else', 'CC-BY-NC-3.0'),
    ]


def test_fsd50k(tmp_path):
    rows, _ = rows_of(fsd50k(tmp_path))
    guitar = rows['FSD50K.dev_audio/64760.wav']
    assert guitar['label'] == 'electric guitar'
    assert guitar['labels'] == ('electric guitar', 'guitar', 'music')
    assert (guitar['licence'], guitar['author']) == ('CC-BY-3.0', 'casualdave')
    assert [r['subset'] for r in rows.values()] == ['train', 'val', 'eval']
    assert [r['split'] for r in rows.values()] == ['train', 'held_out', 'held_out']


def test_clotho_keeps_files_of_one_name_apart_and_reads_latin_1(tmp_path):
    rows, _ = rows_of(clotho(tmp_path))
    first, second = rows['development/Rain é.wav'], rows['evaluation/Rain é.wav']
    assert first['captions'][4] == 'development sound, said in way 5.'
    assert second['captions'][0] == 'evaluation sound, said in way 1.'
    assert (first['labels'], first['author']) == (('rain', 'roof'), 'Renée')
    assert (first['licence'], second['licence']) == ('CC0-1.0', 'unknown')
    assert (first['split'], second['split']) == ('train', 'held_out')


def test_audiocaps_finds_its_sounds_by_either_name_and_counts_the_lost(tmp_path):
    rows, lines = rows_of(audiocaps(tmp_path))
    assert rows['train/r1nicOVtvkQ_130.wav']['captions'] == ('A woman talks nearby',)
    assert len(rows['test/Y-x_Y.wav']['captions']) == 5
    assert len(lines) == 1 and '1 of 3 sounds of AudioCaps' in lines[0]


def test_wavcaps_leaves_out_recordings_of_hours(tmp_path):
    rows, _ = rows_of(wavcaps(tmp_path))
    assert list(rows) == ['Zip_files/SoundBible/2219.flac']
    row = rows['Zip_files/SoundBible/2219.flac']
    assert (row['captions'], row['split']) == (('An airplane is landing.',), '')
    assert (row['author'], row['source']) == ('Daniel', 'https://x.org/2219')


def test_a_recordings_folder_may_be_any_of_them(dataset, tmp_path):
    name, folder = dataset
    recordings = Recordings(folder, 'all', tmp_path / 'cache', lambda line: None)
    rows, _ = rows_of(folder)
    assert [(r.file, r.licence, r.author) for r in recordings.clips] == [
        (file, row['licence'], row['author']) for file, row in rows.items()
    ]
    for clip, row in zip(recordings.clips, rows.values(), strict=True):
        assert row['split'] in ('', 'held_out' if clip.held_out else 'train')
    texts = {'ESC-50': 'crackling fire', 'AudioCaps': 'A woman talks nearby', 'Clotho': 'rain'}
    assert texts.get(name) in {None, *(text for clip in recordings.clips for text in clip.texts)}
    assert recordings.pick(np.random.default_rng(0), 'event').text


def test_unmixed_recordings_speak_in_their_own_captions(tmp_path):
    recordings = Recordings(clotho(tmp_path), 'train', tmp_path / 'cache', lambda line: None)
    said = {scene.caption for scene in unmixed_recordings(0, recordings, 40, 10.0)}
    assert said == {f'development sound, said in way {i}.' for i in range(1, 6)}


def test_builders_store_what_the_folder_holds_without_tensorflow(dataset, tmp_path):
    name, folder = dataset
    builder = BUILDERS[name](folder, seconds=0.2, data_dir=tmp_path / 'tfds', log=lambda line: None)
    builder.download_and_prepare()
    rows, _ = rows_of(folder)
    stored = {}
    for split in builder.info.splits:
        for example in builder.as_data_source(split):
            stored[example['file'].decode()] = example
            assert rows[example['file'].decode()]['split'] in (split, '')
    assert set(stored) == set(rows)
    for file, example in stored.items():
        row = rows[file]
        assert [text.decode() for text in example['captions']] == list(row['captions'])
        assert [text.decode() for text in example['labels']] == list(row['labels'])
        assert example['caption'].decode() == (*row['captions'], *row['labels'])[0]
        assert example['licence'].decode() == row['licence']
        assert example['audio'].shape == (9600, 2) and example['audio'].std() > 0
    assert 'tensorflow' not in sys.modules


@pytest.mark.parametrize(
    ('name', 'spoil', 'message'),
    [
        ('ESC-50', lambda f: [p.unlink() for p in (f / 'audio').iterdir()], 'without its sounds'),
        (
            'UrbanSound8K',
            lambda f: (
                (f / 'audio/fold5/100032-3-0-0.wav').rename(f / 'audio/x.wav')
                and (f / 'audio/fold10/100263-2-0-3.wav').unlink()
            ),
            'none of the 2 sounds',
        ),
        (
            'FSD50K',
            lambda f: put_table(f / 'FSD50K.ground_truth/dev.csv', 'fname,mids', (1, 'x')),
            "dev.csv: the column 'labels' is missing",
        ),
        (
            'Clotho',
            lambda f: put_table(f / 'clotho_captions_evaluation.csv', 'file_name,caption'),
            "the column 'caption_1' is missing",
        ),
        (
            'AudioCaps',
            lambda f: put_table(f / 'dataset/train.csv', 'youtube_id,caption'),
            "train.csv: the column 'start_time' is missing",
        ),
        (
            'WavCaps',
            lambda f: (f / 'json_files/SoundBible/sb_final.json').write_text(
                '{"num_captions_per_audio": 1, "data": [{"id": 3}]}'
            ),
            'entry 1 has no id and caption',
        ),
        (
            'WavCaps',
            lambda f: (f / 'json_files/SoundBible/sb_final.json').write_text(
                '{"num_captions_per_audio": 1, "data": ['
            ),
            'not JSON',
        ),
    ],
)
def test_a_dataset_that_lacks_a_part_is_one_clear_line(tmp_path, name, spoil, message):
    folder = MAKE[name](tmp_path)
    spoil(folder)
    with pytest.raises(ValueError, match=message) as raised:
        Recordings(folder, 'all', tmp_path / 'cache', lambda line: None)
    assert '\n' not in str(raised.value) and str(tmp_path) in str(raised.value)


def test_a_builder_of_another_dataset_says_what_it_needs(tmp_path):
    with pytest.raises(ValueError, match='UrbanSound8K; ESC-50 has meta/esc50.csv'):
        tfds_builders.Esc50(urbansound8k(tmp_path))


def test_metadata_of_ones_own_comes_first(tmp_path):
    esc50(tmp_path)
    put_table(tmp_path / 'metadata.csv', 'file,label', ('1-100032-A-0.wav', 'my own dog'))
    recordings = Recordings(tmp_path, 'all', tmp_path / 'cache', lambda line: None)
    assert recordings.labels == ('my own dog',)


def test_balance_is_by_file_or_by_label(tmp_path):
    names = [f'dog{"abcdefghi"[i]}.wav' for i in range(9)] + ['cat.wav']
    put_sounds(tmp_path, *names, seconds=0.1)
    put_table(tmp_path / 'metadata.csv', 'file,label', *((n, n[:3]) for n in names))

    def share(balance):
        source = Recordings(tmp_path, 'all', tmp_path / 'cache', lambda line: None, balance)
        rng = np.random.default_rng(1)
        return np.mean([source.pick(rng, 'event').label == 'cat' for _ in range(600)])

    shares = [share(balance) for balance in (0.0, 0.5, 1.0)]
    np.testing.assert_allclose(shares, [0.1, 0.25, 0.5], atol=0.06)


def test_licences_have_short_names():
    named = {
        'http://creativecommons.org/licenses/by-nc/3.0/': 'CC-BY-NC-3.0',
        'https://creativecommons.org/publicdomain/zero/1.0/': 'CC0-1.0',
        'http://creativecommons.org/licenses/sampling+/1.0/': 'CC-SAMPLING+-1.0',
        'CC0': 'CC0-1.0',
        'CC-BY': 'CC-BY',
        '': 'unknown',
    }
    assert {text: layouts.licence_name(text) for text in named} == named
