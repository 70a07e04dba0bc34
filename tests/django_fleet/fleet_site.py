"""The project as gunicorn loads it."""

import os

os.environ["DJANGO_SETTINGS_MODULE"] = "fleet_settings"

from django.core.wsgi import get_wsgi_application  # once the settings are named

application = get_wsgi_application()
