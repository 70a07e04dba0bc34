"""The ledger of connected mode: a Paygent backend, reached over HTTP with a project's key."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from paygent._once import Once
from paygent.core.events import Event
from paygent.ledger import Bucket, GateRow, Job, LeaseReply, LeaseRequest
from paygent.ledgers._backend_link import Link, RejectedError
from paygent.ledgers._snapshots import Snapshots
from paygent.ledgers.sqlite import SqliteLedger
from paygent.wire.events import event_as_json, event_from_json, gate_as_json, gate_from_json
from paygent.wire.fields import WireError
from paygent.wire.leases import reply_as_json, reply_from_json, request_as_json

log = logging.getLogger("paygent")

KNOWN_MAX = 50_000
SNAPSHOT_EVERY_US = 1_000_000


class BackendLedger:
    """
    Leases, events and the audit trail at the backend; this machine keeps a journal, and what was last known.

    Plans and subscriptions belong to the backend: registering one here changes nothing there. *path* is the
    local SQLite file: it holds the batches that wait for their results, and the snapshots. Events that the
    backend does not have yet are in the journal, whatever happens to this process.
    """

    def __init__(self, base_url: str, api_key: str, path: Path, link: Link | None = None) -> None:
        self.link = link or Link(base_url, api_key)
        self.project = hashlib.sha256(f"{self.link.root} {api_key}".encode()).hexdigest()[:16]
        self._local = SqliteLedger(path)
        self._journals = path.with_name(path.name + ".journals") / self.project
        self._snapshots = Snapshots(path, self.project)
        self._versions: dict[str, str] = {}  # of the plan that was last heard of, by user
        self._configs: dict[str, str] = {}  # by plan version
        self._unsaved: dict[str, LeaseReply] = {}
        self._saved_us = 0
        self._told = Once()

    @property
    def journal_dir(self) -> Path | None:
        """Beside the local file; each project has its own, so that nothing is recovered into another one."""
        return self._journals

    # -- leases and events ------------------------------------------------------------------------------

    def lease(self, requests: Sequence[LeaseRequest]) -> list[LeaseReply]:
        versions = [self._version_known(request.user_id) for request in requests]
        known = [self._configs.get(version or "") for version in versions]
        said = self.link.post(
            "/leases", [request_as_json(*pair) for pair in zip(requests, versions, strict=True)]
        )
        if not isinstance(said, list) or len(said) != len(requests):
            raise self.link.misunderstood("not each lease operation has one")
        replies = [self._reply(*pair) for pair in zip(said, known, strict=True)]
        self._remember(replies)
        return replies

    def settle(self, events: Sequence[Event], close: Sequence[str] = ()) -> int:
        new = 0
        if events or not close:
            new = self._posted(self.link.post("/events/batch", [event_as_json(event) for event in events]))
        for lease_id in close:
            self.link.delete(f"/leases/{quote(lease_id, safe='')}")
        return new

    def _posted(self, said: Any) -> int:
        """
        How many of a batch were new.

        Raises:
            RejectedError: Some are, and would be again.
            LedgerError: It is no answer of a backend, so that nothing may be taken as delivered.
        """
        try:
            new, rejected = int(said["accepted"]), list(said.get("rejected") or ())
            if rejected:
                row = rejected[0]
                reason = f"{row.get('field')} {row.get('detail')}"
                raise RejectedError(200, f"the backend rejects {len(rejected)}: {reason}")
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise self.link.misunderstood(f"{type(error).__name__}: {error}") from None
        return new

    def _version_known(self, user_id: str) -> str | None:
        version = self._versions.get(user_id)
        return version if version in self._configs else None

    def _reply(self, said: Any, known_config: str | None) -> LeaseReply:
        try:
            reply = reply_from_json(said, known_config)
        except WireError as error:
            raise self.link.misunderstood(str(error)) from error
        if len(self._versions) >= KNOWN_MAX:
            self._versions.clear()
            self._configs.clear()
        if reply.plan.config is not None:
            self._versions[reply.account.user_id] = reply.plan.key
            self._configs[reply.plan.key] = reply.plan.config
        return reply

    # -- snapshots --------------------------------------------------------------------------------------

    def _remember(self, replies: Sequence[LeaseReply]) -> None:
        """Keep what is known now, once a second at most."""
        for reply in replies:
            self._unsaved[reply.account.user_id] = reply
        now_us = max((reply.now_us for reply in replies), default=0)
        if self._unsaved and abs(now_us - self._saved_us) >= SNAPSHOT_EVERY_US:
            self._saved_us = now_us
            self._save()

    def _save(self) -> None:
        unsaved, self._unsaved = self._unsaved, {}
        self._snapshots.save({user_id: reply_as_json(reply) for user_id, reply in unsaved.items()})

    def remembered(self, user_id: str) -> LeaseReply | None:
        """What was last known here of a user; may be asked from any thread."""
        said = self._snapshots.read(user_id)
        try:
            return None if said is None else reply_from_json(said)
        except WireError:
            log.warning("the last known state of a user cannot be read: it was written by another version")
            return None

    # -- queries ----------------------------------------------------------------------------------------

    def totals(self, user_id: str) -> dict[Bucket, int]:
        said = self.link.get(f"/users/{quote(user_id, safe='')}/totals") or []
        return {(scope, window): int(amount) for scope, window, amount in said}

    def plans(self) -> dict[str, str]:
        said = self.link.get("/config/plans") or {}
        return {plan["name"]: json.dumps(plan) for plan in said.get("plans", ())}

    def events(self, user_id: str | None = None, *, limit: int = 1000) -> list[Event]:
        query = {"limit": limit, **({} if user_id is None else {"user_id": user_id})}
        return [event_from_json(row) for row in (self.link.get("/events", query) or {}).get("events", ())]

    def gate_events(self, user_id: str | None = None, *, limit: int = 100) -> list[GateRow]:
        path = "/gate-events" if user_id is None else f"/users/{quote(user_id, safe='')}/gate-events"
        return [
            gate_from_json(row) for row in (self.link.get(path, {"limit": limit}) or {}).get("events", ())
        ]

    def record_gates(self, rows: Sequence[GateRow]) -> None:
        if rows:
            self.link.post("/gate-events/batch", [gate_as_json(row) for row in rows])

    # -- what belongs to the backend ----------------------------------------------------------------------

    def put_plan(self, name: str, config: str) -> None:  # noqa: ARG002  # the port
        self._tell(f"plan {name!r} is configured in code: with an API key the backend's plans bind")

    def put_account(self, user_id: str, changes: Mapping[str, Any]) -> None:  # noqa: ARG002  # the port
        self.link.post("/leases", [])  # who is away is found out: then the change holds here
        if changes:
            self._tell("users are assigned to plans in code: with an API key the backend's plans bind")

    def _tell(self, message: str) -> None:
        if self._told.is_new(message):
            log.info("%s", message)

    # -- what stays on this machine -----------------------------------------------------------------------

    def put_job(self, job: Job) -> None:
        self._local.put_job(job)

    def link_job(self, provider: str, job_id: str, alias: str) -> None:
        self._local.link_job(provider, job_id, alias)

    def job(self, provider: str, name: str) -> Job | None:
        return self._local.job(provider, name)

    def pulse(self) -> int:
        """It would have to be asked."""
        return 0

    def forget_after_fork(self) -> None:
        self.link.forget_after_fork()
        self._local.forget_after_fork()

    def close(self) -> None:
        if self._unsaved:
            self._save()
        self.link.close()
        self._local.close()
