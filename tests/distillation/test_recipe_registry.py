"""Recipes by name: every module of the package, classes of others, and what is refused."""

import pathlib

import jax
import numpy as np
import pytest
import toys

from realaudio_jax import distillation
from realaudio_jax.distillation import registry

AVAILABLE = dict(
    student=toys.linear_student,
    teacher=toys.gaussian_teacher,
    path=toys.PATH,
    guidance_range=(1.0, 4.0),
    teachers=None,
)


def test_every_recipe_of_the_package_has_a_name_and_is_exported():
    folder = pathlib.Path(distillation.__file__).parent
    named = {}
    for file in folder.glob('*.py'):
        if '    def loss(' in file.read_text() and file.stem != 'recipe':
            named[file.stem] = registry.recipe_class(file.stem)
    assert sorted(named) == sorted(distillation.RECIPES) and len(named) >= 10
    for recipe in named.values():
        assert getattr(distillation, recipe.__name__) is recipe
        assert recipe.__name__ in distillation.__all__


def test_settings_become_fields_in_the_form_that_steps_take():
    made = registry.make('consistency', AVAILABLE, teacher_step=0.05, segments=[1, 4])
    assert made.segments == (1, 4) and made.guidance_range == (1.0, 4.0)
    assert isinstance(made.teacher_step, jax.Array)  # an argument of the step, not a constant
    assert hash(jax.tree.structure(made)) is not None
    energy = registry.make('energy', AVAILABLE, windows=[[4, None]])
    assert energy.windows == ((4, None),) and not hasattr(energy, 'teacher')
    own = registry.make('consistency', AVAILABLE, teacher_step=1, guidance_range=(2.0, 2.0))
    assert own.guidance_range == (2.0, 2.0)


def test_a_dotted_path_and_a_weighted_sum_are_what_they_name():
    by_path = registry.make('realaudio_jax.distillation.scm.ContinuousConsistency', AVAILABLE)
    by_name = registry.make('scm', AVAILABLE)
    assert by_path == by_name
    both = registry.make_sum(
        {'scm': {'weight': 0.5}, 'consistency': {'teacher_step': 0.1}}, AVAILABLE
    )
    loss, metrics = both.loss(0.7, 0.6, 1.0, toys.batch(), jax.random.key(0))
    want = 0.5 * metrics['scm_loss'] + metrics['consistency_loss']
    np.testing.assert_allclose(np.mean(loss), want, rtol=1e-6)


@pytest.mark.parametrize(
    'name, settings, part',
    [
        ('scn', {}, "no recipe 'scn': did you mean 'scm'"),
        ('distillation', {}, "no recipe 'distillation': use one of arc, consistency, .*scm"),
        ('realaudio_jax.noise.CosinePath', {}, 'no dataclass with a method `loss`'),
        ('multi_teacher', {'trajectories': ((1, 0, 0),)}, '--multi_teacher gives 0'),
        ('scm', {'segment': (1,)}, "has no setting 'segment': did you mean 'segments'"),
        ('ctm', {}, "recipe 'ctm' needs teacher_step"),
        ('energy', {'segments': 4}, 'cannot have segments=4; give a value like \\(1, 2, 4\\)'),
        ('energy', {'segments': (0,)}, 'cannot have segments=\\(0,\\)'),
        ('energy', {'segments': ()}, 'cannot have segments=\\(\\)'),
        ('energy', {'backprop_steps': 0}, 'cannot have backprop_steps=0; give a value like 2'),
        ('energy', {'windows': ((4, 0),)}, 'cannot have windows'),
        ('progressive', {'student_steps': 4, 'from_teacher': 1}, 'cannot have from_teacher=1'),
        ('dmd', {'fake_rate': float('inf')}, 'cannot have fake_rate=inf'),
        ('scm', {'guidance_range': (1.0,)}, 'cannot have guidance_range'),
    ],
)
def test_what_cannot_be_made_is_refused_in_one_line(name, settings, part):
    with pytest.raises(ValueError, match=part) as caught:
        registry.make(name, AVAILABLE, **settings)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
    'parts, part',
    [
        ({'energy': 0.5}, "'energy' of a sum is 0.5; give its settings by name"),
        ({'scm': {'weight': '1'}}, "weight of recipe 'scm' is '1'"),
        ({'scm': {'segments': 4}}, 'cannot have segments=4'),
        ({}, 'no recipes'),
    ],
)
def test_what_is_no_sum_is_refused_in_one_line(parts, part):
    with pytest.raises(ValueError, match=part):
        registry.make_sum(parts, AVAILABLE)
