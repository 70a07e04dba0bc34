"""The list of users, and the page of one."""

from __future__ import annotations

from paygent.charts import day_label, dollars, number, short_dollars, stacked_bars
from paygent.charts.markup import tag, text
from paygent.core.windows import from_us
from paygent.dashboard import markup
from paygent.dashboard.overview_page import by_model, day_names
from paygent.dashboard.reading import EVENTS_OF_USER, GATES_OF_USER, UserPage, UsersPage
from paygent.dashboard.shell import Frame
from paygent.dashboard.standing import LimitLine, Standing
from paygent.dashboard.tables import event_table, gate_table, limit_meter
from paygent.dashboard.wording import NONE, amount, plan_label, scope_label, share_of, used_of


def users(frame: Frame, seen: UsersPage) -> list[str]:
    """The content of the list."""
    if seen.users:
        shown = markup.grid(
            "Users",
            ["User", "Plan", "Spend of the period", "Used", "State", "Resets"],
            [_user_cells(frame, user) for user in seen.users],
            numbers=[3],
        )
    else:
        shown = markup.nothing(
            "No user's id begins with that." if seen.prefix else "Nobody has made a call yet."
        )
    return [
        tag("div", tag("h1", "Users"), search(frame, seen.prefix), class_="headline"),
        markup.card(shown, kind="wide"),
        _paging(frame, seen),
    ]


def _user_cells(frame: Frame, user: Standing) -> list[str]:
    spend = user.spend
    return [
        markup.link(frame.to_user(user.user_id), markup.name(user.user_id)),
        text(plan_label(user)),
        limit_meter(spend, is_metered=user.is_metered) + tag("span", text(used_of(spend)), class_="under"),
        text(share_of(spend)),
        state_badge(user),
        markup.moment(user.period.end_us, with_time=False),
    ]


def state_badge(user: Standing) -> str:
    """The state of a user, and which limit it is about where that is not the spend of the period."""
    is_plain = not user.is_metered or user.worst is user.spend
    return markup.badge(user.state, "" if is_plain else scope_label(user.worst.scope))


def search(frame: Frame, prefix: str, title: str = "Id begins with") -> str:
    """The form that looks users up."""
    field = (
        f'<input type="search" id="q" name="q" value="{text(prefix)}" autocomplete="off" spellcheck="false">'
    )
    return tag(
        "form",
        tag("label", text(title), for_="q"),
        field,
        tag("button", "Search", type="submit"),
        action=frame.to("users"),
        method="get",
        role="search",
        class_="search",
    )


def _paging(frame: Frame, seen: UsersPage) -> str:
    prefix = seen.prefix or None
    parts = []
    if not seen.is_first:
        parts.append(markup.link(frame.to("users", q=prefix), "First page", class_="button"))
    if seen.following is not None:
        address = frame.to("users", q=prefix, after=seen.following)
        parts.append(markup.link(address, "Next page", rel="next", class_="button"))
    return tag("nav", *parts, class_="paging", aria_label="Pages of users") if parts else ""


def user(frame: Frame, seen: UserPage) -> list[str]:
    """The content of one user's page."""
    who = seen.user
    head = tag(
        "div",
        tag(
            "div",
            tag("p", markup.link(frame.to("users"), "Users"), class_="crumb"),
            tag("h1", markup.name(who.user_id)),
        ),
        markup.badge(who.state),
        class_="headline",
    )
    unknown = (
        [] if seen.is_known else [markup.notice("Nobody with this id has made a call yet.", kind="info")]
    )
    return [
        head,
        *unknown,
        _figures(who),
        markup.card(
            markup.heading("Limits", f"Plan: {plan_label(who)}"),
            markup.grid(
                "Limits of the plan",
                ["Limit on", "Used", "Share", "Reserved now", "Warned at", "State", "Resets"],
                [_limit_cells(line, who) for line in who.lines],
                numbers=[2, 3, 4],
            ),
            kind="wide",
        ),
        _spend(seen),
        markup.card(
            markup.heading("Decisions of the gate", f"the newest {GATES_OF_USER}"),
            gate_table(seen.gates) or markup.nothing("No call of this user was warned of or refused."),
            kind="wide",
        ),
        markup.card(
            markup.heading("Metered calls", f"the newest {EVENTS_OF_USER}"),
            event_table(seen.events) if seen.events else markup.nothing("Nothing was metered yet."),
            kind="wide",
        ),
    ]


def _figures(who: Standing) -> str:
    spend = who.spend
    left = None if spend.cap is None else max(0, spend.hard - spend.used)
    most = who.cost_by_model[0] if who.cost_by_model else None
    return markup.tiles(
        markup.tile("Spent in this period", dollars(spend.used), _of(spend), limit_meter(spend)),
        markup.tile("Left", "Unlimited" if left is None else dollars(left), plan_label(who)),
        markup.tile(
            "Most spent on", most[0] if most else NONE, f"{dollars(most[1])} in this period" if most else ""
        ),
        markup.tile("Period", _span(who), "the last day is not part of it"),
    )


def _of(line: LimitLine) -> str:
    return "no limit" if line.cap is None else f"{share_of(line)} of {amount(line.scope, line.cap)}"


def _span(who: Standing) -> str:
    return " \u2013 ".join(day_label(from_us(us).date()) for us in (who.period.start_us, who.period.end_us))


def _limit_cells(line: LimitLine, who: Standing) -> list[str]:
    resets = NONE if line.resets_us is None else markup.moment(line.resets_us)
    warned = NONE if line.cap is None else amount(line.scope, line.soft)
    return [
        text(scope_label(line.scope)),
        limit_meter(line, is_metered=who.is_metered) + tag("span", text(used_of(line)), class_="under"),
        text(share_of(line)),
        text(amount(line.scope, line.reserved)),
        text(warned),
        markup.badge(line.state) if who.is_metered else markup.badge("off"),
        resets,
    ]


def _spend(seen: UserPage) -> str:
    if seen.spent is None:
        return ""
    chart = stacked_bars(
        day_names(seen.days), by_model(seen.days, seen.spent), show=dollars, tick=short_dollars,
        title=f"Spend per day, by model, in {number(len(seen.days))} days",
    )  # fmt: skip
    return markup.card(chart)
