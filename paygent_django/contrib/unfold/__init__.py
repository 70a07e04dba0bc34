"""Paygent's admin pages for projects that use django-unfold: add this app to ``INSTALLED_APPS``."""
