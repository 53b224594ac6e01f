"""The tool that counts kernels, on programs whose kernels are known."""

import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import pytest

TOOL = pathlib.Path(__file__).parents[1] / 'tools' / 'count_kernels.py'


@pytest.fixture(scope='module')
def tool():
    spec = importlib.util.spec_from_file_location('count_kernels', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_loop_counts_as_often_as_it_runs(tool):
    square = jax.ShapeDtypeStruct((64, 64), jnp.float32)

    def once(x, w):
        return jnp.fft.fft(x @ w).real

    def looped(x, w, steps):
        return jax.lax.scan(lambda x, _: (once(x, w), None), x, length=steps)[0]

    def counted(function):
        return tool.count_kernels(jax.jit(function).lower(square, square).compile().as_text())

    alone = counted(once)
    assert alone['fft'] == 1
    for steps in (3, 7):
        found = counted(lambda x, w, steps=steps: looped(x, w, steps))
        assert found['fft'] == steps and sum(found.values()) >= steps * sum(alone.values())


def test_the_model_at_paper_size_has_shapes_alone(tool):
    networks, params = tool.shapes_of('base_all', 'bfloat16')
    sizes = {name: sum(x.size for x in jax.tree.leaves(of)) / 1e6 for name, of in params.items()}
    assert 300 < sizes['student'] < 400 and 50 < sizes['autoencoder'] < 120
    assert {x.dtype for x in jax.tree.leaves(params['text_encoder'])} == {jnp.dtype('bfloat16')}
    assert networks.denoiser.attention == 'cudnn' and networks.autoencoder.dtype == 'bfloat16'


def test_a_gpu_that_jax_cannot_compile_for_is_one_line(tool, monkeypatch):
    def missing(*args, **kwargs):
        raise RuntimeError('no plugin')

    monkeypatch.setattr(tool.topologies, 'get_topology_desc', missing)
    with pytest.raises(ValueError, match='cannot compile for a GPU: no plugin'):
        tool.device_of('h200')
