"""OpenAI's assistants: threads, and runs that end with their usage."""

from __future__ import annotations

from collections.abc import Iterator

from paygent.testing.llm_server._reply import billed, counted
from paygent.testing.llm_server._store import Store
from paygent.testing.llm_server._values import Answer, Json, Request, event, json_answer, stream_answer
from paygent.testing.llm_server._words import count_prompt


def thread_created(request: Request) -> Answer:
    """Answer ``POST /threads``."""
    return json_answer(
        {
            "id": request.new_id("thread_"),
            "object": "thread",
            "created_at": request.now_s,
            "metadata": request.body.get("metadata") or {},
            "tool_resources": {},
        }
    )


def run_created(request: Request, store: Store, thread_id: str | None = None) -> Answer:
    """Answer ``POST /threads/runs``, ``.../{id}/runs`` and ``.../submit_tool_outputs``."""
    body = request.body
    read = count_prompt(body.get("thread"), body.get("instructions"), body.get("additional_messages"))
    count = counted(request, read, len(request.controls.reply_pieces()))
    block = {
        "prompt_tokens": count.input,
        "completion_tokens": count.output,
        "total_tokens": count.input + count.output,
        "prompt_token_details": {"cached_tokens": count.cache_read},
    }
    usage, generated = billed(request, count, block)
    done = _run(request, thread_id or request.new_id("thread_")) | {"usage": usage}
    store.runs.put(done["id"], done, polls=store.polls)
    if request.streams:
        return stream_answer(_run_events(done), generated)
    return json_answer(_pending(done, "queued"), generated)


def run_info(store: Store, run_id: str) -> Answer | None:
    """Answer ``GET /threads/{id}/runs/{id}``."""
    done, ready = store.runs.poll(run_id)
    return json_answer(done if ready else _pending(done, "in_progress")) if done else None


def _run(request: Request, thread_id: str) -> Json:
    body, now_s = request.body, request.now_s
    return {
        "id": request.new_id("run_"),
        "object": "thread.run",
        "created_at": now_s,
        "assistant_id": body.get("assistant_id") or "asst_testing",
        "thread_id": thread_id,
        "status": "completed",
        "started_at": now_s,
        "expires_at": None,
        "cancelled_at": None,
        "failed_at": None,
        "completed_at": now_s,
        "required_action": None,
        "last_error": None,
        "model": request.model,
        "instructions": body.get("instructions") or "",
        "tools": body.get("tools") or [],
        "metadata": body.get("metadata") or {},
        "incomplete_details": None,
        "temperature": 1.0,
        "top_p": 1.0,
        "max_completion_tokens": body.get("max_completion_tokens"),
        "max_prompt_tokens": body.get("max_prompt_tokens"),
        "truncation_strategy": {"type": "auto", "last_messages": None},
        "response_format": "auto",
        "tool_choice": "auto",
        "parallel_tool_calls": True,
    }


def _pending(done: Json, status: str) -> Json:
    return done | {"status": status, "completed_at": None, "usage": None}


def _run_events(done: Json) -> Iterator[bytes]:
    for state in ("created", "queued", "in_progress"):
        status = "queued" if state == "created" else state
        yield event(_pending(done, status), f"thread.run.{state}")
    yield event(done, "thread.run.completed")
    yield event(b"[DONE]", "done")
