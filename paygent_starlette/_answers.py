"""A refusal as ASGI messages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, cast

from paygent.web.limit_response import Declined, LimitResponse
from paygent.web.request import RequestSlot
from paygent_starlette._plugin import AsgiPlugin

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


async def say_refusal(
    slot: RequestSlot, scope: Scope, receive: Receive, send: Send, refusal: Declined
) -> None:
    """Answer a request or a handshake with *refusal*."""
    plugin = cast("AsgiPlugin", slot.plugin)
    answer = await plugin.refuse_async(refusal, headers_of(scope), slot.request)
    send = _denying(send) if scope["type"] == "websocket" else send
    if not isinstance(answer, LimitResponse):
        await plugin.app_of(answer, slot.request)(scope, receive, send)
        return
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers]
    body = b"" if scope.get("method") == "HEAD" else answer.body
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _denying(send: Send) -> Send:
    """Have a response deny a handshake (the extension ``websocket.http.response`` of ASGI)."""

    async def deny(message: Message) -> None:
        kind = message["type"]
        await send(message if kind.startswith("websocket.") else {**message, "type": f"websocket.{kind}"})

    return deny


def headers_of(scope: Scope) -> dict[str, str]:
    """The request's headers as text; of a repeated one all values, as RFC 9110 joins them."""
    joined: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        joined[name] = f"{joined[name]}, {value}" if name in joined else value
    return joined
