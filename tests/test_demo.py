"""The timeline editor in Chromium: real drags and keys, sound read back, no error, two widths."""

import asyncio
import base64
import contextlib
import json
import pathlib
import re
import socket
import threading
import time

import numpy as np
import pytest
from stub_generator import StubGenerator

from realaudio_jax import batching
from realaudio_jax.longform import Schedule
from realaudio_jax.metrics.onsets import onset_errors

for module in ('fastapi', 'prometheus_client', 'pythonosc', 'uvicorn', 'websockets'):
    pytest.importorskip(module, reason="needs pip install 'realaudio_jax[demo]'")

from realaudio_jax import demo, live, serving  # noqa: E402

SMALL = Schedule(window=60, hop=10, context=34, swap=6, tail=4)


@contextlib.contextmanager
def running(generator):
    """The demo in a thread of this process; yields its port."""
    metrics, limits = serving.Metrics(), live.Limits()
    listening = socket.create_server(('127.0.0.1', 0))
    with batching.RequestQueue(generator) as queue:
        streams = live.LiveStreams(queue, limits, SMALL)
        app = serving.create_app(queue, metrics, limits, streams=streams, compiles=True)
        demo.add_page(app)
        server = serving.make_server(app, limits)
        thread = threading.Thread(target=asyncio.run, args=(serving.answer(server, listening),))
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(20)


@pytest.fixture(scope='module')
def port(tiny_release):
    with running(StubGenerator(tiny_release)) as port:
        yield port


class Page:
    """A page of the demo that allows no error and no request to anywhere else."""

    def __init__(self, browser, port, width=1280, height=900):
        self.page = browser.new_page(viewport={'width': width, 'height': height})
        self.page.set_default_timeout(20_000)
        self.errors, self.requests = [], []
        self.page.on(
            'console',
            lambda m: self.errors.append(m.text) if m.type in ('error', 'warning') else None,
        )
        self.page.on('pageerror', lambda error: self.errors.append(str(error)))
        self.page.on('request', lambda request: self.requests.append(request.url))
        self.home = f'http://127.0.0.1:{port}/'
        self.page.goto(self.home)
        self.page.wait_for_selector('.event')

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        outside = [u for u in self.requests if not re.match(f'{self.home}|ws:|data:|blob:', u)]
        self.page.close()
        if kind is None:
            assert self.errors == [] and outside == []

    def __getattr__(self, name):
        return getattr(self.page, name)

    def until(self, condition):
        """Waits; Playwright's own waiting needs `eval`, which the page's policy forbids."""
        end = time.monotonic() + 20
        while not self.page.evaluate(condition):
            assert time.monotonic() < end, condition
            self.page.wait_for_timeout(20)

    def generate(self):
        """Clicks, and waits for the sound and the measured onsets."""
        self.page.click('#generate')
        self.measured()

    def measured(self):
        """Waits for the take of the timeline as it stands, and gives its measured onsets."""
        self.until(
            """(({events, takes, steps}) => Boolean(takes[steps]?.measured)
               && JSON.stringify(takes[steps].events) === JSON.stringify(events)
            )(window.demo.state)"""
        )
        return self.page.evaluate('window.demo.state.takes[window.demo.state.steps].measured')

    def pcm(self):
        """The sound as the page holds it, float [S, 2]."""
        text = self.page.evaluate(
            """(() => {
              const {pcm} = window.demo.state.takes[window.demo.state.steps];
              const bytes = new Uint8Array(pcm.buffer, pcm.byteOffset, pcm.byteLength), parts = [];
              for (let i = 0; i < bytes.length; i += 30000)
                parts.push(btoa(String.fromCharCode(...bytes.subarray(i, i + 30000))));
              return parts.join('');
            })()"""
        )
        return np.frombuffer(base64.b64decode(text), '<i2').reshape(-1, 2).astype('f4') / 32768

    def events(self):
        return self.page.evaluate('window.demo.state.events')

    def drag(self, selector, by_s=0.0, by_y=0.0, share=0.5):
        """Drags an element with the mouse, from a share of its width, by seconds and pixels."""
        box = self.page.locator(selector).bounding_box()
        track = self.page.locator('#ruler').bounding_box()
        x, y = box['x'] + share * box['width'], box['y'] + box['height'] / 2
        mouse = self.page.mouse
        mouse.move(x, y)
        mouse.down()
        mouse.move(x + by_s / 20 * track['width'], y + by_y / 2)
        mouse.move(x + by_s / 10 * track['width'], y + by_y)
        mouse.up()


def onset(audio, requested):
    """Measured onset of one event in s."""
    return requested + onset_errors(audio, 48_000, [float(requested)])[0] / 1000


def test_an_event_dragged_by_half_a_second_is_heard_half_a_second_later(chromium, port):
    with Page(chromium, port) as page:
        page.generate()
        before = page.events()[0]
        first = onset(page.pcm(), before['onset'])
        page.drag('.event >> nth=0', 0.5, share=0.4)
        shown = page.measured()
        after = page.events()[0]
        # A pixel is a hundredth of a second; the sound follows what the page asks for.
        assert abs(after['onset'] - before['onset'] - 0.5) < 0.02
        assert after['offset'] - after['onset'] == pytest.approx(0.5)
        second = onset(page.pcm(), after['onset'])
        moved = after['onset'] - before['onset']
        assert second - first == pytest.approx(moved, abs=0.01)
        assert shown[0] == pytest.approx(second, abs=0.001)
        marks = page.locator('#marks b').evaluate_all(
            'all => all.map(x => parseFloat(x.style.left))'
        )
        assert marks[0] == pytest.approx(10 * second, abs=0.01)


def test_edges_and_gain_are_dragged_and_stay_in_range(chromium, port):
    with Page(chromium, port) as page:
        page.drag('.event >> nth=2 >> .edge.right', 1.0)
        page.drag('.event >> nth=2 >> .edge.left', -0.5)
        page.drag('.event >> nth=2 >> .gain', by_y=9)
        event = page.events()[2]
        assert event['text'] == 'gunshot' and event['gain'] < -3
        assert abs(event['onset'] - 3.5) < 0.03 and abs(event['offset'] - 5.6) < 0.03
        page.drag('.event >> nth=2', 5.2)
        page.drag('.event >> nth=2 >> .gain', by_y=-70)
        event = page.events()[2]
        assert event['offset'] == 10 and event['gain'] == 6
        assert page.input_value('#text').endswith('-10:6dB')


def test_everything_is_reached_by_keys(chromium, port):
    with Page(chromium, port) as page:
        assert page.locator('[tabindex="-1"]').count() == 0
        page.focus('.event >> nth=0')
        for key in ('ArrowRight', 'ArrowRight', 'Alt+ArrowLeft', 'Shift+ArrowRight', 'ArrowDown'):
            page.keyboard.press(key)
        event = page.events()[0]
        assert event['onset'] == pytest.approx(2.09) and event['offset'] == pytest.approx(2.64)
        assert event['gain'] == -1
        label = page.locator('.event >> nth=0').get_attribute('aria-valuetext')
        assert label == 'dog bark, 2.09 to 2.64 s, -1 dB'
        page.keyboard.press('Delete')
        assert len(page.events()) == 2
        page.fill('#new-text', 'door slam')
        page.keyboard.press('Enter')
        assert page.events()[2]['text'] == 'door slam'
        page.fill('#event-onset', '8.25')
        page.keyboard.press('Tab')
        assert page.events()[2]['onset'] == 8.25
        page.focus('#loudness')
        for key in ('ArrowRight', 'ArrowUp', 'ArrowUp'):
            page.keyboard.press(key)
        curve = page.evaluate('window.demo.state.loudness')
        assert curve[5] == -26 and curve[0] == -30 and len(curve) == 250
        page.focus('.event >> nth=0')
        page.keyboard.press('Space')  # plays
        page.measured()
        page.until('window.demo.sound.clip !== null')
        page.focus('#keep')
        page.keyboard.press('ArrowRight')
        page.keyboard.press('Enter')
        assert page.evaluate('window.demo.state.keep') == [[0.2, 0.4]]
        names = page.evaluate(
            """[...document.querySelectorAll('button, input, select, [tabindex]')].map(e =>
                 e.getAttribute('aria-label') || e.labels?.[0]?.innerText || e.innerText || e.id)"""
        )
        assert all(name.strip() for name in names)


def test_a_typed_timeline_becomes_events_or_one_line(chromium, port):
    with Page(chromium, port) as page:
        page.fill('#text', 'bell@1-2:-6dB, 4-5; wind@0-9.5')
        page.keyboard.press('Tab')
        events = [(e['text'], e['onset'], e['offset'], e['gain']) for e in page.events()]
        assert events == [('bell', 1, 2, -6), ('bell', 4, 5, 0), ('wind', 0, 9.5, 0)]
        assert page.locator('.lane').count() == 2
        for text, said in (
            ('bell', 'no @'),
            ('bell@2-1', 'does not end'),
            ('bell@9-12', 'after 10'),
        ):
            page.fill('#text', text)
            page.keyboard.press('Tab')
            assert said in page.inner_text('#text-error')
        assert len(page.events()) == 3


def test_drawn_loudness_and_what_is_kept_are_asked_for(chromium, port):
    asked = []
    with Page(chromium, port) as page:
        page.page.on('request', lambda r: asked.append(r) if r.url.endswith('/generate') else None)
        page.generate()
        page.click('#play')
        page.drag('#loudness', 1.0, by_y=-10, share=0.2)
        page.measured()
        curve = page.evaluate('window.demo.state.loudness')
        assert curve[0] == -30 and -30 < max(curve) < 0 and len(set(curve[50:75])) > 1
        page.drag('#keep', 2.0, share=0.5)
        ((begin, end),) = page.evaluate('window.demo.state.keep')
        assert abs(begin - 5) < 0.05 and abs(end - 7) < 0.05
        page.click('#new-seed')
        page.until('window.demo.state.takes[4].asked.includes("seed\\":0") === false')
        page.measured()
    body = asked[-1].post_data_json
    assert body['keep'] == [[begin, end]] and body['init_audio'].startswith('UklGR')
    assert len(body['loudness_db']) == 250 and body['seed'] != 0


def test_steps_are_compared_from_the_same_noise(chromium, port):
    with Page(chromium, port) as page:
        page.click('#compare')
        page.until('Object.keys(window.demo.state.takes).length === 4')
        page.until('document.getElementById("status").textContent.includes("All four")')
        asked = page.evaluate(
            'Object.values(window.demo.state.takes).map(t => JSON.parse(t.asked)[0])'
        )
        assert [a['steps'] for a in asked] == [1, 2, 4, 8] and len({a['seed'] for a in asked}) == 1
        page.check('input[name=steps][value="1"]', force=True)
        first = page.pcm()
        page.check('input[name=steps][value="8"]', force=True)
        assert np.abs(first - page.pcm()).max() > 0


def test_files_are_what_was_heard(chromium, port, tmp_path):
    import soundfile

    with Page(chromium, port) as page:
        page.generate()
        with page.expect_download() as wav:
            page.click('#save-wav')
        audio, rate = soundfile.read(wav.value.path(), always_2d=True)
        assert rate == 48_000 and audio.shape == (480_000, 2)
        np.testing.assert_allclose(audio, page.pcm(), atol=1e-6)
        with page.expect_download() as saved:
            page.click('#save-json')
        timeline = json.loads(pathlib.Path(saved.value.path()).read_text())
        assert timeline['events'][2] == {
            'text': 'gunshot', 'onset_s': 4, 'offset_s': 4.6, 'gain_db': 0,
        }  # fmt: skip
        batching.read_fields(json.dumps(timeline))  # as /generate and a manifest take it
        timeline |= {'prompt': 'wind', 'seed': 9, 'events': [['bell', 1, 2]]}
        (tmp_path / 'other.json').write_text(json.dumps(timeline))
        page.set_input_files('#file', tmp_path / 'other.json')
        page.until('window.demo.state.seed === 9')
        assert page.input_value('#text') == 'bell@1-2' and page.input_value('#prompt') == 'wind'


@pytest.mark.parametrize('width', [400, 1280])
def test_the_page_fits_its_width(chromium, port, width):
    with Page(chromium, port, width) as page:
        page.generate()
        assert page.evaluate('document.documentElement.scrollWidth') == width
        over = page.evaluate(
            """[...document.querySelectorAll('main *')].filter(e => e.offsetParent
                 && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.id)"""
        )
        assert over == []
        page.drag('.event >> nth=0', 0.5)
        assert abs(page.events()[0]['onset'] - 2.5) < 0.05


def test_a_page_plays_while_it_is_edited(chromium, tiny_release):
    from realaudio_jax.generator import Generator

    generator = Generator(tiny_release, log=lambda line: None)
    live.compile_streams(generator, [1], [48_000], SMALL)
    with running(generator) as port:
        with Page(chromium, port) as page:
            page.check('input[name=steps][value="1"]', force=True)
            page.wait_for_timeout(100)
            page.select_option('#seconds', '5')
            page.click('#live')
            page.until('window.demo.times.heard !== null')
            page.drag('.event >> nth=-1', 0.4)
            page.until('window.demo.sound.live && window.demo.sound.live.edits > 0')
            page.until('window.demo.sound.live.played > 24000')
            page.click('#live')
            assert page.get_attribute('#live', 'aria-pressed') == 'false'
            assert page.evaluate('window.demo.sound.pcm.some((x) => x !== 0)')


def test_onsets_are_measured_or_refused():
    audio = np.zeros((48_000, 2), np.int16)
    audio[24_000:36_000] = np.random.default_rng(0).integers(-9_000, 9_000, (12_000, 2))
    pcm = audio.tobytes()
    found, missed = demo.measured_onsets(pcm, '48000', '0.52,0.9')
    assert abs(found - 0.5) < 0.005 and missed is None
    for given in (
        (pcm, '48001', '0.5'), (pcm[:-1], '48000', '0.5'), (pcm, '48000', 'x'), (pcm, '48000', '9'),
        (pcm, '9' * 5_000, '0.5'),
    ):  # fmt: skip
        with pytest.raises(ValueError, match='give '):
            demo.measured_onsets(*given)
