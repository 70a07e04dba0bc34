"""A project on one database, told by the environment; every view runs in a transaction."""

import os

import fleet_databases

SECRET_KEY = "a test signs with this"
ALLOWED_HOSTS = ["*"]
LOGGING_CONFIG = None  # what fails here fails on purpose
USE_TZ = True
ROOT_URLCONF = "fleet_views"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "paygent_django",
    "paygent_django.contrib.stripe",
]
MIDDLEWARE = ["fleet_views.tell_pid", "paygent_django.middleware.PaygentMiddleware"]
DATABASES = {
    "default": fleet_databases.settings(os.environ["FLEET_DATABASE"]) | {"ATOMIC_REQUESTS": True},
}
PAYGENT = {
    "GET_USER_ID": "fleet_views.user_id",
    "FAIL_OPEN": False,
    "STRIPE_WEBHOOK_SECRET": "whsec_fleet",
    "STRIPE_PLANS": {"price_pro": "many", "price_team": "none"},
}
