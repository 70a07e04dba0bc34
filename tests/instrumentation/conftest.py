from __future__ import annotations

from collections.abc import Iterator

import pytest
from sdk_recording import RecordingMeter

from paygent.context import paygent_context
from paygent.instrumentation import seam
from paygent.meter import active


@pytest.fixture
def meter() -> Iterator[RecordingMeter]:
    """Record what the instrumented SDKs tell the meter, in the context of the user ``alice``."""
    before, recording = active.get(), RecordingMeter()
    active.activate(recording)  # type: ignore[arg-type]  # records what the engine would do
    seam.instrument()
    with paygent_context("alice"):
        yield recording
    seam.uninstrument()
    active.activate(before)
