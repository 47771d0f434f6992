"""An embedding model behind the API that others call: POST /v1/embeddings, as OpenAI has it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from workers.encoders import Encoder


@contextmanager
def endpoint(encoder: Encoder) -> Iterator[str]:
    """Serve the model on a free port of this machine, from a thread; yields the base URL."""

    class Handler(_Handler):
        model = encoder

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    serving = Thread(target=server.serve_forever, name="endpoint")
    serving.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        serving.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    model: Encoder
    protocol_version = "HTTP/1.1"  # connections are kept

    def do_POST(self) -> None:
        """Answer with one vector for each text of `input`, which is a string or a list of strings."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path != "/v1/embeddings":
            self.send_error(404, f"{self.path} is not served here: use /v1/embeddings")
            return
        asked = json.loads(body)
        texts = [asked["input"]] if isinstance(asked["input"], str) else asked["input"]
        self._answer(
            {
                "object": "list",
                "model": asked["model"],
                "data": [
                    {"object": "embedding", "index": index, "embedding": vector.tolist()}
                    for index, vector in enumerate(self.model.encode(texts))
                ],
                "usage": {"prompt_tokens": 0, "total_tokens": 0},
            }
        )

    def log_message(self, *_: Any) -> None:  # noqa: ANN401 - as the base class has it
        """Stderr is for progress."""

    def _answer(self, answer: dict[str, object]) -> None:
        encoded = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(encoded)))
        self.end_headers()
        self.wfile.write(encoded)
