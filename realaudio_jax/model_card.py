"""The model card of a release: README.md with the header that the Hugging Face Hub reads."""

import os
import pathlib

from realaudio_jax.io import atomic_path
from realaudio_jax.release_config import ReleaseConfig

CARD_NAME = 'README.md'
UNSTATED = 'to-be-stated'
_FILES = {
    'autoencoder.safetensors': 'spectral autoencoder',
    'teacher.safetensors': 'latent denoiser, sampled with classifier-free guidance',
    'student.safetensors': 'the denoiser, distilled to few steps',
    'teacher_adapter.safetensors': 'low-rank adapter of the teacher',
    'student_adapter.safetensors': 'low-rank adapter of the student',
    'student_moments.safetensors': 'gain and shift of each latent channel by step count',
    'text_encoder.safetensors': 'all-MiniLM-L6-v2 (Apache-2.0)',
    'tokenizer.json': 'its tokenizer',
    'vocabulary.safetensors': 'labels of the training sounds',
    'audio_tower.safetensors': 'embedder for metrics',
    'config.json': 'sizes and defaults',
    'ATTRIBUTION.md': 'authors and licences of the recordings',
    'SHA256SUMS': 'digests of these files, checked at load',
}


def write_model_card(folder: str | os.PathLike, licence: str | None = None) -> bool:
    """Writes the model card of a release that has none.

    What nobody but its author knows (licence of the weights, limits, results) is left open in plain
    sight.

    Args:
        folder: of the release.
        licence: of the weights as the Hub names licences, such as 'cc-by-4.0'; None leaves it open.

    Returns:
        Whether it was written; a card that is there stays.
    """
    folder = pathlib.Path(folder)
    path = folder / CARD_NAME
    if path.exists():
        return False
    with atomic_path(path) as temporary:
        temporary.write_text(model_card(folder, licence), encoding='utf-8')
    return True


def model_card(folder: str | os.PathLike, licence: str | None = None) -> str:
    """The text of a release's model card; see `write_model_card`."""
    folder = pathlib.Path(folder)
    config = ReleaseConfig.read(folder)
    header = [f'license: {licence}'] if licence else ['license: other', f'license_name: {UNSTATED}']
    steps = ', '.join(map(str, config.student.steps))
    rows = [
        f'| `{name}` | {what} | {(folder / name).stat().st_size / 1e6:.2g} MB |'
        for name, what in _FILES.items()
        if (folder / name).is_file()
    ]
    return '\n'.join(
        [
            '---',
            *header,
            'library_name: realaudio_jax',
            'pipeline_tag: text-to-audio',
            'tags: [audio, text-to-audio, sound-effects, jax]',
            '---',
            f'# {config.name}',
            '',
            'Text and a timeline of events to stereo sound with realaudio_jax, by a student of '
            f'{steps} denoiser steps.',
            '',
            '```python',
            'import realaudio_jax',
            '',
            "generator = realaudio_jax.load('hf://OWNER/NAME@COMMIT')  # of this repository",
            "sound = generator.generate('dog barking in the rain', events='gunshot@2.3-2.8')",
            "sound.save('dog.wav')",
            '```',
            '',
            '| file | what it is | size |',
            '|---|---|---|',
            *rows,
            '',
            '## What it cannot do',
            '',
            '(To be written: sounds it was not trained on, languages, what listeners noticed.)',
            '',
            '## Data',
            '',
            'The recordings and their authors are in `ATTRIBUTION.md`.'
            if (folder / 'ATTRIBUTION.md').is_file()
            else '(To be written: what it was trained on, and under which licences.)',
            '',
            '## Results',
            '',
            '(To be written: `python -m experiments.evaluate`, with n, evaluator and interval.)',
            '',
        ]
    )


def upload_lines(folder: str | os.PathLike) -> list[str]:
    """The commands that publish a release."""
    name = pathlib.Path(folder).resolve().name
    return [
        f'publish it: hf upload OWNER/{name} {folder}',
        f'or: tar -cf {name}.tar -C {folder} . && sha256sum {name}.tar',
    ]
