"""Clients of the apps under test."""

import contextlib
import json
import time

import httpx
from websockets.sync.client import connect


def eventually(condition, timeout_s=60.0):
    """Wait for what another thread is about to do."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


@contextlib.contextmanager
def signed_in(url, user):
    """A client who has logged in and sends what the app gave him: a cookie or a bearer token."""
    with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
        answer = client.post("/login", params={"user": user})
        assert answer.is_success, answer.text
        if answer.headers["content-type"] == "application/json" and "access_token" in answer.json():
            client.headers["authorization"] = f"Bearer {answer.json()['access_token']}"
        yield client


def dial(client, path):
    cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in client.cookies.jar)
    headers = {"authorization": client.headers.get("authorization", ""), "cookie": cookies}
    url = str(client.base_url).replace("http", "ws", 1).rstrip("/") + path
    return connect(url, additional_headers=headers, proxy=None)


def last_event(text):
    """Name and data of the last event of a server-sent stream."""
    name, data = [part for part in text.split("\n\n") if part.strip()][-1].strip().split("\n")
    return name.removeprefix("event: "), json.loads(data.removeprefix("data: "))
