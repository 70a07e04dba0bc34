"""Views with the verbs of the plugin: functions and classes, plain and async; and pages with its tags."""

from django.http import HttpResponse, JsonResponse
from django.shortcuts import render
from django.urls import include, path
from django.utils.decorators import method_decorator
from django.views import View
from llm_views import ask, ask_async

from paygent_django import exempt, require_budget, tag


@exempt
def free(request):
    return HttpResponse(ask())


@exempt
async def free_async(request):
    return HttpResponse(await ask_async())


@tag(feature="summary")
@tag(team="search")
def tagged(request):
    return HttpResponse(ask())


@require_budget(0.01)
def costly(request):
    return HttpResponse("reached")


@require_budget(0.01)
async def costly_async(request):
    return HttpResponse("reached")


@require_budget(model="gpt-4o-mini")
def for_one_model(request):
    return HttpResponse("reached")


@exempt
class Free(View):
    def get(self, request):
        return HttpResponse(ask())


@method_decorator(exempt, name="dispatch")
class FreeAsync(View):
    async def get(self, request):
        return HttpResponse(await ask_async())


@require_budget()
class CostlyAsync(View):
    async def get(self, request):
        return HttpResponse("reached")


def page(request):
    return render(request, "page.html")


def pageless(request):
    return JsonResponse({})


urlpatterns = [
    path("free", free),
    path("free-async", free_async),
    path("tagged", tagged),
    path("costly", costly),
    path("costly-async", costly_async),
    path("for-one-model", for_one_model),
    path("free-class", Free.as_view()),
    path("free-async-class", FreeAsync.as_view()),
    path("wrapped-async-class", exempt(FreeAsync.as_view())),
    path("costly-async-class", CostlyAsync.as_view()),
    path("page", page),
    path("paygent/", include("paygent_django.urls")),
]
