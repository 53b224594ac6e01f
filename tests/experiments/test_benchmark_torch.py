"""The benchmark's torch rows: the same sizes and shapes as its JAX rows."""

import pytest
import tiny_networks

torch = pytest.importorskip('torch', reason="no torch: install the extra 'reference'")
pytest.importorskip('transformers', reason="no transformers: install the extra 'reference'")
pytest.importorskip('diffusers', reason="no diffusers: install the extra 'reference'")


@pytest.fixture
def torch_systems(experiment):
    return experiment('torch_systems')


def pair(torch_systems, name):
    systems = torch_systems.systems
    if name == 'audioldm2':
        arguments = None, 0.1, 'float32', 3
        networks = tiny_networks.AUDIOLDM2
        return (
            systems.audioldm2_system(*arguments, networks),
            torch_systems.audioldm2_system(*arguments, False, networks),
        )
    arguments, networks = (None, 0.001, 'float32', 3, False), tiny_networks.open_networks(systems)
    return (
        systems.stable_audio_open_system(*arguments, networks),
        torch_systems.stable_audio_open_system(*arguments, False, networks),
    )


@pytest.mark.parametrize('name', ['audioldm2', 'open'])
def test_both_runtimes_do_the_same_work(torch_systems, name):
    ours, theirs = pair(torch_systems, name)
    facts = ('name', 'steps', 'guided', 'sample_rate', 'channels', 'made_s', 'weights')
    assert [getattr(ours, f) for f in facts] == [getattr(theirs, f) for f in facts]
    unread = 12 * 50_257 + 2 if name == 'audioldm2' else 0  # GPT-2's tokens, CLAP's two scales
    assert theirs.parameters == ours.parameters + unread
    our_latents, latents = (s.sample(s.text(), 2) for s in (ours, theirs))
    assert latents.numel() == our_latents.size and torch.isfinite(latents).all()
    assert theirs.encode().numel() == our_latents.size
    sound, our_sound = theirs.decode(latents), ours.decode(our_latents)
    assert our_sound.size <= sound.numel() < 1.02 * our_sound.size  # HiFi-GAN adds a few
    assert not sound.requires_grad


def test_what_cannot_be_compiled_says_so(torch_systems):
    def part():
        raise torch._dynamo.exc.TorchDynamoException('no C++ compiler\nfurther')

    with pytest.raises(torch_systems.systems.CannotMeasure, match='fails: no C.. compiler$'):
        torch_systems._finished(part)()
