"""The usage meter for templates."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

# No style and no script: a page's content security policy stays as it is, its own sheet gives the looks.
_METER = Markup(
    '<div class="paygent-meter" data-state="{state}">{bar}'
    '<span class="paygent-meter-text">{words}</span></div>'
)
_BAR = Markup(
    '<meter class="paygent-meter-bar" min="0" max="100" value="{percent}" '
    'aria-label="Used of the plan {plan}">{rounded}%</meter> '
)


def meter(shown: dict[str, Any]) -> Markup:
    """
    Return where a user stands as HTML: accessible, escaped, without style.

    Args:
        shown: The answer of :func:`paygent.web.usage.me`.
    """
    plan, percent = shown["plan"]["label"], shown["percent"]
    bar: str | Markup = ""
    if percent is not None:
        bar = _BAR.format(plan=plan, percent=percent, rounded=round(percent))
    return _METER.format(state=shown["state"], bar=bar, words=_words(plan, shown))


def _words(plan: str, shown: dict[str, Any]) -> str:
    if shown["limit"] is not None:
        return f"{plan}: ${shown['used']} of ${shown['limit']} used"
    if shown["percent"] is not None:
        return f"{plan}: {round(shown['percent'])}% used"
    return plan if shown["used"] is None else f"{plan}: ${shown['used']} used"
