"""Stages of a distillation run: from a config's fields, and from its list."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import foley_distill
from realaudio_jax.distillation import Consistency, ContinuousConsistency, Energy, Progressive
from realaudio_jax.distillation.recipe import WeightedSum
from realaudio_jax.noise import CosinePath

SUBJECT = types.SimpleNamespace(
    student=lambda *given: None, teacher=lambda *given: None, path=CosinePath(), teachers=None
)


@pytest.fixture
def config():
    return foley_distill.get_config('test').unlock()


def assert_same(found, wanted):
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_fields_of_the_config_are_the_stages_built_by_hand(experiment, config):
    stages = experiment('distill').plan(config, SUBJECT)
    shared = dict(
        student=SUBJECT.student, teacher=SUBJECT.teacher, path=SUBJECT.path,
        guidance_range=(1.0, 4.0),
    )  # fmt: skip
    consistency = Consistency(jnp.float32(1 / 32), segments=(1, 2, 4, 8), **shared)
    score = Energy(SUBJECT.student, SUBJECT.path, segments=(1, 2))
    wanted = {
        'progressive 4': Progressive(jnp.int32(4), ratio=1, from_teacher=True, **shared),
        'progressive 2': Progressive(jnp.int32(2), ratio=2, from_teacher=False, **shared),
        'consistency': consistency,
        'energy': WeightedSum(
            {'energy': jnp.float32(1.0), 'consistency': jnp.float32(1.0)},
            {'energy': score, 'consistency': consistency.replace(segments=(4, 8))},
        ),
    }
    assert [stage.name for stage in stages] == list(wanted)
    for stage in stages:
        assert_same(stage.recipe, wanted[stage.name])
    assert [s.learning_rate for s in stages] == [3e-4, 3e-4, 4e-4, 2e-4]
    assert [s.target_is_average for s in stages] == [False, False, True, True]
    assert [s.merge_weight for s in stages] == [1.0, 1.0, 1.0, 0.8]
    assert [s.updates for s in stages] == [2, 2, 2, 2]


def test_a_list_of_stages_is_what_the_fields_describe(experiment, config):
    run = experiment('distill')
    by_fields = run.plan(config, SUBJECT)
    assert run.takes_samples(config) and run.updates_on_scenes(config) == 6
    config.stages = [dict(stage) for stage in run.settings_of(config)]
    config.progressive.updates = config.consistency.updates = config.energy.updates = 0
    by_list = run.plan(config, SUBJECT)
    assert run.takes_samples(config) and run.updates_on_scenes(config) == 6
    for a, b in zip(by_list, by_fields, strict=True):
        assert_same(a.recipe, b.recipe)
        assert a.__dict__ | {'recipe': None} == b.__dict__ | {'recipe': None}


def test_a_stage_by_name_and_what_is_refused(experiment, config):
    run = experiment('distill')
    scm = dict(recipe='scm', updates=3, learning_rate=1e-4, segments=[1, 4])

    def plan(*stages):
        config.stages = list(stages)
        return run.plan(config, SUBJECT)

    (stage,) = plan(scm)
    assert isinstance(stage.recipe, ContinuousConsistency) and stage.recipe.segments == (1, 4)
    assert stage.name == 'scm' and not run.takes_samples(config)
    samples = scm | dict(data='teacher_samples')
    assert len(plan(samples | dict(updates=0), scm, samples)) == 3  # no updates, no data
    assert run.takes_samples(config) and run.updates_on_scenes(config) == 3
    lacking = [dict(recipe='scm', learning_rate=1e-4)]
    for stages, part in (
        (lacking, 'lacks updates'),
        ([dict(recipe='scm', updates=1)], 'lacks learning_rate'),
        ([scm | dict(target='average student')], "target is 'average student'"),
        ([scm | dict(data='recordings')], "'recordings' after 'scenes'"),
        ([samples, scm], "'scenes' after 'teacher_samples'"),
        ([scm | dict(merge_weight=0.5), scm], 'only the last stage'),
        ([scm | dict(segment=2)], "no setting 'segment'"),
        ([scm | dict(recipe={'scm': {}})], 'segments belongs to one recipe of the sum'),
    ):
        with pytest.raises(ValueError, match=part) as caught:
            plan(*stages)
        assert '\n' not in str(caught.value)
