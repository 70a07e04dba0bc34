"""The settings of the served project."""

from __future__ import annotations

from typing import Any

from paygent_django.api.limits import BODY_MAX
from paygent_django.server import environment, logs

DEBUG = False
SECRET_KEY = environment.secret_key()
ALLOWED_HOSTS = environment.allowed_hosts()
USE_TZ = True
TIME_ZONE = "UTC"
ROOT_URLCONF = "paygent_django.server.urls"
WSGI_APPLICATION = "paygent_django.server.wsgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {"default": environment.database()}
DATA_UPLOAD_MAX_MEMORY_SIZE = BODY_MAX
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "ninja",  # its page to browse the API, from files of its own
    "paygent_django",
]
MIDDLEWARE = [
    "paygent_django.server.requests.RequestMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("MinimumLengthValidator", "CommonPasswordValidator", "NumericPasswordValidator")
]
_ORIGIN = environment.public_origin()
CSRF_TRUSTED_ORIGINS = [_ORIGIN] if _ORIGIN else []
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = bool(_ORIGIN and _ORIGIN.startswith("https://"))
SESSION_COOKIE_HTTPONLY = True
X_FRAME_OPTIONS = "DENY"
# The files of the admin and of the API's page, straight from the packages: nothing is collected beforehand.
STATIC_URL = "/static/"
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = False
LOGGING = logs.SETTINGS
# No LLM is called here: this is the other end.
SILENCED_SYSTEM_CHECKS = ["paygent.W001"]
PAYGENT: dict[str, Any] = {}
PAYGENT_WEBHOOK_NETWORKS = environment.webhook_networks()
