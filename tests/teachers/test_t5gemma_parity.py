"""The T5Gemma encoder against transformers, through a folder that it saved."""

import jax
import numpy as np
import pytest

from realaudio_jax.teachers import t5gemma

torch = pytest.importorskip('torch', reason="no torch: install the extra 'reference'")
transformers = pytest.importorskip(
    'transformers', reason="no transformers: install the extra 'reference'"
)


def encoder(**arguments):
    part = transformers.T5GemmaModuleConfig(**arguments)
    config = transformers.T5GemmaConfig(encoder=part, decoder=part, is_encoder_decoder=False)
    return transformers.T5GemmaEncoderModel(config).eval()


def test_states_equal_the_originals(tmp_path):
    """A window and a cap that are felt, and keys that heads share."""
    torch.manual_seed(0)
    model = encoder(
        vocab_size=50,
        hidden_size=24,
        intermediate_size=36,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=10,
        query_pre_attn_scalar=7,
        sliding_window=5,
        attn_logit_softcapping=2.0,
    )
    with torch.no_grad():  # norms that are not all one
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    model.save_pretrained(tmp_path)
    ids = np.random.default_rng(0).integers(2, 50, (3, 17))
    mask = np.arange(17)[None] < np.array([17, 11, 0])[:, None]
    with torch.no_grad():
        wanted = model(torch.tensor(ids), torch.tensor(mask).long()).last_hidden_state.numpy()
    ours, params = t5gemma.import_t5gemma(tmp_path)
    states = np.asarray(jax.jit(ours.apply)({'params': params}, ids, mask))
    np.testing.assert_allclose(states[mask], wanted[mask], atol=1e-4 * np.abs(wanted).max())
    assert np.isfinite(states).all()  # of a text with no token at all


def test_parameter_count_of_the_original():
    """The figure that `test_stable_audio_3` expects of t5gemma-b-b-ul2."""
    with torch.device('meta'):
        model = encoder(
            hidden_size=768,
            intermediate_size=2048,
            num_hidden_layers=12,
            num_attention_heads=12,
            num_key_value_heads=12,
            head_dim=64,
        )
    assert sum(p.numel() for p in model.parameters()) == 281_580_288
