"""The web plugin of an ASGI app: how the framework's requests and responses are handled."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from paygent.web.options import WebOptions
from paygent.web.plugin import WebPlugin
from paygent.web.request import RequestSlot
from paygent_starlette._users import LOOP, Scope, await_here, connection_of, place_of, user_of


class AsgiPlugin(WebPlugin):
    """One app's options, bound to Starlette; its kin differ in their requests and responses."""

    def __init__(self, options: WebOptions) -> None:
        super().__init__(
            options,
            default_user=user_of,
            place_of=place_of,
            request_of=self.connection_of,
            await_here=await_here,
        )

    def open(self, subject: Scope) -> RequestSlot:
        """Make the slot of a request; notes its loop where threads may have to wait for it."""
        if self.awaits:
            with contextlib.suppress(RuntimeError):  # another event loop than asyncio's
                subject[LOOP] = asyncio.get_running_loop()
        if not self._seen:
            self.pg()
        return RequestSlot(self, subject)

    @staticmethod
    def connection_of(scope: Scope) -> Any:
        """The framework's request, or for a WebSocket its connection."""
        return connection_of(scope)

    @staticmethod
    def is_response(answer: object) -> bool:
        """Whether ``on_limit`` returned an ASGI app, as each of Starlette's responses is one."""
        return callable(answer)

    @staticmethod
    def app_of(response: Any, request: Any) -> Any:  # noqa: ARG004  # for those whose responses need it
        """The framework's *response* as an ASGI app that sends it; Starlette's are such apps themselves."""
        return response
