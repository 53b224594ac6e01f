"""Stages of a distillation run, as a config lists them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from configs import foley_distill
from realaudio_jax.distillation import Consistency, ContinuousConsistency, Energy, Progressive
from realaudio_jax.distillation.recipe import WeightedSum
from realaudio_jax.distillation.stages import plan, stage_settings

SETUP = tiny.setup_without_networks()


@pytest.fixture
def config():
    return foley_distill.get_config('test').unlock()


def assert_same(found, wanted):
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_the_stages_of_the_config_are_those_built_by_hand(config):
    stages = plan(config, SETUP)
    shared = dict(
        student=SETUP.student, teacher=SETUP.teacher, path=SETUP.path, guidance_range=(1.0, 4.0)
    )
    consistency = Consistency(jnp.float32(1 / 32), segments=(1, 2, 4, 8), **shared)
    score = Energy(SETUP.student, SETUP.path, segments=(1, 2))
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
    assert [s.batches for s in stages] == ['scenes, 2'] * 3 + ['teacher_samples, 2']


def test_a_stage_by_name_and_what_is_refused(config):
    scm = dict(recipe='scm', updates=3, learning_rate=1e-4, segments=[1, 4])

    def planned(*stages):
        config.stages = list(stages)
        return plan(config, SETUP)

    (stage,) = planned(scm)
    assert isinstance(stage.recipe, ContinuousConsistency) and stage.recipe.segments == (1, 4)
    assert stage.name == 'scm' and stage.batches == 'scenes, 2'
    samples = scm | dict(data='teacher_samples', batch_size=4)
    assert [s.batches for s in planned(samples, scm)] == ['teacher_samples, 4', 'scenes, 2']
    lacking = [dict(recipe='scm', learning_rate=1e-4)]
    for stages, part in (
        (lacking, 'lacks updates'),
        ([dict(recipe='scm', updates=1)], 'lacks learning_rate'),
        ([scm | dict(target='average student')], "target is 'average student'"),
        ([scm | dict(data='recordings')], "data is 'recordings', use one of 'scenes', "),
        ([scm | dict(merge_weight=0.5), scm], 'only the last stage'),
        ([scm | dict(segment=2)], "no setting 'segment'"),
        ([scm | dict(recipe={'scm': {}})], 'segments belongs to one recipe of the sum'),
        ([scm | dict(recipe=5)], 'recipe is 5; give a name'),
        ([scm | dict(recipe=['scm'])], 'recipe is .*scm.*; give a name'),
        ([scm | dict(updates=-1)], "'scm': updates is -1, give a whole number, 0 or more"),
        ([scm | dict(updates=2.5)], 'updates is 2.5, give a whole number'),
        ([scm | dict(learning_rate=-1e-4)], 'learning_rate is -0.0001, give a number, 0 to 1'),
        ([scm | dict(learning_rate=float('nan'))], 'learning_rate is nan'),
        ([scm | dict(batch_size=0)], 'batch_size is 0'),
    ):
        with pytest.raises(ValueError, match=part) as caught:
            planned(*stages)
        if part != 'only the last stage':  # the others need no network
            with pytest.raises(ValueError, match=part):
                stage_settings(stages[0], 2)
        assert '\n' not in str(caught.value)
