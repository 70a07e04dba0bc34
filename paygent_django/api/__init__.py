"""The REST API of the backend; mounted by ``paygent_django.urls`` under ``api/v1/``."""
