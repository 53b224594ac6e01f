"""Weights by name: what was asked for, whole, or one line that says why not."""

import gzip
import hashlib
import io
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time

import pytest
from false_hub import COMMIT, REPOSITORY, serve
from huggingface_hub import constants

from realaudio_jax import weights
from realaudio_jax.release import find_release, read_release

HUB_NAME = f'hf://{REPOSITORY}@{COMMIT}'
WEIGHTS = bytes(range(256)) * 20
CARD = b'---\nlicense: cc0-1.0\ntags: [audio]\n---\n# A thing\n'


def release(**changed: bytes) -> dict[str, bytes]:
    """Files of a release by path, with their manifest."""
    files = {'config.json': b'{}', 'student.safetensors': WEIGHTS, 'README.md': CARD, **changed}
    listed = (f'{hashlib.sha256(c).hexdigest()}  {name}\n' for name, c in sorted(files.items()))
    return {**files, 'SHA256SUMS': ''.join(listed).encode()}


def packed(files: dict[str, bytes], *links: tarfile.TarInfo, top: str = '') -> bytes:
    """A tar archive of files, and of what no release holds."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode='w') as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(top + name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for member in links:
            archive.addfile(member)
    return out.getvalue()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A server with the release, both caches empty."""
    monkeypatch.setenv('REALAUDIO_CACHE', str(tmp_path / 'cache'))
    with serve() as server:
        server.files = release()
        monkeypatch.setattr(constants, 'ENDPOINT', server.url)
        template = server.url + '/{repo_id}/resolve/{revision}/{filename}'
        monkeypatch.setattr(constants, 'HUGGINGFACE_CO_URL_TEMPLATE', template)
        monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path / 'hub'))
        monkeypatch.setattr(constants, 'HF_HUB_DISABLE_PROGRESS_BARS', True)
        monkeypatch.setattr(time, 'sleep', lambda seconds: None)  # between its tries
        yield server


def archive(hub, content: bytes, pin: str | None = None) -> str:
    """The name of an archive that the server has."""
    hub.web['/thing.tar'] = content
    return f'{hub.url}/thing.tar#sha256={pin or hashlib.sha256(content).hexdigest()}'


def names(folder: pathlib.Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob('*') if path.is_file()}


def refused(name: str, **more) -> str:
    """The message of a name that gives nothing; one line."""
    with pytest.raises((weights.FetchError, ValueError)) as caught:
        weights.fetch(name, **more)
    assert '\n' not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    'name',
    [
        'hf://someone',
        'hf://someone/thing@main',
        'hf://someone/thing@0123',
        f'hf://../thing@{COMMIT}',
        'https://example.org/thing.zip',
        'https://example.org/thing.tar#sha256=12',
        'http://example.org/thing.tar',
    ],
)
def test_a_name_of_no_known_form_is_refused(name):
    with pytest.raises(ValueError, match='hf://|https'):
        weights.parse(name)


def test_a_repository_comes_whole_once_and_then_without_a_network(hub):
    hub.files['model.ckpt'] = b'pickled'
    said = []
    folder = weights.fetch(HUB_NAME, log=said.append)
    assert names(folder) == set(release())
    assert (folder / 'student.safetensors').read_bytes() == WEIGHTS
    assert len(said) == 2 and 'cc0-1.0' in said[1]
    hub.log.clear()
    assert weights.fetch(HUB_NAME, log=said.append) == folder
    assert not hub.log and len(said) == 2


def test_a_copy_that_the_hub_client_made_needs_no_network(hub):
    import huggingface_hub

    huggingface_hub.snapshot_download(REPOSITORY, revision=COMMIT)
    hub.status = 503
    assert names(weights.fetch(HUB_NAME)) >= set(release())


def test_a_name_without_a_pin_says_its_pin(hub):
    said = []
    weights.fetch(f'hf://{REPOSITORY}', log=said.append)
    assert HUB_NAME in said[1]
    name = archive(hub, packed(release())).partition('#')[0].replace('http:', 'https:')
    with pytest.raises(weights.FetchError):  # the server speaks no TLS
        weights.fetch(name)


def test_parts_leave_out_the_rest_of_a_repository(hub):
    hub.files = {
        'model.safetensors': b'twice',
        'model_index.json': b'{}',
        'vae/model.safetensors': b'1',
        'vae/model.fp16.safetensors': b'2',
        'vae/model.bin': b'3',
        'safety/model.safetensors': b'4',
    }
    folder = weights.fetch(HUB_NAME, ['vae'], release=False)
    assert names(folder) == {'model_index.json', 'vae/model.safetensors'}


@pytest.mark.parametrize('name', ['student.safetensors', 'config.json'])
def test_a_flipped_byte_of_a_repository_is_removed_and_got_again(hub, name):
    right = hub.files[name]
    hub.wrong[name] = bytes([right[0] ^ 1]) + right[1:]
    assert f'{name} came damaged' in refused(HUB_NAME)
    hub.wrong.clear()
    assert (weights.fetch(HUB_NAME) / name).read_bytes() == right


def test_a_short_file_of_a_repository_is_got_again(hub):
    hub.short = {'student.safetensors'}
    assert 'try again' in refused(HUB_NAME)
    hub.short = set()
    assert (weights.fetch(HUB_NAME) / 'student.safetensors').read_bytes() == WEIGHTS


def test_a_release_of_a_repository_needs_a_right_manifest(hub):
    del hub.files['SHA256SUMS']
    assert 'SHA256SUMS' in refused(HUB_NAME)


def test_a_manifest_that_names_another_file_is_no_release(hub):
    hub.files['student.safetensors'] = b'another'
    assert 'student.safetensors' in refused(HUB_NAME)


@pytest.mark.parametrize('status, words', [(401, 'login'), (404, 'no such'), (500, '500')])
def test_what_a_server_refuses_is_said(hub, status, words):
    hub.status = status
    assert words in refused(f'{hub.url}/thing.tar#sha256={"0" * 64}')
    if status != 500:  # the client waits and tries again for half a minute
        assert words in refused(HUB_NAME)


def test_no_network_is_said(hub, monkeypatch):
    closed = 'http://127.0.0.1:9'
    assert 'network' in refused(f'{closed}/thing.tar#sha256={"0" * 64}')
    monkeypatch.setattr(constants, 'ENDPOINT', closed)
    assert 'network' in refused(HUB_NAME)


def test_no_network_is_one_line_in_a_process_of_its_own(tmp_path):
    """The Hub's client says every try of its own, unless it is told not to."""
    code = f"""
import time
from realaudio_jax import weights
time.sleep = lambda seconds: None
try:
    weights.fetch({HUB_NAME!r})
except weights.FetchError as error:
    print('refused')
"""
    places = {'REALAUDIO_CACHE': str(tmp_path), 'HF_HOME': str(tmp_path)}
    result = subprocess.run(
        [sys.executable, '-c', code],
        env=os.environ | places | {'HF_ENDPOINT': 'http://127.0.0.1:9'},
        capture_output=True,
        text=True,
    )
    assert (result.stdout, result.stderr) == ('refused\n', f'getting {HUB_NAME}\n')


def test_a_copy_that_is_damaged_later_is_named_with_its_folder(hub):
    name = archive(hub, packed(release()))
    folder = weights.fetch(name)
    changed = bytes([WEIGHTS[0] ^ 1]) + WEIGHTS[1:]
    (folder / 'student.safetensors').write_bytes(changed)
    with pytest.raises(ValueError, match='student.safetensors is damaged') as caught:
        read_release(weights.fetch(name), 'student.safetensors')
    assert str(caught.value).startswith(f'{folder}: ') and 'remove that folder' in str(caught.value)
    shutil.rmtree(folder)
    assert (weights.fetch(name) / 'student.safetensors').read_bytes() == WEIGHTS


def test_pins_may_be_in_capitals():
    assert weights.parse(HUB_NAME.upper().replace('HF://', 'hf://')).pin == COMMIT
    assert weights.parse(f'https://a.org/b.tar#sha256={"AB" * 32}').pin == 'ab' * 32


def test_a_compressed_archive_is_named_so(hub):
    content = gzip.compress(packed(release()))
    assert 'no whole, uncompressed tar archive' in refused(archive(hub, content))


@pytest.mark.parametrize('top', ['', './', 'foley-0.2/'])
def test_an_archive_comes_whole_once_and_then_without_a_network(hub, top):
    name = archive(hub, packed({**release(), 'run.sh': b'rm -rf /'}, top=top))
    said = []
    folder = weights.fetch(name, log=said.append)
    assert names(folder) == set(release())
    assert len(said) == 2 and 'cc0-1.0' in said[1]
    hub.status = 503
    assert weights.fetch(name, log=said.append) == folder


def test_a_damaged_archive_leaves_nothing(hub, tmp_path):
    content = packed(release())
    pin = hashlib.sha256(content).hexdigest()
    flipped = content[:600] + bytes([content[600] ^ 1]) + content[601:]
    assert 'another SHA-256' in refused(archive(hub, flipped, pin))
    assert 'another SHA-256' in refused(archive(hub, content[:-3000], pin))
    hub.short = {'/thing.tar'}
    assert 'ended early' in refused(archive(hub, content))
    assert not names(tmp_path / 'cache')


def test_an_archive_whose_manifest_is_wrong_leaves_nothing(hub, tmp_path):
    files = {**release(), 'student.safetensors': b'another'}
    assert 'student.safetensors' in refused(archive(hub, packed(files)))
    assert 'SHA256SUMS' in refused(archive(hub, packed({'config.json': b'{}'})))
    assert 'no whole, uncompressed tar' in refused(archive(hub, packed(release())[:3000]))
    assert not names(tmp_path / 'cache')


def link(name: str, kind: bytes, target: str = '') -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


@pytest.mark.parametrize(
    'member',
    [
        link('weights.safetensors', tarfile.SYMTYPE, '/etc/passwd'),
        link('weights.safetensors', tarfile.LNKTYPE, 'config.json'),
        link('null.json', tarfile.CHRTYPE),
        link('pipe.json', tarfile.FIFOTYPE),
        link('../outside.json', tarfile.REGTYPE),
        link('/tmp/outside.json', tarfile.REGTYPE),
        link('a\\..\\outside.json', tarfile.REGTYPE),
        link('config.json', tarfile.REGTYPE),
    ],
)
def test_an_archive_cannot_leave_its_folder(hub, tmp_path, member):
    refused(archive(hub, packed(release(), member)))
    assert not names(tmp_path / 'cache') and not (tmp_path / 'outside.json').exists()


@pytest.mark.parametrize('kind', ['hub', 'web'])
def test_a_download_that_is_killed_leaves_nothing_that_counts(hub, tmp_path, kind):
    name = HUB_NAME if kind == 'hub' else archive(hub, packed(release()))
    slow = 'student.safetensors' if kind == 'hub' else '/thing.tar'
    hub.slow = {slow}
    environment = {**os.environ, 'HF_ENDPOINT': hub.url, 'HF_HUB_CACHE': str(tmp_path / 'hub')}
    code = f'from realaudio_jax import weights; weights.fetch({name!r})'
    process = subprocess.Popen([sys.executable, '-c', code], env=environment)
    end = time.monotonic() + 60
    while not any(path.endswith(slow) for path in hub.log) and time.monotonic() < end:
        threading.Event().wait(0.02)
    threading.Event().wait(0.2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    hub.status = 503
    refused(name)  # half of it is none
    hub.slow, hub.status = set(), 200
    assert (weights.fetch(name) / 'student.safetensors').read_bytes() == WEIGHTS


def test_published_teachers_have_pins():
    for name, teacher in weights.PRETRAINED.items():
        assert weights.parse(teacher.repository).pin, name
        assert teacher.licence


def test_a_published_teacher_comes_by_its_short_name(hub, monkeypatch):
    hub.files = {'model_index.json': b'{}', 'vae/config.json': b'{}', 'unet/config.json': b'{}'}
    teacher = weights.Pretrained(HUB_NAME, ('vae',), 'none', 'convert it')
    monkeypatch.setitem(weights.PRETRAINED, 'thing', teacher)
    said = []
    folder = weights.find_pretrained('thing', log=said.append)
    assert names(folder) == {'model_index.json', 'vae/config.json'}
    assert any('convert it' in line for line in said)
    assert weights.find_pretrained('a/folder') == pathlib.Path('a/folder')


def test_a_release_is_loaded_by_its_name(hub):
    hub.files = release(**{'config.json': b'{}'})
    name = archive(hub, packed(hub.files))
    assert find_release(HUB_NAME).is_dir() and find_release(name).is_dir()
