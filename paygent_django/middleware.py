"""The middleware: a context for each request, and the refusal as an answer."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

from asgiref.sync import async_to_sync, iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.core.exceptions import MiddlewareNotUsed
from django.http import HttpRequest, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.template.response import SimpleTemplateResponse
from django.utils.cache import patch_vary_headers

from paygent.context import current_payer, set_payer
from paygent.web.held_start import is_event_stream, kept, swallowed
from paygent.web.limit_response import Declined, LimitResponse, find_refusal
from paygent.web.options import is_async
from paygent_django import conf, signals
from paygent_django._bodies import AsyncBody, Body, LastWords, stepped
from paygent_django._slot import DjangoPlugin, DjangoSlot
from paygent_django.responses import as_response, lower_headers

GetResponse: TypeAlias = Callable[[HttpRequest], Any]


class PaygentMiddleware:
    """
    Attribute every LLM call of a request to its user, and answer a refused one.

    Under WSGI and ASGI, for sync and async views, for as long as a streamed body lasts. A refusal becomes the
    429 of a plan that is spent (401 for nobody, 503 where the ledger is away); an event stream that has begun
    ends with one ``event: error``. ``request.paygent`` says what the request's calls came to. A request
    without an LLM call touches neither its user nor its session.

    Place it after ``AuthenticationMiddleware``, and inside of CORS middleware. Its options are the settings'
    ``PAYGENT``, see :mod:`paygent_django.conf`.

    Raises:
        ImproperlyConfigured: A setting is unknown or cannot be right.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: GetResponse) -> None:
        if not conf.plugin().options.enabled:
            raise MiddlewareNotUsed("PAYGENT['ENABLED'] is False")
        self.get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        """Serve one request."""
        if hasattr(request, "paygent"):  # installed twice: the outer one does the work
            return self.get_response(request)
        return self._serve_async(request) if self._is_async else self._serve(request)

    def _serve(self, request: HttpRequest) -> HttpResponseBase:
        plugin, outer = conf.plugin(), current_payer()
        slot = _opened(plugin, request)
        set_payer(slot)
        body: Body | None = None
        response: HttpResponseBase | None = None
        try:
            response = self.get_response(request)
            if response.streaming:
                body = _plain_body(plugin, slot, response)
                if body is not None:
                    body.begin()
            refusal = swallowed(response.status_code, slot.refusal)
        except Exception as error:
            if body is not None:
                body.close()
            refusal = find_refusal(error)
            if refusal is None:
                raise
        finally:
            set_payer(outer)
            if body is None:
                plugin.finish(slot)
        if refusal is not None:
            return _in_place_of(response, _rendered(_answer(plugin, refusal, request)))
        return _with_usage(plugin, slot, response)

    async def _serve_async(self, request: HttpRequest) -> HttpResponseBase:
        plugin, outer = conf.plugin(), current_payer()
        slot = _opened(plugin, request)
        set_payer(slot)
        body: AsyncBody | None = None
        response: HttpResponseBase | None = None
        try:
            response = await self.get_response(request)
            if response.streaming:
                body = _async_body(plugin, slot, response)
                if body is not None:
                    await body.begin(plugin.options.defer_start_s)
            refusal = swallowed(response.status_code, slot.refusal)
        except Exception as error:
            refusal = find_refusal(error)
            if refusal is None:
                raise
        finally:
            set_payer(outer)
            if body is None:
                await plugin.finish_async(slot)
        if refusal is not None:
            answer = await _answer_async(plugin, refusal, request)
            if isinstance(answer, SimpleTemplateResponse):  # its template may use the database: off the loop
                answer = await sync_to_async(_rendered)(answer)
            return _in_place_of(response, answer)
        return _with_usage(plugin, slot, response)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponseBase | None:
        """Answer a refusal that a view raised, while Django still has it as an exception."""
        refusal = find_refusal(exception)
        if refusal is not None:
            return _answer(conf.plugin(), refusal, request)
        slot = getattr(request, "paygent", None)
        if isinstance(slot, DjangoSlot):
            slot.refusal = None  # another fault is what ended the view: that one is the answer
        return None


def _opened(plugin: DjangoPlugin, request: HttpRequest) -> DjangoSlot:
    slot = plugin.open(request)
    request.paygent = slot
    signals.watch()
    return slot


# --- the answer -------------------------------------------------------------------------------------------


def _answer(plugin: DjangoPlugin, refusal: Declined, request: HttpRequest) -> HttpResponseBase:
    refuse = async_to_sync(plugin.refuse_async) if is_async(plugin.options.on_limit) else plugin.refuse
    return _as_response(refuse(refusal, lower_headers(request), request), request)


async def _answer_async(plugin: DjangoPlugin, refusal: Declined, request: HttpRequest) -> HttpResponseBase:
    on_limit = plugin.options.on_limit
    is_plain = on_limit is not None and not is_async(on_limit)  # it may use the database: off the loop
    refuse = sync_to_async(plugin.refuse) if is_plain else plugin.refuse_async
    return _as_response(await refuse(refusal, lower_headers(request), request), request)


def _as_response(answer: Any, request: HttpRequest) -> HttpResponseBase:
    """The usual answer as a response; what the project's ON_LIMIT returned is one."""
    return as_response(answer, request) if isinstance(answer, LimitResponse) else answer


def _rendered(answer: HttpResponseBase) -> HttpResponseBase:
    """What a view returns or raises, Django renders itself; what replaces its response later, it does not."""
    return answer.render() if isinstance(answer, SimpleTemplateResponse) else answer


def _in_place_of(dropped: HttpResponseBase | None, answer: HttpResponseBase) -> HttpResponseBase:
    """Return *answer* with what the *dropped* response said of the request itself, such as cookies."""
    if dropped is not None:
        for name, value in kept(answer.items(), dropped.items()):
            if name.lower() == "vary":
                patch_vary_headers(answer, [field.strip() for field in value.split(",")])
            else:
                answer.headers[name] = value
        answer.cookies.update(dropped.cookies)
    return answer


def _with_usage(plugin: DjangoPlugin, slot: DjangoSlot, response: HttpResponseBase) -> HttpResponseBase:
    for name, value in plugin.headers(slot).items():
        response.headers[name] = value
    return response


# --- streamed bodies --------------------------------------------------------------------------------------


def _plain_body(plugin: DjangoPlugin, slot: DjangoSlot, response: StreamingHttpResponse) -> Body | None:
    """Put our body around a response's own; not around a file, which no language model writes."""
    if _is_file(response):
        return None
    # An async one Django would read to its end before it sends any: here, where the context is.
    steps = iter(list(response)) if response.is_async else response._iterator  # see _async_body
    last_words = _last_words(plugin, response)
    body = Body(steps, slot, last_words, functools.partial(plugin.finish, slot))
    response.streaming_content = body
    return body


def _async_body(plugin: DjangoPlugin, slot: DjangoSlot, response: StreamingHttpResponse) -> AsyncBody | None:
    if _is_file(response):
        return None
    # The view's own iterator: closing what `streaming_content` returns would not close that one.
    source = response._iterator
    steps: AsyncIterator[Any] = source if response.is_async else stepped(source)
    last_words = _last_words(plugin, response)
    body = AsyncBody(steps, slot, last_words, functools.partial(plugin.finish_async, slot))
    response.streaming_content = body
    return body


def _is_file(response: StreamingHttpResponse) -> bool:
    return getattr(response, "file_to_stream", None) is not None


def _last_words(plugin: DjangoPlugin, response: StreamingHttpResponse) -> LastWords:
    """
    How *response* says a refusal in its body: by the event that ends a stream of events.

    Nothing can be said in any other body, nor in one that the view has compressed or measured.
    """
    if is_event_stream(response.items()):
        return plugin.responder.event
    return lambda refusal: None
