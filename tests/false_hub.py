"""A server on the loopback interface that answers as the Hugging Face Hub and a web server do."""

import contextlib
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator

COMMIT = '0123456789abcdef0123456789abcdef01234567'
REPOSITORY = 'someone/thing'


class FalseHub:
    """One repository, and any files of a web server.

    Attributes:
        files: of the repository, by path.
        web: contents by path of the URL, such as '/foley.tar'.
        wrong: contents that are sent in place of those that `files` and `web` name, by path.
        short: paths of which the connection breaks off half-way.
        slow: paths of which half is sent, and the rest after a minute.
        status: of every answer, if it is not 200.
        log: the paths that were asked for.
    """

    def __init__(self):
        self.files, self.web, self.wrong = {}, {}, {}
        self.short, self.slow, self.status, self.log = set(), set(), 200, []
        self.url = ''

    def tree(self) -> list[dict]:
        """The list of files as the Hub gives it: large files by SHA-256, others as git blobs."""
        entries = []
        for path, content in self.files.items():
            entry = {'type': 'file', 'path': path, 'size': len(content), 'oid': _git_oid(content)}
            if path.endswith('.safetensors'):
                sha = hashlib.sha256(content).hexdigest()
                entry['lfs'] = {'oid': sha, 'size': len(content), 'pointerSize': 130}
            entries.append(entry)
        return entries

    def answer(self, path: str) -> tuple[bytes, dict[str, str]] | None:
        """Body and headers for a path; None where there is nothing."""
        path = path.split('?')[0]
        api, resolve = f'/api/models/{REPOSITORY}', f'/{REPOSITORY}/resolve/{COMMIT}/'
        if path.startswith(f'{api}/tree/{COMMIT}'):
            return json.dumps(self.tree()).encode(), {}
        if path.startswith(f'{api}/revision/'):
            found = {'_id': '1', 'id': REPOSITORY, 'sha': COMMIT, 'siblings': [], 'private': False}
            return json.dumps(found).encode(), {}
        if path.startswith(resolve) and (name := path.removeprefix(resolve)) in self.files:
            entry = next(e for e in self.tree() if e['path'] == name)
            etag = entry.get('lfs', entry)['oid']
            body = self.wrong.get(name, self.files[name])
            return body, {'ETag': f'"{etag}"', 'X-Repo-Commit': COMMIT}
        return (self.wrong.get(path, self.web[path]), {}) if path in self.web else None


def _git_oid(content: bytes) -> str:
    return hashlib.sha1(b'blob %d\0' % len(content) + content).hexdigest()


@contextlib.contextmanager
def serve() -> Iterator[FalseHub]:
    """A `FalseHub` that runs until the end of the block; `url` is its address."""
    hub = FalseHub()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = 'HTTP/1.1'

        def do_HEAD(self):
            self.do_GET(body=False)

        def do_GET(self, body=True):
            hub.log.append(self.path)
            found = hub.answer(self.path) if hub.status == 200 else (b'', {})
            content, headers = found or (b'', {})
            self.send_response(hub.status if found else 404)
            self.send_header('Content-Length', str(len(content)))
            self.send_header('Content-Type', 'application/json')
            self.send_header('Connection', 'close')
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if body:
                half = any(self.path.endswith(name) for name in hub.short | hub.slow)
                self.wfile.write(content[: len(content) // 2] if half else content)
                self.wfile.flush()
                if any(self.path.endswith(name) for name in hub.slow):
                    threading.Event().wait(60)
            self.close_connection = True

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    server.daemon_threads = True
    hub.url = f'http://127.0.0.1:{server.server_address[1]}'
    thread = threading.Thread(target=server.serve_forever, kwargs={'poll_interval': 0.02})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
