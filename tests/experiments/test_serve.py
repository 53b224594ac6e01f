"""The command's own mistakes: a port in use, an open address without a token, a missing extra."""

import builtins
import socket

import pytest
from absl import flags
from absl.testing import flagsaver

from realaudio_jax.training.loop import main_guard


@pytest.fixture
def serve(experiment, capsys):
    """`serve(port=0)` runs the experiment: (exit status, errors)."""
    module = experiment('serve')
    flags.FLAGS.mark_as_parsed()

    def run(**values):
        with flagsaver.flagsaver(**values):
            try:
                status = main_guard(module.main)(['serve']) or 0
            except SystemExit as leave:
                status = leave.code
        return status, capsys.readouterr().err

    run.module = module
    return run


def test_a_port_in_use_is_one_line(serve):
    with socket.create_server(('127.0.0.1', 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError) as caught:
            serve.module.bind('127.0.0.1', port)
    line = f'cannot listen on 127.0.0.1:{port}: Address already in use; choose another --port'
    assert caught.value.strerror == line


def test_a_port_of_osc_in_use_is_one_line(serve):
    pytest.importorskip('uvicorn', reason="needs pip install 'realaudio_jax[serve]'")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(('127.0.0.1', 0))
        port = taken.getsockname()[1]
        status, err = serve(port=0, osc_port=port)
    line = f'cannot listen on 127.0.0.1:{port}: Address already in use; choose another --osc_port'
    assert status == 1 and line in err and err.count('\n') == 1
    status, err = serve(port=0, osc_port=0, streams=0)
    assert status == 1 and err == 'error: --osc_port steers a stream; leave out --streams=0\n'


def test_a_hop_between_the_steps_is_one_line_in_seconds(serve):
    pytest.importorskip('uvicorn', reason="needs pip install 'realaudio_jax[serve]'")
    assert serve(hop=0.3) == (1, 'error: --hop=0.3: give 0.2, 0.4, 0.6, 0.8 or 1\n')


def test_an_address_that_others_reach_needs_a_token(serve):
    pytest.importorskip('uvicorn', reason="needs pip install 'realaudio_jax[serve]'")
    status, err = serve(host='0.0.0.0')
    assert (
        status == 1 and err == 'error: others reach 0.0.0.0; give --token, or listen on 127.0.0.1\n'
    )


def test_the_token_is_the_flag_or_a_file(serve, tmp_path):
    (tmp_path / 'token').write_text('abc\n')
    assert [serve.module.read_token(x) for x in (None, 'x', f'@{tmp_path}/token')] == [
        None,
        'x',
        'abc',
    ]
    with pytest.raises(ValueError, match='printable'):
        serve.module.read_token('two words')


def test_a_missing_extra_is_one_line(serve, monkeypatch):
    real = builtins.__import__

    def absent(name, *more):
        if name == 'realaudio_jax' and 'serving' in (more[2] or ()):
            raise ModuleNotFoundError("No module named 'uvicorn'", name='uvicorn')
        return real(name, *more)

    monkeypatch.setattr(builtins, '__import__', absent)
    status, err = serve()
    line = "error: uvicorn is not installed; pip install 'realaudio_jax[serve]'\n"
    assert status == 1 and err == line


def test_an_empty_list_is_one_line(serve):
    pytest.importorskip('fastapi', reason='needs the extra serve')
    for flag in ('seconds', 'steps', 'sample_rates'):
        with flagsaver.flagsaver(**{flag: []}):
            assert serve() == (1, f'error: --{flag}=: give one or more, each once\n')
