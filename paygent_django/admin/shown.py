"""Rows of the models as people read them: cells, moments, amounts and states."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, NamedTuple

from django.conf import settings
from django.utils import formats, timezone
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext_lazy

from paygent.charts import dollars, meter, number, percent
from paygent.core.balance import UNLIMITED
from paygent.core.plan import MODEL_LIMIT, NUSD_PER_USD, SESSION_SPEND, TOTAL_SPEND, Limit
from paygent.core.windows import from_us
from paygent_django.admin.words import _
from paygent_django.models.fields import MOMENT_MAX_US
from paygent_django.services import Usage

_AGES = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))


class Target(NamedTuple):
    """The page of a row, whose address the template knows: it depends on the site that is looked at."""

    view: str
    pk: Any


def row_of(model: str, pk: Any) -> Target:
    """The page of one row of *model*."""
    return Target(f"admin:paygent_django_{model}_change", pk)


@dataclass(frozen=True, slots=True)
class Cell:
    """
    One cell of a table; *text* is escaped by the template, *markup* was escaped by whoever made it.

    ``to`` is the page that it leads to, ``kind`` a class of the stylesheet, ``iso`` the moment that *text*
    words.
    """

    text: str = ""
    to: Target | None = None
    kind: str = ""
    note: str = ""
    iso: str = ""
    markup: SafeString | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """Rows below their headings; *empty* is said where there is none. A heading with ``#`` is of numbers."""

    heads: tuple[str, ...]
    rows: list[list[Cell]]
    empty: str = field(default="")
    title: str = ""

    @property
    def columns(self) -> list[tuple[str, bool]]:
        """Headings, and whether their cells are numbers."""
        return [(head.removeprefix("#"), head.startswith("#")) for head in self.heads]


@dataclass(frozen=True, slots=True)
class Bar:
    """How much of the limit on one scope is used; ``share`` is below zero where there is no limit."""

    scope: str
    label: str
    text: str
    state: str
    share: float
    markup: SafeString


def safe(markup: str) -> SafeString:
    """What :mod:`paygent.charts` made: it escapes every text itself."""
    return mark_safe(markup)  # noqa: S308  # see the docstring


def local(moment_us: int) -> Any:
    """The moment in the project's time zone; in UTC without time zone support."""
    moment = from_us(moment_us)
    return timezone.localtime(moment) if settings.USE_TZ else moment


def moment(moment_us: int | None, form: str = "j M Y, H:i") -> Cell:
    """A moment, with its exact time in UTC as a tooltip."""
    if moment_us is None or moment_us >= MOMENT_MAX_US:
        return Cell("\u2013", kind="muted")
    return Cell(
        formats.date_format(local(moment_us), form),
        kind="nowrap",
        iso=from_us(moment_us).isoformat(timespec="milliseconds"),
    )


def instant(moment_us: int) -> Cell:
    """A moment to the second."""
    return moment(moment_us, "j M Y, H:i:s")


def age(moment_us: int, now_us: int) -> str:
    """How long ago that was, in its largest unit."""
    seconds = max(0, (now_us - moment_us) // 1_000_000)
    size, unit = next(((size, unit) for size, unit in _AGES if seconds >= size), (1, "s"))
    return f"{seconds // size} {unit}"


def money(nusd: int, kind: str = "num") -> Cell:
    """An amount of nano-dollars."""
    return Cell(dollars(nusd), kind=f"{kind} neg" if nusd < 0 else kind)


def lined_up(rows: list[list[Cell]], column: int) -> list[list[Cell]]:
    """Rows whose amounts in *column* have their decimal points below each other."""
    decimals = [len(row[column].text.partition(".")[2]) for row in rows]
    most = max(decimals, default=0)
    for row, digits in zip(rows, decimals, strict=True):
        cell = row[column]
        row[column] = replace(cell, text=cell.text + "\u2007" * (most - digits))  # as wide as a digit
    return rows


def count(value: int) -> Cell:
    """A number of tokens or calls."""
    return Cell(number(value), kind="num")


def badge(state: str, text: str) -> Cell:
    """A word on a coloured ground; ``state`` is ok, soft, blocked or off."""
    return Cell(text, kind=f"badge {state}")


def price(nano: int | None, currency: str, interval: str) -> str:
    """A price as plans tell it; ``None``: none is known."""
    if nano is None:
        return ""
    amount = decimal_text(Decimal(nano) / NUSD_PER_USD, digits=2)
    sign = "$" if currency == "USD" else f"{currency} "
    return f"{sign}{amount}" if interval == "once" else f"{sign}{amount} / {interval}"


def decimal_text(amount: Decimal, digits: int = 0) -> str:
    """A decimal without an exponent and without needless zeros, with at least *digits* decimals."""
    whole, _point, rest = format(amount, "f").partition(".")
    rest = rest.rstrip("0").ljust(digits, "0")
    return f"{whole}.{rest}" if rest else whole


STATES = {
    "ok": gettext_lazy("OK"),
    "soft": gettext_lazy("near its limit"),
    "blocked": gettext_lazy("blocked"),
    "off": gettext_lazy("metering off"),
}


def state_of(usage: Usage, session_nusd: int = 0) -> str:
    """``off``, ``blocked``, ``soft`` or ``ok``: the worst that holds for the user."""
    if not usage.user.sdk_enabled:
        return "off"
    states = {bar.state for bar in bars(usage, session_nusd)}
    return next((state for state in ("blocked", "soft") if state in states), "ok")


def state_cell(usage: Usage, session_nusd: int = 0) -> Cell:
    """The same as a badge."""
    state = state_of(usage, session_nusd)
    return badge(state, str(STATES[state]))


def bars(usage: Usage, session_nusd: int | None = None) -> list[Bar]:
    """What is used of each limit that binds the user, or of none where there is no limit."""
    terms, found = usage.terms, []
    found.append(_bar(TOTAL_SPEND, usage.cost_nusd, terms.period))
    if session_nusd is not None and terms.session.hard < UNLIMITED:
        found.append(_bar(SESSION_SPEND, session_nusd, terms.session))
    found += [
        _bar(MODEL_LIMIT + model, usage.used(MODEL_LIMIT + model), limit)
        for model, limit in terms.models.items()
    ]
    return found


def tightest(usage: Usage) -> Bar:
    """The bar that stands for all of them on a line: the fullest."""
    found = bars(usage)
    limited = [bar for bar in found if bar.share >= 0]
    return max(limited, key=lambda bar: bar.share, default=found[0])


def scope_label(scope: str) -> str:
    """A limit by the name that people know it by."""
    if scope.startswith(MODEL_LIMIT):
        return _("Tokens of %(model)s") % {"model": scope[len(MODEL_LIMIT) :]}
    names = {TOTAL_SPEND: _("Spend in this period"), SESSION_SPEND: _("Spend in this session")}
    return names.get(scope, scope)


def amount_of(scope: str, amount: float) -> str:
    """An amount in the unit of its scope: nano-dollars, or tokens."""
    return number(amount) if scope.startswith(MODEL_LIMIT) else dollars(amount)


def _bar(scope: str, used: int, limit: Limit) -> Bar:
    label, shown = scope_label(scope), amount_of(scope, used)
    if limit.hard >= UNLIMITED:
        text = _("%(used)s used, no limit") % {"used": shown}
        return Bar(scope, label, text, "ok", -1.0, safe(meter(used, None, title=f"{label}: {text}")))
    share = used / limit.hard if limit.hard else 1.0
    state = "blocked" if used >= limit.hard else "soft" if used >= limit.soft else "ok"
    text = _("%(used)s of %(limit)s (%(share)s)") % {
        "used": shown, "limit": amount_of(scope, limit.hard), "share": percent(share)
    }  # fmt: skip
    soft_at = limit.soft / limit.hard if limit.hard else None
    drawn = meter(used, limit.hard, title=f"{label}: {text}", soft_at=soft_at, state=state)
    return Bar(scope, label, text, state, share, safe(drawn))
