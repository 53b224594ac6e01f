"""The T5 encoder against transformers, through folders that it saved."""

import jax
import numpy as np
import pytest

from realaudio_jax.teachers import t5

torch = pytest.importorskip('torch', reason="no torch: install the extra 'reference'")
transformers = pytest.importorskip(
    'transformers', reason="no transformers: install the extra 'reference'"
)


@pytest.fixture(scope='module', params=['relu', 'gated-gelu'])
def original(request, tmp_path_factory):
    torch.manual_seed(0)
    config = transformers.T5Config(
        vocab_size=50,
        d_model=24,
        d_kv=10,
        d_ff=36,
        num_layers=2,
        num_heads=3,
        relative_attention_num_buckets=12,
        relative_attention_max_distance=20,
        feed_forward_proj=request.param,
    )
    model = transformers.T5EncoderModel(config).eval()
    with torch.no_grad():  # norms that are not all one
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    folder = tmp_path_factory.mktemp('t5')
    model.save_pretrained(folder)
    return model, folder


def test_states_equal_the_originals(original):
    model, folder = original
    ids = np.random.default_rng(0).integers(2, 50, (2, 33))
    mask = np.arange(33)[None] < np.array([33, 21])[:, None]
    with torch.no_grad():
        wanted = model(torch.tensor(ids), torch.tensor(mask).long()).last_hidden_state.numpy()
    encoder, params = t5.import_t5(folder)
    states = np.asarray(jax.jit(encoder.apply)({'params': params}, ids, mask))
    np.testing.assert_allclose(states[mask], wanted[mask], atol=1e-4 * np.abs(wanted).max())


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
def test_half_precision_folders(original, tmp_path, dtype):
    model, folder = original
    half = transformers.T5EncoderModel.from_pretrained(folder, dtype=getattr(torch, dtype))
    half.save_pretrained(tmp_path)
    _, params = t5.import_t5(tmp_path)
    wanted = half.shared.weight.float().detach().numpy()
    np.testing.assert_array_equal(params['token']['embedding'], wanted)


def test_buckets_equal_the_originals():
    attention = transformers.models.t5.modeling_t5.T5Attention
    for count, longest in ((32, 128), (12, 20)):
        distance = torch.arange(600)[None] - torch.arange(600)[:, None]
        wanted = attention._relative_position_bucket(
            distance, num_buckets=count, max_distance=longest
        )
        np.testing.assert_array_equal(t5.distance_buckets(600, count, longest), wanted.numpy())


def test_parameter_counts_of_the_originals():
    """The figures that `test_t5` expects of the full-size modules."""
    base = transformers.T5Config(d_model=768, d_ff=3072, num_layers=12, num_heads=12)
    flan = transformers.T5Config(
        d_model=1024, d_ff=2816, num_layers=24, num_heads=16, feed_forward_proj='gated-gelu'
    )
    for config, wanted in ((base, 109_628_544), (flan, 341_231_104)):
        with torch.device('meta'):
            model = transformers.T5EncoderModel(config)
        assert sum(p.numel() for p in model.parameters()) == wanted
