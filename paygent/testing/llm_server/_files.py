"""OpenAI's files and batches."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from paygent.testing.llm_server._reply import Count, generated_of
from paygent.testing.llm_server._responses import responses_usage
from paygent.testing.llm_server._store import Store, StoredFile
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

# Answers one line of a batch: (path, JSON body) -> answer.
Run = Callable[[str, Json], Answer]


def uploaded(request: Request, store: Store) -> Answer:
    """Answer ``POST /files``."""
    upload = request.uploads[0] if request.uploads else None
    content = upload.content if upload else b""
    name = upload.filename if upload else "file"
    purpose = str(request.body.get("purpose") or "user_data")
    return json_answer(_kept(request, store, name, purpose, content))


def file_info(store: Store, file_id: str) -> Answer | None:
    """Answer ``GET /files/{id}``."""
    file = store.files.get(file_id)
    return json_answer(file.info) if file else None


def file_content(store: Store, file_id: str) -> Answer | None:
    """Answer ``GET /files/{id}/content``."""
    file = store.files.get(file_id)
    return bytes_answer(file.content, "application/octet-stream") if file else None


def file_list(store: Store) -> Answer:
    """Answer ``GET /files``."""
    infos = [file.info for file in store.files.all()]
    return json_answer(
        {"object": "list", "data": infos, "has_more": False, "first_id": None, "last_id": None}
    )


def _kept(request: Request, store: Store, name: str, purpose: str, content: bytes) -> Json:
    info: Json = {
        "id": request.new_id("file-"),
        "object": "file",
        "bytes": len(content),
        "created_at": request.now_s,
        "expires_at": None,
        "filename": name,
        "purpose": purpose,
        "status": "processed",
        "status_details": None,
    }
    store.files.put(info["id"], StoredFile(info, content))
    return info


# --- batches ----------------------------------------------------------------------------------------------


def batch_created(request: Request, store: Store, run: Run) -> Answer:
    """
    Answer ``POST /batches``.

    The lines run at once; what they generate is counted here. The result shows after the set number of
    polls. An unknown input file is an empty batch.
    """
    source = store.files.get(str(request.body.get("input_file_id")))
    lines = [json.loads(line) for line in source.content.splitlines() if line.strip()] if source else []
    answers = [run(line["url"], line["body"]) for line in lines]
    generated = _summed(answers)
    output = b"".join(
        _result_line(request, line, answer) for line, answer in zip(lines, answers, strict=True)
    )
    file = _kept(request, store, "batch_output.jsonl", "batch_output", output)
    done = _batch(request, file["id"], answers)
    store.batches.put(done["id"], done, polls=store.polls)
    return json_answer(_pending(done, "validating"), generated)


def batch_info(store: Store, batch_id: str) -> Answer | None:
    """Answer ``GET /batches/{id}``."""
    done, ready = store.batches.poll(batch_id)
    return json_answer(done if ready else _pending(done, "in_progress")) if done else None


def batch_cancelled(store: Store, batch_id: str) -> Answer | None:
    """Answer ``POST /batches/{id}/cancel``."""
    done = store.batches.get(batch_id)
    if done is None:
        return None
    stopped = _pending(done, "cancelled") | {"cancelled_at": done["completed_at"]}
    store.batches.put(batch_id, stopped)
    return json_answer(stopped)


def batch_list(store: Store) -> Answer:
    """Answer ``GET /batches``."""
    return json_answer(
        {"object": "list", "data": store.batches.all(), "has_more": False, "first_id": None, "last_id": None}
    )


def _result_line(request: Request, line: Json, answer: Answer) -> bytes:
    response = {
        "status_code": answer.status,
        "request_id": request.new_id("req_"),
        "body": json.loads(answer.body),
    }
    result = {
        "id": request.new_id("batch_req_"),
        "custom_id": line["custom_id"],
        "response": response,
        "error": None,
    }
    return dumps(result) + b"\n"


def _summed(answers: list[Answer]) -> dict[str, Generated]:
    totals: dict[str, Generated] = {}
    for answer in answers:
        for model, amount in answer.generated.items():
            totals[model] = totals.get(model, Generated()).plus(amount)
    return totals


def _batch(request: Request, output_file_id: str, answers: list[Answer]) -> Json:
    now_s = request.now_s
    failed = sum(answer.status >= 400 for answer in answers)
    counts = {"total": len(answers), "completed": len(answers) - failed, "failed": failed}
    return {
        "id": request.new_id("batch_"),
        "object": "batch",
        "endpoint": request.body.get("endpoint") or "/v1/chat/completions",
        "errors": None,
        "input_file_id": request.body.get("input_file_id") or "",
        "completion_window": request.body.get("completion_window") or "24h",
        "status": "completed",
        "output_file_id": output_file_id,
        "error_file_id": None,
        "created_at": now_s,
        "in_progress_at": now_s,
        "expires_at": now_s + DAY_S,
        "finalizing_at": now_s,
        "completed_at": now_s,
        "failed_at": None,
        "expired_at": None,
        "cancelling_at": None,
        "cancelled_at": None,
        "request_counts": counts,
        "usage": _batch_usage(answers),
        "metadata": request.body.get("metadata"),
    }


def _batch_usage(answers: list[Answer]) -> Json:
    blocks: list[Any] = [json.loads(answer.body).get("usage") or {} for answer in answers]
    amounts = [generated_of(block) for block in blocks]
    return responses_usage(
        Count(sum(amount.input_tokens for amount in amounts), sum(amount.output_tokens for amount in amounts))
    )


def _pending(done: Json, status: str) -> Json:
    unset = dict.fromkeys(("output_file_id", "finalizing_at", "completed_at", "usage"))
    counts = done["request_counts"] | {"completed": 0, "failed": 0}
    return done | unset | {"status": status, "request_counts": counts}
