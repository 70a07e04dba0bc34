"""
What a page shows of the signed-in user's plan.

``{% paygent_usage %}`` is a sentence, ``{% paygent_usage as usage %}`` the :class:`Usage` behind it, and
``{% paygent_meter %}`` a bar with that sentence (template ``paygent/meter.html``). Both need ``request`` in
the context; for nobody, and where the ledger cannot say, they show nothing. Neither brings a script or a
style: a page's content security policy stays as it is.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django import template
from django.http import HttpRequest
from django.template import Context
from django.utils.translation import gettext

from paygent.web.usage import me
from paygent_django import conf
from paygent_django.views import user_of

log = logging.getLogger("paygent")
register = template.Library()


@dataclass(frozen=True, slots=True)
class Usage:
    """
    What a user has used of his plan; its text is a sentence.

    ``used``, ``limit`` and ``remaining`` are decimal text in US dollars, ``None`` where there is no limit or
    amounts are kept to ourselves; ``percent`` is 0 to 100, ``state`` as in ``GET …/paygent/me``.
    """

    plan: str
    used: str | None
    limit: str | None
    remaining: str | None
    percent: float | None
    state: str
    resets_at: datetime | None

    def __bool__(self) -> bool:
        """Whether there is anything to show."""
        return bool(self.plan)

    def __str__(self) -> str:
        if not self:
            return ""
        sentence: str = "%(plan)s"
        if self.limit is not None:
            sentence = gettext("%(plan)s: %(used)s of %(limit)s used")
        elif self.percent is not None:
            sentence = gettext("%(plan)s: %(percent)s%% used")
        elif self.used is not None:
            sentence = gettext("%(plan)s: %(used)s used")
        percent = f"{self.percent or 0.0:.0f}"
        return sentence % {
            "plan": self.plan, "used": f"${self.used}", "limit": f"${self.limit}", "percent": percent
        }  # fmt: skip


NOTHING = Usage("", None, None, None, None, "", None)


@register.simple_tag(takes_context=True)
def paygent_usage(context: Context) -> Usage:
    """What the signed-in user has used of his plan."""
    return _usage(context)


@register.inclusion_tag("paygent/meter.html", takes_context=True)
def paygent_meter(context: Context) -> dict[str, Any]:
    """The same as a bar."""
    return {"usage": _usage(context)}


def _usage(context: Context) -> Usage:
    """The usage of the request's user; a fault in finding it is logged, and the page goes on without."""
    request, pg = context.get("request"), conf.paygent()
    if pg is None or not isinstance(request, HttpRequest):
        return NOTHING
    try:
        user_id = user_of(request)
        shown = me(pg, str(user_id), expose_amounts=conf.options().expose_amounts) if user_id else None
    except Exception:
        log.exception("the usage could not be read: the page is shown without it")
        return NOTHING
    return NOTHING if shown is None else _as_usage(shown)


def _as_usage(shown: dict[str, Any]) -> Usage:
    resets_at, percent = shown["resets_at"], shown["percent"]
    return Usage(
        plan=shown["plan"]["label"] or shown["plan"]["name"],
        used=shown["used"],
        limit=shown["limit"],
        remaining=shown["remaining"],
        percent=None if percent is None else max(0.0, min(100.0, percent)),
        state=shown["state"],
        resets_at=datetime.fromisoformat(resets_at.replace("Z", "+00:00")) if resets_at else None,
    )
