"""Who waits for the ledger, counted: what is said of patience must not depend on how busy a machine is."""

from __future__ import annotations

import pytest

from paygent.meter.gate import Gate
from paygent.meter.patience import Patience


class Waits:
    """What was waited for since ``forget``, each answer once, however often anybody looked for it."""

    def __init__(self):
        self._answers = []

    def note(self, answer):
        if all(answer is not other for other in self._answers):
            self._answers.append(answer)

    def forget(self):
        self._answers.clear()

    def __len__(self):
        return len(self._answers)


@pytest.fixture
def ledger_waits(monkeypatch):
    """``len(ledger_waits)``: how often anybody has waited for an answer of the ledger."""
    waits = Waits()
    for kind, name in ((Gate, "_wait"), (Gate, "_wait_async"), (Patience, "wait")):
        monkeypatch.setattr(kind, name, noted(waits, getattr(kind, name)))
    return waits


def noted(waits, wait):
    def noting(self, answer, *args, **options):
        waits.note(answer)
        return wait(self, answer, *args, **options)

    return noting
