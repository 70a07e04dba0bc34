"""The server as an ASGI application, for an ASGI server of one's own."""

from __future__ import annotations

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "paygent_django.server.settings")
application = get_asgi_application()
