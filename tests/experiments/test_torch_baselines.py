"""The benchmark's torch rows: the same sizes and shapes as its JAX rows."""

import pytest
import tiny_networks

torch = pytest.importorskip('torch', reason="no torch: install the extra 'reference'")
pytest.importorskip('transformers', reason="no transformers: install the extra 'reference'")
pytest.importorskip('diffusers', reason="no diffusers: install the extra 'reference'")


@pytest.fixture
def torch_baselines(experiment):
    return experiment('torch_baselines')


def pair(torch_baselines, name):
    baselines = torch_baselines.baselines
    networks, arguments = {
        'audioldm2': (tiny_networks.AUDIOLDM2, (None, 0.1, 'float32', 3)),
        'stable_audio_open': (
            tiny_networks.open_networks(baselines),
            (None, 0.001, 'float32', 3, False),
        ),
        'stable_audio_3': (tiny_networks.small_networks(baselines), (None, 0.3, 'float32', 3)),
    }[name]
    ours, theirs = (getattr(m, f'{name}_system') for m in (baselines, torch_baselines))
    return ours(*arguments, networks), theirs(*arguments, False, networks)


@pytest.mark.parametrize('name', ['audioldm2', 'stable_audio_open', 'stable_audio_3'])
def test_both_runtimes_do_the_same_work(torch_baselines, name):
    ours, theirs = pair(torch_baselines, name)
    facts = ('name', 'steps', 'guided', 'sample_rate', 'channels', 'made_s', 'weights')
    assert [getattr(ours, f) for f in facts] == [getattr(theirs, f) for f in facts]
    # GPT-2's tokens and CLAP's two scales are not read here; a scale of SAME is a buffer there.
    unread = {'audioldm2': 12 * 50_257 + 2, 'stable_audio_3': -1}.get(name, 0)
    assert theirs.parameters == ours.parameters + unread
    our_latents, latents = (s.sample(s.text(), 2) for s in (ours, theirs))
    assert latents.numel() == our_latents.size and torch.isfinite(latents).all()
    assert theirs.encode().numel() == our_latents.size
    sound, our_sound = theirs.decode(latents), ours.decode(our_latents)
    assert our_sound.size <= sound.numel() < 1.02 * our_sound.size  # HiFi-GAN adds a few
    assert not sound.requires_grad


def test_what_cannot_be_compiled_says_so(torch_baselines):
    def part():
        raise torch._dynamo.exc.TorchDynamoException('no C++ compiler\nfurther')

    with pytest.raises(torch_baselines.systems.CannotMeasure, match='fails: no C.. compiler$'):
        torch_baselines._finished(part)()
