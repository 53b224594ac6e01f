"""Asks a running server for many sounds while other clients misbehave: times, statuses, memory.

    python -m experiments.serve --release=DIR --seconds=0.5 --steps=1 &
    python tools/stress_server.py --port=8000 --seconds=0.5 --steps=1 --requests=10000 --release=DIR

With --release the bytes of eight seeds are compared with those that `generate` gives in this
process. Status 1 where a request fails, or bytes differ. Everything ends: each wait has its limit.
"""

import argparse
import hashlib
import http.client
import json
import queue
import socket
import sys
import threading
import time

import numpy as np

SEEDS = 8
HEAD = b'POST /generate HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n'


def client(port, fields, work, rows):
    """Asks again and again on one connection: (seed, status, seconds, digest) of each answer."""
    connection = http.client.HTTPConnection('127.0.0.1', port, timeout=60)
    while True:
        try:
            seed = work.get_nowait()
        except queue.Empty:
            return connection.close()
        body = json.dumps(fields | {'seed': seed})
        begin = time.perf_counter()
        try:
            connection.request('POST', '/generate', body, {'Content-Type': 'application/json'})
            response = connection.getresponse()
            data, status = response.read(), response.status
            timing = response.headers.get('Server-Timing', '')
        except (OSError, http.client.HTTPException) as error:
            data, status, timing = b'', type(error).__name__, ''
            connection.close()
        took = time.perf_counter() - begin
        inside = sum(float(part.split('dur=')[1]) for part in timing.split(', ') if part) / 1000
        rows.append((seed, status, took, inside, hashlib.sha256(data).hexdigest()))


def misbehave(port, fields, stop):
    """Vanishes, sends nonsense, half a head, a slow body, or reads nothing, again and again."""
    body = json.dumps(fields).encode()
    whole = HEAD + b'Content-Length: %d\r\n\r\n' % len(body) + body
    kinds = [whole, b'\x16\x03\x01 nonsense\r\n\r\n', HEAD, HEAD + b'Content-Length: 99\r\n\r\n{']
    kinds += [HEAD + b'Content-Length: 3\r\n\r\n{"x', whole * 4, b'GET /' + b'x' * 70_000]
    held, count = [], 0
    while not stop.wait(0.3):
        try:
            connection = socket.create_connection(('127.0.0.1', port), timeout=1)
            connection.sendall(kinds[count % len(kinds)])
            held.append(connection)
        except OSError:
            pass
        count += 1
        if len(held) > 40:
            held.pop(0).close()
    for connection in held:
        connection.close()


def memory(port):
    """Resident memory of the server, MiB."""
    connection = http.client.HTTPConnection('127.0.0.1', port, timeout=30)
    connection.request('GET', '/metrics')
    text = connection.getresponse().read().decode()
    connection.close()
    line = next(x for x in text.splitlines() if x.startswith('process_resident_memory_bytes '))
    return float(line.split()[1]) / 2**20


def offline(release, fields):
    """Digests of the sounds as this process makes them."""
    import realaudio_jax
    from realaudio_jax.io import encode_audio

    generator = realaudio_jax.load(release)
    sounds = (generator.generate(**fields, seed=seed) for seed in range(SEEDS))
    return [
        hashlib.sha256(encode_audio(sound.pcm, sound.sample_rate, '.wav')).hexdigest()
        for sound in sounds
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--port', type=int, default=8000)
    parser.add_argument('--requests', type=int, default=1_000)
    parser.add_argument('--clients', type=int, default=2)
    parser.add_argument('--seconds', type=float, default=2.0)
    parser.add_argument('--steps', type=int, default=4)
    parser.add_argument('--misbehave', action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument('--release', help='compare bytes with this release, made here')
    options = parser.parse_args()
    fields = {'prompt': 'rain', 'seconds': options.seconds, 'steps': options.steps}
    expected = offline(options.release, fields) if options.release else None
    rows, stop = [], threading.Event()
    bad = threading.Thread(target=misbehave, args=(options.port, fields, stop))
    if options.misbehave:
        bad.start()
    parts = 10
    for _ in range(parts):
        work = queue.Queue()
        for i in range(options.requests // parts):
            work.put(i % SEEDS)
        arguments = (options.port, fields, work, rows)
        clients = [threading.Thread(target=client, args=arguments) for _ in range(options.clients)]
        for thread in clients:
            thread.start()
        for thread in clients:
            thread.join()
        print(f'{len(rows)} requests, {memory(options.port):.0f} MiB', flush=True)
    stop.set()
    if options.misbehave:
        bad.join()
    statuses = {status: sum(row[1] == status for row in rows) for status in {r[1] for r in rows}}
    times = np.array([row[2] for row in rows if row[1] == 200]) * 1000
    outside = times - np.array([row[3] for row in rows if row[1] == 200]) * 1000
    digests = [{row[4] for row in rows if row[:2] == (seed, 200)} for seed in range(SEEDS)]
    same = all(len(found) == 1 for found in digests)
    if expected:
        same = digests == [{digest} for digest in expected]
    for name, values in (('request', times), ('besides queue and generate', outside)):
        p50, p95, p99 = np.percentile(values, (50, 95, 99))
        print(f'{name}, ms: median {p50:.1f}, p95 {p95:.1f}, p99 {p99:.1f}')
    print(f'statuses {statuses}; bytes {"the same" if same else "DIFFER"}')
    sys.exit(0 if same and set(statuses) == {200} else 1)


if __name__ == '__main__':
    main()
