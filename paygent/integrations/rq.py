"""
RQ: the jobs that a user's request enqueues are his, wherever they run.

::

    from paygent.integrations.rq import PaygentJob

    queue = Queue(connection=redis, job_class=PaygentJob)

and for the worker ``rq worker --job-class paygent.integrations.rq.PaygentJob``. The user is noted in the
job's ``meta`` when it is made, and stays there through retries and schedules.
"""

from __future__ import annotations

import os
from concurrent.futures import wait
from typing import Any

try:
    from rq.job import Job
except ImportError as error:
    raise ImportError('this needs RQ: pip install "paygent[rq]"') from error

from paygent.context import as_payer, current_payer
from paygent.meter import active
from paygent.propagation import NOTE, note, noted_payer

_GIVE_BACK_S = 3.0
_pid = os.getpid()


class PaygentJob(Job):
    """A job that remembers whose it is; without a user it is like any other."""

    @classmethod
    def create(cls, *args: Any, **kwargs: Any) -> Job:
        """Make a job, and note who pays for what it will ask of a model."""
        job = super().create(*args, **kwargs)
        text = note()
        if text is not None:
            job.meta = {**job.meta, NOTE: text}  # the dict is the caller's, who may use it again
        return job

    def perform(self) -> Any:
        """Run the job for the user in its note."""
        around, noted = current_payer(), noted_payer(self.meta.get(NOTE))  # in a worker nothing is around
        try:
            with as_payer(around if noted is None else noted.within(around)):
                return super().perform()
        finally:
            if os.getpid() != _pid:
                _give_back()


def _give_back() -> None:
    """Settle and keep no lease, in the child that RQ forks for one job and ends without Python's own exit."""
    meter = active.get()
    if meter is not None and not meter.closed and meter.wallets:
        meter.settle_dropped()
        wait((meter.exporter.flush(give_back=True),), timeout=_GIVE_BACK_S)
