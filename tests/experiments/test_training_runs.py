"""The runs that make a release, in `:test` variants: they go through, and go on exactly."""

import dataclasses
import importlib
import json
import pathlib
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile
from absl import flags
from watched_batches import watch_batches

from realaudio_jax import low_rank
from realaudio_jax.data import attribution
from realaudio_jax.data.cache import encode_scenes
from realaudio_jax.data.datasets import MixedScenes
from realaudio_jax.generator import Generator
from realaudio_jax.models.autoencoder import Autoencoder
from realaudio_jax.models.denoiser import Denoiser
from realaudio_jax.packing import save_params, save_release
from realaudio_jax.release import (
    MOMENTS_NAME,
    autoencoder_template,
    denoiser_template,
    find_release,
    load_moments,
    load_params,
    read_tensors,
)
from realaudio_jax.release_config import ReleaseConfig
from realaudio_jax.teachers import load_teacher
from realaudio_jax.training.loop import NonFiniteLossError
from realaudio_jax.training.writers import MetricWriter
from realaudio_jax.trees import named_leaves


def config_of(name: str):
    return importlib.import_module(f'configs.{name}').get_config('test')


def assert_finite(tree):
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize('name', ['foley_autoencoder', 'foley_teacher', 'foley_distill'])
def test_configs_are_locked_and_name_their_variants(name):
    module = importlib.import_module(f'configs.{name}')
    config = module.get_config()
    with pytest.raises((AttributeError, KeyError)):
        config.sed = 1
    with pytest.raises(ValueError, match='there is|there are'):
        module.get_config('tset')


@pytest.mark.parametrize('name', ['autoencoder', 'teacher', 'distill'])
def test_base_configs_have_a_test_variant_of_their_own(name):
    module = importlib.import_module(f'configs.base_{name}')
    assert module.get_config('test') == importlib.import_module(f'configs.foley_{name}').get_config(
        'test'
    )
    assert module.get_config() != module.get_config('test')


@pytest.mark.parametrize('path', sorted(pathlib.Path('configs').glob('[a-z]*.py')))
def test_no_config_has_a_setting_that_nobody_reads(path):
    """A derived config could once add one, and a misspelt setting went unnoticed."""

    def names(config):
        for name, value in config.items():
            yield name
            if hasattr(value, 'items'):
                yield from names(value)

    folders = (pathlib.Path('experiments'), pathlib.Path('realaudio_jax'))
    code = ''.join(p.read_text() for folder in folders for p in folder.rglob('*.py'))
    config = importlib.import_module(f'configs.{path.stem}').get_config()
    assert config.is_locked
    unread = [name for name in names(config) if not re.search(rf'\b{name}\b', code)]
    assert not unread


def test_base_size():
    from configs import base_autoencoder, base_teacher

    def count(shapes):
        return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(shapes))

    denoiser = denoiser_template(Denoiser(**base_teacher.get_config().model))
    assert 330e6 < count(denoiser) < 370e6
    autoencoder = Autoencoder(**base_autoencoder.get_config().model.to_dict())
    assert 80e6 < count(autoencoder_template(autoencoder)) < 120e6


def test_autoencoder_run_goes_through_all_stages(experiment, autoencoder_run):
    run = experiment('train_autoencoder')
    tmp_path, params = autoencoder_run
    assert_finite(params)
    stages = [json.loads(line)['stage'] for line in (tmp_path / 'metrics.jsonl').open()]
    assert list(dict.fromkeys(stages)) == ['likelihood', 'adversarial']
    frozen = load_params(tmp_path / 'code.safetensors', params)['params']
    jax.tree.map(np.testing.assert_array_equal, frozen['encoder'], params['params']['encoder'])
    for name, value in params['params']['decoder'].items():
        same = jax.tree.map(lambda a, b: bool((a == b).all()), frozen['decoder'][name], value)
        assert all(jax.tree.leaves(same)) == (name in run.SOLVED), name


def test_another_decoder_for_a_given_code(experiment, autoencoder_run, tmp_path):
    """A decoder can be trained anew and the teacher's latents stay what they are."""
    code = autoencoder_run[0] / 'code.safetensors'
    config = config_of('foley_autoencoder').unlock()
    config.adversarial_steps, config.seed = 0, 7
    second = experiment('train_autoencoder').train(config, tmp_path, None, code)['params']
    first = autoencoder_run[1]['params']
    jax.tree.map(np.testing.assert_array_equal, first['encoder'], second['encoder'])
    assert (first['decoder']['to_coordinates']['kernel'] != 0).any()
    assert (
        first['decoder']['to_coordinates']['kernel']
        != second['decoder']['to_coordinates']['kernel']
    ).any()


def test_a_code_of_another_size_becomes_a_release(experiment, tiny_release, tmp_path, capsys):
    """Files state their own sizes: what follows a run of train_autoencoder needs no flag."""
    config = config_of('foley_autoencoder').unlock()
    config.adversarial_steps = config.likelihood_steps = config.model.decoder.width = 0
    config.model.channels = 6
    solved = experiment('train_autoencoder').train(config, tmp_path / 'code', None)['params']
    assert solved['decoder'].keys() == {'mean', 'kernel', 'residual'}
    autoencoder = tmp_path / 'code' / 'autoencoder.safetensors'
    teacher_config = config_of('foley_teacher').unlock()
    teacher_config.steps = 2
    run = experiment('train_teacher')
    assert run.train(teacher_config, tmp_path / 'teacher', None, tiny_release, str(autoencoder))
    teacher = tmp_path / 'teacher' / 'teacher.safetensors'
    pack, given = experiment('pack_release'), f'--base={tiny_release}'
    flags.FLAGS.unparse_flags()
    flags.FLAGS(
        ['pack', given, f'--autoencoder={autoencoder}', f'--teacher={teacher}']
        + [f'--out={tmp_path / "release"}']
    )
    pack.main([])
    packed = ReleaseConfig.read(tmp_path / 'release')
    assert packed.autoencoder.channels == packed.denoiser.channels == 6
    assert packed.autoencoder.decoder.width == 0
    codec = experiment('evaluate_autoencoder').load_codec(str(tiny_release), str(autoencoder))
    assert codec(np.zeros((48_000, 2), np.float32), 48_000).shape == (48_000, 2)
    sound = Generator(tmp_path / 'release').generate('rain', seconds=0.5, steps=1, seed=0)
    assert np.isfinite(sound.audio).all()


@pytest.mark.parametrize('fresh', [False, True])
def test_teacher_run_goes_on_exactly(experiment, tiny_release, tmp_path, fresh):
    run, config = experiment('train_teacher'), config_of('foley_teacher').unlock()
    train, devices = run.train, watch_batches(run)
    config.data.fresh = fresh
    config.model.curves = ('brightness',) if fresh else ()
    config.model = ReleaseConfig.read(tiny_release).denoiser.to_dict()  # compiled once in this file
    arguments = config, tmp_path, None, tiny_release, None
    straight = train(*arguments)
    assert_finite(straight)
    assert devices == [2] * config.steps
    shutil.rmtree(tmp_path / 'checkpoints' / '4')  # as if stopped after two of the four steps
    jax.tree.map(np.testing.assert_array_equal, straight, train(*arguments))


def test_a_run_whose_loss_is_not_finite_closes_its_metrics(
    experiment, tiny_release, tmp_path, monkeypatch
):
    run, config = experiment('train_teacher'), config_of('foley_teacher').unlock()
    config.model = ReleaseConfig.read(tiny_release).denoiser.to_dict()  # compiled once in this file
    config.learning_rate = float('nan')
    writers = []
    monkeypatch.setattr(
        run, 'MetricWriter', lambda folder: writers.append(MetricWriter(folder)) or writers[-1]
    )
    with pytest.raises(NonFiniteLossError, match='no checkpoint was saved yet'):
        run.train(config, tmp_path, None, tiny_release, None)
    assert writers[0]._lines.closed


def test_muon_turns_the_matrices_of_blocks_alone(experiment):
    """Its update of a matrix has singular values close to one another; Adam's is one of signs."""
    optimizer = experiment('train_teacher').optimizer
    rng = np.random.default_rng(0)
    weights = jnp.asarray(rng.normal(size=(12, 8)) @ np.diag(np.geomspace(1, 100, 8)), jnp.float32)
    params = {'block_0': {'kernel': weights, 'scale': weights[0]}, 'embed': {'kernel': weights}}
    tx = optimizer(1.0, 'muon')
    updates, _ = tx.update(params, tx.init(params), params)
    spread = [
        np.ptp(np.log(np.linalg.svd(update, compute_uv=False)))
        for update in (updates['block_0']['kernel'], updates['embed']['kernel'])
    ]
    assert spread[0] < 0.8 < spread[1]
    for leaf in (updates['block_0']['scale'], updates['embed']['kernel']):
        assert np.ptp(np.abs(leaf)) < 0.1  # the size of a first Adam step is the same everywhere
    with pytest.raises(ValueError, match="no optimizer 'sgd'"):
        optimizer(1.0, 'sgd')


def test_a_student_goes_on_from_an_earlier_one(experiment, tiny_release):
    generator, teacher = Generator(tiny_release), load_teacher('release', tiny_release)
    setup_of, config = experiment('distill').setup_of, config_of('foley_distill')
    first = setup_of(config, teacher)
    second = setup_of(config, teacher, str(tiny_release / 'student.safetensors'))
    assert first.student_params is first.teacher_params is second.teacher_params
    same = jax.tree.map(np.array_equal, second.student_params, generator.params['student'])
    assert all(jax.tree.leaves(same))


def test_a_folder_that_cannot_be_split_is_refused_before_anything_is_made(
    experiment, tiny_release, tmp_path, monkeypatch
):
    monkeypatch.setenv('REALAUDIO_CACHE', str(tmp_path / 'cache'))
    (tmp_path / 'mine').mkdir()
    x = np.random.default_rng(0).uniform(-0.5, 0.5, 9_000)
    soundfile.write(tmp_path / 'mine' / 'dog.wav', x, 48_000)
    arguments = config_of('foley_teacher'), tmp_path / 'run', str(tmp_path / 'mine'), tiny_release
    with pytest.raises(ValueError, match='nothing is left for the split'):
        experiment('train_teacher').train(*arguments, None)
    assert not (tmp_path / 'run').exists()


def test_own_data_from_a_folder_to_a_release_that_sounds(own_data, tiny_release):
    assert own_data.names == ['train_teacher', 'pack_release', 'distill', 'sample']
    assert 'new in it: teacher' in own_data.printed
    assert 'gong.wav: 1 s at 48000 Hz' in own_data.printed
    assert soundfile.info(own_data.folder / 'gong.wav').frames == 48_000
    for line in (
        '10 sounds, 3 labels: creak, gong, steady hum',
        '1 file not read as sound: 1 .m4a',
        'left out 1 of 10 files, not readable: gong/cut.flac (damaged',
    ):
        assert own_data.logged.count(line) == 1, line  # once, however often the folder is opened
    release = Generator(own_data.folder / 'runs/my_distill/release')
    base = Generator(tiny_release)
    assert release.config.denoiser == base.config.denoiser  # not the 16 wide one of the config
    for name in ('teacher', 'student'):
        same = jax.tree.map(np.array_equal, release.params[name], base.params[name])
        assert not all(jax.tree.leaves(same))


def test_distill_run_leaves_a_release_a_table_and_a_report(own_data):
    tmp_path = own_data.folder / 'runs/my_distill'
    release = find_release(tmp_path / 'release')
    config = ReleaseConfig.read(release)
    shapes = denoiser_template(Denoiser(**config.denoiser.to_dict()))
    student = load_params(release / 'student.safetensors', shapes)
    teacher = load_params(release / 'teacher.safetensors', shapes)
    assert_finite(student)
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), student, teacher)
    assert any(jax.tree.leaves(moved))
    assert load_moments(release).keys() == {'1', '4'}
    rows = json.loads((tmp_path / 'results.json').read_text())
    made = {(row.get('model'), row.get('steps')) for row in rows}
    assert {('student', n) for n in (1, 4)} | {('teacher', n) for n in (2, 50)} <= made
    assert len(list((tmp_path / 'samples').glob('*.wav'))) == 4
    page = (tmp_path / 'report.html').read_text()
    assert '<audio' in page and 'student, 4 steps' in page
    assert {'training', 'calibration', 'evaluation'} == set(
        json.loads((tmp_path / 'seconds.json').read_text())
    )
    assert 'Student against teacher' in page and 'Student against teacher' in own_data.printed


class Scenes(MixedScenes):
    """Foley alone, and other foley in place of recordings."""

    def unmixed(self, count, seconds, seed):
        return self.mixed('held_out', count, seconds, seed)


def test_the_energy_stage_goes_part_of_the_way_and_leaves_alone_what_it_freezes(
    experiment, tiny_release, tmp_path, monkeypatch
):
    """The result lies between the student before it and after it, by the merge weight."""
    run, config = experiment('distill'), config_of('foley_distill').unlock()
    config.stages = config.stages[-1:]
    config.stages[0] |= {'frozen': 'mlp_(in|out)/', 'merge_weight': 0.7}
    config.teacher_samples.recordings, config.recordings = True, 4
    teacher = load_teacher('release', tiny_release)
    sets, ends = [], []
    take = teacher.batches
    monkeypatch.setattr(teacher, 'batches', lambda *a: sets.append(a[0]) or take(*a))
    monkeypatch.setattr(run, 'interpolate', lambda *a, go=run.interpolate: ends.append(a) or go(*a))
    setup = run.setup_of(config, teacher)
    stages = run.plan(config, setup)
    data = run.stage_data(config, teacher, stages, Scenes(), 4, tmp_path)
    between = run.distill(config, setup, stages, data, tmp_path)

    before, after, _ = ends[0]
    jax.tree.map(np.testing.assert_array_equal, before, setup.student_params)
    moved = {
        name: float(abs(a - b).max())
        for (name, a), b in zip(named_leaves(after), jax.tree.leaves(before), strict=True)
    }
    assert max(moved.values()) > 1e-5
    frozen = {name for name in moved if 'mlp_in' in name or 'mlp_out' in name}
    assert len(frozen) == 2 and max(moved[name] for name in frozen) < 1e-7  # of averaging
    for a, b, c in zip(*map(jax.tree.leaves, (before, after, between)), strict=True):
        np.testing.assert_allclose(c, 0.3 * a + 0.7 * b, atol=1e-6)
    written = [json.loads(line)['stage'] for line in (tmp_path / 'metrics.jsonl').open()]
    assert set(written) == {'energy'} and len(sets) == 1

    recorded = encode_scenes(teacher, Scenes().unmixed(4, 1.0, 0), tmp_path / 'latents').arrays
    latents = np.split(sets[0].arrays['latents'], 3)  # of the teacher, recorded, and both
    np.testing.assert_array_equal(latents[1], recorded['latents'])
    assert all((latents[2] != other).mean() > 0.9 for other in latents[:2])
    np.testing.assert_array_equal(
        sets[0].arrays['text'][4:], np.concatenate([recorded['text']] * 2)
    )


def rank_of(tree, base, name):
    """Rank of what was added to the kernels with this name; all else must be as it was."""
    ranks = []
    base = jax.tree.map(np.asarray, base)  # the two may be on other devices
    for (path, a), b in zip(named_leaves(tree), jax.tree.leaves(base), strict=True):
        a = np.asarray(a)
        values = np.linalg.svd(a - b, compute_uv=False) if a.ndim == 2 else abs(a - b).reshape(-1)
        if path.endswith(f'{name}/kernel'):
            ranks.append(int((values > 1e-3 * values[0]).sum()))
        elif a.ndim != 2:
            assert values.max() < 1e-6, path  # of averaging
    return ranks


def test_an_adapter_of_the_teacher_is_all_that_is_trained(experiment, tiny_release, tmp_path):
    run, config = experiment('train_teacher'), config_of('foley_teacher').unlock()
    generator = Generator(tiny_release)
    config.model = generator.config.denoiser.to_dict()
    config.rank, config.optimizer, config.learning_rate = 2, 'adam', 1e-2
    init = tiny_release / 'teacher.safetensors'
    after = run.train(config, tmp_path, None, tiny_release, None, init)
    before = load_params(init, after)
    assert set(rank_of(after, before, 'self_qkv')) == {2}
    saved = load_params(tmp_path / 'teacher.safetensors', after)
    jax.tree.map(np.testing.assert_array_equal, saved, after)
    config.optimizer = 'muon'
    with pytest.raises(ValueError, match='muon would change the base of an adapter; use adam'):
        run.train(config, tmp_path, None, tiny_release, None, init)

    folder, adapter = tmp_path / 'release', low_rank.extract(before, after, 2)
    save_release(folder, generator.config, {}, tiny_release)
    save_params(folder / 'teacher_adapter.safetensors', adapter)
    model = Denoiser(**config.model)
    start = run.warm_start(model, None, str(folder), None, None)
    jax.tree.map(np.testing.assert_array_equal, start, (before, adapter))
    deeper_model = model.clone(depth=model.depth + 1)
    deeper, none = run.warm_start(deeper_model, None, folder, None, None)
    assert none is None  # an adapter is of one network
    kernel = lambda tree: tree['params']['embed']['kernel']  # noqa: E731
    np.testing.assert_array_equal(kernel(deeper), kernel(low_rank.add(before, adapter)))


def test_an_adapter_of_the_student_is_all_that_is_trained(
    experiment, tiny_release, tmp_path, monkeypatch
):
    run, config = experiment('distill'), config_of('foley_distill').unlock()
    stage = dict(
        recipe='multi_teacher',
        trajectories=((1, 1, 1), (2, 1, 0)),
        data='scenes_and_recordings',
        updates=2,
        learning_rate=1e-3,
    )
    config.stages, config.rank, config.recordings = [stage], 2, 4
    generator, teacher = Generator(tiny_release), load_teacher('release', tiny_release)
    sources = [str(tiny_release), str(tiny_release / 'student.safetensors')]
    setup = run.setup_of(config, teacher, None, sources)
    for of_release, of_file in jax.tree.leaves(setup.teachers):
        np.testing.assert_array_equal(of_release, of_file)
    sets, take = [], teacher.batches
    monkeypatch.setattr(teacher, 'batches', lambda *a: sets.append(a[0]) or take(*a))
    stages = run.plan(config, setup)
    data = run.stage_data(config, teacher, stages, Scenes(), 4, tmp_path)
    assert [len(each) for each in sets] == [8]  # recordings stand beside the scenes
    after = run.distill(config, setup, stages, data, tmp_path / 'run')
    assert set(rank_of(after, generator.params['teacher'], 'self_qkv')) == {2}
    for trajectories in (((1, 1, 2),), ((2, -1, 0),)):
        config.stages = [stage | {'trajectories': trajectories}]
        with pytest.raises(ValueError, match='--multi_teacher gives 2, counted from 0'):
            run.plan(config, setup)

    folder = tmp_path / 'release'
    adapter = jax.tree.map(lambda x: x + 0.1, setup.student_params)
    save_release(folder, generator.config, {}, tiny_release)
    save_params(folder / 'student_adapter.safetensors', adapter)
    gone_on = run.setup_of(config, teacher, str(folder))
    for found, values in (
        (gone_on.base, generator.params['student']),
        (gone_on.student_params, adapter),
    ):
        jax.tree.map(np.testing.assert_array_equal, found, values)
    config.rank = 0
    whole = run.setup_of(config, teacher, str(folder)).student_params
    jax.tree.map(np.testing.assert_array_equal, whole, low_rank.add(gone_on.base, adapter))


def test_networks_packed_as_adapters_are_what_they_were(
    experiment, tiny_release, tmp_path, monkeypatch
):
    run, before = experiment('pack_release'), Generator(tiny_release).params
    trained = {}
    for i, name in enumerate(('teacher', 'student')):
        adapter = low_rank.init(jax.random.key(i), before[name], 2)
        adapter = jax.tree.map(lambda x: x + 0.1, adapter)
        trained[name] = low_rank.merge(before[name], adapter)

    def flag(value):
        return type('Flag', (), {'value': value})

    def pack(base, folder, networks, rank=2, scale=0.0, merge=False):
        files = dict.fromkeys(('autoencoder', 'teacher', 'student', 'audio_tower'))
        for name, params in networks.items():
            files[name] = tmp_path / f'{name}.safetensors'
            save_params(files[name], params)
        monkeypatch.setattr(run, '_FILES', {stem: flag(value) for stem, value in files.items()})
        settings = {'_BASE': base, '_OUT': tmp_path / folder, '_RANK': rank}
        settings |= {'_TEACHER_ADAPTER': scale, '_MERGE': merge, '_LABELS': None, '_LICENCE': None}
        settings |= {'_DTYPE': 'int8'}
        for name, value in settings.items():
            monkeypatch.setattr(run, name, flag(value))
        run.main([])
        for name in ('teacher', 'student') if rank else ():
            file = f'{name}.safetensors'
            assert (tmp_path / folder / file).read_bytes() == (tiny_release / file).read_bytes()
        return Generator(tmp_path / folder).params

    def difference(a, b):
        return max(jax.tree.leaves(jax.tree.map(lambda x, y: abs(x - y).max(), a, b)))

    origin = attribution.Origin('x/1.wav', 'CC-BY-NC-3.0', 'Ann', 'https://x.org')
    attribution.write_origins(tmp_path, [origin])
    rounding = 0.02 * difference(trained['student'], before['student'])
    packed = pack(tiny_release, 'one', trained)
    assert '| Ann | CC-BY-NC-3.0 |' in (tmp_path / 'one' / 'ATTRIBUTION.md').read_text()
    assert all(difference(packed[name], trained[name]) < rounding for name in trained)
    gained = low_rank.extract(before['teacher'], packed['teacher'], 2)
    wanted = low_rank.add(packed['student'], gained)
    shared = pack(tiny_release, 'two', trained, scale=1.0)['student']
    assert difference(shared, wanted) < rounding < difference(shared, packed['student'])
    own = low_rank.extract(before['student'], packed['student'], 2)
    further = {'student': low_rank.add(shared, own)}
    packed = pack(tmp_path / 'two', 'three', further)['student']
    assert difference(packed, further['student']) < 2 * rounding
    whole = pack(tmp_path / 'two', 'four', further, rank=0)['student']
    assert difference(whole, further['student']) < 0.02 * difference(whole, before['student'])
    with pytest.raises(ValueError, match="contains its teacher's adapter: pack it with --merge"):
        pack(tmp_path / 'two', 'five', {'teacher': trained['teacher']})

    before = Generator(tmp_path / 'two').params
    merged = pack(tmp_path / 'two', 'six', {}, rank=0, merge=True)
    assert not list((tmp_path / 'six').glob('*_adapter.safetensors'))
    for name in ('teacher', 'student'):
        largest = max(float(abs(x).max()) for x in jax.tree.leaves(before[name]))
        assert difference(merged[name], before[name]) < 0.01 * largest
    with pytest.raises(ValueError, match='give one of them'):
        pack(tmp_path / 'two', 'seven', {}, merge=True)

    pack(tmp_path / 'two', 'eight', {'student': shared})
    kept, were = (
        read_tensors(tmp_path / folder / 'student_adapter.safetensors')
        for folder in ('eight', 'two')
    )
    jax.tree.map(np.testing.assert_array_equal, kept, were)

    base, ones = tmp_path / 'two', np.ones(64, np.float32)
    moments = {str(n): {'gain': n * ones, 'shift': ones} for n in (1, 2, 4, 8)}
    save_params(base / MOMENTS_NAME, moments)
    config, chosen = ReleaseConfig.read(base), {'guidance': 2.5, 'grid_powers': ((4, 2.0),)}
    student = dataclasses.replace(config.student, **chosen)
    dataclasses.replace(config, student=student).write(base)
    pack(base, 'nine', {}, rank=0, merge=True)
    pack(base, 'ten', {'student': shared})
    for folder, same in (('nine', True), ('ten', False)):
        told = ReleaseConfig.read(tmp_path / folder).student
        assert bool(load_moments(tmp_path / folder)) is same
        kept = chosen if same else {'guidance': None, 'grid_powers': ()}
        assert {key: getattr(told, key) for key in chosen} == kept
    jax.tree.map(np.testing.assert_array_equal, load_moments(tmp_path / 'nine'), moments)
