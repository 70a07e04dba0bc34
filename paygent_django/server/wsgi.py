"""The server as a WSGI application, also for a WSGI server of one's own."""

from __future__ import annotations

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "paygent_django.server.settings")
application = get_wsgi_application()
