"""The slot of a Django request: where only an event loop runs, the user is found off it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from asgiref.sync import sync_to_async
from django.http.response import HttpResponseBase

from paygent.web.plugin import WebPlugin
from paygent.web.request import RequestSlot


class DjangoSlot(RequestSlot):
    """``request.paygent``, see :class:`~paygent.web.request.RequestSlot`."""

    __slots__ = ()

    @property
    def identify(  # type: ignore[override]  # nobody sets it
        self,
    ) -> Callable[[], Awaitable[None]] | None:
        """What an async LLM call awaits before it begins, as long as it is nobody's."""
        return None if self._user_id is not None or self._exempt else self._identify

    async def _identify(self) -> None:
        """Look on the request's own thread: database and session are closed to an event loop."""
        await sync_to_async(self._look)()

    def _look(self) -> None:
        if not self.exempt:
            _ = self.user_id  # reading finds


class DjangoPlugin(WebPlugin):
    """The web plugin of a Django project."""

    @staticmethod
    def is_response(answer: object) -> bool:
        """Whether the project's ``ON_LIMIT`` returned a response of Django's."""
        return isinstance(answer, HttpResponseBase)

    def open(self, subject: Any) -> DjangoSlot:
        """Make the slot of a request."""
        if not self._seen:
            self.pg()
        return DjangoSlot(self, subject)
