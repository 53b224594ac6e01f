"""Sources of procedural sounds, and weighted mixtures of sources."""

from collections.abc import Sequence

import numpy as np

from realaudio_jax.data import foley
from realaudio_jax.data.foley.primitives import SplitGenerator
from realaudio_jax.data.sources import Clip, Kind, Source
from realaudio_jax.typing import SAMPLE_RATE


class FoleySource:
    """Source of procedural sounds; every pick is synthesised anew.

    The two splits share their classes and nothing else. Held-out sounds have sizes, pitches and
    rates that training never draws (see `foley.primitives.SplitGenerator`) and a wording of their
    own, and `scenes.make_scenes` draws their scenes from a stream of their own.

    Args:
      split: 'train' or 'held_out'.

    Attributes:
      digest: of all that decides its sounds: the version of the synthesis, the split.
      spawn_key: of the stream of random numbers that scenes are drawn from.

    Raises:
      ValueError: another split.
    """

    labels = tuple(sorted({*foley.EVENTS, *foley.AMBIENCES}))
    kinds: tuple[Kind, ...] = ('event', 'ambience')

    def __init__(self, split: str = 'train'):
        if split not in ('train', 'held_out'):
            raise ValueError(f'split {split!r} is not one of train, held_out')
        self.split = split
        self.digest = f'foley {foley.VERSION} {split}'
        self.spawn_key: tuple[int, ...] = (1,) if split == 'held_out' else ()

    def pick(self, rng: np.random.Generator, kind: Kind, seconds: float | None = None) -> Clip:
        """A new sound of a random class; an ambience lasts `seconds`, an event at most that."""
        table = foley.EVENTS if kind == 'event' else foley.AMBIENCES
        made = table[list(table)[rng.integers(len(table))]]
        held_out = self.split == 'held_out'
        texts = made.texts[-1:] if held_out else made.texts[:-1]
        text = texts[rng.integers(len(texts))]
        audio = made.synthesize(SplitGenerator(rng, held_out), seconds)
        whole = ((0.0, len(audio) / SAMPLE_RATE),)
        return Clip(audio, SAMPLE_RATE, made.name, text, whole, 'CC0-1.0', kind)


class MixedSource:
    """Picks from several sources, each in proportion to its weight.

    Args:
      sources: at least one.
      weights: of the same length, positive; they need not sum to 1.

    Raises:
      ValueError: lengths differ, no source, or a weight that is not positive.
    """

    def __init__(self, sources: Sequence[Source], weights: Sequence[float]):
        if not sources or len(sources) != len(weights) or min(weights) <= 0:
            raise ValueError(
                f'{len(sources)} sources with weights {tuple(weights)}: give each source a '
                'positive weight'
            )
        self.sources, self.weights = tuple(sources), tuple(map(float, weights))
        self.digest = repr([(s.digest, w) for s, w in zip(sources, self.weights, strict=True)])
        self.labels = tuple(sorted({label for source in sources for label in source.labels}))
        self.kinds = tuple(
            kind for kind in ('event', 'ambience') if any(kind in s.kinds for s in sources)
        )
        self.spawn_key: tuple[int, ...] = max(getattr(s, 'spawn_key', ()) for s in sources)

    def pick(self, rng: np.random.Generator, kind: Kind, seconds: float | None = None) -> Clip:
        """A sound from one of the sources that have this kind.

        Raises:
          ValueError: none of them has.
        """
        able = [i for i, source in enumerate(self.sources) if kind in source.kinds]
        if not able:
            raise ValueError(f'none of the {len(self.sources)} sources has an {kind}')
        weights = np.array([self.weights[i] for i in able])
        return self.sources[rng.choice(able, p=weights / weights.sum())].pick(rng, kind, seconds)
