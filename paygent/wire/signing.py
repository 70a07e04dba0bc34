"""The signature of a webhook: HMAC-SHA256 over its time and body."""

from __future__ import annotations

import hashlib
import hmac

HEADER = "Paygent-Signature"
TOLERANCE_S = 300


def sign(secret: str, body: bytes, now_s: int) -> str:
    """The header's value: ``t=<seconds since the epoch>,v1=<hexadecimal>``."""
    return f"t={now_s},v1={_digest(secret, body, now_s)}"


def verify(secret: str, header: str, body: bytes, now_s: float, *, tolerance_s: float = TOLERANCE_S) -> bool:
    """
    Whether *header* signs *body*, and was made within *tolerance_s* of *now_s*: an old one is a replay.

    For receivers written in Python; compared in constant time.
    """
    parts = dict(part.strip().partition("=")[::2] for part in header.split(","))
    moment = parts.get("t", "")
    if not (moment.isascii() and moment.isdigit() and len(moment) < 15):
        return False
    given = parts.get("v1", "").strip().encode(errors="replace")  # as text it could only be ASCII
    is_equal = hmac.compare_digest(_digest(secret, body, int(moment)).encode(), given)
    return is_equal and abs(now_s - int(moment)) <= tolerance_s


def _digest(secret: str, body: bytes, now_s: int) -> str:
    return hmac.new(secret.encode(), f"{now_s}.".encode() + body, hashlib.sha256).hexdigest()
