"""The routers of the API."""

from __future__ import annotations

from typing import Any

import ninja


class Router(ninja.Router):
    """Answers HEAD wherever it answers GET (RFC 9110, section 9.1); what probes a server asks with HEAD."""

    def get(self, path: str, **given: Any) -> Any:
        """Decorate the operation that reads *path*."""
        return self.api_operation(["GET", "HEAD"], path, **given)
