"""Functions that a project's settings name."""

from django.contrib.auth.models import User


def plain_finder(request):
    return f"{User.objects.get(pk=request.session['_auth_user_id']).username}-of-finders"


async def async_finder(request):
    user = await request.auser()
    return f"{user.username}-of-finders"


def failing_finder(request):
    raise LookupError("the directory of users is away")


def session_finder(request):
    return "visit-7"


def metadata_finder(request):
    return {"page": request.path}


def plan_finder(request):
    return "pro"


def starter_finder(request):
    return "starter"
