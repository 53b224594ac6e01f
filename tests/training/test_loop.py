import io
import os
import signal
import threading
import time
from types import SimpleNamespace

import jax.numpy as jnp
import pytest

from realaudio_jax.training.loop import (
    NonFiniteLossError,
    Progress,
    StopRequest,
    main_guard,
    require_finite,
    stop_says,
)


@pytest.fixture
def interruptible():
    """SIGINT interrupts, also where a shell's background job has inherited that it is ignored."""
    earlier = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, earlier)


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Unfetchable:
    def __float__(self):
        raise AssertionError('the loss was fetched although nothing is shown')


def test_plain_lines_now_and_then_and_at_the_end():
    stream = io.StringIO()
    with Progress(40, 'train', start=20, stream=stream, every_s=60.0) as progress:
        progress.update(21, jnp.float32(0.51239))
        for step in range(22, 40):
            progress.update(step, Unfetchable())
        progress.update(40, 0.25)
        progress.say('saved')
    first, last, said = stream.getvalue().splitlines()
    assert first.startswith('train 21/40 loss 0.5124 left 0:00:')
    assert last == 'train 40/40 loss 0.25 left 0:00:00'
    assert said == 'saved'


def test_parts_add_up():
    stream = io.StringIO()
    progress = Progress(5, 'evaluation', stream=stream, every_s=0.0)
    for part, done in (('a', 1), ('b', 1), ('a', 3), ('b', 2)):
        progress.update_part(part, done, 3)
    shown = [line.split()[1] for line in stream.getvalue().splitlines()]
    assert shown == ['1/5', '2/5', '4/5', '5/5']


def test_time_left_counts_only_the_steps_of_this_run(monkeypatch):
    now = [100.0]
    monkeypatch.setattr('time.monotonic', lambda: now[0])
    stream = io.StringIO()
    progress = Progress(130, 'train', start=100, stream=stream)
    progress.update(100)
    now[0] += 50.0
    progress.update(110)
    assert stream.getvalue().splitlines() == [
        'train 100/130 left ?',
        'train 110/130 left 0:01:40',
    ]


def test_a_terminal_gets_a_bar():
    stream = Terminal()
    with Progress(4, 'distil', stream=stream) as progress:
        progress.update(4, 0.125)
        progress.say('saved')
    text = stream.getvalue()
    assert 'distil 4/4' in text and 'loss 0.125' in text and 'left' in text and 'saved' in text


@pytest.mark.parametrize('stream', [io.StringIO(), Terminal()])
def test_silent_shows_nothing(stream):
    with Progress(2, 'train', silent=True, stream=stream) as progress:
        progress.update(2, Unfetchable())
        progress.say('saved')
    assert stream.getvalue() == ''


@pytest.mark.parametrize('first', [signal.SIGINT, signal.SIGTERM])
def test_first_signal_asks_second_raises_and_the_handlers_return(first):
    both = (signal.SIGINT, signal.SIGTERM)
    try:
        safe = signal.signal(signal.SIGTERM, lambda *_: pytest.fail('SIGTERM is not handled'))
        earlier = [signal.getsignal(number) for number in both]
        with pytest.raises(KeyboardInterrupt), StopRequest() as stop:
            assert not stop.requested
            os.kill(os.getpid(), first)
            assert stop.requested
            os.kill(os.getpid(), signal.SIGINT)
            pytest.fail('the second signal did not raise')
        assert [signal.getsignal(number) for number in both] == earlier
    finally:
        signal.signal(signal.SIGTERM, safe)


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_stop_of_what_has_no_loop_says_what_is_kept(number, capsys, interruptible):
    earlier, done = signal.getsignal(signal.SIGTERM), []

    def main(argv):
        with stop_says(lambda: f'stopped; {done} is kept'):
            done.append('one')
            os.kill(os.getpid(), number)
            time.sleep(5)

    with pytest.raises(SystemExit) as stopped:
        main_guard(main)([])
    assert stopped.value.code == 130
    assert capsys.readouterr().err == "stopped; ['one'] is kept\n"
    assert signal.getsignal(signal.SIGTERM) is earlier


def test_stop_request_outside_the_main_thread_changes_nothing():
    seen = []

    def work():
        with StopRequest() as stop:
            seen.append(stop.requested)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]


def test_require_finite_names_step_and_checkpoint():
    assert require_finite(jnp.float32(0.5), 3) == 0.5
    checkpointer = SimpleNamespace(folder='runs/a', latest_step=lambda: 10)
    with pytest.raises(NonFiniteLossError, match='nan at step 12; .* step 10 in runs/a'):
        require_finite(jnp.float32(jnp.nan), 12, checkpointer)
    with pytest.raises(NonFiniteLossError, match='inf at step 2; no checkpoint was saved yet'):
        require_finite(float('inf'), 2)


def test_parameters_that_are_not_finite_are_never_saved():
    """A finite loss can have a gradient that is not: the square root's at 0, for instance."""
    params = {'a': jnp.ones(3), 'b': jnp.array([1.0, jnp.nan])}
    assert require_finite(0.5, 3, params={'a': params['a']}) == 0.5
    with pytest.raises(NonFiniteLossError, match='a parameter is not finite at step 3'):
        require_finite(0.5, 3, params=params)


@pytest.mark.parametrize(
    ('error', 'line'),
    [
        (ValueError('seconds must be at most 10'), 'seconds must be at most 10'),
        (FileNotFoundError(2, 'No such file', 'a.wav'), 'No such file: a.wav'),
        (OSError(28, 'the disk is full'), 'the disk is full'),
        (NonFiniteLossError('the loss is nan'), 'the loss is nan'),
        (ValueError('first\nsecond'), 'first (REALAUDIO_TRACEBACK=1 shows the rest)'),
        (ValueError(), 'ValueError (REALAUDIO_TRACEBACK=1 shows where)'),
    ],
)
def test_a_mistake_is_one_line_and_status_1(error, line, capsys, monkeypatch):
    monkeypatch.delenv('REALAUDIO_TRACEBACK', raising=False)

    def main(argv):
        raise error

    with pytest.raises(SystemExit) as exit_info:
        main_guard(main)(['program'])
    assert exit_info.value.code == 1
    assert capsys.readouterr().err == f'error: {line}\n'
    monkeypatch.setenv('REALAUDIO_TRACEBACK', '1')
    with pytest.raises(type(error)):
        main_guard(main)(['program'])


def test_defects_keep_their_traceback_and_results_pass_through():
    def defect(argv):
        raise TypeError('a bug')

    with pytest.raises(TypeError):
        main_guard(defect)([])
    assert main_guard(len)(['a', 'b']) == 2


def test_leaving_at_once_is_status_130(monkeypatch):
    monkeypatch.delenv('REALAUDIO_TRACEBACK', raising=False)

    def main(argv):
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as exit_info:
        main_guard(main)([])
    assert exit_info.value.code == 130
