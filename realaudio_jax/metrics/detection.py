"""Event-based and segment-based scores of labelled events, with the definitions of sed_eval.

Requested events against events found, over many clips: counts are summed first, then

    precision P = hits / found,   recall R = hits / requested,   F = 2 P R / (P + R)        (1)
    error rate = (substitutions + deletions + insertions) / requested                       (2)

Event-based: a found event is a hit if its label is that of a requested one, its onset lies within
a collar of it and, where offsets count, its offset within the larger of the collar and a share of
the requested length. Each event answers one other, in the way that gives most hits. Of those left
over, pairs at the right time with the wrong label are substitutions.

Segment-based: both lists become activity per label in segments of fixed length, and (1) and (2)
count segments; within one segment, misses and false alarms pair up as substitutions.

Mesaros, Heittola & Virtanen 2016, "Metrics for polyphonic sound event detection", and their
package sed_eval 0.2.1, whose values these equal. Not told apart here: how far off a miss was.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import scipy.sparse
import scipy.sparse.csgraph

from realaudio_jax.timeline import Event
from realaudio_jax.typing import Int

Pair = tuple[Sequence[Event], Sequence[Event]]  # requested and found, of one clip


@dataclasses.dataclass(frozen=True)
class DetectionScores:
    """Scores of a set of clips, in [0, 1] but for the error rates; NaN where undefined.

    Attributes:
        f1, precision, recall: (1) over all labels together.
        error_rate, substitutions, deletions, insertions: (2) and its parts, each over requested.
        class_f1, class_precision, class_recall: means over labels of (1), undefined ones left out.
        accuracy: share of segments and labels that are right, silence included; NaN for events.
        requested, found: how many events or active segments.
    """

    f1: float
    precision: float
    recall: float
    error_rate: float
    substitutions: float
    deletions: float
    insertions: float
    class_f1: float
    class_precision: float
    class_recall: float
    accuracy: float
    requested: int
    found: int


def event_scores(
    clips: Sequence[Pair],
    collar_s: float = 0.2,
    offset_share: float | None = 0.5,
) -> DetectionScores:
    """Event-based precision, recall, F score and error rates over a set of clips.

    Args:
        clips: requested and found events of each clip.
        collar_s: tolerance of onsets, and the least tolerance of offsets.
        offset_share: tolerance of an offset as a share of the requested length; None: onsets alone.

    Raises:
        ValueError: no clip has a requested event.
    """
    labels = _labels(clips)
    counts = np.zeros((len(labels), 3))  # hits, requested, found
    for requested, found in clips:
        hit = _hits(requested, found, collar_s, offset_share)[0]
        for row, label in zip(counts, labels, strict=True):
            of = [i for i, event in enumerate(requested) if event.text == label]
            row += hit[of].sum(), len(of), sum(e.text == label for e in found)
    total = sum(event_counts(pair, collar_s, offset_share) for pair in clips)
    hits, substitutions, requested, found = total
    parts = (substitutions, requested - hits - substitutions, found - hits - substitutions)
    return _scores(hits, requested, found, parts, counts, np.nan)


def event_counts(
    clip: Pair, collar_s: float = 0.2, offset_share: float | None = 0.5
) -> Int[np.ndarray, '4']:
    """Hits, substitutions, requested and found events of one clip; sums give `event_scores`."""
    requested, found = clip
    hit, substitutions = _hits(requested, found, collar_s, offset_share)
    return np.array([hit.sum(), substitutions, len(requested), len(found)])


def f1_of_counts(counts: Sequence[Int[np.ndarray, '4']]) -> float:
    """F of (1) from the `event_counts` of clips: 2 hits / (requested + found); NaN for none."""
    hits, _, requested, found = np.sum(counts, 0)
    return float(2 * hits / (requested + found)) if requested + found else float('nan')


def segment_scores(
    clips: Sequence[Pair], segment_s: float = 1.0, seconds: float | None = None
) -> DetectionScores:
    """Segment-based precision, recall, F score and error rates over a set of clips.

    Args:
        clips: requested and found events of each clip.
        segment_s: length of a segment.
        seconds: length of each clip; None ends it at its last offset, as sed_eval does.

    Raises:
        ValueError: no clip has a requested event.
    """
    labels = _labels(clips)
    counts, parts, right, cells = np.zeros((len(labels), 3)), np.zeros(3), 0, 0
    for pair in clips:
        last = max((event.offset_s for events in pair for event in events), default=0.0)
        length = int(np.ceil((last if seconds is None else seconds) / segment_s))
        a, b = (_roll(events, labels, length, segment_s) for events in pair)
        hits, active_a, active_b = (a & b).sum(1), a.sum(1), b.sum(1)
        parts += (
            (np.minimum(active_a, active_b) - hits).sum(),
            np.maximum(active_a - active_b, 0).sum(),
            np.maximum(active_b - active_a, 0).sum(),
        )
        counts += np.stack([(a & b).sum(0), a.sum(0), b.sum(0)], 1)
        right += (a == b).sum()
        cells += a.size
    hits, requested, found = counts.sum(0)
    return _scores(hits, requested, found, parts, counts, right / cells)


def _labels(clips):
    """Labels of the requested events: only these are judged by class."""
    labels = sorted({event.text for requested, _ in clips for event in requested})
    if not labels:
        raise ValueError('no requested events: a score needs at least one')
    return labels


def _hits(requested, found, collar_s, offset_share):
    """Whether each requested event was found, and the number of substitutions."""
    near = _near(requested, found, collar_s, offset_share)
    same = np.array([[r.text == f.text for f in found] for r in requested], bool)
    answer = _match(near & same.reshape(near.shape))
    left = near[answer < 0]
    left[:, answer[answer >= 0]] = False
    return answer >= 0, _pair_in_order(left)


def _near(requested, found, collar_s, offset_share):
    """Whether each found event is at the time of each requested one, [requested found]."""
    a, b = (
        np.array([(e.onset_s, e.offset_s) for e in events], np.float64).reshape(-1, 2)
        for events in (requested, found)
    )
    off = np.abs(a[:, None] - b[None])
    near = off[..., 0] <= collar_s
    if offset_share is not None:
        tolerance = np.maximum(collar_s, offset_share * (a[:, 1] - a[:, 0]))
        near &= off[..., 1] <= tolerance[:, None]
    return near


def _match(right):
    """For each row the column it is matched with, -1 for none: as many pairs as there can be."""
    if not right.size:
        return np.full(len(right), -1)
    graph = scipy.sparse.csr_array(right)
    return scipy.sparse.csgraph.maximum_bipartite_matching(graph, perm_type='column')


def _pair_in_order(near):
    """Number of matches when each row takes the first free column, in sed_eval's order."""
    free, pairs = np.ones(near.shape[1], bool), 0
    for row in near:
        columns = np.flatnonzero(row & free)
        if columns.size:
            free[columns[0]] = False
            pairs += 1
    return pairs


def _roll(events, labels, length, segment_s):
    """Activity, bool [length labels]; a segment is active where an event touches it."""
    roll = np.zeros((length, len(labels)), bool)
    for event in events:
        if event.text in labels:
            first = int(np.floor(event.onset_s / segment_s))
            last = int(np.ceil(event.offset_s / segment_s))
            roll[first:last, labels.index(event.text)] = True
    return roll


def _scores(hits, requested, found, parts, counts, accuracy):
    p, r, f = _precision_recall_f(np.array([[hits, requested, found]]))
    rates = [float(part) / requested for part in parts]
    with np.errstate(all='ignore'):
        by_class = [
            float(np.nanmean(x)) if not np.isnan(x).all() else float('nan')
            for x in _precision_recall_f(counts)
        ]
    return DetectionScores(
        float(f[0]),
        float(p[0]),
        float(r[0]),
        float(sum(rates)),
        *rates,
        by_class[2],
        by_class[0],
        by_class[1],
        float(accuracy),
        int(requested),
        int(found),
    )


def _precision_recall_f(counts):
    """(1) of each row of (hits, requested, found); NaN where nothing was found or requested."""
    hits, requested, found = counts.T.astype(np.float64)
    with np.errstate(all='ignore'):
        precision, recall = hits / found, hits / requested
        f = 2 * precision * recall / (precision + recall)
    return precision, recall, np.where((precision == 0) & (recall == 0), 0.0, f)
