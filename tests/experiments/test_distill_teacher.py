"""A tiny random Stable Audio Open, in the layout of its authors, distilled end to end."""

import importlib
import json

import jax
import numpy as np
import pytest
import tiny_teacher

from realaudio_jax.teachers.stable_audio_open.pipeline import load


@pytest.fixture
def main(experiment, monkeypatch):
    """`main(config, workdir, teacher)` runs the experiment as its command line would."""
    run = experiment('distill')

    def call(config, workdir, teacher):
        values = dict(CONFIG=config, WORKDIR=workdir, TEACHER=teacher, RECORDINGS=None)
        for name, value in values.items():
            monkeypatch.setattr(run, f'_{name}', type('Flag', (), {'value': value}))
        run.main([])

    return call


def config_of(name):
    return importlib.import_module(f'configs.{name}').get_config('test')


def test_a_student_of_stable_audio_open(main, tmp_path):
    folder = tiny_teacher.write_stable_audio_open(tmp_path / 'teacher')
    main(config_of('distill_stable_audio_open'), tmp_path / 'run', str(folder))

    model = load(folder)
    student = model.load_student(tmp_path / 'run' / 'student')
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(student.params))
    assert (student.params['transformer']['step_size']['kernel'] != 0).any()
    moved = student.params['transformer']['embed']['kernel']
    assert (moved != model.params['transformer']['embed']['kernel']).any()
    rows = json.loads((tmp_path / 'run' / 'results.json').read_text())
    made = {(row['model'], row['steps']) for row in rows}
    assert made == {('student', 2), ('teacher', 2)}
    assert all(row['n'] == 2 and -1 <= row['value'] <= 1 for row in rows)

    sound = model.generate(['rain'], 0.5, steps=2, guidance=2.0, student=student)
    assert sound.shape == (1, 5512, 2) and np.isfinite(sound).all()
    with pytest.raises(ValueError, match='3 steps with guidance 2: the student was trained for 2 '):
        model.generate(['rain'], 0.5, steps=3, guidance=2.0, student=student)


def test_config_and_flag_belong_together(main, tmp_path):
    with pytest.raises(ValueError, match='give its folder with --teacher'):
        main(config_of('distill_stable_audio_open'), tmp_path, None)
    with pytest.raises(ValueError, match='distils the teacher of a release'):
        main(config_of('foley_distill'), tmp_path, 'somewhere')
