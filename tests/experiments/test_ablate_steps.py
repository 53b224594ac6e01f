import csv
import json
import sys

import pytest

from realaudio_jax.metrics.evaluation.generate import SamplerConfig
from realaudio_jax.metrics.rows import REAL, RECONSTRUCTION


@pytest.fixture
def run(experiment, monkeypatch):
    """The experiment with figures that cost nothing: distance 8 / steps, 10 ms an evaluation."""
    module = experiment('ablate_steps')
    names = {'kad': 'kernel distance', 'fad': 'Frechet distance'}

    def evaluate(
        generator,
        scenes,
        samplers,
        tower,
        embedders,
        others,
        reference,
        seed,
        distances,
        latency_repeats,
        comparisons,
        progress,
    ):
        assert reference == SamplerConfig('teacher', 4) and len(scenes) == len(others)
        assert (
            comparisons
            == [(SamplerConfig('student', 4), SamplerConfig('teacher', 2))][: len(comparisons)]
        )
        name = names[distances[-1]]
        distance = {'name': name, 'unit': '', 'n': len(scenes), 'embedder': 'audio tower (x)'}
        rows = [
            distance | {'value': 0.5, 'model': REAL},
            distance | {'value': 0.8, 'model': RECONSTRUCTION},
        ]
        for sampler in samplers:
            columns = sampler.columns(generator)
            rows += [
                distance | columns | {'value': 8 / sampler.steps},
                {'name': 'NFE', 'value': sampler.nfe} | columns,
            ]
            if latency_repeats:
                time = {'name': 'time per sound', 'value': 10.0 * sampler.nfe, 'unit': 'ms'}
                rows.append(time | columns)
        return rows

    monkeypatch.setattr(module, 'evaluate_release', evaluate)
    monkeypatch.setattr(module, 'held_out_scenes', lambda r, n, *rest: ([None] * n, [None] * n))
    return module


def test_tables_and_plot(run, tiny_release, tmp_path):
    run.ablate(str(tiny_release), None, None, 2, 1.0, [1, 2], [1, 4], 0, tmp_path)
    rows = json.loads((tmp_path / 'results.json').read_text())
    assert all(row['release'] == 'tiny' and row['sounds'] == 'foley' for row in rows)
    with open(tmp_path / 'steps.csv') as file:
        wide = list(csv.DictReader(file))
    found = [(r['model'], r['steps'], r['NFE'], r['kernel distance, audio tower']) for r in wide]
    assert found == [
        (REAL, '', '', '0.5'),
        (RECONSTRUCTION, '', '', '0.8'),
        ('student', '1', '1', '8.0'),
        ('student', '2', '2', '4.0'),
        ('teacher', '1', '2', '8.0'),
        ('teacher', '4', '8', '2.0'),
    ]
    assert (tmp_path / 'steps.png').read_bytes().startswith(b'\x89PNG')
    assert (tmp_path / 'results.md').is_file()


def test_samplers_of_the_teacher_and_guidance_scales(run, tiny_release, tmp_path, monkeypatch):
    """Scales are tried at their step counts alone, and not twice where one is the release's own."""
    panels = []
    close = run.plt.close
    monkeypatch.setattr(
        run.plt, 'close', lambda figure: panels.append(len(figure.axes)) or close(figure)
    )
    methods, own = ('ddim', 'dpm_solver_pp_2m'), 2.0
    arguments = (str(tiny_release), None, None, 2, 1.0, [1, 4], [2, 4], 0, tmp_path)
    run.ablate(*arguments, methods, [1.0, own, 4.0], [4])
    with open(tmp_path / 'steps.csv') as file:
        wide = [r for r in csv.DictReader(file) if r['steps']]
    found = {(r['model'], r['sampler'], int(r['steps']), float(r['guidance'])) for r in wide}
    assert len(found) == len(wide)
    wanted = {('student', 'ddim', n, own) for n in (1, 4)}
    wanted |= {('teacher', method, n, own) for method in methods for n in (2, 4)}
    models = [('student', 'ddim'), *(('teacher', method) for method in methods)]
    assert found == wanted | {(*model, 4, scale) for model in models for scale in (1.0, 4.0)}
    assert panels == [3]


def test_a_student_is_sampled_at_counts_that_it_was_not_trained_for_where_that_is_asked(
    run, tiny_release, tmp_path, monkeypatch
):
    """Without times, which leaves their panel out."""
    labels = []
    close = run.plt.close
    monkeypatch.setattr(
        run.plt,
        'close',
        lambda figure: labels.extend(a.get_xlabel() for a in figure.axes) or close(figure),
    )
    arguments = (str(tiny_release), None, None, 2, 1.0, [3, 4, 16], [2, 4], 0, tmp_path)
    run.ablate(*arguments, untrained_steps=True, times=False)
    with open(tmp_path / 'steps.csv') as file:
        wide = [r for r in csv.DictReader(file) if r['model'] == 'student']
    assert [(r['steps'], r['kernel distance, audio tower']) for r in wide] == [
        ('3', str(8 / 3)),
        ('4', '2.0'),
        ('16', '0.5'),
    ]
    assert labels == ['denoiser evaluations']


@pytest.mark.parametrize(('count', 'drawn'), [(4, 'kernel distance'), (64, 'Frechet distance')])
def test_a_frechet_distance_is_drawn_from_enough_scenes_alone(
    run, tiny_release, tmp_path, monkeypatch, capsys, count, drawn
):
    labels = []
    close = run.plt.close
    monkeypatch.setattr(
        run.plt,
        'close',
        lambda figure: (
            labels.append(([row[0].get_ylabel() for row in [figure.axes]], figure.get_supxlabel()))
            or close(figure)
        ),
    )
    run.ablate(str(tiny_release), None, None, count, 1.0, [2, 4], [2, 4], 0, tmp_path)
    (((label,), note),) = labels
    assert label == f'{drawn}, audio tower'
    assert ('4 scenes are too few for a Frechet distance' in note) == (count == 4)
    assert (note in capsys.readouterr().err) and (bool(note) == (count == 4))


@pytest.mark.parametrize(
    ('arguments', 'part'),
    [
        ('--teacher_samplers=euler', "--teacher_steps and --teacher_samplers: .*'euler'; choose"),
        ('--teacher_samplers=', '--teacher_samplers=: give one or more'),
        ('--teacher_samplers=ddim,ddim', 'each once'),
        ('--teacher_steps=0', '--teacher_steps and .*steps is 0'),
        ('--teacher_steps=', '--teacher_steps=: give one or more'),
        ('--student_steps=3', '--student_steps: the student has no 3 steps'),
        ('--student_steps=2,2', '--student_steps=2,2: .*each once'),
        ('--student_steps=two', '--student_steps=two: give whole numbers'),
        ('--guidance=nan', '--guidance: guidance_scale is nan; choose 1 to 4'),
        ('--guidance=-5', '--guidance: guidance_scale is -5'),
        ('--guidance=1e9', '--guidance: guidance_scale is 1e'),
        ('--guidance=3 --guidance_steps=7', '--guidance_steps, but 7 is no step count here'),
        ('--guidance=2', "--guidance is .*all are a model's own"),
        ('--metrics=kad,kad', 'metrics kad, kad: give each once'),
        ('--seconds=nan', '--seconds=nan'),
        ('--seed=-1', 'seed'),
    ],
)
def test_what_cannot_be_measured_is_refused_before_any_scene(
    run, tiny_release, monkeypatch, arguments, part
):
    monkeypatch.setattr(run, 'held_out_scenes', lambda *_: pytest.fail('scenes were made'))
    argv = ['ablate_steps', f'--release={tiny_release}', *arguments.split()]
    with pytest.raises(ValueError, match=part) as caught:
        sys.modules['experiments.common'].parse_flags(argv)
        run.main(argv[:1])
    assert '\n' not in str(caught.value)
