"""The project as its servers load it."""

import os

os.environ["DJANGO_SETTINGS_MODULE"] = "served_settings"

from django.core.asgi import get_asgi_application  # once the settings are named
from django.core.wsgi import get_wsgi_application

application = get_wsgi_application()
app = get_asgi_application()
