"""What the command line of the listening test refuses before it makes or reads any sound."""

import sys

import pytest


@pytest.mark.parametrize(
    ('arguments', 'part'),
    [
        ('--systems=student:٤,teacher:2', 'is not like student:4'),
        ('--systems=student:3,teacher:2', 'the student has no 3 steps'),
        ('--systems=student:4,teacher:0', 'steps is 0'),
        ('--systems=student:4,student:04', 'both are student:4'),
        ('--folders=DIR/a,DIR/a/', 'is named twice'),
        ('--folders=DIR/a,DIR/b', 'x.flac and x.wav, and a pair takes one'),
        ('--answers=DIR/answers.json', 'give the --workdir in which the page was made'),
    ],
)
def test_what_makes_no_test_is_refused_at_once(
    experiment, tiny_release, tmp_path, monkeypatch, arguments, part
):
    module = experiment('listening_test')
    for name in ('generate_prompts', 'read_sound'):
        monkeypatch.setattr(module, name, lambda *_, **__: pytest.fail('a sound was made or read'))
    for name in ('a/x.wav', 'b/x.wav', 'b/x.flac'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b'')
    argv = ['listening_test', f'--release={tiny_release}', f'--workdir={tmp_path}/out']
    argv.append(arguments.replace('DIR', str(tmp_path)))
    sys.modules['experiments.common'].parse_flags(argv)
    with pytest.raises((ValueError, FileNotFoundError), match=part):
        module.main(argv[:1])


def test_a_key_without_its_page_is_in_nobodys_way(experiment, tmp_path, monkeypatch):
    module = experiment('listening_test')
    monkeypatch.setattr(module, 'pairs_of_release', lambda *_: [])
    (tmp_path / 'key.json').write_text('{}')
    argv = ['listening_test', f'--workdir={tmp_path}']
    sys.modules['experiments.common'].parse_flags(argv)
    with pytest.raises(ValueError, match='at least one pair'):
        module.main(argv[:1])
    (tmp_path / 'listen.html').write_text('')
    with pytest.raises(ValueError, match='holds a listening test already'):
        module.main(argv[:1])
