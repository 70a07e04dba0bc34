"""
The same small app in each framework: ``python limited_apps.py starlette --port 8000``.

``/gated`` is used by a user whose plan is spent. ``/api/chat`` is used by one whose plan the first of its two
calls spends, so that the second is refused in mid-stream; the examples' own page shows it. Scripts of
``http://localhost`` on the same port, another origin than ``http://127.0.0.1``, may read the answers.
"""

import argparse
import json
import mimetypes
import sys
from pathlib import Path

from openai import OpenAI

from paygent import Paygent, PlanConfig
from paygent.web.wording import Offer

STATIC = Path(__file__).resolve().parents[2] / "example_apps" / "chat_starlette" / "static"
OPTIONS = {"upgrade_url": "/upgrade?from={plan}", "offers": {"free": Offer("pro", "Pro", price="9.00")}}
CORS = {
    "Access-Control-Allow-Credentials": "true",
    "Access-Control-Allow-Headers": "Content-Type",
    "Access-Control-Expose-Headers": "x-should-retry",
}


def user_at(path):
    return "spent" if path == "/gated" else "nearly"


def user_of(request):
    return user_at(request.path)


def ask():
    with OpenAI() as client:
        messages = [{"role": "user", "content": "Hello"}]
        chat = client.chat.completions.create(
            model="gpt-5-mini", messages=messages, max_completion_tokens=900
        )
    return chat.choices[0].message.content


def drafts():
    for _ in range(2):
        yield f"event: text\ndata: {json.dumps({'text': ask()})}\n\n".encode()


def me():
    return {"user": "nearly", "choices": ["gpt-5-mini"], "models": []}


def set_up():
    pg = Paygent.init(ledger="memory://")
    pg.configure_plan("free", PlanConfig(max_spend_per_period=0.0005))  # less than one answer
    for user in ("nearly", "spent"):
        pg.assign_plan(user, "free")
    pg.record_event("spent", cost=0.002)


# --- the frameworks ---------------------------------------------------------------------------------------


def starlette(port):
    import uvicorn
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.middleware import Middleware
    from starlette.middleware.cors import CORSMiddleware
    from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, StreamingResponse
    from starlette.routing import Mount, Route
    from starlette.staticfiles import StaticFiles

    from paygent_starlette import add_paygent, me_route

    async def page(request):
        return FileResponse(STATIC / "index.html")

    async def gated(request):
        return PlainTextResponse(await run_in_threadpool(ask))

    async def stream(request):
        return StreamingResponse(drafts(), media_type="text/event-stream")

    cors = Middleware(
        CORSMiddleware,
        allow_origins=[f"http://localhost:{port}"],
        allow_credentials=True,
        allow_headers=["Content-Type"],
        expose_headers=["x-should-retry"],
        allow_methods=["GET", "POST"],
    )
    routes = [
        Route("/", page),
        Route("/gated", gated, methods=["GET", "POST"]),
        Route("/api/me", lambda request: JSONResponse(me())),
        Route("/api/chat", stream, methods=["POST"]),
        me_route(),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]
    app = Starlette(routes=routes, middleware=[cors])
    add_paygent(app, get_user_id=lambda request: user_at(request.url.path), **OPTIONS)
    uvicorn.run(app, port=port, log_level="warning")


def flask(port):
    from flask import Flask, Response

    from paygent_flask import Paygent as FlaskPaygent

    app = Flask(__name__, static_folder=STATIC)
    paygent = FlaskPaygent(app, get_user_id=user_of, **OPTIONS)
    app.register_blueprint(paygent.blueprint())
    app.add_url_rule("/", "page", lambda: app.send_static_file("index.html"))
    app.add_url_rule("/gated", "gated", ask, methods=["GET", "POST"])
    app.add_url_rule("/api/me", "me", me)
    stream = {"mimetype": "text/event-stream"}
    app.add_url_rule("/api/chat", "chat", lambda: Response(drafts(), **stream), methods=["POST"])

    @app.after_request
    def share(response):
        response.headers.update(CORS)
        response.headers["Access-Control-Allow-Origin"] = f"http://localhost:{port}"
        return response

    app.run(port=port, threaded=True)


def django(port):
    from django.conf import settings
    from django.core.wsgi import get_wsgi_application
    from django.http import HttpResponse, JsonResponse, StreamingHttpResponse
    from django.urls import path
    from werkzeug.serving import run_simple

    class Share:
        def __init__(self, get_response):
            self._get_response = get_response

        def __call__(self, request):
            response = HttpResponse() if request.method == "OPTIONS" else self._get_response(request)
            for name, value in (*CORS.items(), ("Access-Control-Allow-Origin", f"http://localhost:{port}")):
                response[name] = value
            return response

    def static(request, name="index.html"):
        return HttpResponse((STATIC / name).read_bytes(), mimetypes.guess_type(name)[0])

    def stream(request):
        return StreamingHttpResponse(drafts(), "text/event-stream")

    settings.configure(
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        ALLOWED_HOSTS=["127.0.0.1", "localhost"],
        INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "paygent_django"],
        MIDDLEWARE=[f"{__name__}.Share", "paygent_django.middleware.PaygentMiddleware"],
        PAYGENT={**{name.upper(): value for name, value in OPTIONS.items()}, "GET_USER_ID": user_of},
        ROOT_URLCONF=__name__,
    )
    module = sys.modules[__name__]
    module.Share = Share
    application = get_wsgi_application()
    from paygent_django.views import me as paygent_me

    views = {"gated": lambda request: HttpResponse(ask()), "api/me": lambda request: JsonResponse(me())}
    views |= {"": static, "static/<str:name>": static, "api/chat": stream, "paygent/me": paygent_me}
    module.urlpatterns = [path(route, view) for route, view in views.items()]
    run_simple("127.0.0.1", port, application, threaded=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("framework", choices=["starlette", "flask", "django"])
    parser.add_argument("--port", type=int, required=True)
    asked = parser.parse_args()
    set_up()
    globals()[asked.framework](asked.port)


if __name__ == "__main__":
    main()
