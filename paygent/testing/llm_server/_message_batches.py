"""Anthropic's message batches."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timezone

from paygent.testing.llm_server._store import Store
from paygent.testing.llm_server._values import (
    Answer,
    Generated,
    Json,
    Request,
    bytes_answer,
    dumps,
    json_answer,
)

DAY_S = 86_400


def created(request: Request, store: Store, run: Callable[[Json], Answer]) -> Answer:
    """Answer ``POST /messages/batches``; the requests run at once, the result shows after the set polls."""
    lines, generated, failed = [], dict[str, Generated](), 0
    for each in request.body.get("requests") or ():
        answer = run(each["params"])
        failed += answer.status >= 400
        lines.append(dumps({"custom_id": each["custom_id"], "result": _result(answer)}) + b"\n")
        for model, amount in answer.generated.items():
            generated[model] = generated.get(model, Generated()).plus(amount)
    done = _batch(request, len(lines), failed)
    store.message_batches.put(done["id"], (done, b"".join(lines)), polls=store.polls)
    return json_answer(_pending(done), generated)


def info(store: Store, batch_id: str) -> Answer | None:
    """Answer ``GET /messages/batches/{id}``."""
    found, ready = store.message_batches.poll(batch_id)
    return json_answer(found[0] if ready else _pending(found[0])) if found else None


def results(store: Store, batch_id: str) -> Answer | None:
    """Answer ``GET /messages/batches/{id}/results``."""
    found = store.message_batches.get(batch_id)
    return bytes_answer(found[1], "application/binary") if found else None


def cancelled(store: Store, batch_id: str) -> Answer | None:
    """Answer ``POST /messages/batches/{id}/cancel``."""
    found = store.message_batches.get(batch_id)
    if found is None:
        return None
    return json_answer(_pending(found[0]) | {"processing_status": "canceling"})


def _result(answer: Answer) -> Json:
    body = json.loads(answer.body)
    if answer.status >= 400:
        return {"type": "errored", "error": body}
    return {"type": "succeeded", "message": body}


def _batch(request: Request, total: int, failed: int) -> Json:
    batch_id = request.new_id("msgbatch_")
    host = request.headers.get("host", "127.0.0.1")
    scheme = request.headers.get("x-forwarded-proto", "http")
    return {
        "id": batch_id,
        "type": "message_batch",
        "processing_status": "ended",
        "request_counts": _counts(succeeded=total - failed, errored=failed),
        "created_at": _iso(request.now_s),
        "ended_at": _iso(request.now_s),
        "expires_at": _iso(request.now_s + DAY_S),
        "archived_at": None,
        "cancel_initiated_at": None,
        "results_url": f"{scheme}://{host}/v1/messages/batches/{batch_id}/results",
    }


def _counts(**counts: int) -> Json:
    return dict.fromkeys(("processing", "succeeded", "errored", "canceled", "expired"), 0) | counts


def _pending(done: Json) -> Json:
    counts = done["request_counts"]
    waiting = _counts(processing=counts["succeeded"] + counts["errored"])
    return done | {
        "processing_status": "in_progress",
        "request_counts": waiting,
        "ended_at": None,
        "results_url": None,
    }


def _iso(now_s: int) -> str:
    return datetime.fromtimestamp(now_s, timezone.utc).isoformat().replace("+00:00", "Z")
