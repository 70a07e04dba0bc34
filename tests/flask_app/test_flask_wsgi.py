from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest
from flask import Response
from flask_world import sse


def environ_of(method="GET", **more):
    environ = {"REQUEST_METHOD": method, "QUERY_STRING": "", **more}
    setup_testing_defaults(environ)
    return environ


class Server:
    """What a server sees of a response."""

    def __init__(self):
        self.starts = []
        self.written = []

    def start(self, status, headers, exc_info=None):
        self.starts.append((status, dict(headers)))
        return self.written.append


@pytest.mark.parametrize("user", ["ada", "ben"])
@pytest.mark.parametrize("kind", ["plain", "stream"])
def test_a_response_keeps_to_the_protocol(kind, user, make_app, chat):
    """Answers and refusals, plain and streamed, pass the standard library's checks of WSGI."""
    app = make_app({"plain": chat.ask, "stream": lambda: sse(chat.stream())}[kind])
    app.wsgi_app = validator(app.wsgi_app)
    server = Server()
    body = app(environ_of(HTTP_X_USER=user), server.start)
    assert b"".join(body)
    body.close()
    assert [status[:3] for status, _ in server.starts] == ["200" if user == "ada" else "429"]


def test_the_start_of_a_stream_waits_for_its_first_chunk(make_app, pg):
    """A response of unknown length is started with its first chunk that is not empty."""
    server = Server()
    body = make_app(lambda: Response(iter(["", "a", "b"])))(environ_of(), server.start)
    assert server.starts == []
    assert next(body) == b"a"
    assert [status for status, _ in server.starts] == ["200 OK"]
    body.close()


def test_a_response_of_known_length_is_started_at_once(make_app, pg):
    """A response with a length is not held back."""
    server = Server()
    body = make_app(lambda: "text")(environ_of(), server.start)
    assert [headers["Content-Length"] for _, headers in server.starts] == ["4"]
    body.close()


def test_the_old_way_to_write_a_body_works(make_app, pg):
    """What middleware within writes through ``start_response``'s callable reaches the server in order."""
    app, server = make_app(), Server()
    extension = app.extensions["paygent"]

    def old(environ, start_response):
        start_response("200 OK", [])(b"written")
        return [b"returned"]

    extension._serve = old
    body = app(environ_of(), server.start)
    assert (server.written, list(body)) == ([b"written"], [b"returned"])
    body.close()


def test_an_app_may_start_anew_after_an_error(make_app, pg):
    """``exc_info`` replaces a start that is held, and goes on to the server."""
    app, server = make_app(), Server()

    def failing(environ, start_response):
        start_response("200 OK", [])
        start_response("500 Oh", [], (ValueError, ValueError("a bug"), None))
        return [b"sorry"]

    app.extensions["paygent"]._serve = failing
    body = app(environ_of(), server.start)
    assert (list(body), [status for status, _ in server.starts]) == ([b"sorry"], ["500 Oh"])
    body.close()


def test_what_is_no_error_of_the_app_passes(make_app, pg):
    """A server that interrupts a request, as gunicorn does on a timeout, is not kept from it."""

    def view():
        raise SystemExit

    app = make_app(view)
    with pytest.raises(SystemExit):
        app(environ_of(), Server().start)
