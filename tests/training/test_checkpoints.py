import errno
import shutil
from collections import namedtuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from realaudio_jax.mesh import make_mesh
from realaudio_jax.training import checkpoints
from realaudio_jax.training.checkpoints import Checkpointer, _require_match
from realaudio_jax.training.state import apply_gradients, create_state


class Batches:
    """Batches drawn by a numpy generator whose position can be saved."""

    def __init__(self):
        self.rng = np.random.default_rng(7)

    def __next__(self):
        x = self.rng.standard_normal((2, 7)).astype(np.float32)
        return x, np.sin(x.sum(axis=1, keepdims=True))

    def get_state(self):
        return self.rng.bit_generator.state

    def set_state(self, state):
        self.rng.bit_generator.state = state


class ByteCounter:
    def __init__(self, count=0):
        self.count = count

    def get_state(self):
        return b'\xff\x00' + bytes([self.count])

    def set_state(self, state):
        assert state[:2] == b'\xff\x00'
        self.count = state[2]


def _start():
    hidden, out = jax.random.split(jax.random.PRNGKey(3))
    params = {
        'hidden': {'kernel': jax.random.normal(hidden, (7, 5)), 'bias': jnp.zeros(5)},
        'out': {'kernel': jax.random.normal(out, (5, 1))},
    }
    return create_state(params, optax.adam(1e-2))


@jax.jit
def _train_step(state, x, y):
    def loss(params):
        hidden = jnp.tanh(x @ params['hidden']['kernel'] + params['hidden']['bias'][None, :])
        # Noise drawn from the step, as the training scripts do.
        noise = jax.random.normal(jax.random.fold_in(jax.random.PRNGKey(0), state.step), y.shape)
        return jnp.mean((hidden @ params['out']['kernel'] - y - 0.1 * noise) ** 2)

    return apply_gradients(state, jax.grad(loss)(state.params), optax.adam(1e-2), ema_decay=0.99)


def _run(state, data, steps):
    for _ in range(steps):
        state = _train_step(state, *next(data))
    return state


def test_stop_and_resume_equals_the_uninterrupted_run_bitwise(tmp_path):
    straight = _run(_start(), Batches(), 40)

    data = Batches()
    with Checkpointer(tmp_path / 'run') as checkpointer:
        checkpointer.save(_run(_start(), data, 20), data)

    data = Batches()
    with Checkpointer(tmp_path / 'run') as checkpointer:
        state = checkpointer.restore(_start(), data)
    assert int(state.step) == 20
    resumed = _run(state, data, 20)

    assert jax.tree.structure(resumed) == jax.tree.structure(straight)
    jax.tree.map(np.testing.assert_array_equal, resumed, straight)


def test_nothing_to_restore_gives_none_and_makes_no_folder(tmp_path):
    checkpointer = Checkpointer(tmp_path / 'none')
    assert checkpointer.restore(_start()) is None
    assert checkpointer.latest_step() is None
    assert not (tmp_path / 'none').exists()


def test_any_pytree_keeps_kinds_dtypes_and_bytes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # relative folders are accepted
    state = {
        'step': 6,
        'key': np.array([1, 2**32 - 1], np.uint32),
        'narrow': jnp.array([1.5, -2.0], jnp.bfloat16),
        'empty': jnp.zeros((0, 3)),
        'scale': np.float32(2.5),
        'device_key': jax.random.PRNGKey(5),
    }
    with Checkpointer('runs/a') as checkpointer:
        checkpointer.save(state, ByteCounter(9))
    template = jax.tree.map(lambda leaf: leaf * 0, state)
    data = ByteCounter()
    with Checkpointer('runs/a') as checkpointer:
        restored = checkpointer.restore(template, data)
    assert data.count == 9
    assert restored['step'] == 6 and isinstance(restored['step'], int)
    for name in state:
        assert type(restored[name]) is type(state[name]), name
        np.testing.assert_array_equal(restored[name], state[name])
    assert restored['narrow'].dtype == jnp.bfloat16


def test_keeps_the_newest_and_can_take_a_named_step(tmp_path):
    with Checkpointer(tmp_path, keep=2) as checkpointer:
        for step in (1, 2, 3):
            checkpointer.save({'step': step, 'w': jnp.full(5, float(step))})
        checkpointer.save({'step': 3, 'w': jnp.zeros(5)})  # saved already: left alone
        assert checkpointer.latest_step() == 3
        template = {'step': 0, 'w': jnp.zeros(5)}
        assert float(checkpointer.restore(template)['w'][0]) == 3.0
        assert float(checkpointer.restore(template, step=2)['w'][0]) == 2.0
        with pytest.raises(FileNotFoundError, match='holds no step 1'):
            checkpointer.restore(template, step=1)
        with pytest.raises(ValueError, match='already holds step 3, later than step 2'):
            checkpointer.save({'step': 2, 'w': jnp.zeros(5)})


def test_sharding_of_the_template_is_restored(tmp_path):
    mesh = make_mesh(model_parallel=2)
    sharding = NamedSharding(mesh, P(None, 'model'))
    saved = jax.device_put(jnp.arange(24.0).reshape(4, 6), sharding)
    template = jax.ShapeDtypeStruct((4, 6), jnp.float32, sharding=NamedSharding(mesh, P('data')))
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save({'step': 1, 'w': saved})
        restored = checkpointer.restore({'step': 0, 'w': template})['w']
        loose = checkpointer.restore({'step': 0, 'w': jnp.zeros((4, 6))})['w']
    assert restored.sharding == template.sharding
    np.testing.assert_array_equal(restored, saved)
    # A template nobody placed stays free to follow other arguments of a jitted step.
    assert not loose.committed
    np.testing.assert_array_equal(loose + saved, 2 * np.asarray(saved))


def test_every_mismatch_is_listed(tmp_path):
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save({'step': 1, 'a': jnp.ones((2, 5)), 'b': jnp.ones(3), 'old': jnp.ones(1)})
        template = {
            'step': 0,
            'a': jnp.ones((5, 2)),
            'b': jnp.ones(3, jnp.int32),
            'new': jnp.ones(1),
        }
        with pytest.raises(ValueError) as caught:
            checkpointer.restore(template)
        with pytest.raises(ValueError, match='without the position of its data'):
            wanted = {'step': 0, 'a': jnp.ones((2, 5)), 'b': jnp.ones(3), 'old': jnp.ones(1)}
            checkpointer.restore(wanted, ByteCounter())
    message = str(caught.value)
    assert 'a has shape (2, 5), wanted (5, 2)' in message
    assert 'b is float32, wanted int32' in message
    assert 'new is missing' in message and 'old is not wanted' in message
    assert '\n' not in message


def test_iterator_state_that_is_not_json_is_named(tmp_path):
    class Odd:
        def get_state(self):
            return {'file': object()}

    with pytest.raises(ValueError, match='state of the data iterator cannot be saved: object'):
        Checkpointer(tmp_path).save({'step': 1, 'w': jnp.ones(2)}, Odd())


@pytest.mark.parametrize('when', ['before', 'while'])
def test_full_disk_is_one_line_and_spares_earlier_checkpoints(tmp_path, monkeypatch, when):
    checkpointer = Checkpointer(tmp_path)
    checkpointer.save({'step': 1, 'w': jnp.arange(5.0)})
    with monkeypatch.context() as patch:
        if when == 'before':
            usage = namedtuple('usage', 'total used free')(10, 9, 1)
            patch.setattr(shutil, 'disk_usage', lambda folder: usage)
        else:
            # What orbax raises in the middle of writing: a ValueError around the system's words.
            def fail(self, step, **kwargs):
                partial = tmp_path / f'{step}.orbax-checkpoint-tmp' / 'state'
                partial.mkdir(parents=True)
                raise ValueError('RESOURCE_EXHAUSTED: Failed to write: No space left on device')

            patch.setattr(checkpoints.ocp.CheckpointManager, 'save', fail)
        with pytest.raises(OSError) as caught:
            checkpointer.save({'step': 2, 'w': jnp.zeros(5)})
    assert caught.value.errno == errno.ENOSPC
    assert 'the disk is full' in str(caught.value) and '\n' not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ['1']
    restored = checkpointer.restore({'step': 0, 'w': jnp.zeros(5)})
    assert restored['step'] == 1
    np.testing.assert_array_equal(restored['w'], np.arange(5.0))
    checkpointer.save({'step': 2, 'w': jnp.zeros(5)})  # space again: saving works again
    assert checkpointer.latest_step() == 2
    checkpointer.close()


def _saved_twice(folder):
    with Checkpointer(folder) as checkpointer:
        for step in (20, 40):
            checkpointer.save({'step': step, 'w': jnp.arange(3000.0) + step}, ByteCounter(step))


def _restored(folder, said, step=None):
    data = ByteCounter()
    with Checkpointer(folder, say=said.append) as checkpointer:
        state = checkpointer.restore({'step': 0, 'w': jnp.zeros(3000)}, data, step)
        np.testing.assert_array_equal(state['w'], np.arange(3000.0) + state['step'])
        assert data.count == state['step']
        if state['step'] == 20:  # the run goes on, and saves the step again that was damaged
            checkpointer.save({'step': 40, 'w': jnp.arange(3000.0) + 40}, ByteCounter(40))
            assert checkpointer.latest_step() == 40
        return state['step']


def _files(folder):
    return sorted(p for p in folder.rglob('*') if p.is_file() and p.name != 'SHA256SUMS')


@pytest.mark.parametrize('damage', ['flipped', 'truncated', 'missing', 'manifest'])
def test_the_newest_intact_checkpoint_is_taken(tmp_path, damage):
    """Whichever of its files is damaged; before, a flipped bit changed the weights silently."""
    _saved_twice(tmp_path / 'whole')
    largest = max(_files(tmp_path / 'whole' / '40'), key=lambda p: p.stat().st_size)
    names = [p.relative_to(tmp_path / 'whole') for p in (largest, _files(tmp_path / 'whole')[-1])]
    for i, name in enumerate(names):
        folder = tmp_path / str(i)
        shutil.copytree(tmp_path / 'whole', folder)
        content = bytearray((folder / name).read_bytes())
        if damage == 'missing':
            (folder / name).unlink()
        elif damage == 'manifest':
            (folder / '40' / 'SHA256SUMS').write_bytes(b'\x00')
        else:
            content[len(content) // 2] ^= 4
            half = content[: len(content) // 2]
            (folder / name).write_bytes(half if damage == 'truncated' else content)
        said = []
        assert _restored(folder, said) == 20
        assert len(said) == 1 and 'step 40 is damaged' in said[0] and '\n' not in said[0]
        assert (folder / 'damaged-40').is_dir()
        assert _restored(folder, said) == 40 and len(said) == 1


def test_damage_that_leaves_nothing_is_one_line(tmp_path):
    _saved_twice(tmp_path)
    for step in ('20', '40'):
        _files(tmp_path / step)[0].write_bytes(b'')
    with pytest.raises(ValueError, match='20: .* is damaged or another file; take another step'):
        _restored(tmp_path, [], step=20)
    for _ in range(2):  # and it never begins anew in silence
        with pytest.raises(ValueError, match='every checkpoint in .* is damaged; begin again'):
            _restored(tmp_path, [])


def test_a_checkpoint_of_a_version_without_manifests_is_taken(tmp_path):
    _saved_twice(tmp_path)
    for step in ('20', '40'):
        (tmp_path / step / 'SHA256SUMS').unlink()
    assert _restored(tmp_path, []) == 40
    largest = max(_files(tmp_path / '40'), key=lambda p: p.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:100])
    with pytest.raises(ValueError, match='40 has no SHA256SUMS and cannot be read; rem') as caught:
        _restored(tmp_path, [])
    assert '\n' not in str(caught.value)


def test_a_checkpoint_whose_manifest_was_never_written_is_set_aside(tmp_path):
    _saved_twice(tmp_path)
    (tmp_path / '40' / 'SHA256SUMS').unlink()
    said = []
    assert _restored(tmp_path, said) == 20
    assert len(said) == 1 and 'step 40 is damaged (it has no SHA256SUMS)' in said[0]


def test_of_many_differences_ten_are_named_and_the_others_counted():
    wanted = {f'params/{i:02}': np.zeros(3, np.float32) for i in range(60)}
    saved = {name: np.zeros(5, np.float32) for name in wanted}
    with pytest.raises(ValueError) as caught:
        _require_match('run/4', wanted, saved)
    message = str(caught.value)
    assert 'params/09 has shape (5,), wanted (3,); and 50 more' in message
    assert 'params/10' not in message
