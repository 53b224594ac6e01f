"""All metrics of a codec on a set of recordings, and paired differences between two codecs."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from realaudio_jax.metrics.bootstrap import paired_bootstrap
from realaudio_jax.metrics.codec.reconstruction import (
    band_energy_error,
    bandwidth_kept,
    log_mel_l1,
    multi_resolution_stft,
    si_sdr,
    stereo_width_error,
)
from realaudio_jax.metrics.codec.stereo import is_stereo, side, stereo_errors
from realaudio_jax.metrics.codec.tonality import (
    pitch_error_cents,
    roughness,
    signal_purity,
    steadiest,
    test_signals,
    tonal_lines,
)
from realaudio_jax.metrics.codec.transients import attack_errors, energy_before_attacks
from realaudio_jax.metrics.distances import Windows, distance_rows
from realaudio_jax.metrics.embedders.base import Embedder, embed_clips
from realaudio_jax.metrics.frechet import frechet_difference
from realaudio_jax.metrics.rows import FRECHET_DISTANCE, REAL, interval_row, statistic_row
from realaudio_jax.typing import Float, PyTree

DISTANCES = ('fad', 'kad')
SIDE_CLIPS = 4  # stereo recordings, from which on the side alone has a distance
EXACT_DB = 100.0  # stands for the SI-SDR of an exact copy, or the mean would be infinite

Codec = Callable[[Float[np.ndarray, 'S 2']], Float[np.ndarray, 'S 2']]


@dataclasses.dataclass(frozen=True)
class Metric:
    """One metric of a codec.

    Attributes:
        unit: of the values.
        statistic: joins the values of all clips.
        values: of each clip; none where the metric is not defined for it.
    """

    unit: str
    statistic: Callable[[np.ndarray], float]
    values: list[Float[np.ndarray, '_']]


@dataclasses.dataclass(frozen=True)
class CodecMeasurements:
    """What one codec made of an evaluator's recordings and test signals.

    Attributes:
        metrics: by name.
        windows, side_windows: of each embedder, of the sounds and of the sides of the stereo ones.
        purity: line over skirt of each test signal, dB.
    """

    metrics: dict[str, Metric]
    windows: list[Windows]
    side_windows: list[Windows]
    purity: dict[str, float]


class CodecEvaluator:
    """Recordings against which codecs are measured, with all that is known of them alone.

    Args:
        originals: float32 [S 2] in [-1, 1].
        sample_rate: Hz.
        embedders: of the distances.
        crepe: parameters of CREPE for pitch errors; None leaves them out.
    """

    def __init__(
        self,
        originals: Sequence[Float[np.ndarray, 'S 2']],
        sample_rate: int,
        embedders: Sequence[Embedder] = (),
        crepe: PyTree | None = None,
    ):
        self.originals, self.sample_rate = list(originals), sample_rate
        self.embedders, self._crepe = list(embedders), crepe
        self._roughness = [roughness(x, sample_rate) for x in self.originals]
        self._steadiest = set(steadiest(self._roughness))
        self._stereo = [i for i, x in enumerate(self.originals) if is_stereo(x)]
        self._windows, self._side_windows = self._embed(self.originals)
        self._signals = test_signals(sample_rate)

    def measure(self, codec: Codec) -> CodecMeasurements:
        """Every metric of a codec: a function from one sound to its reconstruction."""
        others = [codec(original) for original in self.originals]
        windows, side_windows = self._embed(others)
        purity = {s.name: signal_purity(s, codec(s.audio), self.sample_rate) for s in self._signals}
        return CodecMeasurements(self._metrics(others), windows, side_windows, purity)

    def rows(self, measured: CodecMeasurements) -> list[dict]:
        """A row for each metric, see `metrics`."""
        rows = []
        for embedder, real, made in zip(
            self.embedders, self._windows, measured.windows, strict=True
        ):
            rows += distance_rows(real, made, embedder, DISTANCES, paired=True)
        if len(self._stereo) >= SIDE_CLIPS:
            for embedder, real, made in zip(
                self.embedders, self._side_windows, measured.side_windows, strict=True
            ):
                found = distance_rows(real, made, embedder, DISTANCES[:1], paired=True)
                rows += [row | {'name': 'Frechet distance of the side'} for row in found]
        rows += [
            {'name': f'line over skirt, {name}', 'value': value, 'unit': 'dB', 'n': 1}
            for name, value in measured.purity.items()
        ]
        for name, metric in measured.metrics.items():
            clips = [values for values in metric.values if values.size]
            if clips:
                rows.append(statistic_row(name, _joined(metric), clips, metric.unit))
        return rows

    def floor_rows(self) -> list[dict]:
        """Reference rows: distance between two halves of the recordings, and their own metrics."""
        rows = []
        for embedder, windows in zip(self.embedders, self._windows, strict=True):
            found = distance_rows(windows[::2], windows[1::2], embedder, DISTANCES)
            rows += [{'note': 'two halves'} | row for row in found]
        lines = [tonal_lines(x, x, self.sample_rate) for x in self.originals]
        widths = [found.width_before for found in lines if found]
        if widths:
            rows.append(statistic_row('width of lines', np.median, widths, 'Hz'))
        return [row | {'model': REAL} for row in rows]

    def difference_rows(self, first: CodecMeasurements, second: CodecMeasurements) -> list[dict]:
        """Each metric of the second codec less that of the first, with a paired interval.

        Every resample draws the same clips for both, so the interval says whether the two differ on
        such recordings, and not how much recordings differ.
        """
        rows = []
        for embedder, real, a, b in zip(
            self.embedders, self._windows, first.windows, second.windows, strict=True
        ):
            found = frechet_difference(real, a, b)
            rows.append(interval_row(FRECHET_DISTANCE, found) | {'embedder': embedder.name})
        for name, metric in second.metrics.items():
            pairs = [
                pair
                for pair in zip(metric.values, first.metrics[name].values, strict=True)
                if pair[0].size and pair[1].size
            ]
            if pairs:
                found = paired_bootstrap(_joined(metric), *zip(*pairs, strict=True))
                rows.append(interval_row(name, found, metric.unit))
        return rows

    def _embed(self, sounds):
        rate = self.sample_rate
        sides = [side(sounds[i]) for i in self._stereo]
        whole = [embed_clips(embedder, sounds, rate) for embedder in self.embedders]
        return whole, [embed_clips(embedder, sides, rate) for embedder in self.embedders]

    def _metrics(self, others):
        rate, pairs = self.sample_rate, list(zip(self.originals, others, strict=True))

        def each(unit, measure, statistic=np.mean):
            return Metric(unit, statistic, [_finite(measure(a, b)) for a, b in pairs])

        def rough(i, other):
            if i not in self._steadiest:
                return _finite([])
            return _finite(roughness(other, rate) / self._roughness[i])

        metrics = {
            'log-mel L1': each('', lambda a, b: log_mel_l1(a, b, rate)),
            # two metrics are undefined for silence
            'multi-resolution STFT': each(
                '', lambda a, b: multi_resolution_stft(a, b) if a.any() else []
            ),
            'SI-SDR': each('dB', lambda a, b: min(si_sdr(a, b), EXACT_DB) if a.any() else []),
            'stereo width error': each('', lambda a, b: abs(stereo_width_error(a, b))),
            'bandwidth kept': each('%', lambda a, b: 100 * bandwidth_kept(a, b, rate)),
            'roughness ratio': Metric(
                '', np.mean, [rough(i, other) for i, other in enumerate(others)]
            ),
            'onset error': each('ms', lambda a, b: np.abs(attack_errors(a, b, rate)), np.median),
            'energy before an onset': each(
                'dB', lambda a, b: energy_before_attacks(a, b, rate), np.median
            ),
        }
        lines = [tonal_lines(a, b, rate) for a, b in pairs]
        image = [stereo_errors(a, b, rate) for a, b in pairs]
        bands = [band_energy_error(a, b, rate) for a, b in pairs]
        for name, unit, found, attribute in (
            ('width of lines', 'Hz', lines, 'width_after'),
            ('frequency error of lines', 'cents', lines, 'frequency_error'),
            ('level difference between channels, error', 'dB', image, 'level'),
            ('phase difference between channels, error', 'degrees', image, 'phase'),
            ('coherence between channels, error', '', image, 'coherence'),
        ):
            values = [_finite(getattr(x, attribute) if x else []) for x in found]
            metrics[name] = Metric(unit, np.median, values)
        for band in bands[0]:
            errors = [_finite(abs(found[band])) for found in bands]
            metrics[f'energy error {band}'] = Metric('dB', np.mean, errors)
        if self._crepe is not None:
            metrics['pitch error'] = each(
                'cents', lambda a, b: pitch_error_cents(a, b, rate, self._crepe), np.median
            )
        return metrics


def _finite(values):
    values = np.atleast_1d(np.asarray(values, np.float64))
    return values[np.isfinite(values)]


def _joined(metric):
    return lambda clips: float(metric.statistic(np.concatenate(clips)))
