"""Tiny random teachers of other people, in the layouts of their authors, distilled end to end."""

import importlib
import json
import pathlib

import jax
import numpy as np
import pytest
import tiny_audioldm2
import tiny_stable_audio_3
import tiny_teacher
from absl import flags
from absl.testing import flagsaver

from realaudio_jax.metrics.evaluation.run import finish_run
from realaudio_jax.teachers import load_teacher
from realaudio_jax.trees import named_leaves

# 1 s of sound, and attention in the middle alone, which compiles much sooner.
UNET = {
    'sample_size': 50,
    'down_block_types': ['DownBlock2D'] * 2,
    'up_block_types': ['UpBlock2D'] * 2,
}
WRITERS = {
    'stable_audio_open': tiny_teacher.write_stable_audio_open,
    'audioldm2': lambda folder: tiny_audioldm2.write(folder, **UNET),
    'stable_audio_3': tiny_stable_audio_3.write,
}


@pytest.fixture
def main(experiment, monkeypatch):
    """`main(config, workdir, teacher)` runs the experiment as its command line would."""
    run = experiment('distill')
    flags.FLAGS.mark_as_parsed()

    def go_on(module, *arguments):
        assert module == 'experiments.evaluate' and arguments[0].startswith('--run=')
        finish_run(pathlib.Path(arguments[0].removeprefix('--run=')))

    monkeypatch.setattr(run, 'go_on_as', go_on)

    def call(config, workdir, teacher):
        values = dict(CONFIG=config, TEACHER=teacher, RECORDINGS=None)
        monkeypatch.setattr(run, 'run_workdir', lambda: str(workdir))
        for name, value in values.items():
            monkeypatch.setattr(run, f'_{name}', type('Flag', (), {'value': value}))
        run.main([])

    return call


def config_of(name):
    return importlib.import_module(f'configs.{name}').get_config('test')


@pytest.mark.parametrize('name', WRITERS)
def test_a_student_of_a_teacher(main, tmp_path, name):
    folder = WRITERS[name](tmp_path / 'teacher')
    main(config_of(f'distill_{name}'), tmp_path / 'run', str(folder))

    model = load_teacher(name, folder)
    student = model.load_student(tmp_path / 'run' / 'student')
    begun, _ = model.initial_student()
    assert jax.tree.map(np.shape, student.params) == jax.tree.map(np.shape, begun)
    for path, leaf in jax.tree_util.tree_flatten_with_path(student.params)[0]:
        assert np.isfinite(leaf).all()
        if 'step_size' in str(path) or 'guidance_scale' in str(path):
            assert (leaf != 0).any()
    moved = jax.tree.leaves(jax.tree.map(lambda a, b: (a != b).any(), student.params, begun))
    assert np.mean(moved) > 0.7  # some have no gradient at all: softmax does not see a key's bias
    rows = json.loads((tmp_path / 'run' / 'results.json').read_text())
    made = {(row['model'], row['steps']) for row in rows}
    assert made == {('student', 2), ('teacher', 2)}
    assert all(row['n'] == 2 and -1 <= row['value'] <= 1 for row in rows)

    sound = model.generate(['rain'], 0.5, 2, 2.0, student=student)
    assert sound.shape[:2] == (1, int(0.5 * model.sample_rate)) and np.isfinite(sound).all()
    with pytest.raises(ValueError, match='3 steps with guidance 2: the student was trained for 2 '):
        model.generate(['rain'], 0.5, 3, 2.0, student=student)


def test_config_and_flag_belong_together(main, tmp_path):
    with pytest.raises(ValueError, match='give its folder with --teacher'):
        main(config_of('distill_stable_audio_open'), tmp_path, None)
    with pytest.raises(ValueError, match='distils the teacher of a release'):
        main(config_of('foley_distill'), tmp_path, 'somewhere')


def test_flags_that_a_pretrained_teacher_ignores_are_refused(main, tmp_path):
    with flagsaver.flagsaver(release='mine', embedder_weights='weights'):
        with pytest.raises(ValueError, match='no use of --release, --embedder_weights; leave'):
            main(config_of('distill_stable_audio_open'), tmp_path, 'somewhere')


def test_an_adapter_of_a_pretrained_student_is_all_that_is_trained(main, tmp_path):
    folder = WRITERS['stable_audio_open'](tmp_path / 'teacher')
    config = config_of('distill_stable_audio_open').unlock()
    config.rank, config.stages = 2, config.stages[-2:-1]
    main(config.lock(), tmp_path / 'run', str(folder))
    model = load_teacher('stable_audio_open', folder)
    student, (begun, _) = model.load_student(tmp_path / 'run' / 'student'), model.initial_student()
    ranks = {}
    for (path, a), b in zip(named_leaves(student.params), jax.tree.leaves(begun), strict=True):
        if a.ndim == 2 and min(a.shape) > 4:
            values = np.linalg.svd(np.asarray(a) - np.asarray(b), compute_uv=False)
            ranks[path] = int((values > 1e-3 * max(values[0], 1e-6)).sum())
        else:
            np.testing.assert_array_equal(a, b, err_msg=path)
    # A kernel that sees one vector, as of one duration in all items, moves by rank 1.
    assert {2} <= set(ranks.values()) <= {1, 2}, ranks
