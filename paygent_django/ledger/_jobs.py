"""Batches whose usage comes later."""

from __future__ import annotations

from paygent.ledger import Job
from paygent_django.ledger._accounts import Accounts
from paygent_django.ledger._sql import Sql
from paygent_django.models import EndUser, JobAlias
from paygent_django.models import Job as JobRow
from paygent_django.models.fields import escape, from_json, to_json, unescape

_JOB = ("project_id", "user_id", "provider", "job_id", "session_id", "model", "metadata")


def put(accounts: Accounts, job: Job) -> None:
    """Remember whom a batch belongs to."""
    session_id, model = (None if text is None else escape(text) for text in (job.session_id, job.model))
    row = (
        accounts.project_pk, accounts.pk(job.user_id), escape(job.provider), escape(job.job_id), session_id,
        model, to_json(job.metadata),
    )  # fmt: skip
    accounts.sql.put(JobRow, _JOB, ("project_id", "provider", "job_id"), [row])


def link(accounts: Accounts, provider: str, job_id: str, alias: str) -> None:
    """Let *alias* name the batch too."""
    row = (accounts.project_pk, escape(provider), escape(alias), escape(job_id))
    columns = ("project_id", "provider", "alias", "job_id")
    accounts.sql.put(JobAlias, columns, columns[:3], [row])


def find(sql: Sql, project_pk: int, provider: str, name: str) -> Job | None:
    """The batch of that id or alias."""
    query = (
        "SELECT j.job_id, u.external_user_id, j.session_id, j.provider, j.model, j.metadata "  # noqa: S608
        f"FROM {sql.table(JobRow)} j JOIN {sql.table(EndUser)} u ON u.id = j.user_id "
        "WHERE j.project_id = %s AND j.provider = %s AND (j.job_id = %s OR j.job_id IN "
        f"(SELECT a.job_id FROM {sql.table(JobAlias)} a "
        "WHERE a.project_id = %s AND a.provider = %s AND a.alias = %s))"
    )
    whose = (project_pk, escape(provider), escape(name))
    row = sql.row(query, (*whose, *whose))
    if row is None:
        return None
    texts = (None if text is None else unescape(text) for text in row[:5])
    return Job._make((*texts, from_json(row[5])))
