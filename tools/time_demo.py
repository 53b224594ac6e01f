"""Times the demo in a browser without a window: from a click to sound, and what a drag moves.

    python -m experiments.demo &
    python tools/time_demo.py --port=8000

The time is the page's own: from the click until the sound is handed to the device, its latency as
the browser states it included. Onsets are measured in the samples that the page holds. Needs the
extra `browser`, and Chromium on PATH.
"""

import argparse
import base64
import shutil

import numpy as np
from playwright.sync_api import sync_playwright

from realaudio_jax.metrics.onsets import onset_errors

PCM = """(() => {
  const {pcm} = window.demo.state.takes[4], parts = [];
  const bytes = new Uint8Array(pcm.buffer, pcm.byteOffset, pcm.byteLength);
  for (let i = 0; i < bytes.length; i += 30000)
    parts.push(btoa(String.fromCharCode(...bytes.subarray(i, i + 30000))));
  return parts.join('');
})()"""
READY = """(({events, takes}) => Boolean(takes[4]?.measured)
  && JSON.stringify(takes[4].events) === JSON.stringify(events))(window.demo.state)"""


def until(page, condition):
    for _ in range(3000):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(20)
    raise SystemExit(f'nothing after a minute: {condition}')


def onset(page, index):
    """(requested, measured) onset of an event in s."""
    requested = float(page.evaluate(f'window.demo.state.events[{index}].onset'))
    pcm = np.frombuffer(base64.b64decode(page.evaluate(PCM)), '<i2').reshape(-1, 2) / 32768
    return requested, requested + onset_errors(pcm, 48_000, [requested])[0] / 1000


def clicks(page, button, count):
    """ms from a click to sound, the first click left out."""
    times = []
    for _ in range(count + 1):
        page.click('#new-seed')
        page.wait_for_timeout(700)  # the sound of the new seed, which is made without a click
        page.evaluate('window.demo.times.heard = null')
        page.click(button)
        until(page, 'window.demo.times.heard !== null')
        times.append(page.evaluate('window.demo.times.heard'))
        page.click('#play' if button == '#generate' else button)
        page.wait_for_timeout(300)
    p50, p95 = np.percentile(times[1:], (50, 95))
    print(f'click on {button} to sound: median {p50:.0f} ms, p95 {p95:.0f}, n {count}', flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--port', type=int, default=8000)
    parser.add_argument('--clicks', type=int, default=10)
    parser.add_argument('--pictures', help='folder for screenshots at 400 and 1280 pixels')
    options = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which('chromium'), args=['--no-sandbox']
        )
        page = browser.new_page(viewport={'width': 1280, 'height': 800})
        errors = []
        page.on('console', lambda m: errors.append(m.text) if m.type == 'error' else None)
        page.on('pageerror', lambda error: errors.append(str(error)))
        page.goto(f'http://127.0.0.1:{options.port}/')
        clicks(page, '#generate', options.clicks)
        clicks(page, '#live', options.clicks)
        page.fill('#seed', '0')
        page.keyboard.press('Tab')
        page.click('#generate')
        until(page, READY)
        page.click('#play')
        track = page.locator('#ruler').bounding_box()
        for index in range(3):
            before = onset(page, index)
            box = page.locator('.event').nth(index).bounding_box()
            x, y = box['x'] + box['width'] * 0.35, box['y'] + box['height'] * 0.8
            page.mouse.move(x, y)
            page.mouse.down()
            page.mouse.move(x + track['width'] / 20, y, steps=4)
            page.mouse.up()
            until(page, READY)
            after = onset(page, index)
            moved = [1000 * (b - a) for a, b in zip(before, after, strict=True)]
            print(
                f'event {index + 1}: dragged by {moved[0]:.0f} ms, its onset moved by '
                f'{moved[1]:.0f} ms',
                flush=True,
            )
        for width in (1280, 400) if options.pictures else ():
            page.set_viewport_size({'width': width, 'height': 800})
            page.wait_for_timeout(300)
            path = f'{options.pictures}/demo_{width}.png'
            page.screenshot(path=path, full_page=True)
        print(f'errors: {errors}')
        browser.close()


if __name__ == '__main__':
    main()
