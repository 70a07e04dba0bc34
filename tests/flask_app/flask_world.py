"""What the tests of the Flask extension share."""

import contextlib
import threading

import openai
from flask import Response
from werkzeug.serving import make_server

MODEL = "gpt-4o-mini"
MESSAGES = [{"role": "user", "content": "Say something nice"}]
TOKENS = 23  # of one answer


class Chat:
    """LLM calls for views."""

    def __init__(self, base_url):
        self._settings = {"base_url": base_url, "api_key": "any", "max_retries": 0}
        self.client = openai.OpenAI(**self._settings)

    def ask(self, **extra):
        answer = self.client.chat.completions.create(model=MODEL, messages=MESSAGES, **extra)
        return answer.choices[0].message.content

    async def ask_async(self):
        async with openai.AsyncOpenAI(**self._settings) as client:
            answer = await client.chat.completions.create(model=MODEL, messages=MESSAGES)
            return answer.choices[0].message.content

    def stream(self, **extra):
        options = {"stream": True, "stream_options": {"include_usage": True}, **extra}
        for chunk in self.client.chat.completions.create(model=MODEL, messages=MESSAGES, **options):
            if chunk.choices and chunk.choices[0].delta.content:
                yield chunk.choices[0].delta.content


def user_header(request):
    return request.headers.get("x-user")


def get(app, path="/", user=None, **headers):
    """One request; the body is read and closed."""
    named = {"x-user": user} if user else {}
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return app.test_client().get(path, headers={**named, **sent}, buffered=True)


def sse(parts):
    return Response(parts, mimetype="text/event-stream")


def used(pg, user="ada"):
    """Tokens posted for *user*."""
    return pg.get_usage(user).period_tokens_total


@contextlib.contextmanager
def serving(app):
    """Serve *app* on Werkzeug's threaded server; gives the URL."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
