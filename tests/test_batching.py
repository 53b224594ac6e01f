"""Requests from JSON, batches of one size, and the queue that one thread serves."""

import threading

import numpy as np
import pytest

import realaudio_jax
from realaudio_jax import batching

FIELDS = {'prompt': 'rain', 'seconds': 0.5, 'steps': 1}


@pytest.fixture(scope='module')
def generator(tiny_release):
    return realaudio_jax.load(tiny_release, log=lambda line: None)


def prepare(generator, **fields):
    return batching.prepare(generator, FIELDS | fields)


@pytest.mark.parametrize(
    ('text', 'said'),
    [
        ('{"prompt": "rain"', 'not JSON'),
        (b'{"prompt": "\xff"}', 'not UTF-8'),
        ('[' * 100_000, 'nested too deeply'),
        ('["rain"]', 'a JSON list; write an object'),
        ('null', 'a JSON null'),
        ('{"secnds": 2}', "unknown key 'secnds'; did you mean 'seconds'?"),
        ('{"zzz": 2}', "unknown key 'zzz'; there are prompt, "),
        ('{"num_variations": 2}', 'unknown key'),
        ('{"seed": 1, "seed": 2}', "'seed' is there twice"),
        ('{"seconds": NaN}', 'NaN is no number'),
        ('{"seed": 1' + '0' * 5_000 + '}', 'not JSON'),
    ],
)
def test_what_is_no_request_is_one_line(text, said):
    with pytest.raises(ValueError, match='(?s)^[^\n]*$') as caught:
        batching.read_fields(text)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ('fields', 'said'),
    [
        ({'prompt': ['rain', 'wind']}, 'give one text'),
        ({'prompt': None}, 'give one text'),
        ({'seed': [1]}, 'give one number'),
        ({'seed': 0.5}, 'give a whole number'),
        ({'seed': True}, 'give one number'),
        ({'steps': 10**20}, 'choose 1 to 1000'),
        ({'loudness': -99}, 'loudness is -99'),
        ({'loudness_db': ['a']}, 'loudness_db'),
        ({'keep': [[0]]}, 'keep is'),
        ({'events': 3}, 'events are of type int'),
        ({'prompt': ' '}, 'nothing to make'),
        ({'seconds': '2'}, 'seconds is'),
        ({'steps': 3}, 'the student has no 3 steps'),
        ({'loudness': [1]}, 'loudness is'),
        ({'sampler': {}}, 'give one text'),
        ({'sampler': 'x'}, 'not sampled with'),
        ({'model': 'x'}, 'choose student or teacher'),
        ({'keep': 1}, 'keep is 1'),
        ({'events': 'gunshot@0.4-2'}, 'outside the clip'),
        ({'curves': {'pitch': 1}}, 'pitch must hold numbers'),
        ({'curves': [1]}, 'curves are of type list'),
    ],
)
def test_a_value_out_of_range_is_a_value_error(generator, fields, said):
    with pytest.raises(ValueError) as caught:
        prepare(generator, **fields)
    assert said in str(caught.value)


def test_requests_of_one_program_and_common_arguments_are_one_group(generator):
    base = batching.group_of(prepare(generator))
    alike = [{'prompt': 'wind'}, {'seed': 7}, {'events': 'gunshot@0.1-0.3'}]
    others = [{'seconds': 0.6}, {'steps': 2}, {'loudness': -20}, {'prompt': 'rain and ' * 9}]
    others.append({'init_audio': np.ones((9, 2), np.float32), 'strength': 0.5})
    assert all(batching.group_of(prepare(generator, **fields)) == base for fields in alike)
    groups = [batching.group_of(prepare(generator, **fields)) for fields in others]
    assert len({base, *groups}) == 6


def test_a_sound_is_the_same_whatever_is_made_beside_it(generator):
    one, two, three = (prepare(generator, prompt=p, seed=9) for p in ('rain', 'wind', 'dogs'))
    single = [batching.run_batch(generator, [x], 1)[0].pcm for x in (one, two)]
    for fields, pcm in zip(('rain', 'wind'), single, strict=True):
        offline = generator.generate(fields, seconds=0.5, steps=1, seed=9)
        np.testing.assert_array_equal(offline.pcm, pcm)
    alone, beside, behind = (
        batching.run_batch(generator, batch, 2) for batch in ([one], [one, two], [three, one])
    )
    np.testing.assert_array_equal(alone[0].pcm, beside[0].pcm)
    np.testing.assert_array_equal(alone[0].pcm, behind[1].pcm)
    assert [len(x) for x in (alone, beside)] == [1, 2] and np.ptp(alone[0].pcm) > 100


def test_what_fails_in_a_batch_fails_alone(generator, monkeypatch):
    real = generator.run

    def run(prepared):
        if 'bad' in prepared.call.prompts:
            raise FloatingPointError('the sound is not finite')
        return real(prepared)

    monkeypatch.setattr(generator, 'run', run)
    results = batching.run_batch(generator, [prepare(generator, prompt=p) for p in ('a', 'bad')], 2)
    assert isinstance(results[0], realaudio_jax.Sound)
    assert isinstance(results[1], FloatingPointError)


SILENCE = realaudio_jax.Sound(
    np.zeros((9, 2), np.int16), 48_000, 0.0, -70.0, True, 0, np.zeros((1, 64))
)


class FakeDevice:
    """Stands in for `run_batch`: records batches, and holds the first until it is let go."""

    def __init__(self, monkeypatch):
        self.batches, self.go, self.busy = [], threading.Event(), threading.Event()
        monkeypatch.setattr(batching, 'run_batch', self.run)

    def run(self, generator, batch, size):
        self.busy.set()
        assert self.go.wait(20)
        self.batches.append([x.call.prompt for x in batch])
        sounds = {x.call.prompt: SILENCE for x in batch} | {'bad': ValueError('no')}
        return [sounds[x.call.prompt] for x in batch]


def test_the_queue_makes_batches_of_what_waits_for_one_program(generator, monkeypatch):
    device = FakeDevice(monkeypatch)
    seen = []
    with batching.RequestQueue(
        generator, size=2, most=5, observe=lambda count, seconds: seen.append(count)
    ) as queue:
        first = queue.submit(prepare(generator, prompt='first'))
        assert device.busy.wait(20)
        texts = [('a', 0.5), ('b', 0.6), ('c', 0.5), ('gone', 0.5), ('bad', 0.5)]
        waiting = [queue.submit(prepare(generator, prompt=p, seconds=s)) for p, s in texts]
        with pytest.raises(batching.QueueFull, match='5 requests wait'):
            queue.submit(prepare(generator))
        assert waiting[3].cancel() and len(queue) == 4  # room for another
        device.go.set()
        made = [first.result(20), *(waiting[i].result(20) for i in (0, 1, 2))]
        with pytest.raises(ValueError, match='no'):
            waiting[4].result(20)
    assert device.batches == [['first'], ['a', 'c'], ['b'], ['bad']] and seen == [1, 2, 1, 1]
    assert [x.batch for x in made] == [1, 2, 1, 2] and made[0].sound is SILENCE
    assert made[1].waited_s > 0
    with pytest.raises(batching.QueueClosed):
        queue.submit(prepare(generator))


def test_calls_take_their_turn_among_requests(generator, monkeypatch):
    device, order = FakeDevice(monkeypatch), []
    with batching.RequestQueue(generator, size=2, most=2, window_s=10.0) as queue:
        first = [queue.submit(prepare(generator, prompt='first')) for _ in range(2)]
        assert device.busy.wait(20)
        name = queue.call(lambda: threading.current_thread().name)
        waiting = queue.submit(prepare(generator, prompt='second'))
        with pytest.raises(batching.QueueFull):
            queue.submit(prepare(generator))
        calls = [queue.call(lambda i=i: order.append((i, len(device.batches)))) for i in range(3)]
        broken = queue.call(lambda: 1 / 0)  # `most` does not bound calls
        assert calls[1].cancel()
        waiting.cancel()
        device.go.set()
        assert name.result(20) == 'generate' and [x.result(20).batch for x in first] == [2, 2]
        with pytest.raises(ZeroDivisionError):
            broken.result(20)
    assert order == [(0, 1), (2, 1)]
    with pytest.raises(batching.QueueClosed):
        queue.call(lambda: None)


def test_a_queue_that_closes_cancels_what_waits(generator, monkeypatch):
    device = FakeDevice(monkeypatch)
    queue = batching.RequestQueue(generator)
    first = queue.submit(prepare(generator))
    assert device.busy.wait(20)
    second = queue.submit(prepare(generator))
    closing = threading.Thread(target=queue.close)
    closing.start()
    assert concurrent_wait(second)
    device.go.set()
    closing.join(20)
    assert first.result(20).sound is SILENCE and len(device.batches) == 1


def concurrent_wait(future):
    """Whether a future is cancelled, soon."""
    done = threading.Event()
    future.add_done_callback(lambda _: done.set())
    return done.wait(20) and future.cancelled()


def test_a_batch_that_is_not_full_waits_no_longer_than_its_window(generator, monkeypatch):
    device = FakeDevice(monkeypatch)
    device.go.set()
    with batching.RequestQueue(generator, size=2, window_s=0.2) as queue:
        made = queue.submit(prepare(generator)).result(20)
        assert 0.2 <= made.waited_s and made.batch == 1
        both = [queue.submit(prepare(generator)) for _ in range(2)]
        assert [x.result(20).batch for x in both] == [2, 2]
    with batching.RequestQueue(generator, size=1, window_s=10.0) as queue:
        assert queue.submit(prepare(generator)).result(5).batch == 1


def test_notes_are_those_that_generate_warns_of(generator):
    prepared = prepare(generator, prompt='rain and wind ' * 40)
    sound = batching.run_batch(generator, [prepare(generator)], 1)[0]
    assert any('cut to 64' in note for note in batching.notes_on(prepared, sound))
    again = batching.notes_on(prepare(generator, seed=sound.seed + 1), sound)
    assert f'made again with seed {sound.seed}' in again[0]
