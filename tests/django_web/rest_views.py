"""APIs of Django REST framework and django-ninja, each with its own ways to sign in and to swallow errors."""

import contextlib

from django.urls import include, path
from llm_views import ask, ask_async, events, spoken
from ninja import NinjaAPI
from ninja.security import APIKeyHeader, HttpBearer, django_auth
from rest_framework.authentication import BaseAuthentication, BasicAuthentication, SessionAuthentication
from rest_framework.decorators import api_view, authentication_classes
from rest_framework.permissions import IsAuthenticated
from rest_framework.response import Response
from rest_framework.views import APIView

from paygent import PaygentLimitExceeded
from paygent_django import require_budget, tag


class Header(BaseAuthentication):
    """Signs in whoever the header names, when the view begins: after all middleware."""

    def authenticate(self, request):
        from django.contrib.auth.models import User

        return User.objects.get(username=request.headers["x-user"]), None


def catch_all(exc, context):
    return Response({"detail": "something went wrong"}, status=500)


class Plain(APIView):
    authentication_classes = (Header,)

    def get(self, request):
        return Response({"said": ask(), "cost": request.paygent.cost})


class Shipped(Plain):
    """Signs in by the framework's own means: a password, or Django's session."""

    authentication_classes = (BasicAuthentication, SessionAuthentication)
    permission_classes = (IsAuthenticated,)


class Swallowing(Plain):
    def get_exception_handler(self):
        return catch_all


class Clumsy(Plain):
    """Goes on after a refusal, and then breaks by itself."""

    def get(self, request):
        with contextlib.suppress(PaygentLimitExceeded):
            ask()
        raise ValueError("a fault of the view's own")


class Streaming(Plain):
    def get(self, request):
        return events(spoken())


@require_budget()
class Budgeted(Plain):
    def get(self, request):
        return Response({"reached": True})


@api_view(["GET"])
@authentication_classes([Header])
@tag(feature="summary")
def tagged(request):
    return Response({"said": ask()})


@require_budget()
@api_view(["GET"])
@authentication_classes([Header])
def too_early(request):
    """Budget asked for before anybody is signed in."""
    return Response({"said": ask()})


class Bearer(HttpBearer):
    def authenticate(self, request, token):
        from django.contrib.auth.models import User

        return User.objects.get(username=token)


class AsyncBearer(HttpBearer):
    async def authenticate(self, request, token):
        from django.contrib.auth.models import User

        return await User.objects.aget(username=token)


class Claims(HttpBearer):
    def authenticate(self, request, token):
        return {"sub": token, "scope": "chat"}


class Key(APIKeyHeader):
    param_name = "x-key"

    def authenticate(self, request, key):
        return key  # a secret, which must not become a user


api = NinjaAPI(docs_url=None, openapi_url=None)


@api.get("/plain", auth=Bearer())
def ninja_plain(request):
    return {"said": ask(), "user": request.paygent.user_id}


@api.get("/session", auth=django_auth)
def ninja_session(request):
    return {"said": ask(), "user": request.paygent.user_id}


@api.get("/async", auth=AsyncBearer())
async def ninja_async(request):
    return {"said": await ask_async(), "user": request.paygent.user_id}


@api.get("/claims", auth=Claims())
def ninja_claims(request):
    return {"said": ask(), "user": request.paygent.user_id}


@api.get("/key", auth=Key())
def ninja_key(request):
    return {"said": ask(), "user": request.paygent.user_id}


@api.get("/budgeted", auth=Bearer())
@require_budget()
def ninja_budgeted(request, page: int = 1):
    return {"reached": page}


urlpatterns = [
    path("rest/plain", Plain.as_view()),
    path("rest/shipped", Shipped.as_view()),
    path("rest/swallowing", Swallowing.as_view()),
    path("rest/clumsy", Clumsy.as_view()),
    path("rest/streaming", Streaming.as_view()),
    path("rest/budgeted", Budgeted.as_view()),
    path("rest/tagged", tagged),
    path("rest/too-early", too_early),
    path("ninja/", api.urls),
    path("paygent/", include("paygent_django.urls")),
]
