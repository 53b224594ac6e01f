"""Draws the README's figure: Frechet distance against time, for student and teacher.

    python tools/plot_quality_time.py --out=docs/quality_against_time.png

Distances and intervals come from docs/results/foley_evaluate.json, times of 10 s of sound from
docs/results/benchmark_cpu.json. The benchmark measured one step count of each model. The time of
another count is text + decoding + evaluations x (time of the denoiser / its evaluations), drawn
with a hollow marker.
"""

import argparse
import json
import pathlib

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt  # noqa: E402

RESULTS = pathlib.Path(__file__).resolve().parents[1] / 'docs' / 'results'
MODELS = {'teacher': ('#c44e52', 's'), 'student': ('#4c72b0', 'o')}
LEVELS = {'real against real': ':', 'reconstruction against real': '--'}


def quality_and_time(quality: list[dict], speed: list[dict]) -> list[dict]:
    """One row for each model and step count that was evaluated.

    Args:
        quality: rows of `experiments.evaluate`; the distances of YAMNet are used.
        speed: rows of `experiments.benchmark`, of systems 'student' and 'teacher'.

    Returns:
        Rows with model, steps, evaluations, distance, low, high, time (s) and whether the time of
        this count was measured.
    """
    times = {}
    for row in speed:
        if row.get('system') in MODELS:
            times.setdefault(row['system'], {'steps': row['steps']})[row['name']] = row['value']
    points = []
    for row in quality:
        is_distance = row['name'] == 'Frechet distance' and 'YAMNet' in row['embedder']
        if not is_distance or row['model'] not in MODELS:
            continue
        stages = times[row['model']]
        measured = row['steps'] == stages['steps']
        per_evaluation = stages['denoiser'] / stages['evaluations']
        computed = stages['text'] + stages['decode'] + row['nfe'] * per_evaluation
        points.append(
            {
                'model': row['model'],
                'steps': row['steps'],
                'evaluations': row['nfe'],
                'distance': row['value'],
                'low': row['low'],
                'high': row['high'],
                'time': stages['time'] if measured else computed,
                'measured': measured,
            }
        )
    return points


def levels(quality: list[dict]) -> dict[str, float]:
    """The distances of the two rows that bound any model, by name."""
    return {
        row['model']: row['value']
        for row in quality
        if row['name'] == 'Frechet distance'
        and 'YAMNet' in row['embedder']
        and row['model'] in LEVELS
    }


def plot(points: list[dict], bounds: dict[str, float], out: pathlib.Path) -> None:
    """Writes the figure as PNG."""
    figure, axis = plt.subplots(figsize=(7.2, 3.9), layout='constrained')
    for model, (colour, marker) in MODELS.items():
        mine = sorted((p for p in points if p['model'] == model), key=lambda p: p['time'])
        axis.plot([p['time'] for p in mine], [p['distance'] for p in mine], color=colour, lw=1.2)
        for point in mine:
            axis.errorbar(
                point['time'],
                point['distance'],
                [[point['distance'] - point['low']], [point['high'] - point['distance']]],
                color=colour,
                marker=marker,
                ms=7,
                mfc=colour if point['measured'] else 'white',
                capsize=3,
                elinewidth=0.8,
            )
            axis.annotate(
                str(point['steps']),
                (point['time'], point['distance']),
                xytext=(7, 6),
                textcoords='offset points',
                fontsize=9,
                color=colour,
            )
        axis.plot([], [], color=colour, marker=marker, label=f'{model}, by number of steps')
    for name, style in LEVELS.items():
        axis.axhline(bounds[name], color='0.4', ls=style, lw=1.1, label=name)
    axis.set_xscale('log')
    ticks = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
    axis.set_xticks(ticks, [f'{t:g}' for t in ticks])
    axis.minorticks_off()
    axis.set_xlim(0.055, 2.2)
    axis.set_ylim(bottom=0)
    axis.set_xlabel(
        'seconds for 10 s of 48 kHz stereo, two CPU cores\n'
        '(hollow: computed from the measured times of text, one evaluation and decoding)'
    )
    axis.set_ylabel('Frechet distance (YAMNet)\n64 scenes, lower is better')
    axis.grid(alpha=0.25)
    axis.legend(fontsize=8, ncols=2, frameon=False, loc='upper right')
    figure.savefig(out, dpi=130)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--out', type=pathlib.Path, default='docs/quality_against_time.png')
    out = parser.parse_args().out
    quality, speed = (
        json.loads((RESULTS / name).read_text())
        for name in ('foley_evaluate.json', 'benchmark_cpu.json')
    )
    plot(quality_and_time(quality, speed), levels(quality), out)
    print(out)


if __name__ == '__main__':
    main()
