"""AudioLDM 2 against diffusers and transformers: each network, and the whole sampler.

The original is a whole pipeline of small random networks that keeps every feature of the published
one, saved by `save_pretrained` and read by our importer.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_audioldm2

from realaudio_jax.teachers import importing
from realaudio_jax.teachers.audioldm2 import language_model, layers, model, pipeline

torch = pytest.importorskip('torch', reason="no torch: install the extra 'reference'")
transformers = pytest.importorskip(
    'transformers', reason="no transformers: install the extra 'reference'"
)
diffusers = pytest.importorskip('diffusers', reason="no diffusers: install the extra 'reference'")

PROMPTS = ['a dog barks twice', 'wind']
NETWORK = 1e-4  # of the largest value, in float32: sums in another order
SAMPLER = 1e-3


def unet_config(**changes) -> dict:
    """Of AudioLDM 2; `changes` make it small."""
    return {
        'sample_size': 256,
        'in_channels': 8,
        'out_channels': 8,
        'block_out_channels': (128, 256, 384, 640),
        'down_block_types': ('DownBlock2D', *('CrossAttnDownBlock2D',) * 3),
        'up_block_types': (*('CrossAttnUpBlock2D',) * 3, 'UpBlock2D'),
        'cross_attention_dim': ((None, 768, 1024),) * 4,
        'attention_head_dim': 8,
        'layers_per_block': 2,
        'norm_num_groups': 32,
        **changes,
    }


def vae_config(**changes) -> dict:
    """Of AudioLDM 2; `changes` make it small."""
    return {
        'in_channels': 1,
        'out_channels': 1,
        'block_out_channels': (128, 256, 512),
        'latent_channels': 8,
        'layers_per_block': 2,
        'norm_num_groups': 32,
        'down_block_types': ('DownEncoderBlock2D',) * 3,
        'up_block_types': ('UpDecoderBlock2D',) * 3,
        'scaling_factor': 0.41,
        **changes,
    }


def small_clap():
    shared = {'projection_dim': 10}
    text = shared | dict(
        vocab_size=300,
        hidden_size=12,
        intermediate_size=20,
        num_attention_heads=3,
        num_hidden_layers=2,
        max_position_embeddings=40,
    )
    audio = shared | dict(
        spec_size=8,
        window_size=4,
        num_mel_bins=8,
        intermediate_size=16,
        depths=[1, 1],
        num_attention_heads=[1, 1],
        num_hidden_layers=1,
        hidden_size=32,
        patch_size=2,
        patch_stride=2,
        patch_embed_input_channels=4,
        patch_embeds_hidden_size=16,
    )
    config = transformers.ClapConfig(text_config=text, audio_config=audio, **shared)
    return transformers.ClapModel(config)


def small_tokenizers(folder):
    """A byte-level BPE as RoBERTa's and a unigram model as T5's, of small vocabularies."""
    import tokenizers

    bpe = tokenizers.ByteLevelBPETokenizer()
    special = ['<s>', '<pad>', '</s>', '<unk>', '<mask>']
    bpe.train_from_iterator(PROMPTS, vocab_size=290, special_tokens=special)
    bpe.save_model(str(folder))
    pieces = [('<pad>', 0.0), ('</s>', 0.0), ('<unk>', -2.0), ('\u2581dog', -2.5)]
    pieces += [(letter, -3.0) for letter in '\u2581abcdefghijklmnopqrstuvwxyz']
    return (
        transformers.RobertaTokenizer.from_pretrained(folder, model_max_length=32),
        transformers.T5Tokenizer(vocab=pieces, extra_ids=4, model_max_length=24),
    )


@pytest.fixture(scope='module')
def original(tmp_path_factory):
    """A pipeline of small random networks, and the folder it was saved to."""
    torch.manual_seed(0)
    tokenizer, tokenizer_2 = small_tokenizers(tmp_path_factory.mktemp('bpe'))
    networks = {
        'unet': diffusers.AudioLDM2UNet2DConditionModel(
            **unet_config(
                sample_size=16, in_channels=3, out_channels=3, block_out_channels=(8, 12, 24),
                down_block_types=('DownBlock2D', *('CrossAttnDownBlock2D',) * 2),
                up_block_types=(*('CrossAttnUpBlock2D',) * 2, 'UpBlock2D'), norm_num_groups=4,
                cross_attention_dim=((None, 12, 20),) * 3, attention_head_dim=(2, 2, 3),
            )
        ),
        'vae': diffusers.AutoencoderKL(
            **vae_config(block_out_channels=(8, 12, 16), latent_channels=3, norm_num_groups=4)
        ),
        'text_encoder': small_clap(),
        'text_encoder_2': transformers.T5EncoderModel(
            transformers.T5Config(
                vocab_size=40, d_model=20, d_kv=7, d_ff=36, num_layers=2, num_heads=3,
                feed_forward_proj='gated-gelu',
            )
        ),
        'projection_model': diffusers.AudioLDM2ProjectionModel(10, 20, 12),
        'language_model': transformers.GPT2LMHeadModel(
            transformers.GPT2Config(
                n_embd=12, n_layer=2, n_head=3, n_positions=50, vocab_size=9, bos_token_id=0,
                eos_token_id=0,
            )
        ),
        'vocoder': transformers.SpeechT5HifiGan(
            transformers.SpeechT5HifiGanConfig(
                model_in_dim=16, upsample_initial_channel=32, upsample_rates=[5, 4, 2],
                upsample_kernel_sizes=[16, 16, 4], normalize_before=False,
            )
        ),
    }  # fmt: skip
    with torch.no_grad():
        for network in networks.values():
            for parameter in network.eval().parameters():
                # Norms that are not all one, biases that are not all zero.
                parameter.add_(0.1 * torch.randn_like(parameter))
    networks['language_model'].config.max_new_tokens = 8
    pipe = diffusers.AudioLDM2Pipeline(
        **networks,
        tokenizer=tokenizer,
        tokenizer_2=tokenizer_2,
        feature_extractor=transformers.ClapFeatureExtractor(),
        scheduler=diffusers.DDIMScheduler(
            beta_start=0.0015,
            beta_end=0.0195,
            beta_schedule='scaled_linear',
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
        ),
    )
    pipe.set_progress_bar_config(disable=True)
    folder = tmp_path_factory.mktemp('audioldm2')
    pipe.save_pretrained(folder)
    return pipe, folder


@pytest.fixture(scope='module')
def ours(original):
    return pipeline.load(original[1])


def assert_close(found, wanted, tolerance):
    wanted = np.asarray(wanted)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * np.abs(wanted).max())


def apply(ours, name, *args, **kwargs):
    network = getattr(ours.networks, name)
    function = jax.jit(lambda params, *inputs: network.apply({'params': params}, *inputs, **kwargs))
    return jax.tree.map(np.asarray, function(ours.params[name], *args))


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def planes(array):
    """[B C N M] of torch as our [B N M C]."""
    return np.moveaxis(np.asarray(array), 1, -1)


@torch.no_grad()
def test_unet(original, ours):
    x, generated, text = normal(0, 2, 13, 4, 3), normal(1, 2, 6, 12), normal(2, 2, 5, 20)
    step, mask = np.float32([981, 1]), np.arange(5)[None] < np.array([[3], [5]])
    wanted = (
        original[0]
        .unet(
            torch.tensor(np.moveaxis(x, -1, 1)),
            torch.tensor(step),
            torch.tensor(generated),
            encoder_hidden_states_1=torch.tensor(text),
            encoder_attention_mask_1=torch.tensor(mask).long(),
        )
        .sample
    )
    assert_close(apply(ours, 'unet', x, step, generated, text, mask), planes(wanted), NETWORK)


@torch.no_grad()
def test_autoencoder(original, ours):
    mel, latents = normal(0, 2, 20, 16), normal(1, 2, 5, 4, 3)
    posterior = original[0].vae.encode(torch.tensor(mel)[:, None]).latent_dist
    mean, log_variance = apply(ours, 'autoencoder', mel, method='encode')
    assert_close(mean, planes(posterior.mean), NETWORK)
    assert_close(log_variance, planes(posterior.logvar), NETWORK)
    wanted = original[0].vae.decode(torch.tensor(np.moveaxis(latents, -1, 1))).sample[:, 0]
    assert_close(apply(ours, 'autoencoder', latents, method='decode'), wanted, NETWORK)


@torch.no_grad()
def test_vocoder(original, ours):
    mel = normal(0, 2, 11, 16)
    wanted = original[0].vocoder(torch.tensor(mel))
    assert wanted.shape[1] == 448  # a rise of (16 - 5) taps is odd: 5 * 11 + 1 samples, then * 8
    assert_close(apply(ours, 'vocoder', mel), wanted, NETWORK)


@torch.no_grad()
def test_text_encoders_and_tokens(original, ours):
    pipe, _ = original
    inputs = pipe.tokenizer(PROMPTS, padding=True, return_tensors='pt')
    wanted = pipe.text_encoder.get_text_features(**inputs).pooler_output
    tokens = ours.tokens(PROMPTS)
    found = apply(ours, 'clap', tokens.clap_ids, tokens.clap_mask)[:2]
    assert_close(found, wanted, NETWORK)
    ids = pipe.tokenizer_2(PROMPTS, padding=True, return_tensors='pt')
    longest = ids.input_ids.shape[1]
    np.testing.assert_array_equal(tokens.ids[:2, :longest], ids.input_ids)
    wanted = pipe.text_encoder_2(**ids).last_hidden_state.numpy()
    found = apply(ours, 't5', tokens.ids, tokens.mask)[:2, :longest]
    mask = tokens.mask[:2, :longest]
    assert_close(found[mask], wanted[mask], NETWORK)


@torch.no_grad()
def test_projection(original, ours):
    clap, text = normal(0, 2, 10), normal(1, 2, 7, 20)
    wanted = original[0].projection_model(torch.tensor(clap)[:, None], torch.tensor(text))
    assert_close(apply(ours, 'projection', clap, text), wanted.hidden_states, NETWORK)


@torch.no_grad()
def test_language_model(original, ours):
    prompt, mask = normal(0, 2, 9, 12), np.ones((2, 9), bool)
    mask[0, 4:8] = False
    wanted = original[0].generate_language_model(
        torch.tensor(prompt), max_new_tokens=8, attention_mask=torch.tensor(mask).long()
    )
    positions = np.broadcast_to(np.arange(9), (2, 9))
    found = jax.jit(language_model.generate, static_argnums=(0, 5))(
        ours.networks.language_model,
        {'params': ours.params['language_model']},
        prompt,
        mask,
        positions,
        8,
    )
    assert_close(found, wanted, NETWORK)


@torch.no_grad()
def test_conditioning(original, ours):
    """Prompts of a batch, padded to the longest as the original pads them."""
    text, mask, generated = original[0].encode_prompt(PROMPTS, 'cpu', 1, True)
    found = jax.jit(model.condition, static_argnums=0)(
        ours.networks, ours.params, ours.tokens(PROMPTS, text.shape[1])
    )
    empty, asked = found.empty, found.prompt
    assert_close(np.concatenate([empty.generated, asked.generated]), generated, NETWORK)
    ours_mask = np.concatenate([empty.text_mask, asked.text_mask])[:, : text.shape[1]]
    np.testing.assert_array_equal(ours_mask, mask.numpy().astype(bool))
    ours_text = np.concatenate([empty.text, asked.text])[:, : text.shape[1]]
    assert_close(ours_text[ours_mask], text.numpy()[ours_mask], NETWORK)


@torch.no_grad()
def test_the_whole_sampler_from_the_same_noise(original, ours):
    """50 guided steps from prompt to samples; 13 latent frames, an odd plane at two levels."""
    pipe, _ = original
    noise, seconds = normal(0, 1, 3, 13, 4), 0.129
    wanted = pipe(
        prompt=PROMPTS[:1],
        audio_length_in_s=seconds,
        num_inference_steps=50,
        guidance_scale=3.5,
        latents=torch.tensor(noise),
        output_type='latent',
    ).audios
    start = jnp.asarray(planes(noise).reshape(1, 13, 12))
    latents = ours.sample(ours.condition(PROMPTS[:1]), start, 3.5, 50)
    assert_close(latents, planes(wanted).reshape(1, 13, 12), SAMPLER)
    mel = pipe.vae.decode(wanted / pipe.vae.config.scaling_factor).sample
    sound = pipe.mel_spectrogram_to_waveform(mel)[:, : int(seconds * 16_000)]
    assert 0.01 < sound.std() < 0.9  # neither silent nor a square wave
    assert_close(ours.generate(PROMPTS[:1], seconds, noise=start), sound, SAMPLER)


def test_a_half_precision_variant(original, tmp_path):
    """Weights saved in half precision, under the name diffusers gives to that variant."""
    half = diffusers.AudioLDM2UNet2DConditionModel.from_pretrained(
        original[1] / 'unet', low_cpu_mem_usage=False, dtype=torch.float16
    )
    half.save_pretrained(tmp_path, variant='fp16')
    shapes = model.parameter_shapes(pipeline.read_networks(original[1])[0])['unet']
    found = importing.import_params(tmp_path, shapes, layers.NAMES)['conv_in']['kernel']
    wanted = half.conv_in.weight.float().detach().numpy()
    np.testing.assert_array_equal(np.transpose(found, (3, 2, 0, 1)), wanted)


def test_the_published_layout_of_the_language_model(original, tmp_path):
    """The authors published a GPT-2 without its head, whose names lack a prefix."""
    whole, _ = original
    whole.language_model.transformer.save_pretrained(tmp_path)
    network, names, _ = language_model.read_language_model(tmp_path)
    assert names == language_model.NAMES
    assert network == pipeline.read_networks(original[1])[0].language_model


def test_parameter_counts_of_the_originals():
    """The figures that `test_audioldm2` expects of the full-size modules."""
    with torch.device('meta'):
        networks = {
            'unet': diffusers.AudioLDM2UNet2DConditionModel(**unet_config()),
            'autoencoder': diffusers.AutoencoderKL(**vae_config()),
            'vocoder': transformers.SpeechT5HifiGan(
                transformers.SpeechT5HifiGanConfig(
                    model_in_dim=64,
                    upsample_initial_channel=1024,
                    upsample_rates=[5, 4, 2, 2, 2],
                    upsample_kernel_sizes=[16, 16, 8, 4, 4],
                )
            ),
            'projection': diffusers.AudioLDM2ProjectionModel(512, 1024, 768),
            'language_model': transformers.GPT2Model(transformers.GPT2Config()),
            'clap': transformers.ClapModel(transformers.ClapConfig()),
            't5': transformers.T5EncoderModel(
                transformers.T5Config(
                    d_model=1024,
                    d_ff=2816,
                    num_layers=24,
                    num_heads=16,
                    feed_forward_proj='gated-gelu',
                )
            ),
        }
    counts = {k: sum(p.numel() for p in v.parameters()) for k, v in networks.items()}
    counts['language_model'] -= networks['language_model'].wte.weight.numel()
    clap = networks['clap']
    parts = (clap.text_model, clap.text_projection)
    counts['clap'] = sum(p.numel() for part in parts for p in part.parameters())
    assert counts == tiny_audioldm2.COUNTS
