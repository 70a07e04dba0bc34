"""A small backend over real HTTP that keeps a ledger in memory, and misbehaves when it is told to."""

import contextlib
import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from listening import free_port

from paygent.ledgers.memory import MemoryLedger
from paygent.wire.events import event_from_json
from paygent.wire.fields import each
from paygent.wire.leases import reply_as_json, request_from_json

API = "/api/v1"
KEY = "pg_test_never_to_be_seen"
MOODS = (
    "refuses connections", "hangs", "answers 500", "answers 401", "answers garbage", "answers other JSON",
    "answers an empty object", "answers 404", "redirects", "answers late", "cuts the connection before",
    "cuts the connection after", "cuts the answer in two",
)  # fmt: skip


class MoodyServer:
    """
    ``mood`` is ``"well"`` or one of ``MOODS``.

    ``ledger`` is what it has committed, ``asked`` the paths it was asked for. What hangs or is late goes on
    when the mood changes. A proxy in front takes bodies of at most ``body_max`` bytes, and says so in HTML.
    """

    def __init__(self, now_us=None):
        self.ledger = MemoryLedger(now_us)
        self.asked = []
        self.keys = set()
        self.elsewhere = "http://127.0.0.1:9/"
        self.body_max = float("inf")
        self._mood = "well"
        self._changed = threading.Condition()
        self._server = None
        self.port = free_port()  # nobody takes it while this one refuses connections
        self._open()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    @property
    def mood(self):
        return self._mood

    @mood.setter
    def mood(self, mood):
        assert mood == "well" or mood in MOODS
        with self._changed:
            self._mood = mood
            self._changed.notify_all()
        if mood == "refuses connections":
            self._close()
        elif self._server is None:
            self._open()

    def wait_for_another_mood(self):
        with self._changed:
            was = self._mood
            self._changed.wait_for(lambda: self._mood != was, 100)

    def stop(self):
        self.mood = "well"
        self._close()

    def _open(self):
        self._server = _Server(("127.0.0.1", self.port), self)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def _close(self):
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
            server.cut_all()

    # -- what a backend does ----------------------------------------------------------------------------

    def handled(self, method, path, said):
        """The answer of a backend that is well."""
        if path == f"{API}/leases":
            requests = [request_from_json(row) for row in said]
            return [reply_as_json(reply) for reply in self.ledger.lease(requests)]
        if path == f"{API}/events/batch":
            events, rejected = each(said, event_from_json)
            accepted = self.ledger.settle(events)
            return {"accepted": accepted, "duplicates": len(events) - accepted, "rejected": rejected}
        if path == f"{API}/gate-events/batch":
            return {"accepted": len(said), "duplicates": 0, "rejected": []}
        if method == "DELETE" and path.startswith(f"{API}/leases/"):
            self.ledger.settle((), close=[path.rpartition("/")[2]])
            return None
        raise AssertionError(path)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, address, moody):
        self.moody = moody
        self._open = set()
        super().__init__(address, _Handler)

    def process_request(self, request, client_address):
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request):
        self._open.discard(request)
        super().shutdown_request(request)

    def cut_all(self):
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request, client_address):
        """Clients that went away are what the tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _serve(self):
        moody = self.server.moody
        length = int(self.headers.get("content-length") or 0)
        said = json.loads(self.rfile.read(length)) if length else None
        moody.asked.append(self.path)
        moody.keys.add(self.headers["authorization"])
        if length > moody.body_max:
            self._send(413, b"<html><h1>413 Request Entity Too Large</h1></html>", "text/html")
        else:
            self._answer(moody, moody.mood, said)

    do_GET = do_POST = do_DELETE = _serve  # noqa: N815  # the names of the standard library

    def _answer(self, moody, mood, said):
        if mood == "hangs":
            moody.wait_for_another_mood()
            self.close_connection = True
        elif mood == "cuts the connection before":
            self._cut()
        elif mood.startswith("answers") and mood != "answers late":
            self._send(*_ODD[mood])
        elif mood == "redirects":
            self._send(307, b"", "text/plain", location=moody.elsewhere)
        else:
            body = json.dumps(moody.handled(self.command, self.path, said)).encode()
            if mood == "answers late":
                moody.wait_for_another_mood()
            if mood == "cuts the connection after":
                self._cut()
            elif mood == "cuts the answer in two":
                self._send(200, body[: len(body) // 2], announced=len(body))
                self._cut()
            else:
                self._send(200, body)

    def _cut(self):
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _send(self, status, body, media="application/json", announced=None, **headers):
        length = len(body) if announced is None else announced
        self.send_response(status)
        for name, value in {"content-type": media, "content-length": str(length), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Nothing on the terminal."""


_ODD = {
    "answers 500": (500, b'{"detail": "broken"}'),
    "answers 401": (401, b'{"detail": "no"}'),
    "answers 404": (404, b'{"detail": "Not Found"}'),
    "answers garbage": (200, b"<html>Welcome to the hotel's network</html>", "text/html"),
    "answers other JSON": (200, b'["ok", 17]'),
    "answers an empty object": (200, b"{}"),
}
