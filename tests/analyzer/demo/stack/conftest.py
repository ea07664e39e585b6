"""A small server that answers as a test wants it."""

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


class Answers:
    """Keeps what was asked; `answer(path, body)` gives status and bytes."""

    def __init__(self, answer):
        self.answer = answer
        self.asked = []


@pytest.fixture
def server():
    """Start a server; the context gives its address and what it was asked."""

    @contextmanager
    def start(answer):
        answers = Answers(answer)

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                answers.asked.append((self.path, dict(self.headers), body))
                status, content = answers.answer(self.path, body)
                if status is None:
                    self.close_connection = True
                    return
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST

            def log_message(self, *words):
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
            thread = threading.Thread(target=listening.serve_forever, daemon=True)
            thread.start()
            try:
                yield f"http://127.0.0.1:{listening.server_address[1]}", answers
            finally:
                listening.shutdown()
                thread.join()

    return start
