"""Packages that are loaded late, on whatever thread needs them first: nobody forks in the middle of it."""

from __future__ import annotations

import os
import threading

# Held over such an import, which may cause another one. A fork waits for its end: in a child forked in the
# middle of it the import would never end, as the thread that was at it is not there.
loading = threading.RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=loading.acquire, after_in_parent=loading.release, after_in_child=loading.release
    )
