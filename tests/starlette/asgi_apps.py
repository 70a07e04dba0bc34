"""
The same small app in each framework, its users signed in the framework's own way: ``POST /login?user=ada``.

Routes: ``/ask`` (one call), ``/stream`` (the call in the first chunk), ``/middle`` (after the first event),
``/background``, ``/group`` (in a task group), ``/quiet`` (no call), ``/paygent/me``; WebSockets ``/before``
and ``/after`` the handshake.
"""

from types import SimpleNamespace
from typing import Annotated

import anyio
import fastapi
import fastapi.security
import itsdangerous
import litestar
import quart
from fastapi import Depends
from litestar.background_tasks import BackgroundTask as LitestarTask
from litestar.middleware.session.server_side import ServerSideSessionConfig
from litestar.security.jwt import JWTAuth
from litestar.security.session_auth import SessionAuth
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, SimpleUser
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute

from paygent_starlette import add_paygent, me_endpoint, me_route, paygent_user
from paygent_starlette.litestar import PaygentPlugin, me_handler

SSE = "text/event-stream"
SECRET = "not a secret"
signer = itsdangerous.TimestampSigner(SECRET)


async def middle(chat):
    yield "data: first\n\n"
    await chat.ask()


async def group(chat):
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(chat.ask)
        tasks.start_soon(anyio.sleep, 5)


class SessionUsers(AuthenticationBackend):
    async def authenticate(self, conn):
        user = conn.session.get("user")
        return (AuthCredentials(), SimpleUser(user)) if user else None


def starlette_app(chat, **options):
    async def login(request):
        request.session["user"] = request.query_params["user"]
        return PlainTextResponse("welcome")

    async def ask(request):
        return PlainTextResponse(await chat.ask())

    async def stream(request):
        return StreamingResponse(chat.stream(), media_type=SSE)

    async def middle_(request):
        return StreamingResponse(middle(chat), media_type=SSE)

    async def background(request):
        return PlainTextResponse("done", background=BackgroundTask(chat.ask))

    async def group_(request):
        await group(chat)

    async def quiet(request):
        return PlainTextResponse("quiet")

    async def before(socket):
        await chat.ask()
        await socket.accept()

    async def after(socket):
        await socket.accept()
        await chat.ask()

    routes = [
        Route("/login", login, methods=["POST"]),
        Route("/ask", ask),
        Route("/stream", stream),
        Route("/middle", middle_),
        Route("/background", background),
        Route("/group", group_),
        Route("/quiet", quiet),
        me_route(),
        WebSocketRoute("/before", before),
        WebSocketRoute("/after", after),
    ]
    users = [
        Middleware(SessionMiddleware, secret_key=SECRET),
        Middleware(AuthenticationMiddleware, backend=SessionUsers()),
    ]
    app = Starlette(routes=routes, middleware=users)
    add_paygent(app, **options)
    return app


def fastapi_app(chat, **options):
    """Bearer tokens, signed; the user is known to the endpoint's dependencies only."""
    app = fastapi.FastAPI()
    bearer = fastapi.security.OAuth2PasswordBearer(tokenUrl="login")

    def user_of(token: str):
        try:
            return {"sub": signer.unsign(token).decode(), "name": "somebody"}
        except itsdangerous.BadSignature as error:
            raise fastapi.HTTPException(401, "bad token") from error

    def current_user(token: Annotated[str, Depends(bearer)]):
        return user_of(token)

    def socket_user(socket: fastapi.WebSocket):
        return user_of(socket.headers["authorization"].removeprefix("Bearer "))

    user_type = Annotated[dict, Depends(paygent_user(current_user))]
    socket_user_type = Annotated[dict, Depends(paygent_user(socket_user))]

    @app.post("/login")
    async def login(user: str):
        return {"access_token": signer.sign(user).decode()}

    @app.get("/ask")
    async def ask(user: user_type):
        return await chat.ask()

    @app.get("/stream")
    async def stream(user: user_type):
        return StreamingResponse(chat.stream(), media_type=SSE)

    @app.get("/middle")
    async def middle_(user: user_type):
        return StreamingResponse(middle(chat), media_type=SSE)

    @app.get("/background")
    def background(user: user_type, tasks: fastapi.BackgroundTasks):
        tasks.add_task(chat.ask)
        return "done"

    @app.get("/group")
    async def group_(user: user_type):
        await group(chat)

    @app.get("/quiet")
    async def quiet():
        return "quiet"

    @app.websocket("/before")
    async def before(socket: fastapi.WebSocket, user: socket_user_type):
        await chat.ask()
        await socket.accept()

    @app.websocket("/after")
    async def after(socket: fastapi.WebSocket, user: socket_user_type):
        await socket.accept()
        await chat.ask()

    app.get("/paygent/me", dependencies=[Depends(paygent_user(current_user))])(me_endpoint)
    add_paygent(app, **options)
    return app


async def litestar_user(session, connection):
    return session.get("user") and {"id": session["user"]}


def litestar_app(chat, **options):
    """Litestar's session authentication, server side."""

    @litestar.post("/login")
    async def login(request: litestar.Request) -> str:
        request.set_session({"user": request.query_params["user"]})
        return "welcome"

    auth = SessionAuth(
        retrieve_user_handler=litestar_user,
        session_backend_config=ServerSideSessionConfig(),
        exclude=["/login"],
    )
    return _litestar_app(chat, auth, login, options)


async def litestar_bearer(token, connection):
    return SimpleNamespace(id=token.sub, email=f"{token.sub}@example.com")


def litestar_jwt_app(chat, **options):
    """Litestar's signed tokens: the user is what the app makes of the token's subject."""
    auth = JWTAuth(retrieve_user_handler=litestar_bearer, token_secret=SECRET * 3, exclude=["/login"])

    @litestar.post("/login")
    async def login(request: litestar.Request) -> dict[str, str]:
        return {"access_token": auth.create_token(request.query_params["user"])}

    return _litestar_app(chat, auth, login, options)


def _litestar_app(chat, auth, login, options):
    @litestar.get("/ask")
    async def ask() -> str:
        return await chat.ask()

    @litestar.get("/stream")
    async def stream() -> litestar.response.Stream:
        return litestar.response.Stream(chat.stream(), media_type=SSE)

    @litestar.get("/middle")
    async def middle_() -> litestar.response.Stream:
        return litestar.response.Stream(middle(chat), media_type=SSE)

    @litestar.get("/background")
    async def background() -> litestar.Response:
        return litestar.Response("done", background=LitestarTask(chat.ask))

    @litestar.get("/group")
    async def group_() -> None:
        await group(chat)

    @litestar.get("/quiet", sync_to_thread=False)
    def quiet() -> str:
        return "quiet"

    @litestar.websocket("/before")
    async def before(socket: litestar.WebSocket) -> None:
        await chat.ask()
        await socket.accept()

    @litestar.websocket("/after")
    async def after(socket: litestar.WebSocket) -> None:
        await socket.accept()
        await chat.ask()

    handlers = [login, ask, stream, middle_, background, group_, quiet, before, after, me_handler()]
    return litestar.Litestar(
        handlers, on_app_init=[auth.on_app_init], plugins=[PaygentPlugin(**options)], openapi_config=None
    )


def quart_app(chat, **options):
    """Quart's signed session cookie, read by a function of the app's own."""
    app = quart.Quart("chat")
    app.secret_key = SECRET

    @app.post("/login")
    async def login():
        quart.session["user"] = quart.request.args["user"]
        return "welcome"

    @app.get("/ask")
    async def ask():
        return await chat.ask()

    @app.get("/stream")
    async def stream():
        return quart.stream_with_context(chat.stream)(), {"content-type": SSE}

    @app.get("/middle")
    async def middle_():
        return quart.stream_with_context(middle)(chat), {"content-type": SSE}

    @app.get("/background")
    async def background():
        app.add_background_task(chat.ask)
        return "done"

    @app.get("/group")
    async def group_():
        await group(chat)

    @app.get("/quiet")
    async def quiet():
        return "quiet"

    @app.websocket("/before")
    async def before():
        await chat.ask()
        await quart.websocket.accept()

    @app.websocket("/after")
    async def after():
        await quart.websocket.accept()
        await chat.ask()

    add_paygent(app, get_user_id=lambda request: quart.session.get("user"), **options)
    return app


APPS = {
    "starlette": starlette_app,
    "fastapi": fastapi_app,
    "litestar": litestar_app,
    "litestar-jwt": litestar_jwt_app,
    "quart": quart_app,
}
