"""Times a running server beside this process: requests, the first sound of a stream, an edit.

    python -m experiments.serve --seconds=2 --hop=0.4 &
    python tools/time_serving.py --port=8000

What `generate` takes is the server's own figure, in Server-Timing; what serving adds is the rest.
Needs the extra `serve`.
"""

import argparse
import http.client
import json
import struct
import time

import numpy as np
from websockets.sync.client import connect


def percentiles(name, seconds):
    """A line of median and 95th percentile in ms, with an interval of the median (bootstrap)."""
    ms, rng = 1000 * np.asarray(seconds), np.random.default_rng(0)
    draws = np.median(rng.choice(ms, (1000, len(ms))), axis=1)
    low, high = np.percentile(draws, (2.5, 97.5))
    p50, p95 = np.percentile(ms, (50, 95))
    print(f'{name}: median {p50:.1f} ms [{low:.1f}, {high:.1f}], p95 {p95:.1f}, n {len(ms)}')


def time_requests(port, count, seconds, steps):
    """One client that asks again as soon as it has been answered."""
    whole, inside = [], []
    connection = http.client.HTTPConnection('127.0.0.1', port, timeout=60)
    for seed in range(count + 5):
        body = json.dumps({'prompt': 'rain', 'seconds': seconds, 'steps': steps, 'seed': seed})
        begin = time.perf_counter()
        connection.request('POST', '/generate', body, {'Content-Type': 'application/json'})
        response = connection.getresponse()
        data = response.read()
        took = time.perf_counter() - begin
        if response.status != 200:
            raise SystemExit(f'status {response.status}: {data.decode()}')
        timing = response.headers['Server-Timing']
        if seed >= 5:  # the first ones warm up
            whole.append(took)
            inside.append(float(timing.split('generate;dur=')[1]) / 1000)
    percentiles(f'a request of {seconds:g} s', whole)
    percentiles('its program alone', inside)
    percentiles('besides', np.subtract(whole, inside))


def heard(client):
    """The next message: a dict, or (first frame, editable frame, samples)."""
    message = client.recv(timeout=60)
    if isinstance(message, str):
        return json.loads(message)
    return *struct.unpack('<QQ', message[:16]), np.frombuffer(message[16:], '<i2').reshape(-1, 2)


def play(port, steps, edit_at=None, length=4.0):
    """A stream to its end: (s to the first sound, PCM, s for the answer to an edit, its frame)."""
    begin = time.perf_counter()
    start = {'type': 'start', 'prompt': 'rain', 'steps': steps, 'seconds': length, 'ahead': 0.4}
    first, answered, place, parts, end = None, None, None, [], 0
    with connect(f'ws://127.0.0.1:{port}/stream', max_size=None) as client:
        client.send(json.dumps(start))
        while True:
            message = heard(client)
            if isinstance(message, tuple):
                first = first or time.perf_counter() - begin
                parts.append(message[2])
                end = message[0] + len(message[2])
                if edit_at is not None:
                    onset = message[1] / 48_000 + edit_at
                    asked = time.perf_counter()
                    events = [['gunshot', onset, onset + 0.4]]
                    client.send(json.dumps({'type': 'edit', 'events': events}))
                    edit_at = None
                client.send(json.dumps({'type': 'played', 'frame': end}))
            elif message['type'] == 'edited':
                answered, place = time.perf_counter() - asked, (message['from'], onset)
            elif message['type'] == 'ended':
                return first, np.concatenate(parts).astype(int), answered, place
            elif message['type'] in ('error', 'refused'):
                raise SystemExit(message['error'])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--port', type=int, default=8000)
    parser.add_argument('--requests', type=int, default=200)
    parser.add_argument('--streams', type=int, default=10)
    parser.add_argument('--seconds', type=float, default=2.0)
    parser.add_argument('--steps', type=int, default=4)
    options = parser.parse_args()
    time_requests(options.port, options.requests, options.seconds, options.steps)
    plain = [play(options.port, options.steps) for _ in range(options.streams)]
    percentiles('first sound of a stream', [first for first, *_ in plain])
    edited = [play(options.port, options.steps, 0.05) for _ in range(options.streams)]
    percentiles('answer to an edit', [answered for _, _, answered, _ in edited])
    late = []
    for _, pcm, _, (soonest, onset) in edited:
        differs = np.flatnonzero(np.abs(pcm - plain[0][1]).max(axis=1) > 1)
        late.append(differs[0] / 48_000 - onset)
        assert soonest / 48_000 <= onset
    print(
        f'sound changes {min(late):.3f} to {max(late):.3f} s from the onset of an event added '
        'as soon as it may'
    )


if __name__ == '__main__':
    main()
