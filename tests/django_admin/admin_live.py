"""The admin on a real port, with static files and a strict content security policy."""

import contextlib

from django.contrib.staticfiles.handlers import StaticFilesHandler
from django.db import connections
from django.test.testcases import LiveServerThread

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


def strict(get_response):
    """A middleware that allows nothing but the page's own files."""

    def answered(request):
        response = get_response(request)
        response["Content-Security-Policy"] = POLICY
        return response

    return answered


@contextlib.contextmanager
def live():
    """The address of a server that runs until the block ends."""
    thread = LiveServerThread("127.0.0.1", StaticFilesHandler, connections_override={})
    thread.daemon = True
    thread.start()
    thread.is_ready.wait()
    if thread.error:
        raise thread.error
    try:
        yield f"http://{thread.host}:{thread.port}"
    finally:
        thread.terminate()
        connections.close_all()
