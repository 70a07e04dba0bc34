"""The refusal as a page, for a person who followed a link or sent a form in a browser."""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Mapping
from datetime import datetime
from html import escape
from typing import Any

_STYLE = """
:root{color-scheme:light dark;--ink:#1b1f2a;--soft:#5b6272;
--card:#fff;--back:#f3f4f8;--line:#e2e5ee;--go:#3c4fe0}
@media (prefers-color-scheme:dark){
:root{--ink:#eceef5;--soft:#a3abbd;--card:#1a1e29;--back:#10131b;--line:#2b3140;--go:#7d8cff}}
*{box-sizing:border-box}
body{margin:0;min-height:100vh;display:grid;place-items:center;padding:1.5rem;background:var(--back);
color:var(--ink);font:1rem/1.55 system-ui,sans-serif}
main{max-width:27rem;width:100%;padding:2.25rem;background:var(--card);border:1px solid var(--line);
border-radius:1rem;box-shadow:0 1.25rem 3rem -1.5rem #0004}
h1{margin:0 0 .5rem;font-size:1.4rem;line-height:1.25;letter-spacing:-.01em}
p{margin:.5rem 0;overflow-wrap:anywhere}
.soft{color:var(--soft);font-size:.925rem}
.bar{height:.5rem;margin:1.25rem 0 .5rem;border-radius:1rem;background:#d6382f}
a{display:inline-block;margin-top:1.25rem;padding:.7rem 1.25rem;border-radius:.6rem;background:var(--go);
color:var(--card);font-weight:600;text-decoration:none}
a:focus-visible{outline:3px solid var(--ink);outline-offset:2px}
"""
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
<meta name="robots" content="noindex"><title>{title}</title><style>{style}</style></head>
<body><main><h1>{title}</h1><p>{detail}</p>{amounts}{reset}{upgrade}</main></body></html>
"""


def page(problem: Mapping[str, Any]) -> str:
    """
    Word a problem object (see :mod:`paygent.web.limit_response`) as HTML.

    Every text is escaped; there are no scripts and no outside resources.
    """
    limit, upgrade = problem["limit"] or {}, problem["upgrade"] or {}
    amounts = reset = link = ""
    if "used" in limit and limit["limit"] not in ("0", "0.00"):
        used, cap = (_shown(limit[name], limit["unit"]) for name in ("used", "limit"))
        amounts = f'<div class="bar"></div><p class="soft">{escape(used)} of {escape(cap)} used</p>'
    if problem["resets_at"]:
        moment = datetime.fromisoformat(problem["resets_at"].replace("Z", "+00:00"))
        reset = f'<p class="soft">Starts anew on {moment.day} {moment:%B %Y, %H:%M} UTC.</p>'
    if upgrade.get("url"):
        link = f'<a href="{escape(upgrade["url"])}">{escape(upgrade["label"])}</a>'
    words = {name: escape(problem[name]) for name in ("title", "detail")}
    return _PAGE.format(style=_STYLE, amounts=amounts, reset=reset, upgrade=link, **words)


def _shown(amount: str, unit: str) -> str:
    return f"${amount}" if unit == "usd" else f"{int(amount):,} tokens"


@functools.cache
def content_policy() -> str:
    """Return the policy to send with the page: nothing but its own style."""
    digest = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
