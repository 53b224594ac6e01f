"""A release in parts: what both sides have stays at home."""

import shutil
import sys

import pytest
from absl import flags

from realaudio_jax import integrity
from realaudio_jax.release_config import ReleaseConfig


@pytest.fixture
def parts(experiment):
    """`parts('--flag=value', ...)` runs the command."""

    def run(*arguments):
        module = experiment('parts')
        sys.modules['experiments.common'].parse_flags(['parts', *arguments])
        module.main(['parts'])
        flags.FLAGS.unparse_flags()

    return run


@pytest.mark.parametrize('changed', [True, False])
def test_what_both_sides_have_is_left_out_and_taken_from_there(
    parts, tiny_release, tmp_path, changed, capsys
):
    theirs = shutil.copytree(tiny_release, tmp_path / 'theirs')
    (theirs / 'ATTRIBUTION.md').write_text('authors, in no manifest')
    mine = shutil.copytree(theirs, tmp_path / 'mine')
    if changed:
        (mine / 'teacher.safetensors').write_bytes(bytes(9_000))
        ReleaseConfig.read(mine).write(mine)
        integrity.write_manifest(mine, integrity.read_manifest(mine))
    base, out = f'--new_to={theirs}', tmp_path / 'parts'
    parts(f'--split={mine}', base, f'--out={out}', '--part_mb=0.01')
    assert sum(path.stat().st_size for path in out.iterdir()) < 50_000
    parts(f'--join={out}', base, f'--out={tmp_path / "joined"}')
    assert integrity.read_manifest(tmp_path / 'joined') == integrity.read_manifest(mine)
    assert (tmp_path / 'joined' / 'ATTRIBUTION.md').read_text() == 'authors, in no manifest'
    assert 'every digest as it was written' in capsys.readouterr().out
    with pytest.raises(ValueError, match='is missing'):  # where nothing is taken from the base
        parts(f'--join={out}', f'--out={tmp_path / "alone"}')
        integrity.verify(tmp_path / 'alone')


def test_one_of_split_and_join(parts, tmp_path):
    with pytest.raises(ValueError, match='one of them'):
        parts(f'--out={tmp_path / "out"}')
