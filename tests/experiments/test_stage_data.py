"""Batches of a distillation's stages: those on the same data continue one another's."""

import json

import tiny

from configs import foley_distill


class Counting:
    """Batches that say whose they are and which; none when it is told to stop."""

    def __init__(self, name):
        self.name, self.done = name, 0

    def __next__(self):
        self.done += 1
        return {'batch': f'{self.name} {self.done}'}

    def get_state(self):
        return self.done

    def set_state(self, state):
        self.done = state


def test_a_stage_takes_its_own_batches_and_all_go_on_where_they_were(experiment):
    run = experiment('distill')
    config = foley_distill.get_config('test').unlock()
    config.stages = [
        dict(recipe='scm', updates=3, learning_rate=1e-4, **more)
        for more in ({}, {'data': 'teacher_samples'}, {}, {'batch_size': 5})
    ]
    stages = run.plan(config, tiny.setup_without_networks())
    names = {stage.batches for stage in stages}
    assert len(names) == 3

    def take(data, stages):
        return [data.next(stage)['batch'] for stage in stages]

    data = run.StageData({name: Counting(name) for name in names})
    assert take(data, stages * 2) == [
        'scenes, 2 1',
        'teacher_samples, 2 1',
        'scenes, 2 2',
        'scenes, 5 1',
        'scenes, 2 3',
        'teacher_samples, 2 2',
        'scenes, 2 4',
        'scenes, 5 2',
    ]
    again = run.StageData({name: Counting(name) for name in names})
    again.set_state(json.loads(json.dumps(data.get_state())))
    assert take(again, stages) == take(data, stages)
